"""Softmax, attention and scans against slow loops by hand; step by step against whole windows."""

import math
import random

import numpy as np
import pytest
from integer_models import single
from sequence_graphs import FAMILIES, Family, random_sequence

from nas.errors import GraphError
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel, Scale
from nas.network.numerics import quantise_multiplier, rescale
from nas.network.ops import (
    Attention,
    Conv2d,
    LastStep,
    Op,
    Padding,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Shape,
    window_padding,
)
from nas.network.random_model import random_inputs, with_random_numbers
from nas.network.sequence_reference import decay_table
from nas.network.softmax import exponentials, softmax
from nas.network.streaming import NotCausal, run_steps, step_model, stepping

X = ("x",)


def by_hand(value: int, factor: float) -> int:
    multiplier, shift = (np.array(v) for v in quantise_multiplier(factor))
    return int(rescale(np.array(value), multiplier, shift, "double"))


@pytest.mark.parametrize("scale", [1e-4, 0.003, 0.05, 0.3, 3.0])
def test_softmax_is_that_of_real_numbers_to_one_step(scale: float) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 17, 64):
        scores = rng.integers(-128, 128, (50, n)).astype(np.int8)
        exact = np.exp(scores * scale - (scores * scale).max(-1, keepdims=True))
        exact *= 256 / exact.sum(-1, keepdims=True)
        error = softmax(scores, exponentials(scale)) + 128.0 - np.minimum(exact, 255)
        assert np.abs(error).max() < 0.51


def test_exponentials_fall_from_one_to_nothing() -> None:
    table = exponentials(0.3)
    assert table[0] == 2**31 - 1 and (np.diff(table) <= 0).all() and table[255] == 0
    assert np.abs(table / 2**31 - np.exp(-0.3 * np.arange(256))).max() < 1e-6


def test_attention_by_hand() -> None:
    rng = np.random.default_rng(1)
    for heads, queries, steps, width in ((1, 3, 5, 4), (2, 4, 4, 6), (3, 1, 9, 12)):
        op = Attention("o", ("in0", "in1", "in2"), heads)
        shapes: list[Shape] = [(1, queries, width), (1, steps, width), (1, steps, width)]
        model = single(op, shapes, rng)
        inputs = random_inputs(model.graph, 2, rng)
        out = reference.run(model, inputs)
        scales = [model.scales[n].scale for n in ("in0", "in1", "in2", "o", "o/scores")]
        each = width // heads
        table = exponentials(scales[4] * float(np.float32(each**-0.5)))
        for n, i, h in np.ndindex(2, queries, heads):
            part = slice(h * each, (h + 1) * each)
            q, k, v = (inputs[f"in{j}"][n, 0, :, part].astype(int) for j in range(3))
            factor = scales[0] * scales[1] / scales[4]
            scores = [max(-128, min(127, by_hand(int(q[i] @ row), factor))) for row in k]
            weights = softmax(np.array(scores, np.int8), table).astype(int) + 128
            for c in range(each):
                total = int(weights @ v[:, c])
                value = by_hand(total, scales[2] / 256 / scales[3]) + model.scales["o"].zero_point
                assert out[n, 0, i, h * each + c] == max(-128, min(127, value))


def test_scan_by_hand() -> None:
    rng = np.random.default_rng(2)
    op = SelectiveScan("o", tuple(f"in{i}" for i in range(5)), False)
    wide, narrow = (1, 7, 3), (1, 7, 4)
    model = single(op, [wide, wide, narrow, narrow, wide], rng)
    inputs = random_inputs(model.graph, 1, rng)
    out = reference.run(model, inputs)
    u, dt, b, c, z = (inputs[f"in{i}"][0, 0].astype(int) for i in range(5))
    su, sdt, sb, sc, sz = (model.scales[f"in{i}"].scale for i in range(5))
    between, target = model.scales["o/sum"].scale, model.scales["o"]
    a1 = decay_table(sdt).astype(int)
    half = 2.0**-15
    for d in range(3):
        h = [0] * 4
        for t in range(7):
            a, total = int(a1[dt[t, d] + 128]), int(model.weights["o"].bias[d]) * int(u[t, d])
            power = a
            for n in range(4):
                h[n] += by_hand((32768 - power) * (int(b[t, n] * u[t, d]) - h[n]), half)
                assert abs(h[n]) <= 128 * 128
                total += h[n] * int(c[t, n])
                power = by_hand(power * a, half)
            y = max(-32768, min(32767, by_hand(total, su * sb * sc / between)))
            value = by_hand(y * int(z[t, d]), between * sz / target.scale) + target.zero_point
            assert out[0, 0, t, d] == max(-128, min(127, value))


def test_decay_is_a_sigmoid_below_one() -> None:
    table = decay_table(0.05)
    real = 1 / (1 + np.exp(0.05 * np.arange(-128, 128)))
    assert table.max() < 2**15 and np.abs(table / 2**15 - real).max() < 2**-15
    assert decay_table(1.0)[0] == 2**15 - 1


def test_the_largest_state_stays_inside_sixteen_bits() -> None:
    op = SelectiveScan("o", tuple(f"in{i}" for i in range(5)), False)
    model = single(op, [(1, 40, 1)] * 5, np.random.default_rng(0))
    extreme = np.tile(np.array([-128, 127], np.int8), 20).reshape(1, 1, 40, 1)
    ones = np.full((1, 1, 40, 1), 127, np.int8)
    for b in (ones, -ones - 1):
        inputs = {"in0": extreme, "in1": ones, "in2": b, "in3": ones, "in4": ones}
        assert reference.run(model, inputs).shape == (1, 1, 40, 1)


def test_positions_are_an_addition_of_constants() -> None:
    rng = np.random.default_rng(3)
    model = single(Positions("o", ("in0",), "learned"), [(1, 6, 5)], rng)
    x = random_inputs(model.graph, 4, rng)["in0"]
    held = model.weights["o"]
    real = (x.astype(float) - model.scales["in0"].zero_point) * model.scales["in0"].scale
    real += held.values * float(held.scales[0])
    out = model.scales["o"]
    expected = np.clip(real / out.scale + out.zero_point, -128, 127)
    assert np.abs(reference.run(model, {"in0": x}) - expected).max() < 0.51


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 2), (4, 4), (1, 1)])
def test_a_causal_window_ends_with_the_newest_step(kernel: int, stride: int) -> None:
    op = Conv2d("o", ("in0",), 3, (1, kernel), (1, stride), "causal", 8, False)
    rng = np.random.default_rng(4)
    model = single(op, [(1, 12, 2)], rng)
    x = random_inputs(model.graph, 1, rng)["in0"]
    out = reference.run(model, {"in0": x})
    assert out.shape[2] == 12 // stride
    assert window_padding(op, (1, 12, 2)) == ((0, 0), (kernel - stride, 0))
    for t in range(12):
        changed = x.copy()
        changed[0, 0, t] = np.where(x[0, 0, t] > 0, -128, 127)
        differs = (reference.run(model, {"in0": changed}) != out).any((0, 1, 3))
        assert not differs[: t // stride].any()
        assert differs[t // stride]


@pytest.mark.parametrize("family", ["mamba", "causal"])
def test_step_by_step_equals_the_window(family: Family) -> None:
    seen = set()
    for seed in range(25):
        rng, numbers = random.Random(seed), np.random.default_rng(seed)
        graph = random_sequence(rng, family)
        made = stepping(graph)
        model = with_random_numbers(graph, numbers)
        inputs = random_inputs(graph, 40, numbers)
        assert (
            run_steps(step_model(model, made), made, inputs) == reference.run(model, inputs)
        ).all()
        seen.add(made.frame_steps)
        assert made.state_bytes > 0
    assert len(seen) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_random_sequences_are_models(family: Family) -> None:
    for seed in range(10):
        model = with_random_numbers(
            random_sequence(random.Random(seed), family), np.random.default_rng(seed)
        )
        copy = IntegerModel.from_bytes(model.to_bytes())
        assert copy.hash == model.hash and copy.scales == model.scales
        spread = reference.run(model, random_inputs(model.graph, 50, np.random.default_rng(0)))
        assert spread.std() > 5


def window(padding: Padding, stride: int = 1) -> Op:
    return Conv2d("c", X, 4, (1, 3), (1, stride), padding, 8, True)


MEAN = Pool("p", ("c",), "average", (1, 8), (1, 8))
SERIES, IMAGE = Input("x", (1, 8, 2)), Input("x", (8, 8, 2))


@pytest.mark.parametrize(
    ("inputs", "ops", "message"),
    [
        ((IMAGE,), (LastStep("p", X),), "no series"),
        ((SERIES,), (window("same"), MEAN), "c: .* padding 'same' looks ahead"),
        ((SERIES,), (window("causal"),), "c: the output is a series"),
        ((SERIES, Input("y", (1, 4, 2))), (window("causal"), MEAN), r"series have \[4, 8\] steps"),
        ((Input("x", (1, 1, 2)),), (LastStep("p", X),), "no input is a series"),
        (
            (SERIES,),
            (Positions("c", X, "learned"), LastStep("p", ("c",))),
            "c: Positions needs the whole window",
        ),
        ((SERIES,), (Reshape("c", X, (1, 4, 4)), LastStep("p", ("c",))), "c: Reshape needs"),
    ],
)
def test_what_cannot_run_step_by_step(
    inputs: tuple[Input, ...], ops: tuple[Op, ...], message: str
) -> None:
    with pytest.raises(GraphError, match=message) as raised:
        stepping(Graph(inputs, ops, ops[-1].name))
    assert isinstance(raised.value, NotCausal) or "no series" in message


FIVE = tuple(f"in{i}" for i in range(5))


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (Attention("o", FIVE[:3], 3), [(1, 4, 8)] * 3, "3 heads do not divide 8"),
        (Attention("o", FIVE[:3], 2), [(1, 4, 8), (1, 5, 8), (1, 6, 8)], "do not fit"),
        (Attention("o", FIVE[:3], 2), [(2, 2, 8)] * 3, "no series"),
        (SelectiveScan("o", FIVE, False), [(1, 4, 8)] * 4 + [(1, 5, 8)], "must be"),
        (Positions("o", ("in0",), "random"), [(1, 4, 8)], "'random' are not"),  # type: ignore[arg-type]
        (window("causal", 4), [(1, 8, 2)], "stride up to k"),
        (Conv2d("o", ("in0",), 1, (3, 3), (1, 1), "causal", 8, True), [(8, 8, 1)], "height 1"),
    ],
)
def test_operators_refuse(op: Op, shapes: list[Shape], message: str) -> None:
    inputs = tuple(Input(name, shape) for name, shape in zip(op.inputs, shapes, strict=True))
    with pytest.raises(GraphError, match=message):
        Graph(inputs, (op,), op.name)


def test_attention_needs_symmetric_inputs_and_a_scale_for_its_scores() -> None:
    rng = np.random.default_rng(5)
    model = single(Attention("o", FIVE[:3], 1), [(1, 2, 2)] * 3, rng)
    moved = dict(model.scales) | {"in0": Scale(model.scales["in0"].scale, 3)}
    with pytest.raises(GraphError, match=r"in0: .* zero point must be 0"):
        IntegerModel(model.graph, moved, model.weights)
    left_out = {k: v for k, v in model.scales.items() if k != "o/scores"}
    with pytest.raises(GraphError, match="o/scores: needs a scale"):
        IntegerModel(model.graph, left_out, model.weights)
    assert math.isclose(model.internal(model.graph.ops[0], "scores"), moved["o/scores"].scale)
