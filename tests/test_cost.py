"""Costs by hand on small graphs, the sums, and that nothing is free by default."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from integer_models import OPERATOR_CASES
from random_graphs import random_graph, random_multimodal

from nas.errors import UnsupportedOp
from nas.hardware import cost
from nas.hardware.budget import price
from nas.hardware.cost import Cost, call_cycles, core_costs, estimate, kernel_costs, kernel_row
from nas.hardware.memory import plan_memory
from nas.hardware.profile import Profile, load_profile
from nas.hardware.program import Program, kernel_of, program_of
from nas.hardware.work import Work, work_of
from nas.network.graph import Graph, Input
from nas.network.ops import (
    WEIGHT_BITS,
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
)

DEVICE = load_profile("cortex-m4-64k")
CORES = ("fpu", "no_fpu")


def single(op: Op, *shapes: Shape) -> Graph:
    """Inputs x, y, ... and the one operator o."""
    names = zip("xyz", shapes, strict=False)
    return Graph(tuple(Input(name, shape) for name, shape in names), (op,), "o")


def conv(channels: int, bits: int = 8, kernel: int = 3, source: str = "x", name: str = "o") -> Op:
    return Conv2d(name, (source,), channels, (kernel, kernel), (1, 1), "same", bits, True)


def depthwise(bits: int) -> Op:
    return DepthwiseConv2d("o", ("x",), (3, 3), (1, 1), "same", bits, True)


def program(graph: Graph, wait_states: int = DEVICE.flash_wait_states) -> Program:
    return program_of(graph, plan_memory(graph), wait_states)


def cost_of(graph: Graph, profile: Profile = DEVICE) -> Cost:
    return estimate(program(graph, profile.flash_wait_states), profile)


def rows(core: str) -> Mapping[str, Any]:
    held: Mapping[str, Any] = kernel_costs()[core]
    return held


def functions_in_use() -> set[str]:
    """Kernels that any operator of the tests calls, at any bit-width and length of product."""
    found = set()
    graphs = [single(conv(2, bits, 1), (1, 1, n)) for bits in WEIGHT_BITS for n in (5, 2000)]
    graphs += [single(conv(2, bits, 3), (4, 4, n)) for bits in WEIGHT_BITS for n in (5, 200)]
    for op, shapes in OPERATOR_CASES:
        inputs = tuple(Input(f"in{i}", shape) for i, shape in enumerate(shapes))
        graphs.append(Graph(inputs, (op,), "o"))
    for graph in graphs:
        found |= {call.function for call in work_of(graph.ops[0], program(graph))}
    return found


@pytest.mark.parametrize("core", CORES)
def test_every_kernel_in_use_has_a_row_and_what_it_needs_has_bytes(core: str) -> None:
    held = rows(core)
    missing = functions_in_use() - set(held["kernels"])
    # Shapes that no search space has: a stride of 3, a width beyond an instruction's reach.
    assert missing <= {"depthwise_8", "depthwise_4", "depthwise_2"}
    for name, row in held["kernels"].items():
        assert set(row["needs"]) <= set(held["code_bytes"]), name
        assert row["samples"] > 0 and row["call_bytes"] >= 0 and row["stack_bytes"] >= 0, name
        assert row["cycles"] and min(row["cycles"].values()) >= 0, name
    assert {"flash_bytes", "stack_bytes", "staged_stack_bytes"} <= set(held["program"])
    assert kernel_costs()["compiler"].startswith("zig")


def test_what_has_no_row_is_refused() -> None:
    with pytest.raises(UnsupportedOp, match="kernel 'softmax': no row"):
        kernel_row(core_costs(DEVICE), "softmax")

    @dataclass(frozen=True)
    class Softmax:
        name: str

    stranger: Any = Softmax("s")
    with pytest.raises(UnsupportedOp, match="s: Softmax has no kernel"):
        kernel_of(stranger, single(conv(2), (4, 4, 2)))


def test_a_table_without_a_kernel_refuses_its_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    held = kernel_costs()
    kernels = {k: v for k, v in held["no_fpu"]["kernels"].items() if k != "max_pool"}
    poorer = {"no_fpu": held["no_fpu"] | {"kernels": kernels}}
    monkeypatch.setattr(cost, "kernel_costs", lambda: poorer)
    with pytest.raises(UnsupportedOp, match="kernel 'max_pool': no row"):
        cost_of(single(Pool("o", ("x",), "max", (2, 2), (2, 2)), (4, 4, 2)))


@pytest.mark.parametrize(
    ("op", "shapes", "expected"),
    [
        # 45 inputs are 23 pairs, 6 channels 3 pairs: a word each, and 20 bytes a pair of channels
        (conv(6, 8), [(5, 5, 5)], 3 * 23 * 4 + 60),
        # 4 bits: 4 channels a word; 2 bits: two pairs of inputs of them
        (conv(6, 4), [(5, 5, 5)], 2 * 23 * 4 + 60),
        (conv(6, 2), [(5, 5, 5)], 2 * 12 * 4 + 60),
        (conv(4, 8, kernel=1), [(1, 1, 10)], 40 + 40),
        (conv(4, 4, kernel=1), [(1, 1, 10)], 20 + 40),
        (conv(4, 2, kernel=1), [(1, 1, 10)], 12 + 40),
        # 45 taps, and 8 bytes a channel with a byte of shift each, filled up to words
        (depthwise(8), [(5, 5, 5)], 48 + 48),
        (depthwise(4), [(5, 5, 5)], 24 + 48),
        (depthwise(2), [(5, 5, 5)], 12 + 48),
        (Table("o", ("x",), "tanh"), [(5, 5, 5)], 256),
        (Add("o", ("x", "y"), True), [(5, 5, 5)] * 2, 28),
        (Mul("o", ("x", "y")), [(5, 5, 5)] * 2, 12),
        (Pool("o", ("x",), "max", (2, 2), (2, 2)), [(5, 5, 5)], 0),
        (Concat("o", ("x", "y")), [(5, 5, 5)] * 2, 0),
        (Pad("o", ("x",), (1, 1, 1, 1)), [(5, 5, 5)], 0),
        (Reshape("o", ("x",), (125,)), [(5, 5, 5)], 0),
    ],
)
def test_weight_bytes_by_hand(op: Op, shapes: list[Shape], expected: int) -> None:
    graph = single(op, *shapes)
    assert kernel_of(op, graph).weight_bytes == expected
    assert cost_of(graph).weight_bytes == expected


def test_bits_and_channels_make_flash() -> None:
    by_bits = [cost_of(single(conv(64, bits), (8, 8, 32))) for bits in (8, 4, 2)]
    count = 64 * 9 * 32
    assert [a.weight_bytes - b.weight_bytes for a, b in pairwise(by_bits)] == [
        count // 2,
        count // 4,
    ]
    assert all(a.flash_bytes > b.flash_bytes for a, b in pairwise(by_bits))
    for bits in WEIGHT_BITS:
        wider = [cost_of(single(conv(n, bits), (8, 8, 3))) for n in range(4, 24, 4)]
        for narrow, wide in pairwise(wider):
            assert wide.flash_bytes > narrow.flash_bytes
            assert wide.cycles > narrow.cycles
            assert wide.arena_bytes > narrow.arena_bytes


def test_cycles_are_quantities_times_coefficients() -> None:
    costs = core_costs(DEVICE)
    row = costs["kernels"]["add"]
    call = Work("add", {"value": 60})
    core = row["cycles"]["call"] + 60 * row["cycles"]["value"]
    assert call_cycles(call, costs, 0) == pytest.approx(core)
    code = row["code_misses"].get("call", 0) + 60 * row["code_misses"].get("value", 0)
    misses = row["data_misses"][0] + code
    assert call_cycles(call, costs, 3) == pytest.approx(core + 3 * misses)
    weighted = Work("conv_8", {}, flash_parts=100.0)
    conv_row = costs["kernels"]["conv_8"]
    alone = conv_row["cycles"].get("call", 0)
    per_call, per_part = conv_row["data_misses"]
    misses = per_call + 100 * per_part + conv_row["code_misses"].get("call", 0)
    assert call_cycles(weighted, costs, 2) == pytest.approx(alone + 2 * misses)


def test_ram_is_workspace_and_the_deepest_kernel() -> None:
    graph = Graph(
        (Input("x", (4, 5, 3)),),
        (conv(8, name="a"), conv(2, source="a", name="b"), conv(2, 4, source="b", name="o")),
        "o",
    )
    held, costs = program(graph, 0), core_costs(DEVICE)
    got = estimate(held, replace(DEVICE, flash_wait_states=0))
    deepest = max(costs["kernels"][name]["stack_bytes"] for name in ("conv_8", "conv_4"))
    assert got.arena_bytes == 60 + 160
    assert got.ram_bytes == held.workspace.bytes + costs["program"]["stack_bytes"] + deepest
    assert held.workspace.bytes > got.arena_bytes  # scratch does not fit beside both maps
    staged = program(graph, 4)
    assert staged.workspace.bytes == held.workspace.bytes
    assert staged.workspace.staged_bytes


def test_a_kernel_counts_once_and_a_call_each_time() -> None:
    one = cost_of(single(conv(4, name="o"), (4, 4, 4)))
    two = cost_of(
        Graph((Input("x", (4, 4, 4)),), (conv(4, name="a"), conv(4, source="a", name="o")), "o")
    )
    row = core_costs(DEVICE)["kernels"]["conv_8"]
    more = two.flash_bytes - one.flash_bytes - (two.weight_bytes - one.weight_bytes)
    assert more == pytest.approx(28 + row["call_bytes"], abs=1)


def test_totals_are_sums() -> None:
    rng = random.Random(0)
    for graph in [random_graph(rng) for _ in range(60)] + [random_multimodal(rng)]:
        got = price(graph, DEVICE).cost
        assert [op.name for op in got.per_op] == [op.name for op in graph.ops]
        assert got.weight_bytes == sum(op.weight_bytes for op in got.per_op)
        assert got.cycles == pytest.approx(sum(op.cycles for op in got.per_op))
        assert got.flash_bytes > got.weight_bytes and got.ram_bytes > got.arena_bytes
        assert json.loads(json.dumps(got.to_json()))["per_op"][0]["name"] == graph.ops[0].name


def test_a_graph_without_operators() -> None:
    got = cost_of(Graph((Input("x", (1, 1, 8)),), (), "x"))
    held = core_costs(DEVICE)["program"]
    assert (got.arena_bytes, got.weight_bytes, got.cycles, got.latency_s) == (8, 0, 0, 0)
    assert got.ram_bytes == 8 + held["stack_bytes"]
    assert got.flash_bytes == held["flash_bytes"]


def test_clock_wait_states_core_and_power() -> None:
    graph = random_multimodal(random.Random(3))
    base = cost_of(graph)
    fast = cost_of(graph, replace(DEVICE, clock_hz=2 * DEVICE.clock_hz))
    assert fast.cycles == base.cycles
    assert fast.latency_s == pytest.approx(base.latency_s / 2)
    assert base.latency_s == pytest.approx(base.cycles / DEVICE.clock_hz)
    slow = cost_of(graph, replace(DEVICE, flash_wait_states=DEVICE.flash_wait_states + 1))
    quick = cost_of(graph, replace(DEVICE, flash_wait_states=0))
    assert quick.cycles < base.cycles < slow.cycles
    power = DEVICE.active_current_a * DEVICE.supply_voltage_v
    assert base.energy_j == pytest.approx(base.latency_s * power)
    hungry = cost_of(graph, replace(DEVICE, active_current_a=3 * DEVICE.active_current_a))
    assert hungry.energy_j == pytest.approx(3 * base.energy_j)
    assert (hungry.latency_s, hungry.ram_bytes) == (base.latency_s, base.ram_bytes)
    assert core_costs(replace(DEVICE, core="cortex-m4f")) is kernel_costs()["fpu"]
