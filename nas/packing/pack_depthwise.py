"""Depthwise convolutions for the C kernels: packed weights, constants, scratch memory, planes.

Weights are packed without padding: channel by channel, the taps of a channel row by row, the first
in the lowest bits. The table of constants has, for each channel, twice its bias and its multiplier,
and after all of those a byte for each channel: its shift to the right.

A plane is the assembly that computes one channel's rows. Its strides are immediate, so each shape
has its own instance: a few lines that define the sizes and include the code. Layers of equal shape
share it. A shape without one is computed by `depthwise_8`, `_4` or `_2`, more slowly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.network.numerics import pack, packed_bytes
from nas.packing.channels import Channels

STRIP_BYTES = 4096  # of split rows, unless three output rows need more
IMMEDIATE = 4095  # largest offset of a load or a store
LOOP_BYTES = 800  # of unrolled multiplications: with what follows them they fit 1 KB of cache


@dataclass(frozen=True, slots=True)
class Shape:
    """What a plane depends on: (height, width) of kernel, stride and maps; the padding before."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    channels: int


@dataclass(frozen=True, slots=True)
class Plane:
    """An instance.

    Attributes:
        name: what NAS() makes a symbol of.
        text: the assembly file.
        code_bytes: Flash bytes, on a core with FPU and on one without.
    """

    name: str
    text: str
    code_bytes: tuple[int, int]


def weight_bytes(channels: int, taps: int, bits: int) -> int:
    """Flash bytes of the packed weights."""
    return packed_bytes(channels * taps, bits)


def table_bytes(channels: int) -> int:
    """Flash bytes of the constants."""
    return 8 * channels + (channels + 3) // 4 * 4


def scratch_bytes(
    kernel: tuple[int, int], stride: tuple[int, int], out_height: int, out_width: int
) -> int:
    """Working memory of one call: see depthwise_planes.c."""
    blocks = 4 * (16 + 8 * kernel[0] * (kernel[1] // 2 + 1))
    row = _row_bytes(kernel[1], stride[1], out_width)
    fit = STRIP_BYTES // row
    rows = (fit - kernel[0]) // stride[0] + 1 if fit > kernel[0] else 0
    strip = min(out_height, max(3, (rows - 1) | 1))
    return blocks + row * ((strip - 1) * stride[0] + kernel[0])


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


def plane(shape: Shape) -> Plane | None:
    """The fastest plane for `shape`; None where strides do not fit an instruction."""
    return _plane_3x3(shape) or _plane_any(shape)


def _row_bytes(kernel_width: int, stride: int, out_width: int) -> int:
    """One split row of scratch, as nas_row_pairs has it."""
    last = (out_width + 3) // 4 * 4 - 1
    return 16 * (last * stride // 2 + kernel_width // 2 + 1)


def _plane_3x3(shape: Shape) -> Plane | None:
    height, width = shape.inputs
    if (shape.kernel, shape.stride, shape.padding) != ((3, 3), (1, 1), (1, 1)):
        return None
    if shape.outputs != shape.inputs or min(height, width) < 2:
        return None
    if (width + 3) * shape.channels > IMMEDIATE or width > 164:
        return None
    name = f"depthwise_3x3_{width}_{shape.channels}"
    sizes = {"WIDTH": width, "CHANNELS": shape.channels}
    code = 784 + 160 * (width % 2) + 12 * (width // 2 % 2)
    return Plane(name, _instance("depthwise_3x3.inc", name, sizes), (code, code + 8))


def _plane_any(shape: Shape) -> Plane | None:
    (height, width), (down, across) = shape.kernel, shape.stride
    out_width = shape.outputs[1]
    if across == 1:
        steps, per_row, shortest, longest = width // 2 + 1, 4, 320, 444
        read = 16 * steps
    elif across == 2:
        steps, per_row, shortest, longest = (width + 1) // 2, 12, 324, 460
        read = 16 * (steps + 2)
    else:
        return None
    tiles = 2 if height * steps <= 4 else 1  # in the loop
    code = tiles * height * ((28 if across == 1 else 24) * steps + per_row)
    read += (height - 1) * _row_bytes(width, across, out_width) + (tiles - 1) * 32 * across
    taps = 16 + 8 * height * (width // 2 + 1)
    if max(read, taps, 4 * tiles * shape.channels) > IMMEDIATE or code > LOOP_BYTES:
        return None
    code += shortest if tiles == 1 else longest + 12 * ((out_width + 3) // 4 % 2)
    name = f"depthwise_{height}x{width}_{down}x{across}_{out_width}_{shape.channels}"
    sizes = {
        "KERNEL_HEIGHT": height,
        "KERNEL_WIDTH": width,
        "STRIDE_HEIGHT": down,
        "STRIDE_WIDTH": across,
        "WIDTH": out_width,
        "CHANNELS": shape.channels,
    }
    text = _instance("depthwise_shaped.inc", name, sizes)
    return Plane(name, text, (code, code + (4 if across == 1 else 0)))


def _instance(source: str, name: str, sizes: dict[str, int]) -> str:
    lines = [f"#define PLANE NAS({name})", *(f"#define {key} {n}" for key, n in sizes.items())]
    return "\n".join([*lines, f'#include "{source}"', ""])
