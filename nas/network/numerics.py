"""The integer arithmetic, once: TensorFlow Lite's int8 specification, and how weights are packed.

A real factor m is held as a 31-bit multiplier and a power of two (`quantise_multiplier`). Runtimes
differ only in how they round m * accumulator back to an integer:

    double     round half up at bit 31, then half away from zero at the shift: TFLM, CMSIS-NN, our C
    double_up  round half up at both steps: LiteRT's own optimised kernels (ruy)
    double_up_dense  double_up in dense convolutions, double elsewhere: LiteRT's predecessor
    single     one rounding, half up: XNNPACK on most inputs, CMSIS-NN with single rounding

`double` is the definition of this project's models. The others exist so that a runtime is
compared with the reference in that runtime's own mode, to zero difference, not to a tolerance.
"""

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.network.ops import TableFunction

Rounding: TypeAlias = Literal["double", "double_up", "double_up_dense", "single"]
Int8: TypeAlias = NDArray[np.int8]
Int64: TypeAlias = NDArray[np.int64]


def weight_limit(bits: int) -> int:
    """Largest magnitude of a symmetric, narrow-range weight: 127, 7 or 1."""
    return int(2 ** (bits - 1)) - 1


def quantise_multiplier(factor: float) -> tuple[int, int]:
    """factor = multiplier / 2^31 * 2^shift, with multiplier in [2^30, 2^31); TFLite's rounding."""
    if factor == 0.0:
        return 0, 0
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"requantisation factor {factor} must be finite and positive")
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * (1 << 31) + 0.5)
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    return (0, 0) if shift < -31 else (multiplier, shift)


def quantise_multipliers(factors: NDArray[np.float64]) -> tuple[Int64, Int64]:
    """`quantise_multiplier` for each of (channels,) factors."""
    pairs = [quantise_multiplier(float(f)) for f in factors]
    return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)


def rescale(x: Int64, multiplier: Int64, shift: Int64, rounding: Rounding) -> Int64:
    """round(x * multiplier / 2^31 * 2^shift); the last axis of x has one multiplier a channel."""
    if rounding == "single":
        total = 31 - shift
        nearest: Int64 = (x * multiplier + (np.int64(1) << (total - 1))) >> total
        return nearest
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    high = ((x << left) * multiplier + (np.int64(1) << 30)) >> 31
    half: Int64 = (np.int64(1) << right) >> 1
    if rounding == "double":  # half away from zero: a negative tie goes down
        half = half - ((high < 0) & (right > 0)).astype(np.int64)
    rounded: Int64 = (high + half) >> right
    return rounded


def table(
    function: TableFunction, in_scale: float, in_zero: int, out_scale: float, out_zero: int
) -> Int8:
    """(256,) output for each int8 input from -128 to 127."""
    x = (np.arange(-128, 128) - in_zero) * in_scale
    if function == "sigmoid":
        with np.errstate(over="ignore"):  # far left: 1 / inf is the 0 that is meant
            y = 1.0 / (1.0 + np.exp(-x))
    elif function == "tanh":
        y = np.tanh(x)
    elif function == "silu":
        with np.errstate(over="ignore"):
            y = x / (1.0 + np.exp(-x))
    else:
        y = x * np.clip(x + 3.0, 0.0, 6.0) / 6.0
    rounded: Int8 = np.clip(np.round(y / out_scale) + out_zero, -128, 127).astype(np.int8)
    return rounded


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` weights of `bits`, the last word filled up to 4 bytes."""
    return -(-count * bits // 32) * 4


def pack(values: Int8, bits: int) -> NDArray[np.uint8]:
    """Two's complement, the first value in the lowest bits; length as `packed_bytes` says."""
    per_byte = 8 // bits
    flat = values.ravel()
    padded = np.zeros(packed_bytes(flat.size, bits) * per_byte, np.uint8)
    padded[: flat.size] = flat.view(np.uint8) & ((1 << bits) - 1)
    packed = np.zeros(padded.size // per_byte, np.uint8)
    for i in range(per_byte):
        packed |= padded[i::per_byte] << (i * bits)
    return packed


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> Int8:
    """The inverse of `pack`: the first `count` values."""
    per_byte = 8 // bits
    fields = np.stack([(packed >> (i * bits)) & ((1 << bits) - 1) for i in range(per_byte)], axis=1)
    values = fields.ravel()[:count].astype(np.int16)
    values[values >= 1 << (bits - 1)] -= 1 << bits
    return values.astype(np.int8)
