"""How many students train at once, and how fast, on a CPU or on a CUDA device.

    python benchmarks/large_packs.py rfid_accel_rssi.npz uci_har.npz --train-on cuda \
        --csv benchmarks/results/large_packs.csv [--space conv] [--counts 1,2,4,8,16,32,64]

Trains packs of the first network of a space, each member with its own seed, by the loop of a
search. `ms` is what a step of the whole pack takes: CPU time on a CPU, time by the clock on a
device, the shortest of some rounds. `plain_ms` is a device's step without a CUDA graph: where the
two are far apart the starting of operations binds, and where `ms` grows with the count their work
does. `students_an_hour` counts the steps of a search's training by one process, no scores.
"""

import argparse
import time
from pathlib import Path
from unittest.mock import patch

import torch
from rows import Rows

from nas.data.task import load_task
from nas.network.graph import Graph
from nas.space import FixedTrial
from nas.training import loop
from nas.training.evaluate import Bench, prepare, recipe_of, student
from nas.training.packable import packable
from nas.training.packs import pack
from nas.training.recipe import Recipe, student_steps
from nas.training.validation import judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

COLUMNS = ("data", "space", "train_on", "members", "ms", "plain_ms", "students_an_hour", "bytes")
ROUNDS, STEPS = 3, 100


def step_ms(graph: Graph, bench: Bench, recipe: Recipe, members: int) -> float:
    """Of a step of so many students as one, once the first steps are made."""
    data = bench.training
    on_cpu = data.device.type == "cpu"
    clock_s = time.process_time if on_cpu else time.perf_counter
    best = float("inf")
    for _ in range(ROUNDS):
        if not on_cpu:
            torch.cuda.empty_cache()
        nets = [student(graph, data, recipe, seed) for seed in range(members)]
        net = pack(nets) if members > 1 else nets[0]
        began: list[float] = []

        def halfway(_: loop.Network, began: list[float] = began) -> bool:
            began.append(clock_s())
            return True

        # The loop asks after half of the steps, and waits for the device before it asks.
        loop.train(net, data, recipe, list(range(members)), halfway)
        best = min(best, (clock_s() - began[0]) / STEPS * 1e3)
    return best


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--train-on", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--space", default="conv")
    parser.add_argument("--counts", default="1,2,4,8,16,32,64")
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(chosen.csv, COLUMNS, ("data", "space", "train_on", "members"))
    for file in chosen.data:
        task = load_task(str(file), None)
        bench = prepare(task, judging(task, "split"), BANK_SEED, chosen.train_on)
        space = SPACES[chosen.space]
        start = space.starts(bench.problem)[0]
        graph = space.sample(FixedTrial(start), bench.problem).lower()
        for members in map(int, chosen.counts.split(",")):
            if members == 1 or packable(graph, "cuda"):
                row = measured(graph, bench, members)
                names = {"data": file.stem, "space": chosen.space, "train_on": chosen.train_on}
                rows.add(names | row)
                print(names | row)


def measured(graph: Graph, bench: Bench, members: int) -> dict[str, object]:
    """The figures of one row."""
    rows = len(bench.training.labels)
    whole = recipe_of(bench, "accuracy", False, final=False)
    recipe = Recipe(2 * STEPS, whole.batch_size, dropout=whole.dropout, frozen_share=0.0)
    on_cpu, used = bench.training.device.type == "cpu", 0
    if not on_cpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    ms = step_ms(graph, bench, recipe, members)
    plain_ms = ms
    if not on_cpu:
        used = torch.cuda.max_memory_reserved()
        with patch.object(loop, "captured", lambda step, _: step):
            plain_ms = step_ms(graph, bench, recipe, members)
    an_hour = members * 3.6e6 / (student_steps(rows) * ms)
    return {
        "members": members,
        "ms": round(ms, 2),
        "plain_ms": round(plain_ms, 2),
        "students_an_hour": round(an_hour),
        "bytes": used,
    }


if __name__ == "__main__":
    main()
