"""Scores of integer predictions, and their intervals."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Metric: TypeAlias = Literal["accuracy", "balanced_accuracy", "macro_f1"]
Labels: TypeAlias = NDArray[np.int64]

METRICS: tuple[Metric, ...] = get_args(Metric)
Z_90 = 1.6449  # two-sided 90 % of a normal distribution
RESAMPLES = 300
FEWEST_GROUPS = 5  # that are resampled as such


def _confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.float64]:
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.float64)


def _accuracy(confusion: NDArray[np.float64]) -> float:
    return float(np.trace(confusion) / confusion.sum())


def _balanced_accuracy(confusion: NDArray[np.float64]) -> float:
    """Mean recall of the classes that occur."""
    support = confusion.sum(1)
    present = support > 0
    return float((np.diag(confusion)[present] / support[present]).mean())


def _macro_f1(confusion: NDArray[np.float64]) -> float:
    """Mean F1 of the classes that occur or are predicted."""
    total = confusion.sum(0) + confusion.sum(1)
    present = total > 0
    return float((2 * np.diag(confusion)[present] / total[present]).mean())


_SCORES: dict[Metric, Callable[[NDArray[np.float64]], float]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
}


def score(metric: Metric, labels: Labels, predicted: Labels, classes: int) -> float:
    """The metric of (n,) predictions, higher is better, in [0, 1]."""
    return _SCORES[metric](_confusion(labels, predicted, classes))


def best_guess(metric: Metric, labels: Labels, classes: int) -> float:
    """The best score of a constant answer."""
    answers = [np.full(len(labels), label, np.int64) for label in range(classes)]
    return max(score(metric, labels, answer, classes) for answer in answers)


def sampling_error(
    metric: Metric,
    labels: Labels,
    predicted: Labels,
    classes: int,
    groups: NDArray[Any] | None = None,
) -> float:
    """Standard error of `score` from the finite sample: a seeded bootstrap.

    Rows of one person are alike, so whole groups are drawn where there are `FEWEST_GROUPS` of them;
    with fewer, a bootstrap of groups would say nothing, and that of rows, which is taken then, says
    too little.

    Args:
        groups: (n,) subject or site of each row.
    """
    rng = np.random.default_rng(0)
    names, member = np.unique(np.zeros(0) if groups is None else groups, return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        picks = list(rng.integers(0, len(labels), (RESAMPLES, len(labels))))
    else:
        rows_of = [np.flatnonzero(member == group) for group in range(len(names))]
        drawn = rng.integers(0, len(names), (RESAMPLES, len(names)))
        picks = [np.concatenate([rows_of[group] for group in draw]) for draw in drawn]
    scores = [score(metric, labels[rows], predicted[rows], classes) for rows in picks]
    units = len(labels) if len(names) < FEWEST_GROUPS else len(names)
    return max(float(np.std(scores, ddof=1)), _least_error(units))


def _least_error(units: int) -> float:
    """Standard error of a proportion that is half a miss from perfect.

    A bootstrap of answers that are all right would say that the score is certain.
    """
    miss = 0.5 / (units + 1)
    return math.sqrt(miss * (1 - miss) / units)


def interval(value: float, sampling: float, seeds: float) -> tuple[float, float]:
    """90 % interval of a score from two independent standard errors: sample and seeds."""
    half = Z_90 * math.hypot(sampling, seeds)
    return max(0.0, value - half), min(1.0, value + half)


def pooled_deviation(groups: list[list[float]]) -> float | None:
    """Standard deviation within groups of repeated trainings; None without a repetition."""
    freedom = sum(len(g) - 1 for g in groups if len(g) > 1)
    if freedom == 0:
        return None
    squares = sum(((np.array(g) - np.mean(g)) ** 2).sum() for g in groups if len(g) > 1)
    return math.sqrt(float(squares) / freedom)
