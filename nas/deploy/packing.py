"""A convolution's weights at each bit-width: how many bytes, which form, which words."""

import numpy as np
from numpy.typing import NDArray

from nas.deploy import pack_conv
from nas.network.numerics import Int8


def is_wide(inner: int, bits: int) -> bool:
    """Whether `inner` inputs a window need the kernels without a limit on their sums."""
    return pack_conv.is_wide(inner)


def packed_bytes(inner: int, channels: int, bits: int) -> int:
    """Bytes of `pack`, from sizes alone."""
    return pack_conv.packed_bytes(inner, channels)


def pack(values: Int8, rows: int, bits: int) -> NDArray[np.uint32]:
    """Weights (channels, inner) of a kernel of `rows` rows as the words that its kernel reads."""
    return pack_conv.pack_8(values, rows, is_wide(values.shape[1], bits))
