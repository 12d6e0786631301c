"""The operators: one frozen dataclass each, and one row each in `OPS` with its rules.

Activations are int8 in (height, width, channels) order, without a batch axis. A 1-D convolution is
a 2-D one of height 1; a fully connected layer is a 1x1 convolution on a (1, 1, features) tensor. An
operator has one output, which carries the operator's name. Weights are (out, kernel height, kernel
width, in), for a depthwise convolution (1, kernel height, kernel width, channels).

All that walks a graph (shapes, plan, cost, torch student, integer reference, exporters) keeps one
row an operator of its own; `tests/test_ops.py` fails when one of them lacks a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from nas.errors import GraphError

Shape: TypeAlias = tuple[int, ...]  # (height, width, channels); the output may be (classes,)
Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = Literal["same", "valid"]
TableFunction: TypeAlias = Literal["sigmoid", "tanh", "hard_swish"]

WEIGHT_BITS = (8, 4, 2)


@dataclass(frozen=True, slots=True)
class Conv2d:
    """Dense convolution with bias; `same` pads as TensorFlow Lite does (the odd one goes last)."""

    name: str
    inputs: tuple[str, ...]
    channels: int
    kernel: Pair
    stride: Pair
    padding: Padding
    weight_bits: int
    relu: bool


@dataclass(frozen=True, slots=True)
class DepthwiseConv2d:
    """One filter a channel, with bias; the number of channels stays."""

    name: str
    inputs: tuple[str, ...]
    kernel: Pair
    stride: Pair
    padding: Padding
    weight_bits: int
    relu: bool


@dataclass(frozen=True, slots=True)
class Pool:
    """Average or maximum over windows without padding; a global pool has the map as its window."""

    name: str
    inputs: tuple[str, ...]
    function: Literal["average", "max"]
    kernel: Pair
    stride: Pair


@dataclass(frozen=True, slots=True)
class Add:
    """Sum of two tensors of equal shape, requantised."""

    name: str
    inputs: tuple[str, ...]
    relu: bool


@dataclass(frozen=True, slots=True)
class Mul:
    """Product of two tensors of equal shape, requantised: what a gate does."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """Tensors of equal height and width side by side along the channels; all share one scale."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A non-linear function as a table of 256 entries, the same bytes in every artefact."""

    name: str
    inputs: tuple[str, ...]
    function: TableFunction


@dataclass(frozen=True, slots=True)
class Pad:
    """Rows and columns of real zero around the map: (top, bottom, left, right)."""

    name: str
    inputs: tuple[str, ...]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same bytes under another shape."""

    name: str
    inputs: tuple[str, ...]
    shape: Shape


Op: TypeAlias = Conv2d | DepthwiseConv2d | Pool | Add | Mul | Concat | Table | Pad | Reshape


@dataclass(frozen=True, slots=True)
class OpSpec:
    """The rules of one operator; `ins` are the shapes of its inputs, `out` that of its output.

    Attributes:
        inputs: number of inputs, at least and at most.
        shape: output shape; raises GraphError when the operator does not fit its inputs.
        macs: multiply-accumulates of one inference.
        weight_shape: shape of its weights, or None without weights.
        in_place: whether the output may start where an input that dies here starts.
        keeps_scale: whether inputs and output must share one scale and zero point.
        table_entries: entries of one byte that its look-up table has.
    """

    inputs: tuple[int, int]
    shape: Callable[..., Shape]
    macs: Callable[..., int]
    weight_shape: Callable[..., Shape | None]
    in_place: Callable[..., bool]
    keeps_scale: bool = False
    table_entries: int = 0


def size(shape: Shape) -> int:
    """Number of elements, which is the number of bytes of an int8 tensor."""
    product = 1
    for n in shape:
        product *= n
    return product


def same_padding(length: int, kernel: int, stride: int) -> Pair:
    """TensorFlow Lite's `same` padding of one axis: (before, after), the odd one after."""
    out = -(-length // stride)
    total = max(0, (out - 1) * stride + kernel - length)
    return total // 2, total - total // 2


def window_padding(op: Conv2d | DepthwiseConv2d, shape: Shape) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)) that a convolution adds around an input of `shape`."""
    if op.padding == "valid":
        return (0, 0), (0, 0)
    return (
        same_padding(shape[0], op.kernel[0], op.stride[0]),
        same_padding(shape[1], op.kernel[1], op.stride[1]),
    )


def _map(op: Op, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise GraphError(
            f"{op.name}: input {shape} is not (height, width, channels); reshape it first"
        )
    return shape[0], shape[1], shape[2]


def _windows(op: Conv2d | DepthwiseConv2d | Pool, shape: Shape, padding: Padding) -> Pair:
    """Output height and width of a sliding window."""
    height, width, _ = _map(op, shape)
    if min(*op.kernel, *op.stride) < 1:
        raise GraphError(f"{op.name}: kernel {op.kernel} and stride {op.stride} must be 1 or more")
    if padding == "same":
        return -(-height // op.stride[0]), -(-width // op.stride[1])
    if op.kernel[0] > height or op.kernel[1] > width:
        raise GraphError(f"{op.name}: window {op.kernel} is larger than its input {shape[:2]}")
    return (
        (height - op.kernel[0]) // op.stride[0] + 1,
        (width - op.kernel[1]) // op.stride[1] + 1,
    )


def _check_bits(op: Conv2d | DepthwiseConv2d) -> None:
    if op.weight_bits not in WEIGHT_BITS:
        raise GraphError(f"{op.name}: weight_bits {op.weight_bits} is not one of {WEIGHT_BITS}")


def _conv_shape(op: Conv2d, ins: Sequence[Shape]) -> Shape:
    _check_bits(op)
    if op.channels < 1:
        raise GraphError(f"{op.name}: channels {op.channels} must be 1 or more")
    return (*_windows(op, ins[0], op.padding), op.channels)


def _depthwise_shape(op: DepthwiseConv2d, ins: Sequence[Shape]) -> Shape:
    _check_bits(op)
    return (*_windows(op, ins[0], op.padding), ins[0][2])


def _pool_shape(op: Pool, ins: Sequence[Shape]) -> Shape:
    if op.function not in ("average", "max"):
        raise GraphError(f"{op.name}: pool function {op.function!r} is not 'average' or 'max'")
    return (*_windows(op, ins[0], "valid"), ins[0][2])


def _equal_shapes(op: Op, ins: Sequence[Shape]) -> Shape:
    if ins[0] != ins[1]:
        raise GraphError(f"{op.name}: inputs of shape {ins[0]} and {ins[1]} must be equal")
    return ins[0]


def _concat_shape(op: Concat, ins: Sequence[Shape]) -> Shape:
    maps = [_map(op, s) for s in ins]
    if len({m[:2] for m in maps}) > 1:
        raise GraphError(f"{op.name}: inputs {list(ins)} must have one height and width")
    return (*maps[0][:2], sum(m[2] for m in maps))


def _table_shape(op: Table, ins: Sequence[Shape]) -> Shape:
    if op.function not in ("sigmoid", "tanh", "hard_swish"):
        raise GraphError(f"{op.name}: no table for the function {op.function!r}")
    return ins[0]


def _pad_shape(op: Pad, ins: Sequence[Shape]) -> Shape:
    height, width, channels = _map(op, ins[0])
    top, bottom, left, right = op.padding
    if min(op.padding) < 0:
        raise GraphError(f"{op.name}: padding {op.padding} must not be negative")
    return height + top + bottom, width + left + right, channels


def _reshape_shape(op: Reshape, ins: Sequence[Shape]) -> Shape:
    if min(op.shape, default=0) < 1 or size(op.shape) != size(ins[0]):
        raise GraphError(f"{op.name}: {ins[0]} has other elements than {op.shape}")
    return op.shape


def _conv_weights(op: Conv2d, ins: Sequence[Shape]) -> Shape:
    return op.channels, *op.kernel, ins[0][2]


def _depthwise_weights(op: DepthwiseConv2d, ins: Sequence[Shape]) -> Shape:
    return 1, *op.kernel, ins[0][2]


def _conv_macs(op: Conv2d, ins: Sequence[Shape], out: Shape) -> int:
    return size(out) * op.kernel[0] * op.kernel[1] * ins[0][2]


def _depthwise_macs(op: DepthwiseConv2d, ins: Sequence[Shape], out: Shape) -> int:
    return size(out) * op.kernel[0] * op.kernel[1]


def _no_macs(op: Op, ins: Sequence[Shape], out: Shape) -> int:
    return 0


def _no_weights(op: Op, ins: Sequence[Shape]) -> None:
    return None


def _always(op: Op, ins: Sequence[Shape], out: Shape) -> bool:
    return True


def _never(op: Op, ins: Sequence[Shape], out: Shape) -> bool:
    return False


def _pool_in_place(op: Pool, ins: Sequence[Shape], out: Shape) -> bool:
    # In raster order a window's output lands at or before the first byte that the window, and every
    # later window, still reads: no byte is overwritten before its last use.
    return True


OPS: dict[type[Op], OpSpec] = {
    Conv2d: OpSpec((1, 1), _conv_shape, _conv_macs, _conv_weights, _never),
    DepthwiseConv2d: OpSpec((1, 1), _depthwise_shape, _depthwise_macs, _depthwise_weights, _never),
    Pool: OpSpec((1, 1), _pool_shape, _no_macs, _no_weights, _pool_in_place, keeps_scale=True),
    Add: OpSpec((2, 2), _equal_shapes, _no_macs, _no_weights, _always),
    Mul: OpSpec((2, 2), _equal_shapes, _no_macs, _no_weights, _always),
    Concat: OpSpec((2, 16), _concat_shape, _no_macs, _no_weights, _never, keeps_scale=True),
    Table: OpSpec((1, 1), _table_shape, _no_macs, _no_weights, _always, table_entries=256),
    Pad: OpSpec((1, 1), _pad_shape, _no_macs, _no_weights, _never, keeps_scale=True),
    Reshape: OpSpec((1, 1), _reshape_shape, _no_macs, _no_weights, _always, keeps_scale=True),
}
