"""Pieces of C source: identifiers, numbers, constant arrays."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.errors import RunError

WORDS_A_LINE, OCTETS_A_LINE = 6, 16
# Names that a bundle has already: of its files and targets, of the kernels' types, of a C header.
TAKEN = {"check", "main", "nas", "stdint", "test_vectors"}


def check_prefix(prefix: str) -> str:
    """`prefix` itself; RunError when no C names could begin with it."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", prefix):
        raise RunError(
            f"prefix {prefix!r}: must be at most 31 small letters, digits and underscores, a letter"
            " first, such as gait_model"
        )
    if prefix in TAKEN:
        raise RunError(
            f"prefix {prefix!r}: a bundle has something else of that name; choose another, such as"
            f" {prefix}_model"
        )
    return prefix


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """Name -> the C identifier that stands for it, different for each; case does not count."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        unique, count = plain, 1
        while unique.lower() in taken:
            count += 1
            unique = f"{plain}_{count}"
        taken.add(unique.lower())
        found[name] = unique
    return found


def comment(text: str) -> str:
    """`text` as it may stand inside a comment."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *")  # compilers warn of the second


def decimal(value: float) -> str:
    """The shortest decimal that reads back as the same float32."""
    return f"{np.format_float_scientific(np.float32(value), unique=True, trim='0')}f"


def words(name: str, values: NDArray[np.uint32]) -> str:
    """A constant array of uint32."""
    return _array("uint32_t", name, [f"{v:#010x}u" for v in values.tolist()], WORDS_A_LINE)


def integers(name: str, values: NDArray[np.int32]) -> str:
    """A constant array of int32."""
    least = -(1 << 31)
    texts = [str(v) if v != least else "INT32_MIN" for v in values.tolist()]
    return _array("int32_t", name, texts, WORDS_A_LINE)


def shorts(name: str, values: NDArray[np.int16]) -> str:
    """A constant array of int16."""
    return _array("int16_t", name, [str(v) for v in values.tolist()], OCTETS_A_LINE)


def octets(name: str, values: NDArray[np.int8]) -> str:
    """A constant array of int8."""
    return _array("int8_t", name, [str(v) for v in values.tolist()], OCTETS_A_LINE)


def _array(kind: str, name: str, items: Sequence[str], a_line: int) -> str:
    lines = [", ".join(items[i : i + a_line]) for i in range(0, len(items), a_line)]
    body = ",\n    ".join(lines)
    return f"static const {kind} {name}[{len(items)}] = {{\n    {body}}};"
