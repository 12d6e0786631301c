"""Tasks with a name: `--task watch` instead of `--data FILE`, or `--task NAME --data PATH`.

PATH is the folder as which the task's data set was published, or a data file of the same sensors.
"""

import hashlib
import importlib.util
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas.data.data_rules import closest, listed, open_npz, sort_keys
from nas.data.originals import Original, Show
from nas.data.task import Array, Task, load_task, make_task
from nas.errors import DataError, ToolMissing

WATCH_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
WATCH_INSTALL = "pip install seglearn==1.2.5"
WATCH_RATE_HZ = 50
WATCH_WINDOW = 4 * WATCH_RATE_HZ
WATCH_STRIDE = 2 * WATCH_RATE_HZ
WATCH_PERSONS = {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 1, 8: 1, 9: 2, 10: 2}
"""Person to split: 1-6 train, 7-8 validate, 9-10 test. Each of them did every exercise."""


TASK_KEY = "task"
"""In a data file: the task whose published folder it was made of."""


@dataclass(frozen=True)
class NamedTask:
    """A data set that a name stands for, and what the name sets where the user does not.

    Attributes:
        source: where its data are, their licence and size.
        load: loads what an installed package brings; None: the user brings the data.
        read: reads the folder as which the data were published.
        modalities: those that are used where the data have them; () for all.
        metric: by which networks are scored; None for the usual one.
    """

    name: str
    summary: str
    source: str
    load: Callable[[], Task] | None = None
    read: Callable[[Path, Show], Original] | None = None
    modalities: tuple[str, ...] = ()
    metric: Literal["balanced_accuracy", "macro_f1"] | None = None


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


# ---------------------------------------------------------------- data that the user brings


def _coswara(path: Path, show: Show) -> Original:
    from nas.data.coswara import read_coswara

    return read_coswara(path, show)


def _slp(path: Path, show: Show) -> Original:
    from nas.data.slp import read_slp

    return read_slp(path, show)


def _residential(path: Path, show: Show) -> Original:
    from nas.data.residential import read_residential

    return read_residential(path, show)


def _lomapp(path: Path, show: Show) -> Original:
    from nas.data.lomapp import read_lomapp

    return read_lomapp(path, show)


TASKS: dict[str, NamedTask] = {
    task.name: task
    for task in (
        NamedTask(
            "watch",
            "7 shoulder exercises from a smart watch: accel and gyro at 50 Hz, windows of 4 s, "
            "split by person",
            f"installed by `{WATCH_INSTALL}` (BSD; 18 MB): give no --data",
            load=load_watch,
        ),
        NamedTask(
            "covid-audio",
            "COVID-19 or not from cough, speech and breath: log-mel spectrograms of 2 s, split by "
            "person",
            "Coswara, https://github.com/iiscleap/Coswara-Data (CC BY 4.0; 65 hours of sound, "
            "about 20 GB unpacked)",
            read=_coswara,
            modalities=("cough", "speech", "breath"),
            metric="balanced_accuracy",
        ),
        NamedTask(
            "depth-thermal-pose",
            "3 lying poses from depth and thermal pictures of 32 x 32, split by subject",
            "danaLab of SLP, on signed request at https://web.northeastern.edu/ostadabbas/2019/06/"
            "27/multimodal-in-bed-pose-estimation/ (its own terms; about 6.5 GB for depthRaw and "
            "IRraw)",
            read=_slp,
            modalities=("depth", "thermal"),
        ),
        NamedTask(
            "indoor-localisation",
            "rooms of one house from a wristband's signal strength and acceleration: windows of "
            "4 s, scripted walks to train, free living to test",
            "one house (house_A) of https://ndownloader.figshare.com/files/14220518, Scientific "
            "Data 5:180168 (licence and size: see there)",
            read=_residential,
            modalities=("rssi", "wifi", "ble", "accel", "imu", "mag"),
            metric="macro_f1",
        ),
        NamedTask(
            "parkinson-localisation",
            "rooms from signal strength and acceleration: windows of 5 s, a partner to train, a "
            "patient to test",
            "LoMAPP, on request from data-bris@bristol.ac.uk (its own terms, size unknown), or the "
            "dummy of https://github.com/ferdianjovan/Multihead-Dual-Convolutional-Self-Attention "
            "(CC0-1.0), converted from pickle to .npy as the README shows",
            read=_lomapp,
            modalities=("rssi", "accel"),
        ),
    )
}


def find_task(name: str) -> NamedTask:
    """A task by its name; DataError for an unknown one."""
    if name not in TASKS:
        raise DataError(
            f"no task {name!r}{closest(name, TASKS)}; the tasks are {', '.join(TASKS)}, "
            "or give a file with --data"
        )
    return TASKS[name]


def load_named_task(name: str, modalities: Iterable[str] | None = None) -> Task:
    """Load a task that brings its own data, all of its modalities or the named ones."""
    named = find_task(name)
    if named.load is None:
        raise DataError(
            f"task {name}: its data are not part of this project; get {named.source}, and give "
            "their folder, or an .npz file of the same sensors, with --data PATH"
        )
    task = named.load()
    return task if modalities is None else task.restricted(modalities)


@dataclass(frozen=True, eq=False)
class Given:
    """What a run learns from, and how it was come by.

    Attributes:
        original: what a loader read of a published folder; None for a file or an installed task.
        published: whether the data are those that the task is named for.
    """

    task: Task
    named: NamedTask | None
    original: Original | None
    published: bool

    def data_file(self) -> dict[str, Array]:
        """The arrays of a data file that stands for the folder, with the split made."""
        assert self.original is not None and self.named is not None
        made: dict[str, Array] = {"split": self.task.split, TASK_KEY: np.array(self.named.name)}
        return self.original.arrays | made


def find_data(
    name: str | None, data: str | None, modalities: Iterable[str] | None, show: Show
) -> Given:
    """The data of `--task` and `--data`, one of which is given.

    Args:
        modalities: those to use; None: the task's, where the data have them.
        show: is told what is read, as a published folder can take minutes.

    Raises:
        DataError: an unknown task, or data that are missing, damaged or of another kind.
    """
    named = None if name is None else find_task(name)
    if data is None:
        assert name is not None
        return Given(load_named_task(name, modalities), named, None, True)
    if named is None:
        return Given(load_task(data, modalities), None, None, True)
    path = Path(data).expanduser()
    if named.read is None:
        raise DataError(f"task {named.name}: brings its own data; leave out --data {data}")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    if path.is_dir():
        original = named.read(path, show)
        task = make_task(original.arrays, named.name, path, modalities)
        return Given(task, named, original, True)
    with open_npz(path) as arrays:
        asked = _asked(named, path, arrays) if modalities is None else modalities
        published = str(arrays.get(TASK_KEY, "")) == named.name
        task = make_task(arrays, named.name if published else path.stem, path, asked)
        return Given(task, named, None, published)


def _asked(named: NamedTask, path: Path, arrays: Mapping[str, Array]) -> list[str]:
    """The task's modalities that a file has."""
    known = sort_keys(str(path), arrays).modalities
    asked = [modality for modality in known if modality in named.modalities]
    if not asked:
        raise DataError(
            f"{path}: none of {listed(named.modalities)}, which task {named.name} uses; the "
            f"modalities are {listed(known)}: choose with --modalities"
        )
    return asked
