"""Fronts, hypervolume and contributions against definitions that are slow and plain."""

import itertools

import numpy as np
import pytest

from nas.search.pareto import Points, front, hypervolume, largest_contributions

NAN = float("nan")


def cloud(rng: np.random.Generator, n: int, d: int) -> Points:
    """Points on a coarse grid, so that ties and equal points occur; some beyond 1."""
    return rng.integers(0, 7, (n, d)) / rng.choice((5.0, 6.0, 8.0))


def volume_of_boxes(points: Points, reference: Points) -> float:
    """Volume of a union of boxes by inclusion and exclusion."""
    total = 0.0
    for k in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, k):
            sides = np.maximum(reference - np.max(chosen, axis=0), 0.0)
            total -= (-1) ** k * float(sides.prod())
    return total


def dominates(q: Points, p: Points) -> bool:
    """Nowhere worse and somewhere better."""
    pairs = list(zip(q.tolist(), p.tolist(), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_front_is_what_none_dominates(d: int) -> None:
    rng = np.random.default_rng(d)
    for n in (0, 1, 2, 30, 60):
        points = cloud(rng, n, d)
        expected = [not any(dominates(q, p) for q in points) for p in points]
        assert front(points).tolist() == expected


def test_equal_points_stay_together() -> None:
    points = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    assert front(points).tolist() == [True, True, True, False]


def test_nan_is_refused() -> None:
    points = np.array([[0.1, NAN], [0.2, 0.2]])
    for refuse in (
        lambda: front(points),
        lambda: hypervolume(points, np.ones(2)),
        lambda: largest_contributions(points, np.ones(2), 1),
    ):
        with pytest.raises(ValueError, match="NaN; every objective must be a number"):
            refuse()


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([], 0.0),
        ([[0.25, 0.5]], 0.375),
        ([[0.25, 0.5], [0.5, 0.25]], 0.5),
        ([[0.25, 0.5], [0.25, 0.5], [0.5, 0.75]], 0.375),
        ([[1.0, 0.0]], 0.0),
        ([[-1.0, 0.5], [0.0, 2.0]], 1.0),
    ],
)
def test_hypervolume_by_hand(points: list[list[float]], volume: float) -> None:
    assert hypervolume(np.array(points).reshape(-1, 2), np.ones(2)) == pytest.approx(volume)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_hypervolume_is_the_volume_of_the_boxes(d: int) -> None:
    rng = np.random.default_rng(10 + d)
    for n in (1, 3, 5, 8):
        for _ in range(4):
            points, reference = cloud(rng, n, d), rng.uniform(0.7, 1.0, d)
            volume = hypervolume(points, reference)
            assert volume == pytest.approx(volume_of_boxes(points, reference), abs=1e-12)
            assert hypervolume(rng.permutation(points), reference) == pytest.approx(volume)


@pytest.mark.parametrize("d", [2, 3, 4])
def test_hypervolume_of_a_large_set_by_sampling(d: int) -> None:
    rng = np.random.default_rng(20 + d)
    points = rng.random((60, d))
    points /= points.sum(1, keepdims=True) * 0.8
    darts = rng.random((20_000, d))
    dominated = (points[:, None] <= darts).all(2).any(0).mean()
    assert hypervolume(points, np.ones(d)) == pytest.approx(dominated, abs=0.015)


def test_a_point_never_takes_volume_away() -> None:
    rng = np.random.default_rng(30)
    points = rng.random((25, 4))
    volumes = [hypervolume(points[:n], np.ones(4)) for n in range(len(points) + 1)]
    for n, (before, after) in enumerate(itertools.pairwise(volumes)):
        grows = front(points[: n + 1])[n]
        assert after > before if grows else after == pytest.approx(before)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_contributions_are_what_is_lost_without_a_point(d: int) -> None:
    rng = np.random.default_rng(40 + d)
    points, reference = rng.random((14, d)) * 1.1, np.ones(d)
    whole = hypervolume(points, reference)
    lost = [whole - hypervolume(np.delete(points, i, 0), reference) for i in range(14)]
    order = sorted(range(14), key=lambda i: (-round(lost[i], 9), i))
    for count in (1, 3, int(front(points).sum())):
        kept = largest_contributions(points, reference, count).tolist()
        assert sorted(lost[i] for i in kept) == pytest.approx(
            sorted(lost[i] for i in order[:count])
        )
        assert kept == sorted(kept)


def test_few_points_are_all_kept() -> None:
    points = np.array([[0.5, 0.5], [0.9, 0.9]])
    for count in (2, 3):
        assert largest_contributions(points, np.ones(2), count).tolist() == [0, 1]


def test_one_of_equal_points_stays() -> None:
    best, small = [0.1, 0.1], [0.05, 0.95]
    points = np.array([best, small, best, [0.95, 0.05]])
    assert largest_contributions(points, np.ones(2), 1).tolist() == [0]
    assert largest_contributions(points, np.ones(2), 3).tolist() == [0, 1, 3]
