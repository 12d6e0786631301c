"""What a run that was stopped leaves, and what a resumed one makes of it."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from test_end_to_end import World, table
from test_search import (
    SEEDS,
    FakePool,
    Point,
    final_score,
    finals,
    rules,
    score,
    searched,
    units,
)

from nas.cli import main
from nas.data.task import load_task
from nas.errors import DataError, RunError
from nas.export import verify
from nas.export.verification import Verification
from nas.interrupts import is_interrupted, no_interrupt
from nas.search import engine as search
from nas.search import ledger as ledger_module
from nas.search.engine import Search
from nas.search.rules import OBJECTIVES, training_seed
from nas.search.study import Study, default_storage, open_study
from nas.training import teaching
from nas.training.recipe import FINAL_SEEDS
from nas.training.teacher import Answers, Member, member_file
from nas.training.validation import judging
from nas.training.workers import DataSource, Training, bench, pool, train

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import kills  # noqa: E402  (what looks at a run from outside)


class Killed(BaseException):
    """Stands for `kill -9`: nothing below it may clean up."""


def opened(run: Path, resume: bool = True) -> Study:
    return open_study(default_storage(run), OBJECTIVES, lambda seed: RandomSampler(seed), 0, resume)


def on_disk(run: Path) -> set[str]:
    return {file.stem for file in (run / "trained").glob("*.npz")}


def kill_at(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int, after: bool) -> None:
    """The process dies at the `call`th call of `place.name`, before or after its work."""
    original, calls = getattr(place, name), [0]

    def deadly(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] < call:
            return original(*arguments, **named)
        if after:
            original(*arguments, **named)
        raise Killed

    monkeypatch.setattr(place, name, deadly)


class Turns(FakePool):
    """Keeps jobs under way: one ends each time another is handed in beyond `count`."""

    def submit(self, function: Any, job: Training) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self.jobs.append(job)
        self.waiting = [*getattr(self, "waiting", []), (future, job)]
        if len(self.waiting) > self.count:
            first, done = self.waiting.pop(0)
            first.set_result(self.answer(done))
        return future


# ---------------------------------------------------------------- the search


@pytest.mark.parametrize(
    ("name", "after"),
    (
        ("ask", True),
        ("note", False),
        ("note", True),
        ("write_atomic", True),
        ("tell", True),
        ("put_back", False),
        ("put_back", True),
    ),
)
def test_a_kill_loses_nothing_and_trains_nothing_twice(
    name: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = search if name == "write_atomic" else Study
    with monkeypatch.context() as patched, pytest.raises((Killed, KeyboardInterrupt)):
        if name == "put_back":  # killed while a Ctrl-C is dealt with
            kill_at(patched, Study, "put_back", 2, after)
        else:
            patched.setattr(Search, "_close", lambda _: None)
            kill_at(patched, place, name, 8 if name == "ask" else 4, after)
        first = Turns(score)
        if name == "put_back":
            kill_at(patched, search, "wait", 4, False)
        searched(first, tmp_path, 20, rules(5000), opened(tmp_path, resume=False))
    finished = on_disk(tmp_path)
    assert finished
    seconds = {i: (tmp_path / "trained" / f"{i}.npz").stat().st_mtime_ns for i in finished}
    second = FakePool(score)
    made = searched(second, tmp_path, 8, rules(5000), opened(tmp_path))
    trained = [record.id for record in made.trained]
    assert len(trained) == len(set(trained)) == 8 and finished <= set(trained)
    for identity, at in seconds.items():
        assert (tmp_path / "trained" / f"{identity}.npz").stat().st_mtime_ns == at
    scores = {record.id: record.val_score for record in made.trained}
    done = {job.seed for job in first.jobs if job.seed not in {j.seed for j in second.jobs}}
    assert len(done) == len(finished)
    for record in made.trained:
        assert scores[record.id] == 1 - 1 / (1 + record.architecture["units"])
    # What was under way is trained, before anything new.
    interrupted = [job.seed for job in first.jobs if job.seed not in done]
    assert {job.seed for job in second.jobs[: len(interrupted)]} == set(interrupted)
    states = Counter(t.state for t in made.study._study.get_trials())
    assert set(states) <= {TrialState.COMPLETE, TrialState.FAIL}
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert len(lines) == 1 + len(made.study.records)


def test_trials_csv_is_complete_as_soon_as_a_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Search, "_close", lambda _: None)
        kill_at(patched, Study, "tell", 5, True)
        searched(FakePool(score), tmp_path, 20, rules(5000), opened(tmp_path, resume=False))
    assert len(table(tmp_path / "trials.csv")) == 0
    held = opened(tmp_path)
    kill_at(monkeypatch, Search, "_loop", 1, False)
    monkeypatch.setattr(Search, "_close", lambda _: None)
    with pytest.raises(Killed):
        searched(FakePool(score), tmp_path, 20, rules(5000), held)
    assert len(table(tmp_path / "trials.csv")) == 5


def test_a_stopped_search_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Search, "_close", lambda _: None)
        kill_at(patched, Study, "tell", 2, False)
        searched(Turns(score), tmp_path, 20, rules(5000), opened(tmp_path, resume=False))
    searched(FakePool(score), tmp_path, 4, rules(5000), opened(tmp_path))
    said = capsys.readouterr().out
    assert "stopped: kept 1 that had just finished, queued 2 that were under way" in said


def test_a_resumed_search_draws_other_networks(tmp_path: Path) -> None:
    first, second = FakePool(score), FakePool(score)
    searched(first, tmp_path, 8, rules(5000), opened(tmp_path, resume=False))
    made = searched(second, tmp_path, 16, rules(5000), opened(tmp_path))
    assert not {units(job) for job in first.jobs} & {units(job) for job in second.jobs}
    assert {record.status for record in made.study.records} == {"trained"}, "no ask was wasted"


# ---------------------------------------------------------------- the finals


@pytest.mark.parametrize("after", (False, True), ids=("before", "after"))
@pytest.mark.parametrize("name", ("write_json", "write_atomic"))
def test_finals_go_on_after_a_kill(
    name: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(patched, ledger_module, name, 3, after)
        finals(FakePool(final_score), tmp_path)
    held = on_disk(tmp_path)
    complete = name == "write_atomic" and after
    assert len(held) == (3 if complete else 2)
    again = FakePool(final_score)
    finalists = finals(again, tmp_path)
    total = 3 * FINAL_SEEDS
    assert len(again.jobs) == total - len(held) and len(on_disk(tmp_path)) == total
    for finalist in finalists:
        for repetition, value in finalist.scores.items():
            file = tmp_path / "trained" / f"{finalist.record.id}.{repetition}.npz"
            assert file.read_text() == f"final {training_seed(0, finalist.record.id, repetition)}"
            assert value == pytest.approx(finalist.estimate, abs=0.007)
    assert [set(f.scores) for f in finalists] == [SEEDS] * 3


# ---------------------------------------------------------------- the teacher


def answers(seed: int) -> Answers:
    values = np.full((1, 2, 3), seed, np.float32)
    return Answers(values, values[0], values[0], seed)


class Teachers:
    """A pool whose `deadly`th member, counted over all sessions, kills its worker."""

    def __init__(self, deadly: set[int]) -> None:
        self.deadly, self.seeds, self.replaced = deadly, [], 0  # type: ignore[var-annotated]

    def submit(self, function: Any, metric: str, member: Member, seed: int) -> "Future[Any]":
        future: Future[Any] = Future()
        self.seeds.append(seed)
        if len(self.seeds) in self.deadly:
            future.set_exception(BrokenProcessPool("killed"))
        else:
            future.set_result(answers(seed))
        return future

    def replace(self) -> None:
        self.replaced += 1


def make_teacher(workers: Any, run: Path) -> Any:
    task = load_task(World(run).data)
    judged = judging(task, "split")
    return teaching.teacher_of(task, judged, "accuracy", "conv", workers, lambda *counts: None)


def test_members_of_a_teacher_outlive_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(teaching, "get_teacher", lambda *given: (given[3], given[5]()))
    workers = Teachers({2})
    identity, made = make_teacher(workers, tmp_path)
    assert workers.replaced == 1 and sorted(workers.seeds[:3]) == [0, 1, 2]
    assert workers.seeds[3:] == [1], "only what is missing is made again"
    assert made.parameters == 0 + 1 + 2
    assert all(member_file(identity, i).exists() for i in range(3))
    none = Teachers(set())
    assert make_teacher(none, tmp_path)[1].parameters == 3 and none.seeds == []
    member_file(identity, 1).write_bytes(b"torn")
    one = Teachers(set())
    assert make_teacher(one, tmp_path)[1].parameters == 3 and one.seeds == [1]


def test_workers_that_keep_dying_end_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(RunError, match=r"5 worker processes were killed while the teacher was"):
        make_teacher(Teachers(set(range(1, 100))), tmp_path)


# ---------------------------------------------------------------- processes


def test_a_worker_refuses_data_that_were_replaced(tmp_path: Path) -> None:
    data = World(tmp_path).data
    source = DataSource(None, str(data), ("wave", "level"), "another hash")
    graph = Point(2, 0).lower()
    with pool(1, source, bench("split")) as workers:
        future = workers.submit(train, Training(graph, "accuracy", None, False, 0))
        with pytest.raises(DataError, match=r"toy\.npz: the data changed since the run began"):
            future.result()


class Verifying:
    """A pool whose process dies at the `deadly`th candidates that are handed in."""

    def __init__(self, deadly: set[int]) -> None:
        self.deadly, self.given = deadly, []  # type: ignore[var-annotated]
        self.replaced = 0

    def submit(self, function: Any, folder: Path, bench: None) -> "Future[Any]":
        future: Future[Any] = Future()
        self.given.append(folder.name)
        if len(self.given) in self.deadly:
            future.set_exception(BrokenProcessPool("killed"))
        else:
            found = Verification(folder.name, 1, "host", (), None, 0, "")
            future.set_result(verify.Proof(found, None))
        return future

    def replace(self) -> None:
        self.replaced += 1


def verified(workers: Verifying, run: Path, monkeypatch: pytest.MonkeyPatch) -> list[Verification]:
    monkeypatch.setattr(verify, "pool", lambda *_: nullcontext(workers))
    source = DataSource(None, None, None, "")
    bench: Any = None
    folders = [run / name for name in "abc"]
    proofs = verify._verify_all(folders, source, 2, lambda _: None, bench)
    return [proof.verification for proof in proofs]


def test_a_killed_verification_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Verifying({2})
    results = verified(workers, tmp_path, monkeypatch)
    assert [result.id for result in results] == ["a", "b", "c"] and workers.replaced == 1
    assert workers.given == ["a", "b", "c", "b", "c"], "what was done is not done again"
    assert {path.parent.name for path in tmp_path.rglob("verification.json")} == set("abc")
    with pytest.raises(RunError, match=r"a: 6 processes were killed while they verified"):
        verified(Verifying(set(range(100))), tmp_path, monkeypatch)


# A parent with two workers that have begun a long job; argv[1] says how it ends.
PARENT = """
import os, signal, sys, time
from nas.training.workers import pool
class Nothing:
    def load(self): return None
def job(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)
if __name__ == "__main__":
    with pool(2, Nothing(), id) as workers:
        futures = [workers.submit(job, 60) for _ in range(2)]
        futures[0].result()
"""


@pytest.mark.parametrize("end", (signal.SIGKILL, signal.SIGINT), ids=("kill", "ctrl-c"))
def test_workers_end_with_their_parent(end: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=kills.hear_ctrl_c,
    )
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    if end == signal.SIGINT:  # a terminal sends it to all of them
        os.killpg(parent.pid, end)
    else:
        parent.kill()
    _, errors = parent.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if end == signal.SIGINT:
        assert errors.count("Traceback") == 1, "the workers saw the Ctrl-C"


def test_ctrl_c_waits_for_the_end_of_a_block() -> None:
    """Though the signal may go to another thread, as to the one that draws the progress."""
    finished, ended = threading.Event(), []
    other = threading.Thread(target=finished.wait)
    other.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & ignores it
    try:
        with pytest.raises(KeyboardInterrupt), no_interrupt():
            with no_interrupt():
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
            assert is_interrupted()
            ended.append(True)
    finally:
        signal.signal(signal.SIGINT, before)
        finished.set()
        other.join()
    assert ended and not is_interrupted()


# ---------------------------------------------------------------- the whole command


def until(holds: Callable[[], bool], session: kills.Session) -> None:
    """Waits for something that the run in work is to do."""
    deadline = time.monotonic() + 120
    while not holds():
        assert session.process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_stopped_three_times_and_ends_well(tmp_path: Path) -> None:
    world = World(tmp_path)
    run = world.run
    arguments = ["--data", str(world.data), "--trials", "4", "--device", "cortex-m4-32k"]
    arguments += ["--no-distil", "--no-verify"]  # their processes have tests of their own
    log = tmp_path / "log"
    session = kills.Session(run, arguments, log)
    until((run / ".lock").exists, session)
    session.stop("parent", random.Random(0))
    assert not (run / "run.json").exists(), "nothing is there yet; --resume begins"
    before = kills.Seen()
    steps = (("search", "both"), ("finals", "ctrl-c"), ("export", "parent"))
    for aim, kind in steps:
        session = kills.Session(run, arguments, log)
        session.wait_for(aim, 0.0)
        models = {"search": "c????????????.npz", "finals": "c????????????.?.npz"}.get(aim)
        if models is not None:
            until(partial(_holds_two, run / "trained", models), session)
        phase = session.phase()
        session.stop(kind, random.Random(0))
        assert phase == aim, log.read_text()
        assert session.process.returncode == (130 if kind == "ctrl-c" else -signal.SIGKILL)
        after = kills.look(run)
        assert kills.lost(before, after) == kills.trained_twice(before, after) == []
        before = after
    assert len(before.scores) == 4 and before.finals
    session = kills.Session(run, arguments, log)
    assert session.process.wait(timeout=300) == 0, log.read_text()
    after = kills.look(run)
    assert kills.lost(before, after) == kills.trained_twice(before, after) == []
    assert len(after.scores) == 4 and kills.judge_front(run) == "equal"


def _holds_two(folder: Path, pattern: str) -> bool:
    return len(list(folder.glob(pattern))) >= 2


def test_a_disk_that_is_full_before_the_first_trial_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path)
    full = Mock(side_effect=StorageInternalError("database or disk is full"))
    monkeypatch.setattr(optuna.Study, "enqueue_trial", full)
    command = ["search", "--data", str(world.data), "--trials", "1", "--device", "cortex-m4-32k"]
    command += ["--workers", "1", "--no-distil", "--quiet", "--no-verify", "--out", str(world.run)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "database or disk is full" in said and "--resume" in said


def test_a_run_that_was_stopped_while_it_was_verified_has_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world, stopped = World(tmp_path), Mock(side_effect=KeyboardInterrupt)
    command = ["search", "--data", str(world.data), "--trials", "1", "--device", "cortex-m4-32k"]
    command += ["--workers", "1", "--no-distil", "--quiet", "--out", str(world.run)]
    with monkeypatch.context() as patched:
        patched.setattr("nas.run.check_runtimes", lambda _: None)
        patched.setattr("nas.run.verify_run", stopped)
        assert main(command) == 130
    stopped.assert_called_once()
    assert main(["status", str(world.run)]) == 0
    assert "--resume goes on" in capsys.readouterr().out
    assert main([*command, "--no-verify", "--resume"]) == 0
    assert main(["status", str(world.run)]) == 0
    said = capsys.readouterr().out
    assert "finished; nas pick" in said and "trained      1," in said


def test_a_disk_that_fills_up_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the first trained model, in the finals, at a candidate, at the front, at the manifest."""
    world, fsync = World(tmp_path), os.fsync
    run = world.run
    monkeypatch.setenv("NAS_CACHE_DIR", world.environment["NAS_CACHE_DIR"])
    command = ["search", "--data", str(world.data), "--trials", "3"]
    command += ["--device", "cortex-m4-32k"]
    command += ["--workers", "1", "--no-distil", "--no-verify", "--quiet"]
    command += ["--out", str(run), "--resume"]
    run.mkdir()
    (run / ".lock").touch()  # there is nothing to resume yet
    before = kills.Seen()
    for full in ("run.json", ".npz", "finals.json", "model.c", "front.csv", "report.html"):

        def keep(descriptor: int, full: str = full) -> None:
            name = os.readlink(f"/proc/self/fd/{descriptor}")
            if f"{full}." in name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", keep)
            assert main(command) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and full in said and "No space left" in said, said
        after = kills.look(run)
        assert kills.lost(before, after) == kills.trained_twice(before, after) == []
        before = after
    assert main(command) == 0
    after = kills.look(run)
    assert kills.lost(before, after) == kills.trained_twice(before, after) == []
    assert len(after.scores) == 3 and kills.judge_front(run) == "equal"
