"""What each kernel call of a program has to do, in the quantities that its time is made of.

A call's cycles, and its misses in the Flash's caches, are sums of these quantities times the
kernel's coefficients (`kernel_costs.toml`, made by `nas calibrate`). The quantities count how often
each of a kernel's loops runs, so the sums hold for sizes that no calibration has seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nas.hardware.depthwise_work import depthwise_quantities
from nas.hardware.gathering import gathering
from nas.hardware.program import SCAN_BLOCK, TILE, Program
from nas.network.ops import (
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    History,
    LastStep,
    Mul,
    Op,
    Pad,
    Pair,
    Pool,
    Positions,
    Reshape,
    Running,
    SelectiveScan,
    Shape,
    Table,
    size,
    window_padding,
)
from nas.network.ranges import is_clipped
from nas.network.reference import row_of

Quantities: TypeAlias = Mapping[str, float]

DATA_CACHE_BYTES = 256  # weights beyond it are read from Flash again for every tile
UNROLLED, BLOCK_2 = 8, 16  # k-pairs that a product's loop body does; at 2 bits
# Cycles that a word costs more, on average, when words lie n bytes modulo 4 apart.
UNALIGNED = (0.0, 1.25, 0.5, 1.25)


@dataclass(frozen=True, slots=True)
class Work:
    """One call of a kernel.

    Attributes:
        function: the kernel, without prefix.
        quantities: how often its parts run; each call also costs a constant.
        flash_parts: 8-byte parts of weights and tables that it reads from Flash, those that its
            cache holds from before not counted.
    """

    function: str
    quantities: Quantities
    flash_parts: float = 0.0


def work_of(op: Op, program: Program) -> list[Work]:
    """The calls of `op`, in the order in which the generated source makes them."""
    return row_of(ROWS, op, "the table of work")(op, program)


def _conv(op: Conv2d, program: Program) -> list[Work]:
    graph, kernel = program.graph, program.kernels[op.name]
    source, out = graph.shapes[op.inputs[0]], graph.shapes[op.name]
    pixels, channels = out[0] * out[1], out[2]
    k_pairs = (size(op.kernel) * source[2] + 1) // 2
    padding = window_padding(op, source)
    pad = (padding[0][0], padding[1][0])
    if pixels >= TILE:
        tiles, alone = divmod(pixels, TILE)
        gathered = gathering(source, out, op.kernel, op.stride, pad)
    else:
        tiles, alone = 0, pixels
        gathered = _single_windows(op, source, out, pad)
    quantities = {**gathered, **_products("tile", tiles, channels, k_pairs, op.weight_bits)}
    quantities |= _products("single", alone, channels, k_pairs, op.weight_bits)
    parts, flash_bytes = kernel.weight_bytes / 8, kernel.weight_bytes
    # What the data cache holds is read from Flash once, all else for every tile.
    sweeps = tiles + alone if flash_bytes > DATA_CACHE_BYTES else 1
    if op.name in program.workspace.staged_bytes:
        quantities |= {"staged": 1, "staged_word": flash_bytes / 4}
        sweeps = 1
    return [Work(kernel.name, quantities, parts * sweeps), *_clip(op, program)]


def _products(kind: str, times: int, channels: int, k_pairs: int, bits: int) -> dict[str, float]:
    """Loops of the product of one tile, or one position, with all channels."""
    pairs, fours = (channels + 1) // 2, (channels + 3) // 4
    groups = pairs if bits == 8 and kind == "tile" else fours
    blocks = -(-k_pairs // BLOCK_2) if bits == 2 and k_pairs > BLOCK_2 else 0
    return {
        kind: times,
        f"{kind}_pair": times * pairs,
        f"{kind}_group": times * groups,
        f"{kind}_product": times * groups * k_pairs,
        f"{kind}_round": times * groups * -(-k_pairs // UNROLLED),
        f"{kind}_block": times * groups * blocks,
        f"{kind}_blocks": times * groups if blocks else 0,
        f"{kind}_sum": times * k_pairs if bits == 2 else 0,
        f"{kind}_rest_{channels % 4}": times if channels % 4 else 0,
    }


def _single_windows(op: Conv2d, source: Shape, out: Shape, pad: Pair) -> dict[str, float]:
    """What `convolve_single` gathers."""
    pixels, rows = out[0] * out[1], op.kernel[0]
    row = op.kernel[1] * source[2]
    outside = 0
    for y in range(out[0]):
        top = y * op.stride[0] - pad[0]
        above, below = max(0, -top), max(0, top + rows - source[0])
        for x in range(out[1]):
            left = x * op.stride[1] - pad[1]
            over = left < 0 or left + op.kernel[1] > source[1]
            outside += rows if over else above + below
    return {
        "one": pixels,
        "one_row": pixels * rows,
        "one_word": pixels * rows * (row // 4),
        "one_rest": pixels * rows * (row % 4),
        "one_edge": outside,
        "one_edge_value": outside * row,
    }


def _clip(op: Conv2d | DepthwiseConv2d, program: Program) -> list[Work]:
    if not is_clipped(op, program.graph):
        return []
    return [Work("clip", {"value": size(program.graph.shapes[op.name])})]


def _values(function: str) -> Callable[[Any, Program], list[Work]]:
    """A kernel whose time goes with the number of its outputs."""

    def work(op: Op, program: Program) -> list[Work]:
        return [Work(function, {"value": size(program.graph.shapes[op.name])})]

    return work


def _pool(op: Pool, program: Program) -> list[Work]:
    height, width, channels = program.graph.shapes[op.name]
    fours, rest = divmod(channels, 4)
    windows, rows = height * width, op.kernel[0]
    taps = size(op.kernel)
    quantities = {
        "window": windows,
        "output_four": windows * fours,
        "row_four": windows * fours * rows,
        "tap_four": windows * fours * taps,
        "output_rest": windows * rest,
        "row_rest": windows * rest * rows,
        "tap_rest": windows * rest * taps,
        "unaligned": windows * fours * taps * UNALIGNED[channels % 4],
    }
    return [Work(program.kernels[op.name].name, quantities)]


def _copied(row_bytes: int, rows: int, contiguous: bool, stride: int) -> Work:
    if contiguous:
        row_bytes, rows, stride = row_bytes * rows, 1, 0
    words = row_bytes // 4
    quantities = {
        "row": rows,
        "sixteen": rows * (row_bytes // 16),
        "four": rows * (row_bytes % 16 // 4),
        "rest": rows * (row_bytes % 4),
        "unaligned": rows * words * (UNALIGNED[row_bytes % 4] + UNALIGNED[stride % 4]),
    }
    return Work("copy_rows", quantities)


def _concat(op: Concat, program: Program) -> list[Work]:
    shapes = program.graph.shapes
    height, width, channels = shapes[op.name]
    parts = [shapes[name][2] for name in op.inputs]
    return [_copied(part, height * width, part == channels, channels) for part in parts]


def _pad(op: Pad, program: Program) -> list[Work]:
    shape, out = program.graph.shapes[op.inputs[0]], program.graph.shapes[op.name]
    row, out_row = shape[1] * shape[2], out[1] * out[2]
    return [Work("fill", {"value": size(out)}), _copied(row, shape[0], row == out_row, out_row)]


def _reshape(op: Reshape, program: Program) -> list[Work]:
    offsets = program.plan.offsets
    if offsets[op.name] == offsets[op.inputs[0]]:
        return []
    return [_copied(size(op.shape), 1, True, 0)]


def _depthwise(op: DepthwiseConv2d, program: Program) -> list[Work]:
    kernel = program.kernels[op.name]
    source, out = program.graph.shapes[op.inputs[0]], program.graph.shapes[op.name]
    padding = window_padding(op, source)
    kind = kernel.name.split("_")[1] if kernel.plane else "any"
    pad = (padding[0][0], padding[1][0])
    quantities = depthwise_quantities(kind, source, out, op.kernel, op.stride, pad)
    work = Work(kernel.name, quantities, kernel.weight_bytes / 8)
    return [work, *_clip(op, program)]


def _attention(op: Attention, program: Program) -> list[Work]:
    """The table of exponentials, 1 KB, is read twice a score, here and there."""
    (_, queries, width), shape = program.graph.shapes[op.name], program.graph.shapes[op.inputs[1]]
    steps, each, rows = shape[1], width // op.heads, queries * op.heads
    words, fours, tail = -(-each // 4), -(-steps // 4), int(steps % 4 > 0)
    if steps < 4 or 4 * words > width:  # the kernel's path for what is too small for words
        plain = {
            "plain_row": rows,
            "plain_step": rows * steps,
            "plain_product": rows * steps * each,
            "plain_output": rows * each,
        }
        return [Work("attention", plain, 2 * rows * steps)]
    is_aligned = width % 4 == each % 4 == 0
    quantities = {
        "query": queries,
        "row": rows,
        "row_word": rows * words,
        "tail": rows * tail,
        "tail_word": rows * tail * words,
        "four": rows * fours,
        "four_word": rows * fours * words,
        "unaligned": 0 if is_aligned else rows * fours * words,
        "narrow": rows if each < 4 else 0,
    }
    return [Work("attention", quantities, 8 * rows * fours)]


def _scan(op: SelectiveScan, program: Program) -> list[Work]:
    """The table of decays, 512 bytes, is read once a value, here and there."""
    (_, steps, channels) = program.graph.shapes[op.name]
    states = program.graph.shapes[op.inputs[2]][2]
    blocks = -(-channels // SCAN_BLOCK)
    quantities = {
        "block": blocks,
        "step": blocks * steps,
        "widened": blocks * steps * states,
        "cleared": 0 if op.carry else channels * states,
        "value": steps * channels,
        "pair": steps * channels * (states // 2),
        "single": steps * channels * (states % 2),
    }
    return [Work("selective_scan", quantities, steps * channels)]


def _positions(op: Positions, program: Program) -> list[Work]:
    count = size(program.graph.shapes[op.name])
    return [Work("add", {"value": count}, count / 8)]


def _last_step(op: LastStep, program: Program) -> list[Work]:
    return [_copied(size(program.graph.shapes[op.name]), 1, True, 0)]


def _history(op: History, program: Program) -> list[Work]:
    channels = program.graph.shapes[op.name][2]
    old, new = op.steps * channels, size(program.graph.shapes[op.inputs[0]])
    return [_copied(count, 1, True, 0) for count in (old, new, old)]


def _running(op: Running, program: Program) -> list[Work]:
    _, steps, channels = program.graph.shapes[op.inputs[0]]
    quantities = {"channel": channels, "value": steps * channels}
    return [Work(program.kernels[op.name].name, quantities)]


ROWS: dict[type[Op], Callable[[Any, Program], list[Work]]] = {
    Conv2d: _conv,
    DepthwiseConv2d: _depthwise,
    Pool: _pool,
    Add: _values("add"),
    Mul: _values("mul"),
    Concat: _concat,
    Table: _values("look_up"),
    Pad: _pad,
    Reshape: _reshape,
    Attention: _attention,
    SelectiveScan: _scan,
    Positions: _positions,
    LastStep: _last_step,
    History: _history,
    Running: _running,
}
