"""Weights and constants of a convolution or fully connected layer in the order its C kernels read.

Output channels go in pairs (2p, 2p + 1); an odd last channel is paired with zeros. Inputs go in
pairs too ("k-pairs"), in the order in which the driver gathers a window (`nas/runtime/conv.h`), so
that no input is ever moved to meet its weight. With 8 bits a 32-bit word holds one k-pair of one
channel pair: each 16-bit half is 256 * w1 + w0, as a number; `wide`: w1 and w0 as bytes.

The kernel takes the two sums apart as S1 = (A - B) / 256, which needs |S1| < 2^23: true of any
weights and inputs up to `LARGEST_PACKED` inputs, beyond which the `wide` form is used.
"""

import numpy as np
from numpy.typing import NDArray

from nas.network.numerics import Int8, Int64
from nas.packing.channels import Channels

LARGEST_PACKED = 512  # 512 * 127 * 128 < 2^23
TABLE_BYTES = 20  # of a channel pair
_CHANNEL_1_LEFT, _CHANNEL_0_LEFT = 1 << 31, 1 << 15
PADDED_BYTES = 512  # conv.c


def is_wide(inner: int) -> bool:
    """Whether an inner product of `inner` inputs needs the `wide` kernels at 8 bits."""
    return inner > LARGEST_PACKED


def packed_bytes(inner: int, channels: int) -> int:
    """Bytes of `pack_8`; the table has `table_bytes` more."""
    return 4 * ((channels + 1) // 2) * ((inner + 1) // 2)


def table_bytes(channels: int) -> int:
    """Bytes of `table`."""
    return TABLE_BYTES * ((channels + 1) // 2)


def scratch_bytes(rows: int, row: int, spacing: int, span: int, columns: int, padded: bool) -> int:
    """Working memory of `conv_*`.

    Args:
        rows: kernel height.
        row: inputs of one kernel row: kernel width * in channels.
        spacing: stride width * in channels.
        span: rows that all windows reach over: (out height - 1) * stride height + kernel height.
        columns: output width.
        padded: some window reaches over the map's border.
    """
    lanes = 16 * ((row * rows + 1) // 2)
    if not padded:
        return lanes
    whole = row + (columns - 1) * spacing
    if whole * rows <= PADDED_BYTES:
        edge = whole * min(span, PADDED_BYTES // whole)
    else:
        edge = row + 3 * spacing
    return lanes + (edge + 3) // 4 * 4


def single_scratch_bytes(rows: int, row: int, padded: bool) -> int:
    """Working memory of `fully_connected_*`; arguments as of `scratch_bytes`."""
    return 4 * ((row * rows + 1) // 2) + ((row + 3) // 4 * 4 if padded else 0)


def lane_order(inner: int, rows: int) -> Int64:
    """(k_pairs, 2): which input, in (row, column, channel) order, each lane holds; -1: none.

    Args:
        inner: inputs of a window.
        rows: kernel height, a divisor of `inner`.
    """
    grid = np.arange(inner).reshape(rows, inner // rows)
    whole = inner // rows // 4 * 4
    fours = grid[:, :whole].reshape(-1, 4)
    words = np.stack([fours[:, [0, 2]], fours[:, [1, 3]]], axis=1).reshape(-1, 2)
    rest = np.full((inner - words.size + 1) // 2 * 2, -1)
    rest[: inner - words.size] = grid[:, whole:].ravel()
    return np.concatenate([words, rest.reshape(-1, 2)]).astype(np.int64)


def lanes(values: Int8, rows: int) -> Int64:
    """(channel pairs, 2, k_pairs, 2): weights (channels, inner) as the kernels meet them."""
    channels, inner = values.shape
    even = np.zeros((channels + channels % 2, inner + 1), np.int64)  # the last one: no input, 0
    even[:channels, :inner] = values
    return even[:, lane_order(inner, rows)].reshape(-1, 2, (inner + 1) // 2, 2)


def pack_8(values: Int8, rows: int, wide: bool) -> NDArray[np.uint32]:
    """Weights (channels, inner) of a kernel of `rows` rows as words, pair after pair."""
    held = lanes(values, rows)
    low, high = held[:, 0], held[:, 1]
    halves = (low & 0xFF) + (high & 0xFF) * 256 if wide else low + 256 * high
    halves = halves & 0xFFFF
    return (halves[..., 0] | halves[..., 1] << 16).astype(np.uint32).ravel()


def table(channels: Channels) -> NDArray[np.int32]:
    """Five words a pair: 2 b1, m1, 2 b0, m0 and the shifts.

    Of the shifts, byte 0 is channel 1's and byte 2 channel 0's: R - 1 where it is to the right (R
    >= 1), else -R, with bit 31 or bit 15 set.
    """
    count = len(channels.bias)
    bias, multiplier, shift = np.zeros((3, count + count % 2), np.int64)
    bias[:count], multiplier[:count] = channels.bias, channels.multiplier
    shift[:count] = channels.right_shift
    amount = np.where(shift >= 1, shift - 1, -shift).reshape(-1, 2)
    left = (shift < 1).reshape(-1, 2)
    left[-1, 1] &= count % 2 == 0
    words = np.zeros((len(amount), 5), np.int64)
    words[:, 0:4:2] = 2 * bias.reshape(-1, 2)[:, ::-1]
    words[:, 1:4:2] = multiplier.reshape(-1, 2)[:, ::-1]
    words[:, 4] = amount[:, 1] | amount[:, 0] << 16
    words[:, 4] |= left[:, 1] * _CHANNEL_1_LEFT | left[:, 0] * _CHANNEL_0_LEFT
    return words.astype(np.uint32).view(np.int32).ravel()
