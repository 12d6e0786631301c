"""Weights of 4 and 2 bits of a convolution or fully connected layer in the order its kernels read.

Inputs go in pairs ("k-pairs") as `pack_conv.lane_order` has them, output channels in groups of
four, the last one filled up with channels that nobody reads. The table is `pack_conv.table`.

4 bits: a word holds one k-pair of a group, each 16-bit half the number 4096 * w3 + 256 * w2 + 16 *
w1 + w0. 2 bits: a word holds two k-pairs of a group, which the kernel singles out by rotating it
and masking bits 0, 1, 14 and 15 of each half: w + 1 of an even channel at bit 0 and w of an odd
one at bit 14. An odd number of k-pairs leaves the first half of a group's first word empty, for the
kernel enters its unrolled loop in the middle.
"""

import numpy as np
from numpy.typing import NDArray

from nas.network.numerics import Int8, Int64
from nas.packing.pack_conv import lane_order

GROUP = 4  # channels
LARGEST_4 = 512  # inputs; (4096 + 256 + 16) * 7 * 128 * 512 < 2^31
LARGEST_2 = 1020  # inputs; 128 * 1020 < 2^17


def is_wide_4(inner: int) -> bool:
    """Whether an inner product of `inner` inputs needs the `wide` kernels at 4 bits."""
    return inner > LARGEST_4


def is_wide_2(inner: int) -> bool:
    """Whether an inner product of `inner` inputs needs the `wide` kernels at 2 bits."""
    return inner > LARGEST_2


def packed_bytes_4(inner: int, channels: int) -> int:
    """Bytes of `pack_4`."""
    return 4 * ((channels + 3) // 4) * ((inner + 1) // 2)


def packed_bytes_2(inner: int, channels: int) -> int:
    """Bytes of `pack_2`."""
    return 4 * ((channels + 3) // 4) * ((inner + 3) // 4)


def _groups(values: Int8, rows: int) -> Int64:
    """(groups, 4, k_pairs, 2): weights (channels, inner) as the kernels meet them."""
    channels, inner = values.shape
    count = -(-channels // GROUP)
    filled = np.zeros((count * GROUP, inner + 1), np.int64)  # the last one: no input, 0
    filled[:channels, :inner] = values
    return filled[:, lane_order(inner, rows)].reshape(count, GROUP, (inner + 1) // 2, 2)


def pack_4(values: Int8, rows: int) -> NDArray[np.uint32]:
    """Weights (channels, inner) from -7 to 7, of a kernel of `rows` rows, group after group."""
    scale = 16 ** np.arange(GROUP).reshape(1, GROUP, 1, 1)
    halves: Int64 = (_groups(values, rows) * scale).sum(axis=1) & 0xFFFF
    return (halves[..., 0] | halves[..., 1] << 16).astype(np.uint32).ravel()


def pack_2(values: Int8, rows: int) -> NDArray[np.uint32]:
    """Weights (channels, inner) from -1 to 1, of a kernel of `rows` rows, group after group."""
    held = _groups(values, rows)
    pairs = held.shape[2]
    low, high = held[:, 0::2] + 1, held[:, 1::2] & 3
    halves = low | high << 14  # (groups, channel pairs, k_pairs, 2)
    masked = halves[..., 0] | halves[..., 1] << 16
    if pairs % 2:
        masked = np.concatenate([np.zeros_like(masked[:, :, :1]), masked], axis=2)
    words: Int64 = np.zeros((len(held), masked.shape[2] // 2), np.int64)
    for k_pair in range(2):
        for channel_pair in range(2):
            single, turn = masked[:, channel_pair, k_pair::2], 8 * k_pair + 4 * channel_pair
            words |= single << turn | single >> (32 - turn)
    return (words & 0xFFFFFFFF).astype(np.uint32).ravel()
