"""Fake quantisers: real values that lie on the grid of the integers, with a gradient.

Weight scales per output channel, symmetric and narrow: 8 bits max|w| / 127; 4 bits the smaller of
max|w| and 3.5 mean|w|, over 7; 2 bits 1.5 mean|w| (ternary). The 2- and 4-bit factors come from our
own comparison of scale rules on four data sets (they beat max|w| and equal learned steps at less
cost).
"""

from typing import Any

import torch
from torch import Tensor

from nas.network.numerics import weight_limit

SMALLEST_SCALE = 1e-8


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


class _QuantiseWeights(torch.autograd.Function):
    """`fake_quantise` of weights by their own scales, in one operation."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        scale, limit = weight_scale(weight, bits), weight_limit(bits)
        ctx.mark_non_differentiable(scale)
        held = torch.div(weight, scale).round_()
        if bits == 8:  # whose scale is that of the largest weight: nothing clips
            return held.mul_(scale), scale
        steps, held = held, held.clamp(-limit, limit)
        ctx.save_for_backward(steps.eq_(held))
        return held.mul_(scale), scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        inside = ctx.saved_tensors
        return gradients[0] * inside[0] if inside else gradients[0], None


def quantise_weight(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(weight on the grid, scale): (out, in, kh, kw) and (out, 1, 1, 1); see `weight_scale`."""
    return _QuantiseWeights.apply(weight, bits)  # type: ignore[no-any-return, no-untyped-call]


class _FollowAndQuantise(torch.autograd.Function):
    """`fake_quantise` of an activation by the running maximum of its size, brought up to date."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, peak: Tensor, momentum: float, most: float, low: float, high: float
    ) -> Tensor:
        newest = (x.amax() if low == 0.0 else x.abs().amax()).clamp_min_(0.0)
        peak.lerp_(newest, momentum)
        scale = (peak / most).add_(SMALLEST_SCALE)
        steps = torch.div(x, scale).round_()
        held = steps.clamp(low, high)
        ctx.save_for_backward(steps.eq_(held))
        return held.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None, None, None


def follow_and_quantise(
    x: Tensor, peak: Tensor, momentum: float, most: float, low: float, high: float
) -> Tensor:
    """Moves `peak` in place towards the largest size in `x`; quantises by the scale it gives."""
    return _FollowAndQuantise.apply(  # type: ignore[no-any-return, no-untyped-call]
        x, peak, momentum, most, low, high
    )


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
    return scale + SMALLEST_SCALE
