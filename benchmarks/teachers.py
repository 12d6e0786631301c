"""Teachers of each kind, and what the student makes of them.

    python benchmarks/teachers.py DATA.npz[:SENSOR,SENSOR] ... \
        --csv benchmarks/results/teachers.csv --students benchmarks/results/teachers_students.csv

A teacher is made as in a search; `out of fold` ones are not: each of `OUT_OF_FOLD` networks has not
seen one part of the training rows (whole groups), so a row's soft target is that of the network
that has not seen it, and on other rows their mean answers. `train_score` is then one of unseen
rows, too. The student is the first network of the search space at the length of a final training.
Where validation is crossed or no sensor is a series, only teachers are compared. Resumable; the
networks' answers are kept in --answers.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rows import METRICS, Rows
from scipy import stats

from nas.data.task import Task, load_task
from nas.network.integer import IntegerModel
from nas.search.rules import training_seed
from nas.space import FixedTrial
from nas.training import metrics
from nas.training.evaluate import Bench, prepare, recipe_of, train_student
from nas.training.metrics import Metric
from nas.training.scoring import classify
from nas.training.teacher import (
    MEMBERS,
    Answers,
    Member,
    NetworkKind,
    combine,
    log_softmax,
    members,
    read_answers,
    write_answers,
)
from nas.training.teacher_training import train_member, train_network
from nas.training.validation import judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

TEACHER_COLUMNS = (
    *("data", "teacher", "networks", "parameters", "train_score", "val_score", "test_score"),
    "train_s",
)
STUDENT_COLUMNS = ("data", "teacher", "seed", "val_score", "test_score", "train_s")
OUT_OF_FOLD = 5
KINDS: dict[str, tuple[NetworkKind, ...]] = {
    "conv": ("conv",),
    "attention": ("attention",),
    "both": ("conv", "attention"),
}
NO_TEACHER = "none"


@dataclass(frozen=True)
class Job:
    """One network: a member of a usual teacher, or that which has not seen a part."""

    network: NetworkKind
    member: Member | None
    unseen: int = 0

    @property
    def name(self) -> str:
        """For its file."""
        if self.member is None:
            return f"{self.network}-without-{self.unseen}"
        return f"{self.network}-{self.member.part}-{self.member.number}"


class _Process:
    bench: Bench
    metric: Metric


def _start(data: str) -> None:
    torch.set_num_threads(1)
    task = load(data)
    _Process.bench = prepare(task, judging(task, None), BANK_SEED)
    _Process.metric = METRICS.get(task.name, "accuracy")


def load(data: str) -> Task:
    """The task of `FILE` or `FILE:sensor,sensor`."""
    path, _, sensors = data.partition(":")
    return load_task(path, tuple(sensors.split(",")) if sensors else None)


def deal(task: Task, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) part of each row, by whole groups."""
    unit = rows if task.group is None else task.group[rows]
    names, member = np.unique(unit, return_inverse=True)
    part = np.random.default_rng(0).permutation(len(names)) % OUT_OF_FOLD
    return np.asarray(part[member], np.int64)


def _make(job: Job, file: Path) -> float:
    """Trains a network, keeps its answers and returns its seconds of CPU."""
    began, bench, metric = time.process_time(), _Process.bench, _Process.metric
    if job.member is not None:
        answers = train_member(bench, metric, job.member, job.member.number)
    else:
        kept = deal(bench.task, bench.judging.train) != job.unseen
        answers = train_network(bench, metric, job.network, kept, job.unseen)
    write_answers(file, answers)
    return time.process_time() - began


def jobs_of(teacher: str, crossed: bool) -> list[Job]:
    """The networks of a teacher, by its name in the table."""
    kind, _, unseen = teacher.partition(", ")
    if unseen:
        return [Job(n, None, part) for n in KINDS[kind] for part in range(OUT_OF_FOLD)]
    made = [m for n in KINDS[kind] for m in members(n, "cross" if crossed else "split")]
    return [Job(member.network, member) for member in made]


def put_together(task: Task, teacher: str, made: Sequence[tuple[Job, Answers]]) -> Answers:
    """One teacher of what its networks answered."""
    judged = judging(task, None)
    usual = [(job.member, answers) for job, answers in made if job.member is not None]
    if usual:
        return combine(judged, usual)
    part = deal(task, judged.train)
    bank = np.zeros_like(made[0][1].bank)
    for unseen in range(OUT_OF_FOLD):
        banks = [answers.bank for job, answers in made if job.unseen == unseen]
        bank[:, :, part == unseen] = np.mean(banks, 0)[:, :, part == unseen]
    val, test = (np.mean([getattr(a, s) for _, a in made], 0) for s in ("val", "test"))
    parameters = sum(answers.parameters for _, answers in made)
    return Answers(log_softmax(bank), log_softmax(val), log_softmax(test), parameters)


def teacher_row(data: str, teacher: str, made: Answers, count: int, train_s: float) -> Any:
    """Its scores: of the clean copies, of the rows that judge and of test."""
    task = load(data)
    judged = judging(task, None)
    rows = (judged.train, judged.held_out, task.rows("test"))
    metric = METRICS.get(task.name, "accuracy")
    answers = (made.bank[0, 0], made.val, made.test)
    scores = [
        metrics.score(metric, task.y[r], a.argmax(1).astype(np.int64), task.classes)
        for r, a in zip(rows, answers, strict=True)
    ]
    row = (label(data), teacher, count, made.parameters, *scores, round(train_s, 1))
    return dict(zip(TEACHER_COLUMNS, row, strict=True))


def _student(teacher: str, file: Path | None, seed: int) -> tuple[str, int, float, float, float]:
    bench, metric, space = _Process.bench, _Process.metric, SPACES["conv"]
    genes = space.starts(bench.problem)[0]
    graph = space.sample(FixedTrial(genes), bench.problem).lower()
    answers = None if file is None else read_answers(file)
    recipe = recipe_of(bench, metric, answers is not None, final=True)
    start = training_seed(seed, "teachers", 0)
    bank = None if answers is None else answers.bank
    trained = train_student(bench, graph, recipe, metric, bank, start, final=True)
    predicted = classify(IntegerModel.from_bytes(trained.model), bench.inputs["test"])
    test = metrics.score(metric, bench.labels["test"], predicted, bench.task.classes)
    return teacher, seed, trained.val_score, test, round(trained.train_s, 1)


def label(data: str) -> str:
    """How the tables name the data: the file, and the sensors where not all are used."""
    path, _, sensors = data.partition(":")
    return Path(path).stem + (f" {sensors.replace(',', '+')}" if sensors else "")


def make_networks(
    executor: ProcessPoolExecutor, data: str, teachers: Sequence[str], folder: Path, spent: Rows
) -> None:
    """Trains what no file holds yet, and writes down the seconds of each."""
    crossed = judging(load(data), None).kind == "cross"
    wanted = {job.name: job for teacher in teachers for job in jobs_of(teacher, crossed)}
    futures = {
        executor.submit(_make, job, folder / f"{name}.npz"): name
        for name, job in wanted.items()
        if not spent.has(label(data), name)
    }
    for future in as_completed(futures):
        row = {"data": label(data), "network": futures[future], "train_s": future.result()}
        spent.add(row)
        print(row, flush=True)


def measure(data: str, teachers: Sequence[str], chosen: argparse.Namespace) -> Iterator[str]:
    """Fills both tables for one data file and yields what it did."""
    task = load(data)
    crossed = judging(task, None).kind == "cross"
    folder = chosen.answers / label(data).replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    spent = Rows(
        chosen.answers / "seconds.csv", ("data", "network", "train_s"), ("data", "network")
    )
    rows = Rows(chosen.csv, TEACHER_COLUMNS, ("data", "teacher"))
    students = Rows(chosen.students, STUDENT_COLUMNS, ("data", "teacher", "seed"))
    series = any(m.kind == "series" for m in task.modalities)
    teachers = [t for t in teachers if series or t.partition(", ")[0] == "conv"]
    teachers = [t for t in teachers if not (crossed and "fold" in t)]
    with ProcessPoolExecutor(chosen.workers, get_context("spawn"), _start, (data,)) as executor:
        make_networks(executor, data, teachers, folder, spent)
        seconds = {r["network"]: float(r["train_s"]) for r in spent if r["data"] == label(data)}
        files: dict[str, Path | None] = {NO_TEACHER: None}
        for teacher in teachers:
            files[teacher] = file = folder / f"teacher {teacher}.npz"
            if rows.has(label(data), teacher):
                continue
            jobs = jobs_of(teacher, crossed)
            held = [(job, read_answers(folder / f"{job.name}.npz")) for job in jobs]
            made = put_together(task, teacher, [(j, a) for j, a in held if a is not None])
            write_answers(file, made)
            spent_s = sum(seconds[job.name] for job in jobs)
            rows.add(teacher_row(data, teacher, made, len(jobs), spent_s))
            yield str(rows[-1])
        wanted = [
            executor.submit(_student, teacher, file, seed)
            for seed in range(0 if crossed or not series else chosen.seeds)
            for teacher, file in files.items()
            if not students.has(label(data), teacher, seed)
        ]
        for future in as_completed(wanted):
            students.add(dict(zip(STUDENT_COLUMNS, (label(data), *future.result()), strict=True)))
            yield str(students[-1])


def summary(rows: Sequence[dict[str, Any]], base: str) -> Iterator[str]:
    """Each teacher's students: means, and paired differences to those of `base`, 95 %."""
    for data in dict.fromkeys(row["data"] for row in rows):
        for teacher in dict.fromkeys(row["teacher"] for row in rows if row["data"] == data):
            text = f"{data:18s} {teacher:24s}"
            for column in ("val_score", "test_score"):
                held = {
                    (row["teacher"], str(row["seed"])): float(row[column])
                    for row in rows
                    if row["data"] == data
                }
                seeds = [s for t, s in held if t == teacher and (base, s) in held]
                scores = np.array([held[teacher, s] for s in seeds])
                text += f" {column} {scores.mean():.4f}"
                if teacher != base and len(seeds) > 1:
                    change = scores - [held[base, s] for s in seeds]
                    half = stats.t.ppf(0.975, len(seeds) - 1) * change.std(ddof=1)
                    text += f" ({change.mean():+.4f} +-{half / len(seeds) ** 0.5:.4f})"
            yield text


def main() -> None:
    """Trains what is missing and prints the summary."""
    usual = [*KINDS, *(f"{kind}, out of fold" for kind in KINDS)]
    parser = argparse.ArgumentParser(description="Teachers of each kind and their students.")
    parser.add_argument("data", nargs="*", metavar="DATA.npz[:SENSOR,SENSOR]")
    parser.add_argument("--seeds", type=int, default=MEMBERS, help="of each student")
    parser.add_argument("--teachers", default=";".join(usual), help="separated by semicolons")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--answers", type=Path, default=Path("results") / "teachers")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--students", type=Path, required=True)
    chosen = parser.parse_args()
    for data in chosen.data:
        for line in measure(data, chosen.teachers.split(";"), chosen):
            print(line, flush=True)
    held = Rows(chosen.students, STUDENT_COLUMNS, ("data", "teacher", "seed"))
    print("\n".join(summary(held, "conv")))


if __name__ == "__main__":
    main()
