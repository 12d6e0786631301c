"""The rules of every operator: one row each in `OPS`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.errors import GraphError
from nas.network.ops import (
    WEIGHT_BITS,
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    History,
    LastStep,
    Mul,
    Op,
    Pad,
    Padding,
    Pair,
    Pool,
    Positions,
    Reshape,
    Running,
    SelectiveScan,
    Shape,
    Table,
    size,
)

TABLE_FUNCTIONS = ("sigmoid", "tanh", "hard_swish", "silu")
PADDINGS = ("same", "valid", "causal")


@dataclass(frozen=True, slots=True)
class OpSpec:
    """The rules of one operator; `ins` are the shapes of its inputs, `out` that of its output.

    Attributes:
        inputs: number of inputs, at least and at most.
        shape: output shape; raises GraphError when the operator does not fit its inputs.
        macs: multiply-accumulates of one inference.
        weight_shape: shape of its weights, or None without weights.
        in_place: places of the inputs that die here where the output may start.
        keeps_scale: whether inputs and output must share one scale and zero point.
        symmetric: whether its inputs must have zero point 0.
        internal: names of what it requantises to in between, each with a scale of its own.
        state_bytes: what it keeps from one run to the next.
    """

    inputs: tuple[int, int]
    shape: Callable[..., Shape]
    macs: Callable[..., int]
    weight_shape: Callable[..., Shape | None]
    in_place: tuple[int, ...] = ()
    keeps_scale: bool = False
    symmetric: bool = False
    internal: tuple[str, ...] = ()
    state_bytes: Callable[..., int] = lambda op, ins, out: 0


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
    if padding not in PADDINGS:
        raise GraphError(f"{op.name}: padding {padding!r} is not one of {', '.join(PADDINGS)}")
    if padding == "same":
        return -(-height // op.stride[0]), -(-width // op.stride[1])
    if padding == "causal":
        return _causal(op, height, width)
    if op.kernel[0] > height or op.kernel[1] > width:
        raise GraphError(f"{op.name}: window {op.kernel} is larger than its input {shape[:2]}")
    return (
        (height - op.kernel[0]) // op.stride[0] + 1,
        (width - op.kernel[1]) // op.stride[1] + 1,
    )


def _causal(op: Conv2d | DepthwiseConv2d | Pool, height: int, width: int) -> Pair:
    kernel, stride = op.kernel[1], op.stride[1]
    if height != 1 or op.kernel[0] != 1 or not stride <= min(kernel, width):
        raise GraphError(
            f"{op.name}: causal padding is for a series of height 1 and a kernel (1, k) with a"
            f" stride up to k; kernel {op.kernel}, stride {op.stride}, input {(height, width)}"
        )
    return 1, width // stride


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
    if op.function not in TABLE_FUNCTIONS:
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


def _series(op: Op, shape: Shape) -> tuple[int, int]:
    """(steps, channels) of a series."""
    height, width, channels = _map(op, shape)
    if height != 1:
        raise GraphError(f"{op.name}: input {shape} is no series (1, steps, channels)")
    return width, channels


def _attention_shape(op: Attention, ins: Sequence[Shape]) -> Shape:
    queries, keys, values = (_series(op, shape) for shape in ins)
    if keys != values or queries[1] != keys[1]:
        raise GraphError(f"{op.name}: queries, keys and values {list(ins)} do not fit each other")
    if op.heads < 1 or queries[1] % op.heads:
        raise GraphError(f"{op.name}: {op.heads} heads do not divide {queries[1]} channels")
    return ins[0]


def _attention_macs(op: Attention, ins: Sequence[Shape], out: Shape) -> int:
    return 2 * size(out) * ins[1][1]


def _scan_shape(op: SelectiveScan, ins: Sequence[Shape]) -> Shape:
    u, dt, b, c, z = ins
    steps = _series(op, u)[0]
    if not u == dt == z or b != c or _series(op, b)[0] != steps:
        raise GraphError(
            f"{op.name}: u, dt, b, c, z of shapes {list(ins)} must be (1, steps, channels) and for"
            " b and c (1, steps, states)"
        )
    return u


def _scan_macs(op: SelectiveScan, ins: Sequence[Shape], out: Shape) -> int:
    return 3 * size(out) * ins[2][2]  # b u, the update, h c


def _scan_state_bytes(op: SelectiveScan, ins: Sequence[Shape], out: Shape) -> int:
    return 2 * out[2] * ins[2][2] if op.carry else 0


def _positions_shape(op: Positions, ins: Sequence[Shape]) -> Shape:
    if op.kind not in ("learned", "sinusoidal"):
        raise GraphError(f"{op.name}: positions {op.kind!r} are not 'learned' or 'sinusoidal'")
    _series(op, ins[0])
    return ins[0]


def _last_shape(op: LastStep, ins: Sequence[Shape]) -> Shape:
    return 1, 1, _series(op, ins[0])[1]


def _history_shape(op: History, ins: Sequence[Shape]) -> Shape:
    steps, channels = _series(op, ins[0])
    if op.steps < 1:
        raise GraphError(f"{op.name}: {op.steps} steps of history must be 1 or more")
    return 1, op.steps + steps, channels


def _running_shape(op: Running, ins: Sequence[Shape]) -> Shape:
    if op.function not in ("average", "max") or op.frames < 1:
        raise GraphError(
            f"{op.name}: {op.function!r} of {op.frames} frames is not an 'average' or 'max' of 1"
            " or more"
        )
    return 1, 1, _series(op, ins[0])[1]


def _running_state_bytes(op: Running, ins: Sequence[Shape], out: Shape) -> int:
    return out[2] * (4 if op.function == "average" else 1)


def reusable(op: Op) -> tuple[str, ...]:
    """The inputs of `op` in whose place its output may start, if they die with it and hold it."""
    places = OPS[type(op)].in_place
    kept = {name for i, name in enumerate(op.inputs) if i not in places}
    return tuple(name for name in op.inputs if name not in kept)


ANY = tuple(range(16))

# A pool may work in place: in raster order a window's output lands at or before the first byte that
# the window, and every later window, still reads. Attention reads a head's query whole before it
# writes the output there. A scan reads u, dt and z of an element before it writes that element.
OPS: dict[type[Op], OpSpec] = {
    Conv2d: OpSpec((1, 1), _conv_shape, _conv_macs, _conv_weights),
    DepthwiseConv2d: OpSpec((1, 1), _depthwise_shape, _depthwise_macs, _depthwise_weights),
    Pool: OpSpec((1, 1), _pool_shape, _no_macs, _no_weights, ANY, keeps_scale=True),
    Add: OpSpec((2, 2), _equal_shapes, _no_macs, _no_weights, ANY),
    Mul: OpSpec((2, 2), _equal_shapes, _no_macs, _no_weights, ANY),
    Concat: OpSpec((2, 16), _concat_shape, _no_macs, _no_weights, keeps_scale=True),
    Table: OpSpec((1, 1), _table_shape, _no_macs, _no_weights, ANY),
    Pad: OpSpec((1, 1), _pad_shape, _no_macs, _no_weights, keeps_scale=True),
    Reshape: OpSpec((1, 1), _reshape_shape, _no_macs, _no_weights, ANY, keeps_scale=True),
    Attention: OpSpec(
        (3, 3),
        _attention_shape,
        _attention_macs,
        _no_weights,
        (0,),
        symmetric=True,
        internal=("scores",),
    ),
    SelectiveScan: OpSpec(
        (5, 5),
        _scan_shape,
        _scan_macs,
        _no_weights,
        (0, 1, 4),
        symmetric=True,
        internal=("sum",),
        state_bytes=_scan_state_bytes,
    ),
    Positions: OpSpec((1, 1), _positions_shape, _no_macs, lambda op, ins: ins[0], ANY),
    LastStep: OpSpec((1, 1), _last_shape, _no_macs, _no_weights, keeps_scale=True),
    History: OpSpec(
        (1, 1),
        _history_shape,
        _no_macs,
        _no_weights,
        keeps_scale=True,
        state_bytes=lambda op, ins, out: op.steps * out[2],
    ),
    Running: OpSpec(
        (1, 1),
        _running_shape,
        _no_macs,
        _no_weights,
        keeps_scale=True,
        state_bytes=_running_state_bytes,
    ),
}
