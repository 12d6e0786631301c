"""`layers.c` on tensors: the loops of layers in training, where a C compiler is at hand.

The results are those of the tensor operations in `fake_quantise` and `linear_layer` but for the
order of sums. Without a compiler these take over, and a training takes up to two thirds longer.
"""

import ctypes
import functools

import torch
from torch import Tensor

from nas.deploy.host_library import host_library
from nas.deploy.toolchain import cache_folder
from nas.errors import NasError

OPTIONS = ("-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno")
POINTER, COUNT, REAL = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float
FOLLOWED = (POINTER, REAL, REAL, REAL, REAL)  # peaks, momentum, most, low, high
ARGUMENTS = {
    "quantise": (POINTER, POINTER, POINTER, COUNT, COUNT, POINTER, REAL, REAL),
    "follow_and_quantise": (POINTER, POINTER, POINTER, COUNT, COUNT, *FOLLOWED),
    "quantise_rows": (POINTER, POINTER, POINTER, POINTER, COUNT, COUNT, ctypes.c_int, REAL),
    "keep": (POINTER, POINTER, POINTER, COUNT),
    "gather": (POINTER, COUNT, POINTER, POINTER),
    "scatter": (POINTER, COUNT, POINTER, POINTER),
    "depthwise": (POINTER, COUNT, POINTER, POINTER, POINTER),
    "depthwise_back": (POINTER, COUNT, POINTER, POINTER, POINTER),
    "depthwise_spread": (POINTER, COUNT, POINTER, POINTER, POINTER),
    "adjust": (*(POINTER,) * 3, *(COUNT,) * 3, POINTER, POINTER, *FOLLOWED),
    "normalise": (*(POINTER,) * 3, *(COUNT,) * 3, *(POINTER,) * 5, REAL, REAL, *FOLLOWED),
    "adjust_back": (*(POINTER,) * 3, *(COUNT,) * 3, *(POINTER,) * 4),
}


class Window(ctypes.Structure):
    """How the windows of a convolution lie on maps with their channels last: `window_t`."""

    _fields_ = [
        *((name, COUNT) for name in ("maps", "height", "width", "channels", "rows", "columns")),
        *((name, COUNT) for name in ("kernel_height", "kernel_width")),
        *((name, COUNT) for name in ("stride_height", "stride_width")),
        *((name, ctypes.c_ssize_t) for name in ("top", "left")),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled loops; None where this machine has no compiler that makes them."""
    try:
        file = host_library("nas.training", "layers.c", cache_folder(), OPTIONS)
        loaded = ctypes.CDLL(str(file))
    except (NasError, OSError):
        return None
    for name, arguments in ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def takes(x: Tensor) -> bool:
    """Whether there are compiled loops, and for such a tensor."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and library() is not None


def loops() -> ctypes.CDLL:
    """The compiled loops, where there are any."""
    found = library()
    assert found is not None, "ask `takes` first"
    return found


def quantise(x: Tensor, scale: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """(quantised, 1 where nothing was clipped and 0 elsewhere); `scale` is one, or a member's."""
    x, y, inside = _dense(x)
    places = x.data_ptr(), y.data_ptr(), inside.data_ptr()
    members = scale.numel()
    loops().quantise(*places, members, x.numel() // members, scale.data_ptr(), low, high)
    return y, inside


def follow_and_quantise(
    x: Tensor, peak: Tensor, momentum: float, most: float, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """The same by the scale of `peak`, which is moved in place towards the largest size."""
    x, y, inside = _dense(x)
    places = x.data_ptr(), y.data_ptr(), inside.data_ptr()
    members = peak.numel()
    follow = peak.data_ptr(), momentum, most
    loops().follow_and_quantise(*places, members, x.numel() // members, *follow, low, high)
    return y, inside


def quantise_rows(weight: Tensor, bits: int, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """(quantised, inside, scales (out, 1, 1, 1)) of a weight (out, in, kh, kw)."""
    weight, rows = weight.contiguous(), len(weight)
    scales = weight.new_empty(rows, 1, 1, 1)
    y, inside = torch.empty_like(weight), torch.empty_like(weight, dtype=torch.uint8)
    places = (tensor.data_ptr() for tensor in (weight, scales, y, inside))
    loops().quantise_rows(*places, rows, weight.numel() // rows, bits, limit)
    return y, inside, scales


def keep(gradient: Tensor, inside: Tensor) -> Tensor:
    """The gradient where nothing was clipped, in the order of `inside`."""
    if gradient.stride() != inside.stride():
        gradient = torch.empty_like(inside, dtype=gradient.dtype).copy_(gradient)
    kept = torch.empty_like(gradient)
    loops().keep(gradient.data_ptr(), inside.data_ptr(), kept.data_ptr(), kept.numel())
    return kept


def _dense(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`x` without gaps, in the order of its axes or channels last, and room for what is made."""
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if not last:
        x = x.contiguous()
    return x, torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8)
