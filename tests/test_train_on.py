"""Training on another device than the CPU, as far as that can be seen without one.

What a CUDA graph does is done by a trace here: of a step that it has seen once it repeats the
tensor operations on the same tensors, and no Python. Where tensors lie is seen on torch's `meta`
device, which holds no values and refuses to meet tensors of another one, as a CUDA device does.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from test_packs import some_graphs, student, with_bits
from test_training import RECIPE, SCALES, toy_set
from test_training import graph as toy_graph
from test_validation import Arrays, genes
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from nas import cli
from nas.data.task import Task, make_task
from nas.errors import RunError, ToolMissing
from nas.space import FixedTrial
from nas.training import capture, evaluate, fused, linear_layer, loop, teacher_training, workers
from nas.training.capture import WARM_UP, CapturedStep
from nas.training.evaluate import Wanted, fit_pack, prepare
from nas.training.loop import TrainingSet
from nas.training.mdcsa import DualAttention
from nas.training.packable import packable
from nas.training.packs import joins, pack
from nas.training.recipe import Recipe, TrainOn
from nas.training.student import Student
from nas.training.teacher import members
from nas.training.validation import judging
from nas.training.workers import Training
from search_spaces import SPACES

CUDA, META = torch.device("cuda"), torch.device("meta")
Step = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def by_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device, for which there are no compiled loops."""
    monkeypatch.setattr(fused, "takes", lambda _: False)
    monkeypatch.setattr(linear_layer, "takes", lambda _: False)


# ---------------------------------------------------------------- a recorded step


class Traced:
    """Makes some steps, traces one, and repeats what it saw."""

    def __init__(self, step: Step) -> None:
        self.step, self.made = step, 0
        self.trace: Step | None = None

    def __call__(self, which: Tensor, rows: Tensor) -> Tensor:
        self.made += 1
        if self.made <= WARM_UP:
            return self.step(which, rows)
        if self.trace is not None:
            with torch.no_grad():
                return self.trace(which, rows)
        seen: list[Tensor] = []

        def noted(which: Tensor, rows: Tensor) -> Tensor:
            seen.append(self.step(which, rows))
            return seen[0]

        self.trace = make_fx(noted)(which, rows)
        return seen[0]  # a trace makes the step, a recording does not


def teacher_set() -> TrainingSet:
    """With answers and features of a teacher."""
    rng = np.random.default_rng(0)
    answers = torch.from_numpy(rng.normal(size=(2, 90, 3)).astype(np.float32))
    features = torch.from_numpy(rng.normal(size=(2, 90, 5)).astype(np.float16))
    return replace(toy_set(), teacher=answers.log_softmax(-1), features=features)


def as_on_a_device(monkeypatch: pytest.MonkeyPatch, record: Callable[[Step], Step]) -> None:
    """Steps are recorded in some way, and the rate lies in a tensor."""
    original = loop._optimiser

    def make(net: loop.Network, recipe: Recipe) -> torch.optim.Optimizer:
        optimiser = original(net, recipe)
        rate = torch.tensor(recipe.peak_rate)
        optimiser.defaults["lr"] = rate  # of the group that a hint adds
        for group in optimiser.param_groups:
            group["lr"] = rate
        return optimiser

    monkeypatch.setattr(loop, "_optimiser", make)
    monkeypatch.setattr(loop, "captured", lambda step, _: record(step))


SHORT = replace(RECIPE, steps=30)
RECIPES = {
    "plain": SHORT,
    "never frozen": replace(SHORT, frozen_share=0.0),
    "dropout": replace(SHORT, dropout=0.3),
    "balanced": replace(SHORT, class_weighting=True),
    "answers": replace(SHORT, distil_weight=0.7),
    "features": replace(SHORT, distil_weight=0.7, hint="relation"),
    "projection": replace(SHORT, distil_weight=0.7, hint="projection"),
    "gradual": replace(SHORT, gradual_share=0.6),
    "learned": replace(SHORT, gradual_share=0.6, learned_scales=True),
}


def learned(recipe: Recipe, count: int) -> list[Tensor]:
    """All that a training leaves."""
    nets = []
    for seed, bits in enumerate((2, 4, 8)[:count]):
        torch.manual_seed(seed)
        kinds = {"dropout": recipe.dropout, "learned_scales": recipe.learned_scales}
        nets.append(Student(toy_graph(bits), SCALES, **kinds))
    net = pack(nets) if count > 1 else nets[0]
    seeds = list(range(count))
    assert loop.train(net, teacher_set(), recipe, seeds)
    return [*net.parameters(), *net.buffers(), *net.ranges.values()]


@pytest.mark.usefixtures("by_operations")
@pytest.mark.parametrize("count", (1, 3))
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_repeats_without_python(
    name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPES[name]
    if count > 1 and not joins(recipe, CUDA):
        pytest.skip("such students are not packed")
    traces: list[Traced] = []

    def record(step: Step) -> Step:
        traces.append(Traced(step))
        return traces[-1]

    as_on_a_device(monkeypatch, lambda step: step)
    expected = learned(recipe, count)
    as_on_a_device(monkeypatch, record)
    found = learned(recipe, count)
    phases = 1 + (recipe.frozen_share > 0) + 2 * (recipe.gradual_share > 0)
    assert len(traces) == phases and all(t.trace is not None for t in traces)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.usefixtures("by_operations")
def test_what_python_gives_is_repeated_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a rate in a number, or a recording that outlives a phase, would be seen above."""
    as_on_a_device(monkeypatch, lambda step: step)
    expected = learned(SHORT, 1)
    as_on_a_device(monkeypatch, Traced)
    with monkeypatch.context() as context:
        context.setattr(loop, "_set_rate", _as_numbers)
        assert not all(map(torch.equal, learned(SHORT, 1), expected))
    with monkeypatch.context() as context:
        held: list[Traced] = []

        def once(step: Step) -> Step:
            held.append(held[0] if held else Traced(step))
            return held[0]

        context.setattr(loop, "captured", lambda step, _: once(step))
        assert not all(map(torch.equal, learned(SHORT, 1), expected))


def _as_numbers(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def asks_the_host(recipe: Recipe, net: Student, data: TrainingSet) -> set[str]:
    """Operators of a step, but the optimiser's, that wait for a device's values."""
    waiting = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}
    optimiser = loop._optimiser(net, recipe)
    optimiser.step = lambda: None  # type: ignore[assignment, method-assign]
    hint = loop._hint(net, data, recipe)
    step = loop._learner(net.train(), data, recipe, hint, optimiser, 1)
    with torch.profiler.profile() as profile:
        step(torch.zeros(30, dtype=torch.int64), torch.arange(30))
    return waiting & {event.key for event in profile.key_averages()}


WEIGHTED = replace(SHORT, class_weighting=True, label_smoothing=0.05)  # as teachers have it


@pytest.mark.usefixtures("by_operations")
@pytest.mark.parametrize("name", (*RECIPES, "teacher"))
def test_a_step_asks_the_host_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace does not see it: torch chooses other operators where it is watched."""
    recipe = RECIPES.get(name, WEIGHTED)
    net = Student(toy_graph(2), SCALES, learned_scales=recipe.learned_scales)
    assert asks_the_host(recipe, net, teacher_set()) == set()
    monkeypatch.setattr(loop, "_cross_entropy", torch_cross_entropy)
    assert bool(asks_the_host(WEIGHTED, net, teacher_set())), "as this would be seen"


def torch_cross_entropy(x: Tensor, y: Tensor, weights: Tensor | None, share: float) -> Tensor:
    return functional.cross_entropy(x, y, weight=weights, label_smoothing=share)


@pytest.mark.parametrize("weighted", (False, True))
@pytest.mark.parametrize("share", (0.0, 0.05))
def test_cross_entropy_is_that_of_torch(weighted: bool, share: float) -> None:
    torch.manual_seed(0)
    weights = torch.rand(7) if weighted else None
    found = []
    for way in (loop._cross_entropy, torch_cross_entropy):
        logits = torch.linspace(-3, 3, 70).view(10, 7).sin().requires_grad_()
        loss = way(logits, torch.arange(10) % 7, weights, share)
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        found.append((loss.detach(), logits.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_float_network_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Step] = []

    def count(step: Step, device: torch.device) -> Step:
        steps.append(step)
        return step

    monkeypatch.setattr(loop, "captured", count)
    for quantised, phases in ((False, 1), (True, 2)):
        steps.clear()
        net = Student(toy_graph(), SCALES, quantised=quantised)
        assert loop.train(net, toy_set(), SHORT, 0) and len(steps) == phases
        assert net.frozen == quantised


class Card:
    """Stands for `torch.cuda`: what is done while it records is done when it replays."""

    def __init__(self) -> None:
        self.recording: Card.CUDAGraph | None = None
        self.log: list[str] = []
        card = self

        class CUDAGraph:
            def __init__(self) -> None:
                self.work: list[Callable[[], None]] = []

            def replay(self) -> None:
                assert card.recording is None
                card.log.append("replay")
                for each in self.work:
                    each()

        class Stream:
            def wait_stream(self, other: object) -> None:
                card.log.append("wait")

        self.CUDAGraph, self.Stream = CUDAGraph, Stream
        self.refused: RuntimeError | None = None
        self._current = Stream()

    def current_stream(self) -> Any:
        return self._current

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self._current, before = stream, self._current
        self.log.append("aside")
        yield
        self._current = before

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        self.recording = graph
        self.log.append("record")
        assert stream is capture._side()
        yield
        self.recording = None
        if self.refused is not None:
            raise self.refused

    def do(self, work: Callable[[], None]) -> None:
        """What a kernel does."""
        if self.recording is None:
            work()
        else:
            self.recording.work.append(work)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    made = Card()
    monkeypatch.setattr(capture.torch, "cuda", made)
    capture._side.cache_clear()
    yield made
    capture._side.cache_clear()


def test_what_cannot_be_recorded_is_one_line(card: Card) -> None:
    batch = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    take = CapturedStep(lambda which, rows: torch.zeros(()))
    for _ in range(WARM_UP):
        take(*batch)
    card.refused = RuntimeError("operation not permitted when stream is capturing\nmore")
    line = (
        r"^--train-on cuda: this device cannot record .* \(operation not permitted .* capturing\)"
    )
    with pytest.raises(RunError, match=line):
        take(*batch)
    card.refused = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError):
        take(*batch)


def test_every_batch_is_learned_once_and_in_order(card: Card) -> None:
    seen: list[list[int]] = []

    def step(which: Tensor, rows: Tensor) -> Tensor:
        loss = torch.zeros(())

        def work() -> None:
            seen.append([*which.tolist(), *rows.tolist()])
            loss.copy_(rows.sum())

        card.do(work)
        return loss

    take = CapturedStep(step)
    batches = [(torch.tensor([i, 0]), torch.tensor([10 * i, 7])) for i in range(6)]
    losses = [float(take(*batch)) for batch in batches]
    assert seen == [[i, 0, 10 * i, 7] for i in range(6)]
    assert losses == [10.0 * i + 7 for i in range(6)]
    assert card.log == ["wait", "aside", "wait"] * WARM_UP + ["record", *["replay"] * 3]


def test_no_autograd_graph_outlives_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a recording would find gradients' accumulators of another stream."""
    net = Student(toy_graph(), SCALES)
    held: list[bool] = []

    def watch(step: Step) -> Step:
        def watched(which: Tensor, rows: Tensor) -> Tensor:
            loss = step(which, rows)
            held.extend((loss.requires_grad, net.features.requires_grad))
            return loss

        return watched

    monkeypatch.setattr(loop, "captured", lambda step, _: watch(step))
    assert loop.train(net, toy_set(), replace(RECIPE, steps=2), 0)
    assert held == [False] * 4


@pytest.mark.usefixtures("card")
def test_a_cpu_records_nothing() -> None:
    def step(which: Tensor, rows: Tensor) -> Tensor:
        return which

    assert capture.captured(step, torch.device("cpu")) is step
    assert isinstance(capture.captured(step, CUDA), CapturedStep)


# ---------------------------------------------------------------- where tensors lie


@pytest.fixture
def task(toy_arrays: Arrays) -> Task:
    return make_task(toy_arrays, "toy")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Where batches and losses lay, whose values are not there to be looked at."""
    original = loop._optimiser

    def make(net: loop.Network, recipe: Recipe) -> torch.optim.Optimizer:
        optimiser = original(net, recipe)
        for group in optimiser.param_groups:
            group["fused"] = False  # which `meta` does not have
        optimiser.defaults["fused"] = False
        return optimiser

    monkeypatch.setattr(loop, "_optimiser", make)
    seen: list[torch.device] = []

    def batch(step: Step, device: torch.device) -> Step:
        def noted(which: Tensor, rows: Tensor) -> Tensor:
            seen.extend((which.device, rows.device, device))
            return step(which, rows)

        return noted

    monkeypatch.setattr(loop, "captured", batch)
    monkeypatch.setattr(loop, "_require_finite", lambda loss, _: seen.append(loss.device))
    return seen


@pytest.mark.parametrize("name", ("plain", "answers", "features", "projection", "learned"))
def test_a_training_stays_on_its_device(name: str, elsewhere: list[torch.device]) -> None:
    recipe = replace(RECIPES[name], steps=4, class_weighting=False)
    for count in (1, 3) if joins(recipe, CUDA) else (1,):
        data = teacher_set().to(META)
        nets = [evaluate.student(toy_graph(bits), data, recipe, 0) for bits in (2, 4, 8)[:count]]
        net = pack(nets) if count > 1 else nets[0]
        assert loop.train(net, data, recipe, list(range(count)))
        assert {x.device for x in (*net.parameters(), *net.ranges.values())} == {META}
    assert set(elsewhere) == {META}


@pytest.mark.usefixtures("by_operations")
def test_what_lies_elsewhere_is_refused(elsewhere: list[torch.device]) -> None:
    """So a tensor left on the CPU would be seen above and below."""
    net = student(toy_graph())
    with pytest.raises(RuntimeError, match="device"):
        loop.train(net.to(META), toy_set(), replace(RECIPE, steps=1), 0)
    net = student(toy_graph()).to(META)
    net.ranges = {group: torch.ones(2, 1) for group in net.ranges}
    with pytest.raises(RuntimeError, match="device"):
        loop.train(net, toy_set().to(META), replace(RECIPE, steps=1), 0)


@pytest.mark.parametrize("space", SPACES)
def test_students_of_every_space_are_trained_there(
    space: str, task: Task, elsewhere: list[torch.device]
) -> None:
    bench = prepare(task, judging(task, "split"), 0, cast(TrainOn, "meta"))
    for start in SPACES[space].starts(bench.problem):
        made = SPACES[space].sample(FixedTrial(start), bench.problem).lower()
        net = evaluate.student(made, bench.training, RECIPE, 0)
        assert loop.train(net, bench.training, replace(RECIPE, steps=2), 0)
    assert set(elsewhere) == {META}


def test_packs_of_all_that_is_packed_are_trained_there() -> None:
    for made in some_graphs():
        members = [student(with_bits(made, random.Random(seed)), seed) for seed in range(2)]
        net = pack([member.to(META) for member in members]).train()
        for frozen in (False, True):
            if frozen:
                net.freeze()
            shapes = {s.name: (6, s.shape[2], *s.shape[:2]) for s in made.inputs}
            y = net({name: torch.empty(shape, device=META) for name, shape in shapes.items()})
            y.sum().backward()
            assert all(p.grad is not None and p.grad.device == META for p in net.parameters())


@pytest.mark.parametrize("attention", (False, True))
def test_teachers_are_trained_there(
    attention: bool, task: Task, elsewhere: list[torch.device]
) -> None:
    bench = prepare(task, judging(task, "split"), 0)
    data = bench.training.to(META)
    net: loop.Network = DualAttention(bench.problem)
    if not attention:
        graph = teacher_training.teacher_graph(bench.problem, 30)
        net = Student(graph, data.scales, quantised=False)
    assert loop.train(net.to(META), data, replace(RECIPE, steps=2), 0)
    assert set(elsewhere) == {META}


def test_a_network_is_asked_where_it_lies() -> None:
    """It answers there to inputs from the CPU; only its answers cannot come back from `meta`."""
    net = student(toy_graph()).to(META)
    inputs = {name: x[0] for name, x in toy_set().inputs.items()}
    with pytest.raises(RuntimeError, match="Cannot copy out of meta tensor"):
        loop.predict(net, inputs, SCALES)
    assert net.features.device == META


def test_what_comes_back_lies_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The integers are taken from networks that have come back, whatever trained them."""
    moved: list[Student] = []
    original = Student.cpu

    def note(net: Student) -> Student:
        moved.append(net)
        return original(net)

    monkeypatch.setattr(Student, "cpu", note)
    wanted = [Wanted(toy_graph(bits), seed) for seed, bits in enumerate((8, 4))]
    for count in (1, 2):
        assert len(fit_pack(wanted[:count], toy_set(), replace(RECIPE, steps=2))) == count
    assert len(moved) == 3


# ---------------------------------------------------------------- the option


def test_packs_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.training.packable.MOST_MACS", 0)
    assert not packable(toy_graph()) and packable(toy_graph(), "cuda")
    monkeypatch.setattr(fused, "library", lambda: None)
    assert not joins(RECIPE, torch.device("cpu")) and joins(RECIPE, CUDA)
    assert not joins(replace(RECIPE, hint="relation"), CUDA)


def test_without_a_device_one_line_says_so(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ToolMissing, match=r"^--train-on cuda: torch \S+ finds no CUDA device"):
        workers.bench("split", "cuda")(task)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert workers.bench("split")(task).training.device.type == "cpu"
    assert not torch.backends.cudnn.allow_tf32, "convolutions as exact as the integers need"


@pytest.mark.parametrize(
    ("kind", "text"),
    (
        (torch.OutOfMemoryError, "Tried to allocate 2 GiB"),
        (RuntimeError, "CUDA error: out of memory"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
    ),
)
def test_a_full_device_is_one_line(
    kind: type[RuntimeError], text: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(task, judging(task, "split"), 0)
    monkeypatch.setattr(workers._Process, "prepared", bench)

    def full(*_: Any) -> None:
        raise kind(text + "\nmore")

    monkeypatch.setattr(loop, "_loss", full)
    monkeypatch.setattr(evaluate, "make_bank", full)
    jobs = [Training(genes(bench).lower(), "accuracy", None, True, seed) for seed in range(2)]
    for ask in (
        lambda: workers.train(jobs[0]),
        lambda: workers.train_several(jobs),
        lambda: workers.train_member("accuracy", members("conv", "split")[0], 0),
        lambda: workers.bench("split")(task),
    ):
        with pytest.raises(RunError, match=f"cuda: {text}; use fewer --workers and --r"):
            ask()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^sizes differ$"), workers._enough_memory():
        raise RuntimeError("sizes differ")


def test_the_command_line_names_what_trains() -> None:
    assert get_args(TrainOn) == cli.TRAIN_ON and cli.TRAIN_ON[0] == "cpu"


def test_processes_share_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "cores", lambda: 64)
    assert cli._processes("cpu") == 64 and cli._processes("cuda") == cli.MOST_ON_DEVICE
    monkeypatch.setattr(cli, "cores", lambda: 2)
    assert cli._processes("cpu") == cli._processes("cuda") == 2
