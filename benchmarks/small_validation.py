"""What a small validation split can and cannot tell: sets of sensors ranked by it and crosswise.

    python benchmarks/small_validation.py DATA.npz --csv benchmarks/results/small_validation.csv

For each set of sensors, the first network of the search space on these sensors, trained without a
teacher with several seeds and judged (balanced accuracy) in both ways that a search knows: by the
file's validation split, or crosswise by all rows of training and validation, which then train what
ships. The score on the test split stands beside each. Resumable, a row a set, seed and way.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Rows

from nas.data.data_rules import open_npz
from nas.data.task import load_task
from nas.network.integer import IntegerModel
from nas.space import FixedTrial
from nas.training import metrics
from nas.training.evaluate import prepare, recipe_of, train_student
from nas.training.scoring import classify
from nas.training.validation import VALIDATIONS, Validation, judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

COLUMNS = ("sensors", "seed", "judged", "val_score", "test_score")
METRIC: metrics.Metric = "balanced_accuracy"


def measure(path: Path, sensors: tuple[str, ...], seed: int, kind: Validation) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(1)
    task, space = load_task(path, sensors), SPACES["conv"]
    bench = prepare(task, judging(task, kind), BANK_SEED)
    graph = space.sample(FixedTrial(space.starts(bench.problem)[0]), bench.problem).lower()
    recipe = recipe_of(bench, METRIC, distil=False, final=False)
    trained = train_student(bench, graph, recipe, METRIC, None, seed, final=True)
    answers = classify(IntegerModel.from_bytes(trained.model), bench.inputs["test"])
    test = metrics.score(METRIC, bench.labels["test"], answers, task.classes)
    row = ("+".join(sensors), seed, kind, trained.val_score, test)
    return dict(zip(COLUMNS, row, strict=True))


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means and standard deviations over seeds, a line a set of sensors."""
    lines = []
    for sensors in sorted({row["sensors"] for row in rows}):
        text = f"{sensors:24s}"
        for kind in VALIDATIONS:
            for column in COLUMNS[3:]:
                held = [r for r in rows if (r["sensors"], r["judged"]) == (sensors, kind)]
                scores = [float(row[column]) for row in held]
                text += f"  {kind} {column} {np.mean(scores):.3f} +-{np.std(scores, ddof=1):.3f}"
        lines.append(text)
    return lines


def main() -> None:
    """Trains what is missing and prints the means."""
    parser = argparse.ArgumentParser(description="What a small validation split can tell.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("sensors", "seed", "judged"))
    with open_npz(chosen.data) as held:
        names = [key.removeprefix("modality_") for key in held if key.startswith("modality_")]
    sets = [s for n in range(1, len(names) + 1) for s in itertools.combinations(names, n)]
    with ProcessPoolExecutor(chosen.workers, get_context("spawn")) as executor:
        futures = [
            executor.submit(measure, chosen.data, sensors, seed, kind)
            for seed in range(chosen.seeds)
            for kind in VALIDATIONS
            for sensors in sets
            if not rows.has("+".join(sensors), seed, kind)
        ]
        for future in as_completed(futures):
            rows.add(future.result())
            print(rows[-1], flush=True)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
