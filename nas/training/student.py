"""Graph -> torch network by walking the same operators, and back to integers.

Tensors are real-valued (batch, channels, height, width). With `quantised`, every weight and every
activation passes a fake quantiser at the bits that the graph gives it, so that what is trained is
what the integers will compute. Batch norm exists only here: `freeze` stops its statistics for the
last part of a training, from where on each bias lies on the accumulator's grid, and `to_integer`
folds it away.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UnsupportedOp
from nas.network.graph import Graph
from nas.network.integer import IntegerModel, Scale, Weights
from nas.network.ops import (
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Linear,
    Mul,
    Op,
    Pad,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Table,
)
from nas.network.ranges import non_negative_groups
from nas.training.fake_quantise import SMALLEST_SCALE, fake_quantise, follow_and_quantise
from nas.training.fused_layer import Follow
from nas.training.linear_layer import LinearLayer, integer_weights
from nas.training.sequence_layers import (
    PositionsLayer,
    ScanLayer,
    attention_weights,
    decay_of,
    selective_scan,
)

RANGE_MOMENTUM = 0.05  # share of the newest batch in the running maximum of an activation
TABLE_RANGES: dict[str, tuple[float, int]] = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)}
MODULES: dict[type[Op], Callable[[Any, Graph], nn.Module]] = {
    Conv2d: LinearLayer,
    DepthwiseConv2d: LinearLayer,
    Positions: PositionsLayer,
    SelectiveScan: ScanLayer,
}  # of the operators that train something


class Student(nn.Module):
    """The network of a graph.

    Args:
        graph: what to compute.
        input_scales: scale of each int8 input; its zero point is 0.
        quantised: False trains a float network of the same operators (a teacher).
        dropout: probability on the fused features, in training only.
        learned_scales: scales of 2-bit weights are parameters.

    Attributes:
        features: of the last forward pass, the tensor `feature_tensor` before dropout:
            (batch, channels, height, width) or (batch, channels).
    """

    features: Tensor

    def __init__(
        self,
        graph: Graph,
        input_scales: Mapping[str, float],
        quantised: bool = True,
        dropout: float = 0.0,
        learned_scales: bool = False,
    ) -> None:
        super().__init__()
        self.graph, self.quantised, self.frozen = graph, quantised, False
        self.inputs = tuple(source.name for source in graph.inputs)
        self.dropout, self.fused = dropout, fused_tensor(graph)
        self.feature_tensor = feature_tensor(graph)
        self.layers = nn.ModuleDict(
            {op.name: MODULES[type(op)](op, graph) for op in graph.ops if type(op) in MODULES}
        )
        if learned_scales:
            for layer in self._linear_layers():
                layer.learn_scale()
        internal = {name: name for name in graph.internal_scales}
        self.groups = {**graph.scale_groups, **internal}
        self.non_negative = {**non_negative_groups(graph), **dict.fromkeys(internal, False)}
        wide = [f"{op.name}/sum" for op in graph.ops if isinstance(op, SelectiveScan)]
        self.most = dict.fromkeys(wide, 32767.0)  # of groups with other integers than int8
        self.ranges: dict[str, Tensor] = {}  # scale group -> running maximum of |activation|
        self.fixed: dict[str, Scale] = {}
        self._fix_scales(input_scales)

    def _fix_scales(self, input_scales: Mapping[str, float]) -> None:
        for source in self.graph.inputs:
            self.fixed[self.groups[source.name]] = Scale(input_scales[source.name], 0)
        for op in self.graph.ops:
            if isinstance(op, Table) and op.function in TABLE_RANGES:
                held, group = Scale(*TABLE_RANGES[op.function]), self.groups[op.name]
                if held.zero_point == 0 or group not in self.graph.symmetric:
                    self.fixed[group] = held
        for group in set(self.groups.values()) - set(self.fixed):
            self.ranges[group] = torch.zeros(())
        self._scale_tensors = {g: torch.tensor(s.scale) for g, s in self.fixed.items()}

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What moves a module to a device or a type: here the ranges and scales go along."""
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        self.ranges = {group: function(peak) for group, peak in self.ranges.items()}
        self._scale_tensors = {g: function(scale) for g, scale in self._scale_tensors.items()}
        return self

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """inputs: modality -> (batch, channels, height, width); returns (batch, classes)."""
        values: dict[str, Tensor] = dict(inputs)
        for op in self.graph.ops:
            row = LAYERS.get(type(op))
            if row is None:
                raise UnsupportedOp(f"{op.name}: {type(op).__name__} has no torch layer")
            y = row(self, op, [values[name] for name in op.inputs])
            if self.dropout and self.training and op.name == self.fused:
                y = F.dropout(y, self.dropout)
            values[op.name] = y
        self.features = values[self.feature_tensor]
        return values[self.graph.output]

    def _linear_layers(self) -> list[LinearLayer]:
        return [layer for layer in self.layers.values() if isinstance(layer, LinearLayer)]

    def hold_bits(self, least: int) -> None:
        """Quantises no weight of a linear layer to fewer than `least` bits from now on."""
        for layer in self._linear_layers():
            layer.hold_bits(least)

    def freeze(self) -> None:
        """Stops batch-norm statistics and activation ranges; biases move to the integer grid."""
        self.frozen = True

    def scale(self, name: str) -> Tensor:
        """The current scale of a tensor, a scalar."""
        group = self.groups[name]
        if group in self.fixed:
            return self._scale_tensors[group]
        most = 255.0 if self.non_negative[group] else self.most.get(group, 127.0)
        return self.ranges[group] / most + SMALLEST_SCALE

    def activate(self, name: str, x: Tensor, relu: bool) -> Tensor:
        """ReLU and the activation's fake quantiser, which in training also follows the range."""
        if not self.quantised:
            return F.relu(x) if relu else x
        followed = self.follow(name, relu)
        if followed is None:
            zero = self.fixed[self.groups[name]].zero_point
            return fake_quantise(x, self.scale(name), -128 - zero, 127 - zero)
        if not self.training or self.frozen:
            return fake_quantise(x, self.scale(name), *followed[3:])
        return follow_and_quantise(x, *followed)

    def follow(self, name: str, relu: bool) -> Follow | None:
        """How the quantiser of a tensor follows its range; None where its scale is given."""
        group = self.groups[name]
        if group in self.fixed:
            return None
        positive = self.non_negative[group]
        high = most = 255.0 if positive else self.most.get(group, 127.0)
        low = 0.0 if relu or positive else -high - 1.0
        momentum = 0.0 if self.frozen else RANGE_MOMENTUM
        return self.ranges[group], momentum, most, low, high


def fused_tensor(graph: Graph) -> str:
    """The tensor in which branches and positions have met, or "" if there is none.

    It is made by the last operator that has several inputs or reads a map larger than 1x1.
    """
    meeting = [
        op.name for op in graph.ops if len(op.inputs) > 1 or max(graph.input_shapes(op)[0][:2]) > 1
    ]
    return meeting[-1] if meeting else ""


def feature_tensor(graph: Graph) -> str:
    """The tensor whose values are compared with a teacher's features.

    The fused one, or, in a network of a feature vector alone, what the output layer takes.
    """
    linear = [op for op in graph.ops if isinstance(op, Conv2d | DepthwiseConv2d)]
    return fused_tensor(graph) or linear[-1].inputs[0]


def _linear(net: Student, op: Linear, xs: list[Tensor]) -> Tensor:
    layer = net.layers[op.name]
    assert isinstance(layer, LinearLayer)
    in_scale = partial(net.scale, op.inputs[0]) if net.quantised else None
    follow = net.follow(op.name, op.relu) if net.training and in_scale is not None else None
    if follow is not None and in_scale is not None and layer.fuses(xs[0]):
        return layer.fused(xs[0], in_scale, net.frozen, follow)
    y = layer(xs[0], in_scale, net.frozen)
    return net.activate(op.name, y, op.relu)


def _pool(net: Student, op: Pool, xs: list[Tensor]) -> Tensor:
    if op.function == "max":
        return F.max_pool2d(xs[0], op.kernel, op.stride)
    y = F.avg_pool2d(xs[0], op.kernel, op.stride)
    if not net.quantised:
        return y
    scale = net.scale(op.name)  # rounding only: the range is that of the input
    return fake_quantise(y, scale, -255.0, 255.0)


def _add(net: Student, op: Add, xs: list[Tensor]) -> Tensor:
    return net.activate(op.name, xs[0] + xs[1], op.relu)


def _mul(net: Student, op: Mul, xs: list[Tensor]) -> Tensor:
    return net.activate(op.name, xs[0] * xs[1], False)


def _concat(net: Student, op: Concat, xs: list[Tensor]) -> Tensor:
    return torch.cat(xs, 1)


def _table(net: Student, op: Table, xs: list[Tensor]) -> Tensor:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "hard_swish": F.hardswish,
        "silu": F.silu,
    }
    return net.activate(op.name, functions[op.function](xs[0]), False)


def _pad(net: Student, op: Pad, xs: list[Tensor]) -> Tensor:
    top, bottom, left, right = op.padding
    return F.pad(xs[0], (left, right, top, bottom))


def _reshape(net: Student, op: Reshape, xs: list[Tensor]) -> Tensor:
    x = xs[0].permute(0, 2, 3, 1)  # the graph's order is (height, width, channels)
    if len(op.shape) == 1:
        return x.reshape(x.shape[0], *op.shape)
    return x.reshape(x.shape[0], *op.shape).permute(0, 3, 1, 2)


def _attention(net: Student, op: Attention, xs: list[Tensor]) -> Tensor:
    batch, channels = xs[0].shape[:2]
    width = channels // op.heads
    q, k, v = (x.reshape(batch, op.heads, width, x.shape[3]) for x in xs)
    scores = net.activate(f"{op.name}/scores", q.transpose(2, 3) @ k, False)
    weights = attention_weights(scores, width, net.quantised)
    mixed = v @ weights.transpose(2, 3)  # (batch, heads, width, steps)
    return net.activate(op.name, mixed.reshape(xs[0].shape), False)


def _scan(net: Student, op: SelectiveScan, xs: list[Tensor]) -> Tensor:
    u, dt, b, c = (x[:, :, 0].permute(2, 0, 1).contiguous() for x in xs[:4])
    state, skip = _scan_units(net, op) if net.quantised else (None, None)
    layer: nn.Module = net.layers[op.name]
    mixed = selective_scan(u, decay_of(dt, net.quantised), b, c, state) + layer(skip) * u
    summed = net.activate(f"{op.name}/sum", mixed.permute(1, 2, 0).unsqueeze(2), False)
    return net.activate(op.name, summed * xs[4], False)


def _scan_units(net: Student, op: SelectiveScan) -> tuple[Tensor, Tensor]:
    """What one step of the state and one of the skip stand for."""
    u, _, b, c, _ = (net.scale(name) for name in op.inputs)
    return u * b, b * c


def _positions(net: Student, op: Positions, xs: list[Tensor]) -> Tensor:
    values: Tensor = net.layers[op.name](net.quantised)
    return net.activate(op.name, xs[0] + values, False)


def _last_step(net: Student, op: LastStep, xs: list[Tensor]) -> Tensor:
    return xs[0][:, :, :, -1:]


LAYERS: dict[type[Op], Callable[[Student, Any, list[Tensor]], Tensor]] = {
    Conv2d: _linear,
    DepthwiseConv2d: _linear,
    Pool: _pool,
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Table: _table,
    Pad: _pad,
    Reshape: _reshape,
    Attention: _attention,
    SelectiveScan: _scan,
    Positions: _positions,
    LastStep: _last_step,
}


@torch.no_grad()
def to_integer(net: Student) -> IntegerModel:
    """The integers that `net` has been trained to compute."""
    scales: dict[str, Scale] = {}
    for name, group in net.groups.items():
        zero = -128 if net.non_negative[group] else 0
        held = net.fixed.get(group) or Scale(float(np.float32(net.scale(name).item())), zero)
        scales[name] = Scale(float(np.float32(held.scale)), held.zero_point)
    weights = {
        op.name: _weights(net, op, scales[op.inputs[0]].scale)
        for op in net.graph.ops
        if op.name in net.layers
    }
    return IntegerModel(net.graph, scales, weights)


def _weights(net: Student, op: Op, in_scale: float) -> Weights:
    layer = net.layers[op.name]
    if isinstance(op, SelectiveScan):
        assert isinstance(layer, ScanLayer)
        return layer.integers(_scan_units(net, op)[1])
    if isinstance(layer, PositionsLayer):
        return layer.integers()
    assert isinstance(layer, LinearLayer)
    return integer_weights(layer, in_scale)
