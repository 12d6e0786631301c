"""Accumulators to int8, in the rounding of the runtime that a model is compared with."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nas.network.numerics import Int8, Int64, Rounding, quantise_multipliers, rescale

# What `double_up` means for each operator: LiteRT's kernels differ from TFLM's only where they work
# on vectors, and what does not fill a vector goes through the same scalar code as TFLM's. Found by
# comparison on x86-64, one operator and one element at a time:
#   dense convolution       half up
#   depthwise convolution   half up on whole groups of 8 channels
#   Add                     inputs rounded once, on whole groups of 16 elements
#   Mul                     as TFLM, with its factor in float32 instead of float64
# tflite-runtime 2.14 (`double_up_dense`) does so for dense convolutions and Mul alone.
SCALAR_ROUNDING: dict[Rounding, Rounding] = {
    "double": "double",
    "double_up": "double",
    "double_up_dense": "double",
    "single": "single",
}
VECTOR_CHANNELS, VECTOR_ELEMENTS = 8, 16


def requantiser(
    factors: NDArray[np.float64], zero_point: int, low: int, rounding: Rounding
) -> Callable[[Int64], Int8]:
    """round(accumulator * factor) + zero point, clipped to [low, 127]; factors by channel."""
    multiplier, shift = quantise_multipliers(factors)

    def requantise(accumulator: Int64) -> Int8:
        scaled = rescale(accumulator, multiplier, shift, rounding)
        scaled += zero_point
        np.clip(scaled, low, 127, out=scaled)
        return scaled.astype(np.int8)

    return requantise


def in_vectors(
    factors: NDArray[np.float64], zero_point: int, low: int, rounding: Rounding
) -> Callable[[Int64], Int8]:
    """The requantiser of a depthwise convolution, whose last channels may round differently."""
    whole = len(factors) - len(factors) % VECTOR_CHANNELS
    rest = SCALAR_ROUNDING[rounding]
    if rounding == "double_up_dense":
        return requantiser(factors, zero_point, low, rest)
    if rest == rounding or whole == len(factors):
        return requantiser(factors, zero_point, low, rounding)
    first = requantiser(factors[:whole], zero_point, low, rounding)
    last = requantiser(factors[whole:], zero_point, low, rest)

    def requantise(accumulator: Int64) -> Int8:
        parts = [first(accumulator[..., :whole]), last(accumulator[..., whole:])]
        return np.concatenate(parts, axis=-1)

    return requantise
