"""Do layers as one operation, and packs, train as well as tensor operations?

    OPENBLAS_NUM_THREADS=1 python benchmarks/layer_accuracy.py rfid_accel_rssi.npz \
        [--draws 3:10,4:24] [--csv FILE]

Random networks of `conv` that may be packed, without a teacher, each trained with three seeds in
three ways: a layer by tensor operations, a layer as one operation, and the three seeds as one
network. Rows hold the validation scores of the integers.
"""

import argparse
import random
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from rows import Rows

from nas.data.task import load_task
from nas.network.graph import Graph
from nas.space import RandomTrial
from nas.training.evaluate import Bench, Wanted, prepare, recipe_of, train_pack
from nas.training.linear_layer import LinearLayer
from nas.training.packable import packable
from nas.training.validation import judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

SEEDS = range(3)
WAYS = ("operations", "layer", "pack")
COLUMNS = ("data", "draw", "number", *(f"{way}_{seed}" for way in WAYS for seed in SEEDS))


def scores(graph: Graph, bench: Bench) -> dict[str, float | None]:
    """`<way>_<seed>` -> validation score."""
    recipe = recipe_of(bench, "accuracy", False, final=False)
    wanted = [Wanted(graph, seed) for seed in SEEDS]

    def alone() -> list[float | None]:
        return [train_pack(bench, [w], recipe, "accuracy", None)[0].val_score for w in wanted]

    with patch.object(LinearLayer, "fuses", lambda *_: False):
        found = {"operations": alone()}
    found["layer"] = alone()
    packed = train_pack(bench, wanted, recipe, "accuracy", None)
    found["pack"] = [trained.val_score for trained in packed]
    return {f"{way}_{seed}": found[way][seed] for way in WAYS for seed in SEEDS}


def main() -> None:
    """Trains what is missing and prints the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--draws", default="3:10,4:24", help="seeds and counts of random networks")
    default = Path(__file__).parent / "results" / "layer_accuracy.csv"
    parser.add_argument("--csv", type=Path, default=default)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(str(chosen.data), None)
    bench = prepare(task, judging(task, "split"), BANK_SEED)
    rows = Rows(chosen.csv, COLUMNS, ("data", "draw", "number"))
    for draw, count in (map(int, pair.split(":")) for pair in chosen.draws.split(",")):
        rng, number = random.Random(draw), 0
        while number < count:
            graph = SPACES["conv"].sample(RandomTrial(rng), bench.problem).lower()
            if not packable(graph):
                continue
            key = {"data": chosen.data.stem, "draw": draw, "number": number}
            if not rows.has(*key.values()):
                rows.add(key | scores(graph, bench))
            number += 1
    means = {
        way: np.array([[float(row[f"{way}_{seed}"]) for seed in SEEDS] for row in rows]).mean(1)
        for way in WAYS
    }
    for way in WAYS:
        apart = means[way] - means["operations"]
        error = apart.std(ddof=1) / len(apart) ** 0.5
        print(f"{way:10s} {means[way].mean():.4f}  difference {apart.mean():+.4f} +- {error:.4f}")


if __name__ == "__main__":
    main()
