"""From a graph to a score: training data prepared once, one training, the integer model's score.

Pure functions of their arguments; `workers.py` runs them in processes. The score that a search sees
is measured on the validation split by `reference.run`, on the integers that would ship.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nas import metrics
from nas.augment import make_bank, strength_for
from nas.graph import Graph
from nas.metrics import Metric
from nas.numerics import Int8
from nas.recipe import Recipe
from nas.scoring import classify
from nas.space import Problem, problem_of
from nas.student import Student, to_integer
from nas.task import SplitName, Task
from nas.training import TrainingSet, train, training_set


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
    predicted = classify(model, bench.inputs["val"])
    score = metrics.score(metric, bench.labels["val"], predicted, bench.task.classes)
    return Trained(model.to_bytes(), score, time.process_time() - start)
