"""Files of a run folder: whole or not at all, the contract's columns, one writer."""

import csv
import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from random_graphs import random_multimodal

from nas.errors import RunError
from nas.hardware.budget import price
from nas.hardware.profile import load_profile
from nas.network.ops import Conv2d, DepthwiseConv2d
from nas.run_folder import (
    FRONT_COLUMNS,
    CostSummary,
    TrialRecord,
    locked,
    read_front,
    read_json,
    shown_bits,
    summarise,
    write_atomic,
    write_front,
    write_json,
    write_trials,
)

ROOT = Path(__file__).parents[1]
CONTRACT = (
    "id, verified, metric, val_score, val_low, val_high, test_score, test_low, test_high,"
    " test_accuracy, arena_bytes, weight_bytes, ram_bytes, flash_bytes, latency_ms, energy_uj,"
    " weight_bits, modalities"
)
TRIAL_COLUMNS = (
    "number,id,status,val_score,arena_bytes,weight_bytes,ram_bytes,flash_bytes,latency_ms,"
    "energy_uj,weight_bits,modalities,train_s,finished_s,reason,architecture,halfway_score"
)
LONG = 0.1 + 0.2  # 17 digits
COST = CostSummary(100, 200, 1000, 2000, LONG, 1 / 3, "8/4/2", "accel+gyro")


def record(**other: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "number": 3,
        "id": "c0123456789ab",
        "status": "trained",
        "val_score": LONG,
        "cost": COST,
        "train_s": 1.5,
        "finished_s": 2.5,
        "reason": "",
        "architecture": {"space": "conv", "branches": [{"shape": [1, 2, 3]}]},
    }
    return TrialRecord(**values | other)


def test_write_atomic(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    for data in (b"first", b"", b"\x00" * 1000):
        write_atomic(path, data)
        assert path.read_bytes() == data
        assert os.listdir(path.parent) == ["a.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "front.csv"
    write_atomic(path, b"old")
    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, "replace")), full)
    with pytest.raises(RunError, match=r"front\.csv: cannot be written \(No space left on device"):
        write_atomic(path, b"new")
    with pytest.raises(RunError, match="free space and go on with --resume, or choose"):
        write_atomic(tmp_path / "other.csv", b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["front.csv"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "a", b"")
    with pytest.raises(RunError, match="cannot be used as a run folder"), locked(tmp_path / "file"):
        pass


def test_json_round_trip(tmp_path: Path) -> None:
    document = {"b": LONG, "a": [1, None, "\u00fc"], "c": {"d": True}}
    write_json(tmp_path / "run.json", document)
    assert read_json(tmp_path / "run.json") == document
    assert list(read_json(tmp_path / "run.json")) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .*No such file.*; is this the folder of a run"),
        (b"", "cannot be read .*Expecting value"),
        (b'{"a": 1', "cannot be read .*Expecting"),
        (b"\xff\xfe", "cannot be read .*decode"),
        (b"[1]", "not a JSON object; is this the folder of a run"),
    ],
)
def test_unreadable_json(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=rf"run\.json: {message}"):
        read_json(path)


@pytest.mark.parametrize(
    "trial",
    [
        record(),
        record(status="infeasible", val_score=None, reason="RAM 3,000 of 2,999 bytes"),
        record(status="failed", val_score=None, reason='said "no",\nthen stopped'),
    ],
    ids=lambda trial: trial.status,
)
def test_trial_record_round_trip(trial: TrialRecord) -> None:
    assert TrialRecord.from_json(json.loads(json.dumps(trial.to_json()))) == trial


@pytest.mark.parametrize("key", ["cost", "reason"])
def test_another_record(key: str) -> None:
    document = record().to_json()
    del document[key]
    with pytest.raises((KeyError, TypeError), match=key):
        TrialRecord.from_json(document)
    with pytest.raises(TypeError, match="unexpected"):
        TrialRecord.from_json(record().to_json() | {"more": 1})


def test_trials_csv(tmp_path: Path) -> None:
    odd = 'said "no",\nthen stopped'
    left = record(number=4, val_score=None, reason=odd, halfway_score=LONG)
    write_trials(tmp_path, [record(), left])
    text = (tmp_path / "trials.csv").read_text()
    assert text.splitlines()[0] == TRIAL_COLUMNS
    first, second = csv.DictReader(text.splitlines(keepends=True))
    assert float(first["val_score"]) == LONG
    assert float(first["latency_ms"]) == LONG
    assert float(first["energy_uj"]) == 1 / 3
    assert json.loads(first["architecture"]) == record().architecture
    assert (second["val_score"], second["reason"]) == ("", odd)
    assert first["halfway_score"] == "" and float(second["halfway_score"]) == LONG
    write_trials(tmp_path, [])
    assert (tmp_path / "trials.csv").read_text() == TRIAL_COLUMNS + "\n"


def front_row(**other: Any) -> dict[str, Any]:
    return dict.fromkeys(FRONT_COLUMNS, 1) | other


def test_front_csv_has_the_columns_of_the_contract(tmp_path: Path) -> None:
    assert FRONT_COLUMNS[:18] == tuple(CONTRACT.split(", "))
    row = front_row(id="c0123456789ab", val_score=LONG, latency_ms=1 / 3, modalities="a+b")
    write_front(tmp_path, [row, front_row()])
    header = (tmp_path / "front.csv").read_text().splitlines()[0]
    assert header.split(",") == list(FRONT_COLUMNS)
    first, second = read_front(tmp_path)
    assert first == {column: str(value) for column, value in row.items()}
    assert (float(first["val_score"]), float(first["latency_ms"])) == (LONG, 1 / 3)
    assert second["id"] == "1"
    write_front(tmp_path, [])
    assert read_front(tmp_path) == []


def test_front_csv_takes_no_other_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more"):
        write_front(tmp_path, [front_row(more=1)])
    assert not (tmp_path / "front.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory; finish the run with --resume"),
        ("", "columns are missing"),
        ("id,verified\n", "columns are missing"),
        ("id,verified\nc0,no\n", "columns are missing; it was written by another tool"),
        (",".join(FRONT_COLUMNS) + "\nc0,no\n", "columns are missing"),
    ],
)
def test_unreadable_front(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "front.csv").write_text(content)
    with pytest.raises(RunError, match=rf"front\.csv: {message}"):
        read_front(tmp_path)


def test_summary_of_a_cost() -> None:
    graph = random_multimodal(random.Random(5))
    cost = price(graph, load_profile("cortex-m4-64k")).cost
    summary = summarise(graph, cost)
    layers = [op for op in graph.ops if isinstance(op, Conv2d | DepthwiseConv2d)]
    assert summary.weight_bits.split("/") == [str(op.weight_bits) for op in layers]
    assert summary.modalities == "+".join(source.name for source in graph.inputs)
    assert summary.latency_ms == pytest.approx(cost.latency_s * 1e3)
    assert summary.energy_uj == pytest.approx(cost.energy_j * 1e6)
    assert (summary.ram_bytes, summary.flash_bytes) == (cost.ram_bytes, cost.flash_bytes)


# Another process: takes the lock of argv[1], says so, and dies as argv[2] asks.
WRITER = """
import os, signal, sys
from pathlib import Path
from nas.run_folder import locked
with locked(Path(sys.argv[1])):
    print("holds the lock", flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    left = [tmp_path / ".front.csv.123.tmp", tmp_path / "trained" / ".c0.npz.77.tmp"]
    kept = [tmp_path / "front.csv", tmp_path / "notes.tmp", tmp_path / "trained" / "c0.npz"]
    (tmp_path / "trained").mkdir()
    for path in (*left, *kept):
        path.touch()
    with locked(tmp_path):
        assert not [path for path in left if path.exists()]
        left[0].touch()
        with pytest.raises(RunError, match="another run is writing here"), locked(tmp_path):
            pass
        assert left[0].exists(), "only the holder of the lock may clean up"
    assert all(path.exists() for path in kept)


def other_writer(run: Path, end: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITER, str(run), end]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with locked(run):
        refused = other_writer(run, "end")
        assert refused.returncode == 1
        assert "RunError" in refused.stderr
        assert "another run is writing here; wait for it or choose another --out" in refused.stderr
        assert "holds the lock" not in refused.stdout
    killed = other_writer(run, "kill")
    assert (killed.returncode, killed.stdout) == (-9, "holds the lock\n")
    with locked(run):
        pass


def test_bits_of_many_layers_are_counted_for_people() -> None:
    few = "8/4/4/8"
    assert shown_bits(few) == few
    assert shown_bits("/".join(["8", *["4"] * 12, *["8"] * 20])) == "21x8/12x4"
