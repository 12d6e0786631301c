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
from nas.training import fused

SMALLEST_SCALE = 1e-8


class _FakeQuantise(torch.autograd.Function):
    """round(x / scale) clamped to [low, high], times scale; the gradient is zero where it clips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
        if fused.takes(x):
            y, inside = fused.quantise(x, scale, low, high)
        else:
            y, inside = _by_operations(x, _each(scale, x), low, high)
        ctx.save_for_backward(inside)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _kept(gradients[0], *ctx.saved_tensors), None, None, None


def _each(scale: Tensor, x: Tensor) -> Tensor:
    """A scale as it is, (members,) of them in the shape that meets x, (members x batch, ...)."""
    if scale.ndim == 0:
        return scale
    rows = scale.view(-1, 1).expand(-1, len(x) // len(scale))
    return rows.reshape(-1, *(1,) * (x.ndim - 1))


def _largest(x: Tensor, peak: Tensor) -> Tensor:
    """Of all `x`, or of each member's, as `peak` has it."""
    if peak.ndim == 0:
        return x.amax()
    return x.reshape(len(peak), -1).amax(1)


def _by_operations(
    x: Tensor, scale: Tensor, low: float | Tensor, high: float | Tensor
) -> tuple[Tensor, Tensor]:
    """(quantised, 1 where nothing was clipped and 0 elsewhere)."""
    steps = torch.div(x, scale).round_()
    held = torch.clamp(steps, low, high)  # type: ignore[arg-type]
    # In place and in floats: half the time of comparisons and a mask of truth values.
    inside = steps.eq_(held)
    return held.mul_(scale), inside


def _kept(gradient: Tensor, inside: Tensor) -> Tensor:
    """The gradient where nothing was clipped."""
    return fused.keep(gradient, inside) if inside.dtype == torch.uint8 else gradient * inside


def fake_quantise(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """Straight-through quantisation of `x` to the integers from low to high times `scale`.

    Args:
        scale: a scalar, or (members,) where the batches of several students lie in `x`.
    """
    return _FakeQuantise.apply(x, scale, low, high)  # type: ignore[no-any-return, no-untyped-call]


class _QuantiseWeights(torch.autograd.Function):
    """`fake_quantise` of weights by their own scales, in one operation."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        limit = weight_limit(bits)
        if fused.takes(weight):
            held, inside, scale = fused.quantise_rows(weight, bits, limit)
        else:
            scale = weight_scale(weight, bits)
            held, inside = _by_operations(weight, scale, -limit, limit)
        ctx.mark_non_differentiable(scale)
        ctx.save_for_backward(inside)
        return held, scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _kept(gradients[0], *ctx.saved_tensors), None


def quantise_weight(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(weight on the grid, scale): (out, in, kh, kw) and (out, 1, 1, 1); see `weight_scale`."""
    return _QuantiseWeights.apply(weight, bits)  # type: ignore[no-any-return, no-untyped-call]


class _QuantiseRows(torch.autograd.Function):
    """`_QuantiseWeights` where every row has a limit of its own."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        scale = weight_scale(weight, 8)
        for bits in (4, 2):
            those = limits == weight_limit(bits)
            scale = torch.where(those, weight_scale(weight, bits), scale)
        held, inside = _by_operations(weight, scale, -limits, limits)
        ctx.mark_non_differentiable(scale)
        ctx.save_for_backward(inside)
        return held, scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _kept(gradients[0], *ctx.saved_tensors), None


def quantise_rows(weight: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """`quantise_weight` by tensor operations, at the bits of (out, 1, 1, 1) `weight_limit`s."""
    return _QuantiseRows.apply(weight, limits)  # type: ignore[no-any-return, no-untyped-call]


class _FollowAndQuantise(torch.autograd.Function):
    """`fake_quantise` of an activation by the running maximum of its size, brought up to date."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, peak: Tensor, momentum: float, most: float, low: float, high: float
    ) -> Tensor:
        if fused.takes(x):
            y, inside = fused.follow_and_quantise(x, peak, momentum, most, low, high)
        else:
            newest = _largest(x if low == 0.0 else x.abs(), peak).clamp_min_(0.0)
            peak.copy_(torch.where(peak == 0, newest, torch.lerp(peak, newest, momentum)))
            scale = _each((peak / most).add_(SMALLEST_SCALE), x)
            y, inside = _by_operations(x, scale, low, high)
        ctx.save_for_backward(inside)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _kept(gradients[0], *ctx.saved_tensors), None, None, None, None, None


def follow_and_quantise(
    x: Tensor, peak: Tensor, momentum: float, most: float, low: float, high: float
) -> Tensor:
    """Moves `peak` in place towards the largest size in `x`; quantises by its scale.

    It is a scalar, or (members,) where the batches of several students lie in `x`.
    A peak of 0 has seen nothing yet and takes the size whole.
    """
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
