"""Compilers: what they are given, what they refuse, and what is said when there is none."""

import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from nas.deploy.toolchain import (
    Compiler,
    Memory,
    compile_firmware,
    compile_host,
    find_compiler,
    find_host_compiler,
)
from nas.emulation.elf import read_elf
from nas.errors import BuildError, MachineFault, ToolMissing

MEMORY = Memory(flash_bytes=4096, ram_bytes=4096, stack_bytes=1024)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def build(
    folder: Path,
    text: str,
    cache: Path,
    *,
    memory: Memory = MEMORY,
    has_fpu: bool = False,
    roots: Sequence[str] = ("run",),
    runtime: bool = False,
) -> Path:
    source, out = folder / "source.c", folder / "program.elf"
    source.write_text(text)
    compile_firmware(
        find_compiler(),
        [source],
        out,
        memory,
        has_fpu=has_fpu,
        roots=roots,
        cache=cache,
        runtime=runtime,
    )
    return out


def test_only_what_is_used_is_linked(tmp_path: Path, cache: Path) -> None:
    text = """
        int run(int x); int unused(int x); extern const char table[100];
        int helper(int x); int helper(int x) { return x + 1; }
        int run(int x) { return helper(x); } int unused(int x) { return table[x]; }
        const char table[100] = {1};
    """
    image = read_elf(build(tmp_path, text, cache))
    assert "run" in image.symbols
    assert not {"unused", "table", "memcpy"} & set(image.symbols)
    assert set(image.sections) == {".text"}
    assert image.flash_bytes - image.startup_bytes < 12
    assert 64 < image.startup_bytes < 250
    assert image.stack_top == MEMORY.ram_origin + MEMORY.stack_bytes


def test_copies_without_a_library(tmp_path: Path, cache: Path) -> None:
    text = """
        typedef struct { int values[100]; } block; int run(block *x, block *y);
        int run(block *x, block *y) { *x = *y; *y = (block){{0}}; return 0; }
    """
    assert {"memcpy", "__aeabi_memcpy4"} & set(read_elf(build(tmp_path, text, cache)).symbols)


def test_the_run_time_library_on_demand(tmp_path: Path, cache: Path) -> None:
    text = "float run(float x, float y); float run(float x, float y) { return x * y; }"
    with pytest.raises(BuildError, match="undefined symbol: __aeabi_fmul"):
        build(tmp_path, text, cache)
    image = read_elf(build(tmp_path, text, cache, runtime=True))
    assert "__aeabi_fmul" in image.symbols
    image.check_fpu()  # finds nothing
    image = read_elf(build(tmp_path, text, cache, has_fpu=True))  # needs none
    with pytest.raises(MachineFault, match="run: uses the FPU"):
        image.check_fpu()


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (Memory(4096, 2048, 1024), r"RAM of 2048 bytes is 8 bytes too small for a stack of 1024"),
        (Memory(128, 4096, 1024), r"Flash of 128 bytes is \d+ bytes too small"),
        (Memory(4096, 1024, 1024), r"stack of 1024 bytes in 1024 bytes of RAM: must be a multiple"),
        (Memory(4096, 4096, 1020), r"stack of 1020 bytes in 4096 bytes of RAM: must be a multiple"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, cache: Path, memory: Memory, message: str) -> None:
    text = "char held[1030]; int run(int x); int run(int x) { return held[x]++; }"
    build(tmp_path, text, cache, memory=Memory(4096, 2056, 1024))
    with pytest.raises(BuildError, match=message):
        build(tmp_path, text, cache, memory=memory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int run(int x) { return y; }", r"zig .* refuses .*source.c:1:.*error: .*'y'"),
        ("char run(int); char run(int x) { return x; }", r"error: implicit conversion"),
        ("int run(int); int run(int x) { int y; return x; }", r"unused variable"),
        ("int other(void); int other(void) { return 1; }", r"refuses .*run is missing"),
    ],
)
def test_what_is_refused(tmp_path: Path, cache: Path, text: str, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        build(tmp_path, text, cache)
    assert "\n" not in str(caught.value)


def test_assembly_for_a_unit_that_is_not_there(tmp_path: Path, cache: Path) -> None:
    text = 'void run(void); void run(void) { __asm__("vmov s0, r0"); }'
    build(tmp_path, text, cache, has_fpu=True)
    with pytest.raises(BuildError, match=r"requires: (VFP|fp registers)"):
        build(tmp_path, text, cache)


def test_all_files_of_zig_are_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(home)
    build(tmp_path, "int run(int); int run(int x) { return x + 2; }", cache)
    assert not list(home.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"home", "source.c", "program.elf"}
    assert (cache / "zig").is_dir()


def test_folders_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    text = "int run(int); int run(int x) { return x; }"
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="file: cannot be written: File exists"):
        build(tmp_path, text, tmp_path / "file")
    source, out = tmp_path / "source.c", tmp_path / "missing" / "program.elf"
    with pytest.raises(BuildError, match=r"missing/firmware-.*: cannot be written: No such file"):
        compile_firmware(
            find_compiler(), [source], out, MEMORY, has_fpu=False, roots=["run"], cache=cache
        )


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"ziglang: not installed.*: pip install 'mcu-nas\[emulate\]'; or name .* --cc"
    with pytest.raises(ToolMissing, match=message):
        find_compiler()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolMissing, match="cc: no C compiler for this machine; pip install"):
        find_host_compiler()


def test_a_compiler_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_compiler("zig") == find_compiler()  # the package's, where no other is in the path
    with pytest.raises(ToolMissing, match="no-such-gcc: no such compiler; give its path"):
        find_compiler("no-such-gcc")
    for name, said, family in (
        ("arm-none-eabi-gcc", "arm-none-eabi-gcc 13.2\nFree Software", "gcc"),
        ("my-cc", "Apple clang version 15", "clang"),
    ):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\nprintf '{said}\\n'\n")
        script.chmod(0o755)
        found = find_compiler(str(script))
        assert found == Compiler((str(script),), family, said.splitlines()[0])
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_compiler("my-cc").family == "clang"
    (tmp_path / "silent").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "silent").chmod(0o755)
    with pytest.raises(ToolMissing, match="does not say its version"):
        find_compiler(str(tmp_path / "silent"))


def test_host(tmp_path: Path, cache: Path) -> None:
    source, out = tmp_path / "source.c", tmp_path / "program"
    source.write_text(
        "int main(int count, char **words) { (void)words;"
        " int held[2] = {0, 2147483647}; return held[count] + count == 0; }"
    )
    compiler = find_host_compiler()
    compile_host(compiler, [source], out, cache=cache)
    assert subprocess.run([out], check=False).returncode in (0, 1)
    with pytest.raises(ToolMissing, match="zig has no address sanitizer"):
        compile_host(find_compiler(), [source], out, cache=cache, sanitize=True)
    if compiler.family != "zig":
        compile_host(compiler, [source], out, cache=cache, sanitize=True)
        done = subprocess.run([out], check=False, capture_output=True, text=True)
        assert done.returncode
        assert "signed integer overflow" in done.stderr
        assert (
            "out of bounds"
            in subprocess.run([out, "1"], check=False, capture_output=True, text=True).stderr
        )
    source.write_text("int main(void) { return unknown; }")
    with pytest.raises(BuildError, match=r"refuses the program: .*error: .*unknown"):
        compile_host(compiler, [source], out, cache=cache)
