"""Depthwise convolutions for the C kernels: packed weights, constants, scratch memory.

Weights are packed without padding: channel by channel, the taps of a channel row by row, the first in
the lowest bits. The table of constants has, for each channel, twice its bias and its multiplier, and
after all of those a byte for each channel: its shift to the right.
"""

import numpy as np
from numpy.typing import NDArray

from nas.deploy.channels import Channels
from nas.network.numerics import pack, packed_bytes


def weight_bytes(channels: int, taps: int, bits: int) -> int:
    """Flash bytes of the packed weights."""
    return packed_bytes(channels * taps, bits)


def table_bytes(channels: int) -> int:
    """Flash bytes of the constants."""
    return 8 * channels + (channels + 3) // 4 * 4


def pack_weights(channels: Channels, bits: int) -> NDArray[np.uint8]:
    """The weights, `weight_bytes` of them."""
    return pack(channels.values, bits)


def pack_table(channels: Channels) -> NDArray[np.int32]:
    """The constants, `table_bytes` of them."""
    count = len(channels.bias)
    pairs = np.stack([2 * channels.bias, channels.multiplier], axis=1).astype("<i4")
    shifts = np.zeros((count + 3) // 4 * 4, np.int8)
    shifts[:count] = channels.right_shift
    return np.concatenate([pairs.ravel(), shifts.view("<i4")]).astype(np.int32)
