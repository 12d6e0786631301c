"""Where each operator's working memory lies: in the gaps that a memory plan leaves at its step.

An operator's scratch lives for its own step only. It goes to the first gap between the tensors that
are live then; what no gap holds extends the arena. The tensors stay where the plan has put them.
Where a gap has room to spare, a layer's weights are staged there: copied from Flash once, and read
from RAM for every output, without the Flash's wait states.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nas.errors import PlanError
from nas.hardware.memory import MemoryPlan, lifetimes
from nas.network.graph import Graph
from nas.network.ops import size


@dataclass(frozen=True, slots=True)
class Workspace:
    """Working memory of a program.

    Attributes:
        offsets: operator -> first byte of its scratch, staged weights in front.
        staged_bytes: operator -> bytes of weights and constants that are staged.
        bytes: the arena, all scratch included.
    """

    offsets: Mapping[str, int]
    staged_bytes: Mapping[str, int]
    bytes: int


def place_scratch(
    graph: Graph,
    plan: MemoryPlan,
    scratch_bytes: Mapping[str, int],
    stageable_bytes: Mapping[str, int] | None = None,
    extra_bytes: int = 0,
) -> Workspace:
    """Places the scratch of every operator that `scratch_bytes` names with more than 0 bytes.

    Args:
        stageable_bytes: operator -> what it would stage; done where it makes the arena grow by no
            more than `extra_bytes`.

    Raises:
        PlanError: a name that is no operator.
    """
    steps = {name: step for step, name in enumerate(plan.order, 1)}
    if unknown := scratch_bytes.keys() - steps.keys():
        raise PlanError(f"scratch of {min(unknown)!r}: no such operator")
    spans = [(name, *span) for name, span in lifetimes(graph, plan).items()]
    unit = max(4, plan.alignment_bytes)  # scratch holds 32-bit words
    taken = {name: _live_ranges(graph, plan, spans, steps[name]) for name in scratch_bytes}
    offsets, end = {}, -(-plan.arena_bytes // unit) * unit
    for name, count in scratch_bytes.items():
        if count > 0:
            offsets[name] = _first_gap(taken[name], count, unit)
            end = max(end, offsets[name] + -(-count // unit) * unit)
    staged, limit = {}, end + extra_bytes
    for name, more in (stageable_bytes or {}).items():
        count = scratch_bytes[name] + more
        at = _first_gap(taken[name], count, unit)
        if more > 0 and at + count <= limit:
            offsets[name], staged[name] = at, more
            end = max(end, at + -(-count // unit) * unit)
    return Workspace(offsets, staged, end)


def _live_ranges(
    graph: Graph, plan: MemoryPlan, spans: list[tuple[str, float, float]], step: int
) -> list[tuple[int, int]]:
    """(first, past the last) byte of every tensor that is live at a step, sorted."""
    live = [name for name, first, last in spans if first < step + 1 and last > step]
    return sorted((plan.offsets[n], plan.offsets[n] + size(graph.shapes[n])) for n in live)


def _first_gap(taken: list[tuple[int, int]], count: int, unit: int) -> int:
    """The lowest multiple of `unit` at which `count` bytes touch none of the sorted ranges."""
    at = 0
    for first, last in taken:
        if first - at >= count:
            break
        at = max(at, -(-last // unit) * unit)
    return at


def check_workspace(
    graph: Graph, plan: MemoryPlan, scratch_bytes: Mapping[str, int], workspace: Workspace
) -> None:
    """Derives by itself, step by step, what is live, and that no scratch touches it.

    Raises:
        PlanError: the operator, and the tensor that its scratch would overwrite.
    """
    ops = {op.name: op for op in graph.ops}
    left = {name: len({op.name for op in graph.consumers[name]}) for name in graph.shapes}
    live = {i.name for i in graph.inputs if left[i.name] or i.name == graph.output}
    for name in plan.order:
        held = live | {name}
        start = workspace.offsets.get(name, 0)
        end = start + scratch_bytes.get(name, 0) + workspace.staged_bytes.get(name, 0)
        for tensor in held if end > start else ():
            first = plan.offsets[tensor]
            if start < first + size(graph.shapes[tensor]) and first < end:
                raise PlanError(
                    f"{name!r}: its scratch at bytes {start}..{end} overlaps {tensor!r} at"
                    f" {first}; plan the graph again"
                )
        if end > workspace.bytes or start % 4:
            raise PlanError(
                f"{name!r}: its scratch at bytes {start}..{end} must be aligned to 4 and inside"
                f" the arena of {workspace.bytes}; plan the graph again"
            )
        for tensor in set(ops[name].inputs):
            left[tensor] -= 1
        live = {t for t in held if left[t] > 0 or t == graph.output}
