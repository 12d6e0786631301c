"""What a sampler makes of many trainings: the whole space `conv`, with made-up accuracies.

    OPENBLAS_NUM_THREADS=1 python benchmarks/long_search.py [--samplers exact,nsga2] [--seeds 3] \
        [--trainings 800] [--workers 2] [--csv FILE]

A table of trained networks ends after a few hundred; here none has been trained. The error of a
network falls with its weights and its time, up to effects of its layers' widths and bits, of pairs
of these, and of the network alone, all drawn once. A training adds seed noise of .005 to it. `seen`
is the hypervolume of the scores with noise, `true` that of the front's errors without. All else is
as in a search.
"""

import argparse
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from cost import PROBLEMS
from rows import Rows
from sampler_table import TABLE
from samplers import ended, searched

from nas.hardware.budget import DEFAULT_LATENCY_LIMIT_MS, Budget, price
from nas.hardware.profile import load_profile
from nas.network.graph import Graph
from nas.network.ops import Conv2d, DepthwiseConv2d
from nas.run_folder import summarise
from nas.search.rules import OBJECTIVES, Rules, front_hypervolume, nondominated
from nas.training.workers import Training
from search_spaces import SPACES

SIZES = (100, 200, 400, 800)
FIGURES = tuple(f"{measure}_{size}" for measure in ("seen", "true") for size in SIZES)
COLUMNS = ("sampler", "seed", *FIGURES, "seconds")
SEED_NOISE = 0.005
PAIRS = 0.05  # share of the pairs of choices that have an effect of their own
DATA, DEVICE = "rfid_accel_rssi", "cortex-m4-32k"


@cache
def rules() -> Rules:
    """Those of a search without further limits."""
    profile = load_profile(DEVICE)
    budget = Budget(profile.ram_budget_bytes, profile.flash_budget_bytes, None, None)
    return Rules(
        SPACES["conv"], PROBLEMS[DATA], profile, budget, OBJECTIVES, "accuracy", None, 0,
        DEFAULT_LATENCY_LIMIT_MS,
    )  # fmt: skip


def _drawn(*name: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(name).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


@cache
def _effect(choice: str) -> float:
    return float(_drawn("effect", choice).normal())


@cache
def _pair_effect(one: str, other: str) -> float:
    drawn = _drawn("pair", one, other)
    return float(drawn.normal()) if drawn.random() < PAIRS else 0.0


def choices_of(graph: Graph) -> Iterator[str]:
    """Width and bits of each layer, as words."""
    for op in graph.ops:
        if isinstance(op, Conv2d | DepthwiseConv2d):
            yield f"{op.name} has {graph.shapes[op.name][-1]} channels"
            yield f"{op.name} has {op.weight_bits} bits"


def true_error(graph: Graph) -> float:
    """Made up; see the module."""
    cost = price(graph, rules().profile).cost
    size = np.log2(1 + cost.weight_bytes / 200) + 0.5 * np.log2(1 + cost.latency_s / 3e-4)
    words = sorted(choices_of(graph))
    luck = 0.06 * sum(map(_effect, words)) + 0.05 * _effect(graph.hash)
    luck += 0.05 * sum(_pair_effect(*pair) for pair in combinations(words, 2))
    return float(min(0.03 + 0.35 * np.exp(luck - 0.55 * size), 0.75))


class MadeUp:
    """Stands for a pool of two processes."""

    count = 2

    def __init__(self, seed: int) -> None:
        self._noise = np.random.default_rng(seed)
        self.errors: dict[str, float] = {}

    def submit(self, _: Any, job: Training) -> "Future[Any]":
        """A training that has ended already."""
        error = self.errors[job.graph.hash] = true_error(job.graph)
        score = float(np.clip(1 - error + SEED_NOISE * self._noise.normal(), 0, 1))
        return ended(score)


def run(name: str, trainings: int, seed: int) -> dict[str, Any]:
    """One search; its row."""
    began = time.process_time()
    pool, starts = MadeUp(seed), rules().space.starts(rules().problem)
    every = searched(rules(), pool, name, trainings, seed, starts)
    seconds = time.process_time() - began
    records = [record for record in every if record.status == "trained"]
    networks = [rules().space.parse(record.architecture).lower() for record in records]
    costs = [summarise(graph, price(graph, rules().profile).cost) for graph in networks]
    row: dict[str, Any] = {"sampler": name, "seed": seed} | dict.fromkeys(FIGURES, "")
    for size in (size for size in SIZES if size <= len(records)):
        seen = [(costs[i], records[i].val_score or 0.0) for i in range(size)]
        true = [(costs[i], 1 - pool.errors[networks[i].hash]) for i in nondominated(rules(), seen)]
        for measure, entries in (("seen", seen), ("true", true)):
            row[f"{measure}_{size}"] = round(front_hypervolume(rules(), entries), 5)
    return row | {"seconds": round(seconds, 1)}


def main() -> None:
    """Makes the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", default="exact,nsga2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trainings", type=int, default=SIZES[-1])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=TABLE.with_name("long_search.csv"))
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("sampler", "seed"))
    for name in chosen.samplers.split(","):
        wanted = [seed for seed in range(chosen.seeds) if not rows.has(name, seed)]
        rows.fill(partial(run, name, chosen.trainings), wanted, chosen.workers)
    for row in rows:
        print(*(f"{column} {row[column]}" for column in COLUMNS))


if __name__ == "__main__":
    main()
