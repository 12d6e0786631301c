"""Processes that train: each holds the task and its augmentation bank, and one thread.

Two processes of one thread train nearly twice as many students as one of two threads, and a process
that dies takes nothing with it. Workers are spawned, not forked, so that the parent may hold
threads and never needs torch.
"""

import functools
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.data.task import Task, load_task
from nas.errors import DataError, NasError, RunError, ToolMissing
from nas.interrupts import no_interrupt
from nas.network.graph import Graph
from nas.threads import one_thread_each
from nas.training.lessons import Lessons, read_lessons
from nas.training.metrics import Metric
from nas.training.recipe import TrainOn
from nas.training.teacher import Member
from nas.training.validation import Validation, judging

MOST_DEATHS = 5  # processes that may be killed before a phase gives up
FULL = re.compile("CUDA.*out of memory|CUBLAS_STATUS_ALLOC_FAILED")  # where torch has no type
BANK_SEED = 0  # the bank is part of the task: a teacher's stored logits must fit it in every run


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where every process finds the same task: a named one or a file; `data_hash` proves it."""

    task: str | None
    path: str | None
    modalities: tuple[str, ...] | None
    data_hash: str

    def load(self) -> Task:
        """Raises DataError when the data have changed since `data_hash` was taken."""
        task = load_source(self.task, self.path, self.modalities)
        if task.data_hash != self.data_hash:
            raise DataError(
                f"{self.path or self.task}: the data changed since the run began; start a new run"
            )
        return task


def load_source(name: str | None, path: str | None, modalities: tuple[str, ...] | None) -> Task:
    """A named task or a data file; exactly one of the two is given."""
    from nas.data.named_tasks import load_named_task

    if name is not None:
        return load_named_task(name, modalities)
    assert path is not None
    return load_task(path, modalities)


@dataclass(frozen=True, slots=True)
class Training:
    """What `train` needs for one student.

    Attributes:
        teacher: the file of a teacher's answers.
        features: whether its features teach beside its logits.
        hurdle: score halfway below which it is left; None does not look.
    """

    graph: Graph
    metric: Metric
    teacher: Path | None
    final: bool
    seed: int
    features: bool = False
    hurdle: float | None = None


class _Process:
    """State of one process of a pool, set once by `_start`."""

    prepared: Any = None
    refusal: NasError | None = None  # of the data; raised by each job, as a process cannot be asked
    teacher: tuple[Path, bool, Lessons] | None = None


def _start(source: DataSource, prepare: Callable[[Task], Any]) -> None:
    _end_with_parent()
    try:
        _Process.prepared = prepare(source.load())
    except NasError as error:  # the file was replaced since the run began
        _Process.refusal = error


def prepared() -> Any:
    """What the pool's `prepare` made of the task in this process.

    Raises:
        NasError: the data could not be loaded again.
    """
    if _Process.refusal is not None:
        raise _Process.refusal
    return _Process.prepared


def bench(kind: Validation, train_on: TrainOn = "cpu") -> Callable[[Task], Any]:
    """What prepares a process for training: an `evaluate.Bench`, judged in this way."""
    return functools.partial(_bench, kind, train_on)


def _bench(kind: Validation, train_on: TrainOn, task: Task) -> Any:
    import torch

    from nas.training.evaluate import prepare

    torch.set_num_threads(1)
    _find_device(train_on)
    with _enough_memory():
        return prepare(task, judging(task, kind), BANK_SEED, train_on)


def check_device(train_on: TrainOn) -> None:
    """Asks a process of its own, as only processes that train load torch.

    Raises:
        ToolMissing: this machine has no such device.
    """
    if train_on != "cpu":
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawned) as processes:
            processes.submit(_find_device, train_on).result()


def _find_device(train_on: TrainOn) -> None:
    import torch

    if train_on == "cuda" and not torch.cuda.is_available():
        raise ToolMissing(
            f"--train-on cuda: torch {torch.__version__} finds no CUDA device on this machine;"
            " leave the option out, or install torch for the device's CUDA version"
        )


def _end_with_parent() -> None:
    """Ends this process as soon as its parent has ended, even by `kill -9`.

    An idle worker of a pool would wait for ever, and a busy one would end its training first.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def train_member(metric: Metric, member: Member, seed: int) -> Any:
    """`teacher.Answers` of one member of a teacher, trained in a worker."""
    from nas.training import teacher_training

    with _enough_memory():
        return teacher_training.train_member(prepared(), metric, member, seed)


def ask_onnx(path: str) -> Any:
    """`teacher.Answers` of the user's own model, run in a worker."""
    from nas.training import teacher_training

    return teacher_training.run_onnx(prepared(), path)


def train(training: Training) -> Any:
    """A `Trained` student, trained in a worker."""
    from nas.training.evaluate import train_student

    recipe, lessons = _taught(training)
    with _enough_memory():
        return train_student(
            prepared(),
            training.graph,
            recipe,
            training.metric,
            lessons,
            training.seed,
            training.final,
            training.hurdle,
        )


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Raises RunError where a CUDA device has not."""
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not FULL.search(str(error)):
            raise
        what = str(error).splitlines()[0]
        raise RunError(f"--train-on cuda: {what}; use fewer --workers and --resume") from None


def train_several(trainings: Sequence[Training]) -> Any:
    """`Trained` students, or the error of each that diverged, trained in a worker.

    Args:
        trainings: alike but for bits, seed and hurdle; as one where that is possible.
    """
    from nas.training.evaluate import Wanted, train_pack
    from nas.training.packs import joins

    first = trainings[0]
    recipe, lessons = _taught(first)
    if len(trainings) > 1 and joins(recipe, prepared().training.device):
        wanted = [Wanted(t.graph, t.seed, t.hurdle) for t in trainings]
        with suppress(FloatingPointError), _enough_memory():  # has one of them diverged? which?
            return train_pack(prepared(), wanted, recipe, first.metric, lessons, first.final)
    return [_or_error(training) for training in trainings]


def _or_error(training: Training) -> Any:
    try:
        return train(training)
    except FloatingPointError as error:
        return error.with_traceback(None)  # which would hold the network while others are trained


def _taught(training: Training) -> tuple[Any, Any]:
    """The recipe of a training, and the lessons of its teacher, if any."""
    from nas.training.evaluate import recipe_of

    lessons = None
    if training.teacher is not None:
        wanted = training.teacher, training.features
        if _Process.teacher is None or _Process.teacher[:2] != wanted:
            _Process.teacher = (*wanted, read_lessons(*wanted))
        lessons = _Process.teacher[2]
    distil, features = lessons is not None, training.features
    return recipe_of(prepared(), training.metric, distil, training.final, features), lessons


def hand_down(model: Path) -> bytes:
    """A trained model's lessons for smaller students, a file's content, made in a worker."""
    from nas.network.integer import load_integer_model
    from nas.training.assistant import lessons_of, to_bytes

    return to_bytes(lessons_of(prepared(), load_integer_model(model)))


def examine_model(file: Path, metric: Metric) -> Any:
    """`scoring.Examined` of a trained model's file, in a worker."""
    from nas.network.integer import load_integer_model
    from nas.training.scoring import examine

    return examine(prepared().task, load_integer_model(file), metric)


class Pool:
    """A pool of processes that survives Ctrl-C, and can be replaced when one of them is killed.

    Args:
        prepare: called with the task in each process; its jobs find the result in `prepared()`.
    """

    def __init__(self, count: int, source: DataSource, prepare: Callable[[Task], Any]) -> None:
        self.count, self._source, self._prepare = count, source, prepare
        self._executor = self._spawn()

    def _spawn(self) -> ProcessPoolExecutor:
        one_thread_each()
        return ProcessPoolExecutor(
            self.count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(self._source, self._prepare),
        )

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Runs `function` in a worker."""
        with no_interrupt():
            return self._executor.submit(function, *arguments)

    def replace(self) -> None:
        """A new set of processes; what the old ones were doing is lost."""
        self.close()
        self._executor = self._spawn()

    def close(self) -> None:
        """Ends the processes at once; what they were doing is lost."""
        with no_interrupt():
            processes = list((self._executor._processes or {}).values())
            self._executor.shutdown(wait=False, cancel_futures=True)
            deadline = time.monotonic() + 2.0
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def pool(count: int, source: DataSource, prepare: Callable[[Task], Any]) -> Iterator[Pool]:
    """A `Pool` that ends with the block, whatever happens in it."""
    workers = Pool(count, source, prepare)
    try:
        yield workers
    finally:
        workers.close()
