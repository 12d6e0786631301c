"""The integer arithmetic against hand-computed values and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest

from nas.network.numerics import (
    Rounding,
    pack,
    packed_bytes,
    quantise_multiplier,
    quantise_multipliers,
    rescale,
    table,
    unpack,
    weight_limit,
)
from nas.network.requantising import requantiser


def _half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _half_away(value: Fraction) -> int:
    return _half_up(value) if value >= 0 else -_half_up(-value)


def exact_rescale(x: int, factor: float, rounding: Rounding) -> int:
    """`rescale` from its definition, in exact fractions."""
    multiplier, shift = quantise_multiplier(factor)
    if rounding == "single":
        return _half_up(Fraction(x * multiplier) * Fraction(2) ** (shift - 31))
    high = _half_up(Fraction(x * 2 ** max(shift, 0) * multiplier, 2**31))
    second = Fraction(high, 2 ** max(-shift, 0))
    return _half_away(second) if rounding == "double" else _half_up(second)


def test_weight_limits() -> None:
    assert [weight_limit(bits) for bits in (8, 4, 2)] == [127, 7, 1]


@pytest.mark.parametrize(
    ("factor", "multiplier", "shift"),
    [
        (0.5, 1 << 30, 0),
        (1.0, 1 << 30, 1),
        (0.25, 1 << 30, -1),
        (0.75, 3 << 29, 0),
        (3.0, 3 << 29, 2),
        (1.0 - 2.0**-40, 1 << 30, 1),  # rounds up to the next power of two
        (0.0, 0, 0),
        (2.0**-33, 0, 0),  # below what the shift reaches
        (2.0**-32, 1 << 30, -31),
    ],
)
def test_multiplier_of_known_factors(factor: float, multiplier: int, shift: int) -> None:
    assert quantise_multiplier(factor) == (multiplier, shift)


@pytest.mark.parametrize("factor", [-0.1, math.inf, math.nan])
def test_multiplier_of_no_factor(factor: float) -> None:
    with pytest.raises(ValueError, match="must be finite and positive"):
        quantise_multiplier(factor)


def test_multipliers_are_those_of_each_factor() -> None:
    factors = np.random.default_rng(0).uniform(1e-6, 2.0, 50)
    multipliers, shifts = quantise_multipliers(factors)
    back = multipliers / 2.0**31 * 2.0**shifts
    np.testing.assert_allclose(back, factors, rtol=2.0**-31)
    assert multipliers.min() >= 1 << 30 and multipliers.max() < 1 << 31


@pytest.mark.parametrize(
    ("x", "double", "double_up", "single"),
    # A quarter of x: -6 / 4 is a tie at the shift, and the roundings part on negative ones.
    [(6, 2, 2, 2), (-6, -2, -1, -1), (-2, -1, 0, 0), (2, 1, 1, 1), (-8, -2, -2, -2), (5, 2, 2, 1)],
)
def test_roundings_by_hand(x: int, double: int, double_up: int, single: int) -> None:
    wanted: dict[Rounding, int] = {"double": double, "double_up": double_up, "single": single}
    multiplier, shift = quantise_multipliers(np.array([0.25]))
    for rounding, value in wanted.items():
        assert rescale(np.array([x]), multiplier, shift, rounding) == [value], rounding


@pytest.mark.parametrize("rounding", ["double", "double_up", "single"])
def test_roundings_against_fractions(rounding: Rounding) -> None:
    rng = np.random.default_rng(1)
    for factor in [*rng.uniform(1e-5, 4.0, 40), 0.5, 0.25, 2.0**-7, 3 / 64, 2.0, 2.0**-31]:
        x = np.concatenate([rng.integers(-(2**24), 2**24, 100), np.arange(-40, 40)])
        multiplier, shift = quantise_multipliers(np.array([factor]))
        got = rescale(x, multiplier, shift, rounding)
        assert got.tolist() == [exact_rescale(int(v), float(factor), rounding) for v in x]


def test_largest_accumulators_do_not_overflow() -> None:
    multiplier, shift = quantise_multipliers(np.array([1.0 - 2.0**-31]))
    extremes = np.array([2**31 - 1, -(2**31)])
    for rounding in ("double", "double_up", "single"):
        got = rescale(extremes, multiplier, shift, rounding)
        assert got.tolist() == [exact_rescale(int(x), 1.0 - 2.0**-31, rounding) for x in extremes]


def test_requantise_by_channel_with_zero_point_and_clip() -> None:
    accumulators = np.array([[100, 100], [-100, 1000], [0, -1000]])
    got = requantiser(np.array([0.5, 0.25]), -3, -3, "double")(accumulators)
    assert got.dtype == np.int8
    assert got.tolist() == [[47, 22], [-3, 127], [-3, -3]]


def test_requantise_with_one_factor() -> None:
    got = requantiser(np.array([0.5]), 10, -128, "double")(np.array([[8, -8]]))
    assert got.tolist() == [[14, 6]]


def test_table_values_by_hand() -> None:
    sigmoid = table("sigmoid", 0.1, 0, 1 / 256, -128)
    assert sigmoid[128] == 0  # 1/2 = 128 / 256
    assert sigmoid[128 + 20] == round(256 / (1 + math.exp(-2.0))) - 128
    tanh = table("tanh", 0.05, 10, 1 / 128, 0)
    assert tanh[128 + 10] == 0
    assert tanh[128 - 10] == round(128 * math.tanh(-1.0))
    assert tanh[-1] == 127  # tanh of 5.85 is clipped
    swish = table("hard_swish", 0.5, 0, 0.25, -100)
    assert swish[128 - 6] == -100  # at -3 and below nothing passes
    assert swish[0] == -100
    assert swish[128 + 6] == -100 + 12  # at 3 all of it
    assert swish[128 + 2] == round(1 * 4 / 6 / 0.25) - 100


def test_table_of_a_coarse_input_overflows_silently() -> None:
    steep = table("sigmoid", 100.0, 0, 1 / 256, -128)
    assert (steep[0], steep[127], steep[128], steep[129]) == (-128, -128, 0, 127)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_pack_round_trip(bits: int) -> None:
    rng = np.random.default_rng(bits)
    limit = weight_limit(bits)
    for count in (1, 2, 3, 4, 5, 15, 16, 17, 33, 100):
        values = rng.integers(-limit, limit + 1, count).astype(np.int8)
        packed = pack(values, bits)
        assert packed.dtype == np.uint8 and len(packed) == packed_bytes(count, bits)
        assert unpack(packed, bits, count).tolist() == values.tolist()


def test_packed_bytes_by_hand() -> None:
    assert pack(np.array([1, -1, 7], np.int8), 4).tolist() == [0xF1, 0x07, 0, 0]
    assert pack(np.array([1, -1, 0, 1, -1], np.int8), 2).tolist() == [0b01001101, 0b11, 0, 0]
    assert pack(np.array([-1], np.int8), 8).tolist() == [255, 0, 0, 0]
    assert [packed_bytes(n, 2) for n in (1, 16, 17)] == [4, 4, 8]


def test_pack_takes_arrays_in_memory_order() -> None:
    values = np.arange(-4, 4, dtype=np.int8).reshape(2, 2, 2)
    assert pack(values, 4).tolist() == pack(values.ravel(), 4).tolist()
