"""Compilers: C and assembly into a program for a Cortex-M4, or into something for this machine.

The Cortex-M4's compiler is zig's, of the package `ziglang`, unless `--cc` names another. No library
is linked, neither C's nor the compiler's own, unless asked for: what a model needs, it brings.
Nothing is written but to the output's folder and to the cache that the caller names.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from nas.errors import BuildError, ToolMissing

Family = Literal["zig", "gcc", "clang"]

INSTALL = "pip install 'mcu-nas[emulate]'"
FLASH_ORIGIN, RAM_ORIGIN = 0x0800_0000, 0x2000_0000
MOST_ERROR_LINES = 6

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_TARGETS: dict[Family, tuple[tuple[str, ...], tuple[str, ...]]] = {  # without and with an FPU
    "zig": (
        ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"),
        ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
    ),
    "gcc": (
        ("-mcpu=cortex-m4+nofp", "-mthumb", "-mfloat-abi=soft"),
        ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    ),
    "clang": (
        ("--target=arm-none-eabi", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft"),
        (
            *("--target=arm-none-eabi", "-mcpu=cortex-m4", "-mthumb"),
            *("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
        ),
    ),
}
_OPTIMISATION: dict[Family, tuple[str, ...]] = {
    # zig keeps a frame pointer and checks arithmetic unless told otherwise.
    "zig": ("-O2", "-fomit-frame-pointer", "-fno-sanitize=all"),
    # The scheduler before register allocation spills what kernels keep in registers.
    "gcc": ("-O2", "-fno-schedule-insns"),
    "clang": ("-O2",),
}


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler: `command` starts it, `version` is the first line of what it says of itself."""

    command: tuple[str, ...]
    family: Family
    version: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What a program may use: `stack_bytes`, a multiple of 8, are the lowest of `ram_bytes`."""

    flash_bytes: int
    ram_bytes: int
    stack_bytes: int
    flash_origin: int = FLASH_ORIGIN
    ram_origin: int = RAM_ORIGIN


def cache_folder() -> Path:
    """Where compilers and the emulator keep their files: $NAS_CACHE_DIR or ~/.cache/nas."""
    return Path(os.environ.get("NAS_CACHE_DIR") or Path.home() / ".cache" / "nas") / "compilers"


def find_compiler(cc: str | None = None) -> Compiler:
    """The Cortex-M4's compiler: what `cc` names, a path or a command, else zig, else the gcc wheel.

    Raises:
        ToolMissing: there is none.
    """
    if cc is not None:
        return _named(cc)
    for path in (_zig(), _gcc_wheel()):
        if path is not None:
            return _named(str(path))
    raise ToolMissing(
        f"ziglang: not installed, and needed to compile for the Cortex-M4: {INSTALL};"
        " or name another compiler with --cc, such as arm-none-eabi-gcc"
    )


def find_host_compiler(cc: str | None = None) -> Compiler:
    """The compiler for this machine: what `cc` names, else cc, gcc or clang, else zig.

    Raises:
        ToolMissing: there is none.
    """
    if cc is not None:
        return _named(cc)
    for command in ("cc", "gcc", "clang"):
        if shutil.which(command):
            return _named(command)
    zig = _zig()
    if zig is None:
        raise ToolMissing(f"cc: no C compiler for this machine; {INSTALL} brings one")
    return _named(str(zig))


def compile_firmware(
    compiler: Compiler,
    sources: Sequence[Path],
    out: Path,
    memory: Memory,
    *,
    has_fpu: bool,
    roots: Sequence[str],
    cache: Path,
    include: Sequence[Path] = (),
    defines: Sequence[str] = (),
    runtime: bool = False,
) -> None:
    """Compile .c and .S files with a start-up into the program `out`, an ELF file.

    Args:
        roots: functions and variables that are kept; all else goes that none of them uses.
        cache: folder for the compiler's own files.
        runtime: link the compiler's run-time library, as soft floats and 64-bit divisions need it.

    Raises:
        BuildError: the compiler refuses, `memory` does not hold the program, or a folder cannot be
            written.
    """
    options = [
        *_TARGETS[compiler.family][has_fpu],
        *_OPTIMISATION[compiler.family],
        *("-ffreestanding", "-ffunction-sections", "-fdata-sections"),
        *("-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
        *_link_options(compiler, runtime),
    ]
    script_text = _linker_script(memory, roots)
    with (
        _writable(out, cache),
        tempfile.TemporaryDirectory(prefix="firmware-", dir=out.parent) as folder,
        resources.as_file(resources.files("nas.deploy") / "firmware") as firmware,
    ):
        script = Path(folder) / "firmware.ld"
        script.write_text(script_text)
        files = [firmware / "start.c", firmware / "memory.c", *sources]
        options += ["-T", str(script)]
        done = _run(compiler, options, files, out, cache, include, defines)
    if done.returncode:
        raise BuildError(_does_not_fit(done.stderr, memory) or _refusal(compiler, done.stderr))


def compile_host(
    compiler: Compiler,
    sources: Sequence[Path],
    out: Path,
    *,
    cache: Path,
    include: Sequence[Path] = (),
    defines: Sequence[str] = (),
    shared: bool = False,
    sanitize: bool = False,
    options: Sequence[str] = (),
) -> None:
    """Compile for this machine: a program, or a library if `shared`.

    `sanitize` makes the program stop at the first address error or undefined behaviour.

    Raises:
        BuildError: the compiler refuses.
        ToolMissing: the compiler is zig, which brings no address sanitizer.
    """
    if sanitize and compiler.family == "zig":
        raise ToolMissing("zig has no address sanitizer: install gcc or clang for this machine")
    checks = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
    options = [
        "-O2",
        *(("-shared", "-fPIC") if shared else ()),
        *(checks if sanitize else ("-fno-sanitize=all",) if compiler.family == "zig" else ()),
        *options,
    ]
    with _writable(out, cache):
        done = _run(compiler, options, sources, out, cache, include, defines)
    if done.returncode:
        raise BuildError(_refusal(compiler, done.stderr))


def _zig() -> Path | None:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / ("zig.exe" if sys.platform == "win32" else "zig")
    return path if path.exists() else None


def _gcc_wheel() -> Path | None:
    spec = importlib.util.find_spec("gcc_arm_none_eabi")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "toolchain" / "bin" / "arm-none-eabi-gcc"
    return path if path.exists() else None


@cache
def _named(cc: str) -> Compiler:
    path = shutil.which(cc)
    if path is None and Path(cc).name == "zig" and (zig := _zig()):
        path = str(zig)
    if path is None:
        raise ToolMissing(f"{cc}: no such compiler; give its path, or leave --cc out and {INSTALL}")
    is_zig = Path(path).name.startswith("zig")
    try:
        said = subprocess.run(
            [path, "version" if is_zig else "--version"],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise ToolMissing(f"{cc}: cannot be started: {error.strerror}") from None
    first = (said.stdout.splitlines() or [""])[0].strip()
    if said.returncode or not first:
        raise ToolMissing(f"{cc}: does not say its version, so it is not a compiler known here")
    family: Family = "zig" if is_zig else "clang" if "clang" in said.stdout else "gcc"
    return Compiler((path,), family, f"zig {first}" if is_zig else first)


def _linker_script(memory: Memory, roots: Sequence[str]) -> str:
    if memory.stack_bytes % 8 or not 0 < memory.stack_bytes < memory.ram_bytes:
        raise BuildError(
            f"stack of {memory.stack_bytes} bytes in {memory.ram_bytes} bytes of RAM: must be a"
            " multiple of 8 that leaves room for variables"
        )
    text = (resources.files("nas.deploy") / "firmware" / "firmware.ld").read_text()
    values = {
        "ROOTS": " ".join(roots),
        "ROOT_CHECKS": "\n".join(f'ASSERT(DEFINED({name}), "{name} is missing")' for name in roots),
        "FLASH_ORIGIN": hex(memory.flash_origin),
        "FLASH_BYTES": str(memory.flash_bytes),
        "STATICS_ORIGIN": hex(memory.ram_origin + memory.stack_bytes),
        "STATICS_BYTES": str(memory.ram_bytes - memory.stack_bytes),
    }
    return re.sub("@([A-Z_]+)@", lambda match: values[match[1]], text)


def _link_options(compiler: Compiler, runtime: bool) -> list[str]:
    options = ["-Wl,--gc-sections", "-Wl,-e,Reset_Handler"]
    if compiler.family == "clang":
        options.append("-fuse-ld=lld")
    if not runtime:
        options.append("-nostdlib")
    elif compiler.family == "gcc":
        options += ["-nostartfiles", "-nodefaultlibs"]
    elif compiler.family == "clang":
        raise ToolMissing(
            f"{compiler.version}: brings no run-time library for the Cortex-M4; use zig or gcc"
        )
    return options


@contextmanager
def _writable(out: Path, cache: Path) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        place = error.filename or out.parent
        raise BuildError(f"{place}: cannot be written: {error.strerror}") from None


def _run(
    compiler: Compiler,
    options: Sequence[str],
    sources: Sequence[Path],
    out: Path,
    cache: Path,
    include: Sequence[Path],
    defines: Sequence[str],
) -> subprocess.CompletedProcess[str]:
    command = [
        *compiler.command,
        *(["cc"] if compiler.family == "zig" else []),
        *WARNINGS,
        *options,
        *(f"-I{path.absolute()}" for path in include),
        *(f"-D{name}" for name in defines),
        *(str(path.absolute()) for path in sources),
        *(["-lgcc"] if "-nodefaultlibs" in options else []),  # after what needs it
        *("-o", str(out.absolute())),
    ]
    environment = {**os.environ, "LC_ALL": "C"}
    # zig keeps every object for ever; only its own library, built once, is worth keeping.
    with tempfile.TemporaryDirectory(prefix="objects-", dir=out.absolute().parent) as objects:
        if compiler.family == "zig":
            environment["ZIG_GLOBAL_CACHE_DIR"] = str(cache.absolute() / "zig")
            environment["ZIG_LOCAL_CACHE_DIR"] = objects
        try:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        except OSError as error:
            raise ToolMissing(f"{command[0]}: cannot be started: {error.strerror}") from None


def _does_not_fit(output: str, memory: Memory) -> str | None:
    excess = {
        region: int(count)
        for region, count in re.findall(
            r"region ['`]?(FLASH|RAM)'?:? overflowed by (\d+) bytes", output
        )
    }
    if "RAM" in excess:
        return (
            f"RAM of {memory.ram_bytes} bytes is {excess['RAM']} bytes too small for a stack of"
            f" {memory.stack_bytes} bytes and the program's variables"
        )
    if "FLASH" in excess:
        return f"Flash of {memory.flash_bytes} bytes is {excess['FLASH']} bytes too small"
    return None


def _refusal(compiler: Compiler, output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = re.compile(r"error:|undefined|missing|No such|cannot")
    first = [line for line in lines if telling.search(line) and "collect2" not in line] or lines
    shown = "; ".join(first[:MOST_ERROR_LINES]) or "no message"
    return f"{compiler.version} refuses the program: {shown}"
