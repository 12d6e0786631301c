"""Where the buffers lie, once the order of the operators and the in-place choices are fixed.

Tensors that follow each other in place start at one offset: they are one block, whose size falls
over time. Two blocks that are live together stand one above the other. Sizes and offsets count
units of the plan's alignment; time is that of `nas.hardware.memory_order`.
"""

import random
from collections.abc import Iterator
from itertools import product

from nas.hardware.memory_order import Problem

Neighbour = tuple[int, int, int]  # block, its size when both are live, our size then


def deaths(problem: Problem, order: list[int]) -> list[int]:
    """When each tensor is live for the last time."""
    death = [0] * len(problem.sizes)
    for time, op in enumerate(order, 1):
        death[problem.inputs + op] = time
        for tensor in problem.reads[op]:
            death[tensor] = time
    death[problem.output] = len(order) + 1
    return death


def link_choices(problem: Problem, order: list[int]) -> list[list[int]]:
    """For each operator the dying inputs in whose place its output may start."""
    death = deaths(problem, order)
    choices: list[list[int]] = [[] for _ in order]
    for time, op in enumerate(order, 1):
        choices[op] = [t for t in problem.reusable[op] if death[t] == time]
    return choices


def all_links(choices: list[list[int]]) -> Iterator[list[int]]:
    """Every combination of in-place choices; -1 where the operator is not in place."""
    return map(list, product(*([*options, -1] for options in choices)))


class Layout:
    """The blocks of one order and one set of in-place choices, and ways to place them.

    Attributes:
        sizes: size of each block when it is born, its largest.
        load: live units at each moment at which a block is born.
    """

    def __init__(self, problem: Problem, order: list[int], links: list[int]) -> None:
        death = deaths(problem, order)
        self._block = [-1] * len(problem.sizes)
        self._lives: list[tuple[int, int]] = []
        self._steps: list[list[tuple[int, int]]] = []  # (time, size) whenever the size changes
        for tensor in range(problem.inputs):
            self._open(tensor, 0, death[tensor], problem.sizes[tensor])
        for time, op in enumerate(order, 1):
            tensor = problem.inputs + op
            if links[op] < 0:
                self._open(tensor, time, death[tensor], problem.sizes[tensor])
                continue
            block = self._block[tensor] = self._block[links[op]]
            self._lives[block] = self._lives[block][0], death[tensor]
            self._steps[block].append((time, problem.sizes[tensor]))
        self.sizes = [steps[0][1] for steps in self._steps]
        self._meet()

    def _open(self, tensor: int, birth: int, death: int, units: int) -> None:
        self._block[tensor] = len(self._lives)
        self._lives.append((birth, death))
        self._steps.append([(birth, units)])

    def _meet(self) -> None:
        """Find which blocks are live together; sizes only fall, so the later birth decides."""
        self._near: list[list[Neighbour]] = [[] for _ in self.sizes]
        self._spans: list[list[tuple[int, int]]] = [[] for _ in self.sizes]  # (moment, size)
        self.load: list[int] = []
        self._births: list[int] = []
        alive: list[int] = []
        for block, (birth, _) in enumerate(self._lives):
            if not self._births or self._births[-1] != birth:
                self._births.append(birth)
                self.load.append(0)
                alive = [other for other in alive if self._lives[other][1] >= birth]
                for other in alive:
                    self._here(other, birth)
            own = self.sizes[block]
            for other in alive:
                theirs = self._spans[other][-1][1]
                self._near[block].append((other, theirs, own))
                self._near[other].append((block, own, theirs))
            alive.append(block)
            self._here(block, birth)

    def _here(self, block: int, time: int) -> None:
        """Note the size of a live block at `time`; a step at that very time comes after it."""
        units = self.sizes[block]
        for start, smaller in self._steps[block][1:]:
            if start >= time:
                break
            units = smaller
        self._spans[block].append((len(self.load) - 1, units))
        self.load[-1] += units

    @property
    def shape(self) -> tuple[object, ...]:
        """All that a placement depends on; equal for orders that differ in nothing else."""
        return tuple(map(tuple, self._near)), tuple(self._block)

    def tensor_offsets(self, blocks: list[int]) -> list[int]:
        """Offset of every tensor from those of the blocks."""
        return [blocks[block] for block in self._block]

    def peak(self, blocks: list[int]) -> int:
        """Units that a placement takes."""
        return max(map(sum, zip(blocks, self.sizes, strict=True)), default=0)

    def first_fit(self, sequence: list[int], limit: int) -> tuple[list[int], int]:
        """Put the blocks one by one at the lowest free offset.

        Returns:
            Their offsets and -1, or the place in `sequence` of the first that rose above `limit`.
        """
        offsets = [-1] * len(self.sizes)
        for place, block in enumerate(sequence):
            near = [
                (offsets[other], offsets[other] + theirs, own)
                for other, theirs, own in self._near[block]
                if offsets[other] >= 0
            ]
            near.sort()
            at, moved = 0, True
            while moved:
                moved = False
                for low, high, own in near:
                    if at < high and at + own > low:
                        at, moved = high, True
            if at + self.sizes[block] > limit:
                return offsets, place
            offsets[block] = at
        return offsets, -1

    def _sequences(self) -> Iterator[list[int]]:
        """Orders to start from: outward in time from the worst moment, and by size and company."""
        worst = self._births[self.load.index(max(self.load))]

        def from_worst(block: int) -> tuple[bool, int, int]:
            birth, death = self._lives[block]
            if birth <= worst <= death:
                return False, birth - death, -self.sizes[block]
            return True, birth - worst if birth > worst else worst - death, -self.sizes[block]

        def by_company(block: int) -> int:
            return -self.sizes[block] - sum(own for _, _, own in self._near[block])

        blocks = range(len(self.sizes))
        yield sorted(blocks, key=from_worst)
        yield sorted(blocks, key=by_company)

    def search(self, limit: int, tries: int) -> list[int] | None:
        """A placement within `limit`, or None if none was found.

        A block that did not fit moves ahead in the sequence and first fit starts again: first
        halfway to the front, which settles most graphs, then to a drawn place.
        """
        if not self.sizes:
            return []
        if max(self.load) > limit:
            return None
        for sequence in self._sequences():
            for _ in range(12):
                offsets, place = self.first_fit(sequence, limit)
                if place < 0:
                    return offsets
                sequence.insert(place // 2, sequence.pop(place))
        rng = random.Random(0)
        for _ in range(tries):
            offsets, place = self.first_fit(sequence, limit)
            if place < 0:
                return offsets
            sequence.insert(int(rng.random() * place), sequence.pop(place))
        return None

    def exact(self, limit: int) -> list[int] | None:
        """A placement within `limit`, or None if there is none."""
        if max(self.load, default=0) > limit:
            return None
        return _Stack(self._near, self._spans, self.sizes, self.load, limit).place()


class _Stack:
    """Depth-first search over all placements pushed down as far as they go.

    Blocks are placed by rising offset, so each lies on the highest of those already placed that it
    meets, and all that are still to come lie above it wherever they meet it. Hence at any moment a
    block must start low enough for itself and all those to come to fit on top of each other.
    """

    def __init__(
        self,
        near: list[list[Neighbour]],
        spans: list[list[tuple[int, int]]],
        sizes: list[int],
        load: list[int],
        limit: int,
    ) -> None:
        self.near, self.spans, self.sizes, self.limit = near, spans, sizes, limit
        self.room = [limit - units for units in load]  # highest start at each moment
        self.low = [0] * len(sizes)  # lowest start of each block
        self.offsets = [-1] * len(sizes)

    def place(self) -> list[int] | None:
        return self.offsets if self._go(list(range(len(self.sizes))), (0, -1)) else None

    def _go(self, left: list[int], last: tuple[int, int]) -> bool:
        if not left:
            return True
        caps = {block: min(self.room[moment] for moment, _ in self.spans[block]) for block in left}
        roof = min(caps.values())
        if roof < last[0] or any(self.low[b] + self.sizes[b] > self.limit for b in left):
            return False
        turns = [(self.low[b], caps[b], -self.sizes[b], b) for b in left if self.low[b] <= roof]
        for at, _, _, block in sorted(turns):
            if (at, block) > last and self._put(block, at, left):
                return True
        return False

    def _put(self, block: int, at: int, left: list[int]) -> bool:
        before = self.low.copy()
        self.offsets[block] = at
        for moment, units in self.spans[block]:
            self.room[moment] += units
        for other, _, own in self.near[block]:
            if self.offsets[other] < 0:
                self.low[other] = max(self.low[other], at + own)
        if self._go([b for b in left if b != block], (at, block)):
            return True
        self.low = before
        for moment, units in self.spans[block]:
            self.room[moment] -= units
        self.offsets[block] = -1
        return False
