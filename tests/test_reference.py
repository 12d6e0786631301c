"""The integer reference against slow loops that are obviously right, and against torch."""

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from integer_models import ONE, TWO, Case, random_model, single

from nas.errors import DataError, UnsupportedOp
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel, Scale, Weights
from nas.network.numerics import Int8, Rounding, quantise_multiplier
from nas.network.op_rules import OPS
from nas.network.ops import (
    STREAMING,
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Mul,
    Op,
    Pad,
    Padding,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Shape,
    Table,
    TableFunction,
    same_padding,
)
from nas.network.random_model import random_inputs, with_random_numbers

ROUNDINGS: tuple[Rounding, ...] = ("double", "double_up", "single")


def exact(x: int, factor: float) -> int:
    """x * factor in `double` rounding, in exact fractions."""
    multiplier, shift = quantise_multiplier(factor)
    high = (Fraction(x * 2 ** max(shift, 0) * multiplier, 2**31) + Fraction(1, 2)).__floor__()
    return away(Fraction(high, 2 ** max(-shift, 0)))


def away(value: Fraction) -> int:
    """The nearest integer, ties away from zero."""
    magnitude = (abs(value) + Fraction(1, 2)).__floor__()
    return magnitude if value >= 0 else -magnitude


def clip(value: int, low: int = -128) -> int:
    """value within [low, 127]."""
    return max(low, min(127, value))


def _places(op: Any, shape: Shape, out: Shape, padding: str) -> Any:
    """(row, column of the output, row, column of the window, row, column of the input or None)."""
    before = [
        same_padding(n, k, s)[0] if padding == "same" else 0
        for n, k, s in zip(shape[:2], op.kernel, op.stride, strict=True)
    ]
    for y, x in itertools.product(range(out[0]), range(out[1])):
        for i, j in itertools.product(range(op.kernel[0]), range(op.kernel[1])):
            v, u = y * op.stride[0] + i - before[0], x * op.stride[1] + j - before[1]
            if 0 <= v < shape[0] and 0 <= u < shape[1]:
                yield y, x, i, j, v, u


def slow_conv(model: IntegerModel, op: Conv2d | DepthwiseConv2d, x: Int8) -> Int8:
    """One number after the other."""
    held, out = model.weights[op.name], model.graph.shapes[op.name]
    zero_in, zero = (model.scales[n].zero_point for n in (op.inputs[0], op.name))
    total = [
        [[int(held.bias[c]) for c in range(out[2])] for _ in range(out[1])] for _ in range(out[0])
    ]
    for y, u, i, j, v, w in _places(op, x.shape, out, op.padding):
        for c in range(out[2]):
            if isinstance(op, DepthwiseConv2d):
                total[y][u][c] += int(held.values[0, i, j, c]) * (int(x[v, w, c]) - zero_in)
            else:
                for k in range(x.shape[2]):
                    total[y][u][c] += int(held.values[c, i, j, k]) * (int(x[v, w, k]) - zero_in)
    low = max(-128, zero) if op.relu else -128
    scale_in, scale_out = model.scales[op.inputs[0]].scale, model.scales[op.name].scale
    result = np.zeros(out, np.int8)
    for y, u, c in np.ndindex(*out):
        factor = scale_in * float(held.scales[c]) / scale_out
        result[y, u, c] = clip(exact(total[y][u][c], factor) + zero, low)
    return result


def slow_pool(model: IntegerModel, op: Pool, x: Int8) -> Int8:
    """One window after the other."""
    out = model.graph.shapes[op.name]
    windows: dict[tuple[int, int, int], list[int]] = {p: [] for p in np.ndindex(*out)}
    for y, u, _, _, v, w in _places(op, x.shape, out, "valid"):
        for c in range(out[2]):
            windows[y, u, c].append(int(x[v, w, c]))
    result = np.zeros(out, np.int8)
    for place, values in windows.items():
        mean = away(Fraction(sum(values), len(values)))
        result[place] = mean if op.function == "average" else max(values)
    return result


def slow_add(model: IntegerModel, op: Add, a: Int8, b: Int8) -> Int8:
    """TFLite's ADD, one element after the other."""
    s1, s2, out = (model.scales[n] for n in (*op.inputs, op.name))
    common = 2 * max(s1.scale, s2.scale)
    low = max(-128, out.zero_point) if op.relu else -128
    result = np.zeros(a.shape, np.int8)
    for place in np.ndindex(*a.shape):
        first = exact((int(a[place]) - s1.zero_point) << 20, s1.scale / common)
        second = exact((int(b[place]) - s2.zero_point) << 20, s2.scale / common)
        total = exact(first + second, common / (2**20 * out.scale))
        result[place] = clip(total + out.zero_point, low)
    return result


def slow_mul(model: IntegerModel, op: Mul, a: Int8, b: Int8) -> Int8:
    """One product after the other."""
    s1, s2, out = (model.scales[n] for n in (*op.inputs, op.name))
    factor = s1.scale * s2.scale / out.scale
    result = np.zeros(a.shape, np.int8)
    for p in np.ndindex(*a.shape):
        product = (int(a[p]) - s1.zero_point) * (int(b[p]) - s2.zero_point)
        result[p] = clip(exact(product, factor) + out.zero_point)
    return result


def slow_concat(model: IntegerModel, op: Concat, *parts: Int8) -> Int8:
    """Pixel by pixel."""
    result = np.zeros(model.graph.shapes[op.name], np.int8)
    for y, x in np.ndindex(*result.shape[:2]):
        result[y, x] = [v for part in parts for v in part[y, x].tolist()]
    return result


REAL: dict[TableFunction, Callable[[float], float]] = {
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "hard_swish": lambda v: v * min(max(v + 3, 0), 6) / 6,
}


def slow_table(model: IntegerModel, op: Table, x: Int8) -> Int8:
    """The real function of each value."""
    source, out = model.scales[op.inputs[0]], model.scales[op.name]
    result = np.zeros(x.shape, np.int8)
    for p in np.ndindex(*x.shape):
        y = REAL[op.function]((int(x[p]) - source.zero_point) * source.scale)
        result[p] = clip(round(y / out.scale) + out.zero_point)
    return result


def slow_pad(model: IntegerModel, op: Pad, x: Int8) -> Int8:
    """A map of zero points with the input inside."""
    result = np.full(model.graph.shapes[op.name], model.scales[op.name].zero_point, np.int8)
    for y, u in np.ndindex(*x.shape[:2]):
        result[y + op.padding[0], u + op.padding[2]] = x[y, u]
    return result


def slow_reshape(model: IntegerModel, op: Reshape, x: Int8) -> Int8:
    """Byte by byte."""
    return np.array(x.ravel().tolist(), np.int8).reshape(op.shape)


SLOW: Mapping[type[Op], Callable[..., Int8]] = {
    Conv2d: slow_conv,
    DepthwiseConv2d: slow_conv,
    Pool: slow_pool,
    Add: slow_add,
    Mul: slow_mul,
    Concat: slow_concat,
    Table: slow_table,
    Pad: slow_pad,
    Reshape: slow_reshape,
}

_S: Shape = (5, 4, 3)
_PADDINGS: tuple[Padding, ...] = ("same", "valid")
CASES: list[Case] = [
    *(
        (Conv2d("o", ONE, 2, kernel, stride, padding, bits, bits == 4), [_S])
        for kernel, stride, bits in (((3, 3), (2, 2), 8), ((1, 2), (1, 3), 4), ((1, 1), (1, 1), 2))
        for padding in _PADDINGS
    ),
    *(
        (DepthwiseConv2d("o", ONE, kernel, stride, padding, bits, bits == 4), [_S])
        for kernel, stride, bits in (((3, 3), (2, 2), 8), ((2, 1), (1, 1), 4), ((4, 4), (2, 1), 2))
        for padding in _PADDINGS
    ),
    *(
        (Pool("o", ONE, function, kernel, stride), [_S])
        for function in ("average", "max")
        for kernel, stride in (((5, 4), (1, 1)), ((2, 2), (2, 2)), ((3, 2), (1, 2)))
    ),
    (Add("o", TWO, False), [_S, _S]),
    (Add("o", TWO, True), [_S, _S]),
    (Add("o", ("in0", "in0"), False), [_S]),
    (Mul("o", TWO), [_S, _S]),
    (Concat("o", ("in0", "in1", "in0")), [_S, (5, 4, 1)]),
    (Table("o", ONE, "sigmoid"), [_S]),
    (Table("o", ONE, "tanh"), [_S]),
    (Table("o", ONE, "hard_swish"), [_S]),
    (Pad("o", ONE, (1, 0, 2, 3)), [_S]),
    (Reshape("o", ONE, (2, 5, 6)), [_S]),
    (Reshape("o", ONE, (60,)), [_S]),
]


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=lambda v: type(v).__name__)
def test_equals_slow_loops(op: Op, shapes: list[Shape]) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        model = single(op, shapes, rng)
        inputs = random_inputs(model.graph, 2, rng)
        got = reference.run(model, inputs)
        assert len(np.unique(got)) > 3  # not all clipped
        for n in range(2):
            wanted = SLOW[type(op)](model, op, *(inputs[name][n] for name in op.inputs))
            assert (got[n] == wanted).all()


def test_every_operator_has_a_slow_loop_and_a_case() -> None:
    series = {Attention, SelectiveScan, Positions, LastStep, *STREAMING}  # in test_sequences
    assert set(SLOW) == set(OPS) - series == {type(op) for op, _ in CASES}


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
def test_accumulators_equal_torch(depthwise: bool, padding: Padding, stride: int) -> None:
    """torch's convolution in float64, with the padding put around by hand, and one rounding."""
    rng = np.random.default_rng(stride)
    shape = (9, 8, 6)
    window = ((3, 3), (stride, stride), padding)
    op: Conv2d | DepthwiseConv2d = Conv2d("o", ("in0",), 5, *window, 8, False)
    if depthwise:
        op = DepthwiseConv2d("o", ("in0",), *window, 8, False)
    model = single(op, [shape], rng)
    x = random_inputs(model.graph, 20, rng)["in0"]
    centred = x.astype(np.float64) - model.scales["in0"].zero_point
    if padding == "same":
        rows, columns = (same_padding(n, 3, stride) for n in shape[:2])
        centred = np.pad(centred, ((0, 0), rows, columns, (0, 0)))
    held = model.weights["o"]
    order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
    accumulated = torch.nn.functional.conv2d(
        torch.from_numpy(centred.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(held.values.transpose(order).astype(np.float64)),
        torch.from_numpy(held.bias.astype(np.float64)),
        stride=stride,
        groups=6 if depthwise else 1,
    ).numpy()
    real = accumulated.transpose(0, 2, 3, 1) * model.factors(op) + model.scales["o"].zero_point
    got = reference.run(model, {"in0": x}, "single")
    assert (got == np.clip(np.floor(real + 0.5), -128, 127)).all()


def test_wide_layers_leave_float32() -> None:
    """Sums beyond 2^24, which float32 would round."""
    shape = (1, 1, 700)
    op = Conv2d("o", ("in0",), 2, (1, 1), (1, 1), "valid", 8, False)
    graph = Graph((Input("in0", shape),), (op,), "o")
    scales = {"in0": Scale(2.0**-24, -128), "o": Scale(1.0, 0)}
    values = np.full((2, 1, 1, 700), 127, np.int8)
    values[1, 0, 0, ::2] = 126
    # Bias takes the sum down to a small odd number, so that one lost unit shows in the output.
    x = np.full((1, *shape), 127, np.int8)
    sums = values.reshape(2, -1).astype(np.int64).sum(axis=1) * 255
    assert sums.min() > 1 << 24
    bias = (-sums + np.array([77, -51])).astype(np.int32)
    held = Weights(values, np.full(2, 2.0**24, np.float32), bias)
    model = IntegerModel(graph, scales, {"o": held})
    assert reference.run(model, {"in0": x}).ravel().tolist() == [77, -51]


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_results_do_not_depend_on_the_batch(
    rounding: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        model = random_model(rng)
        inputs = random_inputs(model.graph, 37, rng)
        whole = reference.run(model, inputs, rounding)
        one_by_one = [
            reference.run(model, {k: v[n : n + 1] for k, v in inputs.items()}, rounding)
            for n in range(37)
        ]
        assert (whole == np.concatenate(one_by_one)).all()
        with monkeypatch.context() as patch:
            patch.setattr(reference, "_BATCH_ELEMENTS", 1)
            assert (whole == reference.run(model, inputs, rounding)).all()


def test_no_inputs_give_no_outputs() -> None:
    rng = np.random.default_rng(0)
    model = random_model(rng)
    got = reference.run(model, random_inputs(model.graph, 0, rng))
    assert got.shape == (0, *model.graph.shapes[model.graph.output])


def test_inputs_are_left_as_they_were() -> None:
    rng = np.random.default_rng(1)
    model = random_model(rng)
    inputs = random_inputs(model.graph, 5, rng)
    before = {name: values.copy() for name, values in inputs.items()}
    reference.run(model, inputs)
    assert all((inputs[name] == values).all() for name, values in before.items())


def test_trace_holds_every_tensor() -> None:
    rng = np.random.default_rng(2)
    model = random_model(rng)
    inputs = random_inputs(model.graph, 300, rng)
    tensors = reference.trace(model, inputs)
    assert {n: t.shape[1:] for n, t in tensors.items()} == model.graph.shapes
    assert (tensors[model.graph.output] == reference.run(model, inputs)).all()


def test_roundings_part_where_they_must() -> None:
    """Two-bit weights have large factors, where a second rounding is often another number."""
    rng = np.random.default_rng(4)
    model = single(Conv2d("o", ("in0",), 8, (3, 3), (1, 1), "same", 2, False), [(8, 8, 4)], rng)
    inputs = random_inputs(model.graph, 20, rng)
    double, up, once = (reference.run(model, inputs, r) for r in ROUNDINGS)
    assert (double != up).any() and (double != once).any() and (up != once).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in0": None}, r"input 'in0' is missing; it must be int8 of shape \(n, \*\(5, 4, 3\)\)"),
        ({"in0": np.zeros((2, 5, 4, 3), np.float32)}, "input 'in0' is float32"),
        ({"in0": np.zeros((2, 5, 4), np.int8)}, r"input 'in0' is int8 \(2, 5, 4\)"),
        ({"in1": np.zeros((3, 5, 4, 3), np.int8)}, r"inputs have \[2, 3\] rows"),
    ],
)
def test_wrong_inputs(change: dict[str, Any], message: str) -> None:
    model = single(Mul("o", TWO), [_S, _S], np.random.default_rng(0))
    inputs = random_inputs(model.graph, 2, np.random.default_rng(0)) | change
    with pytest.raises(DataError, match=message):
        reference.run(model, {k: v for k, v in inputs.items() if v is not None})


def test_an_operator_without_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = single(Mul("o", TWO), [_S, _S], np.random.default_rng(0))
    monkeypatch.delitem(reference.KERNELS, Mul)
    with pytest.raises(UnsupportedOp, match="o: the reference has no row for Mul, only for Add"):
        reference.run(model, random_inputs(model.graph, 1, np.random.default_rng(0)))


def test_random_models_use_their_range() -> None:
    """The helper's numbers are sensible: else equal outputs would prove nothing."""
    spread = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = random_model(rng)
        got = reference.run(model, random_inputs(model.graph, 50, rng))
        spread.append(float(got.std()))
    assert np.median(spread) > 5.0
    assert with_random_numbers(model.graph, rng).hash != model.hash
