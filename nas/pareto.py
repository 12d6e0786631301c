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
    inside = points[(points < reference).all(1)]
    if not len(inside):
        return 0.0
    inside = np.unique(inside, axis=0)
    inside = inside[front(inside)]
    if inside.shape[1] == 1:
        return float(reference[0] - inside[0, 0])
    if inside.shape[1] == 2:  # np.unique sorted by the first coordinate; the second one falls
        widths = np.append(inside[1:, 0], reference[0]) - inside[:, 0]
        return float((widths * (reference[1] - inside[:, 1])).sum())
    inside = inside[np.argsort(inside[:, -1], kind="stable")]
    depths = np.append(inside[1:, -1], reference[-1]) - inside[:, -1]
    return sum(
        float(depth) * hypervolume(inside[: i + 1, :-1], reference[:-1])
        for i, depth in enumerate(depths)
        if depth > 0
    )


def largest_contributions(
    points: Points, reference: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Indexes of `count` points, ascending: those whose removal costs the most hypervolume."""
    if len(points) <= count:
        return np.arange(len(points))
    whole = hypervolume(points, reference)
    lost = [whole - hypervolume(np.delete(points, i, 0), reference) for i in range(len(points))]
    # Stable: of equal contributions the earlier point stays.
    return np.sort(np.argsort(-np.array(lost), kind="stable")[:count])
