"""The rules of a run that nobody began."""

from typing import Any

from nas.hardware.budget import Budget
from nas.hardware.profile import load_profile
from nas.search.rules import Rules
from nas.space import Problem, Sensor
from search_spaces import SPACES

PROBLEM = Problem((Sensor("a", "series", (1, 16, 2)),), 2)


def rules_for(
    *objectives: str,
    problem: Problem = PROBLEM,
    ram_bytes: int = 1000,
    flash_bytes: int = 4000,
) -> Rules:
    """Of the convolutional space on the larger device."""
    budget = Budget(ram_bytes, flash_bytes, None, None)
    device = load_profile("cortex-m4-64k")
    settings: dict[str, Any] = {"teacher": None, "seed": 0, "latency_scale_ms": 50.0}
    return Rules(SPACES["conv"], problem, device, budget, objectives, "accuracy", **settings)
