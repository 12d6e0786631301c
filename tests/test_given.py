"""What a run learns from: what a task sets and says, and that every process finds the same data."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import write_coswara, write_house, write_lomapp
from test_end_to_end import write_data
from test_manifest import options  # noqa: F401

from nas import cli, run
from nas.cli import main, search_main
from nas.data.task import load_task
from nas.errors import DataError, RunError
from nas.given import KEPT, describe, keep, notes, open_data, source_of, told
from nas.manifest import Options

ROOT = Path(__file__).resolve().parents[1]


def silent(text: str) -> None:
    assert text


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """Data of no covid: two of the task's sensors, and one that it does not use."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    arrays = {
        f"modality_{name}": rng.normal(size=(60, 4)).astype(np.float32) + y[:, None]
        for name in ("breath", "pulse", "cough")
    }
    np.savez(tmp_path / "voices.npz", **arrays, y=y, class_names=np.array(["low", "high"]))
    return tmp_path / "voices.npz"


@pytest.fixture
def asked(options: Options, stand_in: Path) -> Options:  # noqa: F811
    return replace(
        options,
        task="covid-audio",
        data=str(stand_in),
        metric="balanced_accuracy",
        task_sets_metric=True,
    )


def test_a_stand_in_is_told_as_one(asked: Options) -> None:
    given = open_data(asked, silent)
    assert given.task.name == "voices" and given.task.names == ("breath", "cough")
    assert told(given, asked) == [
        "task covid-audio sets --metric balanced_accuracy",
        "task covid-audio sets --modalities breath,cough",
    ]
    (note,) = notes(given, asked)
    assert note.endswith(
        "voices.npz stands in for the data of covid-audio: its classes are low, high, and its"
        " scores are no scores of that task"
    )
    assert describe(given, asked) == {
        "name": "covid-audio",
        "set": {"metric": "balanced_accuracy", "modalities": ["breath", "cough"]},
        "published_data": False,
        "folder": None,
        "left_out": [],
    }
    assert keep(given) is None and source_of(given).load().data_hash == given.task.data_hash


def test_options_go_before_what_the_task_sets(asked: Options) -> None:
    given_all = replace(asked, modalities=("pulse",), task_sets_metric=False, metric="macro_f1")
    given = open_data(given_all, silent)
    assert given.task.names == ("pulse",) and told(given, given_all) == []
    described = describe(given, given_all)
    assert described is not None and described["set"] == {}
    assert source_of(given).load().names == ("pulse",)


def test_without_a_task_nothing_is_set(options: Options) -> None:  # noqa: F811
    given = open_data(options, silent)
    assert told(given, options) == notes(given, options) == [] and describe(given, options) is None
    assert source_of(given).path == str(Path(str(options.data)).resolve())


def test_a_folder_is_read_once_and_kept(asked: Options, tmp_path: Path) -> None:
    folder = write_lomapp(tmp_path / "pair")
    asked = replace(asked, task="parkinson-localisation", data=str(folder), out=tmp_path / "out")
    given = open_data(asked, silent)
    kept = asked.out / KEPT
    assert given.task.path == kept.resolve() and not kept.exists()
    asked.out.mkdir()
    line = keep(given)
    assert (
        line
        == f"wrote {kept} ({kept.stat().st_size:,} bytes): what was read; as --data it is faster"
    )
    for person in ("C", "PD"):
        (folder / person / "rssi.npy").unlink()  # nobody needs the folder any more
    source = source_of(given)
    assert source.task is None and source.load().data_hash == given.task.data_hash
    again = open_data(replace(asked, data=str(kept)), silent)
    assert again.published and again.task.name == "parkinson-localisation"
    assert again.task.data_hash == given.task.data_hash
    assert notes(again, asked) == [] and len(notes(given, asked)) == 1


def test_what_is_kept_is_proved_by_its_hash(asked: Options, tmp_path: Path) -> None:
    asked = replace(asked, task="parkinson-localisation", data=str(write_lomapp(tmp_path / "a")))
    asked.out.mkdir()
    given = open_data(asked, silent)
    keep(given)
    write_data(asked.out / KEPT)
    with pytest.raises(DataError, match=r"no modality 'rssi'|the data changed"):
        source_of(given).load()


@pytest.mark.parametrize(
    ("arguments", "metric", "by_task"),
    (
        ((), "balanced_accuracy", True),
        (("--metric", "accuracy"), "accuracy", False),
        (("--metric", "macro_f1"), "macro_f1", False),
    ),
)
def test_the_metric_of_a_task(
    arguments: tuple[str, ...],
    metric: str,
    by_task: bool,
    stand_in: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Options] = []

    def stop(chosen: Options) -> Path:
        seen.append(chosen)
        raise RunError("enough")

    monkeypatch.setattr(run, "run_search", stop)
    given = ["--data", str(stand_in), "--trials", "1", *arguments]
    assert search_main(["--task", "covid-audio", *given]) == 1
    assert (seen[0].metric, seen[0].task_sets_metric) == (metric, by_task)
    assert seen[0].out.name.startswith("covid-audio-cortex-m4-64k-")
    assert search_main(["--task", "depth-thermal-pose", *given]) == 1
    assert seen[1].metric == (arguments[1] if arguments else "accuracy")
    assert not seen[1].task_sets_metric and cli.METRICS[0] == "accuracy"


def test_the_commands_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text()
    section = text.split("\n## Published data sets\n")[1].split("\n## ")[0]
    lines = [line.split()[2:] for line in section.splitlines() if "run_search.py --task" in line]
    seen: list[Options] = []
    monkeypatch.setattr(run, "run_search", seen.append)
    monkeypatch.setattr("nas.tables.print_front", lambda folder: None)
    assert [search_main(line) for line in lines] == [0] * 4
    assert [(asked.task, asked.space.name, asked.max_weight_bytes) for asked in seen] == [
        ("covid-audio", "conv", 6 * 1024),
        ("depth-thermal-pose", "conv", 58 * 1024),
        ("indoor-localisation", "transformer", 16 * 1024),
        ("indoor-localisation", "mamba", None),
    ]
    assert seen[3].device == "cortex-m4-32k"


# ---------------------------------------------------------------- nas import --task


Import = Callable[..., str]


@pytest.fixture
def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    def call(*arguments: object, status: int = 0) -> str:
        given = ["import", *map(str, arguments), "--out", str(tmp_path / "made.npz"), "--quiet"]
        assert main(given) == status
        captured = capsys.readouterr()
        if status:
            assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        return captured.err if status else captured.out

    return call


def test_a_published_folder_becomes_a_data_file(imported: Import, tmp_path: Path) -> None:
    folder, made = write_coswara(tmp_path / "coswara"), tmp_path / "made.npz"
    dry = imported(folder, "--task", "covid-audio", "--dry-run")
    assert "dry run: nothing written" in dry and not made.exists()
    said = imported(folder, "--task", "covid-audio")
    for text in (
        "cough: 64 x 40 x 1, uint8",
        "negative",
        f"wrote {made}: 12 windows in {made.stat().st_size:,} bytes",
        f"next: nas search --task covid-audio --data {made} --device",
    ):
        assert text in said
    task = load_task(made)
    assert task.split_given and task.names == ("cough", "speech", "breath")
    whole = imported(write_house(tmp_path / "set"), "--task", "indoor-localisation")
    assert "rssi: 20 x 3, float32" in whole and load_task(made).modalities[0].rate_hz == 5.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    (
        (["--task", "covid-audio", "--window-s", 1], "--window-s with --task: the task knows"),
        (["--task", "covid-audio", "--label", "a"], "--label with --task: the task knows"),
        (["--task", "covid-audio", "--sensor", "a=b"], "--sensor with --task: the task knows"),
        (["--task", "covid"], "no task 'covid' (did you mean covid-audio?)"),
        (["--task", "watch"], "--task watch: give one folder, of a task that reads folders"),
        (["other", "--task", "covid-audio"], "give one folder, of a task that reads folders"),
        (["--sensor", "a=b", "--label", "c"], "no --window-s; give the length of a window in"),
    ),
)
def test_imports_that_are_refused(
    arguments: list[object], named: str, imported: Import, tmp_path: Path
) -> None:
    assert named in imported(tmp_path, *arguments, status=1)


def test_a_file_needs_no_import(imported: Import, stand_in: Path) -> None:
    line = imported(stand_in, "--task", "covid-audio", status=1)
    assert "voices.npz: is a file already; nas search --data takes it as it is" in line


# ---------------------------------------------------------------- a whole run


def test_a_run_on_a_folder_knows_it_again_and_needs_it_no_more(tmp_path: Path) -> None:
    folder, out = write_lomapp(tmp_path / "pair"), tmp_path / "run"

    def command(*arguments: object, status: int = 0) -> Any:
        environment = os.environ | {"NAS_CACHE_DIR": str(tmp_path / "cache")}
        line = [sys.executable, *map(str, arguments)]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        return done

    base = ("run_search.py", "--task", "parkinson-localisation", "--data", folder, "--out", out)
    base += ("--no-distil", "--no-verify", "--workers", 1, "--device", "cortex-m4-32k", "--quiet")
    first = command(*base, "--trials", 1).stdout.splitlines()
    assert first[0] == "task parkinson-localisation sets --modalities rssi,accel"
    assert first[1] == "left out: 24 validation windows that share samples with training"
    assert first[2].startswith(f"wrote {out / KEPT} (")
    held = json.loads((out / "run.json").read_text())
    assert held["task"]["folder"] == str(folder) and held["task"]["published_data"]
    assert held["data"]["path"] == str(out / KEPT) and held["notes"][0] == first[1]
    np.save(folder / "C" / "rssi.npy", np.load(folder / "C" / "rssi.npy") + 1)
    changed = command(*base, "--trials", 2, "--resume", status=1).stderr
    assert f"the content of data {folder} has hash" in changed
    (folder / "C").rename(tmp_path / "gone")
    command("-m", "nas", "report", out)
    from nas.export.verify import data_source

    assert data_source(held).load().data_hash == held["data"]["hash"]
