"""How a run comes to its teacher: the user's model, or networks of ours trained in the workers."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from nas.data.task import Task
from nas.errors import RunError, UsageError
from nas.training.metrics import Metric
from nas.training.teacher import (
    Answers,
    Teacher,
    combine,
    get_teacher,
    member_file,
    members,
    read_answers,
    teacher_hash,
    write_answers,
)
from nas.training.validation import Judging
from nas.training.workers import MOST_DEATHS, Pool, ask_onnx, train_member

SEED = 0  # one teacher a data set, whatever the search's seed


@dataclass(frozen=True)
class OwnModel:
    """The user's ONNX file."""

    path: str
    content: bytes


def read_own_model(path: str | None) -> OwnModel | None:
    """Raises UsageError for a file that cannot be read."""
    if path is None:
        return None
    try:
        return OwnModel(path, Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"--teacher {path}: {error.strerror}; give an .onnx file") from None


def teacher_of(
    task: Task,
    judged: Judging,
    metric: Metric,
    own: OwnModel | None,
    workers: Pool,
    show: Callable[[int, int], None],
) -> Teacher:
    """The cached teacher of these data, or a new one.

    Args:
        show: is told every second how many of how many members are trained.

    Raises:
        RunError: its processes are killed again and again.
        DataError: the user's model does not fit the data.
    """
    content = None if own is None else own.content
    identity = teacher_hash(task, judged.kind, metric, SEED, content)

    def ask() -> Answers:
        for _ in range(MOST_DEATHS):
            try:
                if own is None:
                    return combine(judged, _train_members(judged, metric, identity, workers, show))
                answers: Answers = workers.submit(ask_onnx, own.path).result()
                return answers
            except BrokenProcessPool:
                workers.replace()
        raise RunError(
            f"{MOST_DEATHS} worker processes were killed while the teacher was made, probably for"
            " memory; use fewer --workers and --resume"
        )

    kind = "ensemble" if own is None else "onnx"
    return get_teacher(task, judged, metric, identity, kind, ask)


def _train_members(
    judged: Judging,
    metric: Metric,
    identity: str,
    workers: Pool,
    show: Callable[[int, int], None],
) -> list[Answers]:
    """Answers of all members; those that a stopped run has finished are not made again."""
    wanted = members(judged.kind)
    files = [member_file(identity, i) for i in range(len(wanted))]
    made = {i: held for i, file in enumerate(files) if (held := read_answers(file))}
    futures = {
        workers.submit(train_member, metric, part, SEED + number): i
        for i, (part, number) in enumerate(wanted)
        if i not in made
    }
    killed: BrokenProcessPool | None = None
    pending = set(futures)
    while pending:
        show(len(made), len(wanted))
        done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                answers = future.result()
            except BrokenProcessPool as error:  # what the others finished is kept first
                killed = error
            else:
                made[futures[future]] = answers
                write_answers(files[futures[future]], answers)
    if killed is not None:
        raise killed
    return [made[i] for i in range(len(wanted))]
