"""How a run comes to its teacher: the user's model, or networks of ours trained in the workers.

It is chosen before the search begins, and fixed in it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from nas.data.task import Task
from nas.errors import RunError, UsageError
from nas.space import Problem
from nas.training.metrics import Metric
from nas.training.teacher import (
    TEACHER_KINDS,
    Answers,
    Member,
    Teacher,
    TeacherKind,
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


Choice: TypeAlias = TeacherKind | OwnModel


def choose_teacher(text: str | None, problem: Problem) -> Choice:
    """What `--teacher` says: a kind of ours, by name, or a file; the usual kind without it.

    Raises:
        UsageError: a file that cannot be read, or a kind that these sensors do not allow.
    """
    kinds = {str(kind): kind for kind in TEACHER_KINDS}
    if text is None:
        return "conv"
    if text in kinds:
        if text != "conv" and all(sensor.kind != "series" for sensor in problem.sensors):
            names = ", ".join(sensor.name for sensor in problem.sensors)
            raise UsageError(
                f"--teacher {text}: attention is over the steps of a time series, and none of"
                f" {names} is one; use --teacher conv"
            )
        return kinds[text]
    try:
        return OwnModel(text, Path(text).read_bytes())
    except OSError as error:
        raise UsageError(
            f"--teacher {text}: {error.strerror}; give {', '.join(TEACHER_KINDS)} or an .onnx file"
        ) from None


def teacher_of(
    task: Task,
    judged: Judging,
    metric: Metric,
    chosen: Choice,
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
    content = chosen.content if isinstance(chosen, OwnModel) else chosen
    identity = teacher_hash(task, judged.kind, metric, SEED, content)

    def ask() -> Answers:
        for _ in range(MOST_DEATHS):
            try:
                if isinstance(chosen, OwnModel):
                    answers: Answers = workers.submit(ask_onnx, chosen.path).result()
                    return answers
                wanted = members(chosen, judged.kind)
                return combine(judged, _train_members(wanted, metric, identity, workers, show))
            except BrokenProcessPool:
                workers.replace()
        raise RunError(
            f"{MOST_DEATHS} worker processes were killed while the teacher was made, probably for"
            " memory; use fewer --workers and --resume"
        )

    if isinstance(chosen, OwnModel):
        size_bytes = len(chosen.content)
        return get_teacher(task, judged, metric, identity, "onnx", ask, size_bytes)
    return get_teacher(task, judged, metric, identity, chosen, ask)


def _train_members(
    wanted: Sequence[Member],
    metric: Metric,
    identity: str,
    workers: Pool,
    show: Callable[[int, int], None],
) -> list[tuple[Member, Answers]]:
    """Answers of all members; those that a stopped run has finished are not made again."""
    files = [member_file(identity, i) for i in range(len(wanted))]
    made = {i: held for i, file in enumerate(files) if (held := read_answers(file))}
    futures = {
        workers.submit(train_member, metric, member, SEED + member.number): i
        for i, member in enumerate(wanted)
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
    return [(member, made[i]) for i, member in enumerate(wanted)]
