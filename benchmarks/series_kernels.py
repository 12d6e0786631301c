"""Modelled cycles of attention and selective scans, as their sizes grow.

    python benchmarks/series_kernels.py [--json FILE]

One program has all rows, with random numbers, on the emulated Cortex-M4 with FPU. Cycles are those
of the whole call at 0 wait states, and with misses of the Flash's caches at 5.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from nas.calibration.measure import measured, roomy
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.export.emulate import Bench
from nas.hardware.memory import plan_memory
from nas.hardware.profile import load_profile
from nas.network.graph import Graph, Input
from nas.network.ops import Attention, Op, SelectiveScan, Shape

WAIT_STATES = 5
ATTENTIONS = (
    (8, 8, 1),
    (16, 8, 2),
    (32, 24, 2),
    (64, 16, 1),
    (64, 16, 2),
    (64, 16, 4),
    (64, 48, 4),
)
SCANS = ((64, 16, 2), (64, 16, 3), (64, 16, 4), (64, 16, 8), (16, 16, 16), (1, 32, 8))


def every_row() -> tuple[Graph, dict[str, tuple[int, int]]]:
    """The program's graph; operator -> multiply-accumulates, scores or states."""
    inputs: list[Input] = []
    ops: list[Op] = []
    about: dict[str, tuple[int, int]] = {}

    def names(shapes: list[Shape]) -> tuple[str, ...]:
        made = tuple(f"x{len(inputs) + i}" for i in range(len(shapes)))
        inputs.extend(Input(name, shape) for name, shape in zip(made, shapes, strict=True))
        return made

    for steps, width, heads in ATTENTIONS:
        name = f"attention {steps} steps, {width} channels, {heads} heads"
        ops.append(Attention(name, names([(1, steps, width)] * 3), heads))
        about[name] = (2 * steps * steps * width, steps * steps * heads)
    for steps, channels, states in SCANS:
        name = f"scan {steps} steps, {channels} channels, {states} states"
        wide, narrow = (1, steps, channels), (1, steps, states)
        ops.append(SelectiveScan(name, names([wide, wide, narrow, narrow, wide]), False))
        about[name] = (3 * steps * channels * states, steps * channels * states)
    return Graph(tuple(inputs), tuple(ops), ops[-1].name), about


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    profile = replace(roomy(load_profile("cortex-m4-64k")), core="cortex-m4f")
    graph, about = every_row()
    linked = measured(graph, Bench(profile, find_compiler(), cache_folder()), 0)
    found = {}
    for name, sample in zip(plan_memory(graph).order, linked.samples, strict=True):
        macs, elements = about[name]
        stalled = sample.cycles + WAIT_STATES * (sample.data_misses + sample.code_misses)
        found[name] = {
            "cycles": sample.cycles,
            "per_mac": round(sample.cycles / macs, 2),
            "per_mac_5ws": round(stalled / macs, 2),
            "per_score_or_state": round(sample.cycles / elements, 1),
        }
    for name in about:
        print(f"{name:42} " + " ".join(f"{k} {v}" for k, v in found[name].items()))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
