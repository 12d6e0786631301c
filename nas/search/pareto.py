"""Fronts and hypervolume of points that are minimised in every coordinate.

Equal points do not dominate each other. A NaN is refused: it would make every comparison false and
the point immortal.
"""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def front(points: Points) -> NDArray[np.bool_]:
    """(n,) whether each of the (n, d) points is dominated by none."""
    if np.isnan(points).any():
        raise ValueError("a point of the front is NaN; every objective must be a number")
    keep = np.ones(len(points), bool)
    for i, point in enumerate(points):
        no_worse = (points <= point).all(1)
        keep[i] = not (no_worse & (points < point).any(1)).any()
    return keep


def hypervolume(points: Points, reference: NDArray[np.float64]) -> float:
    """Volume between the points and the reference that the (n, d) points dominate.

    Sweeps the last coordinate and recurses (hypervolume by slicing objectives, Knowles 2002).
    """
    inside = points[~(points >= reference).any(1)]  # keeps a NaN, which `front` refuses
    return _volume(inside[front(inside)], reference)


def _volume(points: Points, reference: NDArray[np.float64]) -> float:
    """`hypervolume` of points that are all below the reference."""
    if not len(points):
        return 0.0
    points = points[np.argsort(points[:, -1], kind="stable")]
    depths = np.append(points[1:, -1], reference[-1]) - points[:, -1]
    if points.shape[1] == 1:
        return float(reference[0] - points[0, 0])
    if points.shape[1] == 2:
        return float(depths @ (reference[0] - np.minimum.accumulate(points[:, 0])))
    return sum(
        float(depth) * _volume(points[: i + 1, :-1], reference[:-1])
        for i, depth in enumerate(depths)
        if depth > 0
    )


def largest_contributions(
    points: Points, reference: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Indexes of `count` points, ascending: those whose removal costs the most hypervolume.

    Of equal points the first counts as if it were alone, and the others go first.
    """
    if len(points) <= count:
        return np.arange(len(points))
    lost = np.full(len(points), -1.0)
    firsts = np.unique(points, axis=0, return_index=True)[1]
    for i in firsts:
        # What only this point dominates: its box less what the others dominate of it.
        others = np.maximum(points[firsts[firsts != i]], points[i])
        box = float(np.maximum(reference - points[i], 0.0).prod())
        lost[i] = box - hypervolume(others, reference)
    # Stable: of equal contributions the earlier point stays.
    return np.sort(np.argsort(-lost, kind="stable")[:count])
