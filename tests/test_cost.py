"""Costs by hand on small graphs, the sums, and that nothing is free by default."""

import json
import random
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from integer_models import OPERATOR_CASES
from random_graphs import random_graph, random_multimodal

from nas.errors import UnsupportedOp
from nas.hardware import cost
from nas.hardware.cost import Cost, estimate, kernel_costs, kernel_of, kernel_row, weight_bytes
from nas.hardware.memory import plan_memory
from nas.hardware.profile import Profile, load_profile
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
KERNEL_KEYS = {"per_call", "per_output", "code_bytes"}
WEIGHTED_KEYS = {
    "per_mac",
    "per_mac_per_wait",
    "scratch_bytes_per_inner",
    "scratch_bytes_per_channel",
}


def single(op: Op, *shapes: Shape) -> Graph:
    """Inputs x, y, ... and the one operator o."""
    names = zip("xyz", shapes, strict=False)
    return Graph(tuple(Input(name, shape) for name, shape in names), (op,), "o")


def conv(channels: int, bits: int = 8, kernel: int = 3, source: str = "x", name: str = "o") -> Op:
    return Conv2d(name, (source,), channels, (kernel, kernel), (1, 1), "same", bits, True)


def depthwise(bits: int) -> Op:
    return DepthwiseConv2d("o", ("x",), (3, 3), (1, 1), "same", bits, True)


def price(graph: Graph, profile: Profile = DEVICE) -> Cost:
    return estimate(graph, plan_memory(graph), profile)


def kernels() -> dict[str, dict[str, float]]:
    """Every row of kernel_costs.toml by the name that `kernel_of` gives."""
    rows: dict[str, Any] = {}
    for name, table in kernel_costs().items():
        if name not in ("source", "program"):
            nested = all(isinstance(row, dict) for row in table.values())
            rows |= {f"{name}.{k}": v for k, v in table.items()} if nested else {name: table}
    return rows


def test_rows_are_complete_and_none_is_unused() -> None:
    used = {single(conv(2, bits, 1), (1, 1, 5)) for bits in WEIGHT_BITS}
    for op, shapes in OPERATOR_CASES:
        inputs = tuple(Input(f"in{i}", shape) for i, shape in enumerate(shapes))
        used.add(Graph(inputs, (op,), "o"))
    assert {kernel_of(graph.ops[0], graph) for graph in used} == set(kernels())
    for name, row in kernels().items():
        keys = KERNEL_KEYS | (WEIGHTED_KEYS if "." in name else {"per_read"})
        keys |= {"constant_bytes"} if name in ("add", "mul") else set()
        assert set(row) == keys, name
        assert min(row.values()) >= 0, name
        # Only a pool is charged for reads.
        assert (row.get("per_read", 0) > 0) is (name == "pool")
    program = {"code_bytes", "code_bytes_per_op", "stack_bytes", "static_bytes"}
    assert set(kernel_costs()["program"]) == program
    assert kernel_costs()["source"]


def test_what_has_no_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in ("conv2d.3", "softmax"):
        with pytest.raises(UnsupportedOp, match=f"kernel '{kernel}': no row in kernel_costs.toml"):
            kernel_row(kernel)

    @dataclass(frozen=True)
    class Softmax:
        name: str

    stranger: Any = Softmax("s")
    with pytest.raises(UnsupportedOp, match="s: Softmax has no kernel"):
        kernel_of(stranger, single(conv(2), (4, 4, 2)))
    poorer = {k: v for k, v in kernel_costs().items() if k != "pool"}
    monkeypatch.setattr(cost, "kernel_costs", lambda: poorer)
    with pytest.raises(UnsupportedOp, match="kernel 'pool': no row"):
        price(single(Pool("o", ("x",), "max", (2, 2), (2, 2)), (4, 4, 2)))


@pytest.mark.parametrize(
    ("op", "shapes", "expected"),
    [
        # weights packed to 4 bytes + 9 bytes a channel
        (conv(6, 8), [(5, 5, 5)], 272 + 54),
        (conv(6, 4), [(5, 5, 5)], 136 + 54),
        (conv(6, 2), [(5, 5, 5)], 68 + 54),
        (conv(4, 8, kernel=1), [(1, 1, 10)], 40 + 36),
        (conv(4, 4, kernel=1), [(1, 1, 10)], 20 + 36),
        (conv(4, 2, kernel=1), [(1, 1, 10)], 12 + 36),
        (depthwise(8), [(5, 5, 5)], 48 + 45),
        (depthwise(4), [(5, 5, 5)], 24 + 45),
        (depthwise(2), [(5, 5, 5)], 12 + 45),
        (Table("o", ("x",), "tanh"), [(5, 5, 5)], 256),
        (Add("o", ("x", "y"), True), [(5, 5, 5)] * 2, 24),
        (Mul("o", ("x", "y")), [(5, 5, 5)] * 2, 8),
        (Pool("o", ("x",), "max", (2, 2), (2, 2)), [(5, 5, 5)], 0),
        (Concat("o", ("x", "y")), [(5, 5, 5)] * 2, 0),
        (Pad("o", ("x",), (1, 1, 1, 1)), [(5, 5, 5)], 0),
        (Reshape("o", ("x",), (125,)), [(5, 5, 5)], 0),
    ],
)
def test_weight_bytes_by_hand(op: Op, shapes: list[Shape], expected: int) -> None:
    graph = single(op, *shapes)
    assert weight_bytes(op, graph) == expected
    assert price(graph).weight_bytes == expected


def test_bits_and_channels_make_flash() -> None:
    by_bits = [price(single(conv(64, bits), (8, 8, 32))) for bits in (8, 4, 2)]
    count = 64 * 9 * 32
    assert [a.weight_bytes - b.weight_bytes for a, b in pairwise(by_bits)] == [
        count // 2,
        count // 4,
    ]
    assert all(a.flash_bytes > b.flash_bytes for a, b in pairwise(by_bits))
    for bits in WEIGHT_BITS:
        wider = [price(single(conv(n, bits), (8, 8, 3))) for n in range(1, 20)]
        for narrow, wide in pairwise(wider):
            assert wide.flash_bytes > narrow.flash_bytes
            assert wide.cycles > narrow.cycles
            assert wide.arena_bytes > narrow.arena_bytes


def test_two_convolutions_by_hand() -> None:
    graph = Graph(
        (Input("x", (4, 5, 3)),),
        (conv(8, name="a"), conv(2, source="a", name="b"), conv(2, 4, source="b", name="o")),
        "o",
    )
    eight, four, program = kernel_row("conv2d.8"), kernel_row("conv2d.4"), kernel_costs()["program"]
    got = price(graph)
    assert [op.macs for op in got.per_op] == [20 * 8 * 27, 20 * 2 * 72, 20 * 2 * 18]
    assert [op.output_bytes for op in got.per_op] == [160, 40, 40]
    per_mac = eight["per_mac"] + DEVICE.flash_wait_states * eight["per_mac_per_wait"]
    assert got.per_op[0].cycles == pytest.approx(
        eight["per_call"] + 20 * 8 * 27 * per_mac + 160 * eight["per_output"]
    )
    assert got.arena_bytes == 60 + 160
    # The largest scratch, not their sum; the code of a kernel once, a call each.
    assert [op.scratch_bytes for op in got.per_op] == [27 * 8, 72 * 8, 18 * 8]
    assert got.ram_bytes == 60 + 160 + 72 * 8 + program["static_bytes"] + program["stack_bytes"]
    weights = (216 + 72) + (144 + 18) + (20 + 18)
    code = program["code_bytes"] + 3 * program["code_bytes_per_op"]
    assert got.weight_bytes == weights
    assert got.flash_bytes == weights + code + eight["code_bytes"] + four["code_bytes"]


@pytest.mark.parametrize(
    ("op", "shapes", "cycles", "scratch"),
    [
        (depthwise(8), [(4, 5, 3)], {"macs": 540, "outputs": 60}, 6 * 7 * 8),
        (conv(4, 8, kernel=1), [(1, 1, 10)], {"macs": 40, "outputs": 4}, 10 * 2),
        (conv(4, 2), [(4, 5, 3)], {"macs": 2160, "outputs": 80}, 27 * 12 + 4 * 16),
        (Pool("o", ("x",), "max", (2, 3), (2, 1)), [(4, 5, 3)], {"outputs": 18, "reads": 108}, 0),
        (Add("o", ("x", "y"), True), [(4, 5, 3)] * 2, {"outputs": 60}, 0),
        (Concat("o", ("x", "y", "z")), [(4, 5, 3)] * 3, {"outputs": 180, "calls": 3}, 0),
        (Table("o", ("x",), "tanh"), [(4, 5, 3)], {"outputs": 60}, 0),
        (Reshape("o", ("x",), (60,)), [(4, 5, 3)], {"outputs": 60}, 0),
    ],
)
def test_cycles_and_scratch_by_hand(
    op: Op, shapes: list[Shape], cycles: dict[str, int], scratch: int
) -> None:
    graph = single(op, *shapes)
    row = kernel_row(kernel_of(op, graph))
    got = price(graph).per_op[0]
    waits = DEVICE.flash_wait_states * row.get("per_mac_per_wait", 0)
    assert got.cycles == pytest.approx(
        cycles.get("calls", 1) * row["per_call"]
        + cycles.get("macs", 0) * (row.get("per_mac", 0) + waits)
        + cycles["outputs"] * row["per_output"]
        + cycles.get("reads", 0) * row.get("per_read", 0)
    )
    assert got.scratch_bytes == scratch


def test_totals_are_sums() -> None:
    rng = random.Random(0)
    program = kernel_costs()["program"]
    for graph in [random_graph(rng) for _ in range(60)] + [random_multimodal(rng)]:
        plan = plan_memory(graph)
        got = estimate(graph, plan, DEVICE)
        assert [op.name for op in got.per_op] == [op.name for op in graph.ops]
        assert got.arena_bytes == plan.arena_bytes
        assert got.weight_bytes == sum(op.weight_bytes for op in got.per_op)
        assert got.cycles == sum(op.cycles for op in got.per_op)
        code = sum(kernels()[kernel]["code_bytes"] for kernel in {op.kernel for op in got.per_op})
        code += program["code_bytes"] + len(graph.ops) * program["code_bytes_per_op"]
        assert got.flash_bytes == got.weight_bytes + code
        scratch = max(op.scratch_bytes for op in got.per_op)
        statics = program["static_bytes"] + program["stack_bytes"]
        assert got.ram_bytes == got.arena_bytes + scratch + statics
        assert json.loads(json.dumps(got.to_json()))["per_op"][0]["name"] == graph.ops[0].name


def test_a_graph_without_operators() -> None:
    got = price(Graph((Input("x", (1, 1, 8)),), (), "x"))
    program = kernel_costs()["program"]
    assert (got.arena_bytes, got.weight_bytes, got.cycles, got.latency_s) == (8, 0, 0, 0)
    assert got.ram_bytes == 8 + program["static_bytes"] + program["stack_bytes"]


def test_clock_wait_states_and_power() -> None:
    graph = random_multimodal(random.Random(3))
    base = price(graph)
    fast = price(graph, replace(DEVICE, clock_hz=2 * DEVICE.clock_hz))
    assert fast.cycles == base.cycles
    assert fast.latency_s == pytest.approx(base.latency_s / 2)
    assert base.latency_s == pytest.approx(base.cycles / DEVICE.clock_hz)
    slow = price(graph, replace(DEVICE, flash_wait_states=DEVICE.flash_wait_states + 1))
    extra = sum(
        op.macs * kernel_row(op.kernel)["per_mac_per_wait"] for op in base.per_op if op.macs
    )
    assert extra > 0
    assert slow.cycles - base.cycles == pytest.approx(extra)
    power = DEVICE.active_current_a * DEVICE.supply_voltage_v
    assert base.energy_j == pytest.approx(base.latency_s * power)
    hungry = price(graph, replace(DEVICE, active_current_a=3 * DEVICE.active_current_a))
    assert hungry.energy_j == pytest.approx(3 * base.energy_j)
    assert (hungry.latency_s, hungry.ram_bytes) == (base.latency_s, base.ram_bytes)
