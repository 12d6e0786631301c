"""A network in words: what each operator is called, and what happens to each sensor."""

from nas.network.graph import Graph
from nas.network.ops import (
    Add,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Mul,
    Op,
    Pad,
    Pair,
    Pool,
    Reshape,
    Shape,
    Table,
    size,
)
from nas.report.format import plural, shape


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


def title(op: Op, graph: Graph) -> str:
    """A few words for the box of an operator."""
    source = graph.input_shapes(op)[0]
    if isinstance(op, Conv2d) and is_dense(op, graph):
        return f"Dense, {plural(op.channels, 'unit')}"
    if isinstance(op, Conv2d | DepthwiseConv2d):
        kind = "Conv" if isinstance(op, Conv2d) else "Depthwise"
        step = "" if max(op.stride) == 1 else f", step {_window(op.stride, source)}"
        return f"{kind} {_window(op.kernel, source)}{step}"
    if isinstance(op, Pool):
        kind = "Mean" if op.function == "average" else "Max"
        if op.kernel == source[:2]:
            return f"{kind} of all positions"
        return f"{kind} over {_window(op.kernel, source)}"
    return _plain_title(op)


def _plain_title(op: Op) -> str:
    if isinstance(op, Table):
        return op.function.replace("_", " ").capitalize()
    if isinstance(op, Add):
        return "Sum"
    if isinstance(op, Mul):
        return "Product (gate)"
    if isinstance(op, Concat):
        return f"Concatenate {len(op.inputs)}"
    if isinstance(op, Pad):
        return "Pad"
    if isinstance(op, Reshape):
        return "Flatten" if len(op.shape) == 1 or max(op.shape) == size(op.shape) else "Reshape"
    return type(op).__name__


def phrase(op: Op, graph: Graph) -> str:
    """One operator inside a sentence."""
    words = title(op, graph)
    words = words[0].lower() + words[1:]
    if isinstance(op, Conv2d) and not is_dense(op, graph):
        words += f", to {plural(op.channels, 'channel')}"
    bits = weight_bits(op)
    return f"{words} ({bits} bit)" if bits else words


def architecture_words(graph: Graph) -> list[tuple[str, str]]:
    """(part, sentence): one a sensor, and one for all that sees several sensors; plain text."""
    sensors = sensors_of(graph)
    parts = []
    for source in graph.inputs:
        branch = [op for op in graph.ops if sensors[op.name] == {source.name}]
        steps = "; ".join(phrase(op, graph) for op in branch) or "goes to the fusion as it is"
        parts.append((f"{source.name} ({shape(source.shape)})", steps))
    joined = [op for op in graph.ops if len(sensors[op.name]) > 1]
    if joined:
        parts.append(("Fusion and head", "; ".join(phrase(op, graph) for op in joined)))
    return parts
