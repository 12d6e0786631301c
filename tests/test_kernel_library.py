"""The kernel library `nas/runtime`: what holds for every file of it, read and compiled."""

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest
from bundles import merged, planned
from integer_models import OPERATOR_CASES, RICH_CASES, STEPWISE_CASES

from nas.deploy.kernel_files import files_of
from nas.deploy.to_c import to_c
from nas.deploy.toolchain import compile_host, find_host_compiler
from nas.errors import UnsupportedOp

RUNTIME = Path(__file__).parents[1] / "nas" / "runtime"
FILES = {path.name: path.read_text() for path in sorted(RUNTIME.iterdir()) if path.is_file()}
MOST_LINES, MOST_COLUMNS = 400, 100

STATIC = re.compile(r"^static\s[^=;{}()]*?\b(\w+)\([^;{]*\)\s*\{", re.M)
KERNEL = re.compile(r"\bNAS\((\w+)\)\(", re.M)
HEAP = re.compile(r"\b(malloc|calloc|realloc|alloca|free|sbrk|memcpy|memset|memmove)\s*\(")
# A variable that is not constant: static inside or outside of a function, or one of the file.
VARIABLE = re.compile(
    r"^\s*static (?!const\b|inline\b)[^(]*[;=]"
    r"|^(?!typedef|extern|static|return)[a-z]\w* [\w *]+(\[.*\])? ?[=;]",
    re.M,
)


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def kernels() -> list[str]:
    """What kernels.h declares."""
    return KERNEL.findall(without_comments(FILES["kernels.h"]))


@pytest.mark.parametrize("name", FILES)
def test_sizes_and_purpose(name: str) -> None:
    text = FILES[name]
    lines = text.splitlines()
    assert text.endswith("\n") and "\t" not in text and len(lines) <= MOST_LINES
    assert not [line for line in lines if len(line) > MOST_COLUMNS or line != line.rstrip()]
    said = next(line for line in lines if line and not line.startswith(("#include", "#if")))
    assert said.startswith("/*"), "no comment says what the file is for"


@pytest.mark.parametrize("name", FILES)
def test_neither_heap_nor_variables(name: str) -> None:
    """A kernel touches its arguments alone."""
    text = without_comments(FILES[name]).replace("__builtin_memcpy", "")
    assert not HEAP.search(text)
    if not name.endswith((".S", ".inc")):
        outside = re.sub(r"\{.*?^\}", "{}", text, flags=re.S | re.M)  # no local variables
        assert not VARIABLE.search(outside), VARIABLE.search(outside)
        assert not re.search(r"^[ \t]+static (?!const\b)", text, re.M)
    else:
        assert not re.search(r"\.(data|bss|comm|lcomm)\b", text)


def test_those_checks_see_what_they_look_for() -> None:
    for text in ("static int32_t count;", "static int8_t held[4] = {0};", "uint32_t state;"):
        assert VARIABLE.search(text + "\n"), text
    for text in ("static const int8_t held[4] = {0};", "static inline int f(int x);", "return x;"):
        assert not VARIABLE.search(text + "\n"), text
    assert HEAP.search("p = malloc(4);") and not HEAP.search("freeze(4)")
    assert STATIC.findall("static inline int8_t mean(int32_t sum,\n    int n) {\n") == ["mean"]
    assert STATIC.findall("static const nas_row *next(int n)\n{\n") == ["next"]


def test_static_functions_have_names_of_their_own() -> None:
    """Flash is accounted for by function: two of one name would be taken for one."""
    owners: dict[str, set[str]] = {}
    for name, text in FILES.items():
        for function in STATIC.findall(without_comments(text)):
            owners.setdefault(function, set()).add(name)
    assert len(owners) > 20
    shared = {function: files for function, files in owners.items() if len(files) > 1}
    assert not shared


def test_static_functions_have_no_names_of_kernels() -> None:
    """Nor may one be named as a kernel is without its prefix."""
    every = {function for text in FILES.values() for function in STATIC.findall(text)}
    assert not every & set(kernels())


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".S")])
def test_assembly_is_for_the_cortex_m4_only(name: str) -> None:
    text = re.sub(r"^#include .*", "", without_comments(FILES[name]), flags=re.M)
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines[0] == "#if defined(__ARM_FEATURE_DSP)" and lines[-1] == "#endif"
    opened = [line for line in lines if line.startswith("#if")]
    assert len(opened) == len([line for line in lines if line.startswith("#endif")])
    assert not [line for line in lines[1:-1] if line.startswith("#else") and len(opened) == 1]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".S", ".inc"))])
def test_labels_of_assembly_are_its_own(name: str) -> None:
    """A label that is no kernel is local, so that no symbol of two models is the same."""
    labels = re.findall(r"^(\w[\w.]*|NAS\(\w+\)):", without_comments(FILES[name]), re.M)
    assert all(re.fullmatch(r"NAS\(\w+\)|NAME|PLANE|\d+", label) for label in labels), labels


def test_every_kernel_has_a_portable_definition(tmp_path: Path) -> None:
    (tmp_path / "names.h").write_text("#define NAS(name) lib_##name\n")
    out = tmp_path / "library.so"
    compile_host(
        find_host_compiler(), sorted(RUNTIME.glob("*.[cS]")), out, cache=tmp_path,
        include=[tmp_path, RUNTIME], shared=True,
    )  # fmt: skip
    library = ctypes.CDLL(str(out))  # all that a function needs is there, too
    declared = kernels()
    assert len(declared) == len(set(declared)) > 15
    assert not [name for name in declared if not hasattr(library, f"lib_{name}")]


def test_every_kernel_and_every_file_is_used() -> None:
    """By some operator: no dead kernel is carried along."""
    called: set[str] = set()
    for stages in (False, True):
        model = merged(OPERATOR_CASES + RICH_CASES + STEPWISE_CASES, np.random.default_rng(0))
        program = planned(model.graph, stages)
        called |= to_c(model, program, {}).functions
        planes = [k.plane.text for k in program.kernels.values() if k.plane is not None]
    assert called - {"depthwise_planes"} == set(kernels())  # that one brings its own header
    assert files_of(called, planes).keys() == FILES.keys()


def test_a_kernel_that_is_not_there() -> None:
    with pytest.raises(UnsupportedOp, match="kernel 'fft': no file in nas/runtime defines it"):
        files_of(["fft"])
