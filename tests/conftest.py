"""Fixtures that more than one test file uses."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest


@pytest.fixture
def toy_arrays() -> dict[str, npt.NDArray[Any]]:
    """A valid small data file: 60 rows, 3 classes, 10 persons, one modality of each kind."""
    rng = np.random.default_rng(0)
    group = np.arange(60) // 6
    y = np.arange(60) % 3
    series = rng.integers(-2000, 2000, (60, 8, 3)) + 500 * y[:, None, None]
    return {
        "modality_accel": series.astype(np.int16),
        "scale_accel": np.array(0.001, np.float32),
        "offset_accel": np.array([0.0, 0.5, -1.0], np.float32),
        "modality_view": rng.integers(0, 256, (60, 6, 5, 1)).astype(np.uint8),
        "modality_stats": rng.normal(size=(60, 4)).astype(np.float32),
        "y": y.astype(np.int16),
        "split": np.choose(group // 2, [0, 0, 0, 1, 2]).astype(np.uint8),
        "group": group,
        "class_names": np.array(["sit", "walk", "run"]),
        "note": np.array(["ignored"]),
    }
