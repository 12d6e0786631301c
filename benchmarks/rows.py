"""A table of measurements that grows row by row: a benchmark can be stopped and gone on with."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from nas.run_folder import write_csv
from nas.training.metrics import Metric

METRICS: dict[str, Metric] = {"coswara_voice": "balanced_accuracy"}
"""Of the data sets whose classes are too unequal for accuracy, which all others are scored by."""


class Rows(list[dict[str, Any]]):
    """The rows of a CSV file, all columns as text when read back.

    Args:
        file: is made with the first row.
        key: columns that name a measurement.
    """

    def __init__(self, file: Path, columns: Sequence[str], key: Iterable[str]) -> None:
        reader = csv.DictReader(io.StringIO(file.read_text() if file.exists() else ""))
        super().__init__(reader)
        if file.exists() and tuple(reader.fieldnames or ()) != tuple(columns):
            raise SystemExit(f"{file}: its columns are not {', '.join(columns)}; name another file")
        self._file, self._columns, self._key = file, columns, tuple(key)
        self._done = {self._name(row) for row in self}

    def has(self, *values: object) -> bool:
        """Whether there is a row with these values of the key."""
        return tuple(map(str, values)) in self._done

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a measurement and writes the file."""
        self.append(dict(row))
        self._done.add(self._name(row))
        write_csv(self._file, self._columns, self)

    def fill(
        self, make: Callable[[int], Mapping[str, Any]], wanted: Sequence[int], workers: int
    ) -> None:
        """Makes the rows of `wanted` seeds in processes, and adds each as it comes."""
        with ProcessPoolExecutor(workers) as processes:
            for done, values in enumerate(processes.map(make, wanted), 1):
                self.add(values)
                print(f"{done} of {len(wanted)}", end="\r", flush=True)

    def _name(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[column]) for column in self._key)
