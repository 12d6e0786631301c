"""Random integer models whose numbers are of a sensible size: outputs use their range."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel, Scale
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
    TableFunction,
)
from nas.network.random_model import with_random_numbers

Case: TypeAlias = tuple[Op, list[Shape]]  # an operator and the shapes of its inputs
ONE, TWO = ("in0",), ("in0", "in1")


def with_ties(kind: type[Add] | type[Mul], elements: int) -> list[IntegerModel]:
    """Models of one Add or Mul at scales at which roundings differ."""
    graph = Graph(
        tuple(Input(name, (1, 1, elements)) for name in TWO),
        (Add("o", TWO, False) if kind is Add else Mul("o", TWO),),
        "o",
    )
    models = []
    for scales in ((1 / 64, 5 / 224, 1 / 48), (3 / 56, 5 / 112, 5 / 8), (5 / 448, 3 / 32, 1 / 32)):
        held = [Scale(float(np.float32(s)), z) for s, z in zip(scales, (3, -7, 11), strict=True)]
        models.append(IntegerModel(graph, dict(zip((*TWO, "o"), held, strict=True)), {}))
    return models


def single(op: Op, shapes: Sequence[Shape], rng: np.random.Generator) -> IntegerModel:
    """A model of the one operator `op`, which reads inputs named in0, in1 and so on."""
    inputs = tuple(Input(f"in{i}", shape) for i, shape in enumerate(shapes))
    return with_random_numbers(Graph(inputs, (op,), op.name), rng)


class _Maker:
    """Grows a random graph; `last` is the tensor that the next operator reads."""

    def __init__(self, rng: np.random.Generator, inputs: tuple[Input, ...]) -> None:
        self.rng = rng
        self.inputs = inputs
        self.ops: list[Op] = []

    def shape(self, name: str) -> Shape:
        return Graph(self.inputs, tuple(self.ops), name).shapes[name]

    def name(self) -> str:
        return f"t{len(self.ops)}"

    def put(self, op: Op) -> str:
        self.ops.append(op)
        return op.name

    def bits(self) -> int:
        return int(self.rng.choice(WEIGHT_BITS))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pair(self, shape: Shape, most: int) -> tuple[int, int]:
        """A window or a step that fits `shape`."""
        high, wide = min(most, shape[0]), min(most, shape[1])
        return int(self.rng.integers(1, high + 1)), int(self.rng.integers(1, wide + 1))

    def conv(self, x: str, channels: int | None = None, kernel: int = 3) -> str:
        shape = self.shape(x)
        wanted = channels or int(self.rng.integers(1, 9))
        padding: Padding = "same" if self.chance(0.5) else "valid"
        return self.put(
            Conv2d(
                self.name(),
                (x,),
                wanted,
                self.pair(shape, kernel),
                self.pair(shape, 2 if kernel > 1 else 1),
                padding,
                self.bits(),
                self.chance(0.5),
            )
        )

    def depthwise(self, x: str) -> str:
        shape = self.shape(x)
        kernel, stride = self.pair(shape, 5), self.pair(shape, 2)
        padding: Padding = "same" if self.chance(0.5) else "valid"
        return self.put(
            DepthwiseConv2d(
                self.name(), (x,), kernel, stride, padding, self.bits(), self.chance(0.5)
            )
        )

    def pool(self, x: str) -> str:
        shape = self.shape(x)
        function: Literal["average", "max"] = "average" if self.chance(0.6) else "max"
        window, stride = self.pair(shape, 3), self.pair(shape, 2)
        return self.put(Pool(self.name(), (x,), function, window, stride))

    def table(self, x: str) -> str:
        function = self.rng.choice(("sigmoid", "tanh", "hard_swish"))
        return self.put(Table(self.name(), (x,), str(function)))  # type: ignore[arg-type]

    def pad(self, x: str) -> str:
        top, bottom, left, right = (int(v) for v in self.rng.integers(0, 3, 4))
        return self.put(Pad(self.name(), (x,), (top, bottom, left, right)))

    def residual(self, x: str) -> str:
        inner = self.conv(x, self.shape(x)[2], kernel=1)
        if self.chance(0.5):
            return self.put(Add(self.name(), (x, inner), self.chance(0.5)))
        return self.put(Mul(self.name(), (x, inner)))

    def dense(self, x: str) -> str:
        """A concatenation of x with something made from it."""
        inner = self.conv(x, kernel=1)
        return self.put(Concat(self.name(), (x, inner)))

    def fold(self, x: str) -> str:
        height, width, channels = self.shape(x)
        return self.put(Reshape(self.name(), (x,), (width, height, channels)))


def random_model(rng: np.random.Generator, steps: int = 4) -> IntegerModel:
    """Two or three branches of random operators, joined, with a classifier behind."""
    shapes: list[Shape] = [
        (1, int(rng.integers(5, 20)), int(rng.integers(1, 7))),
        (int(rng.integers(4, 10)), int(rng.integers(4, 10)), int(rng.integers(1, 5))),
        (1, 1, int(rng.integers(2, 12))),
    ]
    chosen = shapes[: int(rng.integers(2, 4))]
    inputs = tuple(Input(f"m{i}", shape) for i, shape in enumerate(chosen))
    make = _Maker(rng, inputs)
    kinds: list[Callable[[str], str]] = [make.conv, make.depthwise, make.pool, make.table]
    kinds += [make.pad, make.residual, make.dense, make.fold]
    ends = []
    for source in inputs:
        x = source.name
        for _ in range(steps):
            x = kinds[int(rng.integers(len(kinds)))](x)
        whole = make.shape(x)[:2]
        x = make.put(Pool(make.name(), (x,), "average", (whole[0], whole[1]), (1, 1)))
        ends.append(make.conv(x, 4, kernel=1))
    joined = make.put(Concat(make.name(), tuple(ends)))
    logits = make.conv(joined, int(rng.integers(2, 8)), kernel=1)
    if rng.random() < 0.5:
        logits = make.put(Reshape(make.name(), (logits,), (make.shape(logits)[2],)))
    return with_random_numbers(Graph(inputs, tuple(make.ops), logits), rng)


_WINDOWS: tuple[tuple[Pair, Pair], ...] = (
    ((3, 3), (1, 1)),
    ((3, 3), (2, 2)),
    ((1, 1), (1, 1)),
    ((2, 5), (1, 3)),
)
_PADDINGS: tuple[Padding, ...] = ("same", "valid")
_MAPS: tuple[Shape, ...] = ((7, 6, 5), (1, 13, 8), (8, 8, 17))


def _fits(kernel: Pair, shape: Shape) -> bool:
    return kernel[0] <= shape[0] and kernel[1] <= shape[1]


def _windowed() -> list[Case]:
    cases: list[Case] = []
    for shape in _MAPS:
        for kernel, stride in _WINDOWS:
            for padding in _PADDINGS:
                if padding == "valid" and not _fits(kernel, shape):
                    continue
                for bits in (8, 4, 2):
                    rest: tuple[Any, ...] = (kernel, stride, padding, bits, shape[0] == 7)
                    cases.append((Conv2d("o", ONE, 6, *rest), [shape]))
                    cases.append((DepthwiseConv2d("o", ONE, *rest), [shape]))
    return cases


def _pools() -> list[Case]:
    cases: list[Case] = []
    functions: tuple[Literal["average", "max"], ...] = ("average", "max")
    for function, shape in itertools.product(functions, _MAPS):
        for kernel, stride in (*_WINDOWS, ((shape[0], shape[1]), (1, 1))):
            if _fits(kernel, shape):
                cases.append((Pool("o", ONE, function, kernel, stride), [shape]))
    return cases


def _others() -> list[Case]:
    cases: list[Case] = [
        (Add("o", ("in0", "in0"), False), [(7, 6, 5)]),
        (Concat("o", ("in0", "in1", "in0")), [(1, 4, 3), (1, 4, 1)]),
    ]
    functions: tuple[TableFunction, ...] = ("sigmoid", "tanh", "hard_swish", "silu")
    for shape in (*_MAPS, (1, 1, 9)):
        cases += [(Add("o", TWO, relu), [shape, shape]) for relu in (False, True)]
        cases.append((Mul("o", TWO), [shape, shape]))
        cases += [(Table("o", ONE, function), [shape]) for function in functions]
        cases += [(Pad("o", ONE, around), [shape]) for around in ((1, 2, 0, 3), (0, 0, 0, 0))]
    for n in (2, 10, 11, 16):
        shapes: list[Shape] = [(3, 2, 2)] * n
        cases.append((Concat("o", tuple(f"in{i}" for i in range(n))), shapes))
    targets: list[Shape] = [(5, 8, 3), (1, 1, 120), (1, 120, 1), (120,)]
    cases += [(Reshape("o", ONE, target), [(6, 5, 4)]) for target in targets]
    return cases


def _series() -> list[Case]:
    """Operators on series: attention within and between, scans, positions, causal layers."""
    five = tuple(f"in{i}" for i in range(5))
    cases: list[Case] = []
    for steps, width, heads in ((5, 6, 1), (16, 8, 2), (3, 12, 3), (1, 4, 4), (33, 16, 2)):
        whole: Shape = (1, steps, width)
        cases.append((Attention("o", five[:3], heads), [whole, whole, whole]))
        cases += [(Positions("o", ONE, "learned"), [whole]), (LastStep("o", ONE), [whole])]
    cases.append((Attention("o", five[:3], 2), [(1, 7, 8), (1, 20, 8), (1, 20, 8)]))
    cases.append((Positions("o", ONE, "sinusoidal"), [(1, 7, 5)]))
    for steps, width, states in ((1, 3, 1), (9, 8, 4), (16, 5, 3), (20, 12, 8), (64, 2, 2)):
        wide, narrow = (1, steps, width), (1, steps, states)
        cases.append((SelectiveScan("o", five, False), [wide, wide, narrow, narrow, wide]))
    for kernel, stride in ((1, 1), (3, 1), (5, 2), (4, 4)):
        rest: tuple[Any, ...] = ((1, kernel), (1, stride), "causal", 8, kernel == 3)
        cases.append((Conv2d("o", ONE, 6, *rest), [(1, 21, 5)]))
        cases.append((DepthwiseConv2d("o", ONE, *rest), [(1, 21, 6)]))
    return cases


def _stepwise() -> list[Case]:
    """Operators that keep a state from one run to the next."""
    cases: list[Case] = [
        (History("o", ONE, 2), [(1, 1, 5)]),
        (History("o", ONE, 1), [(1, 4, 8)]),
        (Running("o", ONE, "average", 5), [(1, 2, 6)]),
        (Running("o", ONE, "max", 5), [(1, 3, 7)]),
    ]
    for steps, width, states in ((1, 8, 4), (1, 5, 3), (2, 20, 1), (1, 17, 8)):
        wide, narrow = (1, steps, width), (1, steps, states)
        shapes = [wide, wide, narrow, narrow, wide]
        cases.append((SelectiveScan("o", tuple(f"in{i}" for i in range(5)), True), [*shapes]))
    return cases


STEPWISE_CASES = _stepwise()

# Every operator with the widths, windows, paddings and odd sizes that kernels treat apart.
OPERATOR_CASES = _windowed() + _pools() + _others() + _series()


def _conv(
    units: int, window: tuple[int, int, int, int], bits: int, padding: Padding = "same"
) -> Conv2d:
    return Conv2d("o", ONE, units, window[:2], window[2:], padding, bits, units % 2 == 0)


def _rich() -> list[Case]:
    """What kernels treat apart beyond `OPERATOR_CASES`, in all three widths of weights."""
    cases: list[Case] = []
    for bits in (8, 4, 2):
        cases += [
            (_conv(1, (1, 1, 1, 1), bits), [(1, 1, 1)]),
            (_conv(5, (1, 1, 1, 1), bits), [(1, 1, 515)]),  # a long dot product
            (_conv(3, (1, 1, 1, 1), bits), [(1, 1, 2049)]),
            (_conv(7, (1, 1, 1, 1), bits), [(1, 3, 30)]),  # one position short of a tile
            (_conv(6, (3, 3, 1, 1), bits), [(5, 5, 60)]),  # wide, padded
            (_conv(9, (1, 1, 1, 1), bits), [(2, 3, 521)]),
            (_conv(5, (1, 1, 1, 1), bits), [(2, 2, 1100)]),  # wide for weights of 2 bits, too
            (_conv(4, (1, 9, 1, 2), bits), [(1, 37, 3)]),
            (_conv(6, (5, 5, 2, 2), bits), [(11, 9, 1)]),
            (_conv(5, (3, 1, 1, 1), bits, "valid"), [(9, 4, 2)]),
            (_conv(65, (1, 1, 1, 1), bits), [(2, 4, 16)]),
            (DepthwiseConv2d("o", ONE, (1, 1), (1, 1), "same", bits, False), [(1, 1, 1)]),
            (DepthwiseConv2d("o", ONE, (3, 3), (1, 1), "same", bits, True), [(9, 11, 4)]),
            (DepthwiseConv2d("o", ONE, (5, 5), (2, 2), "same", bits, True), [(10, 12, 3)]),
            (DepthwiseConv2d("o", ONE, (1, 7), (1, 2), "valid", bits, False), [(1, 40, 6)]),
            (DepthwiseConv2d("o", ONE, (3, 3), (2, 1), "valid", bits, True), [(3, 3, 33)]),
        ]
    # Heads of 2, 3, 5, 6 and 7 channels, whose last word begins in the head before; 1 to 6 queries.
    for queries, steps, width, heads in (
        (1, 64, 8, 4),
        (5, 6, 12, 4),
        (2, 7, 15, 3),
        (3, 9, 12, 2),
        (6, 40, 28, 4),
        (4, 21, 10, 1),
    ):
        shapes: list[Shape] = [(1, n, width) for n in (queries, steps, steps)]
        cases.append((Attention("o", ("in0", "in1", "in2"), heads), shapes))
    return cases


RICH_CASES = _rich()
