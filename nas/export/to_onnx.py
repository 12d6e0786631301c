"""`to_onnx`: an integer model as an ONNX file in QDQ form, for whatever tool reads that form.

Each operator is float between DequantizeLinear and QuantizeLinear, and a runtime fuses the three.
Runtimes round its results to the nearest number, once, where the reference rounds twice; so its
outputs are close to the reference's, not equal. `nas.export.to_onnx_integer` writes the equal ones.

Average pooling would differ most: means of few integers are often exact ties, which the reference
rounds away from zero and QuantizeLinear to even. A nudge far smaller than the distance between two
means decides those ties as the reference does. Tables stay tables of bytes, and a selective scan
stays in integers: in float its state would drift from the reference step by step.
"""

from collections.abc import Callable, Sequence

import numpy as np

from nas.errors import UnsupportedOp
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
from nas.export.onnx_sequence import selective_scan
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

STORED_BITS = {8: 8, 4: 4, 2: 8}  # bits of a weight -> bits it takes; 2-bit types need opset 25


def to_onnx(model: IntegerModel) -> bytes:
    """The file's bytes: int8 inputs named by modality, (N, c), (N, t, c) or (N, h, w, c), and the
    int8 output `logits` (N, K); N is free.

    Raises:
        UnsupportedOp: an operator or weight width that this format has no row for.
    """
    return write(model, ROWS, "the QDQ .onnx exporter")


def _dequantise(writer: OnnxWriter, name: str, x: str) -> str:
    return writer.op("DequantizeLinear", x, *_scale(writer, name))


def _quantise(writer: OnnxWriter, name: str, x: str) -> str:
    return writer.op("QuantizeLinear", x, *_scale(writer, name))


def _scale(writer: OnnxWriter, name: str) -> tuple[str, str]:
    scale = writer.model.scales[name]
    return (
        writer.constant(np.float32(scale.scale)),
        writer.constant(np.int8(scale.zero_point)),
    )


def _in_float(row: Callable[..., str]) -> Row:
    """`row`, which takes and returns floats, between dequantising and quantising."""

    def quantised(writer: OnnxWriter, op: Op, inputs: Sequence[str]) -> str:
        reals = [_dequantise(writer, n, x) for n, x in zip(op.inputs, inputs, strict=True)]
        result = row(writer, op, reals)
        if getattr(op, "relu", False):
            result = writer.op("Relu", result)
        return _quantise(writer, op.name, result)

    return quantised


def _conv(writer: OnnxWriter, op: Conv2d | DepthwiseConv2d, inputs: Sequence[str]) -> str:
    if op.weight_bits not in STORED_BITS:
        raise UnsupportedOp(
            f"{op.name}: the QDQ .onnx exporter has no row for {op.weight_bits}-bit weights, only"
            f" for {', '.join(map(str, STORED_BITS))}; add one"
        )
    source = op.inputs[0]
    held = writer.model.weights[op.name]
    values, zeros = conv_weights(op, held.values), np.zeros(len(held.scales), np.int8)
    store = writer.int4 if STORED_BITS[op.weight_bits] == 4 else writer.constant
    scales = writer.constant(held.scales)
    weights = writer.op("DequantizeLinear", store(values), scales, store(zeros), axis=0)
    grid = np.float32(writer.model.scales[source].scale) * held.scales
    no_zero_point = writer.constant(np.zeros(len(grid), np.int32))
    stored = writer.constant(held.bias), writer.constant(grid), no_zero_point
    bias = writer.op("DequantizeLinear", *stored, axis=0)
    attributes = conv_attributes(op, writer.model.graph.shapes[source])
    return writer.op("Conv", inputs[0], weights, bias, **attributes)


def _pool(writer: OnnxWriter, op: Pool, inputs: Sequence[str]) -> str:
    if op.function == "max":
        return max_pool(writer, op, inputs)
    mean = writer.op("AveragePool", inputs[0], **pool_attributes(op))
    scale = writer.model.scales[op.name]
    # Means are multiples of 1 / count, so one that is no tie is at least 1 / (2 * count) from one.
    nudge = scale.scale / (4 * op.kernel[0] * op.kernel[1])
    integer = writer.op("Add", mean, writer.constant(np.float32(scale.zero_point * scale.scale)))
    signed = writer.op("Mul", writer.op("Sign", integer), writer.constant(np.float32(nudge)))
    return writer.op("Add", mean, signed)


def _add(writer: OnnxWriter, op: Add, inputs: Sequence[str]) -> str:
    return writer.op("Add", *inputs)


def _mul(writer: OnnxWriter, op: Mul, inputs: Sequence[str]) -> str:
    return writer.op("Mul", *inputs)


def _attention(writer: OnnxWriter, op: Attention, inputs: Sequence[str]) -> str:
    """The root of a head's width is in the scale with which the scores become real numbers."""
    shape = writer.model.graph.shapes[op.name]
    split = writer.int64(0, op.heads, shape[2] // op.heads, -1)
    heads = [writer.op("Reshape", x, split) for x in inputs]
    # Bytes are transposed and not floats: runtimes fuse a product with the scales right beside it.
    heads[0], heads[2] = (writer.op("Transpose", heads[i], perm=[0, 1, 3, 2]) for i in (0, 2))
    q, k, v = (_dequantise(writer, n, x) for n, x in zip(op.inputs, heads, strict=True))
    products = writer.op("MatMul", q, k)
    scores = _quantise(writer, f"{op.name}/scores", products)
    root = writer.constant(np.float32((shape[2] // op.heads) ** -0.5))
    reals = writer.op("Mul", _dequantise(writer, f"{op.name}/scores", scores), root)
    share = writer.constant(np.float32(1 / 256)), writer.constant(np.int8(-128))
    # Without this Min ONNX Runtime fuses the softmax, if its scores have no factor, into a kernel
    # of its own in which 256 wraps round to 0 instead of saturating at 255.
    highest = writer.constant(np.float32(255 / 256))
    shares = writer.op("Min", writer.op("Softmax", reals, axis=-1), highest)
    weights = writer.op("QuantizeLinear", shares, *share)
    mixed = writer.op("MatMul", writer.op("DequantizeLinear", weights, *share), v)
    turned = writer.op("Transpose", _quantise(writer, op.name, mixed), perm=[0, 1, 3, 2])
    return writer.op("Reshape", turned, writer.int64(0, shape[2], 1, shape[1]))


def _positions(writer: OnnxWriter, op: Positions, inputs: Sequence[str]) -> str:
    held = writer.model.weights[op.name]
    stored = writer.constant(held.values.transpose(2, 0, 1)), writer.constant(held.scales[0])
    reals = writer.op("DequantizeLinear", *stored, writer.constant(np.int8(0)))
    return writer.op("Add", inputs[0], reals)


def _pad(writer: OnnxWriter, op: Pad, inputs: Sequence[str]) -> str:
    return pad(writer, op, inputs, np.float32(0.0))


ROWS: dict[type[Op], Row] = {
    Conv2d: _in_float(_conv),
    DepthwiseConv2d: _in_float(_conv),
    Pool: _in_float(_pool),
    Add: _in_float(_add),
    Mul: _in_float(_mul),
    Concat: _in_float(concat),
    Table: table,
    Pad: _in_float(_pad),
    Reshape: reshape,
    Attention: _attention,
    SelectiveScan: selective_scan,
    Positions: _in_float(_positions),
    LastStep: last_step,
}
