"""What early stopping that respects the front saves and costs: its rule, replayed on whole runs.

    python benchmarks/early_stopping.py RUN --lessons TEACHER.npz [--trainings 200] [--workers 2] \
        --csv FILE

Trains the first networks of a run's search again, as they were there, and notes their scores on
the validation split after shares of their steps. Then the rule of `nas.search.early_stopping` in
the order of the run, for every share: the steps saved, networks that would have been stopped, those
of them that would have entered the front, and the hypervolume that their loss costs. Resumable: a
row a network; without RUN only the replay of what is there.
"""

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rows import Rows
from torch import Tensor

from nas.data.task import load_task
from nas.hardware.budget import DEFAULT_LATENCY_LIMIT_MS
from nas.hardware.profile import load_profile
from nas.network.graph import Graph
from nas.run_folder import read_manifest
from nas.search.early_stopping import bar, hope
from nas.search.pareto import hypervolume
from nas.search.rules import training_seed
from nas.training import metrics
from nas.training.evaluate import Bench, Halfway, prepare, recipe_of, taught
from nas.training.lessons import read_lessons
from nas.training.loop import train
from nas.training.recipe import HALFWAY, Recipe
from nas.training.scoring import classify
from nas.training.student import Student, to_integer
from nas.training.validation import judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8)
COSTS = ("ram_bytes", "flash_bytes", "latency_ms")
COLUMNS = ("dataset", "number", "id", *COSTS, *(f"at_{share:.0%}" for share in SHARES), "score")


class Watched(Student):
    """A student that is scored during its training, which goes on as if it had not been."""

    def watch(self, held: Bench, metric: metrics.Metric, steps: int) -> None:
        """From now on; scores go to `self.noted`, share of the steps -> score."""
        self.judge, self.noted = Halfway(held, metric, hurdle=0.0), dict[float, float]()
        self.marks = {round(share * steps): share for share in SHARES}
        self.steps_seen = 0

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """As a student's."""
        if self.training:
            share = self.marks.get(self.steps_seen)
            self.steps_seen += 1
            if share is not None:
                self.judge(self)
                assert self.judge.score is not None
                self.noted[share] = self.judge.score
                self.train()
        return super().forward(inputs)


class Teaching:
    """What a process needs to train the networks of one run."""

    def __init__(self, run: Path, lessons: Path) -> None:
        torch.set_num_threads(1)
        self.manifest = read_manifest(run)
        task = load_task(self.manifest["data"]["path"], None)
        self.bench = prepare(task, judging(task, "split"), BANK_SEED)
        self.metric: metrics.Metric = self.manifest["metric"]
        self.recipe: Recipe = recipe_of(self.bench, self.metric, True, False)
        self.data = taught(self.bench, read_lessons(lessons, False), 0)
        with (run / "trials.csv").open(newline="") as file:
            every = csv.DictReader(file)
            self.rows = [row for row in every if row["status"] in ("trained", "stopped")]

    def row(self, place: int) -> dict[str, Any]:
        """Trains the network at a place among those whose training was begun."""
        known = self.rows[place]
        space = SPACES[self.manifest["space"]]
        graph: Graph = space.parse(json.loads(known["architecture"])).lower()
        seed = training_seed(self.manifest["seed"], known["id"], 0)
        torch.manual_seed(seed)
        net = Watched(graph, self.data.scales, dropout=self.recipe.dropout)
        net.watch(self.bench, self.metric, self.recipe.steps)
        train(net, self.data, self.recipe, seed)
        answers = classify(to_integer(net), self.bench.inputs["val"])
        classes = self.bench.task.classes
        score = metrics.score(self.metric, self.bench.labels["val"], answers, classes)
        now = {"val_score": score, "halfway_score": net.noted[HALFWAY]}
        for name, value in now.items():
            if known.get(name) and value != float(known[name]):
                raise SystemExit(f"{known['id']}: {name} was {known[name]} in the run, is {value}")
        row: dict[str, Any] = {"dataset": self.manifest["data"]["name"], "score": score}
        row |= {column: known[column] for column in ("number", "id", *COSTS)}
        return row | {f"at_{share:.0%}": noted for share, noted in net.noted.items()}


_HELD: list[Teaching] = []  # of a process


def train_again(run: Path, lessons: Path, place: int) -> dict[str, Any]:
    """In a process: the row of a network."""
    if not _HELD:
        _HELD.append(Teaching(run, lessons))
    return _HELD[0].row(place)


def replay(rows: Sequence[Mapping[str, Any]], share: float) -> dict[str, Any]:
    """What the rule does to a run at one share of the steps."""
    costs = np.array([[float(row[name]) for name in COSTS] for row in rows])
    scores = np.array([float(row["score"]) for row in rows])
    halfway = np.array([float(row[f"at_{share:.0%}"]) for row in rows])
    ended: list[int] = []
    stopped: list[int] = []
    told: list[float] = []  # less the truth
    wrongly = 0
    for place in range(len(rows)):
        least = bar(costs[place], costs[ended], scores[ended], scores[ended] - halfway[ended])
        if halfway[place] < least:
            stopped.append(place)
            told.append(halfway[place] + hope(scores[ended] - halfway[ended]) - scores[place])
            rivals = scores[ended][(costs[ended] <= costs[place]).all(1)]
            wrongly += int(scores[place] > rivals.max(initial=0.0))
        else:
            ended.append(place)
    return {
        "share": share,
        "networks": len(rows),
        "stopped": len(stopped),
        "wrongly": wrongly,
        "saved": len(stopped) * (1 - share) / len(rows),
        "kept": volume(costs[ended], scores[ended]) / volume(costs, scores),
        "told": [round(float(x), 4) for x in (np.mean(told), np.std(told))] if told else None,
        "gain": [round(float(x), 4) for x in np.quantile(scores - halfway, (0.05, 0.5, 0.95))],
    }


def volume(costs: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Hypervolume in the limits of the 32 KB device."""
    device = load_profile("cortex-m4-32k")
    limits = np.array(
        [device.ram_budget_bytes, device.flash_budget_bytes, DEFAULT_LATENCY_LIMIT_MS]
    )
    return hypervolume(np.c_[1 - scores, costs / limits], np.ones(4))


def main() -> None:
    """Makes the rows that are missing; replays all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--lessons", type=Path)
    parser.add_argument("--trainings", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("dataset", "id"))
    if chosen.run is not None:
        teaching = Teaching(chosen.run, chosen.lessons)
        name = teaching.manifest["data"]["name"]
        first = enumerate(teaching.rows[: chosen.trainings])
        missing = [i for i, row in first if not rows.has(name, row["id"])]
        rows.fill(partial(train_again, chosen.run, chosen.lessons), missing, chosen.workers)
    for name in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == name]
        mine.sort(key=lambda row: int(row["number"]))
        for share in SHARES:
            print(name, json.dumps(replay(mine, share)))


if __name__ == "__main__":
    main()
