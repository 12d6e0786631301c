"""The augmentation bank: which values it makes, and that it is the same in every process."""

from typing import Any

import numpy as np
import pytest

from nas.network.numerics import Int8
from nas.space import Sensor, SensorKind
from nas.training import augment
from nas.training.augment import COPIES, make_bank, strength_for

SCALE = 0.03
SHAPES: dict[str, tuple[SensorKind, tuple[int, int, int]]] = {
    "series": ("series", (1, 40, 3)),
    "image": ("image", (12, 10, 2)),
    "vector": ("vector", (1, 1, 9)),
    "one step": ("series", (1, 1, 2)),
    "four steps": ("series", (1, 4, 1)),
    "one pixel": ("image", (1, 1, 3)),
    "one row": ("image", (1, 20, 1)),
    "one feature": ("vector", (1, 1, 1)),
}


def some(shape: tuple[int, ...], rows: int = 25, seed: int = 0) -> Int8:
    real = np.random.default_rng(seed).normal(0, 40, (rows, *shape))
    return np.clip(np.round(real), -128, 127).astype(np.int8)


def bank_of(case: str, inputs: Int8 | None = None, **values: Any) -> Int8:
    kind, shape = SHAPES[case]
    sensor = Sensor("s", kind, shape)
    given = some(shape) if inputs is None else inputs
    settings = {"strength": 1.0, "seed": 0} | values
    return make_bank([sensor], {"s": given}, {"s": SCALE}, **settings)["s"]


@pytest.mark.parametrize("case", SHAPES)
def test_first_copy_is_clean_and_the_others_are_not(case: str) -> None:
    inputs = some(SHAPES[case][1])
    before = inputs.copy()
    bank = bank_of(case, inputs)
    assert bank.dtype == np.int8 and bank.shape == (1 + COPIES, *inputs.shape)
    np.testing.assert_array_equal(bank[0], inputs)
    np.testing.assert_array_equal(inputs, before)
    assert len({copy.tobytes() for copy in bank}) == 1 + COPIES
    if case != "one feature":  # its lowest value hides the noise of one row only
        assert all((copy != bank[0]).mean() > 0.3 for copy in bank[1:])


@pytest.mark.parametrize("case", ("series", "image", "vector"))
def test_same_seed_same_bank(case: str) -> None:
    np.testing.assert_array_equal(bank_of(case), bank_of(case))
    assert (bank_of(case)[1:] != bank_of(case, seed=1)[1:]).any()


def test_sensors_of_one_kind_are_changed_independently() -> None:
    sensors = [Sensor(name, "vector", (1, 1, 9)) for name in ("a", "b")]
    inputs = dict.fromkeys("ab", some((1, 1, 9)))
    bank = make_bank(sensors, inputs, dict.fromkeys("ab", SCALE), 1.0, 0)
    np.testing.assert_array_equal(bank["a"][0], bank["b"][0])
    assert (bank["a"][1] != bank["b"][1]).mean() > 0.3


@pytest.mark.parametrize("case", ("series", "image", "vector"))
def test_strength_is_the_size_of_the_change(case: str) -> None:
    def change(strength: float) -> float:
        bank = bank_of(case, strength=strength).astype(int)
        return float(np.abs(bank[1:] - bank[0]).mean())

    assert change(0.2) < change(0.7) < change(1.4)


@pytest.mark.parametrize("case", SHAPES)
def test_strong_changes_saturate_and_do_not_wrap(case: str) -> None:
    shape = SHAPES[case][1]
    full = np.where(np.arange(50).reshape(-1, 1, 1, 1) % 2, 127, -128) * np.ones((50, *shape))
    bank = bank_of(case, full.astype(np.int8), strength=1.0).astype(int)
    same_side = np.sign(bank[1:]) == np.sign(full)
    kind = SHAPES[case][0]
    # Cut-outs become 0, entries that are not heard the lowest value; what wraps would be more.
    assert same_side.mean() > {"series": 0.99, "image": 0.7, "vector": 0.9}[kind]
    assert (np.abs(bank) >= 90).mean() > 0.5


def test_a_shift_moves_each_sample_within_itself() -> None:
    steps = np.arange(40, dtype=np.float32)
    x = (100 * np.arange(6)[:, None] + steps)[:, None, :, None]
    y = augment._shift(x, 2, 5, np.random.default_rng(0))
    moves = set()
    for before, after in zip(x[:, 0, :, 0], y[:, 0, :, 0], strict=True):
        move = int(after[20] - before[20])
        moves.add(move)
        np.testing.assert_array_equal(after, np.clip(steps + move, 0, 39) + before[0])
    assert len(moves) > 2 and max(map(abs, moves)) <= 5
    assert augment._shift(x, 2, 0, np.random.default_rng(0)) is x


@pytest.mark.parametrize(("steps", "moves"), ((4, False), (5, True)))
def test_short_series_are_not_shifted(steps: int, moves: bool) -> None:
    x = np.zeros((40, 1, steps, 1), np.float32)
    x[:, :, :2] = 3  # a step that only a shift can move
    y = augment._augment_series(x, 0.01, np.random.default_rng(0))
    assert bool((np.abs(y - x) > 1).any()) == moves


@pytest.mark.parametrize("strength", (0.5, 1.0))
def test_gain_and_noise_of_a_series(strength: float) -> None:
    x = np.ones((400, 1, 50, 2), np.float32)  # a shift changes nothing
    y = augment._augment_series(x, strength, np.random.default_rng(0))
    gains = y.mean(2, keepdims=True)
    assert gains.mean() == pytest.approx(1, abs=0.02)
    assert gains.std() == pytest.approx(0.1 * strength, rel=0.1)
    assert (y - gains).std() == pytest.approx(0.05 * strength, rel=0.05)


def test_entries_of_a_vector_are_lost_to_the_lowest_value() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (500, 1, 1, 4)).astype(np.float32)
    x[::2, 0, 0, 0] = -1.5  # not heard in every second row: gets no noise
    y = augment._augment_vector(x, 1.0, np.random.default_rng(1))
    np.testing.assert_array_equal(y[::2, 0, 0, 0], x[::2, 0, 0, 0])
    lowest = x.min((0, 1, 2))
    lost = (y == lowest)[1::2].mean()
    assert 0.05 < lost < 0.11
    kept = np.abs(y - x)[(y != lowest)]
    assert 0.05 < kept.mean() < 0.11  # 0.1 of normal noise has a mean size of 0.08


def test_images_move_by_two_rows_and_one_column_and_get_one_offset() -> None:
    rows, columns = np.meshgrid(np.arange(20.0), np.arange(20.0), indexing="ij")
    x = np.stack([rows, columns], -1)[None].repeat(400, 0).astype(np.float32)
    y = augment._augment_image(x, 1.0, np.random.default_rng(0))
    moved = y[:, 10, 10] - 10  # (n, 2): move of rows and of columns, plus one offset for both
    offset = moved[:, :1] - np.round(moved[:, :1])
    moves = np.round(moved - offset)
    assert set(moves[:, 0]) >= {-2.0, 2.0} and set(moves[:, 1]) >= {-1.0, 1.0}
    assert y[:, 10, 10].std() > 0.1 and np.abs(y).max() < 20 + 1


@pytest.mark.parametrize(
    ("kinds", "rows", "strength"),
    (("image", 299, 1.4), ("series", 299, 1.4), ("image", 300, 1.0), ("series", 300, 0.7)),
)
def test_strength_by_size_and_kind(kinds: SensorKind, rows: int, strength: float) -> None:
    sensors = [Sensor("v", "vector", (1, 1, 3)), Sensor("s", kinds, (1, 9, 1))]
    assert strength_for(sensors, rows) == strength
