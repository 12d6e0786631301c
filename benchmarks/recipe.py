"""What each measure of the training recipe is worth: one change at a time around the base.

    python benchmarks/recipe.py DATA.npz ... --seeds 4 --csv benchmarks/results/recipe.csv

The base is the first network of the search space with the recipe of a search. A row is one
training; resumable. At the end it prints the paired differences to the base with 95 % intervals
(Student's t, seed by seed). Test scores are printed beside and decide nothing. What trains on
another bank than the usual one has no teacher: compare it with "no distillation". Rows are judged
as in a search: crosswise where validation is small.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import METRICS, Rows
from scipy import stats

from nas.data import task as task_module
from nas.data.task import LARGEST_Z, Task, load_task
from nas.network.integer import IntegerModel
from nas.network.numerics import weight_limit
from nas.search.rules import training_seed
from nas.space import FixedTrial, Problem
from nas.training import evaluate, linear_layer, metrics
from nas.training.augment import make_bank, strength_for
from nas.training.lessons import Lessons, read_lessons
from nas.training.loop import training_set
from nas.training.scoring import classify
from nas.training.teaching import teacher_of
from nas.training.validation import Judging, judging
from nas.training.workers import BANK_SEED, DataSource, bench, pool
from search_spaces import SPACES

COLUMNS = ("data", "variant", "seed", "val_score", "test_score", "train_s")
Genes = dict[str, int | str]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One change: of the genes, the recipe, the augmentation, the training rows, the scales.

    `strength` and `rows` are shares of the usual ones; `largest_z` is where inputs saturate, in
    standard deviations.
    """

    genes: Callable[[Genes, Problem], Genes] = lambda genes, problem: genes
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)
    strength: float = 1.0
    rows: float = 1.0
    distil: bool = True
    largest_weight_scale: bool = False
    largest_z: float = LARGEST_Z


def every(name: str, value: int | str) -> Callable[[Genes, Problem], Genes]:
    """Gives the gene `name` of each sensor that has it the value."""
    return lambda genes, problem: {
        gene: value if gene.partition(".")[2] == name else held for gene, held in genes.items()
    }


def inner_bits(index: int) -> Callable[[Genes, Problem], Genes]:
    """Bits of all layers but stems and output: 0, 1, 2 for 2, 4, 8 bits."""

    def change(genes: Genes, problem: Problem) -> Genes:
        kept = ("bits.0", "output_bits", "gate_bits")
        return {
            gene: index if "bits" in gene and not gene.endswith(kept) else value
            for gene, value in genes.items()
        }

    return change


VARIANTS = {
    "base": Variant(),
    "strided convolutions": Variant(every("downsample", "stride")),
    "max pools": Variant(every("downsample", "max")),
    "separable convolutions": Variant(every("convolution", "separable")),
    "kernel 5 in images": Variant(every("kernel", 1)),
    "grid readout": Variant(every("readout", "grid")),
    "no augmentation": Variant(strength=0.0),
    "augmentation x 0.7": Variant(strength=0.7),
    "augmentation x 1.4": Variant(strength=1.4),
    "no distillation": Variant(distil=False),
    "no class weights": Variant(recipe={"class_weighting": False}),
    "dropout 0": Variant(recipe={"dropout": 0.0}),
    "dropout 0.3": Variant(recipe={"dropout": 0.3}),
    "batch norm never frozen": Variant(recipe={"frozen_share": 0.0}),
    "half the steps": Variant(recipe={"steps": 0.5}),
    "twice the steps": Variant(recipe={"steps": 2.0}),
    "four times the steps": Variant(recipe={"steps": 4.0}),
    "half the rows": Variant(rows=0.5),
    "a quarter of the rows": Variant(rows=0.25),
    "inputs saturate at 4 deviations": Variant(largest_z=4.0),
    "inputs never saturate": Variant(largest_z=1e9),
    "8 bits": Variant(inner_bits(2)),
    "2 bits": Variant(inner_bits(0)),
    "2 bits scaled by the largest weight": Variant(inner_bits(0), largest_weight_scale=True),
}


def largest_weight_scale(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The rule that low bits do without: the largest weight is the largest integer."""
    return weight.detach().abs().amax((1, 2, 3), keepdim=True) / weight_limit(bits) + 1e-8


class _Worker:
    bench: Any = None
    teacher: Any = None


def _start(path: str, teacher: str) -> None:
    torch.set_num_threads(1)
    _Worker.bench = _prepared(path, LARGEST_Z)
    _Worker.teacher = read_lessons(Path(teacher), False)


def _prepared(path: str, largest_z: float) -> evaluate.Bench:
    task_module.LARGEST_Z = largest_z
    task = load_task(path)
    task_module.LARGEST_Z = LARGEST_Z
    return evaluate.prepare(task, judging(task, None), BANK_SEED)


def _changed_bench(variant: Variant) -> Any:
    """The bench with other inputs or another bank.

    The teacher's answers belong to copies of the usual strength, whatever step quantises them.
    """
    bench, strength = _Worker.bench, variant.strength
    if variant.largest_z != LARGEST_Z:
        bench = _prepared(str(bench.task.path), variant.largest_z)
    if strength == 1.0:
        return bench
    task: Task = bench.task
    usual = strength_for(bench.problem.sensors, len(task.rows("train")))
    scales, inputs = bench.training.scales, bench.inputs["train"]
    bank = make_bank(bench.problem.sensors, inputs, scales, usual * strength, BANK_SEED)
    if strength == 0.0:
        bank = {name: copies[:1] for name, copies in bank.items()}
    data = training_set(bank, scales, bench.labels["train"], task.classes, None)
    return dataclasses.replace(bench, training=data)


def _fewer(bench: Any, teacher: Any, share: float) -> tuple[Any, Any]:
    """Bench and teacher's answers of a share of the training rows, the same in every seed."""
    if share == 1.0:
        return bench, teacher
    data = bench.training
    count = len(data.labels)
    kept = np.zeros(count, bool)
    kept[np.random.default_rng(0).permutation(count)[: round(count * share)]] = True
    bench = dataclasses.replace(bench, training=data.subset(kept))
    if bench.judging.fold is not None:  # then the rows that are left judge, too
        fold = bench.judging.fold[kept]
        rows = bench.judging.train[kept]
        inputs = {name: held[kept] for name, held in bench.inputs["train"].items()}
        labels = bench.labels["train"][kept]
        bench = dataclasses.replace(
            bench,
            judging=Judging(rows, rows, fold),
            inputs=bench.inputs | {"train": inputs, "val": inputs},
            labels=bench.labels | {"train": labels, "val": labels},
        )
    return bench, Lessons(teacher.bank[:, :, kept])


def _train(data: str, name: str, seed: int) -> dict[str, Any]:
    variant, space = VARIANTS[name], SPACES["conv"]
    bench, teacher = _fewer(_changed_bench(variant), _Worker.teacher, variant.rows)
    metric = METRICS.get(data, "accuracy")
    genes = variant.genes(dict(space.starts(bench.problem)[0]), bench.problem)
    graph = space.sample(FixedTrial(genes), bench.problem).lower()
    distil = variant.distil and variant.strength == 1.0
    recipe = evaluate.recipe_of(bench, metric, distil, final=False)
    changes = dict(variant.recipe)
    if "steps" in changes:
        changes["steps"] = round(recipe.steps * changes["steps"])
    recipe = dataclasses.replace(recipe, **changes)
    usual = linear_layer.weight_scale
    if variant.largest_weight_scale:
        linear_layer.weight_scale = largest_weight_scale
    start = training_seed(seed, "recipe", 0)
    answers = teacher if distil else None
    trained = evaluate.train_student(bench, graph, recipe, metric, answers, start)
    linear_layer.weight_scale = usual
    model = IntegerModel.from_bytes(trained.model)
    test = metrics.score(
        metric, bench.labels["test"], classify(model, bench.inputs["test"]), bench.task.classes
    )
    row = (data, name, seed, trained.val_score, test, round(trained.train_s, 2))
    return dict(zip(COLUMNS, row, strict=True))


def measure(path: Path, jobs: Sequence[tuple[str, int]], workers: int) -> Iterator[dict[str, Any]]:
    """Yields a row for each (variant, seed)."""
    task = load_task(str(path))
    source = DataSource(None, str(path), task.names, task.data_hash)
    metric, judged = METRICS.get(path.stem, "accuracy"), judging(task, None)
    with pool(workers, source, bench(judged.kind)) as trainers:
        teacher = teacher_of(task, judged, metric, "conv", trainers, lambda done, wanted: None)
    print(f"{path.stem}: teacher {teacher.val_score:.4f} {teacher.test_score:.4f}", flush=True)
    with ProcessPoolExecutor(
        workers, get_context("spawn"), _start, (str(path), str(teacher.file))
    ) as executor:
        futures = [executor.submit(_train, path.stem, name, seed) for name, seed in jobs]
        for future in as_completed(futures):
            yield future.result()


def summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each data file and variant: paired differences to the base."""
    lines = []
    for data in sorted({row["data"] for row in rows}):
        for name in VARIANTS:
            held = {(row["variant"], str(row["seed"])): row for row in rows if row["data"] == data}
            seeds = [s for v, s in held if v == name and ("base", s) in held]
            if not seeds:
                continue
            text = f"{data:24s} {name:38s}"
            for column in ("val_score", "test_score"):
                scores = np.array([float(held[name, s][column]) for s in seeds])
                base = np.array([float(held["base", s][column]) for s in seeds])
                text += f" {scores.mean():.4f}"
                if name != "base" and len(seeds) > 1:
                    change = scores - base
                    half = stats.t.ppf(0.975, len(seeds) - 1) * change.std(ddof=1)
                    text += f" ({change.mean():+.4f} +-{half / len(seeds) ** 0.5:.4f})"
            seconds = np.mean([float(held[name, s]["train_s"]) for s in seeds])
            lines.append(f"{text} {seconds:.1f} s, {len(seeds)} seeds")
    return lines


def main() -> None:
    """Trains what is missing and prints the summary."""
    parser = argparse.ArgumentParser(description="What each measure of the recipe is worth.")
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="variants, separated by commas")
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    rows = Rows(chosen.csv, COLUMNS, ("data", "variant", "seed"))
    names = chosen.only.split(",") if chosen.only else list(VARIANTS)
    for path in chosen.data:
        wanted = [(name, seed) for seed in range(chosen.seeds) for name in names]
        jobs = [job for job in wanted if not rows.has(path.stem, *job)]
        for row in measure(path, jobs, chosen.workers) if jobs else ():
            rows.add(row)
            print(row, flush=True)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
