"""Convolutions in training, and the integers that they leave.

A layer trains with batch norm where `normalised` says so and with a plain bias elsewhere. Batch
norm exists only here: its statistics are folded into the scale and the bias of each channel.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.network.graph import Graph
from nas.network.integer import Weights
from nas.network.numerics import weight_limit
from nas.network.ops import (
    Add,
    Attention,
    DepthwiseConv2d,
    Linear,
    Op,
    Positions,
    SelectiveScan,
    Table,
    window_padding,
)
from nas.training.fake_quantise import quantise_rows, quantise_weight, weight_scale
from nas.training.fused import Window, takes
from nas.training.fused_layer import SMALLEST_GAIN, Follow, Site, fused_layer, on_grid
from nas.training.low_bits import learned_quantise

NORM_MOMENTUM = 0.1
NORM_EPSILON = 1e-5
RESIDUAL_GAIN = 0.5  # what a block adds starts at half its size, so that deep sums stay in range
STEP_BIAS = (-4.0, 0.0)  # of a scan's dt: half-lives from one reading to some forty
LARGEST_WINDOWS = 1 << 19  # values of a batch; torch's convolutions are faster on larger maps
LARGEST_BIAS = 1 << 24  # keeps accumulator + bias inside int32 whatever a dead channel's scale is


def normalised(op: Linear, graph: Graph) -> bool:
    """Whether `op` trains with batch norm: before a ReLU, and in the blocks that work on series.

    There a sum, an attention, a depthwise convolution, positions or a silu or tanh table read it,
    or a scan as anything but dt. Plain are what makes dt, a gate's sigmoid or logits, and a
    projection that another linear layer reads: a bottleneck.
    """
    return op.relu or any(_wants_norm(reader, op.name) for reader in graph.consumers[op.name])


def _wants_norm(reader: Op, name: str) -> bool:
    if isinstance(reader, Table):
        return reader.function in ("silu", "tanh")
    if isinstance(reader, SelectiveScan):
        return name != reader.inputs[1]
    return isinstance(reader, Add | Attention | DepthwiseConv2d | Positions)


def _is_summed(op: Linear, graph: Graph) -> bool:
    """Whether `op` is the end of a block: sums read it, nothing else does, and it has no ReLU."""
    readers = graph.consumers[op.name]
    return not op.relu and readers != () and all(isinstance(r, Add) for r in readers)


def _makes_steps(op: Linear, graph: Graph) -> bool:
    """Whether a scan reads `op` as its dt."""
    readers = graph.consumers[op.name]
    return any(isinstance(r, SelectiveScan) and r.inputs[1] == op.name for r in readers)


class LinearLayer(nn.Module):
    """A dense or depthwise convolution, with batch norm or with a plain bias."""

    def __init__(self, op: Linear, graph: Graph) -> None:
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
        if _makes_steps(op, graph):
            nn.init.uniform_(self.bias, *STEP_BIAS)
        first = RESIDUAL_GAIN if _is_summed(op, graph) else 1.0
        normed = normalised(op, graph)
        self.gain = nn.Parameter(torch.full((out,), first)) if normed else None
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(out))
        self.register_buffer("variance", torch.ones(out))
        (top, bottom), (left, right) = window_padding(op, source)
        self.symmetric = (top, left) if (top, left) == (bottom, right) else None
        self.padding = (left, right, top, bottom)
        self.pointwise = self.groups == 1 and (*shape[1:3], *op.stride) == (1, 1, 1, 1)
        rows, columns, _ = graph.shapes[op.name]
        places = (*source, rows, columns, *shape[1:3], *op.stride, top, left)
        self.window = None if self.pointwise else Window(0, *places)
        gathered = self.window is not None and self.groups == 1
        self.window_values = rows * columns * fan_in if gathered else 0  # of one map
        self.bits = op.weight_bits  # more for a while, where bits come down gradually
        self.members: tuple[int, ...] = ()  # bits of each of several students packed into one
        self.limits: Tensor  # of their weights: (members x out, 1, 1, 1)
        self.log_scale: nn.Parameter | None = None

    def join(self, members: tuple[int, ...]) -> None:
        """Becomes the layer of several students, each at its own bits."""
        self.members = members
        limits = torch.tensor([weight_limit(bits) for bits in members]).to(self.weight)
        rows = limits.repeat_interleave(len(self.bias) // len(members))
        self.register_buffer("limits", rows.view(-1, 1, 1, 1))

    def hold_bits(self, least: int) -> None:
        """Quantises to `least` bits, if the graph does not say more, from now on."""
        bits = max(least, self.op.weight_bits)
        if bits != self.bits:
            self.bits = bits
            if self.log_scale is not None:
                self.learn_scale()

    def learn_scale(self) -> None:
        """At 2 bits the scale is a parameter from now on, which begins with what the rule says.

        It is its logarithm: steps of the optimiser are then shares of it, whatever its size.
        """
        if self.op.weight_bits == 2:
            first = weight_scale(self.weight, 2).log().view(-1)
            if self.log_scale is None:
                self.log_scale = nn.Parameter(first)
            self.log_scale.data.copy_(first)

    def scale(self) -> Tensor:
        """(out, 1, 1, 1) scale of the weights at today's bits."""
        if self.log_scale is not None and self.bits == 2:
            return self.log_scale.exp().view(-1, 1, 1, 1)
        return weight_scale(self.weight, self.bits)

    def forward(self, x: Tensor, in_scale: Callable[[], Tensor] | None, frozen: bool) -> Tensor:
        """The real-valued output before ReLU; quantised where `in_scale` is given.

        Between convolution and output the channels of a pack's members lie side by side, as if
        they were one layer's.

        Args:
            in_scale: gives the scale of `x`, which is asked for only where a bias needs its grid.
        """
        return self._apart(self._normalised(x, in_scale, frozen))

    def _normalised(self, x: Tensor, in_scale: Callable[[], Tensor] | None, frozen: bool) -> Tensor:
        weight: Tensor = self.weight
        scale: Tensor | None = None
        if in_scale is not None:
            if self.log_scale is not None and self.bits == 2:
                scale = self.scale()
                weight = learned_quantise(weight, scale, weight_limit(2))
            elif self.members:
                weight, scale = quantise_rows(weight, self.limits)
            else:
                weight, scale = quantise_weight(weight, self.bits)
        y = self._convolve(x, weight)
        if self.gain is not None and not frozen and self.training:
            return F.batch_norm(
                y, self.mean, self.variance, self.gain, self.bias, True, NORM_MOMENTUM, NORM_EPSILON
            )
        gain, bias = self.folded()
        if scale is not None and in_scale is not None:
            bias = bias + (on_grid(bias, gain, scale.view(-1), in_scale()) - bias).detach()
        shape = (1, -1, 1, 1)
        return y + bias.view(shape) if gain is None else y * gain.view(shape) + bias.view(shape)

    def parts(self) -> list[str]:
        """Names of the tensors that it trains or follows, (out, ...) each."""
        names = ["weight", "bias", "mean", "variance"]
        return names if self.gain is None else [*names, "gain"]

    def fuses(self, x: Tensor) -> bool:
        """Whether `fused` takes the layer for such an input; it is the faster way for a pack."""
        plain = takes(x) and self.log_scale is None
        small = len(x) * self.window_values <= LARGEST_WINDOWS
        return plain and (small or bool(self.members))

    def fused(
        self,
        x: Tensor,
        in_scale: Callable[[], Tensor],
        frozen: bool,
        follow: Follow,
    ) -> Tensor:
        """The activation, after ReLU and its quantiser, in training; see `fused_layer`."""
        gain: Tensor | None = self.gain
        bias: Tensor = self.bias
        norm, scale = None, None
        if gain is not None and not frozen:
            norm = (self.mean, self.variance, NORM_MOMENTUM, NORM_EPSILON)
        else:
            gain, bias = self.folded()
            scale = in_scale()
        bits = self.members or (self.bits,)
        site = Site(self.window, self.groups > 1, bits, norm, scale, follow)
        ones = torch.ones_like(bias) if gain is None else gain
        return fused_layer(x, self.weight, ones, bias, site)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """(batch, members x out, height, width)."""
        if self.pointwise and not self.members:  # several times faster than a convolution
            return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)
        if self.symmetric is None:
            x = F.pad(x, self.padding)
        groups, padding = self.groups, self.symmetric or 0
        if self.members:
            count = len(self.members)
            x = x.reshape(count, -1, *x.shape[1:]).transpose(0, 1).flatten(1, 2)
            groups *= count
        return F.conv2d(x, weight, None, self.op.stride, padding, 1, groups)

    def _apart(self, y: Tensor) -> Tensor:
        """(members x batch, out, height, width) of (batch, members x out, height, width)."""
        if not self.members:
            return y
        shape = len(y), len(self.members), -1, *y.shape[2:]
        return y.reshape(shape).transpose(0, 1).flatten(0, 1)

    def folded(self) -> tuple[Tensor | None, Tensor]:
        """(gain, bias) a channel with the batch norm's statistics folded in."""
        if self.gain is None:
            return None, self.bias
        gain = self.gain * torch.rsqrt(self.variance + NORM_EPSILON)
        return gain, self.bias - self.mean * gain


def integer_weights(layer: LinearLayer, in_scale: float) -> Weights:
    """Folds the batch norm into scale and sign of each channel, and rounds the bias."""
    op = layer.op
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
