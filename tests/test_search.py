"""The search loop and the finals, with a pool that answers at once and trains nothing."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
from optuna.trial import TrialState

from nas.errors import RunError
from nas.hardware.budget import Budget, price
from nas.hardware.profile import load_profile
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d
from nas.progress import Progress
from nas.run_folder import TrialRecord, summarise
from nas.search import clock as search_clock
from nas.search import engine as search
from nas.search.clock import (
    EXPORT_S,
    UNVERIFIED_EXPORT_S,
    UNVERIFIED_EXPORT_S_PER_MEMBER,
    Clock,
    Reserve,
    reserved_s,
)
from nas.search.engine import ASKS_AT_ONCE, MOST_IDLE_ASKS, Search
from nas.search.finals import BEST, Finalist, shipped_file, train_finals
from nas.search.ledger import LEDGER, Ledger
from nas.search.rules import OBJECTIVES, Rules, front_of, scored, training_seed
from nas.search.study import Study
from nas.space import Problem, Sensor, Space, Trial, architecture_id
from nas.training.evaluate import Trained
from nas.training.recipe import FINAL_FACTOR, FINAL_SEEDS
from nas.training.workers import MOST_DEATHS, Training

PROBLEM = Problem((Sensor("x", "vector", (1, 1, 4)),), 3)
PROFILE = load_profile("cortex-m4-32k")


@dataclass(frozen=True)
class Point:
    """One fully connected layer; `twin` is a gene without effect on the graph."""

    units: int
    twin: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lower(self) -> Graph:
        op = Conv2d("o", ("x",), self.units, (1, 1), (1, 1), "valid", 8, False)
        return Graph((Input("x", (1, 1, 4)),), (op,), "o")


def space(most: int) -> Space:
    def sample(trial: Trial, problem: Problem) -> Point:
        return Point(trial.suggest_int("units", 1, most), trial.suggest_int("twin", 0, 0))

    def parse(document: Mapping[str, Any]) -> Point:
        return Point(document["units"], document["twin"])

    return Space("points", "", sample, parse)


def rules(most: int = 30, weight_bytes: int | None = None) -> Rules:
    budget = Budget(PROFILE.ram_budget_bytes, PROFILE.flash_budget_bytes, None, weight_bytes)
    return Rules(
        space(most), PROBLEM, PROFILE, budget, OBJECTIVES, "accuracy", None, seed=0,
        latency_scale_ms=100.0,
    )  # fmt: skip


def units(job: Training) -> int:
    return job.graph.shapes["o"][2]


class FakePool:
    """Answers every job at once with `answer(job)`, which may also raise."""

    def __init__(self, answer: Callable[[Training], Trained], count: int = 2) -> None:
        self.answer, self.count = answer, count
        self.jobs: list[Training] = []
        self.replaced = 0

    def submit(self, function: Any, job: Training | list[Training]) -> "Future[Any]":
        future: Future[Any] = Future()
        if isinstance(job, list):  # as `train_several` does
            self.jobs += job
            future.set_result([self._answer_or_error(each) for each in job])
            return future
        self.jobs.append(job)
        try:
            future.set_result(self.answer(job))
        except Exception as error:
            future.set_exception(error)
        return future

    def _answer_or_error(self, job: Training) -> Trained | FloatingPointError:
        try:
            return self.answer(job)
        except FloatingPointError as error:
            return error

    def replace(self) -> None:
        self.replaced += 1


def score(job: Training) -> Trained:
    """More units are better."""
    return Trained(b"model", 1 - 1 / (1 + units(job)), 0.5)


def study(seed: int = 0) -> Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    made = optuna.create_study(directions=["minimize"] * 4, sampler=sampler)
    return Study(made, OBJECTIVES)


def searched(
    pool: Any,
    run: Path,
    trials: int | None,
    given: Rules | None = None,
    held: Study | None = None,
    deadline_s: float | None = None,
) -> Search:
    made = Search(
        given or rules(), held or study(), pool, run, Clock(deadline_s), Progress(quiet=True)
    )
    made.go(trials)
    return made


def statuses(made: Search) -> Counter[str]:
    return Counter(record.status for record in made.study.records)


# ---------------------------------------------------------------- the loop


def test_trains_as_many_as_asked_for(tmp_path: Path) -> None:
    pool = FakePool(score)
    made = searched(pool, tmp_path, 7)
    assert len(pool.jobs) == statuses(made)["trained"] == len(made.trained) == 7
    jobs = {job.seed: job for job in pool.jobs}
    for record in made.trained:
        assert record.id == architecture_id(Point(**record.architecture))
        job = jobs.pop(training_seed(0, record.id, 0))
        assert not job.final and units(job) == record.architecture["units"]
        assert record.val_score == score(job).val_score and record.train_s == 0.5
        assert (tmp_path / "trained" / f"{record.id}.npz").read_bytes() == b"model"
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(lines) == 1 + len(made.study.records)
    assert made.board.shown is not None and made.board.shown.trained == 7
    states = {t.state for t in made.study._study.get_trials()}
    assert states <= {TrialState.COMPLETE, TrialState.FAIL}


def test_what_cannot_fit_is_never_trained(tmp_path: Path) -> None:
    limit = 200  # bytes of weights: 4 a unit and 9 constants a channel
    pool = FakePool(score)
    made = searched(pool, tmp_path, 5, rules(weight_bytes=limit))
    refused = [r for r in made.study.records if r.status == "infeasible"]
    assert refused and all(r.cost.weight_bytes > limit and r.val_score is None for r in refused)
    assert all(f"of {limit} bytes" in r.reason for r in refused)
    assert {units(job) for job in pool.jobs} <= set(range(1, 16))
    by_number = {t.number: t for t in made.study._study.get_trials()}
    for record in refused:
        told = by_number[record.number]
        assert told.state == TrialState.COMPLETE and told.constraints["weights"] > 0
        cost = record.cost
        assert told.values == [1.0, cost.ram_bytes, cost.flash_bytes, cost.latency_ms]
    assert all(max(by_number[r.number].constraints.values()) <= 0 for r in made.trained)


def test_nothing_is_trained_twice_and_a_used_up_space_ends_the_search(tmp_path: Path) -> None:
    pool = FakePool(score)
    made = searched(pool, tmp_path, None, rules(most=6))
    assert sorted(units(job) for job in pool.jobs) == [1, 2, 3, 4, 5, 6]
    count = statuses(made)
    assert count["trained"] == 6 and count["duplicate"] >= MOST_IDLE_ASKS
    assert (
        made._used_up() == f"nothing new in the last {MOST_IDLE_ASKS} proposals (0 over a budget)"
    )
    scores = {r.id: r.val_score for r in made.trained}
    copies = [r for r in made.study.records if r.status == "duplicate"]
    assert all(r.val_score == scores[r.id] and r.train_s == 0 for r in copies)


def test_a_search_goes_on_where_hardly_anything_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST_IDLE_ASKS", 20)
    given = rules(most=1500, weight_bytes=200)  # one in a hundred
    made = searched(FakePool(score), tmp_path, 5, given)
    assert statuses(made)["trained"] == 5 < statuses(made)["infeasible"] / 20
    monkeypatch.setattr(search, "MOST_REFUSED", 30)
    given = rules(most=10**6, weight_bytes=200)
    made = searched(FakePool(score), tmp_path / "none", 5, given)
    assert 30 <= made.refused < 30 + ASKS_AT_ONCE
    assert f"({made.refused} over a budget)" in made._used_up()


def test_the_trainers_of_other_runs_share_the_finals(tmp_path: Path) -> None:
    made = searched(FakePool(score), tmp_path, 1)
    assert made._trainers() == 2
    made.study.elsewhere = {"a", "b", "c"}  # of a run with two workers, one of them waiting
    assert made._trainers() == 4


def test_twins_under_way_are_trained_once(tmp_path: Path) -> None:
    class Slow(FakePool):
        def submit(self, function: Any, job: Training) -> "Future[Any]":
            future: Future[Any] = Future()
            self.jobs.append(job)
            threading.Timer(0.2, lambda: future.set_result(score(job))).start()
            return future

    pool = Slow(score, count=5)
    made = searched(pool, tmp_path, 3, rules(most=3))
    assert sorted(units(job) for job in pool.jobs) == [1, 2, 3]
    count = statuses(made)
    assert count["trained"] == 3 and count["duplicate"] > 0
    states = {t.state for t in made.study._study.get_trials()}
    assert states == {TrialState.COMPLETE}  # a twin waits for its score and is told it


def test_a_twin_of_what_nobody_trains_any_more_is_put_back(tmp_path: Path) -> None:
    """It was drawn while another run trained its equal, which has died since."""
    made = Search(
        rules(most=3), study(), FakePool(score), tmp_path, Clock(None), Progress(quiet=True)
    )  # fmt: skip
    drawn = made._draw()
    assert drawn is not None
    made.twins.append(drawn[0])
    made.study.elsewhere = {drawn[0].id}
    made._learn()
    assert made.twins == [drawn[0]]
    made.study.elsewhere = set()
    made._learn()
    assert made.twins == []
    trials = made.study._study.get_trials()
    assert [t.state for t in trials] == [TrialState.FAIL, TrialState.WAITING]
    made.go(3)
    assert drawn[0].id in {record.id for record in made.trained}


def test_what_others_train_beyond_the_trials_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_clock, "reserved_s", lambda *_: 0.0)
    held = searched(FakePool(score), tmp_path, 2).study
    held.elsewhere = {"a network of another run"}
    enough = searched(FakePool(score), tmp_path, 2, held=held, deadline_s=3.0)
    assert enough.clock.left_s() > 2.0 and len(enough.trained) == 2
    lacking = searched(FakePool(score), tmp_path, 3, held=held, deadline_s=1.0)
    assert lacking.clock.left_s() < 0, "it may yet fail there"


def test_a_resumed_search_goes_on(tmp_path: Path) -> None:
    first = searched(FakePool(score), tmp_path, 3, rules(most=5))
    pool = FakePool(score)
    again = searched(pool, tmp_path, 5, rules(most=5), first.study)
    assert len(pool.jobs) == 2 and len(again.trained) == 5
    assert len({r.id for r in again.trained}) == 5
    none = FakePool(score)
    searched(none, tmp_path, 5, rules(most=5), first.study)
    assert none.jobs == []


def test_a_training_that_fails_is_recorded_and_not_scored(tmp_path: Path) -> None:
    def answer(job: Training) -> Trained:
        if units(job) % 2:
            raise FloatingPointError("training diverged: loss nan at step 9")
        return score(job)

    pool = FakePool(answer)
    made = searched(pool, tmp_path, 5)
    failed = [r for r in made.study.records if r.status == "failed"]
    assert len(made.trained) == 5 and failed
    assert all("diverged" in r.reason and r.val_score is None for r in failed)
    assert not any((tmp_path / "trained" / f"{r.id}.npz").exists() for r in failed)
    states = {t.number: t.state for t in made.study._study.get_trials()}
    assert all(states[r.number] == TrialState.FAIL for r in failed)


def test_what_failed_is_not_trained_again(tmp_path: Path) -> None:
    def answer(job: Training) -> Trained:
        if units(job) % 2:
            raise FloatingPointError("training diverged: loss nan at step 9")
        return score(job)

    pool = FakePool(answer)
    made = searched(pool, tmp_path, None, rules(most=4))
    assert sorted(units(job) for job in pool.jobs) == [1, 2, 3, 4]
    assert {r.status for r in made.study.records if r.architecture["units"] % 2} == {"failed"}


class Dying(FakePool):
    """Loses what is under way at chosen submissions; `at_submit`: already when it is handed in."""

    def __init__(self, deadly: set[int], at_submit: bool) -> None:
        super().__init__(score)
        self.deadly, self.at_submit = deadly, at_submit

    def submit(self, function: Any, job: Training | list[Training]) -> "Future[Any]":
        number = len(self.jobs)
        if number not in self.deadly:
            return super().submit(function, job)
        self.jobs += job if isinstance(job, list) else [job]
        if self.at_submit:
            raise BrokenProcessPool("a child process terminated abruptly")
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("a child process terminated abruptly"))
        return future


@pytest.mark.parametrize("at_submit", (False, True))
def test_a_killed_worker_is_survived(at_submit: bool, tmp_path: Path) -> None:
    pool = Dying({1, 4}, at_submit)
    made = searched(pool, tmp_path, 6)
    assert pool.replaced == 2 and len(made.trained) == 6
    assert len({r.id for r in made.trained}) == 6
    # What was lost came back; a training that had ended before the death is not lost.
    again = [count for count in Counter(units(job) for job in pool.jobs).values() if count > 1]
    assert again and sum(again) - len(again) == 2


def test_what_finished_beside_a_death_is_kept(tmp_path: Path) -> None:
    class Both(FakePool):
        def submit(self, function: Any, job: Training) -> "Future[Any]":
            future = super().submit(function, job)
            if len(self.jobs) == 1:
                future = Future()
                future.set_exception(BrokenProcessPool("killed"))
            return future

    pool = Both(score)
    made = searched(pool, tmp_path, 3)
    assert len(made.trained) == 3
    assert Counter(units(job) for job in pool.jobs).most_common(2)[0][1] == 2
    assert len(pool.jobs) == 4  # only the lost one is trained once more


@pytest.mark.parametrize("at_submit", (False, True))
def test_workers_that_keep_dying_end_the_search_and_keep_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at_submit: bool
) -> None:
    held = study()
    made = searched(Dying(set(range(4, 1000)), at_submit=at_submit), tmp_path, 30, held=held)
    assert 1 <= len(made.trained) < 30
    assert "6 worker processes were killed, probably for memory" in capsys.readouterr().out
    waiting = [t for t in held._study.get_trials() if t.state == TrialState.WAITING]
    assert waiting and not made.pending, "what was under way is first when the run goes on"


def test_ctrl_c_closes_what_is_under_way_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, original, calls = study(), search.wait, []

    def wait(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    monkeypatch.setattr(search, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        searched(FakePool(score), tmp_path, 50, held=held)
    assert {t.state for t in held._study.get_trials()} == {TrialState.COMPLETE}
    kept = [r for r in held.records if r.status == "trained"]
    assert len(kept) == 9, "what had finished but was not looked at yet is kept too"
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(lines) == 1 + len(held.records)


class Late(FakePool):
    """The first job takes a while, each further one as much longer."""

    def __init__(self, seconds: float) -> None:
        super().__init__(score)
        self.seconds = seconds
        self.futures: list[Future[Any]] = []

    def submit(self, function: Any, job: Training) -> "Future[Any]":
        self.jobs.append(job)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self.futures.append(future)
        finish = partial(future.set_result, score(job))
        timer = threading.Timer(self.seconds * min(3, len(self.jobs)), finish)
        timer.daemon = True
        timer.start()
        return future


def test_trials_under_way_are_waited_for_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_clock, "reserved_s", lambda *_: 1.0)
    made = searched(Late(0.4), tmp_path, 3, deadline_s=5.0)
    assert len(made.trained) == 3


def test_the_deadline_leaves_the_time_of_the_finals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_clock, "reserved_s", lambda *_: 2.0)
    pool = Late(0.2)
    made = searched(pool, tmp_path, None, rules(most=10**6), deadline_s=3.5)
    assert made.trained
    assert 0 < made.clock.left_s() < 2.1
    assert len(made.trained) == len(pool.futures), "what ran is scored"
    assert TrialState.RUNNING not in {t.state for t in made.study._study.get_trials()}


class Processes(FakePool):
    """Trains in threads; as a pool of processes it begins whatever it has once been given."""

    def __init__(self, seconds: float) -> None:
        super().__init__(score)
        self.seconds = seconds
        self.begun_s: list[float] = []
        self.ahead: list[int] = []  # jobs that were under way when another one came
        self.futures: list[Future[Any]] = []
        self.threads = ThreadPoolExecutor(self.count)

    def submit(self, function: Any, job: Any) -> "Future[Any]":
        self.jobs.append(job)
        self.ahead.append(sum(not future.done() for future in self.futures))
        future: Future[Any] = Future()
        self.futures.append(future)
        future.set_running_or_notify_cancel()  # Python's pool says so of what is queued, too
        self.threads.submit(self._train, future, job)
        return future

    def _train(self, future: "Future[Any]", job: Any) -> None:
        self.begun_s.append(time.monotonic())
        time.sleep(self.seconds)
        several = isinstance(job, list)
        future.set_result([score(each) for each in job] if several else score(job))


def test_no_training_begins_in_the_time_of_the_finals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_clock, "reserved_s", lambda *_: 2.0)
    pool = Processes(0.2)  # and 0.5 is what such a training is said to take
    made = searched(pool, tmp_path, None, rules(most=500), deadline_s=4.5)
    assert len(made.trained) == len(pool.jobs) == len(pool.begun_s) > pool.count
    late_s = max(pool.begun_s) - made.clock.began_s - 2.5
    assert late_s < 0.15, "what was decided in time begins a moment later"
    assert TrialState.RUNNING not in {t.state for t in made.study._study.get_trials()}


def test_what_time_runs_out_for_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the search nor in its finals: the processes that train it are replaced."""
    monkeypatch.setattr(search_clock, "reserved_s", lambda *_: 0.5)
    pool = Processes(3.0)
    made = searched(pool, tmp_path, None, deadline_s=1.0)
    assert pool.replaced == 1 and not made.trained
    waiting = [t for t in made.study._study.get_trials() if t.state == TrialState.WAITING]
    assert len(waiting) == pool.count + 1, "they are first when the run goes on"
    clock = Clock(1.0)
    assert finals(pool, tmp_path, clock.left_s) and pool.replaced == 2
    assert -1.5 < clock.left_s() < 0


def test_trials_are_on_disk_while_the_search_runs(tmp_path: Path) -> None:
    lines: list[int] = []

    def watched(job: Training) -> Trained:
        file = tmp_path / "trials.csv"
        lines.append(len(file.read_text().splitlines()) - 1 if file.exists() else 0)
        return score(job)

    searched(FakePool(watched), tmp_path, search.WRITE_EVERY + 6)
    assert lines[0] == 0 and lines[-1] >= search.WRITE_EVERY


def test_clock_counts_earlier_sessions() -> None:
    clock = Clock(100.0, earlier_s=50.0)
    assert 50 <= clock.elapsed_s() < 51 and 99 < clock.left_s() <= 100
    assert Clock(None).left_s() == float("inf")


# ---------------------------------------------------------------- time for the finals


def entry(number: int, val_score: float, size: int, train_s: float = 10.0) -> TrialRecord:
    point = Point(size, number)
    priced = price(point.lower(), PROFILE)
    cost = summarise(priced.graph, priced.cost)
    identity = architecture_id(point)
    return TrialRecord(
        number, identity, "trained", val_score, cost, train_s, 0.0, "", point.to_json()
    )


FRONT = [entry(i, 0.5 + 0.04 * i, 2 + 4 * i) for i in range(6)]  # kernels pad channels to 4


def test_reserve_by_hand() -> None:
    given = rules()
    assert reserved_s(given, [], 2, 1000.0) == EXPORT_S
    # One member of 10 s on 2 workers: 2.2 * (5 + 10) = 33 s, for each of three seeds.
    assert reserved_s(given, FRONT[:1], 2, 1000.0) == pytest.approx(99 + EXPORT_S + 2)
    # Of 100 s a second seed may fill up to a third, a first one up to a half.
    assert reserved_s(given, FRONT[:1], 2, 100.0) == pytest.approx(33 + EXPORT_S + 2)
    assert reserved_s(given, FRONT[:1], 2, 40.0) == pytest.approx(20 + EXPORT_S + 2)


def test_what_is_not_verified_needs_no_time_for_it(tmp_path: Path) -> None:
    given, finals_s = rules(), 99
    assert reserved_s(given, [], 2, 1000.0, verifies=False) == UNVERIFIED_EXPORT_S < EXPORT_S
    export_s = UNVERIFIED_EXPORT_S + UNVERIFIED_EXPORT_S_PER_MEMBER
    assert reserved_s(given, FRONT[:1], 2, 1000.0, False) == pytest.approx(finals_s + export_s)
    for verifies in (True, False):
        reserve = Reserve(given, Clock(1000.0, verifies=verifies))
        assert reserve.look(FRONT[:1], 2) == reserved_s(given, FRONT[:1], 2, 1000.0, verifies)


def test_crosswise_a_final_training_takes_half_as_long_again() -> None:
    given = replace(rules(), crosswise=True)
    assert reserved_s(given, FRONT[:1], 2, 1000.0) == pytest.approx(148.5 + EXPORT_S + 2)


def test_reserve_grows_with_the_front_and_never_beyond_half() -> None:
    given = rules()
    sizes = [reserved_s(given, FRONT[:n], 2, 1000.0) for n in range(7)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 7
    assert reserved_s(given, FRONT, 4, 1000.0) < sizes[-1]
    for total in (10.0, 60.0, 300.0):
        export = EXPORT_S + 4.0 * 6 / 2
        assert reserved_s(given, FRONT, 2, total) <= total / 2 + export
    # A dominated candidate is not trained again and needs no time.
    worse = replace(entry(9, 0.4, 12), train_s=500.0)
    assert reserved_s(given, [*FRONT, worse], 2, 1000.0) == sizes[-1]


# ---------------------------------------------------------------- the finals


SEEDS = set(range(1, FINAL_SEEDS + 1))


def finals(
    pool: Any, run: Path, left_s: Callable[[], float] = lambda: float("inf"), count: int = 3
) -> list[Finalist]:
    return train_finals(rules(), FRONT[:count], pool, run, left_s, Progress(quiet=True))


def test_near_the_deadline_other_runs_are_awaited_no_longer_than_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere(Ledger):
        looks = 0

        def refresh(self) -> bool:
            self.looks += 1
            self.elsewhere = frozenset() if self.looks > 3 else frozenset({(FRONT[1].id, 1)})
            return False

    monkeypatch.setattr("nas.search.finals.time.sleep", lambda _: None)
    left = iter((float("inf"), float("inf"), float("inf")))  # then too little for a training
    ledger = Elsewhere(tmp_path)
    front = train_finals(
        rules(), FRONT[:2], FakePool(final_score), tmp_path, lambda: next(left, 1.0),  # type: ignore[arg-type]
        Progress(quiet=True), ledger=ledger,
    )  # fmt: skip
    assert front and ledger.looks > 3


def final_score(job: Training) -> Trained:
    """That of the search, and a little for the seed; the order of the front stays."""
    searched = 0.5 + 0.01 * (units(job) - 2)
    return Trained(f"final {job.seed}".encode(), searched + job.seed % 7 / 1000, 2.0)


def seeds_of(record: TrialRecord) -> list[int]:
    return [training_seed(0, record.id, repetition) for repetition in sorted(SEEDS)]


def test_the_best_members_are_a_training_ahead_of_the_rest(tmp_path: Path) -> None:
    pool = FakePool(final_score)
    finalists = finals(pool, tmp_path, count=6)
    assert [f.record for f in finalists] == FRONT[::-1], "the best first"
    best, rest = FRONT[:1:-1], FRONT[1::-1]
    assert len(best) == BEST == 4
    # What a candidate has after its first training is trained as one.
    turns = [(best, (1,)), (best, (2, 3)), (rest, (1,)), (rest, (2, 3))]
    expected = [
        training_seed(0, record.id, turn)
        for some, together in turns
        for record in some
        for turn in together
    ]
    assert [job.seed for job in pool.jobs] == expected
    assert all(job.final for job in pool.jobs)
    for finalist in finalists:
        assert set(finalist.scores) == SEEDS and finalist.length == FINAL_FACTOR
        assert sorted(finalist.val_scores) == sorted(finalist.scores.values())
        assert finalist.val_scores[0] == finalist.scores[finalist.shipped]
        seed = training_seed(0, finalist.record.id, finalist.shipped)
        assert shipped_file(tmp_path, finalist).read_bytes() == f"final {seed}".encode()


def test_the_training_nearest_to_the_mean_ships() -> None:
    def shipped(scores: dict[int, float]) -> int:
        return Finalist(FRONT[0], scores).shipped

    assert shipped({1: 0.9, 2: 0.7, 3: 0.72}) == 3
    assert shipped({1: 0.7, 2: 0.9}) == 1, "the earliest of equals, not the better one"
    assert shipped({2: 0.1}) == 2 and shipped({}) == 0
    assert Finalist(FRONT[0], {1: 0.9, 2: 0.7, 3: 0.72}).val_scores == [0.72, 0.9, 0.7]
    assert Finalist(FRONT[0], {1: 0.9, 2: 0.5}).estimate == pytest.approx(0.7)
    assert Finalist(FRONT[0], {}).estimate == FRONT[0].val_score


def test_a_lucky_score_does_not_survive_and_what_it_hid_comes_up(tmp_path: Path) -> None:
    lucky = entry(0, 0.95, 2)  # the smallest, and by chance the best: it hides all others
    solid = [entry(i, 0.7 + 0.01 * i, 2 + 4 * i) for i in (1, 2)]

    def answer(job: Training) -> Trained:
        return Trained(b"m", {2: 0.4, 6: 0.72, 10: 0.71}[units(job)] + job.seed % 3 / 1000, 2.0)

    records = [lucky, *solid]
    assert front_of(rules(), scored(records)) == [0]
    found = train_finals(
        rules(), records, FakePool(answer), tmp_path, lambda: float("inf"), Progress(quiet=True)
    )
    # The lucky one is still the smallest; of the others the larger one turned out to be no better.
    assert [f.record.number for f in found] == [1, 0]
    assert found[1].estimate < 0.41 and all(set(f.scores) == SEEDS for f in found)


def test_an_unlucky_candidate_has_a_final_training_and_a_hopeless_one_none(tmp_path: Path) -> None:
    """Final trainings add .04 to .06: what is level with a smaller member may have been unlucky."""
    unlucky, hopeless = entry(8, 0.7, 23), entry(9, 0.66, 24)

    def longer(job: Training) -> Trained:
        score = 0.73 if units(job) == 23 else 0.5 + 0.01 * (units(job) - 2)
        return Trained(b"final", score + 0.04 + job.seed % 3 / 100, 2.0)

    pool = FakePool(longer)
    trained = [*FRONT, unlucky, hopeless]
    finalists = train_finals(
        rules(), trained, pool, tmp_path, lambda: float("inf"), Progress(quiet=True)
    )
    made = [units(job) for job in pool.jobs]
    assert made.count(23) == FINAL_SEEDS and 24 not in made
    assert finalists[0].record == unlucky
    first = made.index(23)
    assert 0 < first < made.index(FRONT[0].architecture["units"]), "its hopes rank it"


def test_finals_of_an_earlier_session_are_taken_over(tmp_path: Path) -> None:
    first = finals(FakePool(final_score), tmp_path, count=2)
    pool = FakePool(final_score)
    again = finals(pool, tmp_path)
    assert {job.graph for job in pool.jobs} == {Point(**FRONT[2].architecture).lower()}
    assert len(pool.jobs) == FINAL_SEEDS
    assert [f.scores for f in again[1:]] == [f.scores for f in first]
    assert len(json.loads((tmp_path / "trained" / LEDGER).read_text())) == 3 * FINAL_SEEDS
    none = FakePool(final_score)
    assert [f.scores for f in finals(none, tmp_path)] == [f.scores for f in again]
    assert none.jobs == []


@pytest.mark.parametrize(
    ("distil", "most_macs", "train_on", "sizes"),
    (
        ("logits", 1000, "cpu", {1, 2}),
        ("features", 1000, "cpu", {1}),  # features teach one at a time
        ("logits", 0, "cpu", {1}),  # a pack of large networks would keep one process as long as two
        ("logits", 0, "cuda", {FINAL_SEEDS}),  # a step has room for all of them
    ),
)
def test_what_is_trained_as_one(
    distil: Any,
    most_macs: int,
    train_on: Any,
    sizes: set[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[int] = set()

    class Sizes(FakePool):
        def submit(self, function: Any, job: Training | list[Training]) -> "Future[Any]":
            assert isinstance(job, list)
            seen.add(len(job))
            return super().submit(function, job)

    monkeypatch.setattr("nas.training.packable.MOST_MACS", most_macs)
    pool: Any = Sizes(final_score)
    given = replace(rules(), distil=distil, train_on=train_on)
    train_finals(given, FRONT, pool, tmp_path, lambda: float("inf"), Progress(quiet=True))
    assert seen == sizes and len(pool.jobs) == len(FRONT) * FINAL_SEEDS


@pytest.mark.parametrize("lost", ({3}, {2}, {1, 3}, {1, 2, 3}))
def test_only_the_missing_final_trainings_are_made(lost: set[int], tmp_path: Path) -> None:
    finals(FakePool(final_score), tmp_path, count=2)
    for repetition in lost:
        (tmp_path / "trained" / f"{FRONT[1].id}.{repetition}.npz").unlink()
    pool = FakePool(final_score)
    again = finals(pool, tmp_path, count=2)
    made = sorted(training_seed(0, FRONT[1].id, repetition) for repetition in lost)
    assert sorted(job.seed for job in pool.jobs) == made
    assert [set(f.scores) for f in again] == [SEEDS, SEEDS]


def test_without_time_members_keep_the_search_training(tmp_path: Path) -> None:
    pool = FakePool(final_score)
    finalists = finals(pool, tmp_path, left_s=lambda: -1.0)
    assert pool.jobs == []
    assert [(f.shipped, f.length, f.val_scores) for f in finalists] == [
        (0, 1, [record.val_score]) for record in FRONT[2::-1]
    ]


def test_a_final_that_cannot_end_in_time_is_not_begun(tmp_path: Path) -> None:
    left = iter([100.0] * 5 + [1.0] * 99)  # a final takes 2 s
    pool = FakePool(final_score, count=1)
    finals(pool, tmp_path, left_s=lambda: next(left))
    assert 0 < len(pool.jobs) < 6


def test_a_final_that_would_wait_for_a_process_until_it_is_late_is_not_begun(
    tmp_path: Path,
) -> None:
    pool = Processes(0.2)  # and 0.5 is what such a training is said to take
    finals(pool, tmp_path, left_s=lambda: 0.9)
    known = pool.count + 1  # begun before one has ended
    assert pool.ahead[:known] == [0, 1, 2]
    assert pool.ahead[known:] and max(pool.ahead[known:]) < pool.count


def test_what_ended_beside_a_final_that_could_not_be_told_is_stored(tmp_path: Path) -> None:
    class Away(Ledger):
        def add(self, job: Any, model: bytes, val_score: float, taught_by: str) -> None:
            super().add(job, model, val_score, taught_by)
            raise RunError("the database was away")

    pool, ledger = FakePool(final_score), Away(tmp_path)
    with pytest.raises(RunError, match="was away"):
        train_finals(
            rules(), FRONT, pool, tmp_path, lambda: 99.0, Progress(quiet=True), ledger=ledger  # type: ignore[arg-type]
        )  # fmt: skip
    assert len(json.loads((tmp_path / "trained" / LEDGER).read_text())) == len(pool.jobs) > 1


def test_a_final_that_ended_is_stored_when_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.search.finals.wait", Mock(side_effect=KeyboardInterrupt))
    pool = FakePool(final_score)
    with pytest.raises(KeyboardInterrupt):
        finals(pool, tmp_path)
    assert len(json.loads((tmp_path / "trained" / LEDGER).read_text())) == len(pool.jobs) > 1


def test_finals_that_diverge_do_not_end_the_run(tmp_path: Path) -> None:
    def answer(job: Training) -> Trained:
        if job.seed == seeds_of(FRONT[0])[0]:
            raise FloatingPointError("diverged")
        return final_score(job)

    pool = FakePool(answer)
    assert [set(f.scores) for f in finals(pool, tmp_path)] == [SEEDS, SEEDS, SEEDS - {1}]
    assert len(pool.jobs) == 3 * FINAL_SEEDS, "what diverged is not tried again"


@pytest.mark.parametrize("at_submit", (False, True))
def test_what_a_killed_worker_takes_along_is_trained_again(at_submit: bool, tmp_path: Path) -> None:
    pool = Dying({1}, at_submit)
    pool.answer = final_score
    finalists = finals(pool, tmp_path)
    assert pool.replaced == 1
    assert all(set(f.scores) == SEEDS for f in finalists)
    again = Counter(job.seed for job in pool.jobs)
    total = 3 * FINAL_SEEDS
    assert len(again) == total and sum(again.values()) <= total + pool.count + 1


def test_workers_that_keep_dying_end_the_finals_with_a_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = Dying(set(range(2, 1000)), at_submit=False)
    pool.answer = final_score
    finalists = finals(pool, tmp_path)
    assert sum(len(f.scores) for f in finalists) == 2 and pool.replaced == MOST_DEATHS + 1
    assert "6 worker processes were killed, probably for memory" in capsys.readouterr().out
