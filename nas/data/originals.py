"""What the loaders of published data sets share: folders, counts of what was left out, errors.

A loader reads the folder that its data set is published as and gives the arrays of a data file.
The published layout is described in each loader, with its source and with what is assumed.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.data_rules import listed, one_line
from nas.errors import DataError

Show = Callable[[str], None]
"""Is told what a loader is doing, for a live line."""


@dataclass(frozen=True)
class Original:
    """A data set as read: the arrays of a data file, and what was left out, a line each."""

    arrays: dict[str, NDArray[Any]]
    notes: tuple[str, ...]


def notes_of(left_out: "Counter[str]") -> tuple[str, ...]:
    """One line for each reason."""
    return tuple(f"left out: {count:,} {what}" for what, count in left_out.items() if count)


def open_folder(path: Path, *names: str) -> Path:
    """The folder itself, or the one below it that has one of `names`."""
    if not path.exists():
        raise DataError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise DataError(f"{path}: is neither a folder of the original data nor an .npz file")
    if path.name not in names:
        for name in names:
            if (path / name).is_dir():
                return path / name
    return path


def folders(path: Path) -> list[Path]:
    """Folders inside `path` by name; hidden ones are none."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def read_rows(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The wanted columns of a comma-separated file with a header, row by row, stripped.

    Raises:
        DataError: no such file, no such column, or a row that is shorter than the header says.
    """
    try:
        lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig")), skipinitialspace=True)
        header = [name.strip() for name in next(lines, [])]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; unpack the data set again") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); unpack it again") from None
    for name in wanted:
        if name not in header:
            raise DataError(
                f"{path}: no column {name!r}; the columns are {listed(header)}: this is not the"
                " published layout"
            )
    places = [header.index(name) for name in wanted]
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if len(line) <= max(places):
            raise DataError(
                f"{path}: line {number} has {len(line)} of {len(header)} columns; the file is cut"
                " short, unpack it again"
            )
        yield tuple(line[place].strip() for place in places)


def read_array(path: Path) -> NDArray[Any]:
    """An .npy file, never unpickled."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; unpack the data set again") from None
    except Exception as error:  # numpy raises as many types as there are ways to damage a file
        raise DataError(
            f"{path}: is no .npy file of numbers or strings ({one_line(error)}); unpack or convert"
            " it again (pickles are never opened)"
        ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: is an archive; one array in an .npy file is wanted")
    return array


def labelled(names: list[str], labels: NDArray[Any], train: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Class of each row: the index in `names` of its label, -1 where `names` lacks it.

    `names` is reduced in place to the labels that occur in training: nothing else can be learnt.
    """
    names[:] = [name for name in names if (labels[train] == name).any()]
    y = np.full(len(labels), -1, np.int64)
    for code, name in enumerate(names):
        y[labels == name] = code
    return y
