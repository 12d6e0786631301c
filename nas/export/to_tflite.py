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
from numpy.typing import NDArray

from nas.errors import ToolMissing, UnsupportedOp
from nas.network.integer import IntegerModel, Scale
from nas.network.numerics import pack
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
    Shape,
    Table,
    size,
)
from nas.network.reference import row_of

try:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
except ImportError:  # pragma: no cover
    schema = None

OUTPUT = "logits"
STORED_BITS = {8: 8, 4: 4, 2: 4}  # bits of a weight -> bits it takes in the file
CONCAT_INPUTS = 10  # the most that TFLM's kernel takes

_ALIGNMENT = 16  # of a constant, so that a chip may read int32 values where they lie
_PADDING = {"same": 0, "valid": 1}
_NONE, _RELU = 0, 1  # fused activation


def to_tflite(model: IntegerModel) -> bytes:
    """The file's bytes: int8 inputs (1, h, w, c) named by modality, int8 output (1, K) `logits`.

    Raises:
        UnsupportedOp: an operator or weight width that this format has no row for.
        ToolMissing: the schema of the format is not installed.
    """
    if schema is None:
        raise ToolMissing(
            "ai-edge-litert, which holds the .tflite schema, is not installed: "
            "pip install ai-edge-litert flatbuffers"
        )
    writer = _Writer(model)
    for op in model.graph.ops:
        row_of(ROWS, op, "the .tflite exporter")(writer, op)
    return writer.finish()


class _Writer:
    """Collects tensors and operators of one subgraph; tensors are known by index."""

    def __init__(self, model: IntegerModel) -> None:
        self.model = model
        self.file = schema.ModelT()
        self.file.version, self.file.description = 3, "mcu-nas"
        self.file.buffers, self.file.operatorCodes = [_buffer(None)], []
        self.main = schema.SubGraphT()
        self.main.name = "main"
        self.main.tensors, self.main.operators = [], []
        self.tensors: dict[str, int] = {}
        self._codes: dict[tuple[int, int], int] = {}
        for source in model.graph.inputs:
            self.activation(source.name)
        self.main.inputs = list(self.tensors.values())

    def activation(self, name: str) -> int:
        """The int8 tensor of the graph's tensor `name`, newly made."""
        shape = self.model.graph.shapes[name]
        self.tensors[name] = self.temporary(name, shape, self.model.scales[name])
        return self.tensors[name]

    def temporary(self, name: str, shape: Shape, scale: Scale | None) -> int:
        """A tensor (1, *shape): int8 with `scale`, int32 without."""
        kind = schema.TensorType.INT8 if scale else schema.TensorType.INT32
        index = self._tensor(name, (1, *shape), kind)
        if scale:
            self.quantise(index, np.array([scale.scale], np.float32), scale.zero_point, 0)
        return index

    def _tensor(self, name: str, shape: Sequence[int], kind: int) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def quantise(self, index: int, scales: NDArray[np.float32], zero_point: int, axis: int) -> None:
        """Gives tensor `index` one scale, or one for each place of `axis`."""
        held = schema.QuantizationParametersT()
        held.scale = scales
        held.zeroPoint = np.full(len(scales), zero_point, np.int64)
        held.quantizedDimension = axis
        self.main.tensors[index].quantization = held

    def constant(self, name: str, values: NDArray[np.int8] | NDArray[np.int32]) -> int:
        """An int8 or int32 constant without scale."""
        kind = schema.TensorType.INT8 if values.dtype == np.int8 else schema.TensorType.INT32
        index = self._tensor(name, values.shape, kind)
        self._fill(index, np.frombuffer(values.tobytes(), np.uint8))
        return index

    def _fill(self, index: int, data: NDArray[np.uint8]) -> None:
        self.main.tensors[index].buffer = len(self.file.buffers)
        self.file.buffers.append(_buffer(data))

    def weights(self, op: Conv2d | DepthwiseConv2d, axis: int) -> tuple[int, int]:
        """Weights with a scale for each place of `axis`, and the bias."""
        held = self.model.weights[op.name]
        weight = self.constant(f"{op.name}/weights", held.values)
        if stored_bits(op) == 4:
            self.main.tensors[weight].type = schema.TensorType.INT4
            packed = pack(held.values, 4)[: -(-held.values.size // 2)]
            self.file.buffers[self.main.tensors[weight].buffer].data = packed
        self.quantise(weight, held.scales, 0, axis)
        bias = self.constant(f"{op.name}/bias", held.bias)
        source = np.float32(self.model.scales[op.inputs[0]].scale)
        self.quantise(bias, source * held.scales, 0, 0)
        return weight, bias

    def op(
        self,
        code: str,
        version: int,
        inputs: Sequence[int],
        output: int,
        options: str = "",
        **values: Any,
    ) -> int:
        """Appends one operator; `options` is the name of its table in the schema."""
        entry = schema.OperatorT()
        entry.opcodeIndex = self._code(getattr(schema.BuiltinOperator, code), version)
        entry.inputs, entry.outputs = list(inputs), [output]
        if options:
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            entry.builtinOptions = getattr(schema, f"{options}T")()
            for key, value in values.items():
                setattr(entry.builtinOptions, key, value)
        self.main.operators.append(entry)
        return output

    def _code(self, builtin: int, version: int) -> int:
        if (builtin, version) not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = builtin, version
            code.deprecatedBuiltinCode = min(builtin, 127)
            self._codes[builtin, version] = len(self.file.operatorCodes)
            self.file.operatorCodes.append(code)
        return self._codes[builtin, version]

    def reshape(self, source: int, target: int) -> None:
        """A reshape of tensor `source` to the shape that tensor `target` has."""
        shape = self.main.tensors[target].shape
        wanted = self.constant(f"{self.main.tensors[target].name}/shape", np.array(shape, np.int32))
        self.op("RESHAPE", 1, [source, wanted], target, "ReshapeOptions", newShape=shape)

    def finish(self) -> bytes:
        """The file with output (1, K) and a signature that names inputs and output."""
        graph = self.model.graph
        source, shape = self.tensors[graph.output], graph.shapes[graph.output]
        output = source
        if len(shape) > 1 or graph.output in {i.name for i in graph.inputs}:
            output = self.temporary(OUTPUT, (size(shape),), self.model.scales[graph.output])
            self.reshape(source, output)
        self.main.tensors[output].name = OUTPUT
        self.main.outputs = [output]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        names = [i.name for i in graph.inputs]
        signature.inputs = [_named(n, self.tensors[n]) for n in names]
        signature.outputs = [_named(OUTPUT, output)]
        self.file.signatureDefs, self.file.subgraphs = [signature], [self.main]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.file.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def _buffer(data: NDArray[np.uint8] | None) -> Any:
    """A buffer whose bytes start at a multiple of 16, which the generated code does not see to."""

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> Any:
            if self.data is not None:
                raw = self.data.tobytes()
                builder.StartVector(1, len(raw), _ALIGNMENT)
                builder.head = builder.head - len(raw)
                builder.Bytes[builder.head : builder.head + len(raw)] = raw
                start = builder.EndVector()
            schema.BufferStart(builder)
            if self.data is not None:
                schema.BufferAddData(builder, start)
            return schema.BufferEnd(builder)

    buffer = Aligned()
    buffer.data = data
    return buffer


def _named(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry


def stored_bits(op: Conv2d | DepthwiseConv2d) -> int:
    """Bits that a weight of `op` takes in the file."""
    if op.weight_bits not in STORED_BITS:
        raise UnsupportedOp(
            f"{op.name}: the .tflite exporter has no row for {op.weight_bits}-bit weights, only"
            f" for {', '.join(map(str, STORED_BITS))}; add one"
        )
    return STORED_BITS[op.weight_bits]


def _window(op: Conv2d | DepthwiseConv2d) -> dict[str, Any]:
    return {
        "padding": _PADDING[op.padding],
        "strideH": op.stride[0],
        "strideW": op.stride[1],
        "fusedActivationFunction": _RELU if op.relu else _NONE,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
    }


def _conv(writer: _Writer, op: Conv2d) -> None:
    version = 7 if stored_bits(op) == 4 else 3
    inputs = [writer.tensors[op.inputs[0]], *writer.weights(op, axis=0)]
    out = writer.activation(op.name)
    writer.op("CONV_2D", version, inputs, out, "Conv2DOptions", **_window(op))


def _depthwise(writer: _Writer, op: DepthwiseConv2d) -> None:
    version = 7 if stored_bits(op) == 4 else 3
    inputs = [writer.tensors[op.inputs[0]], *writer.weights(op, axis=3)]
    values = {**_window(op), "depthMultiplier": 1}
    out = writer.activation(op.name)
    writer.op("DEPTHWISE_CONV_2D", version, inputs, out, "DepthwiseConv2DOptions", **values)


def _pool(writer: _Writer, op: Pool) -> None:
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


def _add(writer: _Writer, op: Add) -> None:
    inputs = [writer.tensors[name] for name in op.inputs]
    activation = _RELU if op.relu else _NONE
    out = writer.activation(op.name)
    writer.op("ADD", 2, inputs, out, "AddOptions", fusedActivationFunction=activation)


def _mul(writer: _Writer, op: Mul) -> None:
    inputs = [writer.tensors[name] for name in op.inputs]
    writer.op("MUL", 2, inputs, writer.activation(op.name), "MulOptions")


def _concat(writer: _Writer, op: Concat) -> None:
    parts = [(writer.tensors[n], writer.model.graph.shapes[n]) for n in op.inputs]
    scale = writer.model.scales[op.name]
    while len(parts) > CONCAT_INPUTS:  # join the first ones beforehand
        group, parts = parts[:CONCAT_INPUTS], parts[CONCAT_INPUTS:]
        shape = (*group[0][1][:2], sum(shape[2] for _, shape in group))
        joined = writer.temporary(f"{op.name}/first {CONCAT_INPUTS}", shape, scale)
        parts.insert(0, (_joined(writer, [t for t, _ in group], joined), shape))
    _joined(writer, [t for t, _ in parts], writer.activation(op.name))


def _joined(writer: _Writer, parts: Sequence[int], out: int) -> int:
    return writer.op("CONCATENATION", 2, parts, out, "ConcatenationOptions", axis=3)


def _table(writer: _Writer, op: Table) -> None:
    """The byte plus 128 is the index into the table: the one form that all runtimes have."""
    shape = writer.model.graph.shapes[op.name]
    wide = writer.temporary(f"{op.name}/int32", shape, None)
    kinds = {"inDataType": schema.TensorType.INT8, "outDataType": schema.TensorType.INT32}
    writer.op("CAST", 1, [writer.tensors[op.inputs[0]]], wide, "CastOptions", **kinds)
    offset = writer.constant(f"{op.name}/offset", np.array(128, np.int32))
    index = writer.temporary(f"{op.name}/index", shape, None)
    writer.op("ADD", 1, [wide, offset], index, "AddOptions")
    entries = writer.constant(f"{op.name}/table", writer.model.table(op))
    scale = writer.model.scales[op.name]
    writer.quantise(entries, np.array([scale.scale], np.float32), scale.zero_point, 0)
    writer.op("GATHER", 2, [entries, index], writer.activation(op.name), "GatherOptions", axis=0)


def _pad(writer: _Writer, op: Pad) -> None:
    top, bottom, left, right = op.padding
    around = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    inputs = [writer.tensors[op.inputs[0]], writer.constant(f"{op.name}/padding", around)]
    writer.op("PAD", 2, inputs, writer.activation(op.name), "PadOptions")


def _reshape(writer: _Writer, op: Reshape) -> None:
    writer.reshape(writer.tensors[op.inputs[0]], writer.activation(op.name))


ROWS: dict[type[Op], Callable[[_Writer, Any], None]] = {
    Conv2d: _conv,
    DepthwiseConv2d: _depthwise,
    Pool: _pool,
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Table: _table,
    Pad: _pad,
    Reshape: _reshape,
}
