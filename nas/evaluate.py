"""From a graph to a score: training data prepared once, one training, the integer model's score.

Pure functions of their arguments; `workers.py` runs them in processes. The score that a search sees
is measured on the validation split by `reference.run`, on the integers that would ship.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nas import metrics, reference
from nas.augment import make_bank, strength_for
from nas.graph import Graph
from nas.integer import IntegerModel
from nas.metrics import Metric
from nas.numerics import Int8
from nas.space import Problem, Sensor
from nas.student import Student, to_integer
from nas.task import SplitName, Task
from nas.training import Recipe, TrainingSet, train, training_set

SEARCH_STEPS = 700  # the accuracy of longer trainings was equal within seed noise on four data sets
SEARCH_EPOCHS = 40  # small sets overfit before they reach SEARCH_STEPS
FINAL_FACTOR = 2  # a front member is retrained for twice the steps of the search


@dataclass(frozen=True)
class Bench:
    """A task made ready for training.

    Attributes:
        training: the augmentation bank of the training split, without a teacher.
        inputs: split -> modality -> (n, height, width, channels) int8, of validation and test.
        labels: split -> (n,) classes.
    """

    task: Task
    problem: Problem
    training: TrainingSet
    inputs: dict[SplitName, dict[str, Int8]]
    labels: dict[SplitName, NDArray[np.int64]]


def problem_of(task: Task) -> Problem:
    """What a search space may know of a task."""
    sensors = tuple(Sensor(m.name, m.kind, m.graph_shape) for m in task.modalities)
    return Problem(sensors, task.classes)


def prepare(task: Task, bank_seed: int) -> Bench:
    """Quantises every split and makes the augmentation bank."""
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    inputs = {s: {m.name: m.quantised(task.rows(s)) for m in task.modalities} for s in splits}
    labels = {s: task.y[task.rows(s)] for s in splits}
    scales = {m.name: m.input_scale for m in task.modalities}
    problem = problem_of(task)
    strength = strength_for(problem.sensors, len(labels["train"]))
    bank = make_bank(problem.sensors, inputs["train"], scales, strength, bank_seed)
    data = training_set(bank, scales, labels["train"], task.classes, None)
    return Bench(task, problem, data, inputs, labels)


def student_recipe(rows: int, vectors: bool, metric: Metric, distil: bool, final: bool) -> Recipe:
    """How a student is trained on `rows` samples; `vectors`: whether a feature vector is used."""
    batch_size = 64 if rows >= 1000 else 32
    steps = max(100, min(SEARCH_STEPS, SEARCH_EPOCHS * rows // batch_size))
    return Recipe(
        steps=steps * (FINAL_FACTOR if final else 1),
        batch_size=batch_size,
        distil_weight=0.7 if distil else 0.0,
        class_weighting=metric != "accuracy",
        dropout=0.3 if vectors or rows < 500 else 0.0,
    )


@dataclass(frozen=True)
class Trained:
    """One training's result: the integers, their score on validation, seconds of CPU."""

    model: bytes
    val_score: float
    train_s: float


def train_student(
    bench: Bench,
    graph: Graph,
    recipe: Recipe,
    metric: Metric,
    teacher: NDArray[np.float32] | None,
    seed: int,
) -> Trained:
    """Trains the network of `graph` and scores its integer model on the validation split."""
    start = time.process_time()
    torch.manual_seed(seed)
    data = bench.training
    if teacher is not None:
        data = replace(data, teacher=torch.from_numpy(teacher))
    net = Student(graph, data.scales, dropout=recipe.dropout)
    train(net, data, recipe, seed)
    model = to_integer(net)
    predicted = classify(bench, model, "val")
    score = metrics.score(metric, bench.labels["val"], predicted, bench.task.classes)
    return Trained(model.to_bytes(), score, time.process_time() - start)


def classify(bench: Bench, model: IntegerModel, split: SplitName) -> NDArray[np.int64]:
    """(n,) classes that the integer model gives to a split; ties go to the lower class."""
    inputs = {source.name: bench.inputs[split][source.name] for source in model.graph.inputs}
    classes: NDArray[np.int64] = reference.run(model, inputs).argmax(1).astype(np.int64)
    return classes
