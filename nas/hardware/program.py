"""A planned graph as a program of kernel calls: what is scored, emitted, linked and measured.

Which kernel runs an operator follows from the graph alone, so that a cost needs no weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nas.errors import UnsupportedOp
from nas.hardware.memory import MemoryPlan
from nas.hardware.workspace import Workspace, place_scratch
from nas.network.graph import Graph
from nas.network.integer import MOST_STATES
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
    Pool,
    Positions,
    Reshape,
    Running,
    SelectiveScan,
    Table,
    size,
    window_padding,
)
from nas.packing import by_bits, pack_conv, pack_depthwise

TILE = 4  # output positions that a convolution's kernel computes side by side
STAGED_FROM = 2 * TILE  # positions from which weights are read often enough to be staged
ADD_BYTES, MUL_BYTES, TABLE_BYTES = 28, 12, 256  # sizeof(nas_add), sizeof(nas_mul), entries
ATTENTION_BYTES, EXPONENTIAL_BYTES = 32, 4 * 256  # sizeof(nas_attention), its table
SCAN_BYTES, DECAY_BYTES, RUNNING_BYTES = 32, 2 * 256, 8  # sizeof(nas_scan), its table, nas_running
SCAN_BLOCK = 16  # channels of a scan side by side
ROW_BLOCK = 4  # queries side by side
MOST_STEPS = 4095  # whose exponentials a sum of 32 bits holds


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel of one operator.

    Attributes:
        name: of the C function, without the prefix.
        weight_bytes: packed weights and constants that it reads.
        scratch_bytes: working memory that it needs.
        plane: the assembly that a depthwise convolution brings for its own sizes.
    """

    name: str
    weight_bytes: int = 0
    scratch_bytes: int = 0
    plane: pack_depthwise.Plane | None = None


@dataclass(frozen=True)
class Program:
    """A graph, its memory plan, the kernel of every operator and where their memory lies.

    Attributes:
        state_offsets: operator -> first byte of what it keeps from one run to the next, behind the
            workspace.
        memory_bytes: the whole: workspace and states.
    """

    graph: Graph
    plan: MemoryPlan
    kernels: Mapping[str, Kernel]
    workspace: Workspace
    state_offsets: Mapping[str, int]
    memory_bytes: int

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The operators in the order in which they run."""
        by_name = {op.name: op for op in self.graph.ops}
        return tuple(by_name[name] for name in self.plan.order)


def program_of(
    graph: Graph, plan: MemoryPlan, flash_wait_states: int, staging_bytes: int = 0
) -> Program:
    """Chooses the kernels of a planned graph, places their scratch and decides what is staged.

    Args:
        flash_wait_states: without any, staging would gain nothing.
        staging_bytes: RAM beyond what the graph needs anyway that staged weights may take.

    Raises:
        UnsupportedOp: an operator without a kernel.
    """
    kernels = {op.name: kernel_of(op, graph) for op in graph.ops}
    scratch = {name: kernel.scratch_bytes for name, kernel in kernels.items()}
    stageable = {}
    if flash_wait_states > 0:
        stageable = {
            op.name: kernels[op.name].weight_bytes
            for op in graph.ops
            if isinstance(op, Conv2d) and size(graph.shapes[op.name][:2]) >= STAGED_FROM
        }
    workspace = place_scratch(graph, plan, scratch, stageable, staging_bytes)
    state_offsets, end = {}, workspace.bytes
    for op in graph.ops:
        held = graph.state_bytes(op)
        if held > 0:
            state_offsets[op.name] = end
            end += in_words(held)
    return Program(graph, plan, kernels, workspace, state_offsets, end)


def kernel_of(op: Op, graph: Graph) -> Kernel:
    """The kernel that runs `op`.

    Raises:
        UnsupportedOp: an operator without a kernel.
    """
    if type(op) not in CHOICES:
        raise UnsupportedOp(f"{op.name}: {type(op).__name__} has no kernel; add a row to CHOICES")
    return CHOICES[type(op)](op, graph)


def _conv(op: Conv2d, graph: Graph) -> Kernel:
    shape, (height, width, channels) = graph.shapes[op.inputs[0]], graph.shapes[op.name]
    rows, row = op.kernel[0], op.kernel[1] * shape[2]
    padded = any(map(sum, window_padding(op, shape)))
    packed = by_bits.packed_bytes(rows * row, channels, op.weight_bits)
    weight_bytes = packed + pack_conv.table_bytes(channels)
    wide = "_wide" if by_bits.is_wide(rows * row, op.weight_bits) else ""
    if height * width < TILE:
        wide = "" if op.weight_bits == 2 else wide  # the one kernel of 2 bits takes any length
        scratch = pack_conv.single_scratch_bytes(rows, row, padded)
        return Kernel(f"fully_connected_{op.weight_bits}{wide}", weight_bytes, scratch)
    span = (height - 1) * op.stride[0] + rows
    spacing = op.stride[1] * shape[2]
    scratch = pack_conv.scratch_bytes(rows, row, spacing, span, width, padded)
    return Kernel(f"conv_{op.weight_bits}{wide}", weight_bytes, scratch)


def _depthwise(op: DepthwiseConv2d, graph: Graph) -> Kernel:
    source, (height, width, channels) = graph.shapes[op.inputs[0]], graph.shapes[op.name]
    padding = window_padding(op, source)
    shape = pack_depthwise.Shape(
        op.kernel,
        op.stride,
        (padding[0][0], padding[1][0]),
        (source[0], source[1]),
        (height, width),
        channels,
    )
    plane = pack_depthwise.plane(shape)
    form = "" if plane is None else "3x3_" if "depthwise_3x3.inc" in plane.text else "shaped_"
    packed = pack_depthwise.weight_bytes(channels, size(op.kernel), op.weight_bits)
    return Kernel(
        f"depthwise_{form}{op.weight_bits}",
        packed + pack_depthwise.table_bytes(channels),
        pack_depthwise.scratch_bytes(op.kernel, op.stride, height, width),
        plane,
    )


def in_words(count: int) -> int:
    """`count` bytes, the last word filled up."""
    return -(-count // 4) * 4


def _attention(op: Attention, graph: Graph) -> Kernel:
    steps, rows = graph.shapes[op.inputs[1]][1], min(ROW_BLOCK, graph.shapes[op.name][1])
    if steps > MOST_STEPS:
        raise UnsupportedOp(
            f"{op.name}: attention over {steps} steps has no kernel, only up to {MOST_STEPS};"
            " shorten the series by a stride before it"
        )
    return Kernel("attention", ATTENTION_BYTES + EXPONENTIAL_BYTES, rows * in_words(steps))


def _scan(op: SelectiveScan, graph: Graph) -> Kernel:
    states, channels = graph.shapes[op.inputs[2]][2], graph.shapes[op.name][2]
    if states > MOST_STATES:
        raise UnsupportedOp(
            f"{op.name}: a scan of {states} states has no kernel, only up to {MOST_STATES}"
        )
    lanes, held = 8 * -(-states // 2), 2 * states * min(channels, SCAN_BLOCK)
    scratch = lanes if op.carry else lanes + in_words(held)
    return Kernel("selective_scan", SCAN_BYTES + DECAY_BYTES + 4 * channels, scratch)


CHOICES: dict[type[Op], Callable[[Any, Graph], Kernel]] = {
    Conv2d: _conv,
    DepthwiseConv2d: _depthwise,
    Pool: lambda op, graph: Kernel(f"{op.function}_pool"),
    Add: lambda op, graph: Kernel("add", ADD_BYTES),
    Mul: lambda op, graph: Kernel("mul", MUL_BYTES),
    Concat: lambda op, graph: Kernel("concat"),
    Table: lambda op, graph: Kernel("look_up", TABLE_BYTES),
    Pad: lambda op, graph: Kernel("pad"),
    Reshape: lambda op, graph: Kernel("reshape"),
    Attention: _attention,
    SelectiveScan: _scan,
    Positions: lambda op, graph: Kernel("add", ADD_BYTES + in_words(size(graph.shapes[op.name]))),
    LastStep: lambda op, graph: Kernel("last_step"),
    History: lambda op, graph: Kernel("history"),
    Running: lambda op, graph: Kernel(f"running_{op.function}", RUNNING_BYTES),
}
