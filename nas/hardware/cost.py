"""What a planned graph costs on a device: RAM, Flash, time and energy, in about a millisecond.

Exact: the arena (it is the plan's) and the bytes of packed weights, biases, requantisation
constants and tables. Estimated, until generated code is linked and run: scratch, stack, code bytes
and cycles, by the rows of `kernel_costs.toml`, which names their source. An operator or bit-width
without a row raises; nothing ever costs zero by default.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nas.errors import UnsupportedOp
from nas.hardware.memory import MemoryPlan
from nas.hardware.profile import Profile
from nas.network.graph import Graph, spec_of
from nas.network.numerics import packed_bytes
from nas.network.ops import Add, Concat, Conv2d, DepthwiseConv2d, Mul, Op, Pool, size

CHANNEL_BYTES = 9  # int32 bias, int32 multiplier, int8 shift of one output channel
KERNELS = {
    "Pool": "pool",
    "Add": "add",
    "Mul": "mul",
    "Concat": "concat",
    "Table": "table",
    "Pad": "pad",
    "Reshape": "reshape",
}


@dataclass(frozen=True, slots=True)
class OpCost:
    """One operator: `weight_bytes` with its constants and tables, `cycles` modelled."""

    name: str
    kernel: str
    macs: int
    cycles: float
    weight_bytes: int
    output_bytes: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """One graph on one device.

    Attributes:
        arena_bytes: peak of the planned activations, inputs and outputs included; exact.
        weight_bytes: packed weights, biases, requantisation constants, tables; exact.
        ram_bytes: arena + scratch + statics + stack; estimated.
        flash_bytes: weight_bytes + code of the kernels used; estimated.
        latency_s: modelled cycles / clock.
        energy_j: latency x active current x supply voltage of the profile.
        cycles: modelled, of the whole inference; the sum over `per_op`.
    """

    arena_bytes: int
    weight_bytes: int
    ram_bytes: int
    flash_bytes: int
    latency_s: float
    energy_j: float
    cycles: float
    per_op: tuple[OpCost, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@cache
def kernel_costs() -> Mapping[str, Any]:
    """The rows of `kernel_costs.toml`."""
    return tomllib.loads((Path(__file__).parent / "kernel_costs.toml").read_text())


def kernel_of(op: Op, graph: Graph) -> str:
    """The kernel that runs `op`, with its weight bits: a key of `kernel_costs`.

    Raises:
        UnsupportedOp: an operator without a kernel.
    """
    if isinstance(op, DepthwiseConv2d):
        return f"depthwise_conv2d.{op.weight_bits}"
    if isinstance(op, Conv2d):
        positions = size(graph.input_shapes(op)[0][:2]) * size(op.kernel)
        kind = "fully_connected" if positions == 1 else "conv2d"
        return f"{kind}.{op.weight_bits}"
    if type(op).__name__ not in KERNELS:
        raise UnsupportedOp(f"{op.name}: {type(op).__name__} has no kernel in kernel_costs.toml")
    return KERNELS[type(op).__name__]


def kernel_row(kernel: str) -> Mapping[str, float]:
    """The cost row of a kernel; UnsupportedOp if there is none."""
    row: Any = kernel_costs()
    for part in kernel.split("."):
        row = row.get(part)
        if row is None:
            raise UnsupportedOp(f"kernel {kernel!r}: no row in kernel_costs.toml; add one")
    held: Mapping[str, float] = row
    return held


def estimate(graph: Graph, plan: MemoryPlan, profile: Profile) -> Cost:
    """The cost of `graph` executed by `plan` on `profile`."""
    per_op = tuple(_op_cost(op, graph, profile.flash_wait_states) for op in graph.ops)
    program = kernel_costs()["program"]
    weight_bytes = sum(op.weight_bytes for op in per_op)
    code = sum(int(kernel_row(kernel)["code_bytes"]) for kernel in {op.kernel for op in per_op})
    code += program["code_bytes"] + program["code_bytes_per_op"] * len(per_op)
    scratch = max((op.scratch_bytes for op in per_op), default=0)
    cycles = sum(op.cycles for op in per_op)
    latency = cycles / profile.clock_hz
    return Cost(
        arena_bytes=plan.arena_bytes,
        weight_bytes=weight_bytes,
        ram_bytes=plan.arena_bytes + scratch + program["static_bytes"] + program["stack_bytes"],
        flash_bytes=weight_bytes + code,
        latency_s=latency,
        energy_j=latency * profile.active_current_a * profile.supply_voltage_v,
        cycles=cycles,
        per_op=per_op,
    )


def weight_bytes(op: Op, graph: Graph) -> int:
    """Bytes that `op` alone adds to Flash: packed weights, constants of its channels, its table."""
    total = spec_of(op).table_entries
    shape = graph.weight_shape(op)
    if shape is not None and isinstance(op, Conv2d | DepthwiseConv2d):
        channels = graph.shapes[op.name][-1]
        total += packed_bytes(size(shape), op.weight_bits) + CHANNEL_BYTES * channels
    elif isinstance(op, Add | Mul):
        total += int(kernel_row(kernel_of(op, graph))["constant_bytes"])
    return total


def _op_cost(op: Op, graph: Graph, wait_states: int) -> OpCost:
    kernel = kernel_of(op, graph)
    row = kernel_row(kernel)
    macs, outputs = graph.macs(op), size(graph.shapes[op.name])
    cycles = row["per_call"] + outputs * row["per_output"]
    scratch = 0
    if isinstance(op, Conv2d | DepthwiseConv2d):
        cycles += macs * (row["per_mac"] + wait_states * row["per_mac_per_wait"])
        channels = graph.shapes[op.name][-1]
        scratch = int(_inner(op, graph) * row["scratch_bytes_per_inner"])
        scratch += int(channels * row["scratch_bytes_per_channel"])
    elif isinstance(op, Pool):
        cycles += outputs * size(op.kernel) * row["per_read"]
    elif isinstance(op, Concat):
        cycles += row["per_call"] * (len(op.inputs) - 1)
    return OpCost(op.name, kernel, macs, cycles, weight_bytes(op, graph), outputs, scratch)


def _inner(op: Conv2d | DepthwiseConv2d, graph: Graph) -> int:
    """Elements that the kernel's scratch scales with: an im2col row, or one padded plane."""
    height, width, channels = graph.input_shapes(op)[0]
    if isinstance(op, DepthwiseConv2d):
        return (height + op.kernel[0] - 1) * (width + op.kernel[1] - 1)
    return op.kernel[0] * op.kernel[1] * channels
