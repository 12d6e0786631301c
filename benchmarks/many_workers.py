"""Many runs on one study of a PostgreSQL server: is anything trained twice, lost, or waited for?

    python benchmarks/many_workers.py [--workers 1,2,4,8] [--trainings 160] [--train-s 2] \
        [--kill-every 60] [--restart-every 90] [--grace-s 60] [--json FILE]

Each worker is a process with the search loop, the space and the sampler of a run on
rfid_accel_rssi; a training is a sleep of half to one and a half `--train-s`, so that as many
workers as wanted fit on one machine, and its score is made up. The server is this benchmark's own,
in a temporary folder. With --kill-every a random worker is killed with SIGKILL each so many seconds
and another one started; with --restart-every the server is switched off and on. Afterwards the
study is read without the search's code: every trial has ended, what was interrupted was queued
again, and each worker's front is that of the trials. Where no worker was killed, the trainings that
the workers made are counted, too: more than the study has were made in vain.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from sqlalchemy import event

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cost import PROBLEMS
from made_up_rules import rules_for
from postgres_cluster import Cluster, cluster

from nas.progress import Progress
from nas.search import storage
from nas.search.clock import Clock
from nas.search.engine import Search
from nas.search.genes import choices_of
from nas.search.requeue import requeue
from nas.search.rules import OBJECTIVES, nondominated, scored
from nas.search.samplers import sampler_of
from nas.search.shared import Shared
from nas.search.storage import open_server
from nas.search.study import STUDY_NAME, open_study
from nas.search.trial_record import record_of
from nas.space import FixedTrial, architecture_id
from nas.training.workers import Training

RULES = rules_for(
    *OBJECTIVES, problem=PROBLEMS["rfid_accel_rssi"], ram_bytes=28_672, flash_bytes=20_000
)
OFF_S = 3.0  # for which a restarted server is away


class Sleeping:
    """Stands for a pool of one process: a training is a sleep."""

    count = 1

    def __init__(self, train_s: float) -> None:
        self._train_s, self._free = train_s, threading.Semaphore(1)
        self.trained = 0

    def submit(self, _: Any, job: Training) -> "Future[Any]":
        """Trains, one job after the other."""
        future: Future[Any] = Future()
        threading.Thread(target=self._train, args=(future, job), daemon=True).start()
        return future

    def _train(self, future: "Future[Any]", job: Training) -> None:
        rng = random.Random(job.graph.hash)
        with self._free:
            if not future.set_running_or_notify_cancel():
                return
            time.sleep(self._train_s * (0.5 + rng.random()))
            self.trained += 1
            macs = sum(job.graph.macs(op) for op in job.graph.ops)
            score = 0.98 - 20 / (40 + macs**0.5) - 0.02 * rng.random()
            told = {"val_score": score, "halfway_score": None, "train_s": self._train_s}
            future.set_result(SimpleNamespace(model=b"model", **told))

    def replace(self) -> None:
        """Nothing dies here alone."""


class Stopwatch:
    """Seconds in which a process waits for its server: statements, and what ends transactions."""

    def __init__(self, engine: Any) -> None:
        self.seconds, self._began = 0.0, threading.local()
        for name in ("before_cursor_execute", "commit"):
            event.listen(engine, name, self._start)
        for name in ("after_cursor_execute", "checkin"):
            event.listen(engine, name, self._stop)

    def _start(self, *_: Any) -> None:
        self._began.at = time.monotonic()

    def _stop(self, *_: Any) -> None:
        began, self._began.at = getattr(self._began, "at", None), None
        if began is not None:
            self.seconds += time.monotonic() - began


def work(chosen: argparse.Namespace) -> None:
    """One worker; prints what it did as JSON."""
    began_s = time.monotonic()
    set_grace(chosen.grace_s)
    shared = Shared(open_server(chosen.join, requeue), str(chosen.out / "artifacts"), print)
    watch = Stopwatch(shared.storage.engine)
    sampler = sampler_of(chosen.sampler, RULES)
    held = open_study(chosen.join, OBJECTIVES, sampler, 0, True, shared)
    held.begin_with(RULES.space.starts(RULES.problem))
    pool = Sleeping(chosen.train_s)
    run = chosen.out / str(os.getpid())
    search = Search(RULES, held, pool, run, Clock(None), Progress(quiet=True))  # type: ignore[arg-type]
    search.go(chosen.trainings)
    trained = search.trained
    members = nondominated(RULES, scored(trained))
    wall_s = time.monotonic() - began_s
    shared.close()
    found = {
        "trained": pool.trained,
        "wall_s": wall_s,
        "database_s": watch.seconds,
        "front": sorted(trained[i].id for i in members),
    }
    print(json.dumps(found), flush=True)


def set_grace(grace_s: int) -> None:
    """How soon the dead are noticed in this process."""
    storage.HEARTBEAT_S, storage.GRACE_S = max(1, grace_s // 4), grace_s


def start(url: str, place: Path, chosen: argparse.Namespace) -> "subprocess.Popen[str]":
    """A worker, in a process of its own."""
    command = [sys.executable, __file__, "--join", url, "--out", str(place)]
    command += ["--trainings", str(chosen.trainings), "--train-s", str(chosen.train_s)]
    command += ["--sampler", chosen.sampler, "--grace-s", str(chosen.grace_s)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def drill(server: Cluster, count: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """So many workers on a new database until all is trained; what came of it."""
    name, rng = f"{chosen.name}_{count}", random.Random(0)
    server.sql(f"CREATE DATABASE {name}")
    url = server.url.removesuffix("postgres") + name
    set_grace(chosen.grace_s)
    began_s = ready_s = time.monotonic()
    killed = restarted = 0
    with tempfile.TemporaryDirectory(prefix="nas-") as place:
        live = [start(url, Path(place), chosen) for _ in range(count)]
        outputs = []
        while live:
            time.sleep(0.2)
            if len(list(Path(place).glob("*/trained"))) < count:
                ready_s = time.monotonic()  # who is just starting would only say what is wrong
            gone_s = time.monotonic() - ready_s
            if chosen.kill_every and gone_s > (killed + 1) * chosen.kill_every:
                victim = live.pop(rng.randrange(len(live)))
                victim.send_signal(signal.SIGKILL)
                victim.communicate()
                killed += 1
                live.append(start(url, Path(place), chosen))
            if chosen.restart_every and gone_s > (restarted + 1) * chosen.restart_every:
                server.stop()
                time.sleep(OFF_S)
                server.start()
                restarted += 1
            for worker in [w for w in live if w.poll() is not None]:
                live.remove(worker)
                said, _ = worker.communicate()
                assert worker.returncode == 0, said
                outputs.append(json.loads(said.splitlines()[-1]))
    wall_s = time.monotonic() - began_s
    join_after(url, chosen.grace_s)
    judged = judge(url, [output["front"] for output in outputs])
    busy_s = sum(output["wall_s"] for output in outputs)
    in_vain = sum(output["trained"] for output in outputs) - judged["trained"]
    found = {
        "workers": count,
        "train_s": chosen.train_s,
        "wall_s": wall_s,
        "killed": killed,
        "restarted": restarted,
        "trained": judged["trained"],
        "made_in_vain": None if killed else in_vain,
        "trained_per_hour": judged["trained"] / wall_s * 3600,
        "ideal_per_hour": count * 3600 / chosen.train_s,
        "database_share": sum(output["database_s"] for output in outputs) / busy_s,
    }
    return found | judged


def join_after(url: str, grace_s: int) -> None:
    """What the next run to join does with trials of the dead."""
    with tempfile.TemporaryDirectory(prefix="nas-") as place:
        shared = Shared(open_server(url, requeue), place, print)
        held = open_study(url, OBJECTIVES, sampler_of("random", RULES), 0, True, shared)
        time.sleep(2 * grace_s + 1)  # its own caution, then theirs
        held.refresh()
        shared.close()


def judge(url: str, fronts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """What the study says, read with Optuna alone."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    held = optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))
    trials = optuna.load_study(study_name=STUDY_NAME, storage=held).get_trials(deepcopy=False)
    held.remove_session()
    held.engine.dispose()
    records = {t.number: record_of(t.user_attrs) for t in trials}
    trained = {
        t.number: r
        for t in trials
        if t.state == TrialState.COMPLETE
        and (r := records[t.number]) is not None
        and r.status == "trained"
    }
    points = {r.id: trials[number].values for number, r in trained.items()}
    front = sorted(
        identity
        for identity, p in points.items()
        if not any(
            all(a <= b for a, b in zip(q, p, strict=True)) and q != p for q in points.values()
        )
    )
    interrupted = [t for t in trials if t.state == TrialState.FAIL and _genes(t)]
    return {
        "trials": len(trials),
        "trained": len(trained),
        "trained_twice": len(trained) - len(points),
        "interrupted": len(interrupted),
        "lost": sum(not _again(t, trials, records) for t in interrupted),
        "left_open": sum(t.state == TrialState.RUNNING for t in trials),
        "front": len(front),
        "fronts_equal": sum(list(f) == front for f in fronts),
        "fronts": len(fronts),
    }


def _again(trial: Any, trials: Sequence[Any], records: dict[int, Any]) -> bool:
    """Whether an interrupted trial was asked for again, or an equal network in another trial."""
    if records[trial.number] is not None and records[trial.number].status == "failed":
        return True
    genes, mine = {t.number: _genes(t) for t in trials}, _genes(trial)
    later = (held for number, held in genes.items() if number > trial.number)
    if any(mine.items() <= held.items() for held in later):
        return True
    choices = choices_of(RULES.space, RULES.problem)
    ended = (TrialState.COMPLETE, TrialState.WAITING)
    alike = [genes[t.number] for t in trials if t.state in ended]
    return mine.keys() == choices.keys() and _network(mine) in {
        _network(held) for held in alike if held.keys() == choices.keys()
    }


def _genes(trial: Any) -> dict[str, Any]:
    """Those it was queued with, and those it has drawn."""
    return dict(trial.system_attrs.get("fixed_params", {}) | trial.params)


def _network(genes: Mapping[str, Any]) -> str:
    return architecture_id(RULES.space.sample(FixedTrial(genes), RULES.problem))


def main() -> None:
    """Measures and prints, or works."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--trainings", type=int, default=160)
    parser.add_argument("--train-s", type=float, default=2.0)
    parser.add_argument("--kill-every", type=float, default=0.0)
    parser.add_argument("--restart-every", type=float, default=0.0)
    parser.add_argument("--grace-s", type=int, default=storage.GRACE_S)
    parser.add_argument("--sampler", default="exact")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--name", default="workers", help=argparse.SUPPRESS)
    parser.add_argument("--join", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.join:
        work(chosen)
        return
    found = []
    with cluster() as server:
        for count in map(int, chosen.workers.split(",")):
            found.append(drill(server, count, chosen))
            print(json.dumps(found[-1]), flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
