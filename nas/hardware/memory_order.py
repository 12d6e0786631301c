"""In which order the operators run, so that the fewest bytes are live at once.

All sizes here count units of the plan's alignment. Time 0 is the moment when the caller has filled
every input; the operator at place i of an order runs at time i + 1.

An operator that can work in place holds no bytes of its own while it runs, so the choice *which*
dying input it reuses never changes the number of live bytes: the bound depends on the order alone.

When the operators form a tree, the best order is known: cut every branch into hill-valley segments
and merge the segments of all branches by one key (H. Abdel-Wahab and T. Kameda, "Scheduling to
minimize maximum cumulative cost subject to series-parallel precedence constraints", 1978; J. W. H.
Liu, "An application of generalized tree pebbling to sparse matrix factorization", 1987). Branches
whose inner edges are implied by others, as in a residual block, count as chains. Every other graph
goes through a best-first search over the sets of operators that have run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush
from operator import itemgetter

from nas.network import op_rules
from nas.network.graph import Graph
from nas.network.ops import size

STATES = 4000  # sets of operators that the search of a graph that is no tree may visit
SETS = 400  # sets of operators of one block from which its best order is made
BLOCKS_KEPT = 4096  # best orders: candidates of a search share most of their blocks

_BIG = 1 << 60  # larger than any number of bytes: keeps releasing segments before growing ones

Segment = tuple[int, int, int, list[int]]  # key, rise above the level before it, net change, ops


@dataclass(frozen=True, slots=True)
class Problem:
    """A graph as numbers: tensor t is input t, or the output of operator t - `inputs`.

    Attributes:
        inputs: number of graph inputs.
        sizes: size of each tensor, in units of the alignment.
        reads: the different tensors that each operator reads.
        reusable: those of them in whose place its output may start, once they die there.
        users: the operators that read each tensor, as a bit mask.
        needs: the operators that must run before each operator, as a bit mask.
        output: the tensor that lives to the end.
    """

    inputs: int
    sizes: tuple[int, ...]
    reads: tuple[tuple[int, ...], ...]
    reusable: tuple[tuple[int, ...], ...]
    users: tuple[int, ...]
    needs: tuple[int, ...]
    output: int


def problem_of(graph: Graph, alignment_bytes: int) -> Problem:
    """`graph` as numbers, with sizes in units of `alignment_bytes`."""
    shapes = graph.shapes
    index = {name: number for number, name in enumerate(shapes)}
    sizes = [-(-size(shape) // alignment_bytes) for shape in shapes.values()]
    inputs = len(graph.inputs)
    users = [0] * len(sizes)
    reads, reusable, needs = [], [], []
    for number, op in enumerate(graph.ops):
        read = [index[name] for name in op.inputs]
        if len(read) > 1:
            read = list(dict.fromkeys(read))
        need, bit = 0, 1 << number
        for tensor in read:
            users[tensor] |= bit
            if tensor >= inputs:
                need |= 1 << (tensor - inputs)
        out = sizes[inputs + number]
        reads.append(tuple(read))
        legal = dict.fromkeys(index[name] for name in op_rules.reusable(op))
        reusable.append(tuple(t for t in legal if sizes[t] >= out))
        needs.append(need)
    return Problem(
        inputs,
        tuple(sizes),
        tuple(reads),
        tuple(reusable),
        tuple(users),
        tuple(needs),
        index[graph.output],
    )


def step(problem: Problem, done: int, op: int) -> tuple[int, int]:
    """(rise while `op` runs after the set `done`, net change once it has run), in units."""
    left = ~(done | 1 << op)
    tensor = problem.inputs + op
    out = problem.sizes[tensor]
    rise = out
    net = out if problem.users[tensor] or tensor == problem.output else 0
    for read in problem.reads[op]:
        if not problem.users[read] & left and read != problem.output:
            net -= problem.sizes[read]
            if read in problem.reusable[op]:
                rise = 0
    return rise, net


def filled(problem: Problem) -> tuple[int, int]:
    """(live units once the caller has filled the inputs, live units when the first operator runs).

    They differ by the inputs that nobody reads.
    """
    total = sum(problem.sizes[: problem.inputs])
    unread = [t for t in range(problem.inputs) if not problem.users[t] and t != problem.output]
    return total, total - sum(problem.sizes[t] for t in unread)


def order_peak(problem: Problem, order: list[int]) -> int:
    """Most units live at once under `order`, with every operator in place that can be."""
    peak, level = filled(problem)
    done = 0
    for op in order:
        rise, net = step(problem, done, op)
        peak = max(peak, level + rise)
        level += net
        done |= 1 << op
    return peak


def best_order(problem: Problem) -> tuple[list[int], int]:
    """An order with the fewest live units at its worst moment, and that number.

    It is the optimum for trees of chains and small blocks, and wherever the search ends within
    `STATES`; otherwise it is the best of the order by blocks, a greedy order and the graph's own.
    """
    count = len(problem.reads)
    order, exact = _block_order(problem)
    peak = order_peak(problem, order)
    if exact or peak == filled(problem)[0]:
        return order, peak
    for other in (_greedy_order(problem), list(range(count))):
        if order_peak(problem, other) < peak:
            order, peak = other, order_peak(problem, other)
    return _search(problem, peak) or (order, peak)


def _block_order(problem: Problem) -> tuple[list[int], bool]:
    """An order by merging branches block by block, and whether it is known to be the best.

    An operator is closed when nothing that leads to it is read elsewhere. A block is what lies
    between a closed operator and the closed ones before it: one operator in a tree, more in a
    residual block. What is left once no closed operator remains counts as one last block.
    """
    inputs, users = problem.inputs, problem.users
    before: list[int] = []  # the operators that lead to each one, and itself
    readers: list[int] = []  # the operators that read any tensor on the way
    tops: list[tuple[int, list[Segment]]] = []  # operators and segments of the branches so far
    taken, exact = 0, True
    last = len(problem.reads) - 1
    for op, read in enumerate(problem.reads):
        mine, reader = 1 << op, 0
        for tensor in read:
            reader |= users[tensor]
            if tensor >= inputs:
                mine |= before[tensor - inputs]
                reader |= readers[tensor - inputs]
        before.append(mine)
        readers.append(reader)
        if op == last:
            exact = exact and mine == (1 << op + 1) - 1
            mine = (1 << op + 1) - 1
        elif reader & ~mine or not users[inputs + op]:
            continue
        children = [branch for branch in tops if branch[0] & mine]
        tops = [branch for branch in tops if not branch[0] & mine]
        segments = _merge([branch[1] for branch in children])
        block = mine & ~taken
        if block == 1 << op:
            _append(segments, *step(problem, mine ^ block, op), [op])
        else:
            under = mine ^ block
            exact &= all(not under & ~before[o] for o in _members(block))
            exact &= _append_block(problem, segments, under, block)
        taken |= mine
        tops.append((mine, segments))
    return [op for _, segments in tops for segment in segments for op in segment[3]], exact


def _members(mask: int) -> Iterator[int]:
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


def _merge(branches: list[list[Segment]]) -> list[Segment]:
    """All segments of the branches in the best order; those of one branch keep theirs."""
    if len(branches) == 1:
        return branches[0]
    return sorted((s for branch in branches for s in branch), key=itemgetter(0))


def _append_block(problem: Problem, segments: list[Segment], done: int, block: int) -> bool:
    """Add the best order of a block; False when it may depend on what runs between its steps."""
    members = list(_members(block))
    order, exact = _best_way(_part(problem, members))
    for place in order:
        op = members[place]
        _append(segments, *step(problem, done, op), [op])
        done |= 1 << op
    return exact


def _part(problem: Problem, members: list[int]) -> Problem:
    """Some operators as a problem of their own, equal wherever the same block occurs.

    Its inputs are what they read of others. A bit above the operators stands for users elsewhere.
    """
    place = {op: number for number, op in enumerate(members)}
    outputs = {problem.inputs + op for op in members}
    read = dict.fromkeys(t for op in members for t in problem.reads[op] if t not in outputs)
    tensors = [*read, *(problem.inputs + op for op in members)]
    index = {tensor: number for number, tensor in enumerate(tensors)}
    users = []
    for tensor in tensors:
        mine = 1 << len(members) if tensor == problem.output else 0
        for op in _members(problem.users[tensor]):
            mine |= 1 << place.get(op, len(members))
        users.append(mine)
    return Problem(
        len(read),
        tuple(problem.sizes[t] for t in tensors),
        tuple(tuple(index[t] for t in problem.reads[op]) for op in members),
        tuple(tuple(index[t] for t in problem.reusable[op]) for op in members),
        tuple(users),
        tuple(
            sum(1 << place[before] for before in _members(problem.needs[op]) if before in place)
            for op in members
        ),
        -1,
    )


@lru_cache(BLOCKS_KEPT)
def _best_way(part: Problem) -> tuple[tuple[int, ...], bool]:
    """The order of a part that is never above any other order, and whether there is such a one.

    Grows all orders at once by the set of operators that have run, and keeps of each set those
    orders that none of the others stays below.
    """
    layer: dict[int, list[list[Segment]]] = {0: [[]]}
    sets = 0
    for _ in part.reads:
        longer: dict[int, list[list[Segment]]] = {}
        for done, ways in layer.items():
            for op in ready(part, done):
                rise, net = step(part, done, op)
                kept = longer.setdefault(done | 1 << op, [])
                for way in ways:
                    grown = [*way]
                    _append(grown, rise, net, [op])
                    _keep_lowest(kept, grown)
        layer = longer
        sets += len(layer)
        if sets > SETS:
            return tuple(_greedy_order(part)), False
    (ways,) = layer.values()
    best = min(ways, key=lambda way: (max(_levels(way)), _levels(way)))
    return tuple(op for segment in best for op in segment[3]), len(ways) == 1


def _keep_lowest(kept: list[list[Segment]], way: list[Segment]) -> None:
    """Adds a way to those of the same operators, unless one of them is never above it."""
    levels = _levels(way)
    if not any(_never_above(_levels(other), levels) for other in kept):
        kept[:] = [other for other in kept if not _never_above(levels, _levels(other))] + [way]


def _levels(segments: list[Segment]) -> list[int]:
    """Start, hill, valley, hill, valley and so on of a branch."""
    levels = [0]
    for _, rise, net, _ in segments:
        levels += [levels[-1] + rise, levels[-1] + net]
    return levels


def _never_above(low: list[int], high: list[int]) -> bool:
    """Whether `low` can be walked beside `high`, each at its own pace, without rising above it."""
    reached = {(0, 0)}
    for i, a in enumerate(low):
        for j, b in enumerate(high):
            if a <= b and not reached.isdisjoint(((i - 1, j), (i, j - 1), (i - 1, j - 1))):
                reached.add((i, j))
    return (len(low) - 1, len(high) - 1) in reached


def _append(segments: list[Segment], rise: int, net: int, ops: list[int]) -> None:
    """Add a step to a branch; segments that no optimal merge would part become one.

    Segments that release memory go first, by rise; those that keep memory go last, by how far they
    fall after their hill. A step that would go before the segment ahead of it joins that segment.
    """
    key = rise if net <= 0 else _BIG + net - rise
    while segments and segments[-1][0] > key:
        _, hill, before, head = segments.pop()
        rise = max(hill, before + rise)
        net += before
        ops = head + ops
        key = rise if net <= 0 else _BIG + net - rise
    segments.append((key, rise, net, ops))


def ready(problem: Problem, done: int) -> Iterator[int]:
    """The operators that can run after the set `done`."""
    for op, need in enumerate(problem.needs):
        if not done >> op & 1 and not need & ~done:
            yield op


def orders_below(problem: Problem, limit: int) -> Iterator[list[int]]:
    """All orders that keep fewer than `limit` units live, with every operator in place."""

    def go(done: int, level: int, order: list[int]) -> Iterator[list[int]]:
        if len(order) == len(problem.reads):
            yield order
        for op in ready(problem, done):
            rise, net = step(problem, done, op)
            if level + rise < limit:
                yield from go(done | 1 << op, level + net, [*order, op])

    peak, level = filled(problem)
    if peak < limit:
        yield from go(0, level, [])


def _greedy_order(problem: Problem) -> list[int]:
    """The next operator is the one with the lowest level afterwards, then the lowest rise."""
    order: list[int] = []
    done = 0
    while len(order) < len(problem.reads):
        steps = [(*reversed(step(problem, done, op)), op) for op in ready(problem, done)]
        op = min(steps)[2]
        order.append(op)
        done |= 1 << op
    return order


def _search(problem: Problem, limit: int) -> tuple[list[int], int] | None:
    """The best order with a peak below `limit`, or None if there is none or `STATES` ran out.

    An operator that raises nothing above the peak so far and leaves no more bytes live than before
    can run at once: every order that runs it later is no worse with it moved to the front, because
    what it releases only grows with the set of operators that have run.
    """
    peak, level = filled(problem)
    everything = (1 << len(problem.reads)) - 1
    came: dict[int, tuple[int, int]] = {}
    heap = [(peak, 0, 0, level)]
    closed: set[int] = set()
    best = {0: peak}
    while heap and len(closed) < STATES:
        peak, depth, done, level = heappop(heap)
        if done == everything:
            return _trace(came, done), peak
        if done in closed or peak >= limit:
            continue
        closed.add(done)
        steps = [(op, *step(problem, done, op)) for op in ready(problem, done)]
        safe = [s for s in steps if s[2] <= 0 and level + s[1] <= peak]
        for op, rise, net in safe[:1] or steps:
            after, high = done | 1 << op, max(peak, level + rise)
            if high < min(limit, best.get(after, limit)):
                best[after] = high
                came[after] = (done, op)
                heappush(heap, (high, depth - 1, after, level + net))
    return None


def _trace(came: dict[int, tuple[int, int]], done: int) -> list[int]:
    order = []
    while done:
        done, op = came[done]
        order.append(op)
    return order[::-1]
