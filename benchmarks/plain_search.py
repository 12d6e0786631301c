"""A plain search to compare with: what a competent engineer writes with Optuna in an afternoon.

    python benchmarks/plain_search.py DATA.npz --lessons TEACHER.npz --device cortex-m4-32k \
        --minutes 60 --seed 0 --jsonl FILE

Optuna's default sampler; the budget is checked before training, and what does not fit is told with
a penalty and costs no training; the same space, networks, teacher and integer scores as the search
that it is compared with, and its recipe in torch's own parts: AdamW decays all parameters here, and
OneCycleLR also moves the momentum. Batch norm and all but pointwise convolutions are torch's, too;
those are our matrix products, the quantisers our compiled loops. Batches by torch's DataLoader, one
process. One JSON line a trained network. The
teacher is given, its time counted for neither.
"""

import argparse
import json
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rows import METRICS
from torch.utils.data import DataLoader, Dataset

from nas.data.task import load_task
from nas.hardware.budget import Budget, price
from nas.hardware.profile import load_profile
from nas.network.graph import Graph
from nas.run_folder import summarise
from nas.space import architecture_id
from nas.training import metrics
from nas.training.evaluate import Bench, prepare, recipe_of
from nas.training.lessons import read_lessons
from nas.training.linear_layer import LinearLayer
from nas.training.scoring import classify
from nas.training.student import Student, to_integer
from nas.training.validation import judging
from nas.training.workers import BANK_SEED
from search_spaces import SPACES

Batch = tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]
PENALTY = 1.0  # the error of what does not fit


class Samples(Dataset[Batch]):
    """The training rows; each time one is drawn, one of its augmented copies."""

    def __init__(self, bench: Bench, lessons: NDArray[np.float32]) -> None:
        self.data, self.lessons = bench.training, torch.from_numpy(lessons)

    def __len__(self) -> int:
        return len(self.data.labels)

    def __getitem__(self, row: int) -> Batch:
        copy = int(torch.randint(len(self.lessons), ()))
        inputs = {
            k: v[copy, row].float() * self.data.scales[k] for k, v in self.data.inputs.items()
        }
        return inputs, self.data.labels[row], self.lessons[copy, row]


def train(graph: Graph, bench: Bench, loader: DataLoader[Batch], metric: metrics.Metric) -> float:
    """Validation score of the integers of one trained network."""
    recipe = recipe_of(bench, metric, True, final=False)
    net = Student(graph, bench.training.scales, dropout=recipe.dropout)
    optimiser = torch.optim.AdamW(net.parameters(), recipe.peak_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.peak_rate, recipe.steps)
    t, step = recipe.temperature, 0
    net.train()
    while step < recipe.steps:
        for inputs, labels, teacher in loader:
            if step == round(recipe.steps * (1 - recipe.frozen_share)):
                net.freeze()
            logits = net(inputs)
            divergence = F.kl_div(
                F.log_softmax(logits / t, 1), F.log_softmax(teacher / t, 1), reduction="batchmean",
                log_target=True,
            )  # fmt: skip
            loss = (1 - recipe.distil_weight) * F.cross_entropy(logits, labels)
            loss = loss + recipe.distil_weight * t * t * divergence
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            step += 1
            if step == recipe.steps:
                break
    answers = classify(to_integer(net.eval()), bench.inputs["val"])
    return metrics.score(metric, bench.labels["val"], answers, bench.task.classes)


def main() -> None:
    """Searches until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--lessons", type=Path, required=True, help="a teacher's file, .npz")
    parser.add_argument("--device", default="cortex-m4-32k")
    parser.add_argument("--space", default="conv")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jsonl", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    LinearLayer.fuses = lambda *_: False  # type: ignore[method-assign]
    torch.manual_seed(chosen.seed)
    warnings.simplefilter("ignore")  # OneCycleLR's first step
    task, profile = load_task(str(chosen.data), None), load_profile(chosen.device)
    bench = prepare(task, judging(task, "split"), BANK_SEED)
    space, metric = SPACES[chosen.space], METRICS.get(chosen.data.stem, "accuracy")
    budget = Budget(profile.ram_budget_bytes, profile.flash_budget_bytes, None, None)
    samples = Samples(bench, read_lessons(chosen.lessons, False).part(0)[0])
    loader = DataLoader(samples, recipe_of(bench, metric, True, False).batch_size, shuffle=True)
    began = time.monotonic()

    def objective(trial: optuna.Trial) -> tuple[float, float, float, float]:
        architecture = space.sample(trial, bench.problem)
        priced = price(architecture.lower(), profile)
        cost = summarise(priced.graph, priced.cost)
        error = PENALTY
        if not budget.refusal(priced.cost):
            score = train(priced.graph, bench, loader, metric)
            error = 1 - score
            row = {"id": architecture_id(architecture), "val_score": score, "cost": asdict(cost)}
            row["finished_s"] = time.monotonic() - began
            print(json.dumps(row), file=rows, flush=True)
        return error, cost.ram_bytes, cost.flash_bytes, cost.latency_ms

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=chosen.seed)  # Optuna's default, made repeatable
    study = optuna.create_study(directions=["minimize"] * 4, sampler=sampler)
    with chosen.jsonl.open("x") as rows:  # not where another one writes
        study.optimize(objective, timeout=60 * chosen.minutes)


if __name__ == "__main__":
    main()
