"""Seeded random legal graphs, shared by tests and benchmarks.

`random_graph` makes any directed acyclic graph of the operator set; `random_multimodal` makes what
a search proposes: one branch a sensor, a fusion, a head.
"""

import random
from collections.abc import Callable

from nas.network.graph import Graph, Input
from nas.network.op_rules import OPS
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

ALL_KINDS: tuple[type[Op], ...] = (
    *(Conv2d, DepthwiseConv2d, Pool, Add, Mul, Concat, Table, Pad, Reshape),
)  # what fits any tensor; `sequence_graphs` has the rest


class Builder:
    """Collects operators and their shapes; every method returns the name of the new tensor."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.inputs: list[Input] = []
        self.ops: list[Op] = []
        self.shapes: dict[str, Shape] = {}

    def input(self, shape: Shape) -> str:
        name = f"in{len(self.inputs)}"
        self.inputs.append(Input(name, shape))
        self.shapes[name] = shape
        return name

    def add(self, kind: Callable[..., Op], *sources: str, **values: object) -> str:
        op = kind(name=f"t{len(self.ops)}", inputs=sources, **values)
        shape = OPS[type(op)].shape(op, [self.shapes[name] for name in sources])
        self.ops.append(op)
        self.shapes[op.name] = shape
        return op.name

    def graph(self, output: str) -> Graph:
        return Graph(tuple(self.inputs), tuple(self.ops), output)

    def window(self, source: str, most: int = 3) -> Pair:
        """A window that fits into `source`."""
        height, width, _ = self.shapes[source]
        return self.rng.randint(1, min(most, height)), self.rng.randint(1, min(most, width))

    def conv(self, source: str, channels: int | None = None, stride: Pair | None = None) -> str:
        """A dense convolution; `same` unless its window is drawn to fit."""
        rng = self.rng
        return self.add(
            Conv2d,
            source,
            channels=channels or rng.randint(1, 8),
            kernel=self.window(source),
            stride=stride or (rng.randint(1, 2), rng.randint(1, 2)),
            padding="same" if channels else rng.choice(("same", "valid")),
            weight_bits=rng.choice((8, 4, 2)),
            relu=rng.random() < 0.7,
        )

    def depthwise(self, source: str, stride: Pair | None = None) -> str:
        rng = self.rng
        return self.add(
            DepthwiseConv2d,
            source,
            kernel=self.window(source),
            stride=stride or (rng.randint(1, 2), rng.randint(1, 2)),
            padding="same" if stride else rng.choice(("same", "valid")),
            weight_bits=rng.choice((8, 4, 2)),
            relu=rng.random() < 0.7,
        )

    def pool(self, source: str, kernel: Pair, stride: Pair) -> str:
        function = self.rng.choice(("average", "max"))
        return self.add(Pool, source, function=function, kernel=kernel, stride=stride)

    def table(self, source: str) -> str:
        function = self.rng.choice(("sigmoid", "tanh", "hard_swish"))
        return self.add(Table, source, function=function)

    def global_pool(self, source: str) -> str:
        window = self.shapes[source][:2]
        return self.pool(source, window, window)

    def unary(self, kind: type[Op], source: str) -> str:
        """An operator of `kind` with drawn settings on `source`."""
        rng = self.rng
        if kind is Conv2d:
            return self.conv(source)
        if kind is DepthwiseConv2d:
            return self.depthwise(source)
        if kind is Pool:
            return self.pool(source, self.window(source), (rng.randint(1, 2), rng.randint(1, 2)))
        if kind is Table:
            return self.table(source)
        if kind is Pad:
            return self.add(Pad, source, padding=tuple(rng.randint(0, 1) for _ in range(4)))
        height, width, channels = self.shapes[source]
        shape = rng.choice(((1, height * width, channels), (1, 1, height * width * channels)))
        return self.add(Reshape, source, shape=shape)


def random_graph(
    rng: random.Random,
    max_ops: int = 8,
    *,
    extent: int = 4,
    channels: int = 4,
    kinds: tuple[type[Op], ...] = ALL_KINDS,
    dead_ends: bool = False,
) -> Graph:
    """A legal graph of 1 to `max_ops` operators and 1 to 4 inputs.

    Tensors have several consumers; additions take any two tensors of one shape. Without `dead_ends`
    every operator leads to the output, which is the last one.

    Args:
        rng: the source of every choice.
        max_ops: most operators.
        extent: largest height and width of an input.
        channels: most channels of an input.
        kinds: the operators to draw from; Reshape and Concat join loose ends even if absent.
        dead_ends: leave loose ends as they are and take any tensor as the output.
    """
    while True:
        builder = Builder(rng)
        _draw_inputs(builder, extent, channels)
        for _ in range(rng.randint(1, max_ops)):
            _draw_op(builder, kinds)
        if dead_ends:
            return builder.graph(rng.choice(list(builder.shapes)))
        output = _join(builder, _loose(builder))
        if len(builder.ops) <= max_ops:
            return builder.graph(output)


def _draw_inputs(builder: Builder, extent: int, channels: int) -> None:
    rng = builder.rng
    shared = (rng.randint(1, extent), rng.randint(1, extent), rng.randint(1, channels))
    for _ in range(rng.randint(1, 4)):
        own = (rng.randint(1, extent), rng.randint(1, extent), rng.randint(1, channels))
        builder.input(shared if rng.random() < 0.4 else own)


def _draw_op(builder: Builder, kinds: tuple[type[Op], ...]) -> None:
    rng = builder.rng
    # Loose ends first, or few graphs would have one output.
    loose = _loose(builder)
    source = rng.choice(loose if rng.random() < 0.7 else list(builder.shapes))
    kind = rng.choice(kinds)
    shape = builder.shapes[source]
    if kind is Add or kind is Mul:
        others = [name for name, other in builder.shapes.items() if other == shape]
        apart = [name for name in others if name != source] or others
        values = {"relu": rng.random() < 0.5} if kind is Add else {}
        builder.add(kind, source, rng.choice(apart if rng.random() < 0.9 else others), **values)
    elif kind is Concat:
        others = [name for name, other in builder.shapes.items() if other[:2] == shape[:2]]
        builder.add(Concat, source, *rng.choices(others, k=rng.randint(1, 2)))
    else:
        builder.unary(kind, source)


def _loose(builder: Builder) -> list[str]:
    read = {name for op in builder.ops for name in op.inputs}
    return [name for name in builder.shapes if name not in read]


def _join(builder: Builder, loose: list[str]) -> str:
    if len(loose) == 1:
        return loose[0]
    if len({builder.shapes[name][:2] for name in loose}) > 1:
        loose = [_flat(builder, name) for name in loose]
    return builder.add(Concat, *loose)


def _flat(builder: Builder, name: str) -> str:
    shape = builder.shapes[name]
    flat = (1, 1, size(shape))
    return name if shape == flat else builder.add(Reshape, name, shape=flat)


def random_multimodal(
    rng: random.Random, *, branches: tuple[int, int] = (2, 4), residual: float = 0.0
) -> Graph:
    """Branches of 4 to 10 operators that meet in a fusion, then a head: 20 to 30 operators.

    Args:
        rng: the source of every choice.
        branches: fewest and most sensors.
        residual: chance of a residual block at each step of a branch; at 0 the graph is a tree in
            which every tensor has one consumer.
    """
    builder = Builder(rng)
    sources = [builder.input(_sensor(rng)) for _ in range(rng.randint(*branches))]
    ends = [_branch(builder, source, rng.randint(4, 10), residual) for source in sources]
    fused = _fuse(builder, ends)
    if rng.random() < 0.7:
        fused = builder.conv(fused, rng.choice((8, 16, 32)), (1, 1))
    classes = rng.randint(2, 12)
    logits = builder.conv(fused, classes, (1, 1))
    return builder.graph(builder.add(Reshape, logits, shape=(classes,)))


def _sensor(rng: random.Random) -> Shape:
    kind = rng.random()
    if kind < 0.6:
        return 1, rng.choice((50, 64, 100, 128, 200, 256)), rng.choice((1, 3, 6, 9, 12))
    if kind < 0.85:
        side = rng.choice((16, 24, 32, 49))
        return side, rng.choice((10, 16, side)), rng.choice((1, 3))
    return 1, 1, rng.randint(8, 64)


def _branch(builder: Builder, at: str, length: int, residual: float) -> str:
    rng = builder.rng
    first = len(builder.ops)
    while len(builder.ops) - first < length - 1:
        if rng.random() < residual:
            at = _residual(builder, at)
            continue
        height, width, _ = builder.shapes[at]
        kernel = min(2, height), min(2, width)
        stride = rng.choice(((1, 1), kernel))
        kind = rng.random()
        if kind < 0.4:
            at = builder.conv(at, rng.choice((4, 8, 12, 16, 24)), stride)
        elif kind < 0.65:
            at = builder.depthwise(at, stride)
        elif kind < 0.8:
            at = builder.pool(at, kernel, kernel)
        elif kind < 0.92:
            at = builder.table(at)
        else:
            at = builder.add(Pad, at, padding=(0, 0, rng.randint(0, 2), rng.randint(0, 2)))
    return builder.global_pool(at)


def _residual(builder: Builder, at: str) -> str:
    """An identity block, one with a projection, or a gate: the three shapes of a skip."""
    rng = builder.rng
    kind, channels = rng.random(), builder.shapes[at][2]
    if kind < 0.5:
        inner = builder.conv(at, channels, (1, 1))
        return builder.add(Add, at, builder.depthwise(inner, (1, 1)), relu=True)
    wide = rng.choice((4, 8, 16))
    if kind < 0.75:
        inner = builder.conv(builder.conv(at, wide, (1, 1)), wide, (1, 1))
        return builder.add(Add, inner, builder.conv(at, wide, (1, 1)), relu=True)
    gate = builder.table(builder.conv(at, wide, (1, 1)))
    return builder.add(Mul, builder.conv(at, wide, (1, 1)), gate)


def _fuse(builder: Builder, ends: list[str]) -> str:
    """Concatenation, or a sum or product of equal features."""
    rng = builder.rng
    if rng.random() < 0.5:
        return builder.add(Concat, *ends)
    features = rng.choice((8, 16))
    fused, *others = [builder.conv(end, features, (1, 1)) for end in ends]
    for other in others:
        if rng.random() < 0.5:
            fused = builder.add(Add, fused, other, relu=False)
        else:
            fused = builder.add(Mul, fused, builder.table(other))
    return fused
