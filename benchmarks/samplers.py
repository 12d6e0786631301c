"""Which sampler finds the most in as many trainings? A race on a table of trained networks.

    OPENBLAS_NUM_THREADS=1 python benchmarks/samplers.py \
        [--samplers exact,tpe,nsga2,nsga3,gp,random] [--seeds 20] [--trainings 200] \
        [--workers 2] [--csv FILE] [--json FILE]

Every sampler sits in the search loop of a run, behind the same filter and with the same memory of
what was trained, in the space of `sampler_table.py`; only a training is a look into the table. Of
the two trainings of a network the search sees one, chosen by its seed. `seen` is the hypervolume of
what was trained, by the scores that the search saw; `kept` is that of the front that it would show,
by the other training, so that luck does not count. Both are shares of the whole table's. p is that
of a two-sided Mann-Whitney test of `exact` against another sampler.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import optuna
from rows import Rows
from sampler_table import TABLE, fitting, read_table, rules
from scipy.stats import mannwhitneyu

from nas.progress import Progress
from nas.run_folder import TrialRecord, summarise
from nas.search.clock import Clock
from nas.search.engine import Search
from nas.search.rules import Rules, front_hypervolume, nondominated
from nas.search.samplers import SAMPLERS, sampler_of
from nas.search.study import Study
from nas.space import Genes
from nas.training.workers import Training

SIZES = (20, 50, 100, 200)
FIGURES = tuple(f"{measure}_{size}" for measure in ("seen", "kept") for size in SIZES)
COLUMNS = ("sampler", "seed", *FIGURES, "refused", "duplicates", "seconds")
OURS = "exact"


def ended(score: float) -> "Future[Any]":
    """Of a training that takes no time."""
    future: Future[Any] = Future()
    told = {"val_score": score, "halfway_score": None, "train_s": 1.0}
    future.set_result(SimpleNamespace(model=b"model", **told))
    return future


def searched(
    given: Rules, pool: Any, name: str, trainings: int, seed: int, starts: Sequence[Genes] = ()
) -> list[TrialRecord]:
    """The trials of a search with some sampler, in order; `pool` stands for its processes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = ["minimize"] * len(given.objectives)
    study = optuna.create_study(directions=directions, sampler=sampler_of(name, given)(seed))
    held = Study(study, given.objectives)
    held.begin_with(starts)
    with tempfile.TemporaryDirectory() as folder:
        search = Search(given, held, pool, Path(folder), Clock(None), Progress(quiet=True))
        search.go(trainings)
    return sorted(held.records, key=lambda record: record.number)


class Table:
    """Stands for a pool of two processes, as one seed sees the table.

    Attributes:
        seen, other: id -> a validation score; that of the search, and that of the other training.
    """

    count = 2

    def __init__(self, seed: int) -> None:
        networks, scores = fitting(), read_table()
        self._ids = {priced.graph.hash: i for i, priced in networks.items()}
        rng = random.Random(seed)
        self.costs = {i: summarise(p.graph, p.cost) for i, p in networks.items()}
        self.seen, self.other = {}, {}
        for identity in sorted(networks):
            self.seen[identity], self.other[identity] = rng.sample(scores[identity], 2)

    def submit(self, _: Any, job: Training) -> "Future[Any]":
        """A training that has ended already."""
        return ended(self.seen[self._ids[job.graph.hash]])

    def volumes(self, trained: Sequence[str]) -> tuple[float, float]:
        """`seen` and `kept` of some networks."""
        seen = [(self.costs[i], self.seen[i]) for i in trained]
        front = [trained[place] for place in nondominated(rules(), seen)]
        kept = [(self.costs[i], self.other[i]) for i in front]
        return front_hypervolume(rules(), seen), front_hypervolume(rules(), kept)


@cache
def table_of(seed: int) -> tuple[Table, tuple[float, float]]:
    """A table, and what all of it is worth."""
    table = Table(seed)
    return table, table.volumes(sorted(table.seen))


def race(name: str, trainings: int, seed: int) -> dict[str, Any]:
    """One search of so many trainings."""
    began = time.process_time()
    table, whole = table_of(seed)
    records = searched(rules(), table, name, trainings, seed)
    trained = [record.id for record in records if record.status == "trained"]
    row: dict[str, Any] = {"sampler": name, "seed": seed} | dict.fromkeys(FIGURES, "")
    for size in (size for size in SIZES if size <= trainings):
        pairs = zip(("seen", "kept"), table.volumes(trained[:size]), whole, strict=True)
        row |= {f"{measure}_{size}": round(got / top, 5) for measure, got, top in pairs}
    for status, column in (("infeasible", "refused"), ("duplicate", "duplicates")):
        row[column] = sum(record.status == status for record in records)
    return row | {"seconds": round(time.process_time() - began, 1)}


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians of each sampler, and p against ours."""
    found = []
    for name in dict.fromkeys(row["sampler"] for row in rows):
        mine = [row for row in rows if row["sampler"] == name]
        ours = [row for row in rows if row["sampler"] == OURS]
        held: dict[str, Any] = {"sampler": name, "seeds": len(mine)}
        for column in FIGURES:
            values = [float(row[column]) for row in mine if row[column]]
            if not values:
                continue
            held[column] = median(values)
            if name != OURS and ours:
                others = [float(row[column]) for row in ours]
                held[f"p_{column}"] = float(mannwhitneyu(others, values).pvalue)
        held["seconds"] = median(float(row["seconds"]) for row in mine)
        found.append(held)
    return found


def main() -> None:
    """Makes the races that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trainings", type=int, default=SIZES[-1])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=TABLE.with_name("samplers.csv"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("sampler", "seed"))
    for name in chosen.samplers.split(","):
        wanted = [seed for seed in range(chosen.seeds) if not rows.has(name, seed)]
        rows.fill(partial(race, name, chosen.trainings), wanted, chosen.workers)
    found = summary(rows)
    for held in found:
        print(f"{held['sampler']:8s} {held['seeds']} seeds  {held['seconds']:.0f} s")
        for measure in ("seen", "kept"):
            text = "  ".join(
                f"{held[f'{measure}_{size}']:.4f} (p {held.get(f'p_{measure}_{size}', 1):.3f})"
                for size in SIZES
                if f"{measure}_{size}" in held
            )
            print(f"    {measure}  {text}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
