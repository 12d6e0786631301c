"""Samplers against each other in whole searches: hypervolume at equal numbers of trained networks.

    python benchmarks/live_samplers.py DATA.npz --samplers exact,tpe --seeds 0,1,2 --trainings 60 \
        [--space all] [--device cortex-m4-64k] [--workers 2] --runs DIR \
        --csv benchmarks/results/live_samplers.csv

Everything is as in a run, its starts and its teacher included; only the final trainings are left
out, and no training is left halfway. Hypervolume is that of what was trained so far, by the scores
that the search saw. Resumable: a row a seed, and within a seed what was trained is kept.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from real_data import commit
from rows import METRICS, Rows

from nas.data.task import load_task
from nas.hardware.budget import DEFAULT_LATENCY_LIMIT_MS, Budget
from nas.hardware.profile import load_profile
from nas.progress import Progress
from nas.search import early_stopping
from nas.search.clock import Clock
from nas.search.engine import Search
from nas.search.rules import OBJECTIVES, Rules, front_hypervolume, scored
from nas.search.samplers import sampler_of
from nas.search.study import default_storage, open_study
from nas.space import problem_of
from nas.training.teaching import teacher_of
from nas.training.validation import judging
from nas.training.workers import DataSource, bench, pool
from search_spaces import SPACES

SIZES = (10, 20, 40, 60, 100)
COLUMNS = ("dataset", "space", "device", "sampler", "seed", "trained")
COLUMNS = (*COLUMNS, *(f"hypervolume_{n}" for n in SIZES), *(f"best_{n}" for n in SIZES))
COLUMNS = (*COLUMNS, "train_s", "refused", "duplicates", "commit")


early_stopping.FEW_GAINS = sys.maxsize  # equal numbers of trainings, all of them whole


def search(chosen: argparse.Namespace, sampler: str, seed: int) -> dict[str, Any]:
    """One search; its row."""
    task = load_task(str(chosen.data))
    metric = METRICS.get(chosen.data.stem, "accuracy")
    source = DataSource(None, str(chosen.data), task.names, task.data_hash)
    judged, profile = judging(task, "split"), load_profile(chosen.device)
    budget = Budget(profile.ram_budget_bytes, profile.flash_budget_bytes, None, None)
    run: Path = chosen.runs / f"{chosen.data.stem}-{chosen.space}-{sampler}-{seed}"
    run.mkdir(parents=True, exist_ok=True)
    with pool(chosen.workers, source, bench(judged.kind)) as trainers:
        teacher = teacher_of(task, judged, metric, "conv", trainers, lambda done, of: None)
        rules = Rules(
            SPACES[chosen.space], problem_of(task), profile, budget, OBJECTIVES, metric,
            teacher.file, seed, DEFAULT_LATENCY_LIMIT_MS,
        )  # fmt: skip
        made = sampler_of(sampler, rules)
        began = (run / "study.db").exists()
        study = open_study(default_storage(run), OBJECTIVES, made, seed, began)
        study.begin_with(rules.space.starts(rules.problem))
        progress = Progress(quiet=False, run=run)
        Search(rules, study, trainers, run, Clock(None), progress).go(chosen.trainings)
    records = sorted(study.records, key=lambda record: record.number)
    trained = [record for record in records if record.status == "trained"][: chosen.trainings]
    row: dict[str, Any] = {"dataset": chosen.data.stem, "space": chosen.space, "seed": seed}
    row |= {"device": chosen.device, "sampler": sampler, "trained": len(trained)}
    for size in SIZES:
        some = scored(trained[:size]) if size <= len(trained) else []
        row[f"hypervolume_{size}"] = round(front_hypervolume(rules, some), 5) if some else ""
        row[f"best_{size}"] = max((score for _, score in some), default="")
    row["train_s"] = round(sum(record.train_s for record in trained), 1)
    for status, column in (("infeasible", "refused"), ("duplicate", "duplicates")):
        row[column] = sum(record.status == status for record in records)
    return row | {"commit": commit()}


def main() -> None:
    """Makes the searches that are missing, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--samplers", default="exact,tpe")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trainings", type=int, default=60)
    parser.add_argument("--space", default="all", choices=list(SPACES))
    parser.add_argument("--device", default="cortex-m4-64k")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    os.environ.setdefault("NAS_CACHE_DIR", str(chosen.runs / "cache"))
    rows = Rows(chosen.csv, COLUMNS, ("dataset", "space", "device", "sampler", "seed"))
    for seed in map(int, chosen.seeds.split(",")):
        for sampler in chosen.samplers.split(","):
            key = (chosen.data.stem, chosen.space, chosen.device, sampler, seed)
            if not rows.has(*key):
                rows.add(search(chosen, sampler, seed))
                print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
