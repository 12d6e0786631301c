"""The fixed teacher of a search, as its students know it, and its cache.

What a student needs of a teacher is its log-probabilities for every sample of every augmented copy,
so these are what is kept, in a file named by a hash of all that they depend on.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas import metrics
from nas.metrics import Metric
from nas.run_folder import write_atomic
from nas.task import Task
from nas.validation import Judging, Validation

MEMBERS = 3
USELESS = 0.1  # share of the way from guessing to perfect below which a teacher is warned of
VERSION = 3  # of everything below: raise it when a change makes another teacher of the same data


@dataclass(frozen=True)
class Answers:
    """A teacher's log-probabilities: of every training copy, of validation and of test.

    `bank` is (copies, n, classes) in the order of `augment.make_bank`, the others (n, classes);
    `val` are the rows that judge.
    """

    bank: NDArray[np.float32]
    val: NDArray[np.float32]
    test: NDArray[np.float32]
    parameters: int


@dataclass(frozen=True)
class Teacher:
    """The fixed teacher of a run, as its students need it.

    Attributes:
        kind: `ensemble` of our own, or `onnx` for the user's.
        hash: of all that the answers depend on; the name of the cached file.
        file: the answers; students read `bank` from it.
        parameters: of all members; 0 when unknown.
    """

    kind: str
    hash: str
    file: Path
    val_score: float
    test_score: float
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {
            "kind": self.kind,
            "hash": self.hash,
            "val_score": self.val_score,
            "test_score": self.test_score,
            "parameters": self.parameters,
        }


def average(members: Sequence[Answers]) -> Answers:
    """The ensemble: normalised mean of the members' log-probabilities."""

    def mean(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return log_softmax(np.mean(parts, 0))

    return Answers(
        mean([m.bank for m in members]),
        mean([m.val for m in members]),
        mean([m.test for m in members]),
        sum(m.parameters for m in members),
    )


def log_softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis."""
    shifted = x - x.max(-1, keepdims=True)
    result: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result.astype(np.float32)


def warning(
    teacher: Teacher, metric: Metric, labels: NDArray[np.int64], classes: int
) -> str | None:
    """What to say of a teacher that has learnt nothing, judged on validation; None of another."""
    guess = metrics.best_guess(metric, labels, classes)
    if teacher.val_score >= guess + USELESS * (1 - guess):
        return None
    return (
        f"the teacher scores {teacher.val_score:.3f} on validation, and always naming one class"
        f" {guess:.3f}: it has learnt nothing that holds for other rows; look at labels, groups and"
        " offsets between them, or add --no-distil"
    )


def cache_folder() -> Path:
    """Where teachers' answers are kept between runs: $NAS_CACHE_DIR or ~/.cache/nas."""
    return Path(os.environ.get("NAS_CACHE_DIR") or Path.home() / ".cache" / "nas") / "teachers"


def teacher_hash(
    task: Task, kind: Validation, metric: Metric, seed: int, onnx: bytes | None
) -> str:
    """Hash of all that a teacher's answers depend on."""
    own = {"members": MEMBERS, "seed": seed, "weighted": metric != "accuracy"}
    key: dict[str, Any] = {"version": VERSION, "data": task.data_hash}
    key |= {"rows": "train and val"} if kind == "cross" else {}
    key |= own if onnx is None else {"onnx": hashlib.sha256(onnx).hexdigest()}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def get_teacher(
    task: Task,
    judged: Judging,
    metric: Metric,
    identity: str,
    kind: str,
    ask: Callable[[], Answers],
) -> Teacher:
    """The teacher from the cache, or from `ask`, whose answers are then cached."""
    file = cache_folder() / f"{identity}.npz"
    answers = read_answers(file)
    if answers is None:
        answers = ask()
        write_answers(file, answers)
        for number in range(MEMBERS):
            member_file(identity, number).unlink(missing_ok=True)

    def score(log_probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        predicted = log_probabilities.argmax(1).astype(np.int64)
        return metrics.score(metric, labels, predicted, task.classes)

    return Teacher(
        kind,
        identity,
        file,
        score(answers.val, task.y[judged.held_out]),
        score(answers.test, task.y[task.rows("test")]),
        answers.parameters,
    )


def member_file(identity: str, number: int) -> Path:
    """Where one member's answers wait for the others, so that a killed run keeps them."""
    return cache_folder() / f"{identity}.{number}.npz"


def write_answers(file: Path, answers: Answers) -> None:
    """Raises RunError when the disk refuses."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        bank=answers.bank,
        val=answers.val,
        test=answers.test,
        parameters=np.array(answers.parameters),
    )
    write_atomic(file, buffer.getvalue())


def read_answers(file: Path) -> Answers | None:
    """Cached answers; None when there are none or the file is torn: it is then made again."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as held:
            return Answers(held["bank"], held["val"], held["test"], int(held["parameters"]))
    except Exception:  # a torn archive raises whatever its damage leads to
        return None
