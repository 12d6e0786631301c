"""A search space of which every network that fits was trained, so that samplers race in minutes.

    python benchmarks/sampler_table.py DATA_DIR [--seeds 0,1] [--workers 2]

The space is a part of `conv` for rfid_accel_rssi: nine genes, some of which set several of that
space's genes at once, and a budget for two networks in five. Each of these is trained as a search
trains it, with its teacher and recipe, once a seed; the table holds the validation scores of the
integers. It grows row by row, so that the command can be stopped and given again. `samplers.py`
races on it.
"""

import argparse
import csv
import itertools
from collections.abc import Iterator
from concurrent.futures import as_completed
from functools import cache
from pathlib import Path

from cost import PROBLEMS
from optuna.distributions import CategoricalDistribution
from rows import Rows

from nas.data.task import load_task
from nas.hardware.budget import Budget, Priced, price
from nas.hardware.profile import load_profile
from nas.search.genes import choices_of
from nas.search.rules import OBJECTIVES, Rules, training_seed
from nas.space import (
    Architecture,
    FixedTrial,
    Genes,
    Problem,
    Space,
    Trial,
    architecture_id,
)
from nas.training.teaching import teacher_of
from nas.training.validation import judging
from nas.training.workers import DataSource, Training, bench, pool, train
from search_spaces import SPACES
from search_spaces.branches import BITS
from search_spaces.convolutional import KERNELS, WIDTHS
from search_spaces.multimodal import HIDDEN

DATA = "rfid_accel_rssi"
DEVICE = "cortex-m4-32k"
BUDGET = Budget(ram_bytes=1536, flash_bytes=12_288, latency_ms=1.0, weight_bytes=None)
TABLE = Path(__file__).parent / "results" / "sampler_table.csv"
COLUMNS = ("id", "seed", "val_score", "train_s")

SIZES = (4, 8, 16)  # channels of a stem
ACCEL_BITS, RSSI_BITS = (2, 8), (2, 4, 8)
DEPTHS = (2, 4)  # of the rssi branch; that of accel has three layers
FEW_KERNELS = (3, 5)
READOUTS = ("mean", "grid")
UNITS = (0, 16)  # of the head's hidden layer


def sample(trial: Trial, problem: Problem) -> Architecture:
    """A network of `conv`: its first start, with these genes changed."""
    genes: dict[str, int | str] = dict(SPACES["conv"].starts(problem)[0])
    accel = trial.suggest_int("accel", 0, len(SIZES))  # 0 leaves the sensor out
    genes["accel.on"] = min(accel, 1)
    genes["accel.width"] = WIDTHS.index(SIZES[max(accel - 1, 0)])
    genes["accel.depth"] = 3
    genes["rssi.width"] = WIDTHS.index(SIZES[trial.suggest_int("rssi.width", 0, 2)])
    genes["rssi.depth"] = DEPTHS[trial.suggest_int("rssi.depth", 0, 1)]
    kernel = KERNELS.index(FEW_KERNELS[trial.suggest_int("kernel", 0, 1)])
    decimation = trial.suggest_int("decimation", 0, 1)
    readout = trial.suggest_categorical("readout", READOUTS)
    for sensor, widths in (("accel", ACCEL_BITS), ("rssi", RSSI_BITS)):
        bits = widths[trial.suggest_int(f"{sensor}.bits", 0, len(widths) - 1)]
        genes |= {f"{sensor}.bits.{i}": BITS.index(bits) for i in range(1, 4)}
        genes[f"{sensor}.kernel"] = kernel
        genes[f"{sensor}.decimation"] = decimation
        genes[f"{sensor}.readout"] = readout
    genes["head.hidden"] = HIDDEN.index(UNITS[trial.suggest_int("head.hidden", 0, 1)])
    return SPACES["conv"].sample(FixedTrial(genes), problem)


SPACE = Space("table", "a part of conv that was trained whole", sample, SPACES["conv"].parse)


def rules() -> Rules:
    """Those of a search in this space."""
    assert BUDGET.latency_ms is not None
    return Rules(
        SPACE, PROBLEMS[DATA], load_profile(DEVICE), BUDGET, OBJECTIVES, "accuracy", None, 0,
        BUDGET.latency_ms,
    )  # fmt: skip


def every_genes() -> Iterator[Genes]:
    """All points of the space."""
    choices = choices_of(SPACE, PROBLEMS[DATA])
    every = [
        held.choices
        if isinstance(held, CategoricalDistribution)
        else range(held.low, held.high + 1)
        for held in choices.values()
    ]
    for values in itertools.product(*every):
        yield dict(zip(choices, values, strict=True))


@cache
def fitting() -> dict[str, Priced]:
    """id -> every network within the budget."""
    held, profile = {}, load_profile(DEVICE)
    for genes in every_genes():
        architecture = sample(FixedTrial(genes), PROBLEMS[DATA])
        priced = price(architecture.lower(), profile)
        if not BUDGET.refusal(priced.cost):
            held[architecture_id(architecture)] = priced
    return held


def read_table(file: Path = TABLE) -> dict[str, list[float]]:
    """id -> validation scores, one a seed.

    Raises:
        SystemExit: a network that fits was not trained twice.
    """
    scores: dict[str, list[float]] = {}
    with file.open(newline="") as rows:
        for row in csv.DictReader(rows):
            scores.setdefault(row["id"], []).append(float(row["val_score"]))
    missing = fitting().keys() - {i for i, held in scores.items() if len(held) > 1}
    if missing:
        raise SystemExit(f"{file}: {len(missing)} networks lack two trainings; make them first")
    return scores


def main() -> None:
    """Trains what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=TABLE)
    chosen = parser.parse_args()
    path = chosen.folder / f"{DATA}.npz"
    task = load_task(str(path))
    source = DataSource(None, str(path), task.names, task.data_hash)
    judged, table = judging(task, "split"), Rows(chosen.csv, COLUMNS, ("id", "seed"))
    networks = fitting()
    wanted = [(i, int(seed)) for seed in chosen.seeds.split(",") for i in sorted(networks)]
    with pool(chosen.workers, source, bench(judged.kind)) as trainers:
        teacher = teacher_of(task, judged, "accuracy", "conv", trainers, lambda done, of: None)
        futures = {}
        for identity, seed in wanted:
            if not table.has(identity, seed):
                start = training_seed(seed, identity, 0)
                graph = networks[identity].graph
                job = Training(graph, "accuracy", teacher.file, False, start)
                futures[trainers.submit(train, job)] = (identity, seed)
        for done, future in enumerate(as_completed(futures), 1):
            (identity, seed), found = futures[future], future.result()
            row = (identity, seed, round(found.val_score, 6), round(found.train_s, 2))
            table.add(dict(zip(COLUMNS, row, strict=True)))
            print(f"{done} of {len(futures)}", end="\r", flush=True)


if __name__ == "__main__":
    main()
