"""Operator rules against loops and tables by hand, and a row for every operator in every reader."""

import itertools
from typing import Any, get_args

import pytest
from integer_models import OPERATOR_CASES

import nas.export.to_tflite
from nas.errors import GraphError
from nas.export import to_onnx, to_onnx_integer
from nas.hardware.program import CHOICES, kernel_of
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.op_rules import OPS
from nas.network.ops import (
    STREAMING,
    WEIGHT_BITS,
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Mul,
    Op,
    Pad,
    Padding,
    Pair,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Shape,
    Table,
    same_padding,
    size,
    window_padding,
)
from nas.training import student

X, XY = ("x",), ("x", "y")


def conv(kernel: Any = (3, 3), stride: Any = (1, 1), padding: Any = "same", **other: Any) -> Conv2d:
    settings = {"channels": 6, "weight_bits": 8, "relu": True} | other
    return Conv2d("o", X, kernel=kernel, stride=stride, padding=padding, **settings)


def depthwise(kernel: Pair, stride: Pair, padding: Padding, bits: int = 8) -> DepthwiseConv2d:
    return DepthwiseConv2d("o", X, kernel, stride, padding, bits, True)


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "expected"),
    [
        (5, 3, 1, (1, 1)),
        (5, 3, 2, (1, 1)),
        (6, 3, 2, (0, 1)),
        (4, 2, 1, (0, 1)),
        (1, 3, 1, (1, 1)),
        (1, 7, 2, (3, 3)),
        (224, 7, 2, (2, 3)),
        (10, 1, 4, (0, 0)),
        (10, 5, 10, (0, 0)),
    ],
)
def test_same_padding_of_tflite(length: int, kernel: int, stride: int, expected: Pair) -> None:
    assert same_padding(length, kernel, stride) == expected


def test_same_padding_is_the_least_that_gives_every_output() -> None:
    for length, kernel, stride in itertools.product(range(1, 40), range(1, 12), range(1, 7)):
        outputs = len(range(0, length, stride))
        # Past length + kernel + stride a window more always fits: the search ends before.
        total = next(
            p
            for p in range(length + kernel + stride)
            if len(range(0, length + p - kernel + 1, stride)) >= outputs
        )
        before, after = same_padding(length, kernel, stride)
        assert (before + after, after - before) == (total, total % 2), (length, kernel, stride)


def windows(length: int, before: int, after: int, kernel: int, stride: int) -> list[int]:
    """First index of every window on a padded axis."""
    return list(range(-before, length + after - kernel + 1, stride))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2), (1, 5)])
@pytest.mark.parametrize("shape", [(5, 7, 2), (4, 6, 3)])
def test_convolutions_by_loops(shape: Shape, kernel: Pair, stride: Pair, padding: Padding) -> None:
    for op in (conv(kernel, stride, padding, channels=4), depthwise(kernel, stride, padding)):
        dense = isinstance(op, Conv2d)
        rows, columns = (
            windows(shape[axis], *window_padding(op, shape)[axis], kernel[axis], stride[axis])
            for axis in (0, 1)
        )
        taps = list(itertools.product(range(kernel[0]), range(kernel[1])))
        readers = range(4 if dense else shape[2])
        read = range(shape[2] if dense else 1)
        count = sum(1 for _ in itertools.product(rows, columns, readers, taps, read))
        graph = Graph((Input("x", shape),), (op,), "o")
        assert graph.shapes["o"] == (len(rows), len(columns), len(readers))
        assert graph.macs(op) == count
        weights = (4 if dense else 1, *kernel, shape[2])
        assert graph.weight_shape(op) == weights


@pytest.mark.parametrize(
    ("op", "ins", "out"),
    [
        (conv((1, 1), channels=9), [(1, 1, 30)], (1, 1, 9)),
        (Pool("o", X, "max", (2, 2), (2, 2)), [(5, 7, 3)], (2, 3, 3)),
        (Pool("o", X, "average", (5, 7), (1, 1)), [(5, 7, 3)], (1, 1, 3)),
        (Pool("o", X, "max", (1, 3), (1, 1)), [(1, 8, 2)], (1, 6, 2)),
        (Add("o", XY, False), [(2, 3, 4), (2, 3, 4)], (2, 3, 4)),
        (Mul("o", XY), [(5,), (5,)], (5,)),
        (Concat("o", ("x", "y", "x")), [(2, 3, 4), (2, 3, 1), (2, 3, 4)], (2, 3, 9)),
        (Table("o", X, "tanh"), [(2, 3, 4)], (2, 3, 4)),
        (Pad("o", X, (1, 2, 3, 4)), [(2, 3, 4)], (5, 10, 4)),
        (Reshape("o", X, (24,)), [(2, 3, 4)], (24,)),
        (Reshape("o", X, (1, 4, 6)), [(2, 3, 4)], (1, 4, 6)),
    ],
)
def test_shape(op: Op, ins: list[Shape], out: Shape) -> None:
    assert OPS[type(op)].shape(op, ins) == out


@pytest.mark.parametrize(
    ("op", "ins", "message"),
    [
        (conv(weight_bits=3), [(5, 5, 2)], r"o: weight_bits 3 is not one of \(8, 4, 2\)"),
        (depthwise((3, 3), (1, 1), "same", 1), [(5, 5, 2)], "o: weight_bits 1 is not one of"),
        (conv(channels=0), [(5, 5, 2)], "o: channels 0 must be 1 or more"),
        (conv(kernel=(0, 1)), [(5, 5, 2)], r"kernel \(0, 1\) and stride \(1, 1\) must be 1 or"),
        (conv(stride=(1, 0)), [(5, 5, 2)], r"kernel \(3, 3\) and stride \(1, 0\) must be 1 or"),
        (conv(), [(50,)], r"input \(50,\) is not \(height, width, channels\); reshape it first"),
        (
            conv(kernel=(3, 6), padding="valid"),
            [(5, 5, 2)],
            r"window \(3, 6\) is larger than its input \(5, 5\)",
        ),
        (Pool("o", X, "max", (6, 1), (1, 1)), [(5, 5, 2)], r"window \(6, 1\) is larger"),
        (Pool("o", X, "sum", (1, 1), (1, 1)), [(5, 5, 2)], "pool function 'sum' is not"),
        (Add("o", XY, True), [(1, 2, 3), (1, 2, 4)], r"\(1, 2, 3\) and \(1, 2, 4\) must be equal"),
        (Mul("o", XY), [(1, 2, 3), (6,)], r"\(1, 2, 3\) and \(6,\) must be equal"),
        (Concat("o", XY), [(1, 2, 3), (2, 1, 3)], "must have one height and width"),
        (Table("o", X, "relu6"), [(1, 2, 3)], "no table for the function 'relu6'"),
        (Pad("o", X, (0, 0, -1, 0)), [(1, 2, 3)], r"\(0, 0, -1, 0\) must not be negative"),
        (Reshape("o", X, (7,)), [(1, 2, 3)], r"\(1, 2, 3\) has other elements than \(7,\)"),
        (Reshape("o", X, (-2, -3)), [(1, 2, 3)], r"other elements than \(-2, -3\)"),
        (Reshape("o", X, ()), [(1, 1, 1)], r"other elements than \(\)"),
    ],
)
def test_refused(op: Op, ins: list[Shape], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        OPS[type(op)].shape(op, ins)


def alone(op: Op, shapes: list[Shape]) -> Graph:
    """The one operator of a case, which reads in0, in1 and so on."""
    inputs = tuple(Input(f"in{i}", shape) for i, shape in enumerate(shapes))
    return Graph(inputs, (op,), op.name)


def test_only_convolutions_have_weights_and_macs() -> None:
    for op, ins in OPERATOR_CASES:
        graph = alone(op, ins)
        weighted = isinstance(op, Conv2d | DepthwiseConv2d)
        assert (graph.weight_shape(op) is not None) is (weighted or isinstance(op, Positions))
        assert (graph.macs(op) > 0) is (weighted or isinstance(op, Attention | SelectiveScan))
    assert size(()) == 1 and size((2, 3, 4)) == 24


READERS = {
    "OPS": OPS,
    "reference.KERNELS": reference.KERNELS,
    "student.LAYERS": student.LAYERS,
    "to_tflite.ROWS": nas.export.to_tflite.ROWS,
    "to_onnx.ROWS": to_onnx.ROWS,
    "to_onnx_integer.ROWS": to_onnx_integer.ROWS,
    "OPERATOR_CASES": {type(op) for op, _ in OPERATOR_CASES},
}


# Stepwise graphs are made of trained models, and exist in no exchange format.
STEPWISE_UNKNOWN = set(READERS) - {"OPS", "reference.KERNELS"}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_has_a_row_for_every_operator(reader: str) -> None:
    without = STREAMING if reader in STEPWISE_UNKNOWN else ()
    assert set(READERS[reader]) == set(get_args(Op)) - set(without)


def test_every_operator_and_weight_width_has_a_kernel() -> None:
    seen = set()
    for op, ins in OPERATOR_CASES:
        assert kernel_of(op, alone(op, ins)).name
        seen.add((type(op), getattr(op, "weight_bits", None)))
    for kind in set(get_args(Op)) - set(STREAMING):
        weighted = kind in (Conv2d, DepthwiseConv2d)
        assert {(kind, bits) for bits in (WEIGHT_BITS if weighted else (None,))} <= seen
    assert set(CHOICES) == set(OPS)
    for bits in WEIGHT_BITS:
        dense = conv((1, 1), weight_bits=bits)
        graph = Graph((Input("x", (1, 1, 9)),), (dense,), "o")
        assert kernel_of(dense, graph).name == f"fully_connected_{bits}"
