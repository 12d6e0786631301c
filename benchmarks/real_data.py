"""Searches every data file of a folder and keeps one row a run: the candidate best on validation.

    python benchmarks/real_data.py DATA_DIR --minutes 20 --seeds 0,1,2 --device cortex-m4-64k \
        --csv benchmarks/results/real_data.csv [--workers 2] [--check CHECK_RUN.py]
        [--only NAME,...] [--runs DIR]

Resumable: a row that is in the CSV is not made again, and a run that was stopped goes on where it
was. `--check` names a program that looks at a finished run from outside; it is called as
`CHECK_RUN.py RUN --data FILE --ram-bytes N` and must find nothing.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from rows import METRICS, Rows

from nas.hardware.profile import load_profile
from nas.run_folder import read_front

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("data", "seed", "minutes", "id", "val_score", "test_score", "weight_bytes", "ram_bytes")
COLUMNS = (*COLUMNS, "commit", "device", "metric", "workers", "candidates", "findings")


def commit() -> str:
    """The commit that is measured."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def search(data: Path, run: Path, seed: int, chosen: argparse.Namespace) -> None:
    """One search; goes on with `run` if it was begun."""
    command = [sys.executable, str(ROOT / "run_search.py"), "--data", str(data)]
    command += ["--device", chosen.device, "--minutes", str(chosen.minutes), "--seed", str(seed)]
    command += ["--workers", str(chosen.workers)]
    command += ["--metric", METRICS.get(data.stem, "accuracy"), "--out", str(run)]
    command += ["--resume"] if (run / "run.json").exists() else []
    cache = run.with_name(f"{run.name}-cache")  # its own: the teacher is part of its minutes
    subprocess.run(command, check=True, env=os.environ | {"NAS_CACHE_DIR": str(cache)})


def findings(check: Path | None, run: Path, data: Path, device: str) -> str:
    """What the outside check says: its last line, or "not checked"."""
    if check is None:
        return "not checked"
    ram = str(load_profile(device).ram_bytes)
    command = [sys.executable, str(check), str(run), "--data", str(data), "--ram-bytes", ram]
    seen = subprocess.run(command, capture_output=True, text=True)
    print(seen.stdout + seen.stderr)
    return (seen.stdout.strip().splitlines() or ["the check failed"])[-1]


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description="Searches every data file of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cortex-m4-64k")
    parser.add_argument("--only", default="")
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=ROOT / "results" / "real_data")
    parser.add_argument("--check", type=Path)
    chosen = parser.parse_args()
    only = {name for name in chosen.only.split(",") if name}
    rows = Rows(chosen.csv, COLUMNS, ("data", "seed", "minutes", "device"))
    for seed in chosen.seeds.split(","):
        for data in sorted(chosen.folder.glob("*.npz")):
            known = rows.has(data.stem, seed, chosen.minutes, chosen.device)
            if known or (only and data.stem not in only):
                continue
            run = chosen.runs / f"{data.stem}-{chosen.device}-{chosen.minutes:g}-{seed}"
            if not (run / "front.csv").exists():
                search(data, run, int(seed), chosen)
            front = read_front(run)
            best = max(front, key=lambda row: float(row["val_score"]))
            row = {name: best.get(name, "") for name in COLUMNS}
            row |= {"data": data.stem, "seed": seed, "minutes": chosen.minutes}
            row |= {"commit": commit(), "device": chosen.device}
            row |= {"workers": chosen.workers, "candidates": len(front)}
            row |= {"findings": findings(chosen.check, run, data, chosen.device)}
            rows.add(row)


if __name__ == "__main__":
    main()
