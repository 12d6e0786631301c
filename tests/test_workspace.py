"""Scratch in the gaps of a plan: nothing live is touched, gaps are used, staging costs no RAM."""

import random
from dataclasses import replace

import pytest
from random_graphs import random_graph, random_multimodal

from nas.errors import PlanError
from nas.hardware.memory import MemoryPlan, plan_memory
from nas.hardware.workspace import Workspace, check_workspace, place_scratch
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d, Op


def conv(name: str, source: str, channels: int) -> Op:
    return Conv2d(name, (source,), channels, (1, 1), (1, 1), "valid", 8, True)


# x (100) -> a (400) -> b (40): at b's step the arena's first 100 bytes are free or its last are.
CHAIN = Graph((Input("x", (1, 10, 10)),), (conv("a", "x", 40), conv("b", "a", 4)), "b")


def test_a_gap_takes_what_fits_and_the_arena_grows_for_the_rest() -> None:
    plan = plan_memory(CHAIN)
    assert plan.arena_bytes == 500
    small = place_scratch(CHAIN, plan, {"a": 0, "b": 60})
    assert small.bytes == 500 and set(small.offsets) == {"b"}
    check_workspace(CHAIN, plan, {"b": 60}, small)
    large = place_scratch(CHAIN, plan, {"a": 8, "b": 61})
    assert large.offsets["a"] == 500
    assert large.bytes == 508
    check_workspace(CHAIN, plan, {"a": 8, "b": 61}, large)


def test_staging_takes_only_what_is_spare() -> None:
    plan = plan_memory(CHAIN)
    scratch = {"a": 8, "b": 8}
    held = place_scratch(CHAIN, plan, scratch, {"a": 40, "b": 44})
    assert held.staged_bytes == {"b": 44}
    assert held.bytes == place_scratch(CHAIN, plan, scratch).bytes == 508
    check_workspace(CHAIN, plan, scratch, held)
    more = place_scratch(CHAIN, plan, scratch, {"a": 40, "b": 44}, extra_bytes=40)
    assert more.staged_bytes == {"a": 40, "b": 44} and more.bytes == 548
    assert place_scratch(CHAIN, plan, scratch, {"a": 40}, extra_bytes=39).staged_bytes == {}


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_by_the_check(seed: int) -> None:
    rng = random.Random(seed)
    graph = random_multimodal(rng) if seed % 5 == 0 else random_graph(rng)
    plan = plan_memory(graph)
    scratch = {op.name: rng.choice((0, 1, 8, 100, 900)) for op in graph.ops}
    stageable = {op.name: rng.choice((0, 50, 400)) for op in graph.ops}
    held = place_scratch(graph, plan, scratch, stageable, rng.choice((0, 100)))
    check_workspace(graph, plan, scratch, held)
    assert held.bytes >= plan.arena_bytes
    without = place_scratch(graph, plan, scratch)
    assert without.bytes <= plan.arena_bytes + 3 + max([0, *scratch.values()]) + 3


def test_the_check_sees_what_is_wrong() -> None:
    plan = plan_memory(CHAIN)
    with pytest.raises(PlanError, match=r"'b': its scratch .* overlaps 'a'"):
        check_workspace(CHAIN, plan, {"b": 8}, Workspace({"b": plan.offsets["a"]}, {}, 508))
    for workspace in (Workspace({"a": 500}, {}, 504), Workspace({"a": 502}, {}, 600)):
        with pytest.raises(PlanError, match="'a': its scratch at bytes"):
            check_workspace(CHAIN, plan, {"a": 8}, workspace)
    with pytest.raises(PlanError, match="'c': no such operator"):
        place_scratch(CHAIN, plan, {"c": 8})


def test_scratch_is_aligned_to_words() -> None:
    plan = plan_memory(CHAIN, alignment_bytes=1)
    odd: MemoryPlan = replace(plan, alignment_bytes=1)
    held = place_scratch(CHAIN, odd, {"a": 5, "b": 5})
    assert all(offset % 4 == 0 for offset in held.offsets.values())
    assert held.bytes % 4 == 0
