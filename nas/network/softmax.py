"""Softmax of int8 scores, in integers alone: what TensorFlow Lite Micro and CMSIS-NN compute.

Their specification writes exp and 1/x as fixed-point series (32 bits, with i integer bits: "Q i").
Of a row only the differences from its maximum matter, which have 256 values: exp is a table that
`exponentials` makes once, bit for bit what the series gives. What is left at run time is a sum, one
reciprocal a row and one product an element.
"""

import math

import numpy as np

from nas.network.numerics import Int8, Int64, quantise_multiplier

DIFFERENCE_BITS = 5  # integer bits of the scaled difference
SUM_BITS = 12  # integer bits of the sum of exponentials
_ONE = (1 << 31) - 1
_QUARTER = 1 << 24  # in Q5
# exp(-1/4), exp(-1/2), exp(-1), ... exp(-16) in Q0.
_BARREL = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
_EXP_EIGHTH, _THIRD = 1895147668, 715827883  # exp(-1/8), 1/3 in Q0
RECIPROCAL = (1515870810, -1010580540)  # 48/17, -32/17 in Q2
NEWTON_STEPS = 3


def _high(a: Int64, b: Int64 | int) -> Int64:
    """a * b / 2^31, rounded half up: the product of two fixed-point numbers."""
    product: Int64 = (a * b + (np.int64(1) << 30)) >> 31
    return product


def _shift_right(x: Int64, bits: int | Int64) -> Int64:
    """x / 2^bits, rounded half away from zero."""
    half = (np.int64(1) << bits) >> 1
    rounded: Int64 = (x + half - ((x < 0) & (half > 0))) >> bits
    return rounded


def exponentials(scale: float) -> Int64:
    """(256,) exp(-i * scale) in Q0 for a difference of i steps from the maximum; 0 beyond range.

    Args:
        scale: real value of one step of the scores, softmax's beta included.
    """
    multiplier, shift = quantise_multiplier(min(scale * 2.0 ** (31 - DIFFERENCE_BITS), _ONE))
    longest = math.floor((2.0**DIFFERENCE_BITS - 1) * 2.0 ** (31 - DIFFERENCE_BITS) / 2.0**shift)
    differences = -np.arange(256, dtype=np.int64)
    scaled = _high(differences * (1 << max(shift, 0)), multiplier)
    return np.where(-differences <= longest, _exp(scaled), 0)


def _exp(x: Int64) -> Int64:
    """exp(x) in Q0 for x <= 0 in Q5."""
    fraction = (x & (_QUARTER - 1)) - _QUARTER  # in [-1/4, 0)
    result = _exp_of_fraction(fraction << DIFFERENCE_BITS)
    rest = fraction - x  # a multiple of a quarter
    for i, factor in enumerate(_BARREL):
        result = np.where(rest & (_QUARTER << i), _high(result, factor), result)
    return np.where(x == 0, np.int64(_ONE), result)


def _exp_of_fraction(x: Int64) -> Int64:
    """exp(x) for x in [-1/4, 0), both in Q0: the series to fourth order around -1/8."""
    moved = x + (1 << 28)
    square = _high(moved, moved)
    cube, fourth = _high(square, moved), _high(square, square)
    rest = _shift_right(_high(_shift_right(fourth, 2) + cube, _THIRD) + square, 1)
    return _EXP_EIGHTH + _high(moved + rest, _EXP_EIGHTH)


def reciprocal(total: Int64) -> tuple[Int64, Int64]:
    """(1 / total in Q0 of its leading bit, bits that total has over one) for totals in Q12."""
    zeros = 31 - np.floor(np.log2(total.astype(np.float64))).astype(np.int64)  # leading, of 32 bits
    fraction = (total << zeros) - (np.int64(1) << 31)  # total = (1 + fraction) * 2^n
    half = (fraction + _ONE + 1) >> 1  # (1 + fraction) / 2, of two numbers that are not negative
    x = RECIPROCAL[0] + _high(half, RECIPROCAL[1])
    for _ in range(NEWTON_STEPS):
        missing = (1 << 29) - _high(half, x)
        x = x + np.clip(_high(x, missing) << 2, -(1 << 31), _ONE)
    return np.clip(x << 1, -(1 << 31), _ONE), SUM_BITS - zeros


def softmax(scores: Int8, table: Int64) -> Int8:
    """Weights of the last axis, real value (integer + 128) / 256.

    Args:
        scores: int8 (..., n).
        table: `exponentials` of the scores' scale.
    """
    wide = scores.astype(np.int64)
    powers = table[wide.max(-1, keepdims=True) - wide]
    total = _shift_right(powers, SUM_BITS).sum(-1, keepdims=True)
    factor, over_unit = reciprocal(total)
    weights = _shift_right(_high(powers, factor), over_unit + 23) - 128
    clipped: Int8 = np.clip(np.where(powers > 0, weights, -128), -128, 127).astype(np.int8)
    return clipped


def softmax_in_float(scores: Int8, scale: float) -> Int8:
    """What LiteRT computes on processors with vectors: a table, one sum and one product in float32.

    Differs from `softmax` in a few of a million weights, by one.
    """
    step = -np.float32(scale)
    table = np.exp((step * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)
    powers = table[scores.max(-1, keepdims=True).astype(np.int64) - scores]
    total = np.add.accumulate(powers, axis=-1)[..., -1:]  # one after another, as a loop adds
    weights = powers * (np.float32(1) / (total * np.float32(1 / 256)))
    rounded = np.floor(weights.astype(np.float64) + 0.5) - 128
    clipped: Int8 = np.clip(rounded, -128, 127).astype(np.int8)
    return clipped
