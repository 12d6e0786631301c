"""Random architectures, linked and run: are outputs equal, and were RAM, Flash and cycles foretold?

    python benchmarks/linked.py [--architectures 300] [--family conv] [--json FILE] [--csv FILE]

Each architecture is drawn from a search space for one of the evaluation data sets, or, as `causal`,
is one of the tests' random networks of causal convolutions. It gets random numbers, and is compiled
for the emulated Cortex-M4 and, with address and undefined-behaviour sanitizers, for this machine;
16 inputs each. None of them was used for calibration, whose programs are single operators. The .csv
is for one family; it keeps a row each, and a stopped benchmark goes on from it.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cost import PROBLEMS
from rows import Rows

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from sequence_graphs import random_sequence

from nas.deploy.c_bundle import c_bundle
from nas.deploy.toolchain import cache_folder, compile_host, find_compiler, find_host_compiler
from nas.errors import BuildError, MachineFault
from nas.export.bundle import write_c
from nas.export.emulate import PREFIX, UNNAMED, Bench, run_bundle
from nas.hardware.budget import Budget, Priced, price
from nas.hardware.profile import Profile, load_profile
from nas.network import reference
from nas.network.random_model import random_inputs, with_random_numbers
from nas.space import RandomTrial
from search_spaces import SPACES

INPUTS = 16
DEVICES = ("cortex-m4-64k", "cortex-m4-32k", "nrf52832-qfaa", "stm32g431kb")
COLUMNS = ("seed", "problem", "device", "operators", "macs", "outputs", "differing")
COLUMNS = (*COLUMNS, "host_differing", "predicted_ram_bytes", "measured_ram_bytes")
COLUMNS = (*COLUMNS, "predicted_flash_bytes", "measured_flash_bytes", "predicted_cycles")
COLUMNS = (*COLUMNS, "modelled_cycles", "failure")
FAMILIES = (*SPACES, "causal")


def drawn(seed: int, family: str) -> tuple[str, Profile, Priced]:
    """A random architecture that is predicted to fit its device."""
    rng = random.Random(seed)
    name, device = rng.choice(list(PROBLEMS)), load_profile(rng.choice(DEVICES))
    budget = Budget(device.ram_budget_bytes, device.flash_budget_bytes, None, None)
    while True:
        if family in SPACES:
            graph = SPACES[family].sample(RandomTrial(rng), PROBLEMS[name]).lower()
        else:
            name, graph = family, random_sequence(rng, "causal")
        priced = price(graph, device)
        if not budget.refusal(priced.cost):
            return name, device, priced


def row(seed: int, family: str, place: Path) -> dict[str, Any]:
    """Draws, links, runs and compares one architecture, in a folder inside `place`."""
    problem, device, priced = drawn(seed, family)
    program, cost = priced.program, priced.cost
    rng = np.random.default_rng(seed)
    model = with_random_numbers(program.graph, rng, odd_zeros=False)
    inputs = random_inputs(program.graph, INPUTS, rng)
    expected = reference.run(model, inputs)
    values: dict[str, Any] = {
        "seed": seed,
        "problem": problem,
        "device": device.name,
        "operators": len(program.ops),
        "macs": sum(map(program.graph.macs, program.ops)),
        "outputs": expected.size,
        "predicted_ram_bytes": cost.ram_bytes,
        "predicted_flash_bytes": cost.flash_bytes,
        "predicted_cycles": round(cost.cycles),
        "failure": "",
    }
    bench = Bench(device, find_compiler(), cache_folder())
    folder = place / str(os.getpid())  # at one path, zig compiles a kernel only once
    write_c(folder, c_bundle(model, program, inputs, UNNAMED, PREFIX, vectors=INPUTS))
    values["host_differing"] = on_this_machine(folder)
    try:
        got = run_bundle(folder, program, inputs, bench)
    except (BuildError, MachineFault) as error:
        return values | {"failure": str(error)}
    total = got.measurement.total
    return values | {
        "differing": int((got.outputs != expected).sum()),
        "measured_ram_bytes": got.ram_bytes,
        "measured_flash_bytes": got.image.flash_bytes,
        "modelled_cycles": total.cycles_at(device.flash_wait_states),
    }


def on_this_machine(folder: Path) -> int:
    """Inputs that the sanitised program of the bundle does not answer as recorded: 0, or 1."""
    kernels = folder / "kernels"
    sources = [folder / "main.c", folder / f"{PREFIX}.c", *sorted(kernels.glob("*.c"))]
    compile_host(
        find_host_compiler(),
        sources,
        folder / "check",
        cache=cache_folder(),
        include=[folder],
        sanitize=True,
        options=["-O1"],
    )
    done = subprocess.run([folder / "check"], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{folder}: {done.stderr[:300]}")
    return int(done.returncode != 0)


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What the rows show in all."""
    linked = [row for row in rows if not row["failure"]]
    ram = np.array(
        [[float(r[f"{k}_ram_bytes"]) for k in ("predicted", "measured")] for r in linked]
    )
    flash = np.array(
        [[float(r[f"{k}_flash_bytes"]) for k in ("predicted", "measured")] for r in linked]
    )
    cycles = np.array([[float(r["predicted_cycles"]), float(r["modelled_cycles"])] for r in linked])
    error = np.abs(cycles[:, 0] / cycles[:, 1] - 1)
    flash_over = flash[:, 1] - flash[:, 0]
    over, off = ram[:, 0] - ram[:, 1], np.abs(flash[:, 0] - flash[:, 1])
    return {
        "architectures": len(rows),
        "failures": len(rows) - len(linked),
        "outputs": sum(int(row["outputs"]) for row in linked),
        "differing": sum(int(row["differing"]) for row in linked),
        "host_differing": sum(int(row["host_differing"]) for row in rows),
        "ram_below_measured": int((over < 0).sum()),
        "ram_beyond_128_bytes_and_2_percent": int((over > np.maximum(128, 0.02 * ram[:, 1])).sum()),
        "ram_over_worst_bytes": float(over.max()),
        "flash_beyond_256_bytes_and_1_percent": int(
            (off > np.maximum(256, 0.01 * flash[:, 1])).sum()
        ),
        "flash_off_worst_bytes": float(off.max()),
        # Such a one would not link on a device with just the Flash that was predicted.
        "flash_below_measured": int((flash_over > 0).sum()),
        "flash_below_measured_worst_bytes": float(max(0.0, flash_over.max())),
        "cycles_bias_mean": round(float((cycles[:, 0] / cycles[:, 1] - 1).mean()), 4),
        "cycles_error_mean": round(float(error.mean()), 4),
        "cycles_error_p95": round(float(np.quantile(error, 0.95)), 4),
        "cycles_error_worst": round(float(error.max()), 4),
    }


def main() -> None:
    """Fills the table and prints what it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", type=int, default=300)
    parser.add_argument("--family", choices=FAMILIES, default="conv")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=Path("linked.csv"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("seed",))
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.architectures)
    wanted = [seed for seed in seeds if not rows.has(seed)]
    with tempfile.TemporaryDirectory(prefix="nas-") as scratch:
        one = partial(row, family=chosen.family, place=Path(scratch))
        rows.fill(one, wanted, chosen.workers)
    found = summary([r for r in rows if int(r["seed"]) in seeds])
    for name, value in found.items():
        print(f"{name:40} {value:>12,}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
