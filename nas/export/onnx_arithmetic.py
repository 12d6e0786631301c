"""Integer arithmetic in ONNX, equal to `numerics.rescale`.

ONNX has no arithmetic shift to the right for signed numbers, and its integer division truncates
towards zero, so the two roundings of `double` are written as divisions:

- half up at bit 31: an offset of 2^62 makes the dividend positive, where truncating is flooring;
- half away from zero at the shift: what truncating does after half the divisor has been added with
  the dividend's sign.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from nas.export.onnx_builder import OnnxWriter
from nas.network.numerics import Int64, quantise_multipliers
from nas.network.ops import Op

_OFFSET = 1 << 62  # of a dividend of magnitude up to 2^62, a multiple of 2^31


def rescale(writer: OnnxWriter, x: str, factors: NDArray[np.float64]) -> str:
    """round(x * factor) for int64 x; one factor, or one a channel."""
    multiplier, shift = quantise_multipliers(factors)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    high = high_product(writer, x, _by_channel(writer, multiplier << left))
    if not right.any():
        return high
    return divide(writer, high, np.int64(1) << right)


def high_product(writer: OnnxWriter, a: str, b: str) -> str:
    """a * b / 2^31, rounded half up; |a * b| < 2^62."""
    product = writer.op("Mul", a, b)
    raised = writer.op("Add", product, writer.constant(np.int64(_OFFSET + (1 << 30))))
    quotient = writer.op("Div", raised, writer.constant(np.int64(1 << 31)))
    return writer.op("Sub", quotient, writer.constant(np.int64(_OFFSET >> 31)))


def divide(writer: OnnxWriter, x: str, divisor: Int64) -> str:
    """x / divisor, rounded half away from zero."""
    half = writer.op("Mul", writer.op("Sign", x), _by_channel(writer, divisor >> 1))
    return writer.op("Div", writer.op("Add", x, half), _by_channel(writer, divisor))


def _by_channel(writer: OnnxWriter, values: Int64) -> str:
    return writer.constant(values[0]) if len(values) == 1 else writer.along_channels(values)


def requantise(
    writer: OnnxWriter, op: Op, x: str, factors: NDArray[np.float64], relu: bool = False
) -> str:
    """int64 accumulators of `op` as its int8 output; one factor, or one a channel."""
    zero = writer.model.scales[op.name].zero_point
    moved = writer.op("Add", rescale(writer, x, factors), writer.constant(np.int64(zero)))
    low = max(-128, zero) if relu else -128
    return writer.cast(clip(writer, moved, low, 127), TensorProto.INT8)


def clip(writer: OnnxWriter, x: str, low: int, high: int) -> str:
    """int64 x held between `low` and `high`."""
    return writer.op("Clip", x, writer.constant(np.int64(low)), writer.constant(np.int64(high)))


def unsigned(writer: OnnxWriter, x: str) -> str:
    """int8 x as uint8, 128 higher: the one input type that ConvInteger takes everywhere."""
    wide = writer.op("Add", writer.cast(x, TensorProto.INT32), writer.constant(np.int32(128)))
    return writer.cast(wide, TensorProto.UINT8)


def centred(writer: OnnxWriter, op: Op, index: int, x: str) -> str:
    """int64 x without its zero point."""
    zero = writer.model.scales[op.inputs[index]].zero_point
    return writer.op("Sub", writer.cast(x, TensorProto.INT64), writer.constant(np.int64(zero)))
