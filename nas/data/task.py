"""A task: sensor arrays, labels and the split, checked against the data contract.

Nothing here needs torch. Stored values keep their type; `real` and `quantised` convert the rows
that are asked for. The quantisation is the one that every artefact and every outside check uses:

    q = clip(round((stored * scale + offset - mean) / std / input_scale), -128, 127)
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nas.data import data_rules as rules
from nas.errors import DataError

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64] | slice
SplitName = Literal["train", "val", "test"]
Kind = Literal["series", "image", "vector"]

SHARES = (0.6, 0.2, 0.2)
"""Train, validation and test share of a split that this project makes."""
SPLIT_SEED = 2024
GROUP_TRIES = 200
LARGEST_Z = 8.0
"""Normalised values beyond this saturate: rare spikes must not cost everyone's resolution."""

KINDS: dict[int, Kind] = {2: "vector", 3: "series", 4: "image"}


@dataclass(frozen=True, eq=False)
class Modality:
    """One sensor: stored values (N, ...), how they become real values and int8 inputs.

    `mean` and `std` are float32 (C,) in real units, from the training split; a constant channel
    has std 1. `input_scale` is exactly a float32 value, the zero point is 0. `rate_hz` and
    `columns` are what an import knows of the recordings; only people read them.
    """

    name: str
    values: Array
    scale: Array | None
    offset: Array | None
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    input_scale: float
    zero_point: int = 0
    rate_hz: float | None = None
    columns: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """series (N, T, C), image (N, H, W, C) or vector (N, F)."""
        return KINDS[self.values.ndim]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample in the data's layout."""
        return self.values.shape[1:]

    @property
    def channels(self) -> int:
        """Size of the last axis."""
        return int(self.values.shape[-1])

    @property
    def graph_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) in the network: series have height 1, vectors also width 1."""
        height, width, channels = (1, 1, *self.shape)[-3:]
        return height, width, channels

    def real(self, rows: Rows) -> Array:
        """Real values (n, ...) of some rows: float32, or float64 where scale or offset is."""
        return real_values(self.values[rows], self.scale, self.offset)

    def quantised(self, rows: Rows) -> npt.NDArray[np.int8]:
        """int8 inputs (n, height, width, channels) of some rows."""
        with np.errstate(over="ignore"):
            q = np.round((self.real(rows) - self.mean) / self.std / self.input_scale)
        clipped: npt.NDArray[np.int8] = np.clip(q + self.zero_point, -128, 127).astype(np.int8)
        return clipped.reshape(len(clipped), *self.graph_shape)


@dataclass(frozen=True, eq=False)
class Task:
    """What the search works on. Rows of all arrays belong together.

    `modalities` are in the file's key order, `y` is int64 (N,) of 0..K-1, `split` int8 (N,) with
    0 train, 1 validation, 2 test, which the file may have given, `group` (N,) the subject or site.
    `data_hash` covers the content of the arrays in use, not the way the file stores them.
    """

    name: str
    modalities: tuple[Modality, ...]
    y: npt.NDArray[np.int64]
    split: npt.NDArray[np.int8]
    split_given: bool
    group: Array | None
    class_names: tuple[str, ...]
    path: Path | None
    data_hash: str
    ignored_keys: tuple[str, ...]

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return tuple(modality.name for modality in self.modalities)

    def rows(self, split: SplitName) -> npt.NDArray[np.int64]:
        """Indexes of the rows of one split, ascending."""
        return np.flatnonzero(self.split == rules.SPLITS.index(split)).astype(np.int64)

    def restricted(self, names: Iterable[str]) -> "Task":
        """The same task with some of its modalities, in the file's order."""
        kept = rules.chosen_modalities(str(self.path or self.name), names, self.names)
        modalities = tuple(m for m in self.modalities if m.name in kept)
        hashed = content_hash(modalities, self.y, self.split, self.group, self.class_names)
        return replace(self, modalities=modalities, data_hash=hashed)


def load_task(path: str | Path, modalities: Iterable[str] | None = None) -> Task:
    """Read an .npz data file, all of its modalities or the named ones."""
    path = Path(path).expanduser()
    with rules.open_npz(path) as arrays:
        return make_task(arrays, path.stem, path, modalities)


def make_task(
    arrays: Mapping[str, Array],
    name: str,
    path: Path | None = None,
    modalities: Iterable[str] | None = None,
) -> Task:
    """Check arrays named as in a data file and make a task of them. Each is read once."""
    where = str(path or name)
    keys = rules.sort_keys(where, arrays)
    chosen = rules.chosen_modalities(where, modalities, keys.modalities)
    y = rules.read_labels(where, arrays)
    class_names = rules.read_class_names(where, arrays, y)
    group = rules.read_group(where, arrays, len(y))
    given = rules.read_split(where, arrays, len(y))
    split = given
    if split is None:
        split = stratified_split(where, y, len(class_names), group)
    rules.check_split(where, y, split, group, class_names)
    train = np.flatnonzero(split == 0)
    fitted = tuple(_fit_modality(where, each, arrays, train, len(y)) for each in chosen)
    told = _told(fitted)
    return Task(
        name=name,
        modalities=fitted,
        y=_frozen(y),
        split=_frozen(split),
        split_given=given is not None,
        group=None if group is None else _frozen(group),
        class_names=class_names,
        path=None if path is None else path.resolve(),
        data_hash=content_hash(fitted, y, split, group, class_names),
        ignored_keys=tuple(key for key in keys.ignored if key not in told),
    )


def _told(modalities: Iterable[Modality]) -> set[str]:
    """Keys beside the format that were understood."""
    rates = {f"rate_hz_{m.name}" for m in modalities if m.rate_hz is not None}
    return rates | {f"columns_{m.name}" for m in modalities if m.columns}


def real_values(stored: Array, scale: Array | None, offset: Array | None) -> Array:
    """stored * scale + offset on float32, with numpy's own promotion by scale and offset."""
    with np.errstate(over="ignore", invalid="ignore"):
        real: Array = stored.astype(np.float32)
        if scale is not None:
            real = real * scale
        return real if offset is None else real + offset


def _fit_modality(
    where: str, name: str, arrays: Mapping[str, Array], train: npt.NDArray[np.intp], count: int
) -> Modality:
    """Check one modality of `count` rows and measure its training rows."""
    stored = np.asarray(arrays[f"modality_{name}"])
    rules.check_modality(where, name, stored, count)
    channels = stored.shape[-1]
    scale = rules.read_factor(where, f"scale_{name}", arrays, channels)
    offset = rules.read_factor(where, f"offset_{name}", arrays, channels)
    real = real_values(stored, scale, offset)
    rules.check_finite(where, name, real)
    mean, std, input_scale = measure(real[train].reshape(-1, channels))
    return Modality(
        name=name,
        values=_frozen(stored),
        scale=None if scale is None else _frozen(scale),
        offset=None if offset is None else _frozen(offset),
        mean=mean,
        std=std,
        input_scale=input_scale,
        rate_hz=rules.read_rate_hz(name, arrays) if KINDS[stored.ndim] == "series" else None,
        columns=rules.read_columns(name, arrays, channels),
    )


def measure(real: Array) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Mean (C,), std (C,) and the int8 input scale of training values (M, C) in real units."""
    mean = real.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = real.std(axis=0, dtype=np.float64).astype(np.float32)
    # Rounding can leave a constant channel with a std that is tiny and not 0.
    constant = (real.max(axis=0) == real.min(axis=0)) | (std == 0)
    std[constant] = 1.0
    with np.errstate(over="ignore"):
        peaks = np.abs((real - mean) / std).max(axis=0)
    # What is left of a constant channel is rounding of its mean, in the channel's own unit.
    peak = 1.0 if constant.all() else float(peaks[~constant].max())
    return _frozen(mean), _frozen(std), float(np.float32(min(peak, LARGEST_Z) / 127))


def content_hash(
    modalities: Iterable[Modality],
    y: Array,
    split: Array,
    group: Array | None,
    names: Iterable[str],
) -> str:
    """SHA-256 (hex) over keys, types, shapes and bytes of the arrays in use."""
    parts: dict[str, Array | None] = {"y": y, "split": split, "group": group}
    for modality in modalities:
        parts[f"modality_{modality.name}"] = modality.values
        parts[f"scale_{modality.name}"] = modality.scale
        parts[f"offset_{modality.name}"] = modality.offset
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    for key, array in parts.items():
        if array is not None:
            digest.update(json.dumps([key, array.dtype.str, array.shape]).encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- a split of our own


def stratified_split(
    where: str, y: npt.NDArray[np.int64], classes: int, group: Array | None
) -> npt.NDArray[np.int8]:
    """Split rows 60/20/20 by class with a fixed seed; whole groups where `group` is given."""
    rng = np.random.default_rng(SPLIT_SEED)
    split = _by_row(rng, y, classes) if group is None else _by_group(where, rng, y, classes, group)
    if len(np.unique(split)) < 3:
        raise DataError(
            f"{where}: {len(y)} rows in {classes} classes are too few to make three splits; "
            "add rows (3 for some class) or a split array"
        )
    return split


def _by_row(rng: np.random.Generator, y: npt.NDArray[np.int64], classes: int) -> Any:
    split = np.zeros(len(y), np.int8)
    for label in range(classes):
        rows = rng.permutation(np.flatnonzero(y == label))
        held_out = [round(share * len(rows)) for share in SHARES[1:]]
        split[rows[: held_out[0]]] = 1
        split[rows[held_out[0] : sum(held_out)]] = 2
    return split


def _by_group(
    where: str, rng: np.random.Generator, y: npt.NDArray[np.int64], classes: int, group: Array
) -> npt.NDArray[np.int8]:
    """Of `GROUP_TRIES` random orders of the groups, the one whose class shares are closest."""
    values, inverse = np.unique(group, return_inverse=True)
    if len(values) < 3:
        raise DataError(
            f"{where}: group has {len(values)} different values; three splits need three groups, "
            "add a split array or leave group out"
        )
    counts = np.zeros((len(values), classes), np.int64)
    np.add.at(counts, (inverse, y), 1)
    best, best_miss = None, np.inf
    for _ in range(GROUP_TRIES):
        order = rng.permutation(len(values))
        part = _cut(counts[order].sum(axis=1))
        held = np.stack([counts[order[part == code]].sum(axis=0) for code in range(3)])
        shares = held / counts.sum(axis=0)
        miss = float(((shares - np.array(SHARES)[:, None]) ** 2).sum())
        if held[0].all() and miss < best_miss:
            best_miss, best = miss, np.empty(len(values), np.int8)
            best[order] = part
    if best is None:
        raise DataError(
            f"{where}: in {GROUP_TRIES} splits by group none has every class in training; "
            f"{len(values)} groups are too few or too uneven, add a split array"
        )
    return best[inverse]


def _cut(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """Part (G,) of groups in order, cut where their rows come closest to the shares."""
    total = np.cumsum(sizes)
    ends = np.array([SHARES[0], SHARES[0] + SHARES[1]]) * total[-1]
    first = 1 + int(np.argmin(np.abs(total[:-2] - ends[0])))
    second = first + 1 + int(np.argmin(np.abs(total[first:-1] - ends[1])))
    part = np.full(len(sizes), 2, np.int8)
    part[:second] = 1
    part[:first] = 0
    return part


def _frozen(array: Array) -> Array:
    """A read-only view: tasks are shared and must not change under anyone."""
    view = array.view()
    view.flags.writeable = False
    return view
