"""What a run optimises and under which limits, and which trained candidates that leaves on top."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.hardware.budget import Budget
from nas.hardware.profile import Profile
from nas.run_folder import CostSummary, TrialRecord
from nas.search import pareto
from nas.space import Problem, Space
from nas.training.lessons import Distil
from nas.training.metrics import Metric
from nas.training.recipe import TrainOn

OBJECTIVES = ("error", "ram", "flash", "latency")
MOST_EXPORTED = 40
WORST_ERROR = 1.0


@dataclass(frozen=True)
class Rules:
    """What every trial of a run has in common.

    Attributes:
        teacher: file of the answers of the run's teacher; None without distillation.
        crosswise: as in `training.validation`.
        distil: what a teacher teaches by.
        train_on: by what this session trains.
    """

    space: Space
    problem: Problem
    profile: Profile
    budget: Budget
    objectives: tuple[str, ...]
    metric: Metric
    teacher: Path | None
    seed: int
    latency_scale_ms: float
    crosswise: bool = False
    distil: Distil = "logits"
    train_on: TrainOn = "cpu"

    @property
    def teacher_name(self) -> str:
        """`teacher`, which run.json describes, or `none`."""
        return "none" if self.teacher is None else "teacher"

    def values(self, cost: CostSummary, val_score: float | None) -> dict[str, float]:
        """Objective -> value, minimised."""
        return {
            "error": WORST_ERROR if val_score is None else 1.0 - val_score,
            "ram": float(cost.ram_bytes),
            "flash": float(cost.flash_bytes),
            "latency": cost.latency_ms,
        }

    def normalised(self, cost: CostSummary, val_score: float) -> list[float]:
        """(error, RAM, Flash, latency) as shares of their limits: the hypervolume's axes."""
        return [
            1.0 - val_score,
            cost.ram_bytes / self.budget.ram_bytes,
            cost.flash_bytes / self.budget.flash_bytes,
            cost.latency_ms / self.latency_scale_ms,
        ]


def scored(records: Sequence[TrialRecord]) -> list[tuple[CostSummary, float]]:
    """(cost, val_score) of the records that have a score, in their order."""
    return [(r.cost, r.val_score) for r in records if r.val_score is not None]


def nondominated(rules: Rules, entries: Sequence[tuple[CostSummary, float]]) -> NDArray[np.int64]:
    """Indexes of the (cost, val_score) entries that none dominates in the chosen objectives.

    Entries that are equal in all of these are told apart by the others.
    """
    rows = [rules.values(cost, score) for cost, score in entries]
    if not rows:
        return np.zeros(0, np.int64)
    chosen = np.array([[row[name] for name in rules.objectives] for row in rows])
    every = np.array([[row[name] for name in OBJECTIVES] for row in rows])
    return np.flatnonzero(pareto.front(chosen) & pareto.front(every))


def undominated(
    rules: Rules,
    entries: Sequence[tuple[CostSummary, float]],
    front: Sequence[tuple[CostSummary, float]],
) -> NDArray[np.bool_]:
    """Which (cost, val_score) entries no member of `front` equals or beats in every objective."""

    def values(some: Sequence[tuple[CostSummary, float]]) -> NDArray[np.float64]:
        rows = [rules.values(cost, score) for cost, score in some]
        table = [[row[name] for name in rules.objectives] for row in rows]
        return np.array(table).reshape(-1, len(rules.objectives))

    beaten: NDArray[np.bool_] = np.all(values(front)[None] <= values(entries)[:, None], 2)
    alone: NDArray[np.bool_] = beaten.sum(1) == 0
    return alone


def front_of(rules: Rules, entries: Sequence[tuple[CostSummary, float]]) -> list[int]:
    """Indexes of the entries on the front; beyond MOST_EXPORTED the largest contributions stay.

    A contribution is the hypervolume that would be lost without the entry.
    """
    keep = nondominated(rules, entries)
    if not len(keep):
        return []
    points = np.array([rules.normalised(*entries[i]) for i in keep])
    best = pareto.largest_contributions(points, np.ones(points.shape[1]), MOST_EXPORTED)
    return [int(i) for i in keep[best]]


def front_hypervolume(rules: Rules, entries: Sequence[tuple[CostSummary, float]]) -> float:
    """Hypervolume of error, RAM, Flash, latency as shares of their limits; reference 1 in each."""
    points = np.array([rules.normalised(*entry) for entry in entries]).reshape(-1, 4)
    return pareto.hypervolume(points, np.ones(4))


def training_seed(seed: int, identity: str, repetition: int) -> int:
    """A seed for one training of one architecture."""
    text = json.dumps([seed, identity, repetition])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
