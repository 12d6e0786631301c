"""Graph -> torch network by walking the same operators, and back to integers.

Tensors are real-valued (batch, channels, height, width). With `quantised`, every weight and every
activation passes a fake quantiser at the bits that the graph gives it, so that what is trained is
what the integers will compute. Batch norm exists only here: `freeze` stops its statistics for the
last part of a training, from where on each bias lies on the accumulator's grid, and `to_integer`
folds it away.

Weight scales per output channel, symmetric and narrow: 8 bits max|w| / 127; 4 bits the smaller of
max|w| and 3.5 mean|w|, over 7; 2 bits 1.5 mean|w| (ternary). The 2- and 4-bit factors come from our
own comparison of scale rules on four data sets (they beat max|w| and equal learned steps at less
cost).
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import UnsupportedOp
from nas.network.graph import Graph
from nas.network.integer import IntegerModel, Scale, Weights
from nas.network.numerics import weight_limit
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
    Table,
    window_padding,
)
from nas.network.ranges import non_negative_groups
from nas.training.low_bits import learned_quantise

RANGE_MOMENTUM = 0.05  # share of the newest batch in the running maximum of an activation
NORM_MOMENTUM = 0.1
NORM_EPSILON = 1e-5
SMALLEST_GAIN = 1e-12  # of a dead channel: its bias still needs a grid
LARGEST_BIAS = 1 << 24  # keeps accumulator + bias inside int32 whatever a dead channel's scale is
TABLE_RANGES: dict[str, tuple[float, int]] = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)}

Linear: TypeAlias = Conv2d | DepthwiseConv2d


class _FakeQuantise(torch.autograd.Function):
    """round(x / scale) clamped to [low, high], times scale; the gradient is zero where it clips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        steps = torch.div(x, scale).round_()
        held = steps.clamp(low, high)
        # In place and in floats: half the time of comparisons and a mask of truth values.
        ctx.save_for_backward(steps.eq_(held))
        return held.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


def fake_quantise(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """Straight-through quantisation of `x` to the integers from low to high times `scale`."""
    return _FakeQuantise.apply(x, scale, low, high)  # type: ignore[no-any-return, no-untyped-call]


def weight_scale(weight: Tensor, bits: int) -> Tensor:
    """(out, 1, 1, 1) scale of a weight (out, in, kh, kw) at `bits`; see the module's docstring."""
    size = weight.detach().abs()
    limit = weight_limit(bits)
    if bits == 2:
        scale = size.mean((1, 2, 3), keepdim=True) * 1.5
    else:
        scale = size.amax((1, 2, 3), keepdim=True) / limit
        if bits == 4:
            scale = torch.minimum(scale, size.mean((1, 2, 3), keepdim=True) * 3.5 / limit)
    return scale + 1e-8


class LinearLayer(nn.Module):
    """A dense or depthwise convolution: batch norm before a ReLU, a plain bias without one."""

    def __init__(self, op: Linear, graph: Graph, learned_scale: bool = False) -> None:
        super().__init__()
        shape = graph.weight_shape(op)
        assert shape is not None
        source = graph.input_shapes(op)[0]
        depthwise = isinstance(op, DepthwiseConv2d)
        out, per_filter = (source[2], 1) if depthwise else (shape[0], source[2])
        fan_in = per_filter * shape[1] * shape[2]
        self.op = op
        self.groups = source[2] if depthwise else 1
        self.weight = nn.Parameter(
            torch.randn(out, per_filter, shape[1], shape[2]) * (2.0 / fan_in) ** 0.5
        )
        self.bias = nn.Parameter(torch.zeros(out))
        self.gain = nn.Parameter(torch.ones(out)) if op.relu else None
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(out))
        self.register_buffer("variance", torch.ones(out))
        (top, bottom), (left, right) = window_padding(op, source)
        self.symmetric = (top, left) if (top, left) == (bottom, right) else None
        self.padding = (left, right, top, bottom)
        self.bits = op.weight_bits  # more for a while, where bits come down gradually
        # Its logarithm: steps of the optimiser are then shares of the scale, whatever its size.
        learned = learned_scale and op.weight_bits == 2
        self.log_scale = nn.Parameter(torch.zeros(out)) if learned else None
        self.begin_learned_scale()

    @torch.no_grad()
    def begin_learned_scale(self) -> None:
        """Sets a learned scale to what the rule says of today's weights."""
        if self.log_scale is not None:
            self.log_scale.copy_(weight_scale(self.weight, 2).log().view(-1))

    def scale(self) -> Tensor:
        """(out, 1, 1, 1) scale of the weights at today's bits."""
        if self.log_scale is not None and self.bits == 2:
            return self.log_scale.exp().view(-1, 1, 1, 1)
        return weight_scale(self.weight, self.bits)

    def forward(self, x: Tensor, in_scale: Tensor | None, frozen: bool) -> Tensor:
        """The real-valued output before ReLU; quantised where `in_scale` is given."""
        weight: Tensor = self.weight
        scale: Tensor | None = None
        if in_scale is not None:
            scale, limit = self.scale(), weight_limit(self.bits)
            if scale.requires_grad:
                weight = learned_quantise(weight, scale, limit)
            else:
                weight = fake_quantise(weight, scale, -limit, limit)
        if self.symmetric is None:
            x = F.pad(x, self.padding)
        y = F.conv2d(x, weight, None, self.op.stride, self.symmetric or 0, 1, self.groups)
        if self.gain is not None and not frozen and self.training:
            return F.batch_norm(
                y, self.mean, self.variance, self.gain, self.bias, True, NORM_MOMENTUM, NORM_EPSILON
            )
        gain, bias = self.folded()
        if scale is not None and in_scale is not None:
            size = 1.0 if gain is None else gain.abs().clamp_min(SMALLEST_GAIN)
            grid = (in_scale * scale.view(-1) * size).detach()
            bias = bias + (torch.round(bias / grid) * grid - bias).detach()
        shape = (1, -1, 1, 1)
        return y + bias.view(shape) if gain is None else y * gain.view(shape) + bias.view(shape)

    def folded(self) -> tuple[Tensor | None, Tensor]:
        """(gain, bias) a channel with the batch norm's statistics folded in."""
        if self.gain is None:
            return None, self.bias
        gain = self.gain * torch.rsqrt(self.variance + NORM_EPSILON)
        return gain, self.bias - self.mean * gain


class Student(nn.Module):
    """The network of a graph.

    Args:
        graph: what to compute.
        input_scales: scale of each int8 input; its zero point is 0.
        quantised: False trains a float network of the same operators (a teacher).
        dropout: probability on the fused features, in training only.
        learned_scales: scales of 2-bit weights are parameters.

    Attributes:
        features: of the last forward pass, (batch, width) or (batch, width, height, width):
            the tensor `feature_tensor` before dropout.
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
        self.dropout, self.fused = dropout, fused_tensor(graph)
        self.feature_tensor = feature_tensor(graph)
        self.layers = nn.ModuleDict(
            {
                op.name: LinearLayer(op, graph, learned_scales)
                for op in graph.ops
                if isinstance(op, Conv2d | DepthwiseConv2d)
            }
        )
        self.groups = graph.scale_groups
        self.non_negative = non_negative_groups(graph)
        self.ranges: dict[str, Tensor] = {}  # scale group -> running maximum of |activation|
        self.fixed: dict[str, Scale] = {}
        self._fix_scales(input_scales)

    def _fix_scales(self, input_scales: Mapping[str, float]) -> None:
        for source in self.graph.inputs:
            self.fixed[self.groups[source.name]] = Scale(input_scales[source.name], 0)
        for op in self.graph.ops:
            if isinstance(op, Table) and op.function in TABLE_RANGES:
                self.fixed[self.groups[op.name]] = Scale(*TABLE_RANGES[op.function])
        for group in set(self.groups.values()) - set(self.fixed):
            self.ranges[group] = torch.zeros(())
        self._scale_tensors = {g: torch.tensor(s.scale) for g, s in self.fixed.items()}

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

    def hold_bits(self, least: int) -> None:
        """Quantises no weight to fewer than `least` bits from now on."""
        for layer in self.layers.values():
            assert isinstance(layer, LinearLayer)
            bits = max(least, layer.op.weight_bits)
            if bits != layer.bits:
                layer.bits = bits
                layer.begin_learned_scale()

    def freeze(self) -> None:
        """Stops batch-norm statistics and activation ranges; biases move to the integer grid."""
        self.frozen = True

    def scale(self, name: str) -> Tensor:
        """The current scale of a tensor, a scalar."""
        group = self.groups[name]
        if group in self.fixed:
            return self._scale_tensors[group]
        return self.ranges[group] / (255.0 if self.non_negative[group] else 127.0) + 1e-8

    def activate(self, name: str, x: Tensor, relu: bool) -> Tensor:
        """ReLU and the activation's fake quantiser, which in training also follows the range."""
        if not self.quantised:
            return F.relu(x) if relu else x
        group = self.groups[name]
        if group in self.fixed:
            zero = self.fixed[group].zero_point
            return fake_quantise(x, self.scale(name), -128 - zero, 127 - zero)
        positive = self.non_negative[group]
        if self.training and not self.frozen:
            with torch.no_grad():
                peak = x.amax().clamp_min(0.0) if relu or positive else x.abs().amax()
                held = self.ranges[group]
                self.ranges[group] = torch.where(
                    held == 0, peak, torch.lerp(held, peak, RANGE_MOMENTUM)
                )
        low, high = (0.0, 255.0) if positive else (0.0 if relu else -128.0, 127.0)
        return fake_quantise(x, self.scale(name), low, high)


def fused_tensor(graph: Graph) -> str:
    """The tensor in which the branches have met: the last operator with several inputs.

    With one branch it is the last operator on a map larger than 1x1, or "" if there is none.
    """
    joins = [op.name for op in graph.ops if len(op.inputs) > 1]
    if joins:
        return joins[-1]
    maps = [op.name for op in graph.ops if max(graph.input_shapes(op)[0][:2]) > 1]
    return maps[-1] if maps else ""


def feature_tensor(graph: Graph) -> str:
    """The tensor whose values a teacher of features is compared in.

    The fused one, or, in a network of a feature vector alone, what the output layer takes.
    """
    fused = fused_tensor(graph)
    if fused:
        return fused
    return next(op for op in reversed(graph.ops) if graph.weight_shape(op) is not None).inputs[0]


def _linear(net: Student, op: Linear, xs: list[Tensor]) -> Tensor:
    in_scale = net.scale(op.inputs[0]) if net.quantised else None
    y = net.layers[op.name](xs[0], in_scale, net.frozen)
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
}


@torch.no_grad()
def to_integer(net: Student) -> IntegerModel:
    """The integers that `net` has been trained to compute."""
    scales: dict[str, Scale] = {}
    for name in net.graph.shapes:
        group = net.groups[name]
        zero = -128 if net.non_negative[group] else 0
        held = net.fixed.get(group) or Scale(float(np.float32(net.scale(name).item())), zero)
        scales[name] = Scale(float(np.float32(held.scale)), held.zero_point)
    weights = {
        op.name: _integer_weights(net, op, scales[op.inputs[0]].scale)
        for op in net.graph.ops
        if isinstance(op, Conv2d | DepthwiseConv2d)
    }
    return IntegerModel(net.graph, scales, weights)


def _integer_weights(net: Student, op: Linear, in_scale: float) -> Weights:
    """Folds the batch norm into scale and sign of each channel, and rounds the bias."""
    layer = net.layers[op.name]
    assert isinstance(layer, LinearLayer)
    gain, bias = layer.folded()
    weight = layer.weight.double()
    scale = layer.scale().double().view(-1)
    factor = torch.ones_like(scale) if gain is None else gain.double()
    # A dead channel's scale can be so small that its bias leaves int32; its weights do not matter.
    floor = bias.double().abs() / (LARGEST_BIAS * in_scale * factor.abs().clamp_min(SMALLEST_GAIN))
    scale = torch.maximum(scale, floor)
    limit = weight_limit(op.weight_bits)
    values = torch.round(weight / scale.view(-1, 1, 1, 1)).clamp_(-limit, limit)
    values *= torch.where(factor < 0, -1.0, 1.0).view(-1, 1, 1, 1)
    merged = (scale * factor.abs().clamp_min(SMALLEST_GAIN)).float().double()
    integers = torch.round(bias.double() / (in_scale * merged)).numpy().astype(np.int32)
    order = (1, 2, 3, 0) if isinstance(op, DepthwiseConv2d) else (0, 2, 3, 1)
    array: NDArray[np.int8] = values.permute(order).contiguous().numpy().astype(np.int8)
    return Weights(array, merged.float().numpy(), integers)
