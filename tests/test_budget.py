"""Budgets: excess as shares, refusals in words, and the check that a space fits at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from nas.errors import BudgetError
from nas.hardware import budget
from nas.hardware.budget import Budget, check_possible, price
from nas.hardware.cost import Cost
from nas.hardware.profile import load_profile
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d
from nas.space import Architecture, Problem, Sensor, Space, Trial
from search_spaces import SPACES

DEVICE = load_profile("cortex-m4-64k")
ROOMY = Budget(1 << 20, 1 << 20, None, None)
PROBLEM = Problem((Sensor("x", "vector", (1, 1, 8)),), 3)
COST = Cost(
    arena_bytes=500,
    weight_bytes=1234,
    ram_bytes=3000,
    flash_bytes=9000,
    latency_s=0.025,
    energy_j=1e-4,
    cycles=2e6,
    per_op=(),
)


def test_excess_is_a_share_of_the_limit() -> None:
    limits = Budget(2000, 10_000, 50.0, 1234)
    assert limits.excess(COST) == pytest.approx(
        {"ram": 0.5, "flash": -0.1, "latency": -0.5, "weights": 0.0}
    )
    assert Budget(4000, 9000, None, None).excess(COST) == pytest.approx(
        {"ram": -0.25, "flash": 0.0}
    )


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Budget(3000, 9000, 25.0, 1234), ""),
        (Budget(3000, 9000, None, None), ""),
        (Budget(2999, 9000, None, None), "RAM 3,000 of 2,999 bytes"),
        (Budget(3000, 8000, None, None), "Flash 9,000 of 8,000 bytes"),
        (Budget(3000, 9000, 24.9, None), "latency 25 of 24.9 ms"),
        (Budget(3000, 9000, None, 999), "weights 1,234 of 999 bytes"),
        (
            Budget(1, 2, 3.0, 4),
            "RAM 3,000 of 1 bytes; Flash 9,000 of 2 bytes; latency 25 of 3.0 ms;"
            " weights 1,234 of 4 bytes",
        ),
    ],
)
def test_refusal(limits: Budget, text: str) -> None:
    assert limits.refusal(COST) == text
    assert (max(limits.excess(COST).values()) > 0) is bool(text)


@dataclass(frozen=True)
class Line:
    """One fully connected layer of some width."""

    width: int

    def to_json(self) -> dict[str, Any]:
        return {"width": self.width}

    def lower(self) -> Graph:
        layer = Conv2d("o", ("x",), self.width, (1, 1), (1, 1), "same", 8, False)
        return Graph((Input("x", (1, 1, 8)),), (layer,), "o")


@dataclass
class Lines:
    """A space of `Line` that remembers what was drawn; the first choice is the widest."""

    narrowest: int = 10
    drawn: list[int] = field(default_factory=list)

    def sample(self, trial: Trial, problem: Problem) -> Architecture:
        assert problem == PROBLEM
        kind = trial.suggest_categorical("kind", ("wide", "narrow"))
        width = trial.suggest_int("width", self.narrowest, self.narrowest + 20)
        self.drawn.append(width + (1000 if kind == "wide" else 0))
        return Line(self.drawn[-1])

    def space(self) -> Space:
        return Space("lines", "a test", self.sample, self._parse)

    def _parse(self, document: Mapping[str, Any]) -> Architecture:
        return Line(**document)


def ram_of(width: int) -> int:
    return price(Line(width).lower(), DEVICE).cost.ram_bytes


def test_price_plans_and_estimates() -> None:
    priced = price(Line(12).lower(), DEVICE)
    assert priced.graph == Line(12).lower()
    assert priced.plan.arena_bytes == priced.cost.arena_bytes == 8 + 12


def test_the_first_probe_takes_every_first_choice() -> None:
    lines = Lines()
    check_possible(lines.space(), PROBLEM, DEVICE, ROOMY)
    assert lines.drawn == [1010]


def test_later_probes_are_random_and_repeat() -> None:
    runs: list[Sequence[int]] = []
    for _ in range(2):
        lines = Lines()
        limits = replace(ROOMY, ram_bytes=ram_of(12))
        check_possible(lines.space(), PROBLEM, DEVICE, limits)
        assert 10 <= lines.drawn[-1] <= 12 < min(lines.drawn[:-1])
        runs.append(lines.drawn)
    assert runs[0] == runs[1]


def test_impossible_budget_names_what_the_smallest_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "PROBES", 60)
    lines = Lines(narrowest=30)
    limits = replace(ROOMY, ram_bytes=ram_of(28))
    with pytest.raises(BudgetError) as caught:
        check_possible(lines.space(), PROBLEM, DEVICE, limits)
    assert len(lines.drawn) == 60
    smallest = min(map(ram_of, lines.drawn))
    assert str(caught.value) == (
        f"cortex-m4-64k: no network of the space 'lines' fits the budget; the smallest of 60 has"
        f" RAM {smallest:,} of {limits.ram_bytes:,} bytes; use fewer or smaller modalities, a"
        " larger device, or looser limits"
    )


def test_the_shipped_space() -> None:
    sensors = (Sensor("a", "series", (1, 100, 6)), Sensor("b", "image", (32, 32, 1)))
    problem = Problem(sensors, 5)
    profile = load_profile("cortex-m4-32k")
    own = Budget(profile.ram_budget_bytes, profile.flash_budget_bytes, None, None)
    check_possible(SPACES["conv"], problem, profile, own)
    with pytest.raises(BudgetError, match=r"the smallest of 400 has weights [\d,]+ of 10 bytes"):
        check_possible(SPACES["conv"], problem, profile, replace(own, weight_bytes=10))
