"""Tasks with a name: `--task watch` instead of `--data FILE`."""

import hashlib
import importlib.util
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.data.data_rules import closest, listed
from nas.data.task import Task, make_task
from nas.errors import DataError, ToolMissing

WATCH_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
WATCH_INSTALL = "pip install seglearn==1.2.5"
WATCH_RATE_HZ = 50
WATCH_WINDOW = 4 * WATCH_RATE_HZ
WATCH_STRIDE = 2 * WATCH_RATE_HZ
WATCH_PERSONS = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 1, 8: 1, 9: 2, 10: 2}
"""Person to split: 1-6 train, 7-8 validate, 9-10 test. Each of them did every exercise."""


@dataclass(frozen=True)
class NamedTask:
    """A data set that a name stands for. `install` is the line that brings its recordings."""

    name: str
    summary: str
    install: str
    load: Callable[[], Task]


def watch_path() -> Path:
    """The recordings in seglearn's wheel, found without importing it or scikit-learn."""
    spec = importlib.util.find_spec("seglearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "watch_dataset.npy"
        if path.is_file():
            return path
    raise ToolMissing(
        "task watch: its recordings are not installed; they come with seglearn 1.2.5, "
        f"run `{WATCH_INSTALL}` (or `pip install 'mcu-nas[demo]'`)"
    )


def read_watch(path: Path) -> dict[str, Any]:
    """The recordings of one exact file.

    This is the project's only exception to 'no pickle': the file is a pickled dict. So the bytes
    that are unpickled are the bytes whose SHA-256 was compared just before.
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WATCH_SHA256:
        raise DataError(
            f"{path}: SHA-256 is {found}; only {WATCH_SHA256} (seglearn 1.2.5) is ever opened, "
            f"reinstall it with `{WATCH_INSTALL}`"
        )
    recordings: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    return recordings


def load_watch() -> Task:
    """Shoulder exercises on a smart watch: windows of 4 s every 2 s, accel and gyro (200, 3).

    The file names no units. At rest the acceleration has length 1, so it is in g; the angular
    rate has the size of rad/s.
    """
    data = read_watch(watch_path())
    windows, labels, persons = [], [], []
    for recording, label, person in zip(data["X"], data["y"], data["subject"], strict=True):
        cut = np.lib.stride_tricks.sliding_window_view(recording, WATCH_WINDOW, axis=0)
        cut = cut[::WATCH_STRIDE].transpose(0, 2, 1).astype(np.float32)
        windows.append(cut)
        labels.append(np.full(len(cut), label, np.int64))
        persons.append(np.full(len(cut), person, np.int64))
    x, person_of_row = np.concatenate(windows), np.concatenate(persons)
    arrays = {
        "modality_accel": np.ascontiguousarray(x[:, :, :3]),
        "modality_gyro": np.ascontiguousarray(x[:, :, 3:]),
        "y": np.concatenate(labels),
        "split": np.array([WATCH_PERSONS[int(person)] for person in person_of_row], np.int8),
        "group": person_of_row,
        "class_names": np.array(data["y_labels"]),
    }
    return make_task(arrays, "watch")


TASKS: dict[str, NamedTask] = {
    task.name: task
    for task in (
        NamedTask(
            "watch",
            "7 shoulder exercises from a smart watch: accel and gyro at 50 Hz, windows of 4 s, "
            "split by person (seglearn 1.2.5)",
            WATCH_INSTALL,
            load_watch,
        ),
    )
}


def load_named_task(name: str, modalities: Iterable[str] | None = None) -> Task:
    """Load a named task, all of its modalities or the named ones."""
    if name not in TASKS:
        raise DataError(
            f"no task {name!r}{closest(name, TASKS)}; the tasks are {listed(TASKS)}, "
            "or give a file with --data"
        )
    task = TASKS[name].load()
    return task if modalities is None else task.restricted(modalities)
