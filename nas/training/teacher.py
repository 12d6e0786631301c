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
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nas.data.data_rules import SPLITS
from nas.data.task import Task
from nas.run_folder import write_atomic
from nas.training import metrics
from nas.training.metrics import Metric
from nas.training.validation import FOLDS, Judging, Validation

MEMBERS = 3  # of each network that a teacher is made of
USELESS = 0.1  # share of the way from guessing to perfect below which a teacher is warned of
VERSION = 7  # of everything below: raise it when a change makes another teacher of the same data

NetworkKind: TypeAlias = Literal["conv", "attention"]
TeacherKind: TypeAlias = Literal["conv", "attention", "both"]
TEACHER_KINDS: tuple[TeacherKind, ...] = get_args(TeacherKind)


@dataclass(frozen=True)
class Answers:
    """A teacher's log-probabilities: of every training copy, of the rows that judge and of test.

    `bank` is (parts, copies, n, classes), the copies in the order of `augment.make_bank`, the
    others are (n, classes). Part 0 teaches what ships. Where rows are judged crosswise, part 1 + i
    teaches the network that is judged by fold i, and has not seen that fold either. `features` are
    (parts, copies, n, width), float16 for the file's sake; a model of the user's has none.
    """

    bank: NDArray[np.float32]
    val: NDArray[np.float32]
    test: NDArray[np.float32]
    parameters: int
    features: NDArray[np.float16] | None = None


@dataclass(frozen=True)
class Teacher:
    """The fixed teacher of a run, as its students need it.

    Attributes:
        kind: which networks of ours it is made of, or `onnx` for the user's.
        hash: of all that the answers depend on; the name of the cached file.
        file: the answers; students read `bank` from it.
        parameters: of what teaches the network that ships; 0 when unknown.
        size_bytes: of the user's file; of ours in float32.
    """

    kind: str
    hash: str
    file: Path
    val_score: float
    test_score: float
    parameters: int
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {
            "kind": self.kind,
            "hash": self.hash,
            "val_score": self.val_score,
            "test_score": self.test_score,
            "parameters": self.parameters,
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, slots=True)
class Member:
    """One network of a teacher: what it is, which part it teaches, and its number there."""

    network: NetworkKind
    part: int
    number: int


def members(kind: TeacherKind, validation: Validation) -> list[Member]:
    """The networks that make a teacher.

    With folds each part has one network of a kind, for time's sake: on the one set where it was
    tried, two were worth half a point more, at twice the price.
    """
    networks: tuple[NetworkKind, ...] = ("conv", "attention") if kind == "both" else (kind,)
    parts, count = (1, MEMBERS) if validation == "split" else (1 + FOLDS, 1)
    return [
        Member(network, part, number)
        for network in networks
        for part in range(parts)
        for number in range(count)
    ]


def combine(judged: Judging, made: Sequence[tuple[Member, Answers]]) -> Answers:
    """One teacher of what its `members` answered.

    A part is the normalised mean of its members' log-probabilities, and all their features side by
    side. A row that judges has the answer of a part that has not seen it.
    """
    parts: dict[int, list[Answers]] = {}
    for member, answers in made:
        parts.setdefault(member.part, []).append(answers)
    val = _mean([held.val for held in parts[0]])
    if judged.fold is not None:
        for part in range(1, 1 + FOLDS):
            rows = judged.fold == part - 1
            val[rows] = _mean([held.val for held in parts[part]])[rows]
    return Answers(
        np.concatenate([_mean([held.bank for held in parts[part]]) for part in sorted(parts)]),
        val,
        _mean([held.test for held in parts[0]]),
        sum(held.parameters for held in parts[0]),
        _features([parts[part] for part in sorted(parts)]),
    )


def _features(parts: Sequence[Sequence[Answers]]) -> NDArray[np.float16] | None:
    """Those of each part's members side by side; None if a member has none."""
    features = [[held.features for held in part if held.features is not None] for part in parts]
    if any(len(f) < len(part) for f, part in zip(features, parts, strict=True)):
        return None
    return np.concatenate([np.concatenate(part, -1) for part in features])


def _mean(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return log_softmax(np.mean(parts, 0))


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
    task: Task, validation: Validation, metric: Metric, seed: int, chosen: TeacherKind | bytes
) -> str:
    """Hash of all that a teacher's answers depend on; `chosen`: a kind of ours or an ONNX file."""
    key: dict[str, Any] = {"version": VERSION, "data": task.data_hash}
    key |= {"rows": "train and val"} if validation == "cross" else {}
    if isinstance(chosen, bytes):
        key |= {"onnx": hashlib.sha256(chosen).hexdigest()}
    else:
        networks = [[m.network, m.part, m.number] for m in members(chosen, validation)]
        key |= {"members": networks, "seed": seed, "weighted": metric != "accuracy"}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def get_teacher(
    task: Task,
    judged: Judging,
    metric: Metric,
    identity: str,
    kind: str,
    ask: Callable[[], Answers],
    size_bytes: int | None = None,
) -> Teacher:
    """The teacher from the cache, or from `ask`, whose answers are then cached.

    Without `size_bytes` its parameters are float32.

    A model of the user's is scored on the validation split alone, even where more rows judge: it
    may have been trained on the others.
    """
    file = cache_folder() / f"{identity}.npz"
    answers = read_answers(file)
    if answers is None:
        answers = ask()
        write_answers(file, answers)
        for member in cache_folder().glob(f"{identity}.*.npz"):
            member.unlink(missing_ok=True)

    val = SPLITS.index("val")
    unseen = task.split[judged.held_out] == val if kind == "onnx" else np.s_[:]

    def score(log_probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        predicted = log_probabilities.argmax(1).astype(np.int64)
        return metrics.score(metric, labels, predicted, task.classes)

    return Teacher(
        kind,
        identity,
        file,
        score(answers.val[unseen], task.y[judged.held_out[unseen]]),
        score(answers.test, task.y[task.rows("test")]),
        answers.parameters,
        4 * answers.parameters if size_bytes is None else size_bytes,
    )


def member_file(identity: str, number: int) -> Path:
    """Where one member's answers wait for the others, so that a killed run keeps them."""
    return cache_folder() / f"{identity}.{number}.npz"


def write_answers(file: Path, answers: Answers) -> None:
    """Raises RunError when the disk refuses."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"bank": answers.bank, "val": answers.val, "test": answers.test}
    arrays["parameters"] = np.array(answers.parameters)
    if answers.features is not None:
        arrays["features"] = answers.features
    np.savez(buffer, **arrays)
    write_atomic(file, buffer.getvalue())


def read_answers(file: Path) -> Answers | None:
    """Cached answers; None when there are none or the file is torn: it is then made again."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as held:
            features = held.get("features")
            numbers = held["bank"], held["val"], held["test"], int(held["parameters"])
            return Answers(*numbers, features)
    except Exception:  # a torn archive raises whatever its damage leads to
        return None
