"""A convolution's weights at each bit-width: how many bytes, which form, which words."""

import numpy as np
from numpy.typing import NDArray

from nas.errors import UnsupportedOp
from nas.network.numerics import Int8
from nas.packing import pack_conv, pack_low_bits

IS_WIDE = {8: pack_conv.is_wide, 4: pack_low_bits.is_wide_4, 2: pack_low_bits.is_wide_2}
PACKED_BYTES = {
    8: pack_conv.packed_bytes,
    4: pack_low_bits.packed_bytes_4,
    2: pack_low_bits.packed_bytes_2,
}


def is_wide(inner: int, bits: int) -> bool:
    """Whether `inner` inputs a window need the kernels without a limit on their sums."""
    return IS_WIDE[bits](inner)


def packed_bytes(inner: int, channels: int, bits: int) -> int:
    """Bytes of `pack`, from sizes alone."""
    return PACKED_BYTES[bits](inner, channels)


def pack(values: Int8, rows: int, bits: int) -> NDArray[np.uint32]:
    """Weights (channels, inner) of a kernel of `rows` rows as the words that its kernel reads.

    Raises:
        UnsupportedOp: a bit-width that no kernel reads.
    """
    if bits == 8:
        return pack_conv.pack_8(values, rows, is_wide(values.shape[1], bits))
    if bits == 4:
        return pack_low_bits.pack_4(values, rows)
    if bits == 2:
        return pack_low_bits.pack_2(values, rows)
    raise UnsupportedOp(f"weights of {bits} bits: no kernel reads them, only 8, 4 and 2")
