"""A layer as one operation, and packs of students, learn what layers and students learn alone."""

import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from random_graphs import random_graph, random_multimodal
from sequence_graphs import random_sequence
from test_training import RECIPE, SCALES, toy_set
from test_training import graph as toy_graph
from test_validation import Arrays, genes

from nas.data.task import make_task
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d, DepthwiseConv2d, Pool, Positions, SelectiveScan
from nas.training import evaluate, fused, linear_layer, loop, workers
from nas.training.evaluate import Wanted, fit_pack, prepare
from nas.training.linear_layer import LinearLayer
from nas.training.packable import PACKED, packable, shape_of
from nas.training.packs import joins, pack, unpack
from nas.training.recipe import Recipe
from nas.training.student import Student
from nas.training.validation import judging
from nas.training.workers import Training

torch.set_num_threads(1)
CPU = torch.device("cpu")

LAYERS = [
    Conv2d("o", ("in",), 7, (1, 1), (1, 1), "valid", 8, True),
    Conv2d("o", ("in",), 5, (3, 3), (1, 1), "same", 4, True),
    Conv2d("o", ("in",), 8, (3, 5), (2, 3), "same", 2, False),
    Conv2d("o", ("in",), 3, (2, 2), (2, 2), "valid", 8, False),
    Conv2d("o", ("in",), 4, (1, 1), (2, 2), "valid", 8, True),
    Conv2d("o", ("in",), 4, (1, 4), (1, 1), "causal", 8, True),
    DepthwiseConv2d("o", ("in",), (3, 3), (1, 1), "same", 8, True),
    DepthwiseConv2d("o", ("in",), (5, 3), (2, 1), "same", 4, False),
    DepthwiseConv2d("o", ("in",), (1, 4), (1, 2), "causal", 2, True),
]


def steps_of(
    net: Student, count: int, batch: int = 6, seed: int = 0, members: int = 1
) -> list[torch.Tensor]:
    """Outputs of some forward and backward passes, the last two of them frozen, and gradients."""
    net.train()
    generator, found = torch.Generator().manual_seed(seed), []
    for step in range(count):
        if step == count - 2:
            net.freeze()
        inputs = {}
        for source in net.graph.inputs:
            height, width, channels = source.shape
            x = torch.randn(members * batch, channels, height, width, generator=generator)
            x = x.contiguous(memory_format=torch.channels_last) if step % 2 else x
            inputs[source.name] = x.requires_grad_()
        net.zero_grad()
        y = net(inputs)
        y.backward(torch.randn(y.shape, generator=generator))
        found += [y.detach(), *(x.grad for x in inputs.values() if x.grad is not None)]
        found += [p.grad for p in net.parameters() if p.grad is not None]
    return [tensor.clone() for tensor in found]


def alike(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> None:
    """Equal but where a value fell on the other side of a rounding."""
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        apart = (one - other).abs()  # batch norm leaves some gradients at 0 but for noise
        off = (apart > 1e-4 * float(other.abs().max()) + 1e-4).float().mean()
        assert off <= 0.02, f"{float(off):.3f} of {tuple(one.shape)} differ"
        assert apart.sum() <= 0.01 * other.abs().sum() + 1e-4 * other.numel()


@pytest.fixture
def fused_layers(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Notes the weights of every layer that is one operation."""
    seen: list[torch.Size] = []
    original = linear_layer.fused_layer

    def note(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(weight.shape)
        return original(x, weight, *rest)

    monkeypatch.setattr(linear_layer, "fused_layer", note)
    return seen


def student(graph: Graph, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    net = Student(graph, {source.name: 1 / 64 for source in graph.inputs})
    for layer in net.layers.values():
        assert isinstance(layer, LinearLayer)
        torch.nn.init.normal_(layer.bias, 0, 0.1)
        if layer.gain is not None:
            torch.nn.init.normal_(layer.gain, 1, 0.5)
    return net


def by_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinearLayer, "fuses", lambda *_: False)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda op: f"{type(op).__name__}{op.kernel}")
@pytest.mark.parametrize("reader", (False, True))
def test_a_layer_as_one_operation(
    layer: Conv2d | DepthwiseConv2d,
    reader: bool,
    fused_layers: list[torch.Size],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ops = [layer, DepthwiseConv2d("end", ("o",), (1, 1), (1, 1), "valid", 8, False)]
    causal = layer.padding == "causal"
    made = graph_on((1, 16, 4) if causal else (6, 8, 4), ops[: 1 + reader])
    one, other = student(made), student(made)
    found = steps_of(one, 5)
    assert len(fused_layers) == 5 * (1 + reader)
    by_operations(monkeypatch)
    expected = steps_of(other, 5)
    assert len(fused_layers) == 5 * (1 + reader)
    alike(found, expected)
    for name in other.layers:
        for part in ("mean", "variance"):
            ours, theirs = getattr(one.layers[name], part), getattr(other.layers[name], part)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    for group, peak in other.ranges.items():
        torch.testing.assert_close(one.ranges[group], peak, rtol=1e-4, atol=0)


def graph_on(shape: tuple[int, int, int], ops: Sequence[Conv2d | DepthwiseConv2d]) -> Graph:
    return Graph((Input("in", shape),), tuple(ops), ops[-1].name)


def test_batch_norm_far_from_zero_keeps_its_variance() -> None:
    """Squares of values near 1,000 would drown a spread of 1."""
    made = graph_on((1, 64, 1), [Conv2d("o", ("in",), 2, (1, 1), (1, 1), "valid", 8, True)])
    net = student(made).train()
    layer = net.layers["o"]
    assert isinstance(layer, LinearLayer)
    layer.weight.data.fill_(1.0)
    torch.manual_seed(1)
    net({"in": 1000 + torch.randn(64, 1, 1, 64)})
    assert layer.variance.tolist() == pytest.approx([1.0, 1.0], abs=0.02)  # .9 of 1, .1 of 1
    assert layer.mean.tolist() == pytest.approx([100.0, 100.0], abs=0.1)


def test_large_maps_are_left_to_torch(
    fused_layers: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = student(graph_on((6, 8, 4), [LAYERS[1]])).train()  # type: ignore[list-item]
    x = {"in": torch.randn(3, 4, 6, 8)}
    monkeypatch.setattr(linear_layer, "LARGEST_WINDOWS", 3 * 48 * 36)
    net(x)
    assert len(fused_layers) == 1
    monkeypatch.setattr(linear_layer, "LARGEST_WINDOWS", 3 * 48 * 36 - 1)
    net(x)
    assert len(fused_layers) == 1
    monkeypatch.setattr(linear_layer, "LARGEST_WINDOWS", 0)
    fresh = pack([student(net.graph), student(net.graph)]).train()
    fresh({"in": torch.randn(6, 4, 6, 8)})
    assert len(fused_layers) == 2, "in a pack it is the faster way"


def with_bits(graph: Graph, rng: random.Random) -> Graph:
    """The same shape at other bits."""
    linear = (Conv2d, DepthwiseConv2d)
    ops = [
        replace(op, weight_bits=rng.choice((2, 4, 8))) if isinstance(op, linear) else op
        for op in graph.ops
    ]
    return replace(graph, ops=tuple(ops))


def without_ties(graph: Graph) -> Graph:
    """A mean of four integers often lies half-way between two."""
    ops = [replace(op, function="max") if isinstance(op, Pool) else op for op in graph.ops]
    return replace(graph, ops=tuple(ops))


def some_graphs() -> list[Graph]:
    """Some of every operator that a pack takes."""
    rng, graphs = random.Random(7), list[Graph]()
    while len(graphs) < 15:
        makers = (
            partial(random_graph, rng),
            partial(random_multimodal, rng, residual=0.3),
            partial(random_sequence, rng, "causal"),
        )
        made = makers[len(graphs) % 3]()
        if packable(made) and any(isinstance(op, Conv2d) for op in made.ops):
            graphs.append(made)
    return graphs


def test_graphs_with_every_operator_are_packed() -> None:
    assert {type(op) for graph in some_graphs() for op in graph.ops} == PACKED


@pytest.mark.parametrize("compiled", (True, False))
@pytest.mark.parametrize("number", range(15))
def test_a_pack_computes_what_its_members_compute(
    number: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(fused, "takes", lambda _: False)
        monkeypatch.setattr(linear_layer, "takes", lambda _: False)
    rng = random.Random(number)
    shape = some_graphs()[number]
    if not compiled:
        shape = without_ties(shape)
    members = [student(with_bits(shape, rng), seed) for seed in range(3)]
    if not compiled:  # sums are made in other orders: no value is to fall on the other side
        members = [member.double() for member in members]
    alone = copy.deepcopy(members)
    dtype = torch.float32 if compiled else torch.float64
    net = pack(members).train()
    assert len({shape_of(member.graph) for member in members}) == 1
    for member in alone:
        member.train()
    for step in range(4):
        if step == 2:
            net.freeze()
            for member in alone:
                member.freeze()
        x = {
            source.name: torch.randn(3 * 5, source.shape[2], *source.shape[:2], dtype=dtype)
            for source in shape.inputs
        }
        for each in (net, *alone):
            each.zero_grad()
        y = net(x)
        ys = [m({k: v.chunk(3)[i] for k, v in x.items()}) for i, m in enumerate(alone)]
        alike([y.detach()], [torch.cat(ys).detach()])
        y.square().sum().backward()
        torch.cat(ys).square().sum().backward()
        for name, layer in net.layers.items():
            for part in ("weight", "bias"):
                theirs = [getattr(m.layers[name], part).grad for m in alone]
                alike([getattr(layer, part).grad], [torch.cat(theirs)])
    unpack(net, members)
    for member, other in zip(members, alone, strict=True):
        for group, peak in other.ranges.items():
            torch.testing.assert_close(member.ranges[group], peak, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("compiled", (True, False))
@pytest.mark.parametrize("weighted", (False, True))
def test_a_pack_learns_what_its_members_learn(
    weighted: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(fused, "takes", lambda _: False)
        monkeypatch.setattr(linear_layer, "takes", lambda _: False)
    recipe = replace(RECIPE, steps=12, class_weighting=weighted)
    data = toy_set()
    labels = data.labels.clone()
    labels[:30] = 0  # a batch has its own weights
    data = replace(data, labels=labels)
    wanted = [Wanted(toy_graph(bits), seed) for seed, bits in enumerate((8, 4, 2))]
    together = fit_pack(wanted, data, recipe)
    for one, packed in zip(wanted, together, strict=True):
        alone = fit_pack([one], data, recipe)[0]
        assert packed.graph == one.graph
        for name, weights in alone.weights.items():
            near = 1e-3 if compiled else 2e-2  # sums in other orders: some values round otherwise
            np.testing.assert_allclose(packed.weights[name].scales, weights.scales, rtol=near)
            apart = packed.weights[name].values != weights.values
            assert apart.mean() < 0.05
    assert len({model.hash for model in together}) == 3


@pytest.mark.parametrize("weighted", (False, True))
def test_the_loss_of_a_pack_is_the_sum_of_its_members(weighted: bool) -> None:
    recipe = replace(RECIPE, distil_weight=0.7)
    data = toy_set(np.random.default_rng(0).normal(size=(2, 90, 3)).astype(np.float32))
    weights = torch.tensor([1.0, 2.0, 5.0]) if weighted else None
    members = [student(toy_graph(bits), bits).train() for bits in (8, 4)]
    which, rows = torch.zeros(20, dtype=torch.int64), torch.arange(20)
    together = loop._loss(pack(members), data, recipe, weights, which, rows, 2)
    alone = [
        loop._loss(net, data, recipe, weights, which[:10], part)
        for net, part in zip(members, rows.chunk(2), strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone).sum())


def test_members_see_their_rows_in_their_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    original = loop._loss

    def note(*arguments: Any) -> torch.Tensor:
        seen.append(arguments[5].tolist())
        return original(*arguments)

    monkeypatch.setattr(loop, "_loss", note)
    recipe = replace(RECIPE, steps=3, batch_size=30)
    fit_pack([Wanted(toy_graph(), seed) for seed in (4, 9)], toy_set(), recipe)
    pairs, seen[:] = list(seen), []
    for seed in (4, 9):
        fit_pack([Wanted(toy_graph(), seed)], toy_set(), recipe)
    assert [row[:30] for row in pairs] == seen[:3] and [row[30:] for row in pairs] == seen[3:]
    assert sorted(row for half in seen[:3] for row in half) == list(range(90))


def test_what_may_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packable(toy_graph()) and shape_of(toy_graph(2)) == shape_of(toy_graph(8))
    rng = random.Random(0)
    for family, kind in (("transformer", Positions), ("mamba", SelectiveScan)):
        made = random_sequence(rng, family)  # type: ignore[arg-type]
        while not any(isinstance(op, kind) for op in made.ops):
            made = random_sequence(rng, family)  # type: ignore[arg-type]
        assert not packable(made)
    macs = sum(toy_graph().macs(op) for op in toy_graph().ops)
    for most, small in ((macs, True), (macs - 1, False)):
        monkeypatch.setattr("nas.training.packable.MOST_MACS", most)
        assert packable(toy_graph()) == small


def test_with_what_recipes_students_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joins(RECIPE, CPU)
    assert not joins(replace(RECIPE, hint="relation"), CPU)
    assert not joins(replace(RECIPE, learned_scales=True), CPU)
    assert not joins(replace(RECIPE, gradual_share=0.5), CPU)
    monkeypatch.setattr(fused, "library", lambda: None)
    assert not joins(RECIPE, CPU)


def test_students_of_two_shapes_are_no_pack() -> None:
    wider = replace(
        toy_graph(), ops=(replace(toy_graph().ops[0], channels=6), *toy_graph().ops[1:])
    )
    with pytest.raises(ValueError, match="several shapes"):
        pack([Student(toy_graph(), SCALES), Student(wider, SCALES)])


def test_a_pack_is_left_halfway_where_no_member_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Student] = []

    class Look:
        def __init__(self, answer: bool) -> None:
            self.answer = answer

        def __call__(self, net: Student) -> bool:
            assert not net.layers["conv"].members  # the member, not the pack
            asked.append(net)
            return self.answer

    wanted = [Wanted(toy_graph(bits), 1) for bits in (8, 4)]
    recipe = replace(RECIPE, steps=8)
    for answers, goes_on in (((False, True), True), ((False, False), False), ((True, None), True)):
        asked.clear()
        looks: Any = [None if answer is None else Look(answer) for answer in answers]
        nets = evaluate._trained(wanted, toy_set(), recipe, looks)
        assert len(nets) == 2 * goes_on
        assert len(asked) == sum(answer is not None for answer in answers)


# ---------------------------------------------------------------- in a worker


@pytest.fixture
def jobs(toy_arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Three seeds of a network, in a process that is ready for them."""
    task = make_task(toy_arrays, "toy")
    bench = prepare(task, judging(task, "split"), 0)
    short = Recipe(steps=6, batch_size=8)
    monkeypatch.setattr(workers._Process, "prepared", bench)
    monkeypatch.setattr(evaluate, "recipe_of", lambda *_: short)
    graph = genes(bench).lower()
    assert packable(graph)
    return [Training(graph, "accuracy", None, True, seed) for seed in range(3)]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of what is trained together."""
    made: list[int] = []
    original = evaluate.train_pack

    def note(bench: Any, wanted: Sequence[Wanted], *rest: Any) -> Any:
        made.append(len(wanted))
        return original(bench, wanted, *rest)

    monkeypatch.setattr(evaluate, "train_pack", note)
    return made


def test_a_worker_trains_seeds_together(jobs: list[Training], sizes: list[int]) -> None:
    made = workers.train_several(jobs)
    assert sizes == [3] and len({trained.model for trained in made}) == 3
    alone = [workers.train(job) for job in jobs]
    assert sizes == [3, 1, 1, 1]
    for one, other in zip(made, alone, strict=True):
        assert one.val_score == pytest.approx(other.val_score, abs=0.1) and one.train_s > 0


def test_without_a_compiler_one_after_the_other(
    jobs: list[Training], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "library", lambda: None)
    assert len(workers.train_several(jobs)) == 3 and sizes == [1, 1, 1]


def test_who_diverges_takes_no_other_along(
    jobs: list[Training], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = evaluate.student

    def broken(graph: Graph, data: Any, recipe: Recipe, seed: int) -> Student:
        net = original(graph, data, recipe, seed)
        if seed == 1:
            next(iter(net.parameters())).data.fill_(float("nan"))
        return net

    monkeypatch.setattr(evaluate, "student", broken)
    made = workers.train_several(jobs)
    assert sizes == [3, 1, 1, 1]
    assert isinstance(made[1], FloatingPointError) and "diverged" in str(made[1])
    assert made[1].__traceback__ is None, "it would hold the network"
    assert made[0].model is not None and made[2].model is not None
