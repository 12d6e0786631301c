"""Kills a run again and again at random moments, resumes it each time, and looks at its files.

    python benchmarks/kills.py --kills 20 --csv benchmarks/results/kills.csv

Without --task or --data, on a small made-up data set whose networks train in about a second. Each
session is stopped in a phase drawn beforehand (start, teacher, search, finals, export, verify)
after a random delay: `kill -9` of the parent, of the parent and a worker, of a worker alone (the
session must then end well by itself), or Ctrl-C for the whole process group. The last session is
left alone. What the files say is compared from outside, without the project's code: whether all
that was finished before a kill is still there with the same score, whether anything was trained
twice, whether front.csv is the front that trials.csv and the final trainings imply. Linux only: it
reads /proc.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("start", "teacher", "search", "finals", "export", "verify", "ended")
# How many of 20 kills aim at a phase, and the longest delay in it, in seconds. The phases at the
# start come first, as later sessions have their teacher already.
AIMS = {
    "start": (1, 0.5),
    "teacher": (3, 6.0),
    "search": (6, 25.0),
    "finals": (5, 6.0),
    "export": (2, 0.3),
    "verify": (3, 3.0),
}
COLUMNS = ("kill", "kind", "aim", "phase", "seconds", "workers_gone_s", "status", "finished")
COLUMNS = (*COLUMNS, "finals", "asked", "lost", "trained_twice", "front")


def made_up(path: Path) -> Path:
    """Writes a data file: 240 rows, 3 classes told by a wave's frequency and by a vector."""
    rng = np.random.default_rng(0)
    y, steps = np.arange(240) % 3, np.arange(24)
    phase = steps * (0.3 + 0.2 * y[:, None]) + rng.uniform(0, 6, (240, 1))
    wave = np.sin(phase)[..., None] * [1.0, 0.5] + rng.normal(0, 0.9, (240, 24, 2))
    level = rng.normal(0, 1, (240, 5)) + 0.8 * np.eye(5)[y]
    split = np.repeat([0, 1, 2], [80, 80, 80])
    arrays = {"modality_wave": wave, "modality_level": level}
    np.savez(path, y=y, split=split, **{k: v.astype(np.float32) for k, v in arrays.items()})
    return path


@dataclass
class Seen:
    """What the files of a run say at one moment.

    Attributes:
        scores: finished trainings, id -> val_score.
        twice: ids that have more than one finished training.
        models: file in trained/ -> time of its last change in ns.
        finals: "<id> <repetition>" -> val_score of final trainings whose model is there.
        asked: trials in the study.
    """

    scores: dict[str, float] = field(default_factory=dict)
    twice: set[str] = field(default_factory=set)
    models: dict[str, int] = field(default_factory=dict)
    finals: dict[str, float] = field(default_factory=dict)
    asked: int = 0


def look(run: Path) -> Seen:
    """Reads trained/ and a copy of study.db; a missing file holds nothing."""
    seen = Seen()
    for file in (run / "trained").glob("c*.npz"):
        seen.models[file.name] = file.stat().st_mtime_ns
    ledger = run / "trained" / "finals.json"
    for key, entry in (json.loads(ledger.read_text()) if ledger.exists() else {}).items():
        if f"{key.replace(' ', '.')}.npz" in seen.models:
            seen.finals[key] = entry["val_score"]
    with tempfile.TemporaryDirectory() as name:  # a copy: looking must not mend anything
        for file in run.glob("study.db*"):
            shutil.copy(file, name)
        if not (Path(name) / "study.db").exists():
            return seen
        held = sqlite3.connect(Path(name) / "study.db")
        try:
            seen.asked = held.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
            rows = held.execute(
                "SELECT a.value_json FROM trial_user_attributes a JOIN trials t USING (trial_id)"
                " WHERE a.key = 'record' AND t.state = 'COMPLETE'"
            ).fetchall()
        except sqlite3.OperationalError:  # its tables were not made yet
            rows = []
        held.close()
    records = [json.loads(json.loads(text)) for (text,) in rows]
    trained = [record for record in records if record["status"] == "trained"]
    seen.scores = {record["id"]: record["val_score"] for record in trained}
    counts = Counter(record["id"] for record in trained)
    seen.twice = {identity for identity, count in counts.items() if count > 1}
    return seen


def lost(before: Seen, after: Seen) -> list[str]:
    """What had finished before and is gone, or has another score, after."""
    gone = [i for i, score in before.scores.items() if after.scores.get(i) != score]
    gone += [key for key, score in before.finals.items() if after.finals.get(key) != score]
    return gone + [name for name in before.models if name not in after.models]


def trained_twice(before: Seen, after: Seen) -> list[str]:
    """Ids with two trainings, and models that were written again."""
    changed = [name for name, at in before.models.items() if after.models.get(name, at) != at]
    return sorted(after.twice) + changed


def table(file: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def undominated(points: np.ndarray) -> np.ndarray:
    """(n,) whether no other of the (n, d) points is nowhere larger and somewhere smaller."""
    no_worse = (points[:, None] <= points[None]).all(2)
    better = (points[:, None] < points[None]).any(2)
    kept: np.ndarray = ~(no_worse & better).any(0)
    return kept


def implied_front(run: Path) -> dict[str, float]:
    """id -> val_score of the front that trials.csv and the final trainings imply."""
    rows = [row for row in table(run / "trials.csv") if row["status"] == "trained"]
    finals = look(run).finals

    def front(entries: list[tuple[dict[str, str], float]]) -> list[tuple[dict[str, str], float]]:
        costs = ("ram_bytes", "flash_bytes", "latency_ms")
        points = np.array([[-score, *(float(row[c]) for c in costs)] for row, score in entries])
        return [entry for entry, kept in zip(entries, undominated(points), strict=True) if kept]

    def again(row: dict[str, str]) -> list[float]:
        """Scores of the final trainings, or that of the search."""
        keys = sorted(key for key in finals if key.split()[0] == row["id"])
        return [finals[key] for key in keys] or [float(row["val_score"])]

    members = front([(row, float(np.mean(again(row)))) for row in rows])
    shipped = []
    for row, mean in members:
        apart = [round(abs(score - mean), 12) for score in again(row)]
        shipped.append((row, again(row)[apart.index(min(apart))]))
    return {row["id"]: score for row, score in front(shipped)}


def judge_front(run: Path) -> str:
    """`equal`, or what differs between front.csv, trials.csv, study.db and the files."""
    held = {row["id"]: float(row["val_score"]) for row in table(run / "front.csv")}
    implied, seen = implied_front(run), look(run)
    told = seen.scores
    rows = [row for row in table(run / "trials.csv") if row["status"] == "trained"]
    folders = {path.name for path in (run / "candidates").iterdir()}
    left = [str(path) for path in run.rglob("*.tmp")]
    if {row["id"]: float(row["val_score"]) for row in rows} != told:
        return "trials.csv differs from study.db"
    strange = set(held.items()) - set(implied.items())
    # What measured costs dominate has left; something that scores as well must have stayed.
    unfounded = {name for name in implied.keys() - held if implied[name] > max(held.values())}
    if "--no-verify" in json.loads((run / "run.json").read_text())["command"]:
        unfounded = implied.keys() - held
    if strange or unfounded:
        return f"front.csv differs in {sorted(strange)} {sorted(unfounded)}"
    models = {name.removesuffix(".npz") for name in seen.models if name.count(".") == 1}
    if models != set(told):  # a model is a finished training: a resumed run must have told it
        return f"trained/ differs from study.db in {sorted(models ^ set(told))}"
    if folders != set(held):
        return f"candidates/ differs in {sorted(folders ^ set(held))}"
    return "equal" if not left else f"left over: {left}"


def children(parent: int) -> list[int]:
    """Process ids of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def is_worker(process: int) -> bool:
    """Whether a child is a training or verifying process."""
    try:
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def hear_ctrl_c() -> None:
    """Undoes that what a shell starts in the background ignores Ctrl-C, and so its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Session:
    """One start of the command, and what can be seen of it from outside."""

    def __init__(self, run: Path, arguments: list[str], log: Path) -> None:
        self.run, self.log = run, log
        self.began_ns = time.time_ns()
        command = [sys.executable, str(ROOT / "run_search.py"), *arguments, "--out", str(run)]
        command += ["--resume"] if (run / ".lock").exists() else []
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=hear_ctrl_c,
                env=os.environ | {"NAS_CACHE_DIR": str(run.with_name(run.name + "-cache"))},
            )
        self.began_s = time.monotonic()

    def phase(self) -> str:
        """By the lines that it has printed and the files that it has written."""
        text = self.log.read_text()
        if self.process.poll() is not None or "\nreport: " in text:
            return "ended"
        if self._wrote("front.csv"):
            return "verify"
        if any(self._wrote(f"candidates/{p.name}/model.npz") for p in self._candidates()):
            return "export"
        if "\nsearch: " in text:
            return "finals"
        if self._wrote("run.json"):  # which a session does once it has its teacher
            return "search"
        return "teacher" if " on " in text else "start"

    def _candidates(self) -> list[Path]:
        folder = self.run / "candidates"
        return list(folder.iterdir()) if folder.exists() else []

    def _wrote(self, name: str) -> bool:
        try:
            return (self.run / name).stat().st_mtime_ns > self.began_ns
        except OSError:
            return False

    def wait_for(self, aim: str, delay_s: float) -> None:
        """Returns `delay_s` after the phase has begun, or when the session has ended."""
        while PHASES.index(self.phase()) < PHASES.index(aim):
            time.sleep(0.01)
        until = time.monotonic() + delay_s
        while time.monotonic() < until and self.process.poll() is None:
            time.sleep(0.01)

    def stop(self, kind: str, rng: random.Random) -> float:
        """Does what `kind` says; seconds until all processes of the session were gone."""
        family = children(self.process.pid)
        workers = [process for process in family if is_worker(process)]
        if kind in ("worker", "both") and workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
        if kind == "ctrl-c" and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        elif kind in ("parent", "both"):
            self.process.kill()
        if kind == "worker":
            self.process.wait(timeout=600)
            return 0.0
        began = time.monotonic()
        self.process.wait(timeout=60)
        while any(Path(f"/proc/{process}").exists() for process in family):
            time.sleep(0.01)
            if time.monotonic() - began > 60:
                raise SystemExit(f"workers of {self.process.pid} do not end: {family}")
        return time.monotonic() - began


def plan(kills: int, rng: random.Random) -> list[tuple[str, str]]:
    """(phase, kind) of each kill: early phases first, the others mixed."""
    total = sum(count for count, _ in AIMS.values())
    counts = {phase: round(count * kills / total) for phase, (count, _) in AIMS.items()}
    counts["search"] += kills - sum(counts.values())
    early = [phase for phase in ("start", "teacher") for _ in range(counts[phase])]
    late = [phase for phase in PHASES[2:6] for _ in range(counts[phase])]
    rng.shuffle(late)
    kinds = [("parent", "ctrl-c", "both", "parent", "worker")[i % 5] for i in range(kills)]
    rng.shuffle(kinds)
    # A session of which only a worker is killed ends by itself, and leaves no teacher to make.
    kinds.sort(key=lambda kind: kind == "worker")
    tail = kinds[len(early) :]
    rng.shuffle(tail)
    return list(zip([*early, *late], [*kinds[: len(early)], *tail], strict=True))


def main() -> None:
    """Kills, resumes, looks; exits with 1 if anything was lost, trained twice, or differs."""
    parser = argparse.ArgumentParser(description="Kills a run at random moments and resumes it.")
    parser.add_argument("--kills", type=int, default=20)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--task")
    source.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cortex-m4-64k")
    parser.add_argument("--minutes", type=float, default=1.5, help="of each session")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--run", type=Path, default=ROOT / "results" / "kills")
    parser.add_argument("--csv", type=Path, required=True)
    chosen = parser.parse_args()
    if chosen.run.exists():
        raise SystemExit(f"{chosen.run}: exists; delete it or choose another --run")
    chosen.run.parent.mkdir(parents=True, exist_ok=True)
    data = chosen.data or made_up(chosen.run.with_name(f"{chosen.run.name}.npz"))
    arguments = ["--task", chosen.task] if chosen.task else ["--data", str(data)]
    arguments += ["--device", chosen.device, "--minutes", str(chosen.minutes)]
    rng, rows, failed = random.Random(chosen.seed), [], False
    before = Seen()
    for number, (aim, kind) in enumerate([*plan(chosen.kills, rng), ("ended", "none")], 1):
        session = Session(chosen.run, arguments, chosen.run.with_name(f"{chosen.run.name}.log"))
        session.wait_for(aim, rng.uniform(0.0, AIMS[aim][1]) if aim in AIMS else 0.0)
        phase, seconds = session.phase(), time.monotonic() - session.began_s
        gone_s = session.stop(kind, rng)
        after = look(chosen.run)
        status = session.process.returncode
        expected = {"worker": (0,), "none": (0,), "ctrl-c": (130,)}.get(kind, (-9,))
        if phase == "ended":
            expected = (0, status)  # its work is done, whatever met it on its way out
        row = {"kill": number, "kind": kind, "aim": aim, "phase": phase, "status": status}
        row |= {"seconds": f"{seconds:.1f}", "workers_gone_s": f"{gone_s:.2f}"}
        row |= {"finished": len(after.scores), "finals": len(after.finals), "asked": after.asked}
        row |= {
            "lost": len(lost(before, after)),
            "trained_twice": len(trained_twice(before, after)),
        }
        row |= {"front": judge_front(chosen.run) if status == 0 else ""}
        rows.append(row)
        print(row, flush=True)
        wrong = row["lost"] or row["trained_twice"] or row["front"] not in ("", "equal")
        if wrong or status not in expected:
            failed = True
            print(f"wrong: {lost(before, after)} {trained_twice(before, after)} {expected}")
            print(session.log.read_text())
        before = after
        with chosen.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
