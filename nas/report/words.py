"""A network in words: what each operator is called, and what happens to each sensor."""

from collections.abc import Callable
from typing import Any

from nas.network.graph import Graph
from nas.network.ops import (
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    History,
    LastStep,
    Mul,
    Op,
    Pad,
    Pair,
    Pool,
    Positions,
    Reshape,
    Running,
    SelectiveScan,
    Shape,
    Table,
    size,
)
from nas.report.blocks import Block, residual_blocks
from nas.report.format import plural, shape

NAMES = {"silu": "SiLU"}  # of functions whose capitals are not at the front


def sensors_of(graph: Graph) -> dict[str, frozenset[str]]:
    """The inputs that every tensor depends on."""
    found = {source.name: frozenset([source.name]) for source in graph.inputs}
    for op in graph.ops:
        found[op.name] = frozenset[str]().union(*(found[name] for name in op.inputs))
    return found


def weight_bits(op: Op) -> int | None:
    """Bits of a weight, None without weights."""
    return op.weight_bits if isinstance(op, Conv2d | DepthwiseConv2d) else None


def has_relu(op: Op) -> bool:
    """Whether the operator clips at zero."""
    return isinstance(op, Conv2d | DepthwiseConv2d | Add) and op.relu


def is_dense(op: Conv2d, graph: Graph) -> bool:
    """Whether a convolution is a fully connected layer: one position, one weight a pair."""
    return size(graph.input_shapes(op)[0][:2]) * size(op.kernel) == 1


def _window(kernel: Pair, source: Shape) -> str:
    return str(kernel[1]) if source[0] == 1 and kernel[0] == 1 else shape(kernel)


def _conv_title(op: Conv2d, graph: Graph) -> str:
    if is_dense(op, graph):
        return f"Dense, {plural(op.channels, 'unit')}"
    if graph.input_shapes(op)[0][0] == 1 and op.kernel == op.stride == (1, 1):
        return f"Linear, {_role(op, graph)}"
    return _window_title("Conv", op, graph)


# What the inputs of an operator are to it, in a few words.
ROLES: dict[type[Op], tuple[str, ...]] = {
    Attention: ("queries", "keys", "values"),
    SelectiveScan: ("input", "step sizes", "state in", "state out", "gate"),
}


def _role(op: Op, graph: Graph) -> str:
    """What a linear layer makes, known from who reads it, maybe through a table."""
    readers = graph.consumers[op.name]
    if len(readers) != 1:
        return "each step"
    if isinstance(readers[0], Table):
        return _role(readers[0], graph)
    roles = ROLES.get(type(readers[0]))
    return roles[readers[0].inputs.index(op.name)] if roles else "each step"


def _window_title(kind: str, op: Conv2d | DepthwiseConv2d, graph: Graph) -> str:
    source = graph.input_shapes(op)[0]
    step = "" if max(op.stride) == 1 else f", step {_window(op.stride, source)}"
    causal = "Causal " + kind.lower() if op.padding == "causal" else kind
    return f"{causal} {_window(op.kernel, source)}{step}"


def _pool_title(op: Pool, graph: Graph) -> str:
    source = graph.input_shapes(op)[0]
    kind = "Mean" if op.function == "average" else "Max"
    if op.kernel == source[:2]:
        return f"{kind} of all positions"
    return f"{kind} over {_window(op.kernel, source)}"


def _reshape_title(op: Reshape, graph: Graph) -> str:
    return "Flatten" if len(op.shape) == 1 or max(op.shape) == size(op.shape) else "Reshape"


def _scan_title(op: SelectiveScan, graph: Graph) -> str:
    return f"Scan, {plural(graph.input_shapes(op)[2][2], 'state')}"


TITLES: dict[type[Op], Callable[[Any, Graph], str]] = {
    Conv2d: _conv_title,
    DepthwiseConv2d: lambda op, graph: _window_title("Depthwise", op, graph),
    Pool: _pool_title,
    Add: lambda op, graph: "Sum",
    Mul: lambda op, graph: "Product (gate)",
    Concat: lambda op, graph: f"Concatenate {len(op.inputs)}",
    Table: lambda op, graph: NAMES.get(op.function, op.function.replace("_", " ").capitalize()),
    Pad: lambda op, graph: "Pad",
    Reshape: _reshape_title,
    Attention: lambda op, graph: f"Attention, {plural(op.heads, 'head')}",
    SelectiveScan: _scan_title,
    Positions: lambda op, graph: f"Positions, {op.kind}",
    LastStep: lambda op, graph: "Last step",
    History: lambda op, graph: f"{plural(op.steps, 'step')} of before",
    Running: lambda op, graph: f"{'Mean' if op.function == 'average' else 'Max'} of all runs",
}


def title(op: Op, graph: Graph) -> str:
    """A few words for the box of an operator."""
    return TITLES[type(op)](op, graph)


def phrase(op: Op, graph: Graph) -> str:
    """One operator inside a sentence."""
    words = title(op, graph)
    if words not in NAMES.values():
        words = words[0].lower() + words[1:]
    if isinstance(op, Conv2d) and not is_dense(op, graph):
        words += f", to {plural(op.channels, 'channel')}"
    if words == "reshape":
        words += f" to {shape(graph.shapes[op.name])}"
    bits = weight_bits(op)
    return f"{words} ({bits} bit)" if bits else words


def block_phrase(block: Block, graph: Graph) -> str:
    """One residual block inside a sentence."""
    bits = sorted({bits for op in block.inside if (bits := weight_bits(op))}, reverse=True)
    known = f"({' and '.join(map(str, bits))} bit)"
    if block.kind == "attention":
        heads = next(op.heads for op in block.inside if isinstance(op, Attention))
        return f"self-attention of {plural(heads, 'head')} around a residual {known}"
    if block.kind == "mamba":
        scan = next(op for op in block.inside if isinstance(op, SelectiveScan))
        channels, states = graph.shapes[scan.name][2], graph.input_shapes(scan)[2][2]
        return (
            f"Mamba block of {plural(channels, 'channel')} with {plural(states, 'state')} each"
            f" {known}"
        )
    widest = max(graph.shapes[op.name][2] for op in block.inside)
    return f"feed-forward over {plural(widest, 'channel')} around a residual {known}"


def _phrases(ops: list[Op], graph: Graph) -> str:
    """Operators in order, each block as one."""
    blocks = residual_blocks(graph)
    inside = {op.name for block in blocks.values() for op in block.inside}
    parts = [
        block_phrase(blocks[op.name], graph) if op.name in blocks else phrase(op, graph)
        for op in ops
        if op.name not in inside
    ]
    return "; ".join(parts)


def architecture_words(graph: Graph) -> list[tuple[str, str]]:
    """(part, sentence): one a sensor, and one for all that sees several sensors; plain text."""
    sensors = sensors_of(graph)
    parts = []
    for source in graph.inputs:
        branch = [op for op in graph.ops if sensors[op.name] == {source.name}]
        steps = _phrases(branch, graph) or "goes to the fusion as it is"
        parts.append((f"{source.name} ({shape(source.shape)})", steps))
    joined = [op for op in graph.ops if len(sensors[op.name]) > 1]
    if joined:
        parts.append(("Fusion and head", _phrases(joined, graph)))
    return parts
