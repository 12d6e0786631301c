"""What both ONNX exporters share: the file around the operators, and operators that move bytes.

Between operators every tensor is int8. One of rank 3 is kept channels first, (N, c, h, w), as ONNX
convolutions want it; the layout changes only at inputs, outputs and reshapes. Opset 21 is the first
with 4-bit weights; runtimes lag behind newer ones.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nas.errors import UnsupportedOp
from nas.network.graph import Input
from nas.network.integer import IntegerModel
from nas.network.numerics import pack
from nas.network.ops import (
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Op,
    Pad,
    Pool,
    Reshape,
    Shape,
    Table,
    size,
    window_padding,
)
from nas.network.reference import row_of

OPSET, IR_VERSION = 21, 10
OUTPUT = "logits"
BATCH = "N"

Row: TypeAlias = Callable[["OnnxWriter", Any, Sequence[str]], str]


def write(model: IntegerModel, rows: Mapping[type[Op], Row], exporter: str) -> bytes:
    """The file's bytes; `rows` append the nodes of one operator and return its int8 output.

    Raises:
        UnsupportedOp: an operator or weight width without a row, or an input named `logits`.
    """
    graph = model.graph
    writer = OnnxWriter(model)
    tensors = {source.name: writer.source(source) for source in graph.inputs}
    for op in graph.ops:
        writer.scope = op.name
        row = row_of(rows, op, exporter)
        tensors[op.name] = row(writer, op, [tensors[name] for name in op.inputs])
    data: bytes = writer.finish(tensors[graph.output]).SerializeToString()
    return data


class OnnxWriter:
    """Collects nodes and constants; tensors are known by name."""

    def __init__(self, model: IntegerModel) -> None:
        self.model = model
        self.scope = "inputs"  # prefix of the names of new tensors
        self._nodes: list[NodeProto] = []
        self._numbers = itertools.count()
        self._constants: list[TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node with one output and returns that output's name."""
        name = f"{self.scope}/{kind}:{next(self._numbers)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def scan(
        self,
        state: str,
        series: Sequence[str],
        step: Callable[[str, Sequence[str]], tuple[str, str]],
        kinds: Sequence[int],
    ) -> str:
        """A Scan over the last axis of `series`; the outputs of its steps, side by side there.

        Args:
            step: appends the nodes of one step, from the state and what `series` hold then to the
                next state and an output. They may read constants and tensors from outside.
            kinds: element types of the state, each of `series`, and the output.
        """
        number = next(self._numbers)
        names = [f"{self.scope}/scan {number}/{i}" for i in range(len(series) + 1)]
        outside, self._nodes = self._nodes, []
        ends = [self.op("Identity", x) for x in step(names[0], names[1:])]
        inputs = [_of_kind(name, kind) for name, kind in zip(names, kinds, strict=False)]
        outputs = [_of_kind(ends[0], kinds[0]), _of_kind(ends[1], kinds[-1])]
        body = helper.make_graph(self._nodes, names[0], inputs, outputs)
        self._nodes = outside
        attributes: dict[str, Any] = {
            "body": body,
            "num_scan_inputs": len(series),
            "scan_input_axes": [3] * len(series),
            "scan_output_axes": [3],
        }
        made = [f"{self.scope}/Scan:{number}/{part}" for part in ("state", "series")]
        scan = helper.make_node("Scan", [state, *series], made, made[0], **attributes)
        self._nodes.append(scan)
        return made[1]

    def cast(self, x: str, kind: int) -> str:
        """x as another element type of `TensorProto`."""
        return self.op("Cast", x, to=kind)

    def zeros(self, shape: str) -> str:
        """int64 zeros of the shape that the tensor `shape` holds."""
        value = numpy_helper.from_array(np.zeros(1, np.int64))
        return self.op("ConstantOfShape", shape, value=value)

    def constant(self, values: NDArray[Any] | np.generic) -> str:
        """A constant; equal ones are stored once."""
        array = np.ascontiguousarray(values).reshape(np.shape(values))
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._constant_name()
            self._constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def int4(self, values: NDArray[np.int8]) -> str:
        """A constant of 4-bit integers, two a byte."""
        name = self._constant_name()
        data = pack(values, 4)[: -(-values.size // 2)].tobytes()
        made = helper.make_tensor(name, TensorProto.INT4, values.shape, data, raw=True)
        self._constants.append(made)
        return name

    def _constant_name(self) -> str:
        return f"{self.scope}/constant:{len(self._constants)}"

    def int64(self, *values: int) -> str:
        """A one-dimensional int64 constant, as shapes and axes are."""
        return self.constant(np.array(values, np.int64))

    def source(self, source: Input) -> str:
        """The input `source` in the layout of the tensors inside."""
        if source.name == OUTPUT:
            raise UnsupportedOp(
                f"input {source.name!r} has the name of the output of an .onnx file;"
                " rename the modality"
            )
        if len(declared_shape(source.shape)) == 3:
            return self.channels_first(source.name)
        return self.from_flat(source.name, source.shape)

    def from_flat(self, x: str, shape: Shape) -> str:
        """Bytes in (h, w, c) order, whatever their shape, as a tensor of `shape`."""
        if _has_layout(shape):
            return self.channels_first(self.op("Reshape", x, self.int64(-1, *shape)))
        target = (shape[2], *shape[:2]) if len(shape) == 3 else shape
        return self.op("Reshape", x, self.int64(-1, *target))

    def channels_first(self, x: str) -> str:
        """(N, h, w, c) -> (N, c, h, w)."""
        return self.op("Transpose", x, perm=[0, 3, 1, 2])

    def flat(self, x: str, shape: Shape) -> str:
        """A tensor of `shape` in (h, w, c) order; the next reshape may take it from there."""
        if _has_layout(shape):
            return self.op("Transpose", x, perm=[0, 2, 3, 1])
        return x

    def along_channels(self, values: NDArray[Any]) -> str:
        """A constant (channels,) that meets the channels of (N, c, h, w)."""
        return self.constant(values.reshape(-1, 1, 1))

    def finish(self, output: str) -> ModelProto:
        """The whole file with the int8 output `logits` of shape (N, K)."""
        graph = self.model.graph
        self.scope = "output"
        shape = graph.shapes[graph.output]
        self.op("Reshape", self.flat(output, shape), self.int64(-1, size(shape)))
        self._nodes[-1].output[0] = OUTPUT
        inputs = [_value(i.name, declared_shape(i.shape)) for i in graph.inputs]
        outputs = [_value(OUTPUT, (size(shape),))]
        made = helper.make_graph(self._nodes, "mcu-nas", inputs, outputs, self._constants)
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mcu-nas"
        )


def _has_layout(shape: Shape) -> bool:
    """Whether the bytes of `shape` lie in another order when the channels come first."""
    return len(shape) == 3 and size(shape[:2]) > 1 and shape[2] > 1


def declared_shape(shape: Shape) -> Shape:
    """The shape of an input as users know it, without batch: (c,), (t, c) or (h, w, c)."""
    if shape[0] > 1:
        return shape
    return shape[1:] if shape[1] > 1 else shape[2:]


def _of_kind(name: str, kind: int) -> Any:
    return helper.make_tensor_value_info(name, kind, None)


def _value(name: str, shape: Shape) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.INT8, [BATCH, *shape])


def conv_weights(op: Conv2d | DepthwiseConv2d, values: NDArray[Any]) -> NDArray[Any]:
    """The graph's weights in ONNX order: (out, in / group, kernel height, kernel width)."""
    order = (0, 3, 1, 2) if isinstance(op, Conv2d) else (3, 0, 1, 2)
    return np.ascontiguousarray(values.transpose(order))


def conv_attributes(op: Conv2d | DepthwiseConv2d, shape: Shape) -> dict[str, Any]:
    """Attributes of an ONNX convolution on an input of `shape`."""
    (top, bottom), (left, right) = window_padding(op, shape)
    return {
        "kernel_shape": list(op.kernel),
        "strides": list(op.stride),
        "pads": [top, left, bottom, right],
        "group": 1 if isinstance(op, Conv2d) else shape[2],
    }


def pool_attributes(op: Pool) -> dict[str, Any]:
    """Attributes of an ONNX pooling node."""
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride)}


def max_pool(writer: OnnxWriter, op: Pool, inputs: Sequence[str]) -> str:
    """Maximum of windows."""
    return writer.op("MaxPool", inputs[0], **pool_attributes(op))


def concat(writer: OnnxWriter, op: Concat, inputs: Sequence[str]) -> str:
    """Side by side along the channels."""
    return writer.op("Concat", *inputs, axis=1)


def table(writer: OnnxWriter, op: Table, inputs: Sequence[str]) -> str:
    """The byte plus 128 is the index into the 256 entries."""
    wide = writer.cast(inputs[0], TensorProto.INT32)
    index = writer.op("Add", wide, writer.constant(np.int32(128)))
    return writer.op("Gather", writer.constant(writer.model.table(op)), index, axis=0)


def pad(writer: OnnxWriter, op: Pad, inputs: Sequence[str], value: np.generic) -> str:
    """Rows and columns of `value`."""
    top, bottom, left, right = op.padding
    around = writer.int64(0, 0, top, left, 0, 0, bottom, right)
    return writer.op("Pad", inputs[0], around, writer.constant(value))


def last_step(writer: OnnxWriter, op: LastStep, inputs: Sequence[str]) -> str:
    """The last column."""
    steps = writer.model.graph.shapes[op.inputs[0]][1]
    ends = writer.int64(steps - 1), writer.int64(steps), writer.int64(3)
    return writer.op("Slice", inputs[0], *ends)


def reshape(writer: OnnxWriter, op: Reshape, inputs: Sequence[str]) -> str:
    """The same bytes in (h, w, c) order under another shape."""
    before = writer.model.graph.shapes[op.inputs[0]]
    return writer.from_flat(writer.flat(inputs[0], before), op.shape)
