"""The residual blocks of a network, found by its shape: what a sum adds back to what it read."""

from dataclasses import dataclass
from typing import Literal

from nas.network.graph import Graph
from nas.network.ops import Add, Attention, Conv2d, Op, SelectiveScan

BlockKind = Literal["attention", "mamba", "feed-forward"]


@dataclass(frozen=True)
class Block:
    """Operators between a tensor and the sum that adds to it; the sum itself is left out."""

    kind: BlockKind
    inside: tuple[Op, ...]


def residual_blocks(graph: Graph) -> dict[str, Block]:
    """Name of a block's sum -> the block."""
    found = {}
    makers = {op.name: op for op in graph.ops}
    for op in graph.ops:
        if isinstance(op, Add):
            for source, other in (op.inputs, op.inputs[::-1]):
                block = _between(source, other, makers)
                if block is not None:
                    found[op.name] = block
    return found


def _between(source: str, end: str, makers: dict[str, Op]) -> Block | None:
    """What leads from `source` to `end`; None where something else does too, or no known block."""
    names, waiting = set[str](), [end]
    while waiting:
        name = waiting.pop()
        if name != source and name not in names:
            if name not in makers:  # another sensor, or this one past `source`
                return None
            names.add(name)
            waiting += makers[name].inputs
    inside = tuple(op for op in makers.values() if op.name in names)
    kind = _kind(inside)
    return None if kind is None else Block(kind, inside)


def _kind(inside: tuple[Op, ...]) -> BlockKind | None:
    if any(isinstance(op, Add) for op in inside):
        return None
    if any(isinstance(op, SelectiveScan) for op in inside):
        return "mamba"
    if any(isinstance(op, Attention) for op in inside):
        return "attention"
    linear = inside and all(isinstance(op, Conv2d) and op.kernel == (1, 1) for op in inside)
    return "feed-forward" if linear else None
