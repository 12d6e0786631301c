"""Which files of the kernel library some kernels need: found in the files themselves.

A file defines `NAS(name)` as a function in C, as a global label or as the NAME of an assembled
body, and may mention others; headers and included bodies come along. So no list can fall behind the
library.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources

from nas.errors import UnsupportedOp

_DEFINES = re.compile(
    r"^(?:[a-z][\w *]*?\bNAS\((\w+)\)\([^;{]*\)\s*\{"  # a function in C
    r"|(?:#define NAME|\s+\.globa?l) NAS\((\w+)\)$)",  # in assembly
    re.M,
)
_MENTIONS = re.compile(r"\bNAS\((\w+)\)")
_INCLUDES = re.compile(r'^#\s*include "([\w.]+)"', re.M)
GENERATED = {"names.h"}  # written for each bundle


@cache
def library() -> dict[str, str]:
    """File name -> text of every kernel source."""
    folder = resources.files("nas") / "runtime"
    files = sorted(file.name for file in folder.iterdir() if not file.name.endswith(".py"))
    return {name: (folder / name).read_text() for name in files if "." in name}


@cache
def _definitions() -> dict[str, list[str]]:
    """Kernel -> the files that define it: one, or a portable one and one of assembly."""
    found: dict[str, list[str]] = {}
    for file, text in library().items():
        for match in _DEFINES.finditer(text):
            held = found.setdefault(match[1] or match[2], [])
            if file not in held:
                held.append(file)
    return found


def files_of(functions: Iterable[str], texts: Iterable[str] = ()) -> dict[str, str]:
    """File name -> text of all that `functions` and generated `texts` need, sorted by name.

    Raises:
        UnsupportedOp: a function that no file defines.
    """
    needed: set[str] = set()
    todo = ["kernels.h", *(name for text in texts for name in _INCLUDES.findall(text))]
    for function in functions:
        if function not in _definitions():
            raise UnsupportedOp(f"kernel {function!r}: no file in nas/runtime defines it")
        todo += _definitions()[function]
    while todo:
        file = todo.pop()
        if file in needed:
            continue
        needed.add(file)
        text = library()[file]
        todo += [name for name in _INCLUDES.findall(text) if name not in GENERATED]
        if file.endswith(".h"):
            continue  # declarations call nothing
        for name in _MENTIONS.findall(text):
            files = _definitions().get(name, [])
            todo += [] if file in files else files  # what it defines, it need not ask for
    return {name: library()[name] for name in sorted(needed)}
