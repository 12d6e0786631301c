"""What 4 and 2 bits save in the linked program, and what they cost in cycles.

    python benchmarks/bits.py [--json FILE]

The MLPerf Tiny topologies with all weights at 8, 4 and 2 bits, linked and run on the emulated chip
at 0 wait states: bytes of weights and constants, of the whole program, and cycles.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from mlperf_tiny import NETWORKS

from nas.calibration.measure import roomy
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.export.emulate import Bench, run_model
from nas.hardware.memory import plan_memory
from nas.hardware.profile import load_profile
from nas.hardware.program import program_of
from nas.network import reference
from nas.network.graph import Graph
from nas.network.ops import WEIGHT_BITS, Conv2d, DepthwiseConv2d
from nas.network.random_model import random_inputs, with_random_numbers


def at_bits(graph: Graph, bits: int) -> Graph:
    """The same network with all weights at `bits`."""
    ops = [
        replace(op, weight_bits=bits) if isinstance(op, Conv2d | DepthwiseConv2d) else op
        for op in graph.ops
    ]
    return Graph(graph.inputs, tuple(ops), graph.output)


def measured(graph: Graph, bench: Bench) -> dict[str, int]:
    """Bytes and cycles of one network; SystemExit when an output differs."""
    rng = np.random.default_rng(0)
    model, inputs = with_random_numbers(graph, rng, odd_zeros=False), random_inputs(graph, 1, rng)
    program = program_of(graph, plan_memory(graph), 0)
    got = run_model(model, program, inputs, bench)
    if (got.outputs != reference.run(model, inputs)).any():
        raise SystemExit("outputs differ from the reference")
    return {
        "weight_bytes": sum(kernel.weight_bytes for kernel in program.kernels.values()),
        "flash_bytes": got.image.flash_bytes,
        "cycles": got.measurement.total.cycles,
    }


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    profile = replace(roomy(load_profile("cortex-m4-64k")), core="cortex-m4f")
    bench = Bench(profile, find_compiler(), cache_folder())
    results: dict[str, dict[str, dict[str, int]]] = {}
    print("net  bits  weights B  saved   Flash B  saved      cycles   paid")
    for name, graph in NETWORKS.items():
        rows = results[name] = {}
        for bits in WEIGHT_BITS:
            row = rows[str(bits)] = measured(at_bits(graph(), bits), bench)
            whole = rows["8"]
            saved = [whole[key] - row[key] for key in ("weight_bytes", "flash_bytes")]
            print(
                f"{name:4} {bits:4} {row['weight_bytes']:10,} {saved[0]:6,} {row['flash_bytes']:9,}"
                f" {saved[1]:6,} {row['cycles']:11,} {row['cycles'] / whole['cycles'] - 1:+6.1%}"
            )
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
