"""Distillation against none: the same network trained with and without the teacher, several seeds.

    python benchmarks/distillation.py DATA.npz ... --csv benchmarks/results/distillation.csv

The network is the first one of the search space, trained as a front member is (final length); the
teacher is the one that a search would use. One row a training; resumable. At the end it prints, for
each data file, mean and 95 % interval (Student's t) of the paired differences: seed by seed, since
both trainings of a seed begin with the same weights and see the same batches.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
from rows import METRICS, Rows
from scipy import stats

from nas.data.task import load_task
from nas.network.integer import load_integer_model
from nas.search.rules import training_seed
from nas.space import FixedTrial, architecture_id, problem_of
from nas.training import metrics
from nas.training.scoring import classify_split
from nas.training.teaching import teacher_of
from nas.training.validation import judging
from nas.training.workers import DataSource, Training, bench, pool, train
from search_spaces import SPACES

COLUMNS = ("data", "seed", "distilled", "id", "metric", "val_score", "test_score")


def measure(path: Path, seeds: int, done: Rows, models: Path) -> Any:
    """Yields one row for each training that is not done."""
    task = load_task(str(path))
    metric = METRICS.get(path.stem, "accuracy")
    problem = problem_of(task)
    space = SPACES["conv"]
    architecture = space.sample(FixedTrial(space.starts(problem)[0]), problem)
    source = DataSource(None, str(path), task.names, task.data_hash)
    judged = judging(task, None)
    with pool(2, source, bench(judged.kind)) as workers:
        teacher = teacher_of(task, judged, metric, "conv", workers, lambda done, wanted: None)
        print(f"{path.stem}: teacher {teacher.val_score:.4f} {teacher.test_score:.4f}", flush=True)
        futures = {}
        for seed in range(seeds):
            for distilled in (True, False):
                if done.has(path.stem, seed, distilled):
                    continue
                file = teacher.file if distilled else None
                start = training_seed(seed, "distillation", 0)
                job = Training(architecture.lower(), metric, file, final=True, seed=start)
                futures[workers.submit(train, job)] = seed, distilled
        for future in as_completed(futures):
            seed, distilled = futures[future]
            file = models / f"{path.stem}-{seed}-{distilled}.npz"
            file.write_bytes(future.result().model)
            predicted = classify_split(task, load_integer_model(file), "test")
            labels = task.y[task.rows("test")]
            test = metrics.score(metric, labels, predicted, task.classes)
            identity = architecture_id(architecture)
            row = (path.stem, seed, distilled, identity, metric, future.result().val_score, test)
            yield dict(zip(COLUMNS, row, strict=True))


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per data file and split: means, and the paired difference with its 95 % interval."""
    found = []
    for data in sorted({row["data"] for row in rows}):
        for split in ("val_score", "test_score"):
            scores: dict[str, dict[str, float]] = {"True": {}, "False": {}}
            for row in rows:
                if row["data"] == data:
                    scores[str(row["distilled"])][str(row["seed"])] = float(row[split])
            seeds = sorted(scores["True"].keys() & scores["False"].keys())
            pairs = np.array([[scores["True"][s], scores["False"][s]] for s in seeds])
            if len(pairs) < 2:
                continue
            difference = pairs[:, 0] - pairs[:, 1]
            error = difference.std(ddof=1) / np.sqrt(len(pairs))
            half = float(stats.t.ppf(0.975, len(pairs) - 1) * error)
            found.append(
                {
                    "data": data,
                    "split": split.removesuffix("_score"),
                    "seeds": len(pairs),
                    "distilled": float(pairs[:, 0].mean()),
                    "plain": float(pairs[:, 1].mean()),
                    "difference": float(difference.mean()),
                    "low": float(difference.mean()) - half,
                    "high": float(difference.mean()) + half,
                }
            )
    return found


def main() -> None:
    """Trains what is missing and prints the summary."""
    parser = argparse.ArgumentParser(description="Distillation against none.")
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path("results") / "distillation")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    chosen.models.mkdir(parents=True, exist_ok=True)
    rows = Rows(chosen.csv, COLUMNS, ("data", "seed", "distilled"))
    for path in chosen.data:
        for row in measure(path, chosen.seeds, rows, chosen.models):
            rows.add(row)
            print(row, flush=True)
    found = summary(rows)
    for line in found:
        print(
            f"{line['data']:16s} {line['split']:4s} {line['seeds']} seeds:"
            f" {line['distilled']:.4f} distilled, {line['plain']:.4f} plain,"
            f" difference {line['difference']:+.4f} ({line['low']:+.4f} to {line['high']:+.4f})"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
