"""What a small validation split can and cannot tell: sets of sensors ranked by it and otherwise.

    python benchmarks/small_validation.py DATA.npz --csv benchmarks/results/small_validation.csv

For each set of sensors, the first network of the search space on these sensors, trained without a
teacher with several seeds, scored (balanced accuracy) on the file's validation split, on its test
split, and by cross-validation: the people of training and validation together in `--folds` parts,
each predicted by a network that was trained on the others. Resumable, a row a set and seed.
"""

import argparse
import csv
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas import metrics
from nas.data_rules import open_npz
from nas.evaluate import prepare, train_student
from nas.integer import IntegerModel
from nas.recipe import student_recipe
from nas.scoring import classify_split
from nas.space import FixedTrial, problem_of
from nas.task import Task, make_task
from nas.workers import BANK_SEED
from search_spaces import SPACES

COLUMNS = ("sensors", "seed", "validation", "cross_validation", "test")
METRIC: metrics.Metric = "balanced_accuracy"


def folds_of(arrays: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.int64]:
    """Fold (n,) of each row of training and validation by whole groups, classes spread; else -1."""
    group, y, split = (np.asarray(arrays[key]) for key in ("group", "y", "split"))
    fold = np.full(len(y), -1)
    rng = np.random.default_rng(0)
    for label in np.unique(y):
        people = rng.permutation(np.unique(group[(y == label) & (split < 2)]))
        for i, person in enumerate(people):
            fold[group == person] = i % count
    return fold


def trained(task: Task, seed: int) -> IntegerModel:
    """The space's first network, trained on the task's training rows."""
    torch.set_num_threads(1)
    bench = prepare(task, BANK_SEED)
    space, problem = SPACES["conv"], problem_of(task)
    graph = space.sample(FixedTrial(space.starts(problem)[0]), problem).lower()
    recipe = student_recipe(len(bench.labels["train"]), False, METRIC, distil=False, final=False)
    return IntegerModel.from_bytes(train_student(bench, graph, recipe, METRIC, None, seed).model)


def score_of(task: Task, predicted: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
    """Balanced accuracy on some rows."""
    return metrics.score(METRIC, task.y[rows], predicted, task.classes)


def measure(path: Path, sensors: tuple[str, ...], seed: int, folds: int) -> dict[str, Any]:
    """One row."""
    with open_npz(path) as held:
        arrays = {key: np.asarray(held[key]) for key in held}
    task = make_task(arrays, path.stem, path, sensors)
    model = trained(task, seed)
    row: dict[str, Any] = {"sensors": "+".join(sensors), "seed": seed}
    for name, split in (("validation", "val"), ("test", "test")):
        row[name] = score_of(task, classify_split(task, model, split), task.rows(split))
    fold = folds_of(arrays, folds)
    predicted = np.zeros(len(task.y), np.int64)
    for i in range(folds):
        split = np.where(fold == i, 1, np.where(fold < 0, 2, 0))
        part = make_task({**arrays, "split": split}, path.stem, path, sensors)
        predicted[part.rows("val")] = classify_split(part, trained(part, seed), "val")
    rows = np.flatnonzero(fold >= 0)
    row["cross_validation"] = score_of(task, predicted[rows], rows)
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means and standard deviations over seeds, a line a set of sensors."""
    lines = []
    for sensors in sorted({row["sensors"] for row in rows}):
        text = f"{sensors:24s}"
        for column in COLUMNS[2:]:
            scores = [float(row[column]) for row in rows if row["sensors"] == sensors]
            text += f"  {column} {np.mean(scores):.3f} +-{np.std(scores, ddof=1):.3f}"
        lines.append(text)
    return lines


def main() -> None:
    """Trains what is missing and prints the means."""
    parser = argparse.ArgumentParser(description="What a small validation split can tell.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = (
        list(csv.DictReader(chosen.csv.open())) if chosen.csv.exists() else []
    )
    with open_npz(chosen.data) as held:
        names = [key.removeprefix("modality_") for key in held if key.startswith("modality_")]
    sets = [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)]
    done = {(row["sensors"], str(row["seed"])) for row in rows}
    with ProcessPoolExecutor(chosen.workers, get_context("spawn")) as executor:
        futures = [
            executor.submit(measure, chosen.data, sensors, seed, chosen.folds)
            for seed in range(chosen.seeds)
            for sensors in sets
            if ("+".join(sensors), str(seed)) not in done
        ]
        for future in futures:
            rows.append(future.result())
            print(rows[-1], flush=True)
            with chosen.csv.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
