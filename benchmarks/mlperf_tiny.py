"""The four MLPerf Tiny topologies with random weights, on an emulated Cortex-M4 with slow Flash.

    python benchmarks/mlperf_tiny.py [--json FILE]

Cycles are modelled (core, unaligned words, data and instruction misses of the Flash's caches at 5
wait states); bytes are measured on the linked program. Beside them stand figures that others
published for an STM32L4R5 at 120 MHz, measured on silicon. `unpaired` is the bound if no load ever
overlapped the one before it: the model was validated on code with more cycles an instruction than
this, where paired loads matter less.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.calibration.measure import roomy
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.export.emulate import Bench, run_model
from nas.hardware.memory import plan_memory
from nas.hardware.profile import load_profile
from nas.hardware.program import program_of
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.ops import Add, Conv2d, DepthwiseConv2d, Op, Pair, Pool, Reshape
from nas.network.random_model import random_inputs, with_random_numbers

ONE: Pair = (1, 1)
TWO: Pair = (2, 2)


class Layers:
    """Appends operators one after another; `last` is the newest tensor."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.inputs = (Input("x", shape),)
        self.ops: list[Op] = []
        self.last = "x"

    def put(self, op: Op) -> str:
        """Appends `op`."""
        self.ops.append(op)
        self.last = op.name
        return op.name

    def conv(
        self,
        channels: int,
        kernel: Pair = ONE,
        stride: Pair = ONE,
        relu: bool = True,
        source: str | None = None,
    ) -> str:
        """A dense convolution at 8 bits."""
        name = f"conv{len(self.ops)}"
        read = (source or self.last,)
        return self.put(Conv2d(name, read, channels, kernel, stride, "same", 8, relu))

    def depthwise(self, stride: Pair = ONE) -> str:
        """A depthwise 3x3 at 8 bits."""
        name = f"depthwise{len(self.ops)}"
        return self.put(DepthwiseConv2d(name, (self.last,), (3, 3), stride, "same", 8, True))

    def average(self) -> str:
        """A global average pool."""
        height, width, _ = self.graph().shapes[self.last]
        window = (height, width)
        return self.put(Pool(f"pool{len(self.ops)}", (self.last,), "average", window, window))

    def graph(self) -> Graph:
        """What has been put so far."""
        return Graph(self.inputs, tuple(self.ops), self.last)

    def classes(self, count: int) -> Graph:
        """Ends in `count` logits."""
        self.conv(count, relu=False)
        self.put(Reshape("logits", (self.last,), (count,)))
        return self.graph()


def anomaly_detection() -> Graph:
    """An autoencoder of fully connected layers: 640, 4 x 128, 8, 4 x 128, 640."""
    layers = Layers((1, 1, 640))
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        layers.conv(units)
    return layers.classes(640)


def image_classification() -> Graph:
    """ResNet-8 on 32 x 32 x 3."""
    layers = Layers((32, 32, 3))
    before = layers.conv(16, (3, 3))
    for channels, stride in ((16, ONE), (32, TWO), (64, TWO)):
        layers.conv(channels, (3, 3), stride)
        after = layers.conv(channels, (3, 3), relu=False)
        if stride == TWO:
            before = layers.conv(channels, ONE, TWO, relu=False, source=before)
        before = layers.put(Add(f"add{len(layers.ops)}", (before, after), True))
    layers.average()
    return layers.classes(10)


def keyword_spotting() -> Graph:
    """DS-CNN on 49 x 10 mel coefficients."""
    layers = Layers((49, 10, 1))
    layers.conv(64, (10, 4), TWO)
    for _ in range(4):
        layers.depthwise()
        layers.conv(64)
    layers.average()
    return layers.classes(12)


def visual_wake_words() -> Graph:
    """MobileNet v1, a quarter as wide, on 96 x 96 x 3."""
    layers = Layers((96, 96, 3))
    layers.conv(8, (3, 3), TWO)
    widths = ((16, ONE), (32, TWO), (32, ONE), (64, TWO), (64, ONE), (128, TWO))
    for channels, stride in (*widths, *((128, ONE),) * 5, (256, TWO), (256, ONE)):
        layers.depthwise(stride)
        layers.conv(channels)
    layers.average()
    return layers.classes(2)


NETWORKS = {
    "ad": anomaly_detection,
    "ic": image_classification,
    "kws": keyword_spotting,
    "vww": visual_wake_words,
}

WAIT_STATES, CORE = 5, "cortex-m4f"
EXTRA_BYTES, STACK_BYTES = 6144, 512  # beyond the arena in all; of these kept for the stack
# Published cycles per MAC on the STM32L4R5: CMSIS-NN, X-CUBE-AI, Plumerai; TFLM's arena in bytes.
PUBLISHED = {
    "ad": (3.91, 3.44, 2.53, None),
    "ic": (3.74, 2.18, 1.66, 54_996),
    "kws": (4.51, 3.39, 3.24, 22_820),
    "vww": (4.83, 3.69, 3.34, 100_708),
}


def measured(graph: Graph, bench: Bench) -> dict[str, float | int | str]:
    """One network on the emulated chip.

    Raises:
        SystemExit: an output differs from the reference.
    """
    rng = np.random.default_rng(0)
    model, plan = with_random_numbers(graph, rng, odd_zeros=False), plan_memory(graph)
    inputs = random_inputs(graph, 2, rng)
    needed = program_of(graph, plan, WAIT_STATES).workspace.bytes
    spare = plan.arena_bytes + EXTRA_BYTES - STACK_BYTES - needed
    program = program_of(graph, plan, WAIT_STATES, max(0, spare))
    got = run_model(model, program, inputs, bench)
    if (got.outputs != reference.run(model, inputs)).any():
        raise SystemExit("outputs differ from the reference")
    macs, total = sum(map(graph.macs, graph.ops)), got.measurement.total
    return {
        "cycles_per_mac": round(total.cycles_at(WAIT_STATES) / macs, 3),
        "core_cycles_per_mac": round(total.cycles / macs, 3),
        "unpaired_cycles_per_mac": round((total.cycles_at(WAIT_STATES) + total.paired) / macs, 3),
        "cycles_per_instruction": round(total.cycles / total.instructions, 3),
        "data_misses": total.data_misses,
        "code_misses": total.code_misses,
        "instructions": total.instructions,
        "macs": macs,
        "arena_bytes": plan.arena_bytes,
        "ram_bytes": got.ram_bytes,
        "flash_bytes": got.image.flash_bytes,
        "rounding": "double",
    }


def main() -> None:
    """Prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    profile = replace(
        roomy(load_profile("cortex-m4-64k")), core=CORE, flash_wait_states=WAIT_STATES
    )
    bench = Bench(profile, find_compiler(), cache_folder())
    results = {}
    print(
        "net    5 waits   0 waits  unpaired CMSIS-NN X-CUBE-AI Plumerai"
        "   arena     RAM   TFLM   Flash"
    )
    for name, graph in NETWORKS.items():
        row = results[name] = measured(graph(), bench)
        cmsis, cube, plumerai, arena = PUBLISHED[name]
        print(
            f"{name:4} {row['cycles_per_mac']:9.3f} {row['core_cycles_per_mac']:9.3f}"
            f" {row['unpaired_cycles_per_mac']:9.3f} {cmsis:8.2f} {cube:9.2f} {plumerai:8.2f}"
            f" {row['arena_bytes']:7,} {row['ram_bytes']:7,} {arena or '-':>6}"
            f" {row['flash_bytes']:7,}"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
