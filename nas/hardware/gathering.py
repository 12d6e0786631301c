"""How often a convolution's driver does what: the loops of `nas/runtime/conv.c`, counted.

The driver takes four output positions at a time where they lie in one row, gathers the windows of a
tile that goes on in the next row one by one, and copies what reaches over the map's border, small
maps whole. What that costs depends on how the sizes fall, so the same steps are taken here.
"""

from collections.abc import Mapping
from functools import cache

from nas.hardware.program import TILE
from nas.network.ops import Pair, Shape
from nas.packing.pack_conv import PADDED_BYTES

UNALIGNED = (0, 2, 1, 2)  # cycles more of a word that lies n bytes past a multiple of 4


@cache
def gathering(
    source: Shape, out: Shape, kernel: Pair, stride: Pair, pad: Pair
) -> Mapping[str, float]:
    """Quantities of one call with four or more output positions.

    Args:
        source: input (height, width, channels).
        out: output (height, width, channels).
        pad: rows above, columns to the left.
    """
    channels = source[2]
    height, width = out[0], out[1]
    row, step = kernel[1] * channels, stride[1] * channels
    bytes_a_row, held_rows = source[1] * channels, source[0]
    padded, span = (width - 1) * step + row, (height - 1) * stride[0] + kernel[0]
    copied = 0
    if kernel == stride == (1, 1) and pad == (0, 0) and source[1] == width:
        bytes_a_row, held_rows, width, height = bytes_a_row * held_rows, 1, width * height, 1
    elif padded * kernel[0] <= PADDED_BYTES and (
        pad != (0, 0) or padded > bytes_a_row or span > held_rows
    ):
        copied = min(span, PADDED_BYTES // padded)
        bytes_a_row, held_rows = padded, copied
    count = dict.fromkeys(("whole", "edge", "one_tile", "one_single", "one_edge", "copied"), 0)
    first = 0 if copied else -pad[1] * channels
    last = bytes_a_row - (row + 3 * step)
    begin, pixel, remaining = -pad[0], 0, height * width
    for y in range(height):
        if copied and (y == 0 or begin + kernel[0] > copied):
            count["copied"] += 1
            begin = 0
        inside = begin >= 0 and begin + kernel[0] <= held_rows
        start, left = first, width
        while left > 0:
            pixels = 1
            if pixel == 0 and left >= TILE:
                pixels = TILE
                if inside and 0 <= start <= last:
                    tiles = min((last - start) // (4 * step) + 1, left // TILE)
                    pixels = TILE * tiles
                    count["whole"] += tiles
                else:
                    count["edge"] += 1
                remaining -= pixels
            else:
                kind = "one_single" if remaining < TILE else "one_tile"
                count[kind] += 1
                over = start < 0 or start + row > bytes_a_row
                outside = _outside_rows(begin, kernel[0], held_rows)
                count["one_edge"] += kernel[0] if over else outside
                if remaining >= TILE:
                    pixel += 1
                    if pixel == TILE:
                        pixel, remaining = 0, remaining - TILE
            start += pixels * step
            left -= pixels
        begin += stride[0]
    return _quantities(count, kernel[0], row, step, bytes_a_row, first, copied * padded)


def _outside_rows(begin: int, kernel: int, rows: int) -> int:
    """Kernel rows of a window from row `begin` that are not in a map of `rows` rows."""
    return max(0, min(kernel, -begin)) + max(0, min(kernel, begin + kernel - rows))


def _quantities(
    count: Mapping[str, int],
    kernel: int,
    row: int,
    step: int,
    bytes_a_row: int,
    first: int,
    copied_bytes: int,
) -> dict[str, float]:
    words, rest, span = row // 4, row % 4, row + 3 * step
    tiles, ones = count["whole"] + count["edge"], count["one_tile"] + count["one_single"]
    places = [(y * bytes_a_row + first + x * step) % 4 for y in range(4) for x in range(4)]
    unaligned = sum(UNALIGNED[place] for place in places) / len(places)
    return {
        "whole": count["whole"],
        "whole_row": count["whole"] * kernel,
        "tile_word": tiles * kernel * words,
        "tile_rest": tiles * kernel * rest,
        "edge": count["edge"],
        "edge_row": count["edge"] * kernel,
        "edge_value": count["edge"] * kernel * span,
        "one": ones,
        "one_row": ones * kernel,
        "one_word": ones * kernel * words,
        "one_rest": ones * kernel * rest,
        "one_edge": count["one_edge"],
        "one_edge_value": count["one_edge"] * row,
        "copied": count["copied"],
        "copied_value": count["copied"] * copied_bytes,
        "unaligned": (TILE * count["whole"] + ones) * kernel * words * unaligned,
    }
