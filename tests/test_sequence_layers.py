"""What the student trains for series: normalisation, attention, positions, selective scans."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sequence_graphs import FAMILIES, Family, random_sequence
from test_student import own_rounding, settle, some_inputs, tensors, trained

from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.ops import (
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Mul,
    Op,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Shape,
    Table,
)
from nas.training.linear_layer import LinearLayer, normalised
from nas.training.sequence_layers import (
    LARGEST_SKIP,
    PositionsLayer,
    ScanLayer,
    attention_weights,
    decay_of,
    selective_scan,
    sinusoids,
)
from nas.training.student import Student, fused_tensor, to_integer

torch.set_num_threads(1)


def linear(name: str, source: str, channels: int, bits: int = 8, relu: bool = False) -> Conv2d:
    return Conv2d(name, (source,), channels, (1, 1), (1, 1), "valid", bits, relu)


def transformer(bits: int, steps: int = 16) -> Graph:
    """One block, as it is recommended, on a series of four channels."""
    ops: tuple[Op, ...] = (
        Conv2d("stem", ("x",), 8, (1, 3), (1, 1), "same", 8, True),
        Positions("placed", ("stem",), "learned"),
        linear("q", "placed", 8, bits),
        linear("k", "placed", 8, bits),
        linear("v", "placed", 8, bits),
        Attention("mixed", ("q", "k", "v"), 2),
        linear("wo", "mixed", 8, bits),
        Add("x1", ("placed", "wo"), False),
        linear("w1", "x1", 16, bits, relu=True),
        linear("w2", "w1", 8, bits),
        Add("x2", ("x1", "w2"), False),
        Pool("mean", ("x2",), "average", (1, steps), (1, steps)),
        linear("out", "mean", 5),
        Reshape("logits", ("out",), (5,)),
    )
    return Graph((Input("x", (1, steps, 4)),), ops, "logits")


def mamba(bits: int, steps: int = 16) -> Graph:
    """One block, as it is recommended, and a gate on what is left of it."""
    ops: tuple[Op, ...] = (
        Conv2d("stem", ("x",), 8, (1, 3), (1, 1), "causal", 8, False),
        linear("wz", "stem", 12, bits),
        Table("z", ("wz",), "silu"),
        linear("wu", "stem", 12, bits),
        DepthwiseConv2d("dw", ("wu",), (1, 4), (1, 1), "causal", 8, False),
        Table("u", ("dw",), "silu"),
        linear("rank", "u", 2, bits),
        linear("dt", "rank", 12),
        linear("wb", "u", 4),
        Table("b", ("wb",), "tanh"),
        linear("wc", "u", 4),
        Table("c", ("wc",), "tanh"),
        SelectiveScan("scanned", ("u", "dt", "b", "c", "z"), False),
        linear("wo", "scanned", 8, bits),
        Add("x1", ("stem", "wo"), False),
        LastStep("last", ("x1",)),
        linear("gate", "last", 8, bits),
        Table("open", ("gate",), "sigmoid"),
        Mul("gated", ("last", "open")),
        linear("out", "gated", 5),
        Reshape("logits", ("out",), (5,)),
    )
    return Graph((Input("x", (1, steps, 4)),), ops, "logits")


def layer_of(net: Student, name: str) -> LinearLayer:
    layer = net.layers[name]
    assert isinstance(layer, LinearLayer)
    return layer


NORMALISED = {
    "transformer": {"stem", "q", "k", "v", "wo", "w1", "w2"},
    "mamba": {"stem", "wz", "wu", "dw", "wb", "wc", "wo"},
}


@pytest.mark.parametrize("graph", (transformer(4), mamba(4)), ids=("transformer", "mamba"))
def test_what_is_normalised(graph: Graph) -> None:
    expected = NORMALISED["transformer" if "q" in graph.shapes else "mamba"]
    linears = [op for op in graph.ops if isinstance(op, Conv2d | DepthwiseConv2d)]
    assert {op.name for op in linears if normalised(op, graph)} == expected
    net = Student(graph, {"x": 0.03})
    assert {op.name for op in linears if layer_of(net, op.name).gain is not None} == expected


def test_a_scan_reads_normalised_b_c_and_z_but_not_dt() -> None:
    names = ("u", "dt", "b", "c", "z")
    ops = (*(linear(n, "x", 4) for n in names), SelectiveScan("o", names, False))
    graph = Graph((Input("x", (1, 6, 4)),), ops, "o")
    seen = {op.name: normalised(op, graph) for op in ops if isinstance(op, Conv2d)}
    assert seen == {"u": True, "dt": False, "b": True, "c": True, "z": True}
    net = Student(graph, {"x": 0.03})
    assert [n for n in names if layer_of(net, n).bias.any()] == ["dt"]


@pytest.mark.parametrize("function", ("sigmoid", "hard_swish"))
def test_other_tables_read_no_normalised_layer(function: str) -> None:
    table = Table("o", ("a",), function)  # type: ignore[arg-type]
    graph = Graph((Input("x", (1, 6, 4)),), (linear("a", "x", 4), table), "o")
    assert not normalised(graph.ops[0], graph)  # type: ignore[arg-type]


def test_positions_read_a_normalised_layer() -> None:
    ops = (linear("a", "x", 4), Positions("o", ("a",), "sinusoidal"))
    assert normalised(ops[0], Graph((Input("x", (1, 6, 4)),), ops, "o"))


def test_a_relu_before_a_sum_begins_at_one() -> None:
    ops = (linear("a", "x", 4, relu=True), linear("b", "x", 4), Add("o", ("a", "b"), False))
    net = Student(Graph((Input("x", (1, 1, 4)),), ops, "o"), {"x": 0.03})
    for name, first in (("a", 1.0), ("b", 0.5)):
        gain = layer_of(net, name).gain
        assert gain is not None and gain.tolist() == [first] * 4


def test_gains_begin_at_a_half_before_a_residual_sum() -> None:
    for graph, halved in ((transformer(8), {"wo", "w2"}), (mamba(8), {"wo"})):
        net = Student(graph, {"x": 0.03})
        for op in graph.ops:
            if isinstance(op, Conv2d | DepthwiseConv2d):
                gain = layer_of(net, op.name).gain
                if gain is not None:
                    first = 0.5 if op.name in halved else 1.0
                    np.testing.assert_array_equal(gain.detach(), np.full(len(gain), first))


def test_steps_begin_between_one_and_fifty() -> None:
    biases = []
    for seed in range(20):
        torch.manual_seed(seed)
        net = Student(mamba(8), {"x": 0.03})
        biases += layer_of(net, "dt").bias.tolist()
        assert not layer_of(net, "rank").bias.any() and not layer_of(net, "wb").bias.any()
    assert -4.0 <= min(biases) < -3.9 and -0.1 < max(biases) <= 0.0


def series(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def plain_scan(u: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The same recurrence in torch's own operations."""
    states = b.shape[2]
    h = [torch.zeros_like(u[0]) for _ in range(states)]
    out = []
    for t in range(len(u)):
        for n in range(states):
            power = a[t] ** (n + 1)
            h[n] = power * h[n] + (1 - power) * b[t, :, n, None] * u[t]
        out.append(torch.stack([h[n] * c[t, :, n, None] for n in range(states)]).sum(0))
    return torch.stack(out)


@pytest.mark.parametrize(("steps", "states"), ((1, 1), (2, 3), (9, 4), (64, 8)))
def test_the_scan_and_its_gradients_are_those_of_torch(steps: int, states: int) -> None:
    shapes = ((steps, 3, 5), (steps, 3, 5), (steps, 3, states), (steps, 3, states))
    given = [series(*shape, seed=i) for i, shape in enumerate(shapes)]
    given[1] = torch.sigmoid(given[1])
    weight = series(steps, 3, 5, seed=9)
    results = []
    for scan in (plain_scan, selective_scan):
        xs = [x.clone().requires_grad_() for x in given]
        y = scan(*xs)
        (y * weight).sum().backward()
        results.append((y, [x.grad for x in xs]))
    (expected, wanted), (seen, gradients) = results
    torch.testing.assert_close(seen, expected)
    for gradient, other in zip(gradients, wanted, strict=True):
        assert gradient is not None and other is not None and other.abs().max() > 0.01
        torch.testing.assert_close(gradient, other)


def test_the_rounded_scan_lies_on_its_grids() -> None:
    u, b, c = (torch.round(20 * series(12, 2, n, seed=n)) for n in (3, 4, 4))
    decay = torch.round(torch.sigmoid(series(12, 2, 3)) * 2**15) / 2**15
    only = F.one_hot(torch.tensor(1), 4).double().expand(12, 2, 4).contiguous()
    unit = torch.tensor(0.25, dtype=torch.float64)
    state = selective_scan(u / 2, decay, b / 2, only, unit) / unit  # the second state alone
    np.testing.assert_array_equal(state, torch.round(state))
    h = np.zeros((2, 3))
    square = np.round((decay.numpy() * decay.numpy()) * 2**15) / 2**15
    for t in range(12):
        drive = (b[t, :, 1, None] * u[t]).numpy()
        h = h + np.round((1 - square[t]) * (drive - h))
        np.testing.assert_array_equal(state[t], h)
    xs = [x.requires_grad_() for x in (u / 2, decay.clone(), b / 2, c)]
    selective_scan(*xs, unit).sum().backward()
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in xs)


def test_decay_by_hand() -> None:
    dt = torch.tensor([0.0, 2.0, -30.0, 30.0], requires_grad=True)
    decay = decay_of(dt, quantised=True)
    np.testing.assert_array_equal(decay.detach() * 2**15, [16384, 3906, 32767, 0])
    decay.sum().backward()
    a = 1 / (1 + np.exp(2.0))
    np.testing.assert_allclose(dt.grad, [-0.25, -a * (1 - a), 0, 0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(decay_of(dt, quantised=False), torch.sigmoid(-dt))


def test_attention_weights_by_hand() -> None:
    scores = torch.tensor([[0.0, 2.0 * np.log(3.0)], [0.0, 40.0]], dtype=torch.float32)
    seen = attention_weights(scores, 4, quantised=True)  # the root of a head of 4 is 2
    np.testing.assert_array_equal(seen * 256, [[64, 192], [0, 255]])
    real = attention_weights(scores, 4, quantised=False)
    np.testing.assert_allclose(real, [[0.25, 0.75], [0.0, 1.0]], atol=1e-6)


def test_float_attention_is_torchs_own() -> None:
    names = ("q", "k", "v")
    shapes: dict[str, Shape] = {"q": (1, 5, 6), "k": (1, 7, 6), "v": (1, 7, 6)}
    inputs = tuple(Input(n, shapes[n]) for n in names)
    graph = Graph(inputs, (Attention("o", names, 3),), "o")
    net = Student(graph, dict.fromkeys(names, 1.0), quantised=False)
    x = {n: series(2, 6, 1, s[1], seed=s[1]).float() for n, s in shapes.items()}
    heads = [x[n][:, :, 0].reshape(2, 3, 2, -1).transpose(2, 3) for n in names]
    expected = F.scaled_dot_product_attention(*heads).transpose(2, 3).reshape(2, 6, 1, 5)
    torch.testing.assert_close(net(x), expected)


def test_sinusoids_by_hand() -> None:
    seen = sinusoids(3, 4)
    assert seen.shape == (1, 4, 1, 3)
    t = np.arange(3)
    expected = [np.sin(t), np.cos(t), np.sin(t / 100), np.cos(t / 100)]
    np.testing.assert_allclose(seen[0, :, 0], expected, atol=1e-6)


def test_only_learned_positions_are_trained() -> None:
    for kind in ("learned", "sinusoidal"):
        op = Positions("o", ("x",), kind)  # type: ignore[arg-type]
        graph = Graph((Input("x", (1, 6, 4)),), (op,), "o")
        torch.manual_seed(0)
        net = Student(graph, {"x": 0.03})
        layer = net.layers["o"]
        assert isinstance(layer, PositionsLayer)
        assert [p.requires_grad for p in net.parameters()] == [kind == "learned"]
        held = to_integer(trained(graph, some_inputs(graph))).weights["o"]
        assert held.values.shape == (1, 6, 4) and np.abs(held.values).max() == 127
        real = held.values * float(held.scales[0])
        if kind == "sinusoidal":
            wave = sinusoids(6, 4)[0].permute(1, 2, 0)
            np.testing.assert_allclose(real, wave, atol=0.51 / 127)
        else:
            assert 0.1 < real.std() < 0.5
            net.train()
            net({"x": torch.randn(8, 4, 1, 6)})
            net({"x": torch.randn(8, 4, 1, 6)}).sum().backward()
            assert layer.values.grad is not None and (layer.values.grad > 0).all()


def test_skips_lie_on_the_grid_of_the_integers() -> None:
    inputs = some_inputs(mamba(8))
    net = trained(mamba(8), inputs)
    layer = net.layers["scanned"]
    assert isinstance(layer, ScanLayer) and layer.skip.tolist() == [1.0] * 12
    unit = net.scale("b") * net.scale("c")
    with torch.no_grad():
        layer.skip.copy_(torch.linspace(-2, 1, 12))
    held = to_integer(net).weights["scanned"].bias
    np.testing.assert_array_equal(held, np.round(np.linspace(-2, 1, 12) * 2**14))
    np.testing.assert_allclose((layer(unit) / unit).detach(), held, rtol=1e-6)
    layer(unit).sum().backward()
    np.testing.assert_array_equal(layer.skip.grad, np.ones(12))
    assert np.abs(layer.integers(torch.tensor(1e-9)).bias).max() == LARGEST_SKIP


def logits_apart(net: Student, graph: Graph, count: int = 256) -> tuple[np.ndarray, float]:
    """Steps between the student's logits and the reference's, and the share of equal classes."""
    inputs = some_inputs(graph, count)
    model = to_integer(net)
    seen, expected = reference.run(model, inputs), own_rounding(net, model, inputs)
    assert np.ptp(seen.astype(int)) > 100
    return np.abs(seen - expected), float((seen.argmax(1) == expected.argmax(1)).mean())


@pytest.mark.parametrize("bits", (8, 4, 2))
@pytest.mark.parametrize("block", (transformer, mamba))
def test_a_block_decides_as_its_integers(block: type, bits: int) -> None:
    graph = block(bits)
    off, agreed = logits_apart(trained(graph, some_inputs(graph, 256)), graph)
    assert (off <= (3 if bits == 8 else 8)).mean() > 0.98 and agreed >= 0.94


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_random_networks_become_integers(family: Family, seed: int) -> None:
    graph = random_sequence(random.Random(seed), family)
    inputs = some_inputs(graph)
    net = trained(graph, inputs)
    model = to_integer(net)
    assert set(model.scales) == {*graph.shapes, *graph.internal_scales}
    seen, expected = reference.run(model, inputs), own_rounding(net, model, inputs)
    spread = expected.std()
    assert spread > 10 and np.abs(seen - expected).mean() < 0.1 * spread


def test_a_sum_has_sixteen_bits_and_scores_eight() -> None:
    net = trained(mamba(8), some_inputs(mamba(8)))
    assert net.scale("scanned/sum") == pytest.approx(net.ranges["scanned/sum"].item() / 32767, 1e-4)
    net = trained(transformer(8), some_inputs(transformer(8)))
    assert net.scale("mixed/scores") == pytest.approx(net.ranges["mixed/scores"].item() / 127, 1e-4)


def test_a_sigmoid_that_attention_reads_is_symmetric() -> None:
    ops: tuple[Op, ...] = (
        linear("a", "x", 4),
        Table("s", ("a",), "sigmoid"),
        Attention("o", ("s", "s", "s"), 1),
    )
    graph = Graph((Input("x", (1, 6, 4)),), ops, "o")
    inputs = some_inputs(graph)
    model = to_integer(trained(graph, inputs))
    assert model.scales["s"].zero_point == 0
    assert np.ptp(reference.run(model, inputs).astype(int)) > 20


def test_dropout_comes_after_the_steps_have_met() -> None:
    assert fused_tensor(transformer(8)) == "mean"
    assert fused_tensor(mamba(8)) == "gated"
    x2: Sequence[Op] = transformer(8).ops[:11]
    more = (*x2, LastStep("l", ("x2",)), linear("e", "y", 3), Concat("both", ("l", "e")))
    assert fused_tensor(Graph((Input("x", (1, 16, 4)), Input("y", (1, 1, 5))), more, "both")) == (
        "both"
    )


@pytest.mark.parametrize("block", (transformer, mamba))
def test_every_weight_of_a_block_learns(block: type) -> None:
    graph = block(4)
    torch.manual_seed(0)
    net = Student(graph, {"x": 0.03})
    x = tensors(net, some_inputs(graph))
    with torch.no_grad():
        net.train()(x)  # sets the ranges
    labels = torch.arange(64) % 5
    F.cross_entropy(net(x), labels).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        learns = parameter.grad.abs().max() > 1e-7
        assert learns == (name != "layers.k.bias"), name  # softmax does not see what keys share


def test_the_same_seed_gives_the_same_integers() -> None:
    graph = mamba(2)
    inputs = some_inputs(graph)
    hashes = {to_integer(trained(graph, inputs)).hash for _ in range(2)}
    assert len(hashes) == 1
    net = trained(graph, inputs)
    layer_of(net, "wo").weight.data *= -1
    settle(net, inputs)
    assert to_integer(net).hash not in hashes
