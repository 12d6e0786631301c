"""Modelled cycles of single kernels per multiply-accumulate, beside those of CMSIS-NN.

    python benchmarks/kernels.py [--json FILE]

Each layer is a model of one operator with random weights, compiled as every candidate is and run on
the emulated Cortex-M4, outputs compared with the reference. Cycles are those of the whole call at 0
wait states: driver, gathering, TensorFlow Lite's double rounding with its own multiplier and shift
for each channel. CMSIS-NN (GCC 12.2, -O2) was run in an emulator by the same rules.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.calibration.measure import roomy
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.emulation.emulator import Measurement
from nas.export.emulate import Bench, run_model
from nas.hardware.memory import plan_memory
from nas.hardware.profile import load_profile
from nas.hardware.program import program_of
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.ops import WEIGHT_BITS, Conv2d, DepthwiseConv2d, Op, Shape
from nas.network.random_model import random_inputs, with_random_numbers

THREE, ONE = (3, 3), (1, 1)


def conv(kernel: tuple[int, int], channels: int, bits: int) -> Op:
    """A dense convolution of the benchmark."""
    return Conv2d("o", ("x",), channels, kernel, ONE, "same", bits, False)


def layer(name: str, bits: int) -> tuple[Shape, Op]:
    """Input shape and operator of a row."""
    if name == "conv3x3_16_32":
        return (16, 16, 16), conv(THREE, 32, bits)
    if name == "conv1x1_32_64":
        return (8, 8, 32), conv(ONE, 64, bits)
    if name == "fc_256_64":
        return (1, 1, 256), conv(ONE, 64, bits)
    if name == "conv3x3_3_16":
        return (16, 16, 3), conv(THREE, 16, bits)
    return (16, 16, 32), DepthwiseConv2d("o", ("x",), THREE, ONE, "same", bits, False)


# CMSIS-NN at 8 and 4 bits, and the goal at 8 bits.
ROWS = {
    "conv3x3_16_32": (2.65, 4.59, 1.3),
    "conv1x1_32_64": (3.32, 5.18, 1.5),
    "dw3x3_32": (9.60, 20.6, 2.3),
    "fc_256_64": (2.64, 5.95, 1.5),
    "conv3x3_3_16": (6.69, 8.35, 1.85),
}


def measured(shape: Shape, op: Op, bench: Bench) -> tuple[Graph, Measurement]:
    """One layer on the emulated chip.

    Raises:
        SystemExit: an output differs from the reference.
    """
    rng = np.random.default_rng(0)
    graph = Graph((Input("x", shape),), (op,), "o")
    model = with_random_numbers(graph, rng, odd_zeros=False)
    inputs = random_inputs(graph, 4, rng)
    got = run_model(model, program_of(graph, plan_memory(graph), 0), inputs, bench)
    if (got.outputs != reference.run(model, inputs)).any():
        raise SystemExit(f"{op}: outputs differ from the reference")
    return graph, got.measurement


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    profile = roomy(load_profile("cortex-m4-64k"))
    benches = {
        core: Bench(replace(profile, core=core), find_compiler(), cache_folder())
        for core in ("cortex-m4f", "cortex-m4")
    }
    results: dict[str, dict[str, dict[str, float]]] = {core: {} for core in benches}
    print(f"{'layer':16} bits  with FPU  without  goal  CMSIS-NN")
    for name, (cmsis_8, cmsis_4, goal) in ROWS.items():
        for bits in WEIGHT_BITS:
            shape, op = layer(name, bits)
            for core, bench in benches.items():
                graph, got = measured(shape, op, bench)
                share = got.total.cycles / graph.macs(op)
                results[core].setdefault(name, {})[str(bits)] = round(share, 3)
            cmsis = {8: f"{cmsis_8:.2f}", 4: f"{cmsis_4:.2f}"}.get(bits, "-")
            values = [results[core][name][str(bits)] for core in benches]
            goals = f"{goal:.2f}" if bits == 8 else ""
            print(f"{name:16} {bits:4}  {values[0]:8.3f}  {values[1]:7.3f}  {goals:>4}  {cmsis:>8}")
    if chosen.json:
        held = {**results["cortex-m4f"], "without_fpu": results["cortex-m4"]}
        chosen.json.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
