"""Architectures as vectors: what a surrogate of accuracy may compare.

Genes that have no effect would make equal networks look different, so vectors are made from an
architecture's JSON, which leaves those out, and not from a trial's genes. Every number and word in
it is a column; what lies in a list is named by its `sensor`, or by its place.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.run_folder import CostSummary

Floats: TypeAlias = NDArray[np.float64]

ABSENT = 0.5  # of a number that an architecture does not have: as far from its least as its most
WORD = 0.5**0.5  # so that two different words are 1 apart


def flatten(document: Any, path: str = "") -> Iterator[tuple[str, float | str]]:
    """(path, number or word) of everything in an architecture's JSON; null is left out."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from flatten(value, f"{path}.{key}")
    elif isinstance(document, list | tuple):
        for place, value in enumerate(document):
            name = value.get("sensor", place) if isinstance(value, Mapping) else place
            yield from flatten(value, f"{path}.{name}")
    elif isinstance(document, str):
        yield path, document
    elif document is not None:
        yield path, float(document)


class Encoder:
    """Vectors of architectures, every column from 0 to 1.

    A number becomes its place among the values that occur, so that 8, 16 and 32 are equally far
    apart. Columns that say the same of all the examples are kept once.

    Args:
        examples: architectures' JSON, enough to meet all values that matter; others lie between.
    """

    def __init__(self, examples: Sequence[Mapping[str, Any]]) -> None:
        rows = [dict(flatten(document)) for document in examples]
        values: dict[str, set[float]] = {}
        words: dict[tuple[str, str], None] = {}
        for row in rows:
            for path, value in row.items():
                if isinstance(value, str):
                    words[path, value] = None
                else:
                    values.setdefault(path, set()).add(value)
        self._values = {path: np.array(sorted(seen)) for path, seen in values.items()}
        choices = Counter(path for path, _ in words)
        self._words = {key: WORD if choices[key[0]] > 1 else 1.0 for key in words}
        whole = np.array([self._row(row) for row in rows])
        _, first = np.unique(whole, axis=1, return_index=True)
        self._kept = np.array([i for i in np.sort(first) if np.ptp(whole[:, i]) > 0], np.intp)

    def __call__(self, document: Mapping[str, Any]) -> Floats:
        """(columns,) of one architecture."""
        return self._row(dict(flatten(document)))[self._kept]

    def _row(self, row: Mapping[str, float | str]) -> Floats:
        """All columns, those that are left out, too."""
        numbers: list[float] = []
        for path, seen in self._values.items():
            value = row.get(path)
            place = ABSENT
            if isinstance(value, float) and len(seen) > 1:
                place = float(np.interp(value, seen, np.linspace(0, 1, len(seen))))
            numbers += [place, float(value is not None)]
        words = [weight * (row.get(path) == word) for (path, word), weight in self._words.items()]
        return np.array([*numbers, *words])


def cost_features(cost: CostSummary) -> Floats:
    """(4,) weights, RAM, Flash and time, on logarithmic axes."""
    values = (cost.weight_bytes, cost.ram_bytes, cost.flash_bytes, cost.latency_ms)
    return np.log2(np.maximum(values, 1e-6))
