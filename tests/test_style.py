"""What the code base promises of itself: imports, sizes, docstrings, words."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("nas", "search_spaces")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}

MOST_LINES = 400  # of a file
MOST_FUNCTION_LINES = 60
# Heavy libraries, and the modules of nas/ that may import them.
CONFINED = {
    "torch": {"fake_quantise", "fused", "linear_layer", "mdcsa", "sequence_layers", "student"}
    | {"hints", "low_bits", "loop", "evaluate", "teacher_training", "workers"}
    | {"capture", "fused_layer", "packs"},
    "optuna": {"exact_cost", "genes", "samplers", "study"}
    | {"meeting", "requeue", "shared", "shared_ledger", "storage"},
    "sqlalchemy": {"meeting", "shared", "storage", "study"},
    "onnx": {"onnx_arithmetic", "onnx_builder", "onnx_sequence", "to_onnx_integer"},
    "onnxruntime": {"teacher_training"},
    "ai_edge_litert": {"tflite_writer"},
    "flatbuffers": {"tflite_writer"},
    "plotly": {"page"},
    "pandas": {"recordings"},
    "scipy": {"fit", "audio", "improvement", "surrogate"},
    "rich": {"progress", "tables"},
    "unicorn": {"machine"},
    "capstone": {"cycles"},
    "elftools": {"elf"},
}
LAZY = {  # only inside functions
    *{("workers", "torch"), ("teacher_training", "onnxruntime")},
    *{("machine", "unicorn"), ("cycles", "capstone"), ("elf", "elftools")},
}
EVERYWHERE = {"nas", "numpy"}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def nodes(node: ast.AST, *, lazy: bool) -> Iterator[ast.AST]:
    """All below `node` but what is for type checkers; without `lazy` also no function's body."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        yield child
        if lazy or not isinstance(child, ast.FunctionDef | ast.Lambda):
            yield from nodes(child, lazy=lazy)


@cache
def imports(name: str, *, lazy: bool) -> set[str]:
    """Full names that a module imports; names inside a package count as its modules."""
    found = set()
    package = name.rpartition(".")[0] or name
    for node in nodes(TREES[name], lazy=lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, (package if node.level else "", node.module)))
            inside = {f"{base}.{alias.name}" for alias in node.names} & set(SOURCES)
            found |= inside or {base}
    return found


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_reader_of_imports() -> None:
    assert {"nas.network.ops", "nas.errors"} <= imports("nas.network.graph", lazy=False)
    assert "nas.data.data_rules" in imports("nas.data.task", lazy=False)  # a relative one
    assert "torch" not in top(imports("nas.training.workers", lazy=False))
    assert "torch" in top(imports("nas.training.workers", lazy=True))
    assert "optuna" not in top(imports("nas.search.engine", lazy=True))  # for type checkers only


def test_imports_have_no_cycle() -> None:
    edges = {name: imports(name, lazy=False) & set(SOURCES) for name in SOURCES}
    order = list(graphlib.TopologicalSorter(edges).static_order())
    assert set(order) == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_libraries_are_confined(name: str) -> None:
    module = name.rpartition(".")[2]
    everywhere = EVERYWHERE | set(sys.stdlib_module_names)
    if name == "nas.cli" or name.startswith("search_spaces"):
        everywhere = everywhere | {"search_spaces"}
    allowed = {library for library, modules in CONFINED.items() if module in modules}
    assert top(imports(name, lazy=True)) <= everywhere | allowed
    for lazy_module, library in LAZY:
        assert module != lazy_module or library not in top(imports(name, lazy=False))


def test_every_row_of_the_confinement_is_used() -> None:
    for library, modules in CONFINED.items():
        users = {n.rpartition(".")[2] for n in SOURCES if library in top(imports(n, lazy=True))}
        assert users == modules, library


@pytest.mark.parametrize(
    "command", ["runpy.run_path('run_search.py', {}, '__main__')", "runpy.run_module('nas')"]
)
def test_help_loads_no_heavy_library(command: str) -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['program', '--help']\n"
        "try:\n"
        f"    {command}\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    command_line = [sys.executable, "-c", code]
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "argparse" in loaded
    assert not loaded & {*CONFINED, "numpy", "tflite_micro"}


@pytest.mark.parametrize("name", SOURCES)
def test_sizes(name: str) -> None:
    assert len(SOURCES[name].read_text().splitlines()) <= MOST_LINES
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= MOST_FUNCTION_LINES, f"{node.name} has {lines} lines"


def public(node: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes, and methods of public classes that say something themselves."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            declared = len(child.body) == 1 and ast.unparse(child.body[0]) == "..."
            if not declared:  # a Protocol's method: its class says what it is
                yield child
            if isinstance(child, ast.ClassDef):
                yield from public(child)


@pytest.mark.parametrize("name", SOURCES)
def test_docstrings(name: str) -> None:
    assert ast.get_docstring(TREES[name])
    assert not [node.name for node in public(TREES[name]) if not ast.get_docstring(node)]


# Written so that this file does not match itself.
FORBIDDEN = re.compile(r"TOD[O]|FIXM[E]|XX[X]|NotImplementedErro[r]|(?<![\w.])/(?:wor[k]|roo[t])/")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:  # no repository: a source archive
        suffixes = {".py", ".toml", ".md", ".css", ".js", ".yml", ".sh"}
        files = [path for path in ROOT.rglob("*") if path.suffix in suffixes]
    else:
        files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in files if path.is_file()]


def test_forbidden_words() -> None:
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode().splitlines(), 1):
            if match := FORBIDDEN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert not found


@pytest.mark.parametrize("word", ["# TO" + "DO: later", "FIX" + "ME", "'/wo" + "rk/main'"])
def test_forbidden_words_are_seen(word: str) -> None:
    assert FORBIDDEN.search(word)
    assert not FORBIDDEN.search("see benchmarks/work/x, todos and the root")
