"""Programs to calibrate with: many operators of random sizes, none of them an architecture.

Each operator reads an input of its own, so that one program measures many sizes of many kernels.
"""

import random
from collections.abc import Callable
from typing import Literal

from nas.network.graph import Graph, Input
from nas.network.ops import (
    WEIGHT_BITS,
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
    Padding,
    Pair,
    Pool,
    Positions,
    Reshape,
    Running,
    SelectiveScan,
    Shape,
    Table,
)

LARGEST_VALUES = 24_000  # of an operator's input
LARGEST_MACS = 600_000  # of a convolution: the emulator takes its time
SMALL_VALUES = 800
STEPS = (4, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64)  # of series; their channels
WIDTHS = (4, 6, 8, 8, 12, 16, 16, 20, 24, 28, 32, 40, 48)
INNER = (4, 6, 12, 24, 32, 50, 64, 100, 256, 384)  # of fully connected layers
WIDE_INNER = (520, 600, 777, 1024, 1500, 2048)
LONG_INNER = {8: 512, 4: 512, 2: 1020}  # beyond it the `wide` kernels run

Drawn = tuple[Callable[[str, tuple[str, ...]], Op], list[Shape]]
KINDS = (
    *("conv", "pointwise", "fully_connected", "depthwise_series", "depthwise_image", "wide") * 2,
    *("conv", "pointwise", "depthwise_series", "depthwise_image", "depthwise_image", "wide"),
    "depthwise_any",
    *("pool", "pool", "add", "mul", "concat", "pad", "table", "reshape", "clipped"),
    *("attention", "attention", "scan", "scan", "positions", "last_step", "history"),
    *("running_average", "running_max", "few"),
)


class _Graph:
    """Unrelated operators, each with inputs of its own."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.ops: list[Op] = []

    def put(self, drawn: Drawn) -> None:
        """Appends a drawn operator."""
        make, shapes = drawn
        number = len(self.ops)
        names = tuple(f"in{number}_{i}" for i in range(len(shapes)))
        self.inputs += [Input(name, shape) for name, shape in zip(names, shapes, strict=True)]
        self.ops.append(make(f"op{number}", names))

    def put_clipped(self, rng: random.Random) -> None:
        """A ReLU that shares its scale with an input that has negative values."""
        units, shape = _channels(rng), _map(rng, _channels(rng))
        self.put((lambda n, ins: Conv2d(n, ins, units, (1, 1), (1, 1), "valid", 8, True), [shape]))
        conv = self.ops[-1]
        self.ops.append(Concat(f"{conv.name}_join", (*conv.inputs, conv.name)))

    def made(self) -> Graph:
        """The graph, whose output is the last operator's."""
        return Graph(tuple(self.inputs), tuple(self.ops), self.ops[-1].name)


def calibration_graph(rng: random.Random) -> Graph:
    """A graph of unrelated operators, one or more of each kind."""
    graph = _Graph()
    for kind in KINDS:
        if kind == "clipped":
            graph.put_clipped(rng)
        else:
            graph.put(_draw(rng, kind))
    return graph.made()


def small_graph(rng: random.Random) -> Graph:
    """Some operators of small maps: their offsets in the arena are those of a real program."""
    graph = _Graph()
    wanted = rng.randint(6, 24)
    kinds = [kind for kind in KINDS if kind not in ("clipped", "wide")]
    while len(graph.ops) < wanted:
        drawn = _draw(rng, rng.choice(kinds))
        if sum(height * width * channels for height, width, channels in drawn[1]) <= SMALL_VALUES:
            graph.put(drawn)
    return graph.made()


def single_operator(rng: random.Random) -> Graph:
    """A graph of one operator."""
    graph = _Graph()
    graph.put(_draw(rng, rng.choice([kind for kind in KINDS if kind != "clipped"])))
    return graph.made()


def _map(rng: random.Random, channels: int) -> Shape:
    """A series or an image that is not too large."""
    while True:
        if rng.random() < 0.5:
            shape = (1, rng.choice((8, 16, 25, 32, 64, 100, 200)), channels)
        else:
            side = rng.choice((2, 3, 4, 5, 7, 8, 12, 14, 16, 24, 28, 32))
            shape = (side, max(2, side + rng.choice((0, 0, -1, 1))), channels)
        if shape[0] * shape[1] * channels <= LARGEST_VALUES:
            return shape


def _channels(rng: random.Random) -> int:
    return rng.choice((1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 16, 20, 24, 27, 32, 40, 48, 64))


def _draw(rng: random.Random, kind: str) -> Drawn:
    if kind in ("conv", "pointwise", "fully_connected", "wide"):
        return _conv(rng, kind)
    if kind.startswith("depthwise"):
        return _depthwise(rng, kind)
    if kind in SERIES:
        return SERIES[kind](rng)
    shape = _map(rng, _channels(rng))
    if kind == "pool":
        return _pool(rng, shape)
    if kind == "add":
        return (lambda name, ins: Add(name, ins, rng.random() < 0.5)), [shape, shape]
    if kind == "mul":
        return (lambda name, ins: Mul(name, ins)), [shape, shape]
    if kind == "concat":
        return _concat(rng, shape)
    if kind == "pad":
        padding = (rng.randint(0, 2), rng.randint(0, 2), rng.randint(0, 2), 1)
        return (lambda name, ins: Pad(name, ins, padding)), [shape]
    if kind == "table":
        return (lambda name, ins: Table(name, ins, "tanh")), [shape]
    count = shape[0] * shape[1] * shape[2]
    return (lambda name, ins: Reshape(name, ins, (count,))), [shape]


def _conv(rng: random.Random, kind: str) -> Drawn:
    is_vector = kind == "fully_connected" or (kind == "wide" and rng.random() < 0.3)
    bits, relu = rng.choice(WEIGHT_BITS), rng.random() < 0.5
    long = LONG_INNER[bits]
    while True:
        channels, units = _channels(rng), _channels(rng)
        if is_vector:
            inner = WIDE_INNER if kind == "wide" else INNER
            shape: Shape = (1, 1, rng.choice(inner))
        else:
            shape = _map(rng, channels)
        sizes = {"conv": (2, 3, 3, 5, 7), "wide": (3, 5, 7)}.get(kind, (1,))
        kernel, stride = _window(rng, shape, rng.choice(sizes))
        padding: Padding = rng.choice(("same", "same", "valid"))
        positions = shape[0] * shape[1] / (stride[0] * stride[1])
        inner_size = kernel[0] * kernel[1] * shape[2]
        if kind == "wide" and inner_size <= long:
            continue
        if positions * inner_size * units <= LARGEST_MACS * (3 if kind == "wide" else 1):
            break
    return (lambda n, ins: Conv2d(n, ins, units, kernel, stride, padding, bits, relu)), [shape]


def _window(rng: random.Random, shape: Shape, size: int) -> tuple[Pair, Pair]:
    """A kernel and a stride as search spaces have them: 1 along an axis of one step."""
    step = rng.choice((1, 1, 2))
    return (
        (min(size, shape[0]), min(size, shape[1])),
        (step if shape[0] > 1 else 1, step if shape[1] > 1 else 1),
    )


def _depthwise(rng: random.Random, kind: str) -> Drawn:
    while True:
        shape = _map(rng, _channels(rng))
        if kind == "depthwise_any" or (shape[0] == 1) == (kind == "depthwise_series"):
            break
    sizes = (3, 3, 5, 7) if shape[0] == 1 else (3, 3, 3, 5)
    kernel, stride = _window(rng, shape, rng.choice(sizes))
    if kind == "depthwise_any":  # a stride that no plane has
        stride = (min(3, shape[0]), 3)
    padding: Padding = "same"
    bits, relu = rng.choice(WEIGHT_BITS), rng.random() < 0.5
    return (lambda n, ins: DepthwiseConv2d(n, ins, kernel, stride, padding, bits, relu)), [shape]


def _pool(rng: random.Random, shape: Shape) -> Drawn:
    function: Literal["average", "max"] = rng.choice(("average", "max"))
    if rng.random() < 0.4:
        kernel = stride = (shape[0], shape[1])
    else:
        size = rng.choice((2, 2, 4))
        kernel = stride = (min(size, shape[0]), min(size, shape[1]))
    return (lambda name, ins: Pool(name, ins, function, kernel, stride)), [shape]


def _concat(rng: random.Random, shape: Shape) -> Drawn:
    if rng.random() < 0.7:
        shape = (1, 1, shape[2])
    shapes = [(*shape[:2], _channels(rng)) for _ in range(rng.randint(2, 4))]
    if sum(s[0] * s[1] * s[2] for s in shapes) > LARGEST_VALUES:
        shapes = [(1, 1, s[2]) for s in shapes]
    return (lambda name, ins: Concat(name, ins)), list(shapes)


def _series(rng: random.Random) -> Shape:
    return 1, rng.choice(STEPS), rng.choice(WIDTHS)


def _attention(rng: random.Random) -> Drawn:
    steps, width = rng.choice((2, 3, *STEPS)), rng.choice(WIDTHS)
    whole = (1, steps, width)
    heads = rng.choice([h for h in (1, 1, 2, 2, 3, 4) if width % h == 0])
    queries = (1, rng.choice((1, steps, steps)), width)
    return (lambda name, ins: Attention(name, ins, heads)), [queries, whole, whole]


def _scan(rng: random.Random) -> Drawn:
    carry = rng.random() < 0.3
    steps = 1 if carry else rng.choice(STEPS)
    wide = (1, steps, rng.choice((*WIDTHS, 64, 80)))
    narrow = (1, steps, rng.choice((1, 2, 2, 3, 4, 4, 5, 6, 8, 8, 16)))
    shapes: list[Shape] = [wide, wide, narrow, narrow, wide]
    return (lambda name, ins: SelectiveScan(name, ins, carry)), shapes


def _history(rng: random.Random) -> Drawn:
    back, frame = rng.choice((1, 2, 3, 4, 6)), (1, rng.choice((1, 1, 2, 4)), rng.choice(WIDTHS))
    return (lambda name, ins: History(name, ins, back)), [frame]


def _running(function: Literal["average", "max"]) -> Callable[[random.Random], Drawn]:
    def draw(rng: random.Random) -> Drawn:
        frame, frames = (1, rng.choice((1, 1, 2, 4)), rng.choice(WIDTHS)), rng.randint(2, 64)
        return (lambda name, ins: Running(name, ins, function, frames)), [frame]

    return draw


def _of_series(make: Callable[[str, tuple[str, ...]], Op]) -> Callable[[random.Random], Drawn]:
    return lambda rng: (make, [_series(rng)])


def _few(rng: random.Random) -> Drawn:
    """A convolution with fewer than four outputs, of windows that reach over the border."""
    steps, units = rng.choice((1, 2, 3, 4, 6)), rng.choice(WIDTHS)
    channels = rng.choice((*WIDTHS, 160, 260))  # some for the `wide` kernels
    bits, relu, stride = rng.choice(WEIGHT_BITS), rng.random() < 0.5, 1 if steps < 4 else 2
    kernel = (1, stride + rng.choice((0, 1, 2, 4)))
    shape = (1, steps, channels)
    return (lambda n, ins: Conv2d(n, ins, units, kernel, (1, stride), "causal", bits, relu)), [
        shape
    ]


SERIES: dict[str, Callable[[random.Random], Drawn]] = {
    "attention": _attention,
    "scan": _scan,
    "positions": _of_series(lambda name, ins: Positions(name, ins, "learned")),
    "last_step": _of_series(LastStep),
    "history": _history,
    "running_average": _running("average"),
    "running_max": _running("max"),
    "few": _few,
}
