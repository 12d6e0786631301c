"""The front on disk: a folder for each member, front.csv, and nothing of members that left it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.task import Task
from nas.export.bundle import Candidate, at_8_bits, write_candidate
from nas.hardware.budget import price
from nas.hardware.stepwise import Stepwise, stepwise
from nas.network.integer import load_integer_model
from nas.run_folder import STEPWISE_COLUMNS, read_cost, read_front, write_front
from nas.search.finals import Finalist, shipped_file
from nas.search.rules import Rules, front_hypervolume, nondominated
from nas.training import metrics
from nas.training.recipe import student_steps
from nas.training.scoring import Examined
from nas.training.trained_file import read_answers
from nas.training.validation import Judging


def export_front(
    run: Path,
    task: Task,
    judged: Judging,
    rules: Rules,
    members: Sequence[tuple[Finalist, Examined]],
    deviation: float | None,
) -> None:
    """Writes candidates/<id>/ of every member and front.csv, best validation score first.

    Args:
        judged: the rows that gave the validation scores.
        deviation: of the scores of repeated trainings; None where nothing was repeated.

    Raises:
        RunError: the disk refuses.
    """
    rows = [_export(run, task, judged, rules, *member, deviation) for member in members]
    rows.sort(key=lambda row: (-row["val_score"], row["weight_bytes"]))
    write_front(run, rows)  # before the rest goes, so that it never names what is gone
    remove_strangers(run / "candidates", {row["id"] for row in rows})


def drop_dominated(run: Path, rules: Rules) -> int:
    """Takes from the front what is dominated now that costs were measured; returns how many.

    The search chose by predictions; a few bytes of difference can decide between neighbours.
    """
    rows = read_front(run)
    entries = [(read_cost(row), float(row["val_score"])) for row in rows]
    kept = [rows[i] for i in nondominated(rules, entries)]
    if len(kept) < len(rows):
        write_front(run, kept)
        remove_strangers(run / "candidates", {row["id"] for row in kept})
    return len(rows) - len(kept)


def delivered_hypervolume(run: Path, rules: Rules) -> float:
    """Of front.csv, by measured costs where it has them."""
    rows = read_front(run)
    return front_hypervolume(rules, [(read_cost(row), float(row["val_score"])) for row in rows])


def remove_strangers(folder: Path, members: set[str]) -> None:
    """Deletes the folders of candidates that have left the front; their models stay in trained/."""
    for path in folder.iterdir():
        if path.name not in members:
            shutil.rmtree(path)


def _export(
    run: Path,
    task: Task,
    judged: Judging,
    rules: Rules,
    finalist: Finalist,
    examined: Examined,
    deviation: float | None,
) -> dict[str, Any]:
    """Writes one candidate's folder and returns its row of the front."""
    record, file = finalist.record, shipped_file(run, finalist)
    model = load_integer_model(file)
    priced = price(model.graph, rules.profile)
    rows = judged.trained_rows(final=bool(finalist.scores))
    steps = round(student_steps(len(judged.train)) * finalist.length * rows / len(judged.train))
    candidate = Candidate(
        record.id,
        record.architecture,
        model,
        priced.program,
        priced.cost,
        at_8_bits(model.graph, rules.profile),
        stepwise(model.graph, rules.profile),
        finalist.val_scores,
        rows,
        steps,
        finalist.teachers.get(finalist.shipped, rules.teacher_name),
        examined.predicted,
        examined.without,
    )
    write_candidate(run, candidate, task)
    row: dict[str, Any] = {"id": record.id, "verified": "no", "metric": rules.metric}
    score, sampling = _score(task, rules.metric, judged.held_out, read_answers(file))
    row |= _interval("val", score, float(np.mean(finalist.val_scores)), sampling, deviation)
    test = task.rows("test")
    score, sampling = _score(task, rules.metric, test, examined.predicted)
    row |= _interval("test", score, score, sampling, deviation)
    row["test_accuracy"] = float((examined.predicted == task.y[test]).mean())
    row |= {name: getattr(record.cost, name) for name in record.cost.__slots__}
    return row | {
        "seeds": len(finalist.scores) or 1,
        "steps": steps,
        "trial": record.number,
        "weights_hash": model.hash,
        **step_columns(candidate.stepwise),
    }


def step_columns(held: Stepwise | None) -> dict[str, Any]:
    """The front's columns of the stepwise form, as predicted."""
    if held is None:
        return dict.fromkeys(STEPWISE_COLUMNS, "")
    values = (held.ram_bytes, held.step_cycles, held.last_step_cycles)
    return dict(zip(STEPWISE_COLUMNS, values, strict=True))


def _score(
    task: Task, metric: metrics.Metric, rows: NDArray[np.int64], answers: NDArray[np.int64]
) -> tuple[float, float]:
    """Score and its standard error by the finite sample of answers (n,) to rows (n,)."""
    labels, groups = task.y[rows], None if task.group is None else task.group[rows]
    value = metrics.score(metric, labels, answers, task.classes)
    return value, metrics.sampling_error(metric, labels, answers, task.classes, groups)


def _interval(
    split: str, value: float, centre: float, sampling: float, deviation: float | None
) -> dict[str, float]:
    """Columns of a score and its 90 % interval, which is widened to hold the score.

    Args:
        centre: where the interval lies: the mean over seeds, where there are any.
    """
    low, high = metrics.interval(centre, sampling, deviation or 0.0)
    columns = {"score": value, "low": min(low, value), "high": max(high, value)}
    return {f"{split}_{name}": number for name, number in columns.items()}
