"""Two ways to make 2 bits easier: a learned scale, and bits that come down during the training."""

import torch
from torch import Tensor


def learned_quantise(weight: Tensor, scale: Tensor, limit: float) -> Tensor:
    """Quantisation whose scale is learned, too (Esser et al. 2020, Learned Step Size Quantization).

    The gradient of the scale is that of the paper, but for its constant factor, which the optimiser
    divides out.

    Args:
        weight: (out, in, kh, kw).
        scale: (out, 1, 1, 1), above 0.
        limit: the largest integer.
    """
    held = (weight / scale).clamp(-limit, limit)
    return (held + (torch.round(held) - held).detach()) * scale


def least_bits(progress: float, gradual_share: float) -> int:
    """Bits below which no weight is quantised yet: 8, then 4, then 2 after `gradual_share`."""
    if progress >= gradual_share:
        return 2
    return 8 if progress < gradual_share / 2 else 4
