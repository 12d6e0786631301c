"""Which rows judge a network: the validation split, or in turn every row that is not of the test.

A small validation split misleads a search: on the voices of 15 people a sensor that is useless on
other people can look best. So where validation has few rows, a network is trained `FOLDS` times,
each time without one part of the rows of training and validation, and judged by its answers to the
parts that it has not seen. Parts are whole groups. What ships is then trained on all of these rows.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nas.data.task import Array, Task
from nas.errors import DataError

FOLDS = 3
FEW_ROWS = 200  # of validation: below, the standard error of an accuracy of .85 is above .025
SEED = 2024
Validation: TypeAlias = Literal["split", "cross"]
VALIDATIONS: tuple[Validation, ...] = get_args(Validation)


@dataclass(frozen=True, eq=False)
class Judging:
    """Which rows of a task train a network and which judge it.

    Attributes:
        train: rows that what ships is trained on, ascending.
        held_out: rows that judge, ascending; with folds they are `train` itself.
        fold: (len(train),) part of each row, or None where a split of its own judges.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    fold: NDArray[np.int64] | None

    def trained_rows(self, final: bool) -> int:
        """How many rows train the model of a final training, or of one of the search."""
        if self.fold is None or final:
            return len(self.train)
        return int((self.fold != 0).sum())

    @property
    def kind(self) -> Validation:
        """`cross` with folds."""
        return "split" if self.fold is None else "cross"


def judging(task: Task, kind: Validation | None) -> Judging:
    """How networks for `task` are judged; without a `kind`, by what its validation split allows.

    Raises:
        DataError: `cross` is asked for and a class has too few groups or rows.
    """
    train, val = task.rows("train"), task.rows("val")
    if kind == "split" or (kind is None and len(val) >= FEW_ROWS):
        return Judging(train, val, None)
    rows = np.sort(np.concatenate([train, val]))
    unit = rows if task.group is None else task.group[rows]
    fold, poor = _deal(task.y[rows], unit)
    if not poor:
        return Judging(rows, rows, fold)
    if kind is None:
        return Judging(train, val, None)
    what = "rows" if task.group is None else "groups"
    raise DataError(
        f"--validation cross: class {task.class_names[poor[0]]!r} has too few {what} in training"
        f" and validation for {FOLDS} parts; add recordings or use --validation split"
    )


def about(judged: Judging) -> str:
    """In words: which rows judge."""
    rows = f"{len(judged.held_out):,} rows"
    if judged.fold is None:
        return f"the validation split, {rows}"
    return f"{rows} of training and validation, {FOLDS} parts in turn held out of the training"


def _deal(labels: NDArray[np.int64], unit: Array) -> tuple[NDArray[np.int64], list[int]]:
    """(n,) fold of each row, units dealt in turn class by class; classes that a fold would miss."""
    rng = np.random.default_rng(SEED)
    names, member = np.unique(unit, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (member, labels), 1)
    main = counts.argmax(1)
    order = np.concatenate([rng.permutation(np.flatnonzero(main == c)) for c in np.unique(main)])
    fold = np.empty(len(names), np.int64)
    fold[order] = np.arange(len(names)) % FOLDS
    left = np.stack([counts[fold != part].sum(0) for part in range(FOLDS)])
    missed = np.flatnonzero((left == 0).any(0) & (counts.sum(0) > 0))
    return fold[member], missed.tolist()
