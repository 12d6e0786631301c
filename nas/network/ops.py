"""The operators: one frozen dataclass each.

Activations are int8 in (height, width, channels) order, without a batch axis. A 1-D convolution is
a 2-D one of height 1; a fully connected layer is a 1x1 convolution on a (1, 1, features) tensor. An
operator has one output, which carries the operator's name. Weights are (out, kernel height, kernel
width, in), for a depthwise convolution (1, kernel height, kernel width, channels).

What an operator may read, what it makes and its multiply-accumulates stand in `op_rules.OPS`. All
that walks a graph (plan, cost, torch student, integer reference, exporters) keeps one row an
operator of its own; `tests/test_ops.py` fails when one of them lacks a row.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Shape: TypeAlias = tuple[int, ...]  # (height, width, channels); the output may be (classes,)
Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = Literal["same", "valid", "causal"]
TableFunction: TypeAlias = Literal["sigmoid", "tanh", "hard_swish", "silu"]

WEIGHT_BITS = (8, 4, 2)


@dataclass(frozen=True, slots=True)
class Conv2d:
    """Dense convolution with bias.

    `same` pads as TensorFlow Lite does (the odd one goes last). `causal`, on a series only, pads in
    front so that each window ends with the last of `stride` steps: no output knows the future, and
    the last one knows the newest step.
    """

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


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head attention: inputs are queries (1, n, width), keys and values (1, steps, width).

    Each head has width / heads of the channels; scores are divided by the root of that.
    """

    name: str
    inputs: tuple[str, ...]
    heads: int


@dataclass(frozen=True, slots=True)
class SelectiveScan:
    """The gated state-space recurrence of a Mamba block, over the steps of a series.

    Inputs are u, dt (1, steps, channels), b, c (1, steps, states) and the gate z (1, steps,
    channels). For each channel and state n = 1, 2, ...:

        h_n = a_n h_n + (1 - a_n) b_n u,   a_n = sigmoid(-dt) ** n
        y = (sum over n of h_n c_n + skip u) z

    The state is a convex combination of what it has been given: it cannot overflow. With `carry` it
    outlives a run, as it does where a model runs step by step.
    """

    name: str
    inputs: tuple[str, ...]
    carry: bool


@dataclass(frozen=True, slots=True)
class Positions:
    """Adds a constant of the input's shape; `sinusoidal` ones are not trained."""

    name: str
    inputs: tuple[str, ...]
    kind: Literal["learned", "sinusoidal"]


@dataclass(frozen=True, slots=True)
class LastStep:
    """The last step of a series (1, steps, channels), as (1, 1, channels)."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The last `steps` steps of the runs before, at first real zeros, in front of this run's."""

    name: str
    inputs: tuple[str, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Running:
    """Average or maximum over the steps of `frames` runs, as (1, 1, channels).

    Its output counts after the last of them only.
    """

    name: str
    inputs: tuple[str, ...]
    function: Literal["average", "max"]
    frames: int


Linear: TypeAlias = Conv2d | DepthwiseConv2d
Op: TypeAlias = (
    Linear
    | Pool
    | Add
    | Mul
    | Concat
    | Table
    | Pad
    | Reshape
    | Attention
    | SelectiveScan
    | Positions
    | LastStep
    | History
    | Running
)
STREAMING: tuple[type[Op], ...] = (History, Running)
"""Operators that only a model has which runs step by step; no exchange format knows them."""


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
    if op.padding == "causal":
        return (0, 0), (op.kernel[1] - op.stride[1], 0)
    return (
        same_padding(shape[0], op.kernel[0], op.stride[0]),
        same_padding(shape[1], op.kernel[1], op.stride[1]),
    )
