"""The .tflite file around the operators: tensors, constants, subgraphs, flatbuffer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.errors import ToolMissing
from nas.network.integer import IntegerModel, Scale
from nas.network.numerics import pack
from nas.network.ops import Shape, size

try:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
except ImportError:  # pragma: no cover
    schema = None

Kind: TypeAlias = Literal["int8", "int16", "int32", "bool"]

OUTPUT = "logits"

_ALIGNMENT = 16  # of a constant, so that a chip may read int32 values where they lie


class TfliteWriter:
    """Collects tensors and operators; tensors are known by index, in their own subgraph.

    Raises:
        ToolMissing: the schema of the format is not installed.
    """

    def __init__(self, model: IntegerModel) -> None:
        if schema is None:
            raise ToolMissing(
                "ai-edge-litert, which holds the .tflite schema, is not installed: "
                "pip install ai-edge-litert flatbuffers"
            )
        self.model = model
        self.file = schema.ModelT()
        self.file.version, self.file.description = 3, "mcu-nas"
        self.file.buffers, self.file.operatorCodes = [_buffer(None)], []
        self.file.subgraphs = []
        self._here = self._new_subgraph("main")
        self.tensors: dict[str, int] = {}
        self._codes: dict[tuple[int, int], int] = {}
        for source in model.graph.inputs:
            self.activation(source.name)
        self._here.inputs = list(self.tensors.values())

    def _new_subgraph(self, name: str) -> Any:
        made = schema.SubGraphT()
        made.name, made.tensors, made.operators = name, [], []
        self.file.subgraphs.append(made)
        return made

    @contextmanager
    def subgraph(self, name: str) -> Iterator[int]:
        """What is written inside goes to a new subgraph, whose index this yields."""
        before, self._here = self._here, self._new_subgraph(name)
        yield len(self.file.subgraphs) - 1
        self._here = before

    def ends(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Names the inputs and outputs of the subgraph that is being written."""
        self._here.inputs, self._here.outputs = list(inputs), list(outputs)

    def activation(self, name: str) -> int:
        """The int8 tensor of the graph's tensor `name`, newly made."""
        shape = self.model.graph.shapes[name]
        self.tensors[name] = self.tensor(name, (1, *shape), "int8", self.model.scales[name])
        return self.tensors[name]

    def tensor(
        self, name: str, shape: Sequence[int], kind: Kind, scale: Scale | None = None
    ) -> int:
        """A tensor that some operator will fill."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = getattr(schema.TensorType, kind.upper())
        self._here.tensors.append(tensor)
        index = len(self._here.tensors) - 1
        if scale:
            self.quantise(index, np.array([scale.scale], np.float32), scale.zero_point, 0)
        return index

    def like(self, index: int) -> int:
        """A tensor of the name, shape, type and scale of tensor `index` of the main subgraph."""
        other = self.file.subgraphs[0].tensors[index]
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = other.name, other.shape, other.type, 0
        made.quantization = other.quantization
        self._here.tensors.append(made)
        return len(self._here.tensors) - 1

    def scale(self, index: int) -> Scale | None:
        """The scale of tensor `index`, if it has one."""
        held = self._here.tensors[index].quantization
        return Scale(float(held.scale[0]), int(held.zeroPoint[0])) if held else None

    def shape(self, index: int) -> Shape:
        """The shape of tensor `index`."""
        return tuple(self._here.tensors[index].shape)

    def quantise(self, index: int, scales: NDArray[np.float32], zero_point: int, axis: int) -> None:
        """Gives tensor `index` one scale, or one for each place of `axis`."""
        held = schema.QuantizationParametersT()
        held.scale = scales
        held.zeroPoint = np.full(len(scales), zero_point, np.int64)
        held.quantizedDimension = axis
        self._here.tensors[index].quantization = held

    def constant(self, name: str, values: NDArray[np.int8] | NDArray[np.int32]) -> int:
        """An int8 or int32 constant without scale."""
        index = self.tensor(name, values.shape, "int8" if values.dtype == np.int8 else "int32")
        self._here.tensors[index].buffer = len(self.file.buffers)
        self.file.buffers.append(_buffer(np.frombuffer(values.tobytes(), np.uint8)))
        return index

    def int4(self, name: str, values: NDArray[np.int8]) -> int:
        """A constant of 4-bit integers, two a byte."""
        index = self.constant(name, values)
        tensor = self._here.tensors[index]
        tensor.type = schema.TensorType.INT4
        self.file.buffers[tensor.buffer].data = pack(values, 4)[: -(-values.size // 2)]
        return index

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
        self.op_of_many(code, version, inputs, [output], options, **values)
        return output

    def op_of_many(
        self,
        code: str,
        version: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        **values: Any,
    ) -> None:
        """Appends an operator with several outputs."""
        entry = schema.OperatorT()
        entry.opcodeIndex = self._code(getattr(schema.BuiltinOperator, code), version)
        entry.inputs, entry.outputs = list(inputs), list(outputs)
        if options:
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            entry.builtinOptions = getattr(schema, f"{options}T")()
            for key, value in values.items():
                setattr(entry.builtinOptions, key, value)
        self._here.operators.append(entry)

    def _code(self, builtin: int, version: int) -> int:
        if (builtin, version) not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.version = builtin, version
            code.deprecatedBuiltinCode = min(builtin, 127)
            self._codes[builtin, version] = len(self.file.operatorCodes)
            self.file.operatorCodes.append(code)
        return self._codes[builtin, version]

    def reshape(self, source: int, target: int) -> int:
        """The bytes of tensor `source` as tensor `target`, whose scale may be another."""
        shape, name = self.shape(target), self._here.tensors[target].name
        wanted = self.constant(f"{name}/shape", np.array(shape, np.int32))
        return self.op("RESHAPE", 1, [source, wanted], target, "ReshapeOptions", newShape=shape)

    def cast(self, source: int, name: str) -> int:
        """Tensor `source` as int32."""
        wide = self.tensor(name, self.shape(source), "int32")
        kinds = {
            "inDataType": self._here.tensors[source].type,
            "outDataType": schema.TensorType.INT32,
        }
        return self.op("CAST", 1, [source], wide, "CastOptions", **kinds)

    def finish(self) -> bytes:
        """The file with output (1, K) and a signature that names inputs and output."""
        graph = self.model.graph
        source, shape = self.tensors[graph.output], graph.shapes[graph.output]
        output = source
        if len(shape) > 1 or graph.output in {i.name for i in graph.inputs}:
            output = self.tensor(OUTPUT, (1, size(shape)), "int8", self.model.scales[graph.output])
            self.reshape(source, output)
        self._here.tensors[output].name = OUTPUT
        self._here.outputs = [output]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        names = [i.name for i in graph.inputs]
        signature.inputs = [_named(n, self.tensors[n]) for n in names]
        signature.outputs = [_named(OUTPUT, output)]
        self.file.signatureDefs = [signature]
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
