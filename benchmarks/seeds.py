"""The systems that this project reproduces: a search a seed, and what its best network is made of.

    python benchmarks/seeds.py DATA_DIR --minutes 15 --jsonl benchmarks/results/seeds.jsonl \
        [--only audio,mamba] [--sets uci_har] [--seeds 0,1,2] [--workers 1] [--runs DIR] \
        [--phase searches] [--validation cross]

Resumable: one JSON line a result, and none is made twice. For each system, data set and seed first
the search, whose row `found` is the candidate best on validation within the budget (test looked at
once, for that candidate); then the same architecture trained again with that seed in float and at
8, 4 and 2 bits (stems and outputs 8), each with the teacher and without, and with each sensor
alone. Last-step and streamed figures are those of the stepwise form, predicted.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from real_data import commit
from rows import METRICS

from nas.data.task import SplitName, load_task
from nas.hardware.budget import price
from nas.hardware.profile import Profile, load_profile
from nas.hardware.stepwise import stepwise
from nas.network.graph import Graph
from nas.network.integer import IntegerModel
from nas.network.ops import Conv2d, DepthwiseConv2d
from nas.run_folder import read_front, read_json
from nas.search.rules import training_seed
from nas.training import metrics
from nas.training.evaluate import Bench, prepare, recipe_of, taught, train_student
from nas.training.lessons import Lessons, read_lessons
from nas.training.loop import predict, train
from nas.training.metrics import Metric
from nas.training.recipe import Recipe
from nas.training.scoring import classify_split
from nas.training.student import Student
from nas.training.validation import VALIDATIONS, Validation, judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

KB = 1024
BITS = (8, 4, 2)


@dataclass(frozen=True)
class System:
    """One row of the table: what is searched, and inside which budget."""

    data: tuple[str, ...]
    device: str
    space: str
    weight_bytes: int | None = None
    modalities: tuple[str, ...] | None = None


RFID, INDOOR = "rfid_accel_rssi", "indoor_zone"
SYSTEMS = {
    "audio": System(("coswara_voice",), "cortex-m4-64k", "conv", 6 * KB),
    "depth-thermal": System(
        ("fruit_rgb_depth_thermal",), "cortex-m4-64k", "conv", 58 * KB, ("depth", "thermal")
    ),
    "transformer": System((RFID, INDOOR), "cortex-m4-64k", "transformer", 16 * KB),
    "mamba": System((RFID, INDOOR), "cortex-m4-32k", "mamba", 20 * KB),
    "all-64k": System((RFID, INDOOR, "av_digits_hard", "uci_har"), "cortex-m4-64k", "all"),
    "smallest": System((RFID,), "cortex-m4-64k", "all", 3584),
}


@dataclass(frozen=True)
class Place:
    """One search: what it is of, and where its run folder and its teacher's cache are."""

    row: str
    data: Path
    seed: int
    run: Path
    validation: Validation | None = None

    @property
    def system(self) -> System:
        """The row's budget."""
        return SYSTEMS[self.row]

    @property
    def metric(self) -> Metric:
        """By the data's balance."""
        return METRICS.get(self.data.stem, "accuracy")

    @property
    def cache(self) -> Path:
        """Its own: the teacher is part of a search's minutes."""
        return self.run.with_name(f"{self.run.name}-cache")


class Lines:
    """A file of JSON lines that grows result by result."""

    def __init__(self, file: Path) -> None:
        self._file = file
        text = file.read_text() if file.exists() else ""
        self.rows = [json.loads(line) for line in text.splitlines()]

    def has(self, place: Place, variant: str) -> bool:
        """Whether this result is there."""
        wanted = (place.row, place.data.stem, place.seed, variant, place.validation == "cross")
        return any(
            wanted == (r["row"], r["data"], r["seed"], r["variant"], r.get("validation") == "cross")
            for r in self.rows
        )

    def add(self, row: dict[str, Any]) -> None:
        """Adds a result and writes the file."""
        self.rows.append(row)
        with self._file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def search(place: Place, minutes: float, workers: int) -> None:
    """One search; goes on with the run if it was begun."""
    system, root = place.system, Path(__file__).resolve().parent.parent
    command = [sys.executable, str(root / "run_search.py"), "--data", str(place.data)]
    command += ["--device", system.device, "--space", system.space, "--minutes", str(minutes)]
    command += ["--seed", str(place.seed), "--workers", str(workers), "--metric", place.metric]
    command += ["--out", str(place.run), "--quiet"]
    if system.weight_bytes is not None:
        command += ["--max-weight-bytes", str(system.weight_bytes)]
    if system.modalities is not None:
        command += ["--modalities", ",".join(system.modalities)]
    if place.validation is not None:
        command += ["--validation", place.validation]
    command += ["--resume"] if (place.run / "run.json").exists() else []
    subprocess.run(command, check=True, env=os.environ | {"NAS_CACHE_DIR": str(place.cache)})


def figures(graph: Graph, profile: Profile) -> dict[str, Any]:
    """What a network costs, predicted."""
    cost, held = price(graph, profile).cost, stepwise(graph, profile)
    return {
        "weight_bytes": cost.weight_bytes,
        "ram_bytes": cost.ram_bytes,
        "flash_bytes": cost.flash_bytes,
        "streamed_ram_bytes": None if held is None else held.ram_bytes,
        "latency_ms": cost.latency_s * 1e3,
    }


def result(
    place: Place, variant: str, scores: tuple[float, float], **values: Any
) -> dict[str, Any]:
    """One line."""
    row = {"row": place.row, "data": place.data.stem, "seed": place.seed, "variant": variant}
    if place.validation is not None:  # otherwise as the size of the validation split has it
        row["validation"] = place.validation
    return row | {"val_score": scores[0], "test_score": scores[1]} | values | {"commit": commit()}


def found(place: Place) -> dict[str, Any]:
    """The candidate best on validation within the budget, as measured on the emulated chip."""
    most = place.system.weight_bytes
    fitting = [r for r in read_front(place.run) if most is None or int(r["weight_bytes"]) <= most]
    best = max(fitting, key=lambda row: float(row["val_score"]))
    manifest = read_json(place.run / "run.json")
    streamed = best["streamed_ram_bytes"]
    return result(
        place,
        "found",
        (float(best["val_score"]), float(best["test_score"])),
        id=best["id"],
        weight_bytes=int(best["weight_bytes"]),
        ram_bytes=int(best["ram_bytes"]),
        flash_bytes=int(best["flash_bytes"]),
        streamed_ram_bytes=int(float(streamed)) if streamed else None,
        latency_ms=float(best["latency_ms"]),
        bits=best["weight_bits"],
        distilled=manifest["teacher"]["kind"] != "none",
        verified=best["verified"],
        modalities=best["modalities"],
        teacher=manifest["teacher"],
        trained=manifest["trials"]["trained"],
        minutes=manifest["elapsed_s"] / 60,
    )


def at_bits(graph: Graph, bits: int) -> Graph:
    """The same graph at `bits`; what reads a sensor or makes the logits keeps 8, as in a search."""
    edge = {graph.output, *(source.name for source in graph.inputs)}
    last = [op for op in graph.ops if op.name == graph.output]
    edge |= {name for op in last for name in op.inputs}
    ops = tuple(
        replace(op, weight_bits=8 if edge & {op.name, *op.inputs} else bits)
        if isinstance(op, Conv2d | DepthwiseConv2d)
        else op
        for op in graph.ops
    )
    return replace(graph, ops=ops)


def variants(place: Place, lines: Lines) -> Iterator[dict[str, Any]]:
    """The architecture that was found, trained otherwise."""
    document = read_json(place.run / "candidates" / found(place)["id"] / "architecture.json")
    space = SPACES[place.system.space]
    whole = space.parse(document["architecture"])
    task = load_task(str(place.data), place.system.modalities)
    judged, profile = judging(task, place.validation), load_profile(place.system.device)
    held = prepare(task, judged, BANK_SEED)
    identity = read_json(place.run / "run.json")["teacher"]["hash"]
    teacher = read_lessons(place.cache / "teachers" / f"{identity}.npz", False)
    for answers in (teacher, None):
        how = "distilled" if answers is not None else "plain"
        recipe = recipe_of(held, place.metric, answers is not None, final=True)
        for bits in (None, *BITS):
            variant = f"{bits or 'float'} {how}"
            if lines.has(place, variant):
                continue
            graph = whole.lower() if bits is None else at_bits(whole.lower(), bits)
            if bits is None:
                scores = float_scores(held, graph, place, answers)
            else:
                scores = integer_scores(held, graph, place, recipe, answers)
            costs = {} if bits is None else figures(graph, profile)
            names = "+".join(source.name for source in graph.inputs)
            yield result(
                place, variant, scores, **costs, bits=bits or "float",
                distilled=answers is not None, modalities=names,
            )  # fmt: skip
    yield from alone(place, lines, held, document["architecture"], teacher)


def alone(
    place: Place,
    lines: Lines,
    held: Bench,
    architecture: dict[str, Any],
    teacher: Lessons,
) -> Iterator[dict[str, Any]]:
    """The architecture with one of its sensors, distilled as the whole one was."""
    space, profile = SPACES[place.system.space], load_profile(place.system.device)
    branches = architecture["branches"]
    if len(branches) < 2:
        return
    for branch in branches:
        variant = f"only {branch['sensor']}"
        if lines.has(place, variant):
            continue
        one = architecture | {"branches": [branch], "fusion": "none", "gate_bits": 0}
        one.pop("attention", None)
        graph = space.parse(one).lower()
        recipe = recipe_of(held, place.metric, True, final=True)
        scores = integer_scores(held, graph, place, recipe, teacher)
        yield result(
            place, variant, scores, **figures(graph, profile), bits="found",
            distilled=True, modalities=branch["sensor"],
        )  # fmt: skip


def integer_scores(
    held: Bench,
    graph: Graph,
    place: Place,
    recipe: Recipe,
    teacher: Lessons | None,
) -> tuple[float, float]:
    """(validation, test) scores of one final training's integers."""
    seed = training_seed(place.seed, graph.hash, 1)
    trained = train_student(held, graph, recipe, place.metric, teacher, seed, final=True)
    predicted = classify_split(held.task, IntegerModel.from_bytes(trained.model), "test")
    return trained.val_score, _score(held, place.metric, predicted, "test")


def float_scores(
    held: Bench, graph: Graph, place: Place, teacher: Lessons | None
) -> tuple[float, float]:
    """(validation, test) scores of the same network in floating point."""
    recipe = recipe_of(held, place.metric, teacher is not None, final=True)
    seed, fold = training_seed(place.seed, graph.hash, 1), held.judging.fold

    def fitted(part: int, rows: NDArray[np.bool_] | None) -> Student:
        data = taught(held, teacher, part)
        torch.manual_seed(seed)
        net = Student(graph, data.scales, quantised=False, dropout=recipe.dropout)
        train(net, data if rows is None else data.subset(rows), recipe, seed)
        return net

    whole = fitted(0, None)
    test = _classes(whole, held, "test", None)
    if fold is None:
        val = _classes(whole, held, "val", None)
    else:
        val = np.empty(len(fold), np.int64)
        for part in np.unique(fold):
            out = fold == part
            val[out] = _classes(fitted(1 + int(part), ~out), held, "val", out)
    metric = place.metric
    return _score(held, metric, val, "val"), _score(held, metric, test, "test")


def _classes(
    net: Student, held: Bench, split: SplitName, rows: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    chosen = slice(None) if rows is None else rows
    inputs = {
        s.name: torch.from_numpy(held.inputs[split][s.name][chosen]).permute(0, 3, 1, 2)
        for s in net.graph.inputs
    }
    return np.asarray(predict(net, inputs, held.training.scales).argmax(1), np.int64)


def _score(held: Bench, metric: Metric, predicted: NDArray[np.int64], split: SplitName) -> float:
    return metrics.score(metric, held.labels[split], predicted, held.task.classes)


def places(chosen: argparse.Namespace) -> Iterator[Place]:
    """Every search that is wanted."""
    only = [name for name in chosen.only.split(",") if name] or list(SYSTEMS)
    sets = [name for name in chosen.sets.split(",") if name]
    for seed in map(int, chosen.seeds.split(",")):
        for row in only:
            for name in SYSTEMS[row].data:
                if sets and name not in sets:
                    continue
                how = f"-{chosen.validation}" if chosen.validation else ""
                run = chosen.runs / f"{row}-{name}-{chosen.minutes:g}{how}-{seed}"
                yield Place(row, chosen.folder / f"{name}.npz", seed, run, chosen.validation)


def main() -> None:
    """Makes what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help=", ".join(SYSTEMS))
    parser.add_argument("--sets", default="", help="names of data files, for some of a row's")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--validation", choices=VALIDATIONS, help="how candidates are judged")
    parser.add_argument("--jsonl", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("results") / "seeds")
    parser.add_argument("--phase", choices=("searches", "variants"), help="one of the two only")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lines = Lines(chosen.jsonl)
    wanted = list(places(chosen))
    for place in wanted if chosen.phase != "variants" else ():
        if not lines.has(place, "found"):
            if not (place.run / "front.csv").exists():
                search(place, chosen.minutes, chosen.workers)
            lines.add(found(place))
    for place in wanted if chosen.phase != "searches" else ():
        if lines.has(place, "found"):
            for row in variants(place, lines):
                lines.add(row)


if __name__ == "__main__":
    main()
