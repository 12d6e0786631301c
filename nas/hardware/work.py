"""What each kernel call of a program has to do, in the quantities that its time is made of.

A call's cycles, and its misses in the Flash's caches, are sums of these quantities times the kernel's
coefficients (`kernel_costs.toml`, made by `nas calibrate`). The quantities count how often each of a
kernel's loops runs, so the sums hold for sizes that no calibration has seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nas.hardware.program import TILE, Kernel, Program
from nas.network.ops import (
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Mul,
    Op,
    Pad,
    Pool,
    Reshape,
    Shape,
    Table,
    size,
    window_padding,
)
from nas.network.ranges import is_clipped
from nas.network.reference import row_of

Quantities: TypeAlias = Mapping[str, float]

DATA_CACHE_BYTES = 256  # weights beyond it are read from Flash again for every tile
UNROLLED = 8  # k-pairs that a product's loop body does
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
    pixels = out[0] * out[1]
    inner = size(op.kernel) * source[2]
    pairs, k_pairs = (out[2] + 1) // 2, (inner + 1) // 2
    tiles = pixels // TILE if pixels >= TILE else 0
    alone = pixels - TILE * tiles
    quads, rounds = (pairs + 1) // 2, -(-k_pairs // UNROLLED)
    row = op.kernel[1] * source[2]
    rows, outside = _rows(op, source, out)
    words = row // 4
    quantities = {
        "tile": tiles,
        "tile_pair": tiles * pairs,
        "tile_product": tiles * pairs * k_pairs,
        "tile_round": tiles * pairs * rounds,
        "single": alone,
        "single_quad": alone * quads,
        "single_product": alone * quads * k_pairs,
        "single_round": alone * quads * rounds,
        "window": pixels,
        "row": rows,
        "row_word": rows * words,
        "row_rest": rows * (row % 4),
        "window_rest": pixels * (row % 4 * op.kernel[0]),
        "unaligned": rows * words * _misaligned(op, source),
        "outside": outside,
        "outside_value": outside * row,
    }
    calls, staged = [], program.workspace.staged_bytes.get(op.name, 0)
    parts = kernel.weight_bytes / 8
    sweeps = tiles + alone if kernel.weight_bytes > DATA_CACHE_BYTES else min(1, tiles + alone)
    if staged:
        quantities |= {"staged": 1, "staged_word": kernel.weight_bytes / 4}
        sweeps = 1
    calls.append(Work(kernel.name, quantities, parts * sweeps))
    return [*calls, *_clip(op, program)]


def _rows(op: Conv2d | DepthwiseConv2d, source: Shape, out: Shape) -> tuple[int, int]:
    """Kernel rows of all windows, and how many of them reach over the map's border."""
    padding = window_padding(op, source)
    inside = [
        sum(
            1
            for i in range(out[axis])
            if i * op.stride[axis] >= padding[axis][0]
            and i * op.stride[axis] - padding[axis][0] + op.kernel[axis] <= source[axis]
        )
        for axis in (0, 1)
    ]
    whole_rows = sum(
        1
        for i in range(out[0])
        for k in range(op.kernel[0])
        if 0 <= i * op.stride[0] - padding[0][0] + k < source[0]
    )
    total = out[0] * out[1] * op.kernel[0]
    return total, total - whole_rows * inside[1]


def _misaligned(op: Conv2d, source: Shape) -> float:
    """Cycles that an unaligned word costs on average over the places where kernel rows begin."""
    penalties = (0, 2, 1, 2)
    left = window_padding(op, source)[1][0]
    places = [
        (y * source[1] * source[2] + (x * op.stride[1] - left) * source[2]) % 4
        for y in range(4)
        for x in range(4)
    ]
    return sum(penalties[place] for place in places) / len(places)


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
    kernel: Kernel = program.kernels[op.name]
    source, out = program.graph.shapes[op.inputs[0]], program.graph.shapes[op.name]
    quantities = {"channel": out[2], "value": size(out)}
    work = Work(kernel.name, quantities, kernel.weight_bytes / 8)
    return [work, *_clip(op, program)]


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
}
