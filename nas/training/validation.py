"""Which rows judge a network: the validation split, or in turn every row that is not of the test.

A small validation split misleads a search: on the voices of 15 people a sensor that is useless on
other people can look best. So where validation has few rows, a network is trained `FOLDS` times,
each time without one part of the rows of training and validation, and judged by its answers to the
parts that it has not seen. Parts are whole groups, alike in rows of each class. What ships is then
trained on all of these rows.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nas.data.task import Array, Task
from nas.errors import DataError

FOLDS = 3
FEW_ROWS = 200  # of validation: below, the standard error of an accuracy of .85 is above .025
SEED, TRIES = 2024, 500
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

    Without groups rows are dealt one by one, which a split of the file's own forbids: it may keep
    together what only its author knows, such as windows that overlap.

    Raises:
        DataError: `cross` is asked for and cannot be.
    """
    train, val = task.rows("train"), task.rows("val")
    if kind == "split" or (kind is None and len(val) >= FEW_ROWS):
        return Judging(train, val, None)
    rows = np.sort(np.concatenate([train, val]))
    if task.group is None and task.split_given:
        why = "the data file has a split and no group, so rows that belong together are not known"
        remedy = "add a group"
    else:
        unit = rows if task.group is None else task.group[rows]
        fold = _deal(task.y[rows], unit)
        if fold is not None:
            return Judging(rows, rows, fold)
        what = "rows" if task.group is None else "groups"
        why = f"in {TRIES} deals of the {what} into {FOLDS} parts some part was without a class"
        remedy = "add recordings"
    if kind is None:
        return Judging(train, val, None)
    raise DataError(f"--validation cross: {why}; {remedy} or use --validation split")


def about(judged: Judging) -> str:
    """In words: which rows judge."""
    rows = f"{len(judged.held_out):,} rows"
    if judged.fold is None:
        return f"the validation split, {rows}"
    return f"{rows} of training and validation, {FOLDS} parts in turn held out of the training"


def _deal(labels: NDArray[np.int64], unit: Array) -> NDArray[np.int64] | None:
    """(n,) fold of each row by whole units, or None where the rest of a fold misses a class.

    Of `TRIES` deals the one whose folds are most alike in rows of each class.
    """
    rng = np.random.default_rng(SEED)
    names, member = np.unique(unit, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (member, labels), 1)
    counts = counts[:, counts.sum(0) > 0]
    best, least = None, np.inf
    for _ in range(TRIES if len(names) >= FOLDS else 0):
        fold = np.empty(len(names), np.int64)
        fold[rng.permutation(len(names))] = np.arange(len(names)) % FOLDS
        parts = np.stack([counts[fold == part].sum(0) for part in range(FOLDS)])
        unlike = float(((parts / counts.sum(0) - 1 / FOLDS) ** 2).sum())
        if unlike < least and (parts < counts.sum(0)).all():
            best, least = fold[member], unlike
    return best
