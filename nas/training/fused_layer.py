"""A layer of a student in training as one operation: `layers.c` around a matrix product.

A step of a small student is mostly the bookkeeping of its operations. So the weight's quantiser,
the convolution, batch norm, ReLU and the activation's quantiser are one of them. Maps have their
channels last. The batches of students that are trained as one (`packs`) lie one after the other,
and so do their parameters.
"""

import ctypes
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nas.network.numerics import weight_limit
from nas.training.fused import Window, keep, loops

SMALLEST_GAIN = 1e-12  # of a dead channel: its bias still needs a grid
# (members,) peaks, momentum towards the newest, integer of the peak, lowest and highest integer
Follow: TypeAlias = tuple[Tensor, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Site:
    """What a layer reads and moves beside its parameters.

    Attributes:
        window: None for a pointwise convolution.
        bits: of the weights, a member.
        norm: (mean, variance, momentum, epsilon) of batch norm by the statistics of the batch,
            towards which the first two move; None where gain and bias say all.
        in_scale: (members,) scale of the input: without `norm` the bias lies on its grid.
        follow: the activation's quantiser.
    """

    window: Window | None
    depthwise: bool
    bits: tuple[int, ...]
    norm: tuple[Tensor, Tensor, float, float] | None
    in_scale: Tensor | None
    follow: Follow


class _Layer(torch.autograd.Function):
    """The layer, forward and backward; see `fused_layer`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor, site: Site
    ) -> Tensor:
        held, kept, scales = _quantise_members(weight, site.bits)
        maps = x.permute(0, 2, 3, 1).contiguous()
        y, left, right = _product(maps, held, site)
        spread = None
        if site.in_scale is not None:
            bias = on_grid(bias, gain, scales, site.in_scale)
        else:
            spread = torch.empty_like(gain)
        out, inside = _activate(y, gain, bias, spread, site)
        ctx.site, ctx.maps, ctx.kernel = site, maps.shape, weight.shape
        ctx.save_for_backward(left, right, kept, y, inside, gain, spread)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        left, right, kept, y, inside, gain, spread = ctx.saved_tensors
        site: Site = ctx.site
        members = len(site.bits)
        passed = torch.empty_like(y).copy_(gradients[0].permute(0, 2, 3, 1))
        of_gain, of_bias = torch.empty_like(gain), torch.empty_like(gain)
        loops().adjust_back(
            *(t.data_ptr() for t in (y, inside, passed)),
            *(members, y.numel() // len(gain), len(gain) // members, gain.data_ptr()),
            None if spread is None else spread.data_ptr(),
            *(of_gain.data_ptr(), of_bias.data_ptr()),
        )
        of_weight = _of_right(passed, left, right, site)
        of_x = _of_maps(passed, right, site, ctx.maps) if ctx.needs_input_grad[0] else None
        out, channels, high, wide = ctx.kernel
        if site.depthwise:
            of_weight = of_weight.view(members, high * wide, -1).transpose(1, 2)
        else:
            of_weight = of_weight.view(out, high, wide, channels).permute(0, 3, 1, 2)
        of_weight = keep(of_weight.reshape(ctx.kernel), kept)
        of_x = None if of_x is None else of_x.permute(0, 3, 1, 2)
        return of_x, of_weight, of_gain, of_bias, None


def _quantise_members(weight: Tensor, bits: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """(quantised, 1 where nothing was clipped, scales (members x out,)) of the weights."""
    held, kept = torch.empty_like(weight), torch.empty_like(weight, dtype=torch.uint8)
    scales = weight.new_empty(len(weight))
    rows, columns = len(weight) // len(bits), weight[0].numel()
    at = [t.data_ptr() for t in (weight, scales, held, kept)]
    sizes = [4 * rows * columns, 4 * rows, 4 * rows * columns, rows * columns]  # bytes a member
    for width in bits:
        loops().quantise_rows(*at, rows, columns, width, weight_limit(width))
        at = [place + size for place, size in zip(at, sizes, strict=True)]
    return held, kept, scales


def on_grid(bias: Tensor, gain: Tensor | None, scales: Tensor, in_scale: Tensor) -> Tensor:
    """Biases rounded to what the integers' accumulators can hold.

    Args:
        bias, gain, scales: (members x out,); scales are those of the weights.
        in_scale: of the input, one or a member's.
    """
    sizes = scales if gain is None else scales * gain.abs().clamp_min(SMALLEST_GAIN)
    grid = sizes.view(in_scale.numel(), -1) * in_scale.view(-1, 1)
    return torch.round(bias.view_as(grid) / grid).mul_(grid).view(-1)


def _activate(
    y: Tensor, gain: Tensor, bias: Tensor, spread: Tensor | None, site: Site
) -> tuple[Tensor, Tensor]:
    """(activation, 1 where nothing was clipped) of products; `normalise` of layers.c."""
    members = len(site.bits)
    out, inside = torch.empty_like(y), torch.empty_like(y, dtype=torch.uint8)
    places = y.data_ptr(), out.data_ptr(), inside.data_ptr()
    sizes = members, y.numel() // len(gain), len(gain) // members
    follow = site.follow[0].data_ptr(), *site.follow[1:]
    if site.norm is None:
        loops().adjust(*places, *sizes, gain.data_ptr(), bias.data_ptr(), *follow)
    else:
        mean, variance, momentum, epsilon = site.norm
        assert spread is not None
        moved = (t.data_ptr() for t in (gain, bias, mean, variance, spread))
        loops().normalise(*places, *sizes, *moved, momentum, epsilon, *follow)
    return out, inside


def _product(x: Tensor, weight: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
    """(maps, rows, columns, out) and its factors, of (maps, height, width, channels)."""
    members, window = len(site.bits), site.window
    filters = len(weight) // members
    if window is None:
        left, right = x.view(members, -1, x.shape[3]), weight.view(members, filters, -1)
        y = torch.bmm(left, right.transpose(1, 2))
        return y.view(*x.shape[:3], filters), left, right
    shape = len(x), window.rows, window.columns, filters
    window.maps = len(x) // members
    if site.depthwise:
        right = weight.view(members, filters, -1).transpose(1, 2).contiguous()
        y = x.new_empty(shape)
        places = (t.data_ptr() for t in (x, right, y))
        loops().depthwise(ctypes.byref(window), members, *places)
        return y, x, right
    right = weight.permute(0, 2, 3, 1).reshape(members, filters, -1)
    left = x.new_empty(members, window.maps * window.rows * window.columns, right.shape[2])
    loops().gather(ctypes.byref(window), members, x.data_ptr(), left.data_ptr())
    return torch.bmm(left, right.transpose(1, 2)).view(shape), left, right


def _of_right(passed: Tensor, left: Tensor, right: Tensor, site: Site) -> Tensor:
    """Gradient of `_product`'s right factor."""
    if not site.depthwise:
        passed = passed.view(len(left), -1, passed.shape[3])
        return torch.bmm(passed.transpose(1, 2), left)
    members, window = len(site.bits), site.window
    assert window is not None
    window.maps = len(left) // members
    of_right = torch.empty_like(right)
    places = (t.data_ptr() for t in (left, passed, of_right))
    loops().depthwise_back(ctypes.byref(window), members, *places)
    return of_right


def _of_maps(passed: Tensor, right: Tensor, site: Site, maps: torch.Size) -> Tensor:
    """Gradient of `_product`'s maps."""
    members, window = len(site.bits), site.window
    rows = passed.view(members, -1, passed.shape[3])
    if window is None:
        return torch.bmm(rows, right).view(maps)
    window.maps = maps[0] // members
    of_x, at = passed.new_empty(maps), ctypes.byref(window)
    if site.depthwise:
        places = (t.data_ptr() for t in (right, passed, of_x))
        loops().depthwise_spread(at, members, *places)
    else:
        of_left = torch.bmm(rows, right)
        loops().scatter(at, members, of_left.data_ptr(), of_x.data_ptr())
    return of_x


def fused_layer(x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor, site: Site) -> Tensor:
    """The quantised activation of a convolution.

    Args:
        x: (members x batch, channels, height, width) float32.
        weight: (members x out, in, kh, kw), without gaps.
        gain, bias: (members x out,).
    """
    return _Layer.apply(x, weight, gain, bias, site)  # type: ignore[no-any-return, no-untyped-call]
