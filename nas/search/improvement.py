"""Expected hypervolume improvement where only the error is uncertain.

Hypervolume is a mean over points of the box of costs: at each one counts how far the least error
that is to be had for at most these costs lies below 1. A candidate, whose costs are known exactly,
can improve that at the points that afford it. With a log-normal error the expected improvement at
one point has a closed form (that of a European put), and the mean over a low-discrepancy set of
points is the whole.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.search.features import Floats
from nas.search.surrogate import ERROR_FLOOR

POINTS = 4096
WORST = 1.0  # the error where nothing is affordable: the reference of the hypervolume


def cost_points(axes: int, count: int = POINTS) -> Floats:
    """(count, axes) points that fill the unit box evenly.

    The additive recurrence of M. Roberts (2018), on the root of x^(axes + 1) = x + 1.
    """
    root = 1.5
    for _ in range(50):
        root = (1.0 + root) ** (1.0 / (axes + 1))
    steps = root ** -np.arange(1.0, axes + 1)
    # In the order of columns, as they are read axis by axis.
    return np.asarray((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0, order="F")


def least_errors(points: Floats, costs: Floats, errors: Floats) -> Floats:
    """(m,) the least error to be had at each of (m, k) points, from n networks.

    Args:
        costs: (n, k) as shares of their limits.
        errors: (n,).
    """
    best = np.full(len(points), WORST)
    behind = (costs[None] <= costs[:, None]).all(2) & (errors[None] < errors[:, None])
    front = ~behind.any(1)  # the others are nowhere the least
    for cost, error in zip(costs[front], errors[front], strict=True):
        np.minimum(best, error, out=best, where=_affording(points, cost))
    return best


def expected_improvement(
    points: Floats, best: Floats, costs: Floats, mean: Floats, deviation: Floats
) -> Floats:
    """(n,) expected growth of the hypervolume by each candidate.

    Args:
        points: (m, k) of `cost_points`.
        best: (m,) of `least_errors`.
        costs: (n, k).
        mean, deviation: (n,) of log(error + ERROR_FLOOR).
    """
    levels, which = np.unique(best, return_inverse=True)
    counts = np.empty((len(costs), len(levels)))
    for i, cost in enumerate(costs):
        counts[i] = np.bincount(which[_affording(points, cost)], minlength=len(levels))
    return np.asarray((counts * _put(levels, mean, deviation)).sum(1) / len(points))


def _affording(points: Floats, cost: Floats) -> NDArray[np.bool_]:
    """(m,) whether a cost (k,) lies within each of the points."""
    within = np.ones(len(points), bool)
    for axis, least in enumerate(cost):
        within &= points[:, axis] >= least
    return within


def _put(levels: Floats, mean: Floats, deviation: Floats) -> Floats:
    """(n, levels) of E[max(0, level - error)]."""
    limit = levels + ERROR_FLOOR
    d = (np.log(limit) - mean[:, None]) / deviation[:, None]
    forward = np.exp(mean + deviation**2 / 2)[:, None]
    value = limit * ndtr(d) - forward * ndtr(d - deviation[:, None])
    return np.asarray(np.maximum(value, 0.0))
