"""`to_tflite`: an integer model as a .tflite file, written directly as a flatbuffer.

No converter carries 4-bit weights and our own scales into a graph that TensorFlow Lite Micro runs,
so this module writes the numbers themselves. Operator versions are the lowest that fit, for old
runtimes. TFLM computes the reference's outputs exactly (`double`), LiteRT without delegates too
(`double_up`).

Both have int4 weights but no int2 for convolutions: 2-bit weights are stored as int4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nas.errors import UnsupportedOp
from nas.export import tflite_sequence as sequence
from nas.export.tflite_writer import TfliteWriter
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
    window_padding,
)
from nas.network.reference import row_of

STORED_BITS = {8: 8, 4: 4, 2: 4}  # bits of a weight -> bits it takes in the file
CONCAT_INPUTS = 10  # the most that TFLM's kernel takes

_PADDING = {"same": 0, "valid": 1, "causal": 1}  # causal columns are a PAD of their own
_NONE, _RELU = 0, 1  # fused activation


def to_tflite(model: IntegerModel) -> bytes:
    """The file's bytes: int8 inputs (1, h, w, c) named by modality, int8 output (1, K) `logits`.

    Raises:
        UnsupportedOp: an operator or weight width that this format has no row for.
        ToolMissing: the schema of the format is not installed.
    """
    writer = TfliteWriter(model)
    for op in model.graph.ops:
        row_of(ROWS, op, "the .tflite exporter")(writer, op)
    return writer.finish()


def stored_bits(op: Conv2d | DepthwiseConv2d) -> int:
    """Bits that a weight of `op` takes in the file."""
    if op.weight_bits not in STORED_BITS:
        raise UnsupportedOp(
            f"{op.name}: the .tflite exporter has no row for {op.weight_bits}-bit weights, only"
            f" for {', '.join(map(str, STORED_BITS))}; add one"
        )
    return STORED_BITS[op.weight_bits]


def _weights(writer: TfliteWriter, op: Conv2d | DepthwiseConv2d, axis: int) -> tuple[int, int]:
    """Weights with a scale for each place of `axis`, and the bias."""
    held = writer.model.weights[op.name]
    store = writer.int4 if stored_bits(op) == 4 else writer.constant
    weight = store(f"{op.name}/weights", held.values)
    writer.quantise(weight, held.scales, 0, axis)
    bias = writer.constant(f"{op.name}/bias", held.bias)
    source = np.float32(writer.model.scales[op.inputs[0]].scale)
    writer.quantise(bias, source * held.scales, 0, 0)
    return weight, bias


def _padded(writer: TfliteWriter, op: Conv2d | DepthwiseConv2d) -> int:
    """What `op` reads; causal padding stands in front of it."""
    source = op.inputs[0]
    height, width, channels = writer.model.graph.shapes[source]
    before = window_padding(op, (height, width, channels))[1][0]
    if op.padding != "causal" or before == 0:
        return writer.tensors[source]
    shape, scale = (1, height, before + width, channels), writer.model.scales[source]
    padded = writer.tensor(f"{op.name}/padded", shape, "int8", scale)
    return _pad_into(writer, op.name, writer.tensors[source], (0, 0, before, 0), padded)


def _window(op: Conv2d | DepthwiseConv2d) -> dict[str, Any]:
    return {
        "padding": _PADDING[op.padding],
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "fusedActivationFunction": _RELU if op.relu else _NONE,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
    }


def _conv(writer: TfliteWriter, op: Conv2d) -> None:
    version = 7 if stored_bits(op) == 4 else 3
    inputs = [_padded(writer, op), *_weights(writer, op, axis=0)]
    out = writer.activation(op.name)
    writer.op("CONV_2D", version, inputs, out, "Conv2DOptions", **_window(op))


def _depthwise(writer: TfliteWriter, op: DepthwiseConv2d) -> None:
    version = 7 if stored_bits(op) == 4 else 3
    inputs = [_padded(writer, op), *_weights(writer, op, axis=3)]
    values = {**_window(op), "depthMultiplier": 1}
    out = writer.activation(op.name)
    writer.op("DEPTHWISE_CONV_2D", version, inputs, out, "DepthwiseConv2DOptions", **values)


def _pool(writer: TfliteWriter, op: Pool) -> None:
    code = "AVERAGE_POOL_2D" if op.function == "average" else "MAX_POOL_2D"
    values = {
        "padding": _PADDING["valid"],
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "filterHeight": op.kernel[0],
        "filterWidth": op.kernel[1],
    }
    source = writer.tensors[op.inputs[0]]
    writer.op(code, 2, [source], writer.activation(op.name), "Pool2DOptions", **values)


def _add(writer: TfliteWriter, op: Add) -> None:
    inputs = [writer.tensors[name] for name in op.inputs]
    activation = _RELU if op.relu else _NONE
    out = writer.activation(op.name)
    writer.op("ADD", 2, inputs, out, "AddOptions", fusedActivationFunction=activation)


def _mul(writer: TfliteWriter, op: Mul) -> None:
    inputs = [writer.tensors[name] for name in op.inputs]
    writer.op("MUL", 2, inputs, writer.activation(op.name), "MulOptions")


def _concat(writer: TfliteWriter, op: Concat) -> None:
    parts = [(writer.tensors[n], writer.model.graph.shapes[n]) for n in op.inputs]
    scale = writer.model.scales[op.name]
    while len(parts) > CONCAT_INPUTS:  # join the first ones beforehand
        group, parts = parts[:CONCAT_INPUTS], parts[CONCAT_INPUTS:]
        shape = (*group[0][1][:2], sum(shape[2] for _, shape in group))
        joined = writer.tensor(f"{op.name}/first {CONCAT_INPUTS}", (1, *shape), "int8", scale)
        parts.insert(0, (_joined(writer, [t for t, _ in group], joined), shape))
    _joined(writer, [t for t, _ in parts], writer.activation(op.name))


def _joined(writer: TfliteWriter, parts: Sequence[int], out: int) -> int:
    return writer.op("CONCATENATION", 2, parts, out, "ConcatenationOptions", axis=3)


def _table(writer: TfliteWriter, op: Table) -> None:
    """The byte plus 128 is the index into the table: the one form that all runtimes have."""
    wide = writer.cast(writer.tensors[op.inputs[0]], f"{op.name}/int32")
    offset = writer.constant(f"{op.name}/offset", np.array(128, np.int32))
    index = writer.tensor(f"{op.name}/index", writer.shape(wide), "int32")
    writer.op("ADD", 1, [wide, offset], index, "AddOptions")
    entries = writer.constant(f"{op.name}/table", writer.model.table(op))
    scale = writer.model.scales[op.name]
    writer.quantise(entries, np.array([scale.scale], np.float32), scale.zero_point, 0)
    writer.op("GATHER", 2, [entries, index], writer.activation(op.name), "GatherOptions", axis=0)


def _pad(writer: TfliteWriter, op: Pad) -> None:
    source = writer.tensors[op.inputs[0]]
    _pad_into(writer, op.name, source, op.padding, writer.activation(op.name))


def _pad_into(
    writer: TfliteWriter, name: str, source: int, padding: tuple[int, int, int, int], target: int
) -> int:
    top, bottom, left, right = padding
    around = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    inputs = [source, writer.constant(f"{name}/padding", around)]
    return writer.op("PAD", 2, inputs, target, "PadOptions")


def _reshape(writer: TfliteWriter, op: Reshape) -> None:
    writer.reshape(writer.tensors[op.inputs[0]], writer.activation(op.name))


ROWS: dict[type[Op], Callable[[TfliteWriter, Any], None]] = {
    Conv2d: _conv,
    DepthwiseConv2d: _depthwise,
    Pool: _pool,
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Table: _table,
    Pad: _pad,
    Reshape: _reshape,
    Attention: sequence.attention,
    SelectiveScan: sequence.selective_scan,
    Positions: sequence.positions,
    LastStep: sequence.last_step,
}
