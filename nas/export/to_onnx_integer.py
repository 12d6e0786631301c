"""`to_onnx_integer`: an integer model as an ONNX file of integer operators, equal to the reference.

Accumulators come from ConvInteger, requantisation is int64 arithmetic with `double` rounding, which
`onnx_arithmetic` holds.

Weights are stored as unsigned bytes with zero point 128. The products of unsigned inputs and signed
weights saturate at 16 bits on x86 processors without VNNI, those of two unsigned ones do not.
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from nas.errors import UnsupportedOp
from nas.export import onnx_sequence as sequence
from nas.export.onnx_arithmetic import centred, divide, requantise, rescale, unsigned
from nas.export.onnx_builder import (
    OnnxWriter,
    Row,
    concat,
    conv_attributes,
    conv_weights,
    last_step,
    max_pool,
    pad,
    pool_attributes,
    reshape,
    table,
    write,
)
from nas.network.integer import IntegerModel
from nas.network.ops import (
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Mul,
    Op,
    Pad,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Table,
)
from nas.network.reference import ADD_SHIFT, add_factors

STORED_BITS = {8: 8, 4: 8, 2: 8}  # bits of a weight -> bits it takes; ConvInteger has no others


def to_onnx_integer(model: IntegerModel) -> bytes:
    """The file's bytes: int8 inputs named by modality, (N, c), (N, t, c) or (N, h, w, c), and the
    int8 output `logits` (N, K); N is free.

    Raises:
        UnsupportedOp: an operator or weight width that this format has no row for.
    """
    return write(model, ROWS, "the integer .onnx exporter")


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
        unsigned(writer, inputs[0]),
        writer.constant(conv_weights(op, raised)),
        writer.constant(np.uint8(writer.model.scales[source].zero_point + 128)),
        writer.constant(np.uint8(128)),
        **conv_attributes(op, writer.model.graph.shapes[source]),
    )
    biased = writer.op("Add", accumulator, writer.along_channels(held.bias))
    wide = writer.cast(biased, TensorProto.INT64)
    return requantise(writer, op, wide, writer.model.factors(op), op.relu)


def _pool(writer: OnnxWriter, op: Pool, inputs: Sequence[str]) -> str:
    if op.function == "max":
        return max_pool(writer, op, inputs)
    # A sum over windows is a convolution with ones; zero point 128 gives back the int8 values.
    channels = writer.model.graph.shapes[op.name][2]
    total = writer.op(
        "ConvInteger",
        unsigned(writer, inputs[0]),
        writer.constant(np.ones((channels, 1, *op.kernel), np.uint8)),
        writer.constant(np.uint8(128)),
        writer.constant(np.uint8(0)),
        group=channels,
        **pool_attributes(op),
    )
    count = np.array([op.kernel[0] * op.kernel[1]], np.int64)
    mean = divide(writer, writer.cast(total, TensorProto.INT64), count)
    return writer.cast(mean, TensorProto.INT8)


def _add(writer: OnnxWriter, op: Add, inputs: Sequence[str]) -> str:
    first, second, out = (np.array([factor]) for factor in add_factors(writer.model, op))
    scaled = []
    for index, factor in enumerate((first, second)):
        moved = centred(writer, op, index, inputs[index])
        raised = writer.op("Mul", moved, writer.constant(np.int64(1 << ADD_SHIFT)))
        scaled.append(rescale(writer, raised, factor))
    return requantise(writer, op, writer.op("Add", *scaled), out, op.relu)


def _mul(writer: OnnxWriter, op: Mul, inputs: Sequence[str]) -> str:
    product = writer.op("Mul", *(centred(writer, op, i, x) for i, x in enumerate(inputs)))
    return requantise(writer, op, product, writer.model.factors(op), relu=False)


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
    Attention: sequence.attention,
    SelectiveScan: sequence.selective_scan,
    Positions: sequence.positions,
    LastStep: last_step,
}
