"""A graph that runs one step of its series at a time, made from one that runs on whole windows.

Where every operator on a series is causal, a window need not be held: each layer keeps the few
steps that its kernel looks back on, each scan its state, each readout a sum. What comes out after
the last step of a window equals what the windowed graph gives, bit for bit.

A run of the made graph takes one frame: the fewest steps of the series after which every layer has
whole outputs. Operators behind the readouts, and all that belongs to other sensors, count in the
last frame of a window only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import gcd

import numpy as np

from nas.errors import GraphError
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.ops import (
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    History,
    LastStep,
    Linear,
    Mul,
    Op,
    Pool,
    Running,
    SelectiveScan,
    Table,
    window_padding,
)
from nas.network.reference import KERNELS, row_of

HISTORY = "/history"  # ends the name of what a causal layer reads


class NotCausal(GraphError):
    """A graph that cannot run step by step, and why."""


@dataclass(frozen=True)
class Stepping:
    """A graph for one frame.

    Attributes:
        graph: series have `frame_steps` steps, other inputs are as they were.
        frame_steps: steps of the series that a run takes.
        frames: runs a window.
        last_only: operators that count in the last frame of a window only.
        series: inputs of which each frame takes new steps.
    """

    graph: Graph
    frame_steps: int
    frames: int
    last_only: frozenset[str]
    series: frozenset[str]

    @property
    def state_bytes(self) -> int:
        """What is kept between runs."""
        return sum(map(self.graph.state_bytes, self.graph.ops))


def stepping(graph: Graph) -> Stepping:
    """The stepwise form of `graph`.

    Raises:
        NotCausal: names the operator that needs the whole window, or what else is in the way.
    """
    series = [source for source in graph.inputs if source.shape[0] == 1 < source.shape[1]]
    lengths = {source.shape[1] for source in series}
    if len(lengths) != 1:
        what = "no input is a series" if not series else f"series have {sorted(lengths)} steps"
        raise NotCausal(f"{what}; a model runs step by step on series of one length")
    timed = _timed(graph, {source.name for source in series})
    steps = lengths.pop()
    frames = reduce(gcd, (graph.shapes[name][1] for name in timed), steps)
    inputs = tuple(
        Input(i.name, (1, i.shape[1] // frames, i.shape[2])) if i.name in timed else i
        for i in graph.inputs
    )
    ops: list[Op] = []
    for op in graph.ops:
        if any(name in timed for name in op.inputs):
            ops += _in_frames(op, graph, frames)
        else:
            ops.append(op)
    made = Graph(inputs, tuple(ops), graph.output)
    last_only = frozenset(
        op.name
        for op in made.ops
        if op.name.removesuffix(HISTORY) not in timed and not isinstance(op, Running)
    )
    names = frozenset(source.name for source in series)
    return Stepping(made, steps // frames, frames, last_only, names)


def why_not(graph: Graph) -> str:
    """What keeps `graph` from running step by step; "" if nothing does."""
    try:
        stepping(graph)
    except NotCausal as reason:
        return str(reason)
    return ""


def _timed(graph: Graph, series: set[str]) -> set[str]:
    """Names of the tensors that go on with time: from series inputs up to the readouts."""
    timed = set(series)
    for op in graph.ops:
        over_time = [name in timed for name in op.inputs]
        if not any(over_time) or isinstance(op, LastStep) or _is_readout(op, graph):
            continue
        if not all(over_time):
            raise NotCausal(f"{op.name}: reads a series and what is no series")
        timed.add(op.name)
    if graph.output in timed:
        raise NotCausal(f"{graph.output}: the output is a series, not a readout of one")
    return timed


def _is_readout(op: Op, graph: Graph) -> bool:
    return isinstance(op, Pool) and op.kernel[1] == graph.shapes[op.inputs[0]][1] > 1


def _in_frames(op: Op, graph: Graph, frames: int) -> list[Op]:
    """`op`, which reads a series, for one frame."""
    if isinstance(op, Add | Mul | Table | Concat | LastStep):
        return [op]
    if isinstance(op, SelectiveScan):
        return [replace(op, carry=True)]
    if isinstance(op, Pool) and _is_readout(op, graph):
        return [Running(op.name, op.inputs, op.function, frames)]
    if isinstance(op, Pool) and op.kernel == op.stride:
        return [op]
    if isinstance(op, Conv2d | DepthwiseConv2d):
        return _linear_in_frames(op, graph)
    raise NotCausal(f"{op.name}: {type(op).__name__} needs the whole window")


def _linear_in_frames(op: Linear, graph: Graph) -> list[Op]:
    back = op.kernel[1] - op.stride[1]
    if op.padding != "causal":
        padded = any(map(sum, window_padding(op, graph.shapes[op.inputs[0]])))
        if padded or back:
            raise NotCausal(f"{op.name}: a convolution with padding {op.padding!r} looks ahead")
    if back <= 0:
        return [replace(op, padding="valid")]
    name = op.name + HISTORY
    return [
        History(name, op.inputs, back),
        replace(op, inputs=(name,), padding="valid"),
    ]


def step_model(model: IntegerModel, made: Stepping) -> IntegerModel:
    """The numbers of a windowed model for its stepwise graph.

    Raises:
        GraphError: `made` is not of this model's graph.
    """
    scales = dict(model.scales)
    for op in made.graph.ops:
        if isinstance(op, History):
            scales[op.name] = scales[op.inputs[0]]
    return IntegerModel(made.graph, scales, model.weights)


def run_steps(model: IntegerModel, made: Stepping, inputs: Mapping[str, Int8]) -> Int8:
    """Output (n, *shape) of the stepwise model, fed frame by frame with whole windows.

    Args:
        model: of `made.graph`, from `step_model`.
        inputs: as `reference.run` takes them for the windowed model.
    """
    graph = model.graph
    steps = [(op, row_of(KERNELS, op, "the reference")(model, op, "double")) for op in graph.ops]
    for frame in range(made.frames):
        tensors = {source.name: frame_of(source, made, inputs, frame) for source in graph.inputs}
        for op, step in steps:
            if op.name not in made.last_only or frame == made.frames - 1:
                tensors[op.name] = step(*(tensors[name] for name in op.inputs))
    return np.asarray(tensors[graph.output])


def frame_of(source: Input, made: Stepping, inputs: Mapping[str, Int8], frame: int) -> Int8:
    """What an input of the stepwise graph holds in a frame (n, *shape) of whole windows."""
    whole, steps = inputs[source.name], made.frame_steps
    return whole[:, :, frame * steps :][:, :, :steps] if source.name in made.series else whole
