"""Which students can be trained as one, and are trained faster so; `packs` does it."""

from dataclasses import replace

from nas.network.graph import Graph
from nas.network.ops import (
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Mul,
    Op,
    Pad,
    Pool,
    Reshape,
    Table,
)
from nas.training.recipe import TrainOn

PACKED = {
    *(Add, Attention, Concat, Conv2d, DepthwiseConv2d, LastStep, Mul, Pad, Pool, Reshape, Table)
}  # operators that work on the batches of several students at once
MOST_MACS = 200_000  # on a CPU, of larger students a pack takes as long as one after the other
LINEAR = (Conv2d, DepthwiseConv2d)


def shape_of(graph: Graph) -> Graph:
    """The graph with all weights at 8 bits: what may be packed is equal in it."""
    ops: list[Op] = [
        replace(op, weight_bits=8) if isinstance(op, LINEAR) else op for op in graph.ops
    ]
    return replace(graph, ops=tuple(ops))


def packable(graph: Graph, train_on: TrainOn = "cpu") -> bool:
    """Whether students of a graph's shape can be trained as one, and faster than alone.

    On a CUDA device of any size: there a step of any student that fits is short of work.
    """
    small = train_on == "cuda" or sum(graph.macs(op) for op in graph.ops) <= MOST_MACS
    groups = graph.scale_groups
    given = {groups[source.name] for source in graph.inputs}
    given |= {groups[op.name] for op in graph.ops if isinstance(op, Table)}
    follows = all(groups[op.name] not in given for op in graph.ops if isinstance(op, LINEAR))
    return small and follows and {type(op) for op in graph.ops} <= PACKED
