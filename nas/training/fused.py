"""`quantisers.c` on tensors: fake quantisation in one pass, where a C compiler is at hand.

The results are those of the tensor operations in `fake_quantise` but for the last bit of a scale.
Without a compiler these take over, and a training takes about a sixth longer.
"""

import ctypes
import functools

import torch
from torch import Tensor

from nas.deploy.host_library import host_library
from nas.deploy.toolchain import cache_folder
from nas.errors import NasError

OPTIONS = ("-O3", "-march=native", "-ffp-contract=off")
POINTER, COUNT, REAL = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float
ARGUMENTS = {
    "quantise": (POINTER, POINTER, POINTER, COUNT, REAL, REAL, REAL),
    "follow_and_quantise": (POINTER, POINTER, POINTER, COUNT, POINTER, REAL, REAL, REAL, REAL),
    "quantise_rows": (POINTER, POINTER, POINTER, POINTER, COUNT, COUNT, ctypes.c_int, REAL),
    "keep": (POINTER, POINTER, POINTER, COUNT),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled loops; None where this machine has no compiler that makes them."""
    try:
        file = host_library("nas.training", "quantisers.c", cache_folder(), OPTIONS)
        loaded = ctypes.CDLL(str(file))
    except (NasError, OSError):
        return None
    for name, arguments in ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def loops(*tensors: Tensor) -> ctypes.CDLL | None:
    """The compiled loops, if they take these tensors."""
    fitting = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    return library() if fitting else None


def dense(x: Tensor) -> Tensor:
    """`x`, or a copy of it without gaps, in the order of its axes or channels last."""
    if x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def like(x: Tensor, other: Tensor) -> Tensor:
    """`x`, or a copy of it, in the order of `other`."""
    return x if x.stride() == other.stride() else torch.empty_like(other, dtype=x.dtype).copy_(x)
