"""What teaches best, and what makes 2 bits work: one change at a time, fixed small students.

    python benchmarks/distil.py DATA_DIR --csv benchmarks/results/distil.csv

Two students from the starts of the space `conv`: one of width 4 with 4 bits, one of width 6 with 2,
trained as in a search. `handed down` is taught by an intermediate teacher: the integers of a wider
student (width 12, 4 bits) of the same seed, which was taught by the ensemble. One row a training;
resumable. The end prints paired differences, seed by seed, with their standard errors: validation
is for decisions, test is printed beside it.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import numpy as np
from rows import Rows

from nas.data.task import load_task
from nas.network.integer import IntegerModel
from nas.search.rules import training_seed
from nas.space import FixedTrial
from nas.training import metrics
from nas.training.assistant import lessons_of
from nas.training.evaluate import Bench, recipe_of, train_student
from nas.training.lessons import Lessons, read_lessons
from nas.training.scoring import classify
from nas.training.teaching import teacher_of
from nas.training.validation import judging
from nas.training.workers import DataSource, bench, pool, prepared
from search_spaces import SPACES

COLUMNS = ("data", "bits", "arm", "seed", "val_score", "test_score", "train_s")
DATA = {  # name -> file and sensors
    "av_digits_hard": ("av_digits_hard", None),
    "rfid_accel_rssi": ("rfid_accel_rssi", None),
    "fruit_depth_thermal": ("fruit_rgb_depth_thermal", ("depth", "thermal")),
    "indoor_zone": ("indoor_zone", None),
}
STUDENTS = {4: 1, 2: 5}  # bits -> number of the start
INTERMEDIATE = 3
ARMS: dict[str, dict[str, Any]] = {  # changes to the recipe of a search with a teacher's logits
    "none": {"distil_weight": 0.0},
    "logits": {},
    "handed down": {},
    "projection": {"distil_weight": 0.0, "hint": "projection"},
    "relation": {"distil_weight": 0.0, "hint": "relation"},
    "logits + projection": {"hint": "projection"},
    "logits + relation": {"hint": "relation"},
    "learned scales": {"learned_scales": True},
    "gradual bits": {"gradual_share": 0.4},
    "both": {"learned_scales": True, "gradual_share": 0.4},
}
LOW_BITS = ("learned scales", "gradual bits", "both")
ARMS_OF = {
    4: [name for name in ARMS if name not in LOW_BITS],
    2: ["none", "logits", "handed down", "logits + relation", *LOW_BITS],
}
BASES = {name: "logits" if name in LOW_BITS else "none" for name in ARMS}
Job = tuple[int, str, int]  # bits, arm, seed


def _train(name: str, file: Path, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The rows of one seed's jobs, which share an intermediate teacher; runs in a worker."""
    held: Bench = prepared()
    lessons = read_lessons(file, True)
    intermediate: Lessons | None = None
    rows = []
    for bits, arm, seed in jobs:
        taught = lessons
        if arm == "handed down":
            if intermediate is None:
                wide = _fit(held, INTERMEDIATE, {}, lessons, seed)
                intermediate = lessons_of(held, IntegerModel.from_bytes(wide.model))
                rows.append(_row(held, name, 4, "the intermediate teacher", seed, wide))
            taught = intermediate
        trained = _fit(held, STUDENTS[bits], ARMS[arm], taught, seed)
        rows.append(_row(held, name, bits, arm, seed, trained))
    return rows


def _fit(held: Bench, start: int, changes: dict[str, Any], taught: Lessons, seed: int) -> Any:
    space = SPACES["conv"]
    genes = space.starts(held.problem)[start]
    graph = space.sample(FixedTrial(genes), held.problem).lower()
    recipe = dataclasses.replace(recipe_of(held, "accuracy", True, final=False), **changes)
    return train_student(
        held, graph, recipe, "accuracy", taught, training_seed(seed, "distil", start)
    )


def _row(held: Bench, name: str, bits: int, arm: str, seed: int, trained: Any) -> dict[str, Any]:
    predicted = classify(IntegerModel.from_bytes(trained.model), held.inputs["test"])
    test = metrics.score("accuracy", held.labels["test"], predicted, held.task.classes)
    row = (name, bits, arm, seed, trained.val_score, test, round(trained.train_s, 1))
    return dict(zip(COLUMNS, row, strict=True))


def measure(folder: Path, name: str, jobs: Sequence[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each job, and one for each intermediate teacher."""
    stem, sensors = DATA[name]
    path = str(folder / f"{stem}.npz")
    task = load_task(path, sensors)
    source = DataSource(None, path, task.names, task.data_hash)
    judged = judging(task, "split")
    with pool(workers, source, bench(judged.kind)) as trainers:
        teacher = teacher_of(task, judged, "accuracy", None, trainers, lambda done, wanted: None)
        print(f"{name}: teacher {teacher.val_score:.4f} {teacher.test_score:.4f}", flush=True)
        alone = [[job] for job in jobs if job[1] != "handed down"]
        down = [job for job in jobs if job[1] == "handed down"]
        together = [[job for job in down if job[2] == seed] for seed in {job[2] for job in down}]
        batches = alone + together
        batches.sort(key=lambda batch: batch[0][2])
        futures = [trainers.submit(_train, name, teacher.file, batch) for batch in batches]
        for future in as_completed(futures):
            yield from future.result()


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line a data set, student and arm: means, and the paired difference to its base."""
    lines = []
    for name in DATA:
        for bits in STUDENTS:
            of = {(r["arm"], str(r["seed"])): r for r in rows if _is(r, name, bits)}
            for arm in ARMS_OF[bits]:
                seeds = [s for a, s in of if a == arm and (BASES[arm], s) in of]
                text = f"{name:20s} {bits} bits {arm:20s} {len(seeds)} seeds"
                for column in ("val_score", "test_score"):
                    scores = np.array([float(of[arm, s][column]) for s in seeds])
                    base = np.array([float(of[BASES[arm], s][column]) for s in seeds])
                    if len(seeds) > 1:
                        error = (scores - base).std(ddof=1) / len(seeds) ** 0.5
                        text += f"  {scores.mean():.4f}"
                        text += f" ({(scores - base).mean():+.4f} se {error:.4f})"
                lines.append(text)
    return lines


def _is(row: dict[str, Any], name: str, bits: int) -> bool:
    return bool(row["data"] == name and int(row["bits"]) == bits)


def main() -> None:
    """Trains what is missing and prints the summary."""
    parser = argparse.ArgumentParser(description="What teaches best, and what makes 2 bits work.")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", default=",".join(DATA), help="data sets, separated by commas")
    parser.add_argument("--arms", default=",".join(ARMS), help="separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("data", "bits", "arm", "seed"))
    for name in chosen.only.split(",") if chosen.folder else ():
        every = [(b, a, s) for s in range(chosen.seeds) for b in STUDENTS for a in ARMS_OF[b]]
        wanted = [job for job in every if job[1] in chosen.arms.split(",")]
        jobs = [job for job in wanted if not rows.has(name, *job)]
        for row in measure(chosen.folder, name, jobs, chosen.workers) if jobs else ():
            rows.add(row)
            print(row, flush=True)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
