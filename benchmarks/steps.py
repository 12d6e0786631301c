"""Step by step against whole windows: are outputs equal, and were RAM, Flash and cycles foretold?

    python benchmarks/steps.py [--networks 40] [--sequences 25] [--json FILE] [--csv FILE]

Each network is drawn from the space `mamba`, or `all` where the drawn one happens to be causal, for
one of the evaluation data sets, gets random numbers, is compiled for the emulated Cortex-M4 in its
stepwise form and fed random sequences reading by reading; the reference answers to the windows.
The .csv keeps a row each, and a stopped benchmark goes on from it.
"""

import argparse
import json
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cost import PROBLEMS
from rows import Rows

from nas.deploy.toolchain import cache_folder, find_compiler
from nas.errors import BuildError, MachineFault
from nas.export.bundle import step_bundle, write_c
from nas.export.emulate import UNNAMED, Bench
from nas.export.emulate_steps import emulate_steps
from nas.hardware.budget import price
from nas.hardware.profile import Profile, load_profile
from nas.hardware.stepwise import Stepwise, stepwise
from nas.network.graph import Graph
from nas.network.random_model import random_inputs, with_random_numbers
from nas.space import RandomTrial
from search_spaces import SPACES

DEVICES = ("cortex-m4-64k", "cortex-m4-32k", "nrf52832-qfaa", "stm32g431kb")
VALUES = ("ram_bytes", "flash_bytes", "step_cycles", "last_step_cycles")
COLUMNS: tuple[str, ...] = (
    "seed",
    "space",
    "problem",
    "device",
    "operators",
    "step_readings",
    "window_steps",
)
COLUMNS = (*COLUMNS, "sequences", "outputs", "differing", "window_ram_bytes", "window_cycles")
COLUMNS = (*COLUMNS, *(f"{kind}_{name}" for name in VALUES for kind in ("predicted", "measured")))
COLUMNS = (*COLUMNS, "failure")


def drawn(seed: int) -> tuple[str, str, Profile, Graph, Stepwise]:
    """A random network that runs step by step and is predicted to fit its device."""
    rng = random.Random(seed)
    space = rng.choice(("mamba", "all"))
    while True:
        problem, device = rng.choice(list(PROBLEMS)), load_profile(rng.choice(DEVICES))
        graph = SPACES[space].sample(RandomTrial(rng), PROBLEMS[problem]).lower()
        held = stepwise(graph, device)
        if held is None or held.made.frames < 2:
            continue
        fits = held.ram_bytes <= device.ram_budget_bytes
        if fits and held.flash_bytes <= device.flash_budget_bytes:
            return space, problem, device, graph, held


def row(seed: int, sequences: int) -> dict[str, Any]:
    """Draws, links, feeds and compares one network."""
    space, problem, device, graph, held = drawn(seed)
    rng = np.random.default_rng(seed)
    model = with_random_numbers(graph, rng, odd_zeros=False)
    inputs, whole = random_inputs(graph, sequences, rng), price(graph, device).cost
    values: dict[str, Any] = {
        "seed": seed,
        "space": space,
        "problem": problem,
        "device": device.name,
        "operators": len(held.program.ops),
        "step_readings": held.made.frame_steps,
        "window_steps": held.made.frames,
        "sequences": sequences,
        "window_ram_bytes": whole.ram_bytes,
        "window_cycles": round(whole.cycles),
        **{f"predicted_{name}": round(getattr(held, name)) for name in VALUES},
        "failure": "",
    }
    bench = Bench(device, find_compiler(), cache_folder())
    with tempfile.TemporaryDirectory() as scratch:
        write_c(Path(scratch), step_bundle(model, held, inputs, UNNAMED))
        try:
            seen = emulate_steps("random", model, held, Path(scratch), inputs, bench)
        except (BuildError, MachineFault) as error:
            return values | {"failure": str(error)}
    return values | {
        "outputs": seen.outputs_compared,
        "differing": seen.outputs_differing,
        "measured_ram_bytes": seen.measured_ram_bytes,
        "measured_flash_bytes": seen.measured_flash_bytes,
        "measured_step_cycles": seen.step_cycles,
        "measured_last_step_cycles": seen.last_step_cycles,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows show in all."""
    linked = [row for row in rows if not row["failure"]]

    def column(name: str) -> Any:
        return np.array([float(row[name]) for row in linked])

    found: dict[str, Any] = {
        "networks": len(rows),
        "failures": len(rows) - len(linked),
        "sequences": int(column("sequences").sum()),
        "outputs": int(column("outputs").sum()),
        "differing": int(column("differing").sum()),
        "ram_bytes_median": float(np.median(column("measured_ram_bytes"))),
        "ram_bytes_most": float(column("measured_ram_bytes").max()),
        "ram_share_of_windows_median": _rounded(
            np.median(column("measured_ram_bytes") / column("window_ram_bytes"))
        ),
        "cycles_of_all_steps_to_windows_median": _rounded(
            np.median(
                (
                    column("measured_step_cycles") * (column("window_steps") - 1)
                    + column("measured_last_step_cycles")
                )
                / column("window_cycles")
            )
        ),
    }
    for name in VALUES:
        apart = column(f"predicted_{name}") - column(f"measured_{name}")
        found[f"{name}_below_measured"] = int((apart < 0).sum())
        share = np.abs(apart) / column(f"measured_{name}")
        found[f"{name}_error_mean"] = _rounded(share.mean())
        found[f"{name}_error_p95"] = _rounded(np.quantile(share, 0.95))
    return found


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def main() -> None:
    """Fills the table and prints what it shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--sequences", type=int, default=25)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--csv", type=Path, default=Path("steps.csv"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("seed",))
    wanted = [seed for seed in range(chosen.networks) if not rows.has(seed)]
    rows.fill(partial(row, sequences=chosen.sequences), wanted, chosen.workers)
    found = summary(list(rows))
    for name, value in found.items():
        print(f"{name:44} {value:>12,}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
