"""What a graph alone says of the values that its tensors can take."""

from nas.network.graph import Graph
from nas.network.ops import Add, Conv2d, DepthwiseConv2d, Op, Positions, SelectiveScan, Table


def non_negative_groups(graph: Graph) -> dict[str, bool]:
    """Scale group -> whether none of its tensors can be below real zero.

    A group that must have zero point 0 counts as one that can.
    """
    known = {source.name: False for source in graph.inputs}
    for op in graph.ops:
        if isinstance(op, Conv2d | DepthwiseConv2d):
            known[op.name] = op.relu
        elif isinstance(op, Table):
            known[op.name] = op.function == "sigmoid"
        elif isinstance(op, Positions | SelectiveScan):
            known[op.name] = False
        else:
            relu = isinstance(op, Add) and op.relu
            known[op.name] = relu or all(known[name] for name in op.inputs)
    groups = graph.scale_groups
    result = {group: group not in graph.symmetric for group in groups.values()}
    for name, positive in known.items():
        result[groups[name]] &= positive
    return result


def is_clipped(op: Op, graph: Graph) -> bool:
    """Whether a ReLU shares its scale with tensors that go below zero, so that its own zero is not
    the least int8 and a pass of its own has to cut what lies below.
    """
    relu = isinstance(op, Conv2d | DepthwiseConv2d) and op.relu
    return relu and not non_negative_groups(graph)[graph.scale_groups[op.name]]
