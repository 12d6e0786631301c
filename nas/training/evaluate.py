"""From a graph to a score: training data prepared once, one training, the integer model's score.

Pure functions of their arguments; `workers.py` runs them in processes. The score that a search sees
is measured by `reference.run` on integers and on rows held out of their training: the validation
split, or each part of the rows in turn (`validation.py`).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nas.data.task import SplitName, Task
from nas.network.graph import Graph
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.space import Problem, problem_of
from nas.training import metrics
from nas.training.augment import make_bank, strength_for
from nas.training.lessons import Lessons
from nas.training.loop import Network, TrainingSet, predict, train, training_set
from nas.training.metrics import Metric
from nas.training.packs import pack, unpack
from nas.training.recipe import Recipe, TrainOn, student_recipe
from nas.training.scoring import classify
from nas.training.student import Student, to_integer
from nas.training.trained_file import pack as pack_model
from nas.training.validation import Judging


@dataclass(frozen=True)
class Bench:
    """A task made ready for training.

    Attributes:
        judging: which rows train and which judge.
        training: the augmentation bank of the rows that train, without a teacher.
        inputs: split -> modality -> (n, height, width, channels) int8; `train` and `val` are the
            rows of `judging`, which are the same ones where validation is crossed.
        labels: split -> (n,) classes.
    """

    task: Task
    problem: Problem
    judging: Judging
    training: TrainingSet
    inputs: dict[SplitName, dict[str, Int8]]
    labels: dict[SplitName, NDArray[np.int64]]


def prepare(task: Task, judged: Judging, bank_seed: int, train_on: TrainOn = "cpu") -> Bench:
    """Quantises every split and makes the augmentation bank, where it is trained on."""
    # A device may round a convolution's factors to 10 bits: activations would be other integers.
    torch.backends.cudnn.allow_tf32 = False
    rows: dict[SplitName, NDArray[np.int64]]
    rows = {"train": judged.train, "val": judged.held_out, "test": task.rows("test")}
    inputs: dict[SplitName, dict[str, Int8]] = {}
    for split, chosen in rows.items():
        if split == "val" and judged.fold is not None:
            inputs[split] = inputs["train"]  # the same rows, held once
        else:
            inputs[split] = {m.name: m.quantised(chosen) for m in task.modalities}
    labels = {s: task.y[r] for s, r in rows.items()}
    scales = {m.name: m.input_scale for m in task.modalities}
    problem = problem_of(task)
    # Folds are trained on about as many rows as the training split has.
    strength = strength_for(problem.sensors, len(task.rows("train")))
    bank = make_bank(problem.sensors, inputs["train"], scales, strength, bank_seed)
    data = training_set(bank, scales, labels["train"], task.classes, None)
    return Bench(task, problem, judged, data.to(torch.device(train_on)), inputs, labels)


@dataclass(frozen=True)
class Trained:
    """One training's result.

    Attributes:
        model: content of its `trained_file`; None where it was left halfway.
        val_score: of the integers, on the rows that judge; None likewise.
        train_s: seconds of CPU; by the clock where a CUDA device trained it.
        halfway_score: of the student in the middle of its training, before there were integers;
            None where it was not looked at.
    """

    model: bytes | None
    val_score: float | None
    train_s: float
    halfway_score: float | None = None


@dataclass
class Halfway:
    """Judges a student once, in the middle of its training, on the rows that judge.

    Attributes:
        hurdle: the least score with which the training goes on.
        score: None before it was judged.
    """

    bench: Bench
    metric: Metric
    hurdle: float
    score: float | None = None

    def __call__(self, net: Network) -> bool:
        """Whether the training goes on."""
        held = self.bench
        rows = {k: torch.from_numpy(x).permute(0, 3, 1, 2) for k, x in held.inputs["val"].items()}
        answers = predict(net, rows, held.training.scales).argmax(1).numpy()
        self.score = metrics.score(self.metric, held.labels["val"], answers, held.task.classes)
        return self.score >= self.hurdle


@dataclass(frozen=True, slots=True)
class Wanted:
    """A student to be trained.

    Attributes:
        hurdle: score halfway below which its training is left; None does not look. Not crosswise.
    """

    graph: Graph
    seed: int
    hurdle: float | None = None


def train_student(
    bench: Bench,
    graph: Graph,
    recipe: Recipe,
    metric: Metric,
    teacher: Lessons | None,
    seed: int,
    final: bool = False,
    hurdle: float | None = None,
) -> Trained:
    """`train_pack` of one."""
    wanted = [Wanted(graph, seed, hurdle)]
    return train_pack(bench, wanted, recipe, metric, teacher, final)[0]


def train_pack(
    bench: Bench,
    wanted: Sequence[Wanted],
    recipe: Recipe,
    metric: Metric,
    teacher: Lessons | None,
    final: bool = False,
) -> list[Trained]:
    """Trains the networks of some graphs as one and scores their integers on the rows that judge.

    Crosswise, a final training's model is trained on all rows, beside those that are judged; for
    a third of the time less, a search's is the first of those.

    Args:
        wanted: of one shape, if more than one; a pack is left halfway only where none of its
            members shall go on.

    Raises:
        FloatingPointError: a training has diverged.
    """
    clock_s = time.process_time if bench.training.device.type == "cpu" else time.perf_counter
    start = clock_s()
    fold = bench.judging.fold
    looks = [None if w.hurdle is None else Halfway(bench, metric, w.hurdle) for w in wanted]
    if fold is None:
        nets = _trained(wanted, taught(bench, teacher, 0), recipe, looks)
        models = [to_integer(net) for net in nets]
        answers = [classify(model, bench.inputs["val"]) for model in models]
    else:
        models, answers = _fit_in_turn(bench, fold, wanted, recipe, teacher)
        if final:
            models = fit_pack(wanted, taught(bench, teacher, 0), recipe)
    seconds = (clock_s() - start) / len(wanted)
    if not models:
        return [Trained(None, None, seconds, _seen(look)) for look in looks]
    labels, classes = bench.labels["val"], bench.task.classes
    return [
        Trained(pack_model(m, y), metrics.score(metric, labels, y, classes), seconds, _seen(look))
        for m, y, look in zip(models, answers, looks, strict=True)
    ]


def _seen(halfway: Halfway | None) -> float | None:
    return None if halfway is None else halfway.score


def _trained(
    wanted: Sequence[Wanted],
    data: TrainingSet,
    recipe: Recipe,
    looks: Sequence[Halfway | None],
) -> list[Student]:
    """The trained networks, back on the CPU; none where they were left halfway."""
    nets = [student(w.graph, data, recipe, w.seed) for w in wanted]
    if len(nets) == 1:
        return [nets[0].cpu()] if train(nets[0], data, recipe, wanted[0].seed, looks[0]) else []
    joined = pack(nets)

    def goes_on(net: Network) -> bool:
        unpack(joined, nets)
        return any([look is None or look(net) for look, net in zip(looks, nets, strict=True)])

    watched = goes_on if any(looks) else None
    if not train(joined, data, recipe, [w.seed for w in wanted], watched):
        return []
    unpack(joined, nets)
    return [net.cpu() for net in nets]


def _fit_in_turn(
    bench: Bench,
    fold: NDArray[np.int64],
    wanted: Sequence[Wanted],
    recipe: Recipe,
    teacher: Lessons | None,
) -> tuple[list[IntegerModel], list[NDArray[np.int64]]]:
    """The first networks, and (n,) classes of the rows, each by one trained without its part."""
    answers = [np.empty(len(fold), np.int64) for _ in wanted]
    first: list[IntegerModel] = []
    for part in np.unique(fold):
        held = fold == part
        steps = round(recipe.steps * (1 - held.mean()))  # as many epochs as with all rows
        used = [source.name for source in wanted[0].graph.inputs]
        data = taught(bench, teacher, 1 + int(part)).subset(~held, used)
        models = fit_pack(wanted, data, replace(recipe, steps=steps))
        first = first or models
        inputs = {k: v[held] for k, v in bench.inputs["train"].items()}
        for model, answer in zip(models, answers, strict=True):
            answer[held] = classify(model, inputs)
    return first, answers


def fit_pack(wanted: Sequence[Wanted], data: TrainingSet, recipe: Recipe) -> list[IntegerModel]:
    """The integers of trainings that nobody leaves halfway."""
    return [to_integer(net) for net in _trained(wanted, data, recipe, [None] * len(wanted))]


def taught(bench: Bench, teacher: Lessons | None, number: int) -> TrainingSet:
    """The bank with the lessons of one part of a teacher."""
    if teacher is None:
        return bench.training
    answers, features = teacher.part(number)
    return replace(
        bench.training,
        teacher=torch.from_numpy(answers).to(bench.training.device),
        features=None if features is None else torch.from_numpy(features).to(bench.training.device),
    )


def student(graph: Graph, data: TrainingSet, recipe: Recipe, seed: int) -> Student:
    """The network of `graph` before its training."""
    torch.manual_seed(seed)
    learned = recipe.learned_scales
    net = Student(graph, data.scales, dropout=recipe.dropout, learned_scales=learned)
    return net.to(data.device)


def recipe_of(
    bench: Bench, metric: Metric, distil: bool, final: bool, features: bool = False
) -> Recipe:
    """The recipe of a student on the bench's data."""
    vectors = any(sensor.kind == "vector" for sensor in bench.problem.sensors)
    rows = len(bench.training.labels)
    return student_recipe(rows, vectors, metric, distil, final, features)
