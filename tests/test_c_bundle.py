"""The folder `c/`: which files, which names, what compiles, and what its helpers compute."""

import re
import shutil
import subprocess
import tomllib
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bundles import described, merged, planned, put, small_graph, small_model
from elftools.elf.elffile import ELFFile
from integer_models import OPERATOR_CASES, RICH_CASES, Case

from nas.deploy.c_bundle import TEST_VECTORS, Description, c_bundle
from nas.deploy.c_text import comment, identifiers
from nas.deploy.toolchain import (
    _TARGETS,
    WARNINGS,
    compile_host,
    find_compiler,
    find_host_compiler,
)
from nas.errors import RunError
from nas.hardware.program import kernel_of
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel
from nas.network.ops import Conv2d, Table
from nas.network.random_model import random_inputs, with_random_numbers

ROOT = Path(__file__).parents[1]
LICENCE = (
    "This folder, generated code and kernels alike, is yours: use, change and sell it without"
    " conditions."
)


def bundle(
    model: IntegerModel, about: Description | None = None, prefix: str = "model"
) -> dict[str, str]:
    inputs = random_inputs(model.graph, TEST_VECTORS, np.random.default_rng(0))
    return c_bundle(model, planned(model.graph), inputs, about or described(model), prefix)


def every_kernel() -> IntegerModel:
    """A model with one operator for each kernel that the tests' operators need."""
    chosen: dict[str, Case] = {}
    for case in [*OPERATOR_CASES, *RICH_CASES]:
        op, shapes = case
        graph = Graph(tuple(Input(f"in{i}", s) for i, s in enumerate(shapes)), (op,), op.name)
        kernel = kernel_of(op, graph).name
        chosen.setdefault(f"{kernel} {getattr(op, 'relu', '')}", case)
    return merged(list(chosen.values()), np.random.default_rng(0))


# ---------------------------------------------------------------- compilers


@dataclass(frozen=True)
class Object:
    """What a compiled file defines for others and asks of them, and its variables."""

    defines: frozenset[str]
    asks: frozenset[str]
    writable: frozenset[str]


def legs() -> dict[str, list[str]]:
    """Name -> a compiler's command with its options, as users would give them."""
    zig, host = find_compiler(), find_host_compiler()
    assert zig.family == "zig"
    strict = [*WARNINGS, "-O2", "-ffunction-sections", "-c"]
    bare = ["-ffreestanding", "-fno-sanitize=all", "-fomit-frame-pointer", "-fno-unwind-tables"]
    found = {
        "clang": [*zig.command, "cc", *strict, "-fno-sanitize=all"],
        "cortex-m4": [*zig.command, "cc", *_TARGETS["zig"][0], *strict, *bare],
        "cortex-m4f": [*zig.command, "cc", *_TARGETS["zig"][1], *strict, *bare],
    }
    if host.family != "zig":
        found["host"] = [*host.command, *strict]
    return found


LEGS = legs()
CROSS = ("cortex-m4", "cortex-m4f")


def tool(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = [str(word) for word in command]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


def compiled(
    command: Sequence[str], folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Object]:
    """Every .c and .S file of a bundle, by its path inside; any warning is an error."""
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        monkeypatch.setenv(name, str(folder.parent / "zig"))
    out.mkdir()
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".c", ".S"))

    def one(source: Path) -> tuple[str, Object]:
        made = out / f"{source.name}.o"
        done = tool(*command, f"-I{folder}", source, "-o", made, cwd=out)
        assert not done.returncode and not done.stderr, done.stderr
        return source.relative_to(folder).as_posix(), read_object(made)

    with ThreadPoolExecutor(2) as threads:
        return dict(threads.map(one, sources))


def read_object(path: Path) -> Object:
    with path.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")  # none where nothing is compiled
        symbols = [
            (symbol.name, symbol["st_shndx"] == "SHN_UNDEF")
            for symbol in (table.iter_symbols() if table else ())
            if symbol.name and symbol["st_info"]["bind"] in ("STB_GLOBAL", "STB_WEAK")
        ]
        writable = {
            section.name
            for section in elf.iter_sections()
            if section["sh_flags"] & 3 == 3 and section["sh_size"]  # SHF_WRITE | SHF_ALLOC
        }
    return Object(
        frozenset(name for name, is_asked in symbols if not is_asked),
        frozenset(name for name, is_asked in symbols if is_asked),
        frozenset(writable),
    )


def reached(objects: Mapping[str, Object], start: str) -> tuple[set[str], set[str]]:
    """Files that a linker would take from `start` on, and the names that none of them defines."""
    owner = {name: file for file, held in objects.items() for name in held.defines}
    taken, missing, todo = {start}, set(), deque(objects[start].asks)
    while todo:
        name = todo.popleft()
        if name not in owner:
            missing.add(name)
        elif owner[name] not in taken:
            taken.add(owner[name])
            todo += objects[owner[name]].asks
    return taken, missing


OF_FLOATS = re.compile(r"__(aeabi_(f\w+|i2f|ui2f)|\w+sf\w*)$")  # of dequantise and quantise
NEVER = {"malloc", "calloc", "realloc", "free", "sbrk", "printf", "memcpy", "memset", "memmove"}


@pytest.mark.parametrize("leg", LEGS)
def test_compiles_without_a_warning(
    leg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And needs no library, no heap, no variable."""
    model = every_kernel()
    folder = put(tmp_path / "c", model, random_inputs(model.graph, 2, np.random.default_rng(0)))
    objects = compiled(LEGS[leg], folder, tmp_path / "o", monkeypatch)
    main = objects.pop("main.c")
    assert main.asks >= {"model_run"} and main.defines == {"main"}
    _, missing = reached(objects, "model.c")
    assert not NEVER & missing
    floats = {name for name in missing if OF_FLOATS.match(name)} if leg == "cortex-m4" else set()
    assert missing - floats <= {"_GLOBAL_OFFSET_TABLE_"}
    for file, held in objects.items():
        assert all(name.startswith("model_") for name in held.defines), file
        if leg in CROSS:
            assert not held.writable, file
            assert file == "model.c" or not held.asks - {
                n for o in objects.values() for n in o.defines
            }


CHOICES = {
    "classifier": lambda: small_model(("a", "b")),
    "weights_of_2_bits": lambda: merged(
        [c for c in OPERATOR_CASES if getattr(c[0], "weight_bits", 0) == 2][:4],
        np.random.default_rng(1),
    ),
    "no_weights": lambda: merged(
        [c for c in OPERATOR_CASES if not hasattr(c[0], "weight_bits")][-9:],
        np.random.default_rng(2),
    ),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_kernels_that_are_needed_and_no_others(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what compiled objects ask of each other, not by what their sources say."""
    model = CHOICES[choice]()
    folder = put(tmp_path / "c", model, random_inputs(model.graph, 2, np.random.default_rng(0)))
    taken: set[str] = set()
    for leg in ("clang", "cortex-m4"):  # the portable path, and the other
        objects = compiled(LEGS[leg], folder, tmp_path / leg, monkeypatch)
        files, missing = reached(objects, "model.c")
        assert not {name for name in missing if name.startswith("model_")}
        taken |= files
    assert taken == set(objects) - {"main.c"}
    texts = {path.name: path.read_text() for path in (folder / "kernels").iterdir()}
    included = {n for text in texts.values() for n in re.findall(r'#\s*include "([^"]+)"', text)}
    bodies = {name for name in texts if name.endswith((".h", ".inc"))}
    assert bodies <= included | {"kernels.h"} and included <= texts.keys()


# ---------------------------------------------------------------- files


def test_files() -> None:
    files = bundle(small_model())
    outside = {name for name in files if not name.startswith("kernels/")}
    assert outside == {
        *("model.c", "model.h", "main.c", "test_vectors.h"),
        *("Makefile", "CMakeLists.txt", "README.md"),
    }
    assert "#define NAS(name) model_##name\n" in files["kernels/names.h"]
    for name, text in files.items():
        assert not re.search(r"@[A-Z]+@", text) and text.endswith("\n") and "\t\t" not in text, name
    for name in (n for n in files if n.startswith("kernels/") and n != "kernels/names.h"):
        held = (ROOT / "nas" / "runtime" / Path(name).name).is_file()
        assert held or name.startswith("kernels/plane"), name


def test_readme() -> None:
    model = small_model(("accel", "gyro"))
    text = bundle(model, described(model, title="Candidate c1", classes=("sit", "@ARENA@")))[
        "README.md"
    ]
    assert text.startswith("# Candidate c1\n") and text.endswith(f"\n{LICENCE}\n")
    assert "Classes, in the order of the logits: sit, @ARENA@\n" in text
    assert f"{planned(model.graph).workspace.bytes:,} bytes, aligned to 4" in text
    assert "model_quantise_accel(arena, accel); /* float accel[] */\nmodel_quantise_gyro" in text
    raw = bundle(model, Description("x", (), {}))["README.md"]
    assert "/* write int8 values to model_input_gyro(arena) */" in raw


def test_every_file_of_the_package_is_installed() -> None:
    """Files that are no modules go into a wheel only if a pattern names them."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    listed: set[Path] = set()
    for package, patterns in setup["package-data"].items():
        folder = ROOT / package.replace(".", "/")
        listed |= {file for pattern in patterns for file in folder.glob(pattern)}
    files = {
        file
        for folder in ("deploy", "runtime", "emulation", "hardware")
        for file in (ROOT / "nas" / folder).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert not files - listed


# ---------------------------------------------------------------- header


def constants(header: str) -> dict[str, str]:
    return dict(re.findall(r"^#define (\w+) (\S+)$", header, re.M))


def test_the_header_in_cpp(tmp_path: Path) -> None:
    """Calls from C++ are of C functions: their names are not mangled."""
    model = small_model()
    folder = put(tmp_path / "c", model, random_inputs(model.graph, 1, np.random.default_rng(0)))
    source = tmp_path / "main.cpp"
    source.write_text(
        '#include "model.h"\nstatic uint32_t arena[MODEL_ARENA_BYTES / 4];\n'
        "void once();\nvoid once() { model_run(arena); }\n"
    )
    zig = find_compiler().command
    done = tool(*zig, "c++", "-Wall", "-Wextra", "-c", f"-I{folder}", source, cwd=tmp_path)
    assert not done.returncode and not done.stderr, done.stderr
    assert "model_run" in read_object(tmp_path / "main.o").asks


def test_header() -> None:
    model = small_model(("accel", "gyro"))
    program, held = planned(model.graph), constants(bundle(model)["model.h"])
    assert held["MODEL_ARENA_BYTES"] == f"{program.workspace.bytes}u"
    assert program.workspace.bytes % 4 == 0
    assert program.workspace.bytes >= program.plan.arena_bytes
    names = {"OUTPUT": model.graph.output, "INPUT_ACCEL": "accel", "INPUT_GYRO": "gyro"}
    for role, tensor in names.items():
        scale, shape = model.scales[tensor], model.graph.shapes[tensor]
        assert held[f"MODEL_{role}_SIZE"] == f"{int(np.prod(shape))}u"
        assert held[f"MODEL_{role}_OFFSET"] == f"{program.plan.offsets[tensor]}u"
        assert np.float32(held[f"MODEL_{role}_SCALE"].rstrip("f")) == np.float32(scale.scale)
        assert held[f"MODEL_{role}_ZERO_POINT"] == f"({scale.zero_point})"
        assert program.plan.offsets[tensor] % 4 == 0
    assert len(held) == 1 + 4 * len(names)


# ---------------------------------------------------------------- names

ODD = (
    *("accel*/ #error x", "/* x", "a b", "a_b", "A_B", "a_b_2", "int", "9", "ünï", "x\n#error y"),
    *("run", "x_size", "x", "SIZE", "%s\\"),
)


def with_odd_operators() -> Graph:
    """Operators whose names are those of other operators' constants."""
    shape = (1, 4, 2)
    ops = []
    for name, source in (("x", "in"), ("x_weights", "x"), ("x_table", "x_weights")):
        ops.append(Conv2d(name, (source,), 2, (1, 1), (1, 1), "valid", 8, True))
    ops.append(Conv2d("/* conv_8 */", ("x_table",), 2, (1, 1), (1, 1), "valid", 4, True))
    return Graph((Input("in", shape),), (*ops, Table("in ", ("/* conv_8 */",), "tanh")), "in ")


def check_program(folder: Path, out: Path, prefix: str = "model") -> int:
    """The exit status of the bundle's own test."""
    kernels = sorted((folder / "kernels").glob("*.[cS]"))
    sources = [folder / "main.c", folder / f"{prefix}.c", *kernels]
    compile_host(find_host_compiler(), sources, out, cache=out.parent, include=[folder])
    return subprocess.run([out], check=False).returncode


def test_odd_names(tmp_path: Path) -> None:
    model = small_model(ODD)
    inputs = random_inputs(model.graph, 2, np.random.default_rng(0))
    about = described(model, title="*/ int x; /*\n#error")
    folder = put(tmp_path / "c", model, inputs, about=about)
    assert check_program(folder, tmp_path / "check") == 0
    header = (folder / "model.h").read_text()
    found = re.findall(r"^static inline int8_t \*model_input_(\w*)\(", header, re.M)
    assert len(found) == len({name.lower() for name in found}) == len(ODD)
    assert "#error" in header and not re.search(r"^\s*#error", header, re.M)


@pytest.mark.parametrize("prefix", ["int", "op2", "kernels", "names"])
def test_prefixes(prefix: str, tmp_path: Path) -> None:
    model = with_random_numbers(with_odd_operators(), np.random.default_rng(3))
    inputs = random_inputs(model.graph, 2, np.random.default_rng(0))
    folder = put(tmp_path / "c", model, inputs, about=described(model), prefix=prefix)
    assert check_program(folder, tmp_path / "check", prefix) == 0


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        *((p, "must be at most 31 small letters, digits") for p in ("", "9a", "A", "a b", "a-b")),
        *((p, "must be at most 31 small letters, digits") for p in ("_a", "a" * 32, "a\n", "ä")),
        *((p, rf"choose another, such as {p}_model") for p in ("nas", "main", "check", "stdint")),
        ("test_vectors", "choose another, such as test_vectors_model"),
    ],
)
def test_prefixes_that_are_refused(prefix: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        bundle(small_model(), prefix=prefix)


def test_identifiers_and_comments() -> None:
    assert identifiers(["a b", "a_b", "A.B", "a_b_2"]) == {
        "a b": "a_b",
        "a_b": "a_b_2",
        "A.B": "A_B_3",
        "a_b_2": "a_b_2_2",
    }
    for text in ("*/", "/*", "/*/", "**//", "*/*", "*\u202e/", "x\n*/"):
        shown = comment(text)
        assert "*/" not in shown and "/*" not in shown and shown.isprintable()


# ---------------------------------------------------------------- building


@pytest.fixture
def built(tmp_path: Path) -> Path:
    model = small_model(("accel", "gyro", "mic"))
    return put(
        tmp_path / "c", model, random_inputs(model.graph, 2, np.random.default_rng(0)),
        about=described(model),
    )  # fmt: skip


def spoil(folder: Path) -> None:
    """Makes the second recorded output another."""
    file = folder / "test_vectors.h"
    head, begin, rest = file.read_text().partition("expected[TEST_VECTORS][3] = {\n")
    first, second, rest = rest.split("\n", 2)
    spoiled = re.sub(r"\{(-?\d+)", lambda m: f"{{{int(m[1]) ^ 1}", second)
    file.write_text("\n".join([head + begin + first, spoiled, rest]))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make(built: Path) -> None:
    quiet = "--no-print-directory"  # these tests may be run by make themselves
    done = tool("make", quiet, "check", cwd=built)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all outputs are as recorded\n")
    assert tool("make", "clean", cwd=built).returncode == 0
    assert not [*built.rglob("*.o"), *built.rglob("*.a"), *built.glob("check")]
    spoil(built)
    done = tool("make", quiet, "check", cwd=built)
    assert done.returncode and not done.stdout.endswith("all outputs are as recorded\n")


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cmake(built: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    for step in (("-S", built, "-B", build), ("--build", build)):
        done = tool("cmake", *step, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in tool("ctest", cwd=build).stdout
    # As a part of an application: a library, and no program of its own.
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(app C ASM)\nadd_subdirectory(c)\n"
        "add_executable(app app.c)\ntarget_link_libraries(app PRIVATE model)\n"
    )
    (tmp_path / "app.c").write_text(
        '#include "model.h"\nstatic uint32_t arena[MODEL_ARENA_BYTES / 4];\n'
        "int main(void) { model_run(arena); return 0; }\n"
    )
    for step in (("-S", tmp_path, "-B", tmp_path / "app"), ("--build", tmp_path / "app")):
        done = tool("cmake", *step, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert tool(tmp_path / "app" / "app", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "app" / "c" / "check").exists()


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cross_builds(built: Path, tmp_path: Path) -> None:
    """Both build files take the assembly, too, and CMake then builds no program."""
    compiler, archiver = tmp_path / "cc", tmp_path / "ar"
    zig, target = LEGS["cortex-m4"][0], " ".join(_TARGETS["zig"][0])
    places = " ".join(f"ZIG_{which}_CACHE_DIR={tmp_path}/zig" for which in ("GLOBAL", "LOCAL"))
    begin = f"#!/bin/sh\nexport {places}\nexec {zig}"
    compiler.write_text(f'{begin} cc {target} -fno-sanitize=all "$@"\n')
    archiver.write_text(f'{begin} ar "$@"\n')
    for script in (compiler, archiver):
        script.chmod(0o755)
    done = tool("make", "-j2", "libmodel.a", f"CC={compiler}", f"AR={archiver}", cwd=built)
    assert done.returncode == 0, done.stderr
    assert "model_gemm_8" in read_object(built / "kernels" / "gemm_8.S.o").defines
    options = [f"-DCMAKE_{name}_COMPILER={compiler}" for name in ("C", "ASM")]
    options += ["-DCMAKE_SYSTEM_NAME=Generic", "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"]
    for step in (
        ("-S", built, "-B", "cross", f"-DCMAKE_AR={archiver}", *options),
        ("--build", "cross", "--parallel", "2"),
    ):
        done = tool("cmake", *step, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (tmp_path / "cross").rglob("gemm_8.S.o*")
    assert "model_gemm_8" in read_object(made).defines
    assert not (tmp_path / "cross" / "check").exists()


def test_the_self_test_can_fail(built: Path, tmp_path: Path) -> None:
    assert check_program(built, tmp_path / "check") == 0
    spoil(built)
    assert check_program(built, tmp_path / "check") == 2  # the number of the input


def test_the_same_text_every_time() -> None:
    assert bundle(small_model()) == bundle(small_model())
    assert small_graph() == small_graph()
