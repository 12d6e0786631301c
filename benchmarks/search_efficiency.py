"""How much sooner is the search where a plain one ends? Time to its final hypervolume.

    python benchmarks/search_efficiency.py DATA_DIR --data rfid_accel_rssi --seeds 0,1,2,3,4 \
        --plain-minutes 60 --minutes 30 --jsonl benchmarks/results/search_efficiency.jsonl \
        --runs DIR [--json FILE] [--sampler exact] [--workers 2]

One after the other on the same machine: `plain_search.py`, which is one process, as many races
at once as `--workers` says, and `run_search.py` with so many workers, race by race. As processes
side by side slow each other down a little, the plain ones get a tenth more time than is counted.
The teacher is made before, once a data set, and counts for neither. Hypervolume is that of all
networks trained so far, by the scores that the searches saw (error, RAM, Flash, latency as shares
of their limits, reference 1). A `time_ratio` is the time at which our search has reached the plain
one's final hypervolume, over the plain one's time; where it has not, there is none and the ratio of
the median counts as above 1. Resumable: a line a data set and seed.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from real_data import commit
from rows import METRICS

from nas.hardware.budget import DEFAULT_LATENCY_LIMIT_MS, Budget
from nas.hardware.profile import load_profile
from nas.run_folder import CostSummary, read_cost, read_json
from nas.search.rules import OBJECTIVES, Rules, front_hypervolume
from nas.space import Problem
from search_spaces import SPACES

HERE = Path(__file__).resolve().parent
MORE_TIME = 1.1  # for plain searches, which run side by side


@dataclass(frozen=True)
class Race:
    """One data set and seed."""

    data: Path
    seed: int
    runs: Path
    device: str
    sampler: str
    workers: int
    minutes: float
    plain_minutes: float

    @property
    def cache(self) -> Path:
        """Where the teacher of this data set lies."""
        return self.runs / f"{self.data.stem}-cache"

    @property
    def plain(self) -> Path:
        """What the plain search writes."""
        return self._place(f"plain-{self.plain_minutes:g}min").with_suffix(".jsonl")

    @property
    def ours(self) -> Path:
        """Our run folder."""
        return self._place(f"{self.sampler}-{self.minutes:g}min")

    def _place(self, name: str) -> Path:
        return self.runs / f"{self.data.stem}-{self.device}-{name}-{self.seed}"

    @property
    def environment(self) -> dict[str, str]:
        """For the programs that are raced."""
        paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
        return os.environ | {"NAS_CACHE_DIR": str(self.cache), "PYTHONPATH": os.pathsep.join(paths)}


Curve = list[tuple[float, CostSummary, float]]  # seconds, cost, validation score of a network


def search(race: Race, run: Path, length: Sequence[str]) -> tuple[Curve, int]:
    """Our search of some length (options): what it trained, and when; how many it left halfway.

    One that was stopped is begun anew: the time from its last training to its end is not known.
    """
    command = [sys.executable, str(HERE.parent / "run_search.py"), "--data", str(race.data)]
    command += ["--device", race.device, *length, "--seed", str(race.seed)]
    command += ["--metric", METRICS.get(race.data.stem, "accuracy"), "--validation", "split"]
    command += ["--sampler", race.sampler, "--workers", str(race.workers), "--out", str(run)]
    command += ["--no-verify", "--quiet"]
    if not (run / "front.csv").exists():
        shutil.rmtree(run, ignore_errors=True)
        subprocess.run(command, check=True, env=race.environment)
    with (run / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    curve = [
        (float(row["finished_s"]), read_cost(row), float(row["val_score"]))
        for row in rows
        if row["status"] == "trained"
    ]
    return curve, sum(row["status"] == "stopped" for row in rows)


def lessons_of(race: Race) -> Path:
    """The teacher's file: of a run that makes it and is no racer; both read it in the cache."""
    first = race.runs / f"{race.data.stem}-teacher"
    search(replace(race, seed=0), first, ["--trials", "1"])
    identity = read_json(first / "run.json")["teacher"]["hash"]
    return race.cache / "teachers" / f"{identity}.npz"


def run_plain(races: Sequence[Race]) -> None:
    """The plain searches that are missing, side by side."""
    missing = [race for race in races if not race.plain.with_suffix(".done").exists()]
    lessons = [lessons_of(race) for race in missing]  # all of them before the first one starts
    started = []
    for race, file in zip(missing, lessons, strict=True):
        race.plain.unlink(missing_ok=True)  # a plain search cannot be resumed
        command = [sys.executable, str(HERE / "plain_search.py"), str(race.data)]
        command += ["--lessons", str(file), "--device", race.device, "--seed", str(race.seed)]
        command += ["--minutes", str(MORE_TIME * race.plain_minutes)]
        command += ["--jsonl", str(race.plain)]
        started.append((race, subprocess.Popen(command, env=race.environment)))
    for race, process in started:
        if process.wait():
            raise SystemExit(f"{race.plain}: the plain search failed")
        race.plain.with_suffix(".done").touch()


def plain(race: Race) -> tuple[Curve, int]:
    """What a plain search trained, and when; how many of these networks are different."""
    rows = [json.loads(line) for line in race.plain.read_text().splitlines()]
    curve = [(row["finished_s"], CostSummary(**row["cost"]), row["val_score"]) for row in rows]
    return curve, len({row["id"] for row in rows})


def rules_of(device: str) -> Rules:
    """What a hypervolume needs."""
    profile = load_profile(device)
    budget = Budget(profile.ram_budget_bytes, profile.flash_budget_bytes, None, None)
    problem = Problem((), 2)
    return Rules(
        SPACES["conv"], problem, profile, budget, OBJECTIVES, "accuracy", None, 0,
        DEFAULT_LATENCY_LIMIT_MS,
    )  # fmt: skip


def growth(rules: Rules, curve: Curve) -> Iterator[tuple[float, float]]:
    """(seconds, hypervolume so far) after each network."""
    entries: list[tuple[CostSummary, float]] = []
    for seconds, cost, score in sorted(curve, key=lambda network: network[0]):
        entries.append((cost, score))
        yield seconds, front_hypervolume(rules, entries)


def row_of(race: Race) -> dict[str, Any]:
    """One race; the plain search has been run."""
    theirs, different = plain(race)
    curve, stopped = search(race, race.ours, ["--minutes", str(race.minutes)])
    rules = rules_of(race.device)
    *_, (_, goal) = growth(rules, theirs)
    steps = list(growth(rules, curve))
    reached = next((seconds for seconds, volume in steps if volume >= goal), None)
    return {
        "dataset": race.data.stem,
        "seed": race.seed,
        "device": race.device,
        "sampler": race.sampler,
        "workers": race.workers,
        "plain_minutes": race.plain_minutes,
        "plain_trained": len(theirs),
        "plain_different": different,
        "plain_hypervolume": goal,
        "trained": len(curve),
        "stopped": stopped,
        "search_s": steps[-1][0],
        "hypervolume": steps[-1][1],
        "reached_s": reached,
        "time_ratio": None if reached is None else reached / (60 * race.plain_minutes),
        "commit": commit(),
        "minutes": read_json(race.ours / "run.json")["elapsed_s"] / 60,
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds, a data set each."""
    found = []
    for name in dict.fromkeys(row["dataset"] for row in rows):
        mine = [row for row in rows if row["dataset"] == name]
        ratios = [float("inf") if row["time_ratio"] is None else row["time_ratio"] for row in mine]
        volumes = [row["hypervolume"] / row["plain_hypervolume"] for row in mine]
        middle = median(ratios)
        found.append(
            {
                "dataset": name,
                "seeds": len(mine),
                "time_ratio_median": None if middle == float("inf") else middle,
                "hypervolume_ratio": median(volumes),
            }
        )
    return found


def main() -> None:
    """Makes the races that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="rfid_accel_rssi,uci_har")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--device", default="cortex-m4-32k")
    parser.add_argument("--sampler", default="exact")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plain-minutes", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--jsonl", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    chosen.runs.mkdir(parents=True, exist_ok=True)
    lines = chosen.jsonl.read_text().splitlines() if chosen.jsonl.exists() else []
    rows = [json.loads(line) for line in lines]
    keys = ("dataset", "seed", "device", "sampler", "plain_minutes")
    known = {tuple(row[key] for key in keys) for row in rows}
    missing = [
        Race(
            chosen.folder / f"{name}.npz", seed, chosen.runs, chosen.device, chosen.sampler,
            chosen.workers, chosen.minutes, chosen.plain_minutes,
        )
        for seed in map(int, chosen.seeds.split(","))
        for name in chosen.data.split(",")
        if (name, seed, chosen.device, chosen.sampler, chosen.plain_minutes) not in known
    ]  # fmt: skip
    for start in range(0, len(missing), chosen.workers):
        races = missing[start : start + chosen.workers]
        run_plain(races)
        for race in races:
            rows.append(row_of(race))
            with chosen.jsonl.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
    like = (chosen.device, chosen.sampler, chosen.plain_minutes)
    found = summary([row for row in rows if tuple(row[key] for key in keys[2:]) == like])
    print(json.dumps(found, indent=2))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
