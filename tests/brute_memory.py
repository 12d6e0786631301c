"""The smallest arena of a small graph by brute force, simple and independent of the planner.

Every order, every in-place choice and every offset are tried, in one walk over states. It takes
milliseconds while a graph has up to 8 operators and its tensors a few units of the alignment.
"""

from collections.abc import Callable, Iterator

from nas.network.graph import Graph
from nas.network.op_rules import OPS
from nas.network.ops import Op, size

Walk = Callable[[frozenset[str], frozenset[str]], int]


def units(graph: Graph, tensor: str, alignment: int) -> int:
    return -(-size(graph.shapes[tensor]) // alignment)


class Brute:
    """The smallest arena of a graph, in units of the alignment."""

    def __init__(self, graph: Graph, alignment: int) -> None:
        self.graph = graph
        self.size = {name: units(graph, name, alignment) for name in graph.shapes}

    def dead(self, tensor: str, done: frozenset[str]) -> bool:
        readers = {op.name for op in self.graph.consumers[tensor]}
        return tensor != self.graph.output and readers <= done

    def runs(self, done: frozenset[str], live: set[str]) -> Iterator[Op]:
        made = {source.name for source in self.graph.inputs} | done
        for op in self.graph.ops:
            if op.name not in done and set(op.inputs) <= made:
                yield op

    def reusable(self, op: Op, done: frozenset[str]) -> list[str]:
        places = OPS[type(op)].in_place
        kept = [name for i, name in enumerate(op.inputs) if i not in places]
        legal = [name for name in dict.fromkeys(op.inputs) if name not in kept]
        return [name for name in legal if self.dead(name, done | {op.name})]

    def live_bound(self) -> int:
        """Fewest live units at the worst moment over all orders."""
        memo: dict[frozenset[str], int] = {}

        def go(done: frozenset[str], live: frozenset[str]) -> int:
            if len(done) == len(self.graph.ops):
                return 0
            if done not in memo:
                memo[done] = min(self.after(go, op, done, live) for op in self.runs(done, live))
            return memo[done]

        inputs = frozenset(source.name for source in self.graph.inputs)
        kept = frozenset(n for n in inputs if not self.dead(n, frozenset()))
        return max(sum(self.size[n] for n in inputs), go(frozenset(), kept))

    def after(self, go: Walk, op: Op, done: frozenset[str], live: frozenset[str]) -> int:
        during = sum(self.size[n] for n in live)
        during += 0 if self.reusable(op, done) else self.size[op.name]
        after = done | {op.name}
        kept = frozenset(n for n in live | {op.name} if not self.dead(n, after))
        return max(during, go(after, kept))

    def smallest_arena(self) -> int:
        arena = self.live_bound()
        while not self.fits(arena):
            arena += 1
        return arena

    def fits(self, arena: int) -> bool:
        self.failed: set[object] = set()
        self.arena = arena
        return self.fill([source.name for source in self.graph.inputs], {})

    def free(self, name: str, placed: dict[str, int]) -> list[int]:
        """Every start that overlaps nothing; those that touch something come first."""
        own = self.size[name]
        ends = {0, *(at + self.size[other] for other, at in placed.items())}
        tops = {self.arena, *placed.values()}
        starts = [
            start
            for start in range(self.arena - own + 1)
            if all(
                start + own <= at or at + self.size[other] <= start for other, at in placed.items()
            )
        ]
        return sorted(starts, key=lambda start: start not in ends and start + own not in tops)

    def fill(self, names: list[str], placed: dict[str, int]) -> bool:
        if not names:
            kept = {n: at for n, at in placed.items() if not self.dead(n, frozenset())}
            return self.run(frozenset(), kept)
        first, *rest = names
        return any(self.fill(rest, {**placed, first: at}) for at in self.free(first, placed))

    def run(self, done: frozenset[str], placed: dict[str, int]) -> bool:
        if len(done) == len(self.graph.ops):
            return True
        state = done, frozenset(placed.items())
        if state in self.failed:
            return False
        for op in self.runs(done, set(placed)):
            starts = [placed[name] for name in self.reusable(op, done)]
            for at in [*starts, *self.free(op.name, placed)]:
                after = done | {op.name}
                both = {**placed, op.name: at}
                kept = {n: offset for n, offset in both.items() if not self.dead(n, after)}
                if self.run(after, kept):
                    return True
        self.failed.add(state)
        return False
