"""Where every activation lies in the arena, and a check that shares no code with the planner.

The arena holds all int8 activations, graph inputs and the output included. Time 0 is the moment
when the caller has filled every input; then the operators run one by one. An input is live from
time 0 to its last reader, an intermediate tensor from its producer to its last reader, the graph
output to the end. While an operator runs, what it reads and what it writes are live together; an
operator in place is the exception, its output starts where one input that dies there starts.

`plan_memory` takes the best order (`memory_order`), works in place wherever it can, and places
the buffers by first fit. That mostly meets the liveness bound, and then nothing can be better. When
it does not, other orders, in-place choices and offsets are tried: all of them for a small graph, a
fixed number for a large one.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.errors import PlanError
from nas.hardware.memory_order import Problem, best_order, order_peak, orders_below, problem_of
from nas.hardware.memory_place import Layout, all_links, link_choices
from nas.network.graph import Graph
from nas.network.op_rules import reusable
from nas.network.ops import Op, Shape, size

SMALL = 8  # operators up to which the plan is the optimum for certain
TRIES = 400  # first fits in the search of one placement
VARIANTS = 40  # orders and in-place choices that are tried for a larger graph


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The order of the operators and the place of every tensor.

    Attributes:
        order: operator names in the order in which they run.
        offsets: tensor -> its first byte in the arena.
        in_place: operator -> the input in whose place its output starts.
        arena_bytes: size of the arena.
        lower_bound_bytes: most bytes live at once in the best order found. No plan is smaller where
            that order is the optimum: for trees, and for graphs whose orders can all be searched.
        alignment_bytes: offsets and sizes are multiples of it.
    """

    order: tuple[str, ...]
    offsets: Mapping[str, int]
    in_place: Mapping[str, str]
    arena_bytes: int
    lower_bound_bytes: int
    alignment_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; `MemoryPlan.from_json` is its inverse."""
        return {
            "order": list(self.order),
            "offsets": dict(self.offsets),
            "in_place": dict(self.in_place),
            "arena_bytes": self.arena_bytes,
            "lower_bound_bytes": self.lower_bound_bytes,
            "alignment_bytes": self.alignment_bytes,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "MemoryPlan":
        """Raises PlanError for a missing key."""
        try:
            return MemoryPlan(
                tuple(document["order"]),
                dict(document["offsets"]),
                dict(document["in_place"]),
                document["arena_bytes"],
                document["lower_bound_bytes"],
                document["alignment_bytes"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"not a memory plan: {error}; write it with MemoryPlan.to_json"
            ) from error


def plan_memory(graph: Graph, alignment_bytes: int = 4) -> MemoryPlan:
    """The plan with the smallest arena: the optimum up to `SMALL` operators, else the best found.

    Args:
        graph: the operators; their order in it does not matter.
        alignment_bytes: every offset and size is a multiple of it.
    """
    if alignment_bytes < 1:
        raise PlanError(f"alignment_bytes {alignment_bytes}: must be 1 or more; 4 suits a Cortex-M")
    problem = problem_of(graph, alignment_bytes)
    order, bound = best_order(problem)
    best = _place(problem, order, bound)
    if best.peak > bound:
        improve = _all_plans if len(order) <= SMALL else _more_plans
        best = improve(problem, best, bound)
    names = list(graph.shapes)
    return MemoryPlan(
        tuple([graph.ops[op].name for op in best.order]),
        {name: at * alignment_bytes for name, at in zip(names, best.offsets, strict=True)},
        {graph.ops[op].name: names[t] for op, t in enumerate(best.links) if t >= 0},
        best.peak * alignment_bytes,
        bound * alignment_bytes,
        alignment_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A plan as numbers; `links` holds the input that each operator reuses, or -1."""

    order: list[int]
    links: list[int]
    offsets: list[int]
    peak: int


def _candidate(order: list[int], links: list[int], layout: Layout, blocks: list[int]) -> _Candidate:
    return _Candidate(order, links, layout.tensor_offsets(blocks), layout.peak(blocks))


def _place(problem: Problem, order: list[int], bound: int) -> _Candidate:
    """In place wherever possible; the smallest arena that first fit finds for `order`."""
    links = [options[0] if options else -1 for options in link_choices(problem, order)]
    layout = Layout(problem, order, links)
    blocks = layout.search(bound, TRIES)
    if blocks is not None:
        return _candidate(order, links, layout, blocks)
    blocks, _ = layout.first_fit(list(range(len(layout.sizes))), sum(layout.sizes))
    low, high = bound + 1, layout.peak(blocks)
    while low < high:
        middle = (low + high) // 2
        better = layout.search(middle, TRIES // 8)
        if better is None:
            low = middle + 1
        else:
            blocks, high = better, layout.peak(better)
    return _candidate(order, links, layout, blocks)


def _all_plans(problem: Problem, best: _Candidate, bound: int) -> _Candidate:
    """The optimum over all orders, in-place choices and offsets."""
    seen = set()
    for order in orders_below(problem, best.peak):
        for links in all_links(link_choices(problem, order)):
            layout = Layout(problem, order, links)
            if max(layout.load) >= best.peak or layout.shape in seen:
                continue
            seen.add(layout.shape)
            while (blocks := layout.exact(best.peak - 1)) is not None:
                best = _candidate(order, links, layout, blocks)
                if best.peak == bound:
                    return best
    return best


def _more_plans(problem: Problem, best: _Candidate, bound: int) -> _Candidate:
    """The best of `VARIANTS` drawn orders and in-place choices."""
    rng = random.Random(0)
    order = best.order
    for variant in range(VARIANTS):
        if variant % 4 == 3:
            order = _shuffled(problem, order, bound, rng)
        links = _loosened(problem, order, bound, rng, keep=(0.0, 0.5, 0.9)[variant % 3])
        layout = Layout(problem, order, links)
        for limit in (bound, best.peak - 1):
            blocks = layout.search(limit, TRIES // 4)
            if blocks is not None:
                best = _candidate(order, links, layout, blocks)
                break
        if best.peak == bound:
            break
    return best


def _loosened(
    problem: Problem, order: list[int], bound: int, rng: random.Random, keep: float
) -> list[int]:
    """In-place choices of which those that the bound can spare are dropped, but for a share `keep`.

    An output that is smaller than the input in whose place it starts leaves a hole behind it; when
    both fit side by side, the output is better put where it does not split the free space.
    """
    choices = link_choices(problem, order)
    links = [rng.choice(options) if options else -1 for options in choices]
    for op in rng.sample(range(len(order)), len(order)):
        if links[op] < 0 or rng.random() < keep:
            continue
        held, links[op] = links[op], -1
        if max(Layout(problem, order, links).load) > bound:
            links[op] = held
    return links


def _shuffled(problem: Problem, order: list[int], bound: int, rng: random.Random) -> list[int]:
    """Another order within the bound, by swaps of neighbours."""
    order = order.copy()
    for _ in range(len(order)):
        at = rng.randrange(len(order) - 1)
        first, second = order[at : at + 2]
        if problem.needs[second] >> first & 1:
            continue
        order[at : at + 2] = second, first
        if order_peak(problem, order) > bound:
            order[at : at + 2] = first, second
    return order


def lifetimes(graph: Graph, plan: MemoryPlan) -> dict[str, tuple[float, float]]:
    """(from, to) of every tensor in steps: step 0 fills the inputs, step i runs the i-th operator.

    An operator in place takes over from its input in the middle of its step, so at no moment do
    two tensors share a byte. The graph's output lives to the end, past the last step.
    """
    step = {name: float(i) for i, name in enumerate(plan.order, 1)}
    spans = {}
    for name in graph.shapes:
        first = step.get(name, 0.0)
        last = max([first, *(step[op.name] for op in graph.consumers[name])]) + 1
        spans[name] = (first, len(step) + 1.0 if name == graph.output else last)
    for op, tensor in plan.in_place.items():
        half = step[op] + 0.5
        spans[op] = (half, spans[op][1])
        spans[tensor] = (spans[tensor][0], half)
    return spans


def check_plan(graph: Graph, plan: MemoryPlan) -> None:
    """Derive all lifetimes again from the graph and the order, and check every rule of a plan.

    Raises:
        PlanError: the first rule that does not hold, with the tensors and their byte ranges.
    """
    left = _check_order(graph, plan)
    ends = _check_offsets(graph, plan)
    starts, shapes, output = plan.offsets, graph.shapes, graph.output
    ops = {op.name: op for op in graph.ops}
    live: list[str] = []
    for source in graph.inputs:
        _check_apart(source.name, live, starts, ends)
        live.append(source.name)
    live = [name for name in live if left[name] or name == output]
    for name in plan.order:
        op = ops[name]
        reused = plan.in_place.get(name)
        for tensor in set(op.inputs):
            left[tensor] -= 1
        if reused is not None:
            _check_in_place(op, reused, left, plan, shapes, output)
        _check_apart(name, [t for t in live if t != reused], starts, ends)
        live = [t for t in live if left[t] or t == output]
        if left[name] or name == output:
            live.append(name)


def _check_order(graph: Graph, plan: MemoryPlan) -> dict[str, int]:
    """Check that the order can run; returns how many operators read each tensor."""
    ops = {op.name: op for op in graph.ops}
    if len(plan.order) != len(ops) or set(plan.order) != ops.keys():
        odd = sorted(set(plan.order) ^ ops.keys()) or [n for n in ops if plan.order.count(n) > 1]
        raise PlanError(f"order: {odd[0]!r} must occur once, as in the graph; plan the graph again")
    unknown = plan.in_place.keys() - ops.keys()
    if unknown:
        raise PlanError(f"in_place: {min(unknown)!r} is no operator; plan the graph again")
    readers = dict.fromkeys(graph.shapes, 0)
    made = {source.name for source in graph.inputs}
    for name in plan.order:
        for tensor in set(ops[name].inputs):
            if tensor not in made:
                raise PlanError(
                    f"order: {name!r} runs before {tensor!r}, which it reads; plan the graph again"
                )
            readers[tensor] += 1
        made.add(name)
    return readers


def _check_offsets(graph: Graph, plan: MemoryPlan) -> dict[str, int]:
    """Check every offset by itself; returns the byte after each tensor."""
    step, ends = plan.alignment_bytes, {}
    if step < 1:
        raise PlanError(f"alignment_bytes {step}: must be 1 or more; plan the graph again")
    odd = plan.offsets.keys() ^ graph.shapes.keys()
    if odd:
        raise PlanError(
            f"offsets: tensor {min(odd)!r} must be in both graph and plan; plan the graph again"
        )
    for name, shape in graph.shapes.items():
        start = plan.offsets[name]
        if start < 0 or start % step:
            raise PlanError(
                f"{name!r} starts at byte {start}: must be a multiple of {step}, 0 or more; plan"
                " the graph again"
            )
        ends[name] = start + (size(shape) + step - 1) // step * step
        if ends[name] > plan.arena_bytes:
            raise PlanError(
                f"{name!r} takes bytes {start}..{ends[name]} of an arena of {plan.arena_bytes}:"
                " must lie inside; plan the graph again"
            )
    if max(ends.values(), default=0) != plan.arena_bytes:
        raise PlanError(
            f"arena_bytes {plan.arena_bytes}: the last tensor ends at {max(ends.values())} and the"
            " two must be equal; plan the graph again"
        )
    return ends


def _check_in_place(
    op: Op,
    reused: str,
    left: Mapping[str, int],
    plan: MemoryPlan,
    shapes: Mapping[str, Shape],
    output: str,
) -> None:
    """Check that `op` may start its output where its input `reused` starts."""
    if reused not in op.inputs:
        rule = "is not one of its inputs"
    elif reused not in reusable(op) or size(shapes[op.name]) > size(shapes[reused]):
        rule = f"cannot hold the output of a {type(op).__name__} in place"
    elif left[reused] or reused == output:
        rule = "is still needed afterwards"
    elif plan.offsets[op.name] != plan.offsets[reused]:
        rule = f"starts at byte {plan.offsets[reused]}, its output at {plan.offsets[op.name]}"
    else:
        return
    raise PlanError(f"{op.name!r} in place of {reused!r}: {reused!r} {rule}; plan the graph again")


def _check_apart(
    name: str, live: list[str], starts: Mapping[str, int], ends: Mapping[str, int]
) -> None:
    """Check that `name` shares no byte with the live tensors."""
    start, end = starts[name], ends[name]
    for other in live:
        if start < ends[other] and starts[other] < end:
            raise PlanError(
                f"{name!r} at bytes {start}..{end} overlaps {other!r} at bytes {starts[other]}.."
                f"{ends[other]}: both are live at once and must not share a byte; plan the graph"
                " again"
            )
