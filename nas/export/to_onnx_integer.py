"""`to_onnx_integer`: an integer model as an ONNX file of integer operators, equal to the reference.

Accumulators come from ConvInteger, requantisation is int64 arithmetic with `double` rounding. ONNX
has no arithmetic shift to the right for signed numbers, and its integer division truncates towards
zero, so the two roundings are written as divisions:

- half up at bit 31: an offset of 2^62 makes the dividend positive, where truncating is flooring;
- half away from zero at the shift: what truncating does after half the divisor has been added with
  the dividend's sign.

Weights are stored as unsigned bytes with zero point 128. The products of unsigned inputs and signed
weights saturate at 16 bits on x86 processors without VNNI, those of two unsigned ones do not.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from nas.errors import UnsupportedOp
from nas.export.onnx_builder import (
    OnnxWriter,
    Row,
    concat,
    conv_attributes,
    conv_weights,
    max_pool,
    pad,
    pool_attributes,
    reshape,
    table,
    write,
)
from nas.network.integer import IntegerModel
from nas.network.numerics import Int64, quantise_multipliers
from nas.network.ops import (
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Mul,
    Op,
    Pad,
    Pool,
    Reshape,
    Table,
)
from nas.network.reference import ADD_SHIFT, add_factors

STORED_BITS = {8: 8, 4: 8, 2: 8}  # bits of a weight -> bits it takes; ConvInteger has no others

_OFFSET = 1 << 62  # of a dividend of magnitude up to 2^62, a multiple of 2^31


def to_onnx_integer(model: IntegerModel) -> bytes:
    """The file's bytes: int8 inputs named by modality, (N, c), (N, t, c) or (N, h, w, c), and the
    int8 output `logits` (N, K); N is free.

    Raises:
        UnsupportedOp: an operator or weight width that this format has no row for.
    """
    return write(model, ROWS, "the integer .onnx exporter")


def _rescale(writer: OnnxWriter, x: str, factors: NDArray[np.float64]) -> str:
    """round(x * factor) for int64 x; one factor, or one a channel."""
    multiplier, shift = quantise_multipliers(factors)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    product = writer.op("Mul", x, _by_channel(writer, multiplier << left))
    raised = writer.op("Add", product, writer.constant(np.int64(_OFFSET + (1 << 30))))
    quotient = writer.op("Div", raised, writer.constant(np.int64(1 << 31)))
    high = writer.op("Sub", quotient, writer.constant(np.int64(_OFFSET >> 31)))
    if not right.any():
        return high
    return _divide(writer, high, np.int64(1) << right)


def _divide(writer: OnnxWriter, x: str, divisor: Int64) -> str:
    """x / divisor, rounded half away from zero."""
    half = writer.op("Mul", writer.op("Sign", x), _by_channel(writer, divisor >> 1))
    return writer.op("Div", writer.op("Add", x, half), _by_channel(writer, divisor))


def _by_channel(writer: OnnxWriter, values: Int64) -> str:
    return writer.constant(values[0]) if len(values) == 1 else writer.along_channels(values)


def _requantise(
    writer: OnnxWriter, op: Op, x: str, factors: NDArray[np.float64], relu: bool
) -> str:
    zero = writer.model.scales[op.name].zero_point
    moved = writer.op("Add", _rescale(writer, x, factors), writer.constant(np.int64(zero)))
    low, high = np.int64(max(-128, zero) if relu else -128), np.int64(127)
    clipped = writer.op("Clip", moved, writer.constant(low), writer.constant(high))
    return writer.cast(clipped, TensorProto.INT8)


def _unsigned(writer: OnnxWriter, x: str) -> str:
    """int8 x as uint8, 128 higher: the one input type that ConvInteger takes everywhere."""
    wide = writer.op("Add", writer.cast(x, TensorProto.INT32), writer.constant(np.int32(128)))
    return writer.cast(wide, TensorProto.UINT8)


def _centred(writer: OnnxWriter, op: Op, index: int, x: str) -> str:
    """int64 x without its zero point."""
    zero = writer.model.scales[op.inputs[index]].zero_point
    return writer.op("Sub", writer.cast(x, TensorProto.INT64), writer.constant(np.int64(zero)))


def _conv(writer: OnnxWriter, op: Conv2d | DepthwiseConv2d, inputs: Sequence[str]) -> str:
    if op.weight_bits not in STORED_BITS:
        raise UnsupportedOp(
            f"{op.name}: the integer .onnx exporter has no row for {op.weight_bits}-bit weights,"
            f" only for {', '.join(map(str, STORED_BITS))}; add one"
        )
    held = writer.model.weights[op.name]
    raised = (held.values.astype(np.int16) + 128).astype(np.uint8)
    source = op.inputs[0]
    accumulator = writer.op(
        "ConvInteger",
        _unsigned(writer, inputs[0]),
        writer.constant(conv_weights(op, raised)),
        writer.constant(np.uint8(writer.model.scales[source].zero_point + 128)),
        writer.constant(np.uint8(128)),
        **conv_attributes(op, writer.model.graph.shapes[source]),
    )
    biased = writer.op("Add", accumulator, writer.along_channels(held.bias))
    wide = writer.cast(biased, TensorProto.INT64)
    return _requantise(writer, op, wide, writer.model.factors(op), op.relu)


def _pool(writer: OnnxWriter, op: Pool, inputs: Sequence[str]) -> str:
    if op.function == "max":
        return max_pool(writer, op, inputs)
    # A sum over windows is a convolution with ones; zero point 128 gives back the int8 values.
    channels = writer.model.graph.shapes[op.name][2]
    total = writer.op(
        "ConvInteger",
        _unsigned(writer, inputs[0]),
        writer.constant(np.ones((channels, 1, *op.kernel), np.uint8)),
        writer.constant(np.uint8(128)),
        writer.constant(np.uint8(0)),
        group=channels,
        **pool_attributes(op),
    )
    count = np.array([op.kernel[0] * op.kernel[1]], np.int64)
    mean = _divide(writer, writer.cast(total, TensorProto.INT64), count)
    return writer.cast(mean, TensorProto.INT8)


def _add(writer: OnnxWriter, op: Add, inputs: Sequence[str]) -> str:
    first, second, out = (np.array([factor]) for factor in add_factors(writer.model, op))
    scaled = []
    for index, factor in enumerate((first, second)):
        centred = _centred(writer, op, index, inputs[index])
        raised = writer.op("Mul", centred, writer.constant(np.int64(1 << ADD_SHIFT)))
        scaled.append(_rescale(writer, raised, factor))
    return _requantise(writer, op, writer.op("Add", *scaled), out, op.relu)


def _mul(writer: OnnxWriter, op: Mul, inputs: Sequence[str]) -> str:
    product = writer.op("Mul", *(_centred(writer, op, i, x) for i, x in enumerate(inputs)))
    return _requantise(writer, op, product, writer.model.factors(op), relu=False)


def _pad(writer: OnnxWriter, op: Pad, inputs: Sequence[str]) -> str:
    return pad(writer, op, inputs, np.int8(writer.model.scales[op.name].zero_point))


ROWS: dict[type[Op], Row] = {
    Conv2d: _conv,
    DepthwiseConv2d: _conv,
    Pool: _pool,
    Add: _add,
    Mul: _mul,
    Concat: concat,
    Table: table,
    Pad: _pad,
    Reshape: reshape,
}
