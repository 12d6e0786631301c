"""Features as lessons, low bits that are learned or come down, and students that teach."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from test_training import RECIPE, SCALES, graph, net, toy, toy_set

from nas import cli
from nas.data.task import Task, make_task
from nas.errors import DataError
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d, Reshape
from nas.training import evaluate, workers
from nas.training.assistant import lessons_of, to_bytes
from nas.training.evaluate import prepare, recipe_of
from nas.training.fake_quantise import weight_scale
from nas.training.hints import HintLoss, alignment
from nas.training.lessons import Distil, Lessons, read_lessons
from nas.training.linear_layer import LinearLayer
from nas.training.loop import TrainingSet, answers, train
from nas.training.low_bits import learned_quantise, least_bits
from nas.training.recipe import Hint, Recipe, student_recipe
from nas.training.scoring import classify
from nas.training.student import Student, feature_tensor, to_integer
from nas.training.teacher import TEACHER_KINDS, Answers, write_answers
from nas.training.validation import judging

torch.set_num_threads(1)

HINTS: tuple[Hint, ...] = ("projection", "relation")


def layer(student: Student, name: str) -> LinearLayer:
    held = student.layers[name]
    assert isinstance(held, LinearLayer)
    return held


def taught_set(width: int = 6, seed: int = 0) -> TrainingSet:
    """The toy set with random features that say which class a row is of."""
    data = toy_set()
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (3, width))
    features = centres[data.labels.numpy()] + rng.normal(0, 0.3, (2, len(data.labels), width))
    return replace(data, features=torch.from_numpy(features.astype(np.float16)))


# ---------------------------------------------------------------- hints


def test_alignment_is_of_what_is_alike_to_what() -> None:
    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.normal(size=(20, 4)))
    turn, _ = torch.linalg.qr(torch.from_numpy(rng.normal(size=(4, 4))))
    assert alignment(a, 3 * a @ turn + 5).item() == pytest.approx(1, abs=1e-6)
    other = torch.from_numpy(rng.normal(size=(20, 7)))
    grams = [x @ x.T for x in (a - a.mean(0), other - other.mean(0))]
    cosine = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
    assert alignment(a, other).item() == pytest.approx(cosine.item(), abs=1e-6)
    assert cosine < 0.6


def test_a_projection_by_hand() -> None:
    target = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[3.0, 0, 0], [0, 3, 0]]]).half()
    hint = HintLoss("projection", 2, target)
    assert hint.map is not None and hint.mean.tolist() == [1, 1, 0]
    with torch.no_grad():
        hint.map.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [0, 0]]))
        hint.map.bias.zero_()
    student = torch.tensor([[2.0, -1], [1, 1]])
    # less the mean the targets are (2, -1, 0) and (-1, 2, 0)
    loss = hint(student, torch.tensor([[3.0, 0, 0], [0, 3, 0]]).half())
    assert loss.item() == pytest.approx(1 - (1 + 1 / (2**0.5 * 5**0.5)) / 2)


def test_a_map_is_compared_by_its_mean() -> None:
    target = torch.randn(1, 8, 5)
    hint = HintLoss("relation", 3, target)
    maps = torch.randn(8, 3, 2, 4)
    assert hint(maps, target[0]).item() == pytest.approx(
        hint(maps.mean((2, 3)), target[0]).item(), abs=1e-6
    )


@pytest.mark.parametrize("kind", HINTS)
def test_hints_pull_features_towards_the_teacher(kind: Hint) -> None:
    data = taught_set()
    assert data.features is not None

    def distance(recipe_kind: Hint, seed: int) -> float:
        model = net()
        recipe = replace(RECIPE, steps=60, hint=recipe_kind, hint_weight=5.0)
        train(model, data, recipe, seed)
        inputs = {k: v[0] for k, v in data.inputs.items()}
        features = answers(model, inputs, SCALES)[1]
        assert features.shape == (90, 8)
        return 1 - alignment(features, data.features[0].float()).item()  # type: ignore[index]

    taught = [distance(kind, seed) for seed in (1, 2, 3)]
    assert sum(taught) < 0.8 * sum(distance("none", seed) for seed in (1, 2, 3))


def test_the_projection_is_left_behind() -> None:
    model = net()
    before = set(dict(model.named_parameters()))
    train(model, taught_set(), replace(RECIPE, steps=3, hint="projection"), seed=1)
    assert set(dict(model.named_parameters())) == before
    assert not to_integer(model).weights.keys() - {op.name for op in graph().ops}


def test_a_hint_without_features_is_refused() -> None:
    with pytest.raises(ValueError, match="a hint by relation needs a teacher's features"):
        train(net(), toy_set(), replace(RECIPE, hint="relation"), seed=1)


def test_features_of_a_subset_are_of_its_rows() -> None:
    data = taught_set()
    kept = np.arange(90) % 2 == 0
    some = data.subset(kept)
    assert some.features is not None and data.features is not None
    assert (some.features == data.features[:, kept]).all()


def test_the_tensor_that_is_compared() -> None:
    assert feature_tensor(graph()) == "both"
    dense = [
        Conv2d("a", ("x",), 4, (1, 1), (1, 1), "valid", 8, True),
        Conv2d("b", ("a",), 3, (1, 1), (1, 1), "valid", 8, False),
        Reshape("logits", ("b",), (3,)),
    ]
    vector = Graph((Input("x", (1, 1, 5)),), tuple(dense), "logits")
    assert feature_tensor(vector) == "a"
    alone = Graph(vector.inputs, (replace(dense[1], inputs=("x",)), dense[2]), "logits")
    assert feature_tensor(alone) == "x"
    student = Student(alone, {"x": 0.1}).eval()
    student({"x": torch.ones(2, 5, 1, 1)})
    assert student.features.shape == (2, 5, 1, 1)


# ---------------------------------------------------------------- low bits


def test_gradient_of_a_learned_scale_by_hand() -> None:
    weight = torch.tensor([0.3, -0.9, 2.0]).view(3, 1, 1, 1).requires_grad_()
    scale = torch.full((3, 1, 1, 1), 1.0, requires_grad=True)
    held = learned_quantise(weight, scale, 1)
    assert held.flatten().tolist() == [0, -1, 1]
    held.sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None and scale.grad is not None
    assert weight.grad.flatten().tolist() == [1, 1, 0]
    # round(w / s) - w / s inside, the clipped integer outside
    assert scale.grad.flatten().tolist() == pytest.approx([-0.3, -1 + 0.9, 1])


@pytest.mark.parametrize(
    ("progress", "bits"), ((0, 8), (0.19, 8), (0.2, 4), (0.39, 4), (0.4, 2), (1, 2))
)
def test_bits_come_down(progress: float, bits: int) -> None:
    assert least_bits(progress, 0.4) == bits
    assert least_bits(progress, 0) == 2


def test_bits_of_a_training_that_comes_down(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    usual = Student.forward

    def forward(self: Student, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append((layer(self, "conv").bits, layer(self, "output").bits))
        return usual(self, inputs)

    monkeypatch.setattr(Student, "forward", forward)
    ops = tuple(replace(op, weight_bits=4) if op.name == "output" else op for op in graph(2).ops)
    model = Student(Graph(graph().inputs, ops, "logits"), SCALES)
    train(model, toy_set(), replace(RECIPE, steps=10, gradual_share=0.4), seed=1)
    assert seen == [(8, 8)] * 2 + [(4, 4)] * 2 + [(2, 4)] * 6


@pytest.mark.parametrize("gradual_share", (0.0, 0.4))
def test_learned_scales_train_and_ship(gradual_share: float) -> None:
    model = net(2, learned_scales=True)
    recipe = replace(RECIPE, learned_scales=True, gradual_share=gradual_share)
    train(model, toy_set(), recipe, seed=1)
    conv = layer(model, "conv")
    rule = weight_scale(conv.weight, 2)
    assert conv.log_scale is not None and (conv.scale() / rule - 1).abs().max() > 0.02
    model.eval()
    inputs, labels = toy()
    integers = to_integer(model)
    assert (classify(integers, inputs) == labels).mean() > 0.9
    for op in ("conv", "fc", "output"):
        held = layer(model, op)
        expected = (held.weight / held.scale()).clamp(-1, 1).round().abs()
        found = np.abs(integers.weights[op].values).astype(np.float32)
        np.testing.assert_array_equal(found, expected.detach().permute(0, 2, 3, 1).numpy())


def test_only_two_bits_learn_their_scale() -> None:
    assert layer(net(2, learned_scales=True), "conv").log_scale is not None
    assert layer(net(4, learned_scales=True), "conv").log_scale is None
    assert layer(net(2), "conv").log_scale is None
    begun = layer(net(2, learned_scales=True), "conv")
    torch.testing.assert_close(begun.scale(), weight_scale(begun.weight, 2))


def test_the_scale_begins_where_the_rule_is_when_bits_have_come_down() -> None:
    model = net(2, learned_scales=True)
    conv = layer(model, "conv")
    model.hold_bits(8)
    torch.testing.assert_close(conv.scale(), weight_scale(conv.weight, 8))
    with torch.no_grad():
        conv.weight.mul_(3)
    model.hold_bits(2)
    torch.testing.assert_close(conv.scale(), weight_scale(conv.weight, 2))


# ---------------------------------------------------------------- lessons


@pytest.fixture
def task(toy_arrays: dict[str, np.ndarray]) -> Task:
    return make_task(toy_arrays, "toy")


def test_a_file_of_answers_has_no_features(tmp_path: Path) -> None:
    bank = np.zeros((1, 2, 3, 4), np.float32)
    file = tmp_path / "lessons.npz"
    file.write_bytes(to_bytes(Lessons(bank)))
    held = read_lessons(file, False)
    assert held.features is None and (held.bank == bank).all()
    with pytest.raises(DataError, match=r"lessons.npz: this teacher gives answers and no features"):
        read_lessons(file, True)


def test_parts() -> None:
    lessons = Lessons(np.arange(3.0)[:, None, None, None], np.arange(3.0)[:, None, None, None])
    assert [float(array.sum()) for array in lessons.part(2) if array is not None] == [2, 2]
    alone = Lessons(lessons.bank[:1])
    assert alone.part(2)[0].sum() == 0 and alone.part(2)[1] is None


def test_a_student_teaches_what_its_integers_answer(task: Task) -> None:
    bench = prepare(task, judging(task, "split"), 0)
    source = bench.problem.sensors[0]
    ops = (
        Conv2d("fc", (source.name,), 4, source.shape[:2], (1, 1), "valid", 8, True),
        Conv2d("output", ("fc",), 3, (1, 1), (1, 1), "valid", 8, False),
        Reshape("logits", ("output",), (3,)),
    )
    student = Student(
        Graph((Input(source.name, source.shape),), ops, "logits"), bench.training.scales
    )
    train(student, bench.training, replace(RECIPE, steps=20), seed=1)
    model = to_integer(student)
    lessons = lessons_of(bench, model)
    bank = bench.training.inputs[source.name]
    assert lessons.bank.shape == (1, *bank.shape[:2], 3) and lessons.features is None
    np.testing.assert_allclose(np.exp(lessons.bank).sum(-1), 1, rtol=1e-5)
    copy = {source.name: bank[2].permute(0, 2, 3, 1).numpy()}
    integers = reference.run(model, copy).astype(np.float64) * model.scales["logits"].scale
    np.testing.assert_allclose(np.diff(lessons.bank[0, 2]), np.diff(integers), atol=1e-4)


def test_the_command_line_offers_them_all() -> None:
    assert get_args(Distil) == cli.DISTILS and TEACHER_KINDS == cli.TEACHERS


def test_a_worker_trains_with_features_where_the_job_says_so(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(task, judging(task, "split"), 0)
    copies, rows = next(iter(bench.training.inputs.values())).shape[:2]
    file, seen = tmp_path / "t.npz", []
    held = np.zeros((1, copies, rows, 3), np.float32), np.ones((1, copies, rows, 2), np.float16)
    write_answers(file, Answers(held[0], held[0][0, 0], held[0][0, 0], 1, held[1]))

    def note(bench: Any, graph: Any, recipe: Recipe, metric: Any, teacher: Any, *_: Any) -> None:
        seen.append((recipe.distil_weight, recipe.hint, teacher and teacher.features is not None))

    monkeypatch.setattr(evaluate, "train_student", note)
    monkeypatch.setattr(workers._Process, "prepared", bench)
    monkeypatch.setattr(workers._Process, "teacher", None)
    for given in (file, None):
        for features in (False, True):
            job = workers.Training(graph(), "accuracy", given, False, 1, features)
            workers.train(job)
    hint = student_recipe(2000, False, "accuracy", True, False, features=True).hint
    assert seen[:2] == [(0.7, "none", False), (0.7, hint, True)]
    assert seen[2:] == [(0.0, "none", None)] * 2


def test_recipes_of_features() -> None:
    assert student_recipe(2000, False, "accuracy", True, False).hint == "none"
    assert student_recipe(2000, False, "accuracy", True, False, features=True).hint != "none"


def test_a_bench_passes_features_on(task: Task) -> None:
    bench = prepare(task, judging(task, "split"), 0)
    assert recipe_of(bench, "accuracy", True, False, True).hint != "none"
    assert recipe_of(bench, "accuracy", True, False).hint == "none"
