"""How fast students train, and what each measure contributes.

    python benchmarks/throughput.py rfid_accel_rssi.npz uci_har.npz av_digits_hard.npz \
        --csv benchmarks/results/throughput.csv [--space conv,transformer,mamba] [--rounds 7]

CPU time of a training step (batch, forward, backward, optimiser) of the first network of a space,
in one process with one thread, the shortest of some rounds in which all ways take turns, so that
what else the machine does meets all of them. From the plain loop on each line adds one measure:

    plain        torch's DataLoader, its AdamW and schedule, convolutions in torch's usual order of
                 memory, quantisers of tensor operations
    in memory    samples by index from tensors that lie ready
    fused Adam   one operation for all parameters
    channels     maps with their channels last, pointwise convolutions as matrix products
    compiled     quantisers as compiled loops
    layer        quantisers, convolution, batch norm and ReLU of a layer as one operation
    pack of n    n students of one shape as one network, a student's share; empty where a pack is
                 not made, see `packable.py`
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from plain_search import Samples
from rows import Rows
from torch.utils.data import DataLoader

from nas.data.task import load_task
from nas.network.graph import Graph
from nas.space import FixedTrial
from nas.training import fused
from nas.training.evaluate import Bench, prepare, recipe_of
from nas.training.linear_layer import LinearLayer
from nas.training.packable import packable
from nas.training.packs import pack
from nas.training.student import Student
from nas.training.validation import judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

PACKS = {"pack of 2": 2, "pack of 4": 4}
WAYS = ("plain", "in memory", "fused Adam", "channels", "compiled", "layer", *PACKS)
COLUMNS = ("data", "space", "macs", *WAYS)
STEPS = 25  # of one measurement


def _convolve(layer: LinearLayer, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As torch offers it, whatever the kernel is."""
    if layer.symmetric is None:
        x = F.pad(x, layer.padding)
    return F.conv2d(x, weight, None, layer.op.stride, layer.symmetric or 0, 1, layer.groups)


@contextmanager
def measures(way: str) -> Iterator[None]:
    """What the training code does in one of the ways."""
    number = WAYS.index(way)
    with ExitStack() as held:
        if number < WAYS.index("channels"):
            held.enter_context(patch.object(LinearLayer, "_convolve", _convolve))
        if number < WAYS.index("compiled"):
            held.enter_context(patch.object(fused, "takes", lambda _: False))
        if number < WAYS.index("layer"):
            held.enter_context(patch.object(LinearLayer, "fuses", lambda *_: False))
        yield


def step_of(way: str, graph: Graph, bench: Bench) -> Callable[[], None]:
    """One training step."""
    recipe, data = recipe_of(bench, "accuracy", False, final=False), bench.training
    torch.manual_seed(0)
    members = PACKS.get(way, 1)
    nets = [Student(graph, data.scales, dropout=recipe.dropout) for _ in range(members)]
    net = pack(nets) if members > 1 else nets[0]
    net.train()
    fused_adam = WAYS.index(way) >= WAYS.index("fused Adam")
    optimiser = torch.optim.AdamW(net.parameters(), recipe.peak_rate, fused=fused_adam)
    order = torch.channels_last if WAYS.index(way) >= WAYS.index("channels") else None
    batches = _batches(way, bench, members * recipe.batch_size)

    def step() -> None:
        inputs, labels = next(batches)
        if order is None:
            inputs = {name: x.contiguous() for name, x in inputs.items()}
        loss = F.cross_entropy(net(inputs), labels) * members
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _batches(way: str, bench: Bench, size: int) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    data = bench.training
    copies, rows = next(iter(data.inputs.values())).shape[:2]
    if way == "plain":
        samples = Samples(bench, torch.zeros(copies, rows, bench.task.classes).numpy())
        while True:
            for inputs, labels, _ in DataLoader(samples, size, shuffle=True, drop_last=True):
                yield inputs, labels
    while True:
        drawn = torch.randint(copies, (size,)), torch.randint(rows, (size,))
        inputs = {k: v[drawn].float().mul_(data.scales[k]) for k, v in data.inputs.items()}
        yield inputs, data.labels[drawn[1]]


def measured(graph: Graph, bench: Bench, rounds: int) -> dict[str, float]:
    """Way -> milliseconds of CPU a step and student."""
    ways = [way for way in WAYS if way not in PACKS or packable(graph)]
    steps = {way: step_of(way, graph, bench) for way in ways}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for way, step in steps.items():
            with measures(way):
                step()
                began = time.process_time()
                for _ in range(STEPS):
                    step()
                taken = (time.process_time() - began) / STEPS * 1e3
            best[way] = min(best[way], taken / PACKS.get(way, 1))
    return best


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--space", default="conv,transformer,mamba")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(chosen.csv, COLUMNS, ("data", "space"))
    for file in chosen.data:
        task = load_task(str(file), None)
        bench = prepare(task, judging(task, "split"), BANK_SEED)
        for name in chosen.space.split(","):
            space = SPACES[name]
            first = space.starts(bench.problem)[0]
            graph = space.sample(FixedTrial(first), bench.problem).lower()
            macs = sum(graph.macs(op) for op in graph.ops)
            found = measured(graph, bench, chosen.rounds)
            row = {"data": file.stem, "space": name, "macs": macs}
            rows.add(row | dict.fromkeys(PACKS, "") | found)
            ratios = "  ".join(f"{way} {found['plain'] / ms:.2f}" for way, ms in found.items())
            print(f"{file.stem} {name}: {found['plain']:.1f} ms; times as fast: {ratios}")


if __name__ == "__main__":
    main()
