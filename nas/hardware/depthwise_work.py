"""How often a depthwise convolution does what: the loops of `depthwise_planes.c`, counted.

Four channels at a time are split into rows of 16-bit pairs, strip by strip; then each channel's
plane is computed, tile by tile.
"""

from collections.abc import Mapping

from nas.network.ops import Pair, Shape
from nas.packing.pack_depthwise import STRIP_BYTES

GROUP = 4  # channels that are split together


def depthwise_quantities(
    kind: str, source: Shape, out: Shape, kernel: Pair, stride: Pair, pad: Pair
) -> Mapping[str, float]:
    """Quantities of one call.

    Args:
        kind: of the plane: `3x3`, `shaped` or `any`.
        pad: rows above, columns to the left.
    """
    channels, (height, width) = out[2], (out[0], out[1])
    groups = -(-channels // GROUP)
    row_words = 4 * (((width + 3) // 4 * 4 - 1) * stride[1] // 2 + kernel[1] // 2 + 1)
    strips, most = _strips(height, kernel[0], stride[0], 4 * row_words)
    shared = max(0, kernel[0] - stride[0])
    split_rows = min(source[0], (height - 1) * stride[0] + kernel[0])
    columns = min(source[1], (width - 1) * stride[1] + kernel[1])
    padding_rows = max(0, (height - 1) * stride[0] + kernel[0] - source[0])
    few = channels < GROUP
    steps = kernel[1] // 2 + 1 if stride[1] == 1 else (kernel[1] + 1) // 2
    if kind == "3x3":
        rows, tiles, products, odd = (height + 1) // 2, width // 2, 1, width % 2
    elif kind == "shaped":
        rows, tiles, products = height, (width + 3) // 4, kernel[0] * steps
        odd = tiles % 2 if products <= 4 else 0  # of two tiles that the loop does at once
    else:
        rows, tiles, products, odd = height, width, kernel[0] * (kernel[1] // 2 + 1), 0
    one_strip = strips == 1
    return {
        "group": groups,
        "channel": channels,
        "tap": channels * kernel[0] * kernel[1],
        "tap_row": channels * kernel[0],
        "split_row": 0 if few else groups * split_rows,
        "split_four": 0 if few else groups * split_rows * (columns // 4),
        "split_odd": 0 if few else groups * split_rows * (columns % 4),
        "few_row": split_rows if few else 0,
        "few_value": split_rows * columns * channels if few else 0,
        "unaligned": 0 if few or channels % 4 == 0 else groups * split_rows * columns,
        "prepared_row": (most - 1) * stride[0] + kernel[0],
        "prepared_word": row_words * (padding_rows if one_strip else 0),
        "strip": 0 if one_strip else groups * strips,
        "strip_plane": 0 if one_strip else channels * strips,
        "moved_word": groups * (strips - 1) * shared * row_words,
        "padding_word": 0 if one_strip else groups * padding_rows * row_words,
        "plane_row": channels * rows,
        "plane_tile": channels * rows * tiles,
        "plane_product": channels * rows * tiles * products if products > 1 else 0,
        "plane_kernel_row": channels * rows * tiles * kernel[0] if products > 1 else 0,
        "plane_odd": channels * rows * odd,
        "plane_cut": channels * rows * (width % 4 > 0) if kind == "shaped" else 0,
        "plane_twice": channels * rows * tiles * (kind == "shaped" and products <= 4),
    }


def _strips(height: int, kernel: int, stride: int, row_bytes: int) -> tuple[int, int]:
    """(strips, output rows of the largest): `strip_rows` and `convolve_strips`."""
    fit = STRIP_BYTES // row_bytes
    rows = (fit - kernel) // stride + 1 if fit > kernel else 0
    most = min(height, 3 if rows < 3 else (rows - 1) | 1)
    count, left = 0, height
    while left > 0:
        left -= left if left <= most else most - 1
        count += 1
    return count, most
