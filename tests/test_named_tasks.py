"""The tasks that come with a name, and the one file that is allowed to be a pickle."""

import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.data import named_tasks
from nas.data.named_tasks import TASKS, load_named_task, read_watch, watch_path
from nas.data.task import Task
from nas.errors import DataError, ToolMissing


@pytest.fixture(scope="module")
def watch() -> Iterator[Task]:
    if importlib.util.find_spec("seglearn") is None:
        pytest.skip("watch_dataset.npy is not installed (seglearn 1.2.5)")
    yield load_named_task("watch")


def test_table() -> None:
    assert "watch" in TASKS
    for name, task in TASKS.items():
        assert task.name == name and task.summary and "\n" not in task.summary
        assert task.source and "\n" not in task.source
        assert (task.load is None) != (task.read is None)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "wach",
            r"no task 'wach' \(did you mean watch\?\); the tasks are watch, covid-audio, ",
        ),
        ("", r"no task ''; the tasks are watch"),
    ],
)
def test_unknown_name(name: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        load_named_task(name)


def test_watch_shapes_and_counts(watch: Task) -> None:
    assert watch.name == "watch" and watch.path is None and watch.ignored_keys == ()
    assert watch.names == ("accel", "gyro")
    assert watch.class_names == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert len(watch.y) == 2229
    assert [len(watch.rows(s)) for s in ("train", "val", "test")] == [1271, 480, 478]
    for modality in watch.modalities:
        assert modality.values.dtype == np.float32 and modality.kind == "series"
        assert modality.shape == (200, 3) and modality.graph_shape == (1, 200, 3)
        assert modality.scale is None and modality.offset is None


def test_watch_splits_persons_and_keeps_every_class_in_each(watch: Task) -> None:
    assert watch.group is not None
    persons = [sorted(set(watch.group[watch.rows(s)])) for s in ("train", "val", "test")]
    assert persons == [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10]]
    for split in ("train", "val", "test"):
        assert np.bincount(watch.y[watch.rows(split)]).min() >= 50


def test_watch_windows_are_cut_from_the_recordings(watch: Task) -> None:
    data = read_watch(watch_path())
    row = 0
    for recording, label, person in zip(data["X"], data["y"], data["subject"], strict=True):
        for start in range(0, len(recording) - 199, 100):
            if start == 0 or start + 300 > len(recording):
                window = recording[start : start + 200].astype(np.float32)
                np.testing.assert_array_equal(watch.modalities[0].values[row], window[:, :3])
                np.testing.assert_array_equal(watch.modalities[1].values[row], window[:, 3:])
                assert watch.group is not None
                assert (watch.y[row], watch.group[row]) == (label, person)
            row += 1
    assert row == len(watch.y)


def test_watch_is_the_same_each_time(watch: Task) -> None:
    again = load_named_task("watch", ["gyro"])
    assert again.names == ("gyro",)
    assert again.data_hash == watch.restricted(["gyro"]).data_hash != watch.data_hash


def test_watch_imports_neither_seglearn_nor_sklearn(watch: Task) -> None:
    code = (
        "import sys; from nas.data.named_tasks import load_named_task; load_named_task('watch');"
        "sys.exit(bool({'seglearn', 'sklearn'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_tampered_file_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, path = tmp_path / "exploded", tmp_path / "watch_dataset.npy"
    stream = io.BytesIO()
    np.save(stream, np.array(Bomb(mark), dtype=object), allow_pickle=True)
    path.write_bytes(stream.getvalue())
    monkeypatch.setattr(named_tasks, "watch_path", lambda: path)
    with pytest.raises(DataError, match=r"SHA-256 is [0-9a-f]{64}; only eb122f23.* reinstall"):
        load_named_task("watch")
    assert not mark.exists()
    np.load(path, allow_pickle=True)
    assert mark.exists(), "the bomb works, so its silence above means something"


def test_missing_recordings_name_the_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = r"come with seglearn 1\.2\.5, run `pip install seglearn==1\.2\.5`"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolMissing, match=expected):
        load_named_task("watch")
    empty = importlib.util.spec_from_loader("seglearn", None, is_package=True)
    assert empty is not None
    empty.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: empty)
    with pytest.raises(ToolMissing, match=expected):
        load_named_task("watch")
