"""What blocks on series train beside their linear layers: positions, attention, selective scans."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.network.graph import Graph
from nas.network.integer import LARGEST_SKIP, Weights
from nas.network.ops import Positions, SelectiveScan
from nas.network.sequence_reference import STATE_BITS
from nas.training.fake_quantise import fake_quantise

POSITION_SPREAD = 0.3  # standard deviation of learned positions at the start
LONGEST_WAVE = 10000.0  # of sinusoidal positions, over 2 pi, in steps (Vaswani et al., 2017)
ATTENTION_STEP = 2.0**-8  # attention's weights are integers from 0 to 255 of it
DECAY_STEP = 2.0**-STATE_BITS
MOST_DECAY = (1 << STATE_BITS) - 1


def sinusoids(steps: int, channels: int) -> Tensor:
    """(1, channels, 1, steps): sine in even channels, cosine in odd ones, ever longer waves."""
    channel = torch.arange(channels)
    wave = torch.exp(-math.log(LONGEST_WAVE) * (channel - channel % 2) / channels)
    angle = wave[:, None] * torch.arange(steps) + (channel % 2)[:, None] * (math.pi / 2)
    return torch.sin(angle)[None, :, None]


class PositionsLayer(nn.Module):
    """A constant for every step and channel, trained where it is learned."""

    def __init__(self, op: Positions, graph: Graph) -> None:
        super().__init__()
        _, steps, channels = graph.shapes[op.name]
        learned = op.kind == "learned"
        values = sinusoids(steps, channels)
        if learned:
            values = torch.randn(values.shape) * POSITION_SPREAD
        self.values = nn.Parameter(values, requires_grad=learned)

    def scale(self) -> Tensor:
        """The size of one step of the int8 values, a scalar."""
        return self.values.detach().abs().amax() / 127.0 + 1e-8

    def forward(self, quantised: bool) -> Tensor:
        """(1, channels, 1, steps)."""
        if not quantised:
            return self.values
        return fake_quantise(self.values, self.scale(), -127.0, 127.0)

    def integers(self) -> Weights:
        """What the integer model adds."""
        scale = self.scale()
        values = torch.round(self.values.detach() / scale).clamp_(-127, 127)[0].permute(1, 2, 0)
        return Weights(
            np.ascontiguousarray(values.numpy().astype(np.int8)),
            np.array([scale.item()], np.float32),
            np.zeros(0, np.int32),
        )


class ScanLayer(nn.Module):
    """The skip of a selective scan: the share of u that goes past the state, a channel."""

    def __init__(self, op: SelectiveScan, graph: Graph) -> None:
        super().__init__()
        self.skip = nn.Parameter(torch.ones(graph.shapes[op.name][2]))

    def forward(self, unit: Tensor | None) -> Tensor:
        """(channels,); on the grid of `unit` where that is given."""
        if unit is None:
            return self.skip
        return self.skip + (self._steps(unit) * unit - self.skip).detach()

    def _steps(self, unit: Tensor) -> Tensor:
        return torch.round(self.skip / unit).clamp_(-LARGEST_SKIP, LARGEST_SKIP)

    def integers(self, unit: Tensor) -> Weights:
        """The skip in units of b's scale times c's."""
        bias = self._steps(unit.double()).detach().numpy().astype(np.int32)
        return Weights(np.zeros(0, np.int8), np.zeros(0, np.float32), bias)


def attention_weights(scores: Tensor, width: int, quantised: bool) -> Tensor:
    """Softmax over the last axis of `scores`, divided by the root of a head's `width`."""
    weights = torch.softmax(scores * width**-0.5, -1)
    if not quantised:
        return weights
    return fake_quantise(weights, torch.tensor(ATTENTION_STEP), 0.0, 255.0)


def decay_of(dt: Tensor, quantised: bool) -> Tensor:
    """The share of the first state that a step keeps: sigmoid(-dt)."""
    decay = torch.sigmoid(-dt)
    if not quantised:
        return decay
    return fake_quantise(decay, torch.tensor(DECAY_STEP), 0.0, MOST_DECAY)


class _SelectiveScan(torch.autograd.Function):
    """One operation a step, forward and backward; all else is done on whole tensors.

    Inside, tensors are (steps, batch, states, channels), so that a step is one run of memory.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, decay: Tensor, b: Tensor, c: Tensor, unit: Tensor | None
    ) -> Tensor:
        drive = b.unsqueeze(3) * u.unsqueeze(2)
        powers = torch.empty_like(drive)
        powers[:, :, 0] = decay
        for n in range(1, drive.shape[2]):
            product = powers[:, :, n - 1] * decay
            if unit is not None:
                product.div_(DECAY_STEP).round_().mul_(DECAY_STEP)
            powers[:, :, n] = product
        if unit is not None:
            drive.div_(unit)
        states = torch.empty_like(drive)
        held = torch.zeros_like(drive[0])
        for x, a, state in zip(drive.unbind(), powers.unbind(), states.unbind(), strict=True):
            torch.lerp(x, held, a, out=state)
            if unit is not None:
                state.round_()
            held = state
        if unit is not None:
            states.mul_(unit)
        ctx.save_for_backward(u, b, c, powers, states)
        return (states * c.unsqueeze(3)).sum(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        u, b, c, powers, states = ctx.saved_tensors
        of_sum = gradients[0].unsqueeze(2)
        of_state = of_sum * c.unsqueeze(3)
        steps = of_state.unbind()
        for t in range(len(steps) - 2, -1, -1):
            steps[t].addcmul_(powers[t + 1], steps[t + 1])
        of_power = b.unsqueeze(3) * -u.unsqueeze(2)
        of_power[1:] += states[:-1]
        of_power *= of_state
        of_decay = of_power[:, :, 0]
        for n in range(1, powers.shape[2]):
            of_decay = of_decay + (n + 1) * of_power[:, :, n] * powers[:, :, n - 1]
        of_drive = torch.addcmul(of_state, of_state, powers, value=-1)
        of_u = (of_drive * b.unsqueeze(3)).sum(2)
        of_b = (of_drive * u.unsqueeze(2)).sum(3)
        return of_u, of_decay, of_b, (of_sum * states).sum(3), None


def selective_scan(
    u: Tensor, decay: Tensor, b: Tensor, c: Tensor, unit: Tensor | None = None
) -> Tensor:
    """y = sum over n of h_n c_n, where h_n = a_n h_n + (1 - a_n) b_n u and a_n = decay ** n.

    Args:
        u, decay: (steps, batch, channels).
        b, c: (steps, batch, states).
        unit: where given, states are rounded to its grid and powers to that of `DECAY_STEP`, as
            the integer model does; the gradient passes straight through.
    """
    return _SelectiveScan.apply(  # type: ignore[no-any-return, no-untyped-call]
        u, decay, b, c, unit
    )
