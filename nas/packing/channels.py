"""The constants of a convolution's channels, in the form that the C kernels compute with.

A kernel sums weight * input over raw int8 inputs, padding included (it holds the input's zero
point), so the zero point is folded into the bias here. What comes out is that of
`numerics.rescale` in its `double` rounding, for every input: v = (a * multiplier + 2^30) >> 31,
then a shift to the right that rounds half away from zero, or, where `right_shift` <= 0, a shift of
a to the left before.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import GraphError
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8, Int64, quantise_multipliers, rescale
from nas.network.ops import Conv2d, DepthwiseConv2d

LARGEST_SHIFT = 23  # beyond it (2 * zero point + 1) << (shift - 1) leaves int32
LARGEST_SUM = 1 << 30  # kernels double an accumulator


@dataclass(frozen=True, slots=True)
class Channels:
    """One layer's channels.

    Attributes:
        values: int8 weights, the channels on the first axis: (channels, taps), taps in the order
            (kernel height, kernel width, in) or (kernel height, kernel width) of a depthwise one.
        bias: (channels,) int32, the input's zero point folded in.
        multiplier: (channels,) int32 in [2^30, 2^31).
        right_shift: (channels,) from -20 to 23.
        out_zero: zero point of the output.
    """

    values: Int8
    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    right_shift: NDArray[np.int8]
    out_zero: int


def channels_of(model: IntegerModel, op: Conv2d | DepthwiseConv2d) -> Channels:
    """The channels of `op`.

    Raises:
        GraphError: an accumulator that 32 bits do not hold.
    """
    held, source = model.weights[op.name], model.scales[op.inputs[0]]
    zero = model.scales[op.name].zero_point
    count = model.graph.shapes[op.name][-1]
    if isinstance(op, DepthwiseConv2d):
        values = np.ascontiguousarray(held.values.reshape(-1, count).T)
    else:
        values = held.values.reshape(count, -1)
    wide = values.astype(np.int64)
    bias = held.bias - source.zero_point * wide.sum(axis=1)
    multiplier, shift = quantise_multipliers(model.factors(op))
    low, high = _range(wide, bias)
    constant = (shift < -LARGEST_SHIFT) | (multiplier == 0)
    if constant.any():
        values, bias = values.copy(), bias.copy()
        result = _constant_results(op, low, high, multiplier, shift, constant)
        # A quarter of 4 * c, rounded twice, is c for every c.
        values[constant], bias[constant] = 0, 4 * result[constant]
        multiplier, shift = multiplier.copy(), shift.copy()
        multiplier[constant], shift[constant] = 1 << 30, -1
        low, high = _range(values.astype(np.int64), bias)
    largest = np.maximum(np.abs(low), np.abs(high)) << np.maximum(shift, 0)
    if (largest >= LARGEST_SUM).any():
        channel = int(largest.argmax())
        raise GraphError(
            f"{op.name}: channel {channel} may sum up to {int(largest[channel])}; the C kernels"
            f" hold less than {LARGEST_SUM}: its bias is out of proportion to its weights"
        )
    return Channels(
        values,
        bias.astype(np.int32),
        multiplier.astype(np.int32),
        (-shift).astype(np.int8),
        zero,
    )


def _range(values: Int64, bias: Int64) -> tuple[Int64, Int64]:
    """Least and largest accumulator of each channel over all int8 inputs."""
    positive = np.where(values > 0, values, 0).sum(axis=1)
    negative = np.where(values < 0, values, 0).sum(axis=1)
    return bias + 127 * negative - 128 * positive, bias + 127 * positive - 128 * negative


def _constant_results(
    op: Conv2d | DepthwiseConv2d,
    low: Int64,
    high: Int64,
    multiplier: Int64,
    shift: Int64,
    constant: NDArray[np.bool_],
) -> Int64:
    """What channels of a vanishing factor give, whatever the input; without the zero point."""
    least = rescale(low, multiplier, shift, "double")
    most = rescale(high, multiplier, shift, "double")
    differing = constant & (least != most)
    if differing.any():
        channel = int(differing.argmax())
        raise GraphError(
            f"{op.name}: channel {channel} is requantised by 2^{int(shift[channel])}; the C kernels"
            f" shift by at most {LARGEST_SHIFT}: its weights are out of proportion to its output"
        )
    return np.clip(least, -512, 512)
