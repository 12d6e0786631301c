"""The front on disk: a folder for each member, front.csv, and nothing of members that left it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas import metrics
from nas.budget import price
from nas.bundle import Candidate, write_candidate
from nas.finals import Finalist, shipped_file
from nas.integer import load_integer_model
from nas.recipe import student_steps
from nas.rules import Rules
from nas.run_folder import write_front
from nas.scoring import Examined
from nas.task import SplitName, Task


def export_front(
    run: Path,
    task: Task,
    rules: Rules,
    members: Sequence[tuple[Finalist, Examined]],
    deviation: float | None,
) -> None:
    """Writes candidates/<id>/ of every member and front.csv, best validation score first.

    Args:
        deviation: of the scores of repeated trainings; None where nothing was repeated.

    Raises:
        RunError: the disk refuses.
    """
    rows = [_export(run, task, rules, *member, deviation) for member in members]
    rows.sort(key=lambda row: (-row["val_score"], row["weight_bytes"]))
    write_front(run, rows)  # before the rest goes, so that it never names what is gone
    remove_strangers(run / "candidates", {row["id"] for row in rows})


def remove_strangers(folder: Path, members: set[str]) -> None:
    """Deletes the folders of candidates that have left the front; their models stay in trained/."""
    for path in folder.iterdir():
        if path.name not in members:
            shutil.rmtree(path)


def _export(
    run: Path,
    task: Task,
    rules: Rules,
    finalist: Finalist,
    examined: Examined,
    deviation: float | None,
) -> dict[str, Any]:
    """Writes one candidate's folder and returns its row of the front."""
    record = finalist.record
    model = load_integer_model(shipped_file(run, finalist))
    priced = price(model.graph, rules.profile)
    steps = student_steps(len(task.rows("train"))) * finalist.length
    candidate = Candidate(
        record.id,
        record.architecture,
        model,
        priced.plan,
        priced.cost,
        finalist.val_scores,
        steps,
        examined.predicted["test"],
        examined.without,
    )
    write_candidate(run, candidate, task)
    row: dict[str, Any] = {"id": record.id, "verified": "no", "metric": rules.metric}
    for split, predicted in examined.predicted.items():
        row |= _scores(task, rules.metric, split, predicted, finalist, deviation)
    labels = task.y[task.rows("test")]
    row["test_accuracy"] = float((examined.predicted["test"] == labels).mean())
    row |= {name: getattr(record.cost, name) for name in record.cost.__slots__}
    return row | {
        "seeds": len(finalist.scores) or 1,
        "steps": steps,
        "trial": record.number,
        "weights_hash": model.hash,
    }


def _scores(
    task: Task,
    metric: metrics.Metric,
    split: SplitName,
    predicted: NDArray[np.int64],
    finalist: Finalist,
    deviation: float | None,
) -> dict[str, float]:
    """Score and 90 % interval on one split.

    On validation the interval lies around the mean over seeds and is widened to hold the score.
    """
    rows = task.rows(split)
    labels, groups = task.y[rows], None if task.group is None else task.group[rows]
    value = metrics.score(metric, labels, predicted, task.classes)
    sampling = metrics.sampling_error(metric, labels, predicted, task.classes, groups)
    centre = float(np.mean(finalist.val_scores)) if split == "val" else value
    low, high = metrics.interval(centre, sampling, deviation or 0.0)
    return {
        f"{split}_score": value,
        f"{split}_low": min(low, value),
        f"{split}_high": max(high, value),
    }
