"""Exported networks on series against the reference: `python benchmarks/runtimes.py [RUNTIME ...]`.

Random networks of each family of `tests/sequence_graphs.py`, with random numbers, 16 random inputs
each: one JSON row for each family and runtime (tflm, litert, onnx).
"""

import argparse
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sequence_graphs import FAMILIES, Family, random_sequence  # noqa: E402

from nas.export import runtimes  # noqa: E402
from nas.export.to_onnx_integer import to_onnx_integer  # noqa: E402
from nas.export.to_tflite import to_tflite  # noqa: E402
from nas.network import reference  # noqa: E402
from nas.network.integer import IntegerModel  # noqa: E402
from nas.network.numerics import Int8  # noqa: E402
from nas.network.random_model import random_inputs, with_random_numbers  # noqa: E402

INPUTS = 16
RUNS: dict[str, tuple[Callable[[IntegerModel], bytes], Callable[..., Int8], str]] = {
    "tflm": (to_tflite, runtimes.run_tflm, "tflm"),
    "litert": (to_tflite, runtimes.run_litert, "ai-edge-litert"),
    "onnx": (to_onnx_integer, runtimes.run_onnx, "onnx"),
}


def row(family: Family, runtime: str, seeds: range) -> dict[str, object]:
    """Outputs of the networks of `seeds` that differ from the reference in this runtime's mode."""
    write, run, mode = RUNS[runtime]
    outputs = differing = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model = with_random_numbers(random_sequence(random.Random(seed), family), rng)
        inputs = random_inputs(model.graph, INPUTS, rng)
        got = run(write(model), inputs)
        wanted = reference.run(model, inputs, runtimes.ROUNDING[mode]).reshape(got.shape)
        outputs += got.size
        differing += int((got != wanted).sum())
    counts = {"networks": len(seeds), "outputs": outputs, "differing": differing}
    return {"family": family, "runtime": runtime, "first_seed": seeds.start, **counts}


def main() -> None:
    """Reads the command line and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtimes", nargs="*", metavar="RUNTIME", help=", ".join(RUNS))
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=1000, help="first seed")
    options = parser.parse_args()
    if unknown := set(options.runtimes) - set(RUNS):  # argparse cannot check what may be left out
        parser.error(f"no such runtime: {', '.join(sorted(unknown))}")
    seeds = range(options.first, options.first + options.count)
    for runtime in options.runtimes or RUNS:
        for family in FAMILIES:
            print(json.dumps(row(family, runtime, seeds)), flush=True)


if __name__ == "__main__":
    main()
