"""One whole run on a small file, started as a user starts it, and its folder by the contract."""

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from nas.data.task import load_task
from nas.export import runtimes
from nas.network import reference
from nas.network.integer import load_integer_model
from nas.run_folder import Status
from nas.search.pareto import hypervolume

ROOT = Path(__file__).resolve().parents[1]
CHECK_RUN = ROOT.parent / "shared" / "tools" / "check_run.py"
HAS_TFLM = importlib.util.find_spec("tflite_micro") is not None
DEVICE, RAM_BYTES, FLASH_BYTES = "cortex-m4-32k", 28_672, 196_608
CONTRACT = (
    *("id", "verified", "metric", "val_score", "val_low", "val_high"),
    *("test_score", "test_low", "test_high", "test_accuracy"),
    *("arena_bytes", "weight_bytes", "ram_bytes", "flash_bytes", "latency_ms", "energy_uj"),
    *("weight_bits", "modalities"),
)
ARTEFACTS = (
    *("architecture.json", "model.onnx", "model_integer.onnx", "model.tflite", "README.md"),
    *("c/model.c", "c/model.h", "c/main.c", "verdict.json"),
)
Row = dict[str, str]


def write_data(path: Path, seed: int = 0) -> Path:
    """320 rows, 3 classes that a wave's frequency tells well and a vector less well."""
    rng = np.random.default_rng(seed)
    y, steps = np.arange(320) % 3, np.arange(16)
    phase = steps * (0.3 + 0.35 * y[:, None]) + rng.uniform(0, 6, (320, 1))
    wave = np.sin(phase)[..., None] * [1.0, 0.5] + rng.normal(0, 0.4, (320, 16, 2))
    np.savez(
        path,
        modality_wave=(1000 * wave).astype(np.int16),
        scale_wave=np.float32(0.001),
        modality_level=(rng.normal(0, 1, (320, 5)) + 1.2 * np.eye(5)[y]).astype(np.float32),
        y=y,
        split=np.repeat([0, 1, 2], [80, 200, 40]),
        class_names=np.array(["slow", "middle", "fast"]),
        note=np.arange(3),
    )
    return path


class World:
    """A folder with the data, a cache and a finished run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.data = write_data(folder / "toy.npz")
        self.environment = os.environ | {"NAS_CACHE_DIR": str(folder / "cache")}

    def command(self, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *(str(argument) for argument in arguments)],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == status, done.stderr
        return done

    def search(self, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        given = ("--device", DEVICE, "--workers", 2, "--seed", 1, "--quiet", *arguments)
        return self.command("run_search.py", *given, status=status)

    def refused(self, *arguments: object) -> str:
        line = self.search(*arguments, status=1).stderr
        assert line.startswith("error: ") and line.count("\n") == 1
        return line


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"))
    done = made.search("--data", made.data, "--trials", 4, "--out", made.run)
    assert done.stderr == ""
    for row in table(made.run / "front.csv"):
        assert row["id"] in done.stdout
    assert f"report: {made.run / 'report.html'}" in done.stdout
    return made


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(world.run, tmp_path / "copy"))


def table(file: Path) -> list[Row]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def document(file: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(file.read_text())
    return held


def of_status(run: Path, status: str) -> list[Row]:
    return [row for row in table(run / "trials.csv") if row["status"] == status]


# ---------------------------------------------------------------- the folder


def test_files(world: World) -> None:
    found = {file.name for file in world.run.iterdir() if not file.name.startswith(".")}
    contract = {
        "run.json",
        "study.db",
        "trials.csv",
        "front.csv",
        "progress.json",
        "report.html",
        "candidates",
    }
    assert found == contract | {"trained"}
    assert not list(world.run.rglob("*.tmp"))
    ids = [row["id"] for row in table(world.run / "front.csv")]
    assert sorted(file.name for file in (world.run / "candidates").iterdir()) == sorted(ids)
    for identity in ids:
        folder = world.run / "candidates" / identity
        assert [name for name in ARTEFACTS if not (folder / name).stat().st_size] == []


def test_front(world: World) -> None:
    rows = table(world.run / "front.csv")
    assert rows and tuple(rows[0])[: len(CONTRACT)] == CONTRACT
    assert len({row["id"] for row in rows}) == len(rows)
    points = []
    for row in rows:
        assert re.fullmatch(r"c[0-9a-f]{12}", row["id"]) and row["metric"] == "accuracy"
        for split in ("val", "test"):
            low, value, high = (float(row[f"{split}_{part}"]) for part in ("low", "score", "high"))
            assert 0 <= low <= value <= high <= 1
        assert float(row["test_score"]) == float(row["test_accuracy"])
        assert 0 < int(row["arena_bytes"]) < int(row["ram_bytes"]) <= RAM_BYTES
        assert 0 < int(row["weight_bytes"]) < int(row["flash_bytes"]) <= FLASH_BYTES
        assert float(row["latency_ms"]) > 0 and float(row["energy_uj"]) > 0
        assert set(row["weight_bits"].split("/")) <= {"2", "4", "8"}
        assert set(row["modalities"].split("+")) <= {"wave", "level"}
        costs = (row[f"{name}_bytes"] for name in ("ram", "flash"))
        points.append((-float(row["val_score"]), *map(float, costs), float(row["latency_ms"])))
    for point in points:
        assert not any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points
        )
    assert max(float(row["test_accuracy"]) for row in rows) > 0.8


@pytest.mark.skipif(not HAS_TFLM, reason="tflite-micro is not installed")
def test_every_candidate_is_verified(world: World) -> None:
    for row in table(world.run / "front.csv"):
        assert row["verified"] == "emulated"
        folder = world.run / "candidates" / row["id"]
        held = document(folder / "verification.json")
        assert held["inputs"] == 256 and len(held["runtimes"]) == 5
        *others, c = held["runtimes"]
        assert [check["differing"] for check in (*others[:3], c)] == [0, 0, 0, 0]
        assert {check["compared"] for check in others} == {256 * 3} and c["compared"] == 64 * 3
        verdict = document(folder / "verdict.json")
        for kind in ("ram", "flash"):
            assert int(row[f"{kind}_bytes"]) == verdict[f"measured_{kind}_bytes"]
        text = (folder / "README.md").read_text()
        assert f"{verdict['measured_ram_bytes']:,} bytes, " in text and "| measured |" in text
        assert "predicted |" not in text


def test_manifest(world: World) -> None:
    held = document(world.run / "run.json")
    data = held["data"]
    assert data["path"] == str(world.data.resolve()) and Path(data["path"]).is_absolute()
    assert data["hash"] == load_task(world.data).data_hash
    assert data["ignored_keys"] == ["note"] and data["modalities"] == ["wave", "level"]
    assert data["rows"] == {"train": 80, "val": 200, "test": 40}
    assert held["seed"] == 1 and held["space"] == "conv" and held["profile"]["name"] == DEVICE
    assert held["command"][0] == "run_search.py" and "--trials" in held["command"]
    assert {"python", "torch", "optuna", "numpy"} <= set(held["versions"])
    teacher = held["teacher"]
    assert teacher["kind"] == held["teacher_kind"] == "conv" and teacher["val_score"] > 0.8
    assert teacher["size_bytes"] == 4 * teacher["parameters"] > 4000
    assert (world.folder / "cache" / "teachers" / f"{teacher['hash']}.npz").exists()
    assert held["ended"] >= held["started"] and held["trials"]["trained"] == 4
    assert set(held["trials"]) == set(get_args(Status))
    assert held["hypervolume"] == pytest.approx(as_delivered(world.run))


def as_delivered(run: Path) -> float:
    """The hypervolume of front.csv, whose costs are measured."""
    budgets = document(run / "run.json")["budgets"]
    limits = {name: float(budgets[name]) for name in ("ram_bytes", "flash_bytes")}
    limits["latency_ms"] = 100.0
    points = [
        [1 - float(row["val_score"]), *(float(row[name]) / most for name, most in limits.items())]
        for row in table(run / "front.csv")
    ]
    return hypervolume(np.array(points), np.ones(4))


def test_trials(world: World) -> None:
    rows = table(world.run / "trials.csv")
    assert len({row["number"] for row in rows}) == len(rows)
    trained = of_status(world.run, "trained")
    assert len(trained) == len({row["id"] for row in trained}) == 4
    for row in trained:
        assert (world.run / "trained" / f"{row['id']}.npz").exists()
        assert 0 <= float(row["val_score"]) <= 1 and float(row["train_s"]) > 0
    assert {row["id"] for row in table(world.run / "front.csv")} <= {row["id"] for row in trained}


def test_report_names_every_candidate_and_is_one_file(world: World) -> None:
    page = (world.run / "report.html").read_text()
    assert all(row["id"] in page for row in table(world.run / "front.csv"))
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?://", page)


# ---------------------------------------------------------------- the candidates


def test_artefacts_reach_the_accuracy_of_the_front(world: World) -> None:
    with np.load(world.data) as data:
        arrays = {key: data[key] for key in data.files}
    rows = np.flatnonzero(arrays["split"] == 2)
    for row in table(world.run / "front.csv"):
        folder = world.run / "candidates" / row["id"]
        inputs = {}
        for name, spec in document(folder / "architecture.json")["inputs"].items():
            real = arrays[f"modality_{name}"][rows] * arrays.get(f"scale_{name}", np.float32(1))
            mean, std = np.float32(spec["mean"]), np.float32(spec["std"])
            steps = np.clip(np.round((real - mean) / std / spec["scale"]), -128, 127)
            shape = (1, 1, *spec["shape"])[-3:]
            inputs[name] = steps.astype(np.int8).reshape(len(rows), *shape)
        assert "+".join(inputs) == row["modalities"]
        expected = reference.run(load_integer_model(folder / "model.npz"), inputs)
        seen = runtimes.run_onnx((folder / "model_integer.onnx").read_bytes(), inputs)
        np.testing.assert_array_equal(seen, expected)
        right = float((seen.argmax(1) == arrays["y"][rows]).mean())
        assert right == pytest.approx(float(row["test_accuracy"]), abs=1e-9)
        if HAS_TFLM:
            logits = runtimes.run_tflm((folder / "model.tflite").read_bytes(), inputs)
            np.testing.assert_array_equal(logits, expected)
        missing = document(folder / "architecture.json")["missing_sensors"]
        assert list(missing) == list(inputs)
        for name, given in missing.items():  # a sensor at its mean is 0 in every position
            without = inputs | {name: np.zeros_like(inputs[name])}
            seen = runtimes.run_onnx((folder / "model_integer.onnx").read_bytes(), without)
            right = float((seen.argmax(1) == arrays["y"][rows]).mean())
            assert given["score"] == pytest.approx(right, abs=1e-9)
        close = runtimes.run_onnx((folder / "model.onnx").read_bytes(), inputs)
        assert (close.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_costs_of_a_candidate_agree(world: World) -> None:
    for row in table(world.run / "front.csv"):
        held = document(world.run / "candidates" / row["id"] / "architecture.json")
        cost = held["cost"]
        assert (cost["arena_bytes"], cost["weight_bytes"]) == (
            int(row["arena_bytes"]),
            int(row["weight_bytes"]),
        )
        assert sum(op["weight_bytes"] for op in cost["per_op"]) == cost["weight_bytes"]
        assert held["plan"]["arena_bytes"] == cost["arena_bytes"]
        assert held["training"]["val_scores"][0] == float(row["val_score"])
        assert held["training"]["weights_hash"] == row["weights_hash"]
        assert np.sum(held["confusion"]) == 40
        assert np.trace(held["confusion"]) / 40 == pytest.approx(float(row["test_accuracy"]))


@pytest.mark.skipif(not CHECK_RUN.exists(), reason="check_run.py is not beside the checkout")
@pytest.mark.skipif(not HAS_TFLM, reason="tflite-micro is not installed")
def test_the_check_from_outside_finds_nothing(world: World) -> None:
    limits = ("--ram-bytes", RAM_BYTES, "--flash-bytes", FLASH_BYTES, "--verified", "emulated")
    seen = world.command(CHECK_RUN, world.run, "--data", world.data, *limits, "--inputs", 16)
    assert seen.stdout.endswith(" 0 findings\n")


# ---------------------------------------------------------------- the verbs


def test_verify(world: World, copy: Path) -> None:
    first = table(copy / "front.csv")[0]["id"]
    lines = (copy / "front.csv").read_text().replace(",emulated,", ",no,")
    (copy / "front.csv").write_text(lines)
    done = world.command("-m", "nas", "verify", copy, first)
    assert first in done.stdout and "0 of 768" in done.stdout
    verified = {row["id"]: row["verified"] for row in table(copy / "front.csv")}
    expected = "emulated" if HAS_TFLM else "no"
    assert verified.pop(first) == expected and set(verified.values()) <= {"no"}


def test_verify_notices_another_model(world: World, copy: Path) -> None:
    ids = [row["id"] for row in table(copy / "front.csv")]
    folder = copy / "candidates" / ids[0]
    model = load_integer_model(folder / "model.npz")
    name = next(iter(model.weights))
    model.weights[name].bias[:] += 1000
    (folder / "model.npz").write_bytes(model.to_bytes())
    done = world.command("-m", "nas", "verify", copy, ids[0], status=1)
    assert re.match(rf"error: {ids[0]}: \d+ of 768 outputs differ in ", done.stderr)
    assert done.stderr.count("\n") == 1
    assert table(copy / "front.csv")[0]["verified"] == "no"


def test_report_and_estimate(world: World, copy: Path) -> None:
    (copy / "report.html").unlink()
    done = world.command("-m", "nas", "report", copy)
    assert done.stdout == f"{copy / 'report.html'}\n" and (copy / "report.html").exists()
    row = table(copy / "front.csv")[0]
    file = copy / "candidates" / row["id"] / "architecture.json"
    done = world.command("-m", "nas", "estimate", file, "--device", DEVICE)
    assert f"{int(row['weight_bytes']):,} B  exact" in done.stdout
    assert f"{int(row['arena_bytes']):,} B  exact" in done.stdout
    assert done.stdout.endswith("fits\n")


def files_of(folder: Path) -> dict[str, bytes]:
    """Path inside the folder -> content of every file."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_pick_and_its_brief(world: World, tmp_path: Path) -> None:
    out = tmp_path / "poc"
    duty = ("--every-s", 1, "--cell", "CR2032")
    done = world.command("-m", "nas", "pick", world.run, *duty, "--out", out)
    (knee,) = re.findall(r"^ \* +(c[0-9a-f]{12}) ", done.stdout, re.MULTILINE)
    assert files_of(out) == files_of(world.run / "candidates" / knee)
    (row,) = [row for row in table(world.run / "front.csv") if row["id"] == knee]
    # 16 x 2 int16, and 5 float32
    raw = sum({"wave": 64, "level": 20}[name] for name in row["modalities"].split("+"))
    assert f"1 byte (the class) instead of {raw} (the raw window)" in done.stdout
    assert "uA in the mean" in done.stdout and "235 mAh" in done.stdout
    text = (out / "README.md").read_text()
    assert (
        f"instead of {raw} (the raw window)" in text and f"{float(row['test_score']):.4f}" in text
    )
    assert f"(candidate verified: {row['verified']})" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ran = subprocess.run([sys.executable, "-c", code], cwd=out, capture_output=True, text=True)
    assert re.match(r"\('(slow|middle|fast)', array\(", ran.stdout), ran.stderr


# ---------------------------------------------------------------- going on


def test_resume_adds_trials_and_trains_nothing_again(world: World, copy: Path) -> None:
    before = {row["id"]: row for row in of_status(copy, "trained")}
    models = {file.name: file.read_bytes() for file in (copy / "trained").glob("*.npz")}
    world.search("--data", world.data, "--trials", 5, "--out", copy, "--resume")
    after = of_status(copy, "trained")
    assert len(after) == len({row["id"] for row in after}) == 5
    assert {row["id"]: row for row in after if row["id"] in before} == before
    for name, content in models.items():
        assert (copy / "trained" / name).read_bytes() == content
    front = table(copy / "front.csv")
    assert {row["verified"] for row in front} == {"emulated" if HAS_TFLM else "no"}
    assert document(copy / "run.json")["trials"]["trained"] == 5
    page = (copy / "report.html").read_text()
    assert all(row["id"] in page for row in front)


def test_a_device_that_is_not_there(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(world.environment, "CUDA_VISIBLE_DEVICES", "")
    arguments = ("--data", world.data, "--trials", 1, "--train-on", "cuda")
    line = world.refused(*arguments, "--no-distil", "--out", tmp_path / "run")
    assert "--train-on cuda: torch" in line and "finds no CUDA device" in line
    assert not (tmp_path / "run").exists(), "refused before the folder is touched"


def test_what_resume_refuses(world: World, copy: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()}
    other = write_data(tmp_path / "other.npz", seed=9)
    arguments = ("--data", world.data, "--trials", 6, "--out", copy)
    assert "holds a run already; add --resume" in world.refused(*arguments)
    old, new = load_task(world.data).data_hash[:12], load_task(other).data_hash[:12]
    line = world.refused("--data", other, *arguments[2:], "--resume")
    assert f"the content of data {other} has hash {new} and had {old} when the run began" in line
    changed = (*arguments, "--resume", "--objectives", "error,ram")
    assert "objectives is ['error', 'ram'] and was" in world.refused(*changed)
    assert {file: file.read_bytes() for file in copy.rglob("*") if file.is_file()} == before


def test_a_study_that_was_emptied_is_not_gone_on_with(world: World, copy: Path) -> None:
    whole = (copy / "study.db").read_bytes()
    (copy / "study.db").write_bytes(b"")
    before = {f: f.read_bytes() for f in copy.rglob("*") if f.is_file() and f.suffix != ".db"}
    line = world.refused("--data", world.data, "--trials", 6, "--out", copy, "--resume")
    assert "study.db: is not the study of this run, but was emptied or made anew" in line
    del before[copy / "progress.json"]
    assert before.items() <= {f: f.read_bytes() for f in copy.rglob("*") if f.is_file()}.items()
    (copy / "study.db").write_bytes(whole)
    again = ("--trials", 4, "--out", copy, "--resume", "--no-verify")
    assert "resumed: 4 networks trained before" in world.search("--data", world.data, *again).stdout
