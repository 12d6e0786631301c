"""Scores by hand and against scikit-learn, and what an interval must be."""

import math
import statistics
import warnings
from typing import Any

import numpy as np
import pytest

from nas.training.metrics import (
    METRICS,
    Z_90,
    Metric,
    best_guess,
    interval,
    pooled_deviation,
    sampling_error,
    score,
)


def labels(*values: int) -> Any:
    return np.array(values, np.int64)


PERFECT = (labels(0, 1, 2), labels(0, 1, 2))
SKEWED = (labels(0, 0, 0, 0, 1, 1), labels(0, 0, 0, 1, 1, 0))  # recalls 3/4, 1/2; F1 3/4, 1/2
ABSENT = (labels(0, 0, 2, 2), labels(0, 0, 2, 0))  # class 1 neither occurs nor is predicted
INVENTED = (labels(0, 0, 2, 2), labels(0, 0, 2, 1))  # class 1 is predicted only: F1 of 0


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (PERFECT, (1.0, 1.0, 1.0)),
        (SKEWED, (4 / 6, 0.625, 0.625)),
        (ABSENT, (0.75, 0.75, (0.8 + 2 / 3) / 2)),
        (INVENTED, (0.75, 0.75, (1 + 0 + 2 / 3) / 3)),
        ((labels(0, 1), labels(1, 0)), (0.0, 0.0, 0.0)),
    ],
)
def test_by_hand(pair: tuple[Any, Any], expected: tuple[float, ...]) -> None:
    assert [score(metric, *pair, 3) for metric in METRICS] == pytest.approx(expected)


def test_against_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for classes in (2, 3, 12):
        for n in (1, 2, 15, 200):
            true, guess = rng.integers(0, classes, (2, n))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of classes that are predicted only
                expected = [
                    sklearn.accuracy_score(true, guess),
                    sklearn.balanced_accuracy_score(true, guess),
                    sklearn.f1_score(true, guess, average="macro"),
                ]
            assert [score(m, true, guess, classes) for m in METRICS] == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_sampling_error(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 2, 400)
    guess = np.where(rng.random(400) < 0.8, true, 1 - true)
    error = sampling_error(metric, true, guess, 2)
    # Two balanced classes: every metric is close to an accuracy, a binomial share.
    share = score(metric, true, guess, 2)
    assert error == pytest.approx(math.sqrt(share * (1 - share) / 400), rel=0.15)
    assert error == sampling_error(metric, true, guess, 2)
    assert sampling_error(metric, true[:100], guess[:100], 2) > 1.5 * error
    assert 0 < sampling_error(metric, true, true, 2) < error


def test_the_best_guess() -> None:
    true = labels(0, 0, 0, 1)
    assert best_guess("accuracy", true, 2) == 0.75
    assert best_guess("balanced_accuracy", true, 2) == 0.5
    assert best_guess("macro_f1", true, 2) == pytest.approx((2 * 3 / 7) / 2)


def test_sampling_error_of_people() -> None:
    """Ten rows a person, who is recognised always or never: ten people, not a hundred rows."""
    true = np.tile(labels(0, 1), 50)
    person = np.repeat(np.arange(10), 10)
    guess = np.where(person < 7, true, 1 - true)
    by_row = sampling_error("accuracy", true, guess, 2)
    assert by_row == pytest.approx(math.sqrt(0.7 * 0.3 / 100), rel=0.15)
    by_person = sampling_error("accuracy", true, guess, 2, person)
    assert by_person == pytest.approx(math.sqrt(0.7 * 0.3 / 10), rel=0.15)
    names = np.array([f"p{i}" for i in person])
    assert sampling_error("accuracy", true, guess, 2, names) == by_person
    few = np.repeat(np.arange(4), 25)  # too few to resample as such
    assert sampling_error("accuracy", true, guess, 2, few) == by_row


def test_interval() -> None:
    assert pytest.approx(statistics.NormalDist().inv_cdf(0.95), abs=1e-4) == Z_90
    assert interval(0.7, 0.0, 0.0) == (0.7, 0.7)
    low, high = interval(0.5, 0.03, 0.04)
    assert (low, high) == pytest.approx((0.5 - Z_90 * 0.05, 0.5 + Z_90 * 0.05))
    assert interval(0.5, 0.04, 0.03) == (low, high)
    assert interval(0.99, 0.1, 0.0)[1] == 1.0
    assert interval(0.01, 0.0, 0.1)[0] == 0.0
    for value in (0.0, 0.3, 1.0):
        low, high = interval(value, 0.02, 0.02)
        assert 0.0 <= low <= value <= high <= 1.0


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], None),
        ([[0.5], [0.9], []], None),
        ([[0.7, 0.7], [0.9]], 0.0),
        ([[1.0, 3.0]], math.sqrt(2)),
        ([[1.0, 3.0], [10.0]], math.sqrt(2)),
        ([[1.0, 3.0], [0.0, 3.0, 6.0]], math.sqrt((2 + 18) / 3)),
    ],
)
def test_pooled_deviation(groups: list[list[float]], expected: float | None) -> None:
    got = pooled_deviation(groups)
    assert got is None if expected is None else got == pytest.approx(expected)


def test_pooled_deviation_of_one_group_is_its_own() -> None:
    group = np.random.default_rng(2).normal(size=9).tolist()
    assert pooled_deviation([group]) == pytest.approx(statistics.stdev(group))


@pytest.mark.parametrize("groups, least", [(None, 0.005), (np.arange(120) % 8, 0.05)])
def test_no_score_is_certain(groups: Any, least: float) -> None:
    labels = np.arange(120) % 3
    error = sampling_error("accuracy", labels, labels, 3, groups)
    units = 120 if groups is None else 8
    assert error == pytest.approx(np.sqrt(0.5 / (units + 1) * (1 - 0.5 / (units + 1)) / units))
    assert least < error < 0.11
    wrong = np.where(np.arange(120) < 40, 0, labels)
    assert sampling_error("accuracy", labels, wrong, 3) > 0.03  # a real spread stays as it is
