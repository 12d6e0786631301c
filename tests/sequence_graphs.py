"""Seeded random networks of the families that work on series: attention, scans, causal layers."""

import itertools
import random
from typing import Literal

from nas.network.graph import Graph, Input
from nas.network.ops import (
    WEIGHT_BITS,
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Op,
    Padding,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Table,
)

Family = Literal["transformer", "mamba", "causal"]
FAMILIES: tuple[Family, ...] = ("transformer", "mamba", "causal")


class _Grower:
    """Appends operators; every method returns the name of the new tensor."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ops: list[Op] = []
        self._names = itertools.count()

    def put(self, op: Op) -> str:
        self.ops.append(op)
        return op.name

    def name(self) -> str:
        return f"t{next(self._names)}"

    def linear(
        self,
        x: str,
        channels: int,
        relu: bool = False,
        kernel: int = 1,
        stride: int = 1,
        padding: Padding = "valid",
    ) -> str:
        bits = self.rng.choice(WEIGHT_BITS)
        window, step = (1, kernel), (1, stride)
        return self.put(Conv2d(self.name(), (x,), channels, window, step, padding, bits, relu))

    def table(self, x: str, function: Literal["silu", "tanh"]) -> str:
        return self.put(Table(self.name(), (x,), function))

    def transformer_block(self, x: str, width: int) -> str:
        heads = self.rng.choice([h for h in (1, 2, 3, 4) if width % h == 0])
        q, k, v = (self.linear(x, width) for _ in range(3))
        mixed = self.put(Attention(self.name(), (q, k, v), heads))
        x = self.put(Add(self.name(), (x, self.linear(mixed, width)), False))
        inner = self.linear(x, width * self.rng.choice((1, 2)), relu=True)
        return self.put(Add(self.name(), (x, self.linear(inner, width)), False))

    def mamba_block(self, x: str, width: int) -> str:
        inner, states = width * self.rng.choice((1, 2)), self.rng.choice((2, 3, 4, 8))
        z = self.table(self.linear(x, inner), "silu")
        kernel = self.rng.choice((2, 3, 4))
        filtered = self.put(
            DepthwiseConv2d(
                self.name(), (self.linear(x, inner),), (1, kernel), (1, 1), "causal", 8, False
            )
        )
        u = self.table(filtered, "silu")
        dt = self.linear(self.linear(u, self.rng.choice((1, 2))), inner)
        b, c = (self.table(self.linear(u, states), "tanh") for _ in range(2))
        scanned = self.put(SelectiveScan(self.name(), (u, dt, b, c, z), False))
        return self.put(Add(self.name(), (x, self.linear(scanned, width)), False))

    def causal_block(self, x: str, width: int) -> str:
        return self.linear(x, width, relu=True, kernel=self.rng.choice((2, 3, 5)), padding="causal")


def _branch(grow: _Grower, source: Input, family: Family, width: int) -> str:
    rng, steps = grow.rng, source.shape[1]
    stride = rng.choice([s for s in (1, 2, 4) if steps % s == 0 and steps // s > 1])
    kernel = stride + rng.choice((0, 1, 3)) if family != "transformer" else stride
    padding: Padding = "valid" if family == "transformer" else "causal"
    x = grow.linear(source.name, width, rng.random() < 0.5, kernel, stride, padding)
    if family == "transformer":
        x = grow.put(Positions(grow.name(), (x,), rng.choice(("learned", "sinusoidal"))))
    blocks = {
        "transformer": grow.transformer_block,
        "mamba": grow.mamba_block,
        "causal": grow.causal_block,
    }
    for _ in range(rng.randint(1, 2)):
        x = blocks[family](x, width)
    left = steps // stride
    if rng.random() < 0.5:
        return grow.put(LastStep(grow.name(), (x,)))
    function: Literal["average", "max"] = "average" if rng.random() < 0.7 else "max"
    return grow.put(Pool(grow.name(), (x,), function, (1, left), (1, left)))


def random_sequence(rng: random.Random, family: Family) -> Graph:
    """One or two series of one length, maybe a feature vector, a fusion and a head."""
    steps = rng.choice((8, 12, 16, 24, 64))
    inputs = [Input(f"s{i}", (1, steps, rng.randint(1, 8))) for i in range(rng.randint(1, 2))]
    grow = _Grower(rng)
    width = rng.choice((4, 6, 8, 12, 16))
    ends = [_branch(grow, source, family, width) for source in inputs]
    if rng.random() < 0.4:
        inputs.append(Input("v", (1, 1, rng.randint(2, 12))))
        ends.append(grow.linear("v", width, relu=True))
    x = ends[0]
    if len(ends) > 1 and rng.random() < 0.4:  # attention between sensors, one token each
        joined = grow.put(Concat(grow.name(), tuple(ends)))
        x = grow.put(Reshape(grow.name(), (joined,), (1, len(ends), width)))
        x = grow.transformer_block(x, width)
        x = grow.put(Reshape(grow.name(), (x,), (1, 1, len(ends) * width)))
    elif len(ends) > 1:
        x = grow.put(Concat(grow.name(), tuple(ends)))
    classes = rng.randint(2, 8)
    logits = grow.linear(x, classes)
    output = grow.put(Reshape(grow.name(), (logits,), (classes,)))
    return Graph(tuple(inputs), tuple(grow.ops), output)
