"""Processes that train: each holds the task and its augmentation bank, and one thread.

Two processes of one thread train nearly twice as many students as one of two threads, and a process
that dies takes nothing with it. Workers are spawned, not forked, so that the parent may hold
threads and never needs torch.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.graph import Graph
from nas.metrics import Metric
from nas.recipe import student_recipe
from nas.task import Task, load_task

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
    from nas.named_tasks import load_named_task

    if name is not None:
        return load_named_task(name, modalities)
    assert path is not None
    return load_task(path, modalities)


@dataclass(frozen=True, slots=True)
class Training:
    """What `train` needs for one student; `teacher` is the file of a teacher's logits."""

    graph: Graph
    metric: Metric
    teacher: Path | None
    final: bool
    seed: int


class _Worker:
    """State of one worker process, set once by `_start`."""

    bench: Any = None
    teacher: tuple[Path, NDArray[np.float32]] | None = None


def _start(source: DataSource) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    import torch

    from nas.evaluate import prepare

    torch.set_num_threads(1)
    _Worker.bench = prepare(source.load(), BANK_SEED)


def train_member(metric: Metric, seed: int) -> Any:
    """`teacher.Answers` of one member of the ensemble, trained in a worker."""
    from nas import teacher_training

    return teacher_training.train_member(_Worker.bench, metric, seed)


def ask_onnx(path: str) -> Any:
    """`teacher.Answers` of the user's own model, run in a worker."""
    from nas import teacher_training

    return teacher_training.run_onnx(_Worker.bench, path)


def train(training: Training) -> Any:
    """A `Trained` student, trained in a worker."""
    from nas.evaluate import train_student

    bench, teacher = _Worker.bench, None
    if training.teacher is not None:
        if _Worker.teacher is None or _Worker.teacher[0] != training.teacher:
            with np.load(training.teacher, allow_pickle=False) as held:
                _Worker.teacher = (training.teacher, held["bank"])
        teacher = _Worker.teacher[1]
    recipe = student_recipe(
        len(bench.training.labels),
        any(sensor.kind == "vector" for sensor in bench.problem.sensors),
        training.metric,
        teacher is not None,
        training.final,
    )
    return train_student(bench, training.graph, recipe, training.metric, teacher, training.seed)


class Pool:
    """A pool of training processes that replaces itself when one of them is killed."""

    def __init__(self, count: int, source: DataSource) -> None:
        self.count, self._source = count, source
        self._executor = self._spawn()

    def _spawn(self) -> ProcessPoolExecutor:
        # One thread each: numpy's BLAS in the reference must not fight the other workers either.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
        return ProcessPoolExecutor(
            self.count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(self._source,),
        )

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Runs `function` in a worker."""
        return self._executor.submit(function, *arguments)

    def replace(self) -> None:
        """A new set of processes, after one died and broke the pool."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._spawn()

    def close(self) -> None:
        """Ends the processes at once; what they were doing is lost."""
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + 2.0
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))


@contextmanager
def pool(count: int, source: DataSource) -> Iterator[Pool]:
    """A `Pool` that ends with the block, whatever happens in it."""
    workers = Pool(count, source)
    try:
        yield workers
    finally:
        workers.close()
