"""Trainings that are left halfway: when, what is told of them, and what they leave behind."""

import json
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_search import FRONT, FakePool, entry, rules, searched, study, units
from test_search import score as whole
from test_training import RECIPE, net, toy_set
from test_validation import Arrays, genes

from nas.data.task import make_task
from nas.network.integer import IntegerModel
from nas.run_folder import Status, TrialRecord
from nas.search.early_stopping import FEW_GAINS, bar, gains, hoped_for, hurdle
from nas.training import evaluate, workers
from nas.training.evaluate import Bench, Trained, prepare, train_student
from nas.training.loop import train
from nas.training.recipe import HALFWAY, Recipe
from nas.training.student import Student
from nas.training.validation import judging
from nas.training.workers import Training

COSTS = np.array([[1.0, 5.0], [5.0, 1.0], [2.0, 2.0]])
SCORES = np.array([0.7, 0.8, 0.9])
GAINS = np.linspace(0.0, 0.1, FEW_GAINS)  # the 95th percentile is 0.095


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("own", "least"),
    (
        ([9.0, 9.0], 0.9 - 0.095),
        ([1.0, 9.0], 0.7 - 0.095),  # the better ones take more of the first
        ([2.0, 2.0], 0.9 - 0.095),  # equal costs are rivals
        ([1.9, 1.9], 0.0),  # none takes so little
    ),
)
def test_a_network_is_judged_at_its_own_cost(own: list[float], least: float) -> None:
    assert bar(np.array(own), COSTS, SCORES, GAINS) == pytest.approx(least)
    assert bar(np.array(own), COSTS, SCORES, GAINS[1:]) == 0.0, "too few gains are known"


def watched(records: list[TrialRecord], gain: float) -> list[TrialRecord]:
    return [replace(r, halfway_score=(r.val_score or 0.0) - gain) for r in records]


def test_only_whole_trainings_are_rivals_and_tell_gains() -> None:
    many = watched([entry(n, 0.5 + 0.01 * n, 2) for n in range(FEW_GAINS)], 0.1)
    large = entry(99, 0.5, 60)
    given = rules()
    assert hurdle(given, large.cost, many) == pytest.approx(0.69 - 0.1)
    other: list[Status] = ["duplicate", "failed", "infeasible", "stopped"]
    noise = [replace(many[0], status=s, val_score=0.99, halfway_score=0.0) for s in other]
    assert hurdle(given, large.cost, [*many, *noise]) == pytest.approx(0.69 - 0.1)
    assert gains([*many, *noise, entry(5, 0.9, 60)]) == pytest.approx(np.full(FEW_GAINS, 0.1))
    assert hurdle(given, entry(98, 0.5, 1).cost, watched(FRONT * 4, 0.1)) == 0.0, "the smallest"
    assert hurdle(replace(given, objectives=("error",)), entry(98, 0.5, 1).cost, many) == (
        pytest.approx(0.69 - 0.1)
    ), "costs that are no objective do not excuse"
    assert hurdle(replace(given, crosswise=True), large.cost, many) is None


def test_what_is_hoped_for_never_reaches_the_rival() -> None:
    records = [watched([entry(n, 0.9, 2)], 0.001 * n)[0] for n in range(FEW_GAINS)]
    own = entry(99, 0.5, 60)
    least = hurdle(rules(), own.cost, records)
    assert least is not None and hoped_for(least - 1e-9, records) < 0.9
    assert hoped_for(0.5, records) == pytest.approx(0.5 + 0.01805)
    late = [*records, *watched([entry(98, 0.9, 2)], 0.8)]  # one that learnt after the look
    least = hurdle(rules(), own.cost, late)
    assert least is not None and hoped_for(least - 1e-9, late) < 0.9
    losing = watched(FRONT * 4, -0.1)
    assert hurdle(rules(), own.cost, losing) == pytest.approx(FRONT[-1].val_score)
    assert hoped_for(0.5, losing) == hoped_for(0.5, []) == 0.5 and hoped_for(1.0, records) == 1.0


# ---------------------------------------------------------------- the search


def halfway(job: Training) -> Trained:
    """More units are worse, the first ones excepted: soon nothing large has hope."""
    score = 0.9 - 0.01 * units(job)
    before = score - 0.01 - 0.01 * (job.seed % 7)
    assert job.hurdle is not None
    if before < job.hurdle:
        return Trained(None, None, 0.25, before)
    return Trained(b"model", score, 0.5, before)


def test_what_has_no_hope_is_left_and_never_a_member(tmp_path: Path) -> None:
    pool = FakePool(halfway)
    made = searched(pool, tmp_path, None, rules(most=60))
    records = made.study.records
    left = [r for r in records if r.status == "stopped"]
    count = Counter(r.status for r in records)
    assert count["trained"] + count["stopped"] == 60 == len(pool.jobs) and count["stopped"] > 10
    assert {job.hurdle for job in pool.jobs[:FEW_GAINS]} == {0.0}
    by_number = {t.number: t for t in made.study._study.get_trials()}
    for record in left:
        assert record.val_score is None and record.halfway_score is not None
        assert record.train_s == 0.25 and record.reason.startswith("halfway at 0.")
        told = by_number[record.number].values
        before = [r for r in records[: records.index(record)] if r.status == "trained"]
        assert 1 - told[0] == pytest.approx(hoped_for(record.halfway_score, before))
        assert any(
            r.val_score > 1 - told[0] and r.cost.flash_bytes <= record.cost.flash_bytes
            for r in before
            if r.val_score is not None
        )
        assert not (tmp_path / "trained" / f"{record.id}.npz").exists()
    again = [r for r in records if r.status == "duplicate" and r.id in {s.id for s in left}]
    assert again and all(r.val_score is None and r.halfway_score is not None for r in again)
    rows = (tmp_path / "trials.csv").read_text().splitlines()
    assert sum(",stopped," in row for row in rows) == len(left)
    assert not {r.id for r in made.trained} & {r.id for r in left}


def test_so_many_trainings_are_those_that_were_left_too(tmp_path: Path) -> None:
    pool = FakePool(halfway)
    made = searched(pool, tmp_path, 40, rules(most=60))
    assert len(pool.jobs) == 40 > len(made.trained)


def test_what_was_drawn_while_it_was_left_takes_over_what_is_known(tmp_path: Path) -> None:
    class Slow(FakePool):
        def submit(self, function: Any, job: Training) -> "Future[Any]":
            future: Future[Any] = Future()
            threading.Timer(0.2, lambda: future.set_result(Trained(None, None, 0.1, 0.4))).start()
            return future

    made = searched(Slow(whole, count=5), tmp_path, 3, rules(most=3))
    count = Counter(r.status for r in made.study.records)
    assert count["stopped"] == 3 and count["duplicate"] > 0 and not made.twins
    assert {r.halfway_score for r in made.study.records} == {0.4}
    assert {t.values[0] for t in made.study._study.get_trials()} == {0.6}


def test_a_session_goes_on_with_the_gains_of_the_one_before(tmp_path: Path) -> None:
    held = study()
    searched(FakePool(halfway), tmp_path, FEW_GAINS, rules(most=60), held)
    pool = FakePool(halfway)
    searched(pool, tmp_path, FEW_GAINS + 2, rules(most=60), held)
    assert any(job.hurdle for job in pool.jobs[:3])


def test_a_twin_of_what_was_left_is_a_duplicate(tmp_path: Path) -> None:
    made = searched(FakePool(halfway), tmp_path, None, rules(most=60))
    left = next(r for r in made.study.records if r.status == "stopped")
    told = made.study._study.get_trials()[left.number].values
    for record in made.study.records:
        if record.id == left.id and record.status == "duplicate":
            assert made.study._study.get_trials()[record.number].values == pytest.approx(told)
            return
    raise AssertionError("it was never drawn again")


# ---------------------------------------------------------------- the training


def test_a_training_that_is_looked_at_ends_as_if_it_had_not_been() -> None:
    seen: list[int] = []

    def look(held: Any) -> bool:
        held.eval()
        held({name: torch.zeros(2, *x.shape[2:]) for name, x in data.inputs.items()})
        seen.append(1)
        return True

    data, (plain, looked) = toy_set(), (net(seed=3), net(seed=3))
    recipe = replace(RECIPE, steps=8, dropout=0.5)
    assert train(plain, data, recipe, 5) and train(looked, data, recipe, 5, look)
    assert seen == [1]
    for one, other in zip(plain.parameters(), looked.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_training_ends_halfway_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[None] = []
    step = torch.optim.AdamW.step

    def counted(*given: Any, **more: Any) -> Any:
        steps.append(None)
        return step(*given, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    assert not train(net(), toy_set(), replace(RECIPE, steps=8), 1, lambda _: False)
    assert len(steps) == 8 * HALFWAY


def test_one_that_diverged_halfway_fails() -> None:
    teacher = np.full((2, 90, 3), np.nan, np.float32)
    recipe = replace(RECIPE, steps=8, distil_weight=0.5)
    with pytest.raises(FloatingPointError, match="diverged: loss nan at step 4"):
        train(net(), toy_set(teacher), recipe, 1, lambda _: True)


@pytest.fixture
def bench(toy_arrays: Arrays) -> Bench:
    task = make_task(toy_arrays, "toy")
    return prepare(task, judging(task, "split"), 0)


@pytest.mark.parametrize("least", (None, 0.0, 1.1))
def test_a_student_below_the_hurdle_has_no_model(least: float | None, bench: Bench) -> None:
    graph, recipe = genes(bench).lower(), Recipe(steps=6, batch_size=8)
    made = train_student(bench, graph, recipe, "accuracy", None, 0, hurdle=least)
    assert (made.model is None) == (made.val_score is None) == (least == 1.1)
    assert (made.halfway_score is None) == (least is None)
    if made.model is not None:
        unlooked = train_student(bench, graph, recipe, "accuracy", None, 0)
        assert made.val_score == unlooked.val_score and unlooked.model is not None
        hashes = [IntegerModel.from_bytes(each).hash for each in (made.model, unlooked.model)]
        assert hashes[0] == hashes[1]


def test_a_process_passes_the_hurdle_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers._Process, "prepared", bench)
    job = Training(genes(bench).lower(), "accuracy", None, final=False, seed=0, hurdle=1.1)
    made = workers.train(job)
    assert made.model is None and made.halfway_score is not None


def test_the_score_halfway_is_that_of_the_judging_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(evaluate, "predict", lambda *given: seen.append(given) or _third(bench))
    judge = evaluate.Halfway(bench, "accuracy", 0.5)
    hit = bench.labels["val"] == 0
    assert judge(Student(genes(bench).lower(), bench.training.scales)) == (hit.mean() >= 0.5)
    assert judge.score == pytest.approx(hit.mean())
    assert all(len(x) == len(hit) for x in seen[0][1].values())


def _third(bench: Bench) -> torch.Tensor:
    """Logits that name the first class for every row."""
    return torch.eye(bench.task.classes)[:1].repeat(len(bench.labels["val"]), 1)


def test_records_of_earlier_versions_are_read() -> None:
    document = json.loads(json.dumps(FRONT[0].to_json()))
    del document["halfway_score"]
    assert TrialRecord.from_json(document) == FRONT[0]
