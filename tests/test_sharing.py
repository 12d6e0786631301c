"""Many runs on one study: PostgreSQL in a temporary folder, runs in processes and side by side."""

import errno
import importlib.util
import io
import logging
import os
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from optuna.artifacts import Backoff
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.trial import Trial, TrialState
from postgres_cluster import Cluster, cluster, server_tools
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from test_end_to_end import table, write_data
from test_search import FRONT, FakePool, entry, final_score, rules, score

from nas.cli import main
from nas.errors import RunError, UsageError
from nas.progress import Progress
from nas.run_folder import TrialRecord, write_atomic
from nas.search import finals
from nas.search import shared as shared_study
from nas.search.clock import Clock
from nas.search.engine import Search
from nas.search.finals import train_finals
from nas.search.ledger import model_file
from nas.search.meeting import about, meet, sources_hash
from nas.search.requeue import requeue
from nas.search.rules import OBJECTIVES, training_seed
from nas.search.shared import Shared, open_store
from nas.search.shared_ledger import SharedLedger
from nas.search.storage import open_server
from nas.search.study import Study, open_study
from nas.search.walk import STANDING
from nas.training.recipe import FINAL_SEEDS
from nas.training.teacher import Teacher

VALUES = dict.fromkeys(OBJECTIVES, 0.5)
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import many_workers  # noqa: E402  (its drills, in short)

MANIFEST: dict[str, Any] = {
    "data": {"hash": "d" * 64, "modalities": ["accel"]},
    "profile": {"hash": "p" * 64},
    "space": "conv",
    "space_file": None,
    "objectives": ["error", "ram"],
    "metric": "accuracy",
    "validation": "split",
    "distil": "logits",
    "teacher_kind": "conv",
    "own_teacher": None,
    "seed": 0,
    "limits": [None, None],
    "cost_table": "c" * 64,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    missing = server_tools() is None or importlib.util.find_spec("psycopg") is None
    if missing and "NAS_REQUIRE_POSTGRESQL" not in os.environ:
        pytest.skip("PostgreSQL or its driver is not installed")
    with cluster() as made:
        yield made


@pytest.fixture
def url(server: Cluster, request: pytest.FixtureRequest) -> str:
    """A new database."""
    name = f"t{abs(hash(request.node.nodeid))}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url.removesuffix("postgres") + name


def joined(url: str, folder: Path) -> Shared:
    return Shared(open_server(url, requeue), str(folder), print)


def studied(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A run's view of the study, without its caution after having come."""
    shared = joined(url, folder / "store")
    monkeypatch.setattr(shared, "_well_since", -1e9)
    return open_study(url, OBJECTIVES, lambda seed: RandomSampler(seed), 0, True, shared)


def units(trial: Trial) -> int:
    return trial.suggest_int("units", 1, 10**9)


def jump(held: Study, hours: int) -> None:
    """The server's clock goes forward: what it has noted is so much older."""
    statement = f"UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '{hours} hour'"
    assert held.shared is not None
    with held.shared.storage.engine.begin() as connection:
        connection.execute(text(statement))


# ---------------------------------------------------------------- drills


def drilled(server: Cluster, **changed: Any) -> dict[str, Any]:
    usual = {"trainings": 24, "train_s": 0.5, "kill_every": 0.0, "restart_every": 0.0}
    usual |= {"grace_s": 6, "sampler": "random", "name": "drill"}
    return many_workers.drill(server, 3, Namespace(**usual | changed))


@pytest.mark.parametrize(
    "harm", ({}, {"kill_every": 6.0}, {"restart_every": 6.0}), ids=("none", "kill", "restart")
)
def test_nothing_is_lost_or_trained_twice(
    harm: dict[str, float], server: Cluster, request: pytest.FixtureRequest
) -> None:
    trainings = 24 if not harm else 72
    found = drilled(server, trainings=trainings, name=request.node.callspec.id, **harm)
    assert found["trained"] == trainings
    assert [found[name] for name in ("trained_twice", "lost", "left_open")] == [0, 0, 0]
    assert found["fronts"] == found["fronts_equal"] == 3
    assert found["made_in_vain"] == (None if "kill_every" in harm else 0)
    for key in harm:
        assert found[{"kill_every": "killed", "restart_every": "restarted"}[key]] > 0


def test_two_runs_of_one_command_end_with_one_front(url: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "tiny.npz")
    command = [sys.executable, str(ROOT / "run_search.py"), "--data", str(data), "--trials", "4"]
    command += ["--storage", url, "--artifacts", str(tmp_path / "store"), "--no-verify", "--quiet"]
    command += ["--workers", "1", "--no-distil"]
    runs = [tmp_path / name for name in ("one", "other")]
    started = [
        subprocess.Popen([*command, "--out", str(run)], stderr=subprocess.PIPE, text=True)
        for run in runs
    ]
    for process in started:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    trials, fronts = ([table(run / name) for run in runs] for name in ("trials.csv", "front.csv"))
    one, other = ({row["id"]: row["val_score"] for row in rows} for rows in trials)
    assert one == other and len(one) == 4
    assert {r["id"] for r in fronts[0]} == {r["id"] for r in fronts[1]}
    held = [{file.name for file in (run / "trained").glob("c?*.npz")} for run in runs]
    every = {f"{name}.npz" for name in one}
    assert held[0] | held[1] >= every and not held[0] & held[1] & every, "each is trained by one"


# ---------------------------------------------------------------- who may join


@pytest.mark.parametrize(
    ("key", "value", "said"),
    (
        ("data", {"hash": "e" * 64, "modalities": ["accel"]}, "data is dddd"),
        ("data", {"hash": "d" * 64, "modalities": ["gyro"]}, "modalities is"),
        ("metric", "macro_f1", "metric is accuracy in the study and macro_f1 on this machine"),
        ("seed", 1, "seed is 0 in the study and 1"),
    ),
)
def test_a_run_with_other_data_or_options_is_refused(
    key: str, value: Any, said: str, url: str, tmp_path: Path
) -> None:
    meet(url, str(tmp_path), MANIFEST, 2, print).shared.close()
    meet(url, str(tmp_path), MANIFEST, 2, print).shared.close()
    with pytest.raises(RunError, match=said):
        meet(url, str(tmp_path), MANIFEST | {key: value}, 2, print)


def test_a_run_of_another_version_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(url, str(tmp_path), MANIFEST, 2, print).shared.close()
    monkeypatch.setattr("nas.search.meeting.sources_hash", lambda: "0" * 64)
    with pytest.raises(RunError, match=r"version is .* and 0{12}.* on this machine"):
        meet(url, str(tmp_path), MANIFEST, 2, print)


def test_a_database_that_was_made_anew_is_another_study(
    url: str, tmp_path: Path, server: Cluster
) -> None:
    def identity() -> str:
        held = meet(url, str(tmp_path), MANIFEST, len(OBJECTIVES), print).shared
        study = open_study(url, OBJECTIVES, lambda seed: RandomSampler(seed), 0, True, held)
        held.close()
        return study.identity

    side = joined(url, tmp_path)
    unmet = open_study(url, OBJECTIVES, lambda seed: RandomSampler(seed), 0, True, side)
    assert unmet.identity == "", "runs that come at once must not each make one"
    side.close()
    first, same = identity(), identity()
    name = url.rpartition("/")[2]
    server.sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.sql(f"CREATE DATABASE {name}")
    assert first == same != identity()


def test_the_version_is_that_of_the_files() -> None:
    assert about(MANIFEST)["version"] == sources_hash() == sources_hash()
    assert "storage" not in about(MANIFEST)


@pytest.mark.skipif(
    importlib.util.find_spec("psycopg") is None and "NAS_REQUIRE_POSTGRESQL" not in os.environ,
    reason="PostgreSQL's driver is not installed",
)
def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"127.0.0.1:1/x: the database cannot be used \(.*refused"):
        meet("postgresql://u:secret@127.0.0.1:1/x", str(tmp_path), MANIFEST, 2, print)


def test_only_one_driver_is_spoken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"write postgresql://…"):
        open_server("postgresql+pg8000://u@127.0.0.1/x", requeue)


@pytest.mark.parametrize(
    ("options", "said"),
    (
        (["--storage", "postgresql://h/d"], "add --artifacts FOLDER or s3://BUCKET"),
        (["--artifacts", "x"], "--artifacts: only with --storage postgresql"),
        (["--storage", "mysql://h/d"], "--storage mysql://…: give postgresql://"),
        (["--storage", "postgresql:h"], "--storage postgresql:…: give postgresql://"),
        (
            ["--storage", "postgresql+asyncpg://h/d", "--artifacts", "x"],
            "--storage postgresql+asyncpg://…: write postgresql://…, of any driver",
        ),
        (
            ["--storage", "postgresql://u:secret@h:x/d", "--artifacts", "x"],
            "--storage postgresql://…: the port is no number; give postgresql://USER@HOST:PORT/",
        ),
        (
            ["--storage", "postgresql://h/d", "--artifacts", "x", "--distil", "walk"],
            "--distil walk: its teachers are of one machine",
        ),
    ),
)
def test_options_that_cannot_be_shared_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--data", "x.npz", "--trials", "1", *options]) == 1
    line = capsys.readouterr().err
    assert said in line and "secret" not in line


# ---------------------------------------------------------------- the teacher, files


def test_the_teacher_is_made_once_and_fetched_by_the_others(url: str, tmp_path: Path) -> None:
    file = tmp_path / "made.npz"
    file.write_bytes(b"answers")
    teacher = Teacher("conv", "abc", file, 0.9, 0.8, 10, 40)
    store = str(tmp_path / "store")
    made, calls = [meet(url, store, MANIFEST, 2, print) for _ in range(2)], []

    def make() -> Teacher:
        calls.append(1)
        return teacher

    first = made[0].teacher(tmp_path / "a", make, lambda: None)
    second = made[1].teacher(tmp_path / "b", make, lambda: None)
    assert first == teacher and calls == [1]
    assert second.file.read_bytes() == b"answers" and tmp_path / "b" in second.file.parents
    assert second.to_json() == teacher.to_json()
    for meeting in made:
        meeting.shared.close()


def test_a_store_that_does_not_hold_a_file_is_named(url: str, tmp_path: Path) -> None:
    shared = joined(url, tmp_path / "store")
    with pytest.raises(RunError, match=r"holds no nothing, .*give every machine the same --artif"):
        shared.download("nothing", tmp_path / "x.npz")
    assert not list(tmp_path.glob("*x.npz*"))
    shared.close()


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"--artifacts .*file/x: .*; give a folder"):
        open_store(str(tmp_path / "file" / "x"))


def test_a_store_that_cannot_be_written_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(str(tmp_path))
    assert not list(tmp_path.iterdir()), "nothing is left of the attempt"
    refused = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(shared_study, "NamedTemporaryFile", refused)
    with pytest.raises(RunError, match=r"^--artifacts .*: Permission denied; give a folder that"):
        open_store(str(tmp_path))


class Bucket:
    """Stands for Optuna's store of a bucket; `refusal` is raised by whatever is asked of it."""

    refusal: Exception | None = None

    def __init__(self, name: str) -> None:
        self.name, self.asked, self.client = name, 0, self

    def head_bucket(self, Bucket: str) -> None:
        assert Bucket == self.name
        self.write("", None)

    def write(self, artifact: str, content: Any) -> None:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal


def test_a_bucket_that_does_not_answer_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_study, "Boto3ArtifactStore", Bucket)
    assert isinstance(open_store("s3://mine"), Backoff)
    monkeypatch.setattr(Bucket, "refusal", ValueError("Unable to locate credentials"))
    expected = (
        r"--artifacts s3://mine: .*\(Unable to locate credentials\); make it, or mend its name"
    )
    with pytest.raises(RunError, match=expected):
        open_store("s3://mine")


def test_a_bucket_that_fails_later_fails_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[logging.LogRecord] = []
    logger, handler = logging.getLogger("optuna.artifacts._backoff"), logging.Handler()
    monkeypatch.setattr(handler, "emit", told.append)
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(shared_study, "Boto3ArtifactStore", Bucket)
    monkeypatch.setattr("optuna.artifacts._backoff.time.sleep", lambda _: None)
    store = open_store("s3://mine")
    refusal = ValueError("Could not connect to the endpoint")
    monkeypatch.setattr(Bucket, "refusal", refusal)
    with pytest.raises(ValueError, match="endpoint"):
        store.write("a", io.BytesIO(b"x"))
    assert told == [], "the error that is raised becomes the line"


# ---------------------------------------------------------------- a server that is away


def test_what_needs_a_lost_server_waits_for_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "RETRY_S", 0.0)
    said, shown = list[str](), list[str]()
    shared = Shared(open_server(url, requeue), str(tmp_path), said.append, shown.append)
    lost = iter((StorageInternalError("optuna"), OperationalError("statement", None, Exception())))

    def action() -> int:
        for error in lost:
            raise error from OperationalError("statement", None, Exception("server closed"))
        return 3

    assert shared.patiently(action) == 3
    assert said == [
        "the database does not answer; waiting for it, up to 10 minutes",
        "the database answers again",
    ]
    assert shown == ["waiting for the database, 0:00 of up to 10:00"] * 2
    lost = iter([OperationalError("statement", None, Exception("closed"))])
    with monkeypatch.context() as patched, pytest.raises(RunError, match="was interrupted; start"):
        patched.setattr(shared_study, "is_interrupted", lambda: True)
        shared.patiently(action)
    lost = iter([OperationalError("statement", None, Exception("closed"))])
    with pytest.raises(RunError, match="was interrupted; start"):
        shared.patiently(action)  # at the end of that run nobody waits a second time
    assert shared.patiently(action) == 3
    lost = iter([OperationalError("statement", None, Exception("closed"))])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("nas.search.shared.time.sleep", Mock(side_effect=KeyboardInterrupt))
        shared.patiently(action)
    lost = iter([OperationalError("statement", None, Exception("closed"))])
    with pytest.raises(RunError, match="was interrupted; start"):
        shared.patiently(action)
    assert shared.patiently(action) == 3
    monkeypatch.setattr(shared_study, "PATIENCE_S", -60.0)
    lost = iter([OperationalError("statement", None, Exception("closed"))] * 9)
    with pytest.raises(RunError, match=r"the database was away .*go on with --resume"):
        shared.patiently(action)
    with pytest.raises(StorageInternalError, match="refused"):
        shared.patiently(lambda: (_ for _ in ()).throw(StorageInternalError("refused")))
    shared.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name these otherwise")
def test_a_server_that_lost_its_power_is_noticed(url: str, tmp_path: Path) -> None:
    """It sends nothing, so this machine's own side of the connection must give up."""
    shared = joined(url, tmp_path)
    with shared.storage.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=os.dup(driver.fileno())) as side:
            names = ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            options = (getattr(socket, name) for name in names)
            held = [side.getsockopt(socket.IPPROTO_TCP, option) for option in options]
    assert held == [30_000, 30, 10, 3]
    shared.close()


def record_for(trial: Trial, number: int = 1) -> TrialRecord:
    return replace(entry(number, 0.5, 4), number=trial.number)


def writing(folder: Path, record: TrialRecord) -> Callable[[], Path]:
    """Puts a model into the folder of a run."""

    def write() -> Path:
        write_atomic(model_file(folder, record.id, 0), b"model")
        return model_file(folder, record.id, 0)

    return write


@contextmanager
def away(server: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server, for longer than anybody waits."""
    with monkeypatch.context() as patched:
        patched.setattr(shared_study, "RETRY_S", 0.0)
        patched.setattr(shared_study, "PATIENCE_S", -1.0)
        server.stop()
        with pytest.raises(RunError, match="the database was away"):
            yield
    server.start()


@pytest.mark.parametrize("meanwhile", ("nothing", "taken for dead", "deleted", "made anew"))
def test_what_ended_while_the_server_was_away_is_told_on_resuming(
    meanwhile: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Cluster
) -> None:
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    run = tmp_path / "trained"
    one = studied(url, tmp_path, monkeypatch)
    trial = one.ask()
    units(trial)
    record = record_for(trial)
    with away(server, monkeypatch):
        one.finish(trial, record, {"ram": -1.0}, VALUES, writing(run, record))
    assert one.shared is not None and one.records == []
    one.shared.close()
    if meanwhile == "taken for dead":
        other = studied(url, tmp_path, monkeypatch)
        jump(other, 1)
        other.refresh()
        assert other.shared is not None
        other.shared.close()
    if meanwhile == "deleted":
        model_file(run, record.id, 0).unlink()
    if meanwhile == "made anew":
        server.sql(f"CREATE DATABASE {url.rpartition('/')[2]}_anew")
        url += "_anew"
        other = studied(url, tmp_path, monkeypatch)
        units(other.ask())
        assert other.shared is not None
        other.shared.close()
    again = studied(url, tmp_path, monkeypatch)
    kept = meanwhile == "nothing"
    assert again.recover(lambda _: True, lambda _: VALUES, run) == (kept, 0)
    assert [r.id for r in again.records] == [record.id] * kept
    assert model_file(run, record.id, 0).exists() == (kept or meanwhile == "made anew")
    stored = again._study.get_trials()[trial.number]
    if kept:
        assert stored.state == TrialState.COMPLETE and stored.constraints == {"ram": -1.0}
        again.fetch(record.id, tmp_path / "elsewhere.npz")
        assert (tmp_path / "elsewhere.npz").read_bytes() == b"model"
        assert again.recover(lambda _: True, lambda _: VALUES, run) == (0, 0)
        assert [file.name for file in run.iterdir()] == [f"{record.id}.npz"]
    assert again.shared is not None
    again.shared.close()


def test_all_that_ended_while_the_server_was_away_is_kept(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Cluster
) -> None:
    """One training after the other fails to be told; each is on disk, and nothing made again."""
    pool = FakePool(score)

    def search() -> Search:
        held = studied(url, tmp_path, monkeypatch)
        progress = Progress(quiet=True)
        return Search(rules(5000), held, pool, tmp_path, Clock(None), progress)  # type: ignore[arg-type]

    first, looks = search(), iter(range(9))
    collect = first._collect

    def collected(timeout: float = 1.0) -> None:
        if next(looks) == 2:
            server.stop()
        collect(timeout)

    monkeypatch.setattr(first, "_collect", collected)
    with monkeypatch.context() as patched:
        patched.setattr(shared_study, "RETRY_S", 0.0)
        patched.setattr(shared_study, "PATIENCE_S", -1.0)
        with pytest.raises(RunError, match="the database was away"):
            first.go(50)
    server.start()
    trained = {training_seed(0, record.id, 0) for record in first.trained}
    made = len(pool.jobs)
    assert made == len(trained) + pool.count + 1
    assert len(list((tmp_path / "trained").glob("*.untold"))) == pool.count + 1
    again = search()
    again.go(made + 1)
    assert len(again.trained) == made + 1 == len({job.seed for job in pool.jobs})
    for held in (first.study, again.study):
        assert held.shared is not None
        held.shared.close()


def test_a_final_training_that_ended_while_the_server_was_away_is_told_on_resuming(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Cluster
) -> None:
    side = joined(url, tmp_path / "store")
    ledger, job = SharedLedger(tmp_path, side), (entry(1, 0.5, 4), 1)
    with ledger.turn():
        ledger.claim(job)
    with away(server, monkeypatch):
        ledger.add(job, b"model", 0.75, "teacher")
    side.close()
    side = joined(url, tmp_path / "store")
    again = SharedLedger(tmp_path, side)
    again.refresh()
    assert again.scores(job[0].id) == {1: 0.75} and again.teachers(job[0].id) == {1: "teacher"}
    assert [file.name for file in (tmp_path / "trained").iterdir()] == [f"{job[0].id}.1.npz"]
    side.close()


def test_what_was_told_before_the_server_was_lost_counts_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "RETRY_S", 0.0)
    held = studied(url, tmp_path, monkeypatch)
    trial = held.ask()
    units(trial)
    tell, lost = trial.study.tell, iter((True,))

    def told(*arguments: Any, **named: Any) -> Any:
        tell(*arguments, **named)
        if next(lost, False):
            raise OperationalError("commit", None, Exception("closed"))

    monkeypatch.setattr(trial.study, "tell", told)
    record = record_for(trial)
    assert held.finish(trial, record, {}, VALUES, writing(tmp_path, record))
    assert held.refresh() == [] and [r.id for r in held.records] == [record.id]
    assert held.shared is not None
    held.shared.close()


def test_a_trial_without_its_first_sign_of_life_is_put_back_at_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "RETRY_S", 0.0)
    held = studied(url, tmp_path, monkeypatch)
    assert held.shared is not None
    held.begin_with([{"units": 77}])
    beat, lost = held.shared.storage.record_heartbeat, iter((True,))

    def recorded(trial_id: int) -> None:
        if next(lost, False):
            raise OperationalError("insert", None, Exception("closed"))
        beat(trial_id)

    monkeypatch.setattr(held.shared.storage, "record_heartbeat", recorded)
    held.patiently(held.ask)
    held.refresh()
    states = [trial.state for trial in held._study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert units(held.ask()) == 77
    held.shared.close()


def test_after_a_stall_nobody_is_taken_for_dead(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answered late and raised nothing: all signs of life are older than they should."""
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    one, other = (studied(url, tmp_path, monkeypatch) for _ in range(2))
    units(one.ask())
    jump(other, 1)
    assert other.shared is not None and one.shared is not None
    with monkeypatch.context() as patched:
        patched.setattr(other.shared, "_heartbeat_s", -1)  # anything takes longer
        other.patiently(lambda: None)
    other.refresh()
    assert [t.state for t in other._study.get_trials()] == [TrialState.RUNNING]
    for held in (one, other):
        assert held.shared is not None
        held.shared.close()


def test_a_machine_that_slept_does_not_end_its_own_trials(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    held = studied(url, tmp_path, monkeypatch)
    trial = held.ask()
    units(trial)
    jump(held, 1)
    held.refresh()
    assert [t.state for t in held._study.get_trials()] == [TrialState.RUNNING]
    assert held.finish(trial, record_for(trial), {}, VALUES)
    assert held.shared is not None
    held.shared.close()


def test_a_turn_whose_lock_was_lost_fails(url: str, tmp_path: Path, server: Cluster) -> None:
    shared = joined(url, tmp_path)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    with pytest.raises(OperationalError), shared.turn("ask"):
        server.sql(kill)
    with shared.turn("ask"):
        pass
    shared.close()


# ---------------------------------------------------------------- clocks that jump


@pytest.mark.parametrize("hours", (-1, 1))
def test_a_server_whose_clock_jumps_loses_nothing(
    hours: int, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back, the living are not missed; set forward, they look dead and are trained again."""
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    one, other = (studied(url, tmp_path, monkeypatch) for _ in range(2))
    trial = one.ask()
    units(trial)
    one.claim(trial, "c1")
    other.refresh()
    assert other.elsewhere == {"c1"}
    jump(other, hours)
    other.refresh()
    assert other.elsewhere == ({"c1"} if hours < 0 else set())
    record = replace(entry(1, 0.5, 4), number=trial.number)
    assert one.finish(trial, record, {}, VALUES) is (hours < 0)
    again = other.ask()
    assert (units(again) == trial.params["units"]) is (hours > 0), "queued anew"
    assert other.finish(again, replace(record, number=again.number), {}, VALUES)
    for held in (one, other):
        held.refresh()
        assert len(held.records) == (2 if hours < 0 else 1)
        assert held.elsewhere == set() and held.shared is not None
        held.shared.close()


def test_what_the_dead_left_of_the_search_is_queued_during_finals(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    dead, alive = (studied(url, tmp_path, monkeypatch) for _ in range(2))
    units(dead.ask())
    alive.refresh()
    assert dead.shared is not None
    dead.shared.close()
    jump(alive, 1)
    assert alive.shared is not None
    SharedLedger(tmp_path, alive.shared).refresh()
    states = [trial.state for trial in alive._study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.WAITING]
    alive.shared.close()


def test_who_joins_does_not_keep_the_dead_alive(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    dead = studied(url, tmp_path, monkeypatch)
    units(dead.ask())
    assert dead.shared is not None
    jump(dead, 1)
    dead.shared.close()
    newcomer = studied(url, tmp_path, monkeypatch)
    newcomer.refresh()
    states = [trial.state for trial in newcomer._study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.WAITING]
    assert newcomer.shared is not None
    newcomer.shared.close()


def test_one_run_at_a_time_ends_the_trials_of_the_dead(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    dead, other, alive = (studied(url, tmp_path, monkeypatch) for _ in range(3))
    for held in (dead, other, alive):
        assert held.shared is not None
    units(dead.ask())
    dead.shared.close()
    jump(alive, 1)
    with other.shared.storage.engine.begin() as sweeping:
        assert sweeping.execute(shared_study._TRY_SWEEP).scalar()
        alive.refresh()
        assert [trial.state for trial in alive._study.get_trials()] == [TrialState.RUNNING]
    for _ in range(2):
        alive.refresh()
        states = [trial.state for trial in alive._study.get_trials()]
        assert states == [TrialState.FAIL, TrialState.WAITING]
    for held in (other, alive):
        held.shared.close()


@pytest.mark.parametrize("died", ("enqueue_trial", "set_trial_state_values"))
def test_who_dies_while_it_ends_the_trials_of_the_dead_loses_none(
    died: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "SWEEP_S", 0.0)
    dead, dying, alive = (studied(url, tmp_path, monkeypatch) for _ in range(3))
    for held in (dead, dying, alive):
        assert held.shared is not None
    drawn = sorted(units(dead.ask()) for _ in range(2))
    dead.shared.close()
    jump(alive, 1)
    place = dying._study if died == "enqueue_trial" else dying.shared.storage

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(place, died, die)
        dying.refresh()
    alive.refresh()
    assert not [t for t in alive._study.get_trials() if t.state == TrialState.RUNNING]
    again = [units(alive.ask()) for _ in range(2 + (died != "enqueue_trial"))]
    assert sorted(set(again)) == drawn
    for held in (dying, alive):
        held.shared.close()


# ---------------------------------------------------------------- final trainings


def test_final_trainings_are_shared_out(url: str, tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    sides = [joined(url, tmp_path / "store") for _ in places]
    one, other = (SharedLedger(p, s) for p, s in zip(places, sides, strict=True))
    job = (entry(1, 0.5, 4), 1)
    with one.turn():
        one.claim(job)
    other.refresh()
    assert other.elsewhere == {(job[0].id, 1)} and not other.holds(job[0].id, 1)
    one.add(job, b"model", 0.75, "teacher")
    assert other.refresh() and other.elsewhere == frozenset()
    assert other.scores(job[0].id) == {1: 0.75} and other.teachers(job[0].id) == {1: "teacher"}
    other.fetch(job[0].id, 1)
    assert (places[1] / "trained" / f"{job[0].id}.1.npz").read_bytes() == b"model"
    second = (entry(2, 0.5, 8), 1)  # is claimed, and not made after all
    with other.turn():
        other.claim(second)
    other.drop(second)
    one.refresh()
    assert one.elsewhere == frozenset() and not one.holds(second[0].id, 1)
    for side in sides:
        side.close()


def test_without_time_the_front_is_that_of_all_final_trainings(url: str, tmp_path: Path) -> None:
    sides = [joined(url, tmp_path / "store") for _ in range(2)]
    made = []
    for side, left_s in zip(sides, (1e9, -1.0), strict=True):
        ledger = SharedLedger(tmp_path / str(left_s), side)
        pool: Any = FakePool(final_score)
        made.append(
            train_finals(
                rules(), FRONT, pool, tmp_path, lambda s=left_s: s, Progress(quiet=True),
                ledger=ledger,
            )
        )  # fmt: skip
        assert len(pool.jobs) == (len(FRONT) * FINAL_SEEDS if left_s > 0 else 0)
        side.close()
    assert [f.scores for f in made[1]] == [f.scores for f in made[0]]
    assert all(len(f.scores) == FINAL_SEEDS for f in made[1])


def test_a_claim_whose_turn_was_lost_is_withdrawn(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_study, "RETRY_S", 0.0)
    side = joined(url, tmp_path / "store")
    ledger, lost = SharedLedger(tmp_path, side), iter((True,))

    @contextmanager
    def turn() -> Iterator[None]:
        with side.turn("finals"):
            yield
        if next(lost, False):
            raise OperationalError("unlock", None, Exception("closed"))

    monkeypatch.setattr(ledger, "turn", turn)
    race = finals._Race(rules(), [entry(1, 0.5, 4)], ledger, STANDING)
    jobs = race.claim([])
    assert jobs and len(side._leased) == len(jobs), "the first claim gives no sign of life"
    race.drop(jobs)
    assert not side._leased
    side.close()
