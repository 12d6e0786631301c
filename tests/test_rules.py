"""Which trained candidates are on the front of a run, and the seeds of trainings."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_up_rules import rules_for
from made_up_run import write_run

from nas.export.front import drop_dominated
from nas.run_folder import CostSummary, read_front, write_front
from nas.search import rules
from nas.search.pareto import hypervolume
from nas.search.rules import (
    OBJECTIVES,
    front_hypervolume,
    front_of,
    nondominated,
    training_seed,
)

Entry = tuple[CostSummary, float]
SUBSETS = [c for k in range(1, 5) for c in itertools.combinations(OBJECTIVES, k)]


def entry(score: float, ram: int = 100, flash: int = 400, latency: float = 5.0) -> Entry:
    return CostSummary(ram, flash, ram, flash, latency, latency, "8", "a"), score


def spread(count: int) -> list[Entry]:
    """Entries none of which dominates another: more RAM buys accuracy, more Flash buys time."""
    rng = np.random.default_rng(count)
    drawn = rng.uniform(0.1, 0.9, (count, 2))
    return [
        entry(float(a), int(1000 * a**2), int(4000 * b), float(50 * (1 - b) ** 2)) for a, b in drawn
    ]


def test_values_by_name() -> None:
    cost = entry(0.0, 100, 400, 5.0)[0]
    values = {"error": 0.25, "ram": 100.0, "flash": 400.0, "latency": 5.0}
    assert rules_for().values(cost, 0.75) == values
    assert rules_for().values(cost, None) == values | {"error": 1.0}
    assert tuple(values) == OBJECTIVES
    assert rules_for().normalised(cost, 0.75) == pytest.approx([0.25, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        (("error",), [0]),
        (("ram",), [3]),
        (("error", "ram"), [0, 1, 3]),
        (("error", "latency"), [0, 2]),
        (("flash", "latency"), [2]),
        (OBJECTIVES, [0, 1, 2, 3]),
    ],
)
def test_chosen_objectives(objectives: tuple[str, ...], expected: list[int]) -> None:
    entries = [
        entry(0.9, ram=300),
        entry(0.8, ram=200),
        entry(0.8, ram=400, latency=4.0),
        entry(0.5, ram=100),
        entry(0.5, ram=100, flash=500),
    ]
    assert front_of(rules_for(*objectives), entries) == expected


@pytest.mark.parametrize("objectives", SUBSETS, ids="+".join)
def test_front_by_definition(objectives: tuple[str, ...]) -> None:
    rng = np.random.default_rng(len(objectives))
    chosen = rules_for(*objectives)
    for n in (0, 1, 2, 30):
        grid = rng.integers(1, 4, (n, 4))
        entries = [entry(a / 4, int(b), int(c), float(d)) for a, b, c, d in grid]
        rows = [chosen.values(*e) for e in entries]

        def beats(q: dict[str, float], p: dict[str, float], names: Sequence[str]) -> bool:
            return all(q[k] <= p[k] for k in names) and any(q[k] < p[k] for k in names)

        # The other objectives only part those that are equal in all chosen ones.
        expected = [
            i
            for i, p in enumerate(rows)
            if not any(
                beats(q, p, objectives)
                or (all(q[k] == p[k] for k in objectives) and beats(q, p, OBJECTIVES))
                for q in rows
            )
        ]
        assert nondominated(chosen, entries).tolist() == expected
        assert front_of(chosen, entries) == expected


def test_equal_entries_are_all_on_the_front() -> None:
    entries = [entry(0.9), entry(0.8), entry(0.9)]
    assert front_of(rules_for(*OBJECTIVES), entries) == [0, 2]
    assert front_of(rules_for(*OBJECTIVES), []) == []


def test_at_most_forty_stay() -> None:
    run = rules_for(*OBJECTIVES)
    assert front_of(run, spread(40)) == list(range(40))
    entries = spread(52)
    kept = front_of(run, entries)
    assert len(kept) == rules.MOST_EXPORTED == 40
    assert kept == sorted(set(kept))
    points = np.array([run.normalised(*e) for e in entries])
    whole = hypervolume(points, np.ones(4))
    lost = [whole - hypervolume(np.delete(points, i, 0), np.ones(4)) for i in range(52)]
    least_kept = min(lost[i] for i in kept)
    assert all(lost[i] <= least_kept + 1e-12 for i in set(range(52)) - set(kept))


def test_a_twin_does_not_cost_its_original_a_place() -> None:
    run, entries = rules_for(*OBJECTIVES), spread(45)
    assert front_of(run, [*entries, *entries]) == front_of(run, entries)


def test_hypervolume_of_shares() -> None:
    run = rules_for(*OBJECTIVES)
    assert front_hypervolume(run, []) == 0.0
    half = entry(0.5, ram=500, flash=2000, latency=25.0)
    assert front_hypervolume(run, [half]) == pytest.approx(1 / 16)
    assert front_hypervolume(run, [half, entry(0.4, 600, 3000, 30.0)]) == pytest.approx(1 / 16)
    assert front_hypervolume(run, [half, entry(0.9, ram=2000)]) == pytest.approx(1 / 16)


def test_training_seed() -> None:
    assert training_seed(0, "c0123456789ab", 0) == 1871731859
    seeds = {
        training_seed(seed, name, i) for seed in range(5) for name in ("c0", "c1") for i in range(5)
    }
    assert len(seeds) == 50
    assert all(0 <= seed < 1 << 32 for seed in seeds)


def test_what_measured_costs_dominate_leaves_the_front(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", candidates=4)
    drop_dominated(run, rules_for(*OBJECTIVES))
    before = read_front(run)
    assert len(before) > 1
    assert drop_dominated(run, rules_for(*OBJECTIVES)) == 0 and read_front(run) == before
    worse, best = before[-1], before[0]
    for name in ("val_score", "ram_bytes", "flash_bytes", "latency_ms"):
        worse[name] = best[name]
    worse["flash_bytes"] = str(int(best["flash_bytes"]) + 1)
    write_front(run, before)
    assert drop_dominated(run, rules_for(*OBJECTIVES)) == 1
    assert [row["id"] for row in read_front(run)] == [row["id"] for row in before[:-1]]
    assert not (run / "candidates" / worse["id"]).exists()
    assert (run / "candidates" / best["id"]).is_dir()
