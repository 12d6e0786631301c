"""The sampler that models accuracy only: its vectors, its model, its arithmetic, its proposals."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from made_up_rules import rules_for

from nas.hardware.budget import price
from nas.run_folder import TrialRecord, summarise
from nas.search.exact_cost import (
    AXES,
    FIRST_GROW,
    GROW,
    RANDOM_FIRST,
    Candidate,
    ExactCostSampler,
)
from nas.search.features import Encoder, flatten
from nas.search.improvement import cost_points, expected_improvement, least_errors
from nas.search.pareto import hypervolume
from nas.search.rules import OBJECTIVES, Rules
from nas.search.surrogate import ERROR_FLOOR, Points, Surrogate
from nas.search.trial_record import RECORD
from nas.space import Genes, Problem, Sensor, architecture_id

SERIES = Problem((Sensor("a", "series", (1, 32, 3)), Sensor("b", "series", (1, 32, 2))), 4)
ROOMY = rules_for(*OBJECTIVES, problem=SERIES, ram_bytes=3000, flash_bytes=20_000)


# Vectors of architectures.


def document(width: int, fusion: str = "add", *sensors: str) -> dict[str, Any]:
    return {
        "fusion": fusion,
        "head": None,
        "branches": [{"sensor": name, "width": width, "halve": True} for name in sensors],
    }


def test_what_lies_in_a_list_is_named_by_its_sensor_or_its_place() -> None:
    found = dict(flatten({"branches": [{"sensor": "x", "bits": [8, 2]}], "none": None}))
    assert found == {
        ".branches.x.sensor": "x",
        ".branches.x.bits.0": 8.0,
        ".branches.x.bits.1": 2.0,
    }


def test_vectors_know_order_words_and_absence() -> None:
    examples = [
        document(w, f, *s) for w in (8, 16, 64) for f in ("add", "gate") for s in ("x", "xy")
    ]
    encode = Encoder(examples)
    base = encode(document(8, "add", "x"))
    assert base.min() >= 0 and base.max() <= 1

    def apart(other: dict[str, Any]) -> float:
        return float(((encode(other) - base) ** 2).sum())

    assert apart(document(16, "add", "x")) == pytest.approx(0.25)  # one place of two
    assert apart(document(64, "add", "x")) == pytest.approx(1.0)
    assert apart(document(8, "gate", "x")) == pytest.approx(1.0)
    # A sensor more: there or not counts once, though four things are said of it.
    assert apart(document(8, "add", "x", "y")) == pytest.approx(1.0 + 0.25)


# The surrogate.


def points(count: int, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    return Points(rng.random((count, 5)), rng.random((count, 4)) * 6)


def errors_of(held: Points, noise: float = 0.0) -> Any:
    rng = np.random.default_rng(1)
    shape = (
        0.3 * np.sin(3 * held.genes[:, 0])
        - 0.3 * held.costs[:, 0]
        + noise * rng.normal(size=len(held))
    )
    return 0.1 * np.exp(shape)


def test_a_surrogate_predicts_what_it_has_not_seen() -> None:
    seen, unseen = points(80), points(40, seed=2)
    model = Surrogate(seen, errors_of(seen))
    mean, deviation = model.predict(unseen)
    truth = np.log(errors_of(unseen) + ERROR_FLOOR)
    assert np.corrcoef(mean, truth)[0, 1] > 0.9
    assert (np.abs(mean - truth) < 2 * deviation).mean() > 0.5
    assert model.predict(seen)[1].mean() < 0.9 * deviation.mean()


@pytest.mark.parametrize("error", (0.0, 0.3))
def test_equal_scores_leave_a_doubt(error: float) -> None:
    model = Surrogate(points(12), np.full(12, error))
    mean, deviation = model.predict(points(5, seed=2))
    np.testing.assert_allclose(mean, np.log(error + ERROR_FLOOR))
    assert (deviation > 0).all()


def test_a_surrogate_does_not_believe_luck() -> None:
    """With noise between seeds the mean at a trained network is not its score."""
    seen = points(60)
    quiet, noisy = (Surrogate(seen, errors_of(seen, noise)) for noise in (0.0, 0.8))
    assert noisy.place[2] > quiet.place[2]
    told = np.log(errors_of(seen, 0.8) + ERROR_FLOOR)
    lucky = told.argmin()
    assert noisy.predict(seen)[0][lucky] > told[lucky] + 0.3


def test_what_is_in_training_is_believed() -> None:
    seen, running = points(30), points(3, seed=5)
    model = Surrogate(seen, errors_of(seen))
    mean, before = model.predict(running)
    model.believe(running)
    again, after = model.predict(running)
    assert (after < before).all()
    np.testing.assert_allclose(again, mean, atol=1e-6)


# Expected improvement.


@pytest.mark.parametrize("axes", (0, 1, 2, 3))
def test_improvement_without_doubt_is_the_hypervolume_gained(axes: int) -> None:
    rng = np.random.default_rng(axes)
    costs, errors = rng.random((6, axes)) * 0.8, rng.random(6) * 0.5 + 0.2
    new_costs, new_errors = rng.random((20, axes)) * 0.8, rng.random(20) * 0.6 + 0.05
    boxes = cost_points(axes, 20_000)
    best = least_errors(boxes, costs, errors)
    mean, none = np.log(new_errors + ERROR_FLOOR), np.full(20, 1e-6)
    gains = expected_improvement(boxes, best, new_costs, mean, none)
    reference = np.ones(axes + 1)
    known = np.c_[errors, costs]
    before = hypervolume(known, reference)
    assert (1 - best).mean() == pytest.approx(before, abs=0.004)
    for gain, cost, error in zip(gains, new_costs, new_errors, strict=True):
        grown = hypervolume(np.r_[known, [[error, *cost]]], reference)
        assert gain == pytest.approx(grown - before, abs=0.004)


def test_expected_improvement_is_the_mean_over_the_posterior() -> None:
    boxes = cost_points(1, 500)
    best = least_errors(boxes, np.array([[0.3]]), np.array([0.2]))
    mean, deviation, cost = np.log(np.array([0.22])), np.array([0.5]), np.array([[0.1]])
    seen = expected_improvement(boxes, best, cost, mean, deviation)[0]
    draws = np.exp(np.random.default_rng(0).normal(mean[0], deviation[0], 20_000)) - ERROR_FLOOR
    each = [np.maximum(0, level - draws).mean() for level in best[boxes[:, 0] >= 0.1]]
    assert seen == pytest.approx(sum(each) / len(boxes), rel=0.01)


# Proposals.


def study_of(rules: Rules, seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = ["minimize"] * len(rules.objectives)
    return optuna.create_study(directions=directions, sampler=ExactCostSampler(rules, seed))


def finish(
    study: optuna.Study, rules: Rules, trial: optuna.Trial, stopped: bool = False
) -> TrialRecord:
    """Trains nothing: a wider network is better, and the second sensor tells more."""
    architecture = rules.space.sample(trial, rules.problem)
    priced = price(architecture.lower(), rules.profile)
    assert rules.budget.refusal(priced.cost) == "", "what cannot fit is not proposed"
    cost = summarise(priced.graph, priced.cost)
    score = 1 - 0.5 / (1 + cost.weight_bytes / 1000) - 0.3 * ("b" not in cost.modalities)
    identity = architecture_id(architecture)
    record = TrialRecord(
        trial.number, identity, "trained", score, cost, 1.0, 1.0, "", architecture.to_json()
    )
    if stopped:
        record = replace(record, status="stopped", val_score=None, halfway_score=score - 0.01)
    trial.set_user_attr(RECORD, json.dumps(record.to_json()))
    values = rules.values(cost, score)
    study.tell(trial, [values[name] for name in rules.objectives])
    return record


@pytest.mark.parametrize("objectives", (OBJECTIVES, ("error",), ("error", "flash")))
def test_proposals_fit_are_new_and_beat_chance(
    objectives: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = rules_for(*objectives, problem=SERIES, ram_bytes=3000, flash_bytes=20_000)

    def reached(seed: int) -> float:
        study = study_of(rules, seed)
        done = [finish(study, rules, study.ask()) for _ in range(RANDOM_FIRST + 16)]
        assert len({record.id for record in done}) == len(done)
        points = np.array([rules.normalised(r.cost, r.val_score or 0.0) for r in done])
        chosen = [0, *(AXES[name] for name in objectives if name in AXES)]
        return hypervolume(points[:, chosen], np.ones(len(chosen)))

    modelled = sum(reached(seed) for seed in (1, 2))
    monkeypatch.setattr("nas.search.exact_cost.RANDOM_FIRST", 1000)
    assert modelled > sum(reached(seed) for seed in (1, 2))


def test_the_same_seed_asks_for_the_same() -> None:
    def asked(seed: int) -> list[str]:
        study = study_of(ROOMY, seed)
        return [finish(study, ROOMY, study.ask()).id for _ in range(RANDOM_FIRST + 3)]

    assert asked(3) == asked(3) != asked(4)


def test_what_is_in_training_is_not_asked_for_again() -> None:
    study = study_of(ROOMY)
    for _ in range(RANDOM_FIRST):
        finish(study, ROOMY, study.ask())
    asked = [ROOMY.space.sample(study.ask(), SERIES) for _ in range(6)]
    assert len({architecture_id(architecture) for architecture in asked}) == 6


def test_another_session_goes_on_from_the_study() -> None:
    """All that the sampler knows is in the study: what another one trained, it does not ask for."""
    study = study_of(ROOMY)
    done = {finish(study, ROOMY, study.ask()).id for _ in range(RANDOM_FIRST + 2)}
    study.sampler = ExactCostSampler(ROOMY, 0)  # the same seed draws the same candidates
    again = {finish(study, ROOMY, study.ask()).id for _ in range(RANDOM_FIRST)}
    assert not done & again


def test_what_was_left_halfway_counts_with_what_is_expected_of_it() -> None:
    study = study_of(ROOMY)
    done = [finish(study, ROOMY, study.ask(), stopped=n % 2 > 0) for n in range(RANDOM_FIRST)]
    sampler = study.sampler
    assert isinstance(sampler, ExactCostSampler)
    finish(study, ROOMY, study.ask())
    told = [trial.values[0] for trial in study.get_trials()]
    assert [sampler._trained[record.id].error for record in done] == told[:RANDOM_FIRST]


def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("MOST_MODELLED", RANDOM_FIRST), ("NEAREST", 5), ("REMOTE", 2)):
        monkeypatch.setattr(f"nas.search.exact_cost.{name}", size)


def test_the_pool_is_drawn_before_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a session that goes on with more networks than the model keeps."""

    def drawn(trained: int) -> list[int]:
        study = study_of(ROOMY)
        for _ in range(trained):
            finish(study, ROOMY, study.ask())
        study.sampler = sampler = ExactCostSampler(ROOMY, 1)
        priced, counts = sampler._candidate, [0, 0]
        for place in range(2):

            def counted(genes: Genes, child: bool = False, place: int = place) -> Candidate | None:
                counts[place] += 1
                return priced(genes, child)

            monkeypatch.setattr(sampler, "_candidate", counted)
            finish(study, ROOMY, study.ask())
        return counts

    assert drawn(RANDOM_FIRST) == [FIRST_GROW, GROW]
    small_model(monkeypatch)
    assert drawn(RANDOM_FIRST + 1) == [FIRST_GROW, GROW]


def test_given_genes_are_left_alone() -> None:
    study = study_of(ROOMY)
    finish(study, ROOMY, study.ask())
    given = dict(study.trials[0].params)
    study.enqueue_trial(given)
    trial = study.ask()
    ROOMY.space.sample(trial, SERIES)
    assert trial.params == given


def test_where_nothing_fits_a_trial_is_left_to_chance() -> None:
    rules = rules_for(*OBJECTIVES, problem=SERIES, ram_bytes=1, flash_bytes=1)
    study = study_of(rules)
    architecture = rules.space.sample(study.ask(), SERIES)
    assert rules.budget.refusal(price(architecture.lower(), rules.profile).cost)


def test_of_many_networks_the_model_keeps_those_near_the_front(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_model(monkeypatch)
    sampler = ExactCostSampler(ROOMY, 0)
    front = {"f0": (0.2, 0.4), "f1": (0.5, 0.3), "f2": (0.8, 0.2)}  # cost, error
    behind = {f"b{place}": (0.9, 0.25 + 0.05 * place) for place in range(RANDOM_FIRST - 2)}
    for name, (cost, error) in sorted((front | behind).items()):
        vector = np.full(4, cost)
        sampler._admit(Candidate(name, {}, vector, vector, vector[:3], error=error))
    kept = {candidate.id for candidate in sampler._seen}
    assert len(kept) == 5 + 2 and {*front, "b0", "b1"} <= kept
    assert len(sampler._trained) == len(front | behind), "what was trained is not asked for again"


def test_with_many_networks_the_model_is_asked_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_model(monkeypatch)
    study = study_of(ROOMY)
    sampler, sizes = study.sampler, []
    assert isinstance(sampler, ExactCostSampler)
    made = sampler._model
    monkeypatch.setattr(sampler, "_model", lambda: (sizes.append(len(sampler._seen)), made())[1])
    done = [finish(study, ROOMY, study.ask()).id for _ in range(3 * RANDOM_FIRST)]
    assert len(done) == len(set(done)) and len(sizes) > RANDOM_FIRST
    assert max(sizes) <= RANDOM_FIRST
