"""What a program costs on a device: RAM, Flash, time and energy, in about a millisecond.

Exact: the arena and the bytes of packed weights, constants and tables. Predicted, from what was
measured of every kernel on the emulated chip (`kernel_costs.toml`, made by `nas calibrate`, which
holds the predictions' error too): code, stack, cycles and misses of the Flash's caches. A kernel
without a row raises; nothing ever costs zero by default.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nas.errors import UnsupportedOp
from nas.hardware.profile import Profile
from nas.hardware.program import Kernel, Program
from nas.hardware.work import Work, work_of
from nas.network.ops import Conv2d, DepthwiseConv2d, Op, Pool, size

TABLE = Path(__file__).parent / "kernel_costs.toml"
CONV_BYTES, POOL_BYTES = 28, 16  # sizeof(nas_conv), sizeof(nas_pool)


@dataclass(frozen=True, slots=True)
class OpCost:
    """One operator: `weight_bytes` with its constants and tables, `cycles` predicted."""

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
        ram_bytes: arena, working memory, states and stack of the linked program; predicted.
        flash_bytes: the linked program: start-up, code, constants, weights; predicted.
        latency_s: predicted cycles / clock.
        energy_j: latency x active current x supply voltage of the profile.
        cycles: predicted, of the whole inference; the sum over `per_op`.
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
    """The calibrated table."""
    return tomllib.loads(TABLE.read_text())


def table_hash() -> str:
    """First 12 hex digits of the SHA-256 of the calibrated table."""
    return hashlib.sha256(TABLE.read_bytes()).hexdigest()[:12]


def core_costs(profile: Profile) -> Mapping[str, Any]:
    """The part of the table for a core with or without an FPU."""
    part: Mapping[str, Any] = kernel_costs()["fpu" if profile.has_fpu else "no_fpu"]
    return part


def kernel_row(costs: Mapping[str, Any], function: str) -> Mapping[str, Any]:
    """The calibrated row of a kernel; UnsupportedOp if there is none."""
    row: Mapping[str, Any] | None = costs["kernels"].get(function)
    if row is None:
        raise UnsupportedOp(
            f"kernel {function!r}: no row in kernel_costs.toml; measure it with nas calibrate"
        )
    return row


def estimate(program: Program, profile: Profile) -> Cost:
    """The cost of `program` on `profile`."""
    costs = core_costs(profile)
    calls = {op.name: work_of(op, program) for op in program.graph.ops}
    per_op = tuple(
        _op_cost(op, program, calls[op.name], costs, profile.flash_wait_states)
        for op in program.graph.ops
    )
    cycles = sum(op.cycles for op in per_op)
    latency = cycles / profile.clock_hz
    works = [work for each in calls.values() for work in each]
    return Cost(
        arena_bytes=program.plan.arena_bytes,
        weight_bytes=sum(op.weight_bytes for op in per_op),
        ram_bytes=program.memory_bytes + _stack_bytes(works, costs),
        flash_bytes=_flash_bytes(program, works, costs),
        latency_s=latency,
        energy_j=latency * profile.active_current_a * profile.supply_voltage_v,
        cycles=cycles,
        per_op=per_op,
    )


def _op_cost(
    op: Op, program: Program, calls: list[Work], costs: Mapping[str, Any], wait_states: int
) -> OpCost:
    kernel = program.kernels[op.name]
    return OpCost(
        name=op.name,
        kernel=kernel.name,
        macs=program.graph.macs(op),
        cycles=sum(call_cycles(call, costs, wait_states) for call in calls),
        weight_bytes=kernel.weight_bytes,
        output_bytes=size(program.graph.shapes[op.name]),
        scratch_bytes=kernel.scratch_bytes + program.workspace.staged_bytes.get(op.name, 0),
    )


def call_cycles(call: Work, costs: Mapping[str, Any], wait_states: int) -> float:
    """Predicted cycles of one kernel call, waiting for Flash included."""
    row = kernel_row(costs, call.function)
    cycles = _sum(row["cycles"], call)
    if wait_states:
        per_call, per_part = row["data_misses"]
        misses = per_call + per_part * call.flash_parts + _sum(row["code_misses"], call)
        cycles += wait_states * misses
    return cycles


def _sum(coefficients: Mapping[str, float], call: Work) -> float:
    total = coefficients.get("call", 0.0)
    for name, amount in call.quantities.items():
        if amount:
            total += coefficients.get(name, 0.0) * amount
    return total


def _stack_bytes(calls: list[Work], costs: Mapping[str, Any]) -> int:
    """The deepest kernel's and the model's own."""
    program, deepest = costs["program"], 0
    for call in calls:
        depth = kernel_row(costs, call.function)["stack_bytes"]
        if call.quantities.get("staged"):
            depth += program["staged_stack_bytes"]
        deepest = max(deepest, depth)
    return int(program["stack_bytes"] + deepest)


def constant_bytes(op: Op, kernel: Kernel) -> int:
    """Flash that `op` takes beside code: weights, tables, the description that its kernel reads."""
    described = isinstance(op, Conv2d | DepthwiseConv2d)
    return kernel.weight_bytes + CONV_BYTES * described + POOL_BYTES * isinstance(op, Pool)


def _flash_bytes(program: Program, calls: list[Work], costs: Mapping[str, Any]) -> int:
    """Start-up, every function once, the calls, descriptors, weights; instances once a size."""
    held = costs["program"]
    needed: set[str] = set()
    for call in calls:
        needed.update(kernel_row(costs, call.function)["needs"])
    if any(call.quantities.get("staged") for call in calls):
        needed.add("staged")
    code = sum(costs["code_bytes"][name] for name in needed)
    planes = {k.plane.name: k.plane for k in program.kernels.values() if k.plane}
    code += sum(plane.code_bytes[held["core"] != "fpu"] for plane in planes.values())
    code += sum(kernel_row(costs, call.function)["call_bytes"] for call in calls)
    code += sum(constant_bytes(op, program.kernels[op.name]) for op in program.graph.ops)
    return int(held["flash_bytes"] + code + 0.5)
