"""The training loop: it learns, it repeats, and its loss and schedule are those on paper."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nas.network.graph import Graph, Input
from nas.network.numerics import Int8
from nas.network.ops import Concat, Conv2d, Pool, Reshape
from nas.training import loop as training
from nas.training.loop import TrainingSet, predict, train, training_set
from nas.training.recipe import (
    ATTENTION_RATE,
    PEAK_RATE,
    TEACHER_STEPS,
    Recipe,
    student_recipe,
    teacher_recipe,
)
from nas.training.scoring import classify
from nas.training.student import Student, to_integer

torch.set_num_threads(1)

SCALES = {"waves": 0.03, "levels": 0.03, "unused": 0.03}
RECIPE = Recipe(steps=120, batch_size=24, peak_rate=2e-2)
Log = list[tuple[float, bool]]


def toy(classes: int = 3, rows: int = 90) -> tuple[dict[str, Int8], np.ndarray]:
    """Class 0 against the rest shows in one sensor, the rest only in the other."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    waves = (
        rng.normal(0, 10, (rows, 1, 8, 2)) + 60 * np.where(labels == 0, 1, -1)[:, None, None, None]
    )
    levels = rng.normal(0, 10, (rows, 1, 1, 3)) + 40 * (2 * labels - 3)[:, None, None, None]
    levels[labels == 0] = rng.normal(0, 30, (int((labels == 0).sum()), 1, 1, 3))
    real = {"waves": waves, "levels": levels, "unused": rng.normal(0, 30, (rows, 1, 1, 2))}
    return {k: np.clip(v, -128, 127).astype(np.int8) for k, v in real.items()}, labels


def toy_set(teacher: np.ndarray | None = None) -> TrainingSet:
    inputs, labels = toy()
    bank = {k: np.stack([v, v]) for k, v in inputs.items()}
    return training_set(bank, SCALES, labels, 3, teacher)


def graph(bits: int = 4) -> Graph:
    ops = (
        Conv2d("conv", ("waves",), 4, (1, 3), (1, 2), "same", bits, True),
        Pool("mean", ("conv",), "average", (1, 4), (1, 1)),
        Conv2d("fc", ("levels",), 4, (1, 1), (1, 1), "valid", bits, True),
        Concat("both", ("mean", "fc")),
        Conv2d("output", ("both",), 3, (1, 1), (1, 1), "valid", bits, False),
        Reshape("logits", ("output",), (3,)),
    )
    return Graph((Input("waves", (1, 8, 2)), Input("levels", (1, 1, 3))), ops, "logits")


def net(bits: int = 4, seed: int = 0, **values: Any) -> Student:
    torch.manual_seed(seed)
    return Student(graph(bits), SCALES, **values)


def watched(monkeypatch: pytest.MonkeyPatch, model: Student) -> Log:
    """(learning rate, frozen) at every optimiser step."""
    log: Log = []
    original = training._optimiser

    def make(student: Student, recipe: Recipe) -> torch.optim.Optimizer:
        optimiser = original(student, recipe)
        optimiser.register_step_pre_hook(
            lambda o, *_: log.append((o.param_groups[0]["lr"], model.frozen))
        )
        return optimiser

    monkeypatch.setattr(training, "_optimiser", make)
    return log


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def log_softmax(x: np.ndarray) -> np.ndarray:
    return np.asarray(x - np.log(np.exp(x).sum(1, keepdims=True)))


@pytest.mark.parametrize("bits", (8, 2))
def test_learns_from_both_sensors(bits: int) -> None:
    model = net(bits)
    train(model, toy_set(), RECIPE, seed=1)
    assert not model.training and model.frozen
    inputs, labels = toy()
    integers = to_integer(model)
    assert (classify(integers, inputs) == labels).mean() > 0.95
    blind = inputs | {"levels": np.zeros_like(inputs["levels"])}
    assert (classify(integers, blind) == labels).mean() < 0.8


def test_equal_seeds_give_equal_integers() -> None:
    def result(seed: int, start: int = 0, dropout: float = 0.3, drawn: int = 0) -> str:
        model = net(seed=start, dropout=dropout)
        torch.rand(drawn)  # what ran before in this process must not matter
        train(model, toy_set(), replace(RECIPE, steps=12), seed)
        return to_integer(model).hash

    assert result(3) == result(3, drawn=5)
    assert len({result(3), result(4), result(3, start=1)}) == 3
    assert result(3, dropout=0.0) != result(4, dropout=0.0)


def test_a_float_network_is_trained_without_freezing() -> None:
    model = net(quantised=False)
    train(model, toy_set(), RECIPE, seed=1)
    assert not model.frozen and not model.training
    inputs, labels = toy()
    seen = predict(
        model, {k: torch.from_numpy(v).permute(0, 3, 1, 2) for k, v in inputs.items()}, SCALES
    )
    assert (seen.argmax(1).numpy() == labels).mean() > 0.95


def test_predict_does_not_depend_on_the_batch() -> None:
    model = net()
    train(model, toy_set(), replace(RECIPE, steps=5), seed=1)
    inputs = {k: v[0] for k, v in toy_set().inputs.items()}
    torch.testing.assert_close(predict(model, inputs, SCALES, 7), predict(model, inputs, SCALES))


def test_class_weighting_by_hand() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    data = replace(toy_set(), labels=torch.from_numpy(np.concatenate([labels, [0] * 80])))
    # 90 rows: 86 of class 0, 3 of class 1, 1 of class 2
    by_class = np.array([90 / (3 * 86), 90 / (3 * 3), 90 / 3])
    np.testing.assert_allclose(training._class_weights(data), by_class, rtol=1e-6)

    model, rows = net(quantised=False).eval(), torch.arange(10)
    losses = []
    for weights in (None, training._class_weights(data)):
        loss = training._loss(model, data, RECIPE, weights, torch.zeros(10, dtype=int), rows)
        losses.append(loss.item())
    each = cross_entropy(logits_of(model, data, rows), labels)
    share = by_class[labels] / by_class[labels].sum()
    assert losses == pytest.approx([each.mean(), (share * each).sum()], rel=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3


def logits_of(model: Student, data: TrainingSet, rows: torch.Tensor) -> np.ndarray:
    inputs = {k: v[0, rows] for k, v in data.inputs.items()}
    return np.asarray(predict(model, inputs, SCALES).double())


@pytest.mark.parametrize("weighted", (True, False))
def test_the_recipe_decides_on_class_weights(
    weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = training._loss

    def loss(*arguments: Any) -> torch.Tensor:
        seen.append(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(training, "_loss", loss)
    train(net(), toy_set(), replace(RECIPE, steps=1, class_weighting=weighted), seed=1)
    assert (seen[0] is not None) == weighted


def test_distillation_by_hand() -> None:
    rng = np.random.default_rng(1)
    teacher = np.stack([log_softmax(rng.normal(0, 2, (90, 3))) for _ in range(2)])
    data = toy_set(teacher.astype(np.float32))
    recipe = replace(RECIPE, distil_weight=0.7, temperature=4.0, label_smoothing=0.0)
    model, rows = net(quantised=False).eval(), torch.tensor([5, 2, 9, 40])
    which = torch.tensor([1, 0, 1, 1])
    loss = training._loss(model, data, recipe, None, which, rows).item()
    logits = logits_of(model, data, rows)  # both copies are equal
    soft = log_softmax(teacher[which, rows] / 4)  # the teacher of the copy that was drawn
    divergence = (np.exp(soft) * (soft - log_softmax(logits / 4))).sum(1).mean()
    plain = cross_entropy(logits, data.labels[rows].numpy()).mean()
    assert loss == pytest.approx(0.3 * plain + 0.7 * 16 * divergence, rel=1e-5)
    alone = training._loss(model, data, replace(recipe, distil_weight=0.0), None, which, rows)
    assert alone.item() == pytest.approx(plain, rel=1e-5)


def test_a_batch_takes_each_row_from_its_own_copy() -> None:
    inputs, labels = toy()
    bank = {k: np.stack([v, np.zeros_like(v)]) for k, v in inputs.items()}
    data = training_set(bank, SCALES, labels, 3, None)
    model, rows = net(quantised=False).eval(), torch.tensor([3, 4])
    which = torch.tensor([0, 1])
    loss = training._loss(model, data, RECIPE, None, which, rows).item()
    both = [
        logits_of(model, data, rows)[:1],
        predict(model, {k: v[1, 4:5] for k, v in data.inputs.items()}, SCALES),
    ]
    assert loss == pytest.approx(cross_entropy(np.concatenate(both), labels[3:5]).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("progress", "rate"),
    ((0.0, 0.04), (0.15, 0.52), (0.3, 1.0), (0.65, 0.5), (1.0, 0.001), (0.999, 0.001)),
)
def test_schedule_by_hand(progress: float, rate: float) -> None:
    assert training._one_cycle(progress, 0.3) == pytest.approx(rate)


def test_rates_and_freezing_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    log = watched(monkeypatch, model)
    train(model, toy_set(), replace(RECIPE, steps=20), seed=1)
    rates = [rate / RECIPE.peak_rate for rate, _ in log]
    assert rates[0] == pytest.approx(0.04) and rates[6] == pytest.approx(1.0)
    assert rates[:7] == sorted(rates[:7]) and rates[6:] == sorted(rates[6:], reverse=True)
    assert rates[-1] < 0.02
    assert [frozen for _, frozen in log] == [False] * 16 + [True] * 4


def test_weight_decay_is_of_weights_only() -> None:
    groups = training._optimiser(net(), RECIPE).param_groups
    assert [group["weight_decay"] for group in groups] == [RECIPE.weight_decay, 0.0]
    assert {p.ndim for p in groups[0]["params"]} == {4}
    assert {p.ndim for p in groups[1]["params"]} == {1}


def test_every_row_is_used_before_one_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = training._loss

    def loss(*arguments: Any) -> torch.Tensor:
        seen.extend(arguments[5].tolist())
        return original(*arguments)

    monkeypatch.setattr(training, "_loss", loss)
    train(net(), toy_set(), replace(RECIPE, steps=6, batch_size=30), seed=1)
    assert sorted(seen[:90]) == sorted(seen[90:]) == list(range(90))
    assert seen[:90] != seen[90:]


def test_a_batch_is_never_larger_than_the_set() -> None:
    train(net(), toy_set(), replace(RECIPE, steps=2, batch_size=1000), seed=1)


@pytest.mark.parametrize("cause", ("teacher", "rate"))
def test_a_training_that_diverges_is_an_error(cause: str) -> None:
    teacher = np.full((2, 90, 3), np.nan if cause == "teacher" else -1.1, np.float32)
    rate = 1e38 if cause == "rate" else RECIPE.peak_rate
    recipe = replace(RECIPE, steps=4, distil_weight=0.5, peak_rate=rate)
    with pytest.raises(FloatingPointError, match=r"training diverged: loss (nan|inf) at step 4"):
        train(net(), toy_set(teacher), recipe, seed=1)


@pytest.mark.parametrize(
    ("rows", "final", "batch_size", "steps"),
    (
        (40, False, 32, 100),  # 40 epochs are 50 steps: at least 100
        (320, False, 32, 400),
        (320, True, 32, 800),
        (999, False, 32, 700),
        (1000, False, 64, 625),
        (50_000, False, 64, 700),
    ),
)
def test_student_recipe(rows: int, final: bool, batch_size: int, steps: int) -> None:
    recipe = student_recipe(rows, False, "accuracy", True, final)
    assert (recipe.batch_size, recipe.steps) == (batch_size, steps)
    assert recipe.dropout == (0.3 if rows < 500 else 0.0)


def test_recipes_follow_metric_vectors_and_teacher() -> None:
    plain = student_recipe(2000, False, "accuracy", False, False)
    assert (plain.class_weighting, plain.distil_weight, plain.dropout) == (False, 0.0, 0.0)
    other = student_recipe(2000, True, "macro_f1", True, False)
    assert (other.class_weighting, other.distil_weight, other.dropout) == (True, 0.7, 0.3)
    steps = [teacher_recipe(rows, "accuracy", False).steps for rows in (50, 320, 9000)]
    assert steps == [200, 600, TEACHER_STEPS]
    assert teacher_recipe(50, "balanced_accuracy", False).class_weighting
    rates = [teacher_recipe(50, "accuracy", attention).peak_rate for attention in (False, True)]
    assert rates == [PEAK_RATE, ATTENTION_RATE]
