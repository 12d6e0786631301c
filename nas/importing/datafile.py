"""`nas import`: recordings to a data file, or with a dry run to a description of it.

The file follows the data contract and is checked by the same code that a search loads it with.
Overlapping windows must not lie in two splits, so a file always has groups: those that the
recordings name, else each recording, or each block of one, is a group of its own.
"""

import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.data_rules import SPLITS, listed
from nas.data.task import Task, make_task
from nas.errors import DataError, UsageError
from nas.importing.recordings import (
    Columns,
    Recording,
    SensorPlan,
    find_files,
    read_file,
    read_name,
)
from nas.importing.windows import (
    SAME_RATE,
    Counts,
    Cut,
    Rate,
    Windows,
    choose_rate,
    cut_recording,
    found_rate,
)
from nas.progress import Progress
from nas.run_folder import write_atomic

SPLIT_NAMES = {"train": 0, "0": 0, "val": 1, "validation": 1, "1": 1, "test": 2, "2": 2}
SINCE_1970_S = 1e8  # times beyond this count from then, not from a recording's start
REMEDY = (
    "give more recordings, name the split with --split, or cut recordings into pieces that are"
    " kept whole with --block-s"
)


@dataclass(frozen=True)
class Import:
    """What was read and made.

    Attributes:
        arrays: the data file's, by key.
        task: the same as a search would load it, with its split.
        group_kind: what a group is: a column or field of the user's, a recording, or a block.
        split_given: whether the recordings name the split; else it was made, by whole groups.
    """

    arrays: dict[str, NDArray[Any]]
    task: Task
    rates: dict[str, Rate]
    counts: Counts
    files: int
    skipped_files: int
    recordings: int
    resampled: Counter[str]
    rows: int
    repeated_rows: int
    group_kind: str
    split_given: bool
    incomplete: list[str]


def import_recordings(
    paths: Sequence[Path], columns: Columns, cut: Cut, name: str, progress: Progress
) -> Import:
    """Reads recordings and cuts them into windows.

    Raises:
        UsageError: options that name nothing or contradict each other.
        DataError: a file, or what would be the data file, breaks a rule.
    """
    files = find_files(paths)
    recordings, skipped = _read(files, columns, progress)
    wanted = {s.name for s in columns.sensors}
    whole = [r for r in recordings if set(r.signals) == wanted]
    incomplete = [r.name for r in recordings if set(r.signals) != wanted]
    if not whole:
        lacking = sorted(wanted - set(recordings[0].signals)) if recordings else sorted(wanted)
        raise DataError(
            f"no recording has all of the sensors {listed(sorted(wanted))}; the first lacks"
            f" {listed(lacking)}{_found(files, columns)}: check --sensor and --name"
        )
    rates, resampled = {}, Counter[str]()
    for sensor in columns.sensors:
        found = [found_rate(r.signals[sensor.name]) for r in whole]
        rates[sensor.name] = choose_rate(sensor, found, cut.window_s)
        hz = rates[sensor.name].hz
        resampled[sensor.name] = sum(abs(rate - hz) > SAME_RATE * hz for rate in found)
    counts = Counts.new()
    parts: list[tuple[Recording, Windows]] = []
    for number, recording in enumerate(whole, 1):
        progress.status(f"windows  {number} of {len(whole)} recordings")
        parts.append((recording, cut_recording(recording, columns.sensors, rates, cut, counts)))
    arrays, group_kind = _arrays(parts, columns, cut, rates, counts)
    task, split_given = _checked(arrays, name), "split" in arrays
    arrays["split"] = task.split  # in the file, so that other programs score the same rows
    return Import(
        arrays=arrays,
        task=task,
        rates=rates,
        counts=counts,
        files=len(files),
        skipped_files=skipped,
        recordings=len(whole),
        resampled=resampled,
        rows=sum(r.rows for r in recordings),
        repeated_rows=sum(r.repeated_rows for r in recordings),
        group_kind=group_kind,
        split_given=split_given,
        incomplete=incomplete,
    )


def _found(files: Sequence[Path], columns: Columns) -> str:
    """Which sensors the files' names speak of, where the pattern reads that."""
    read = {read_name(columns, path).get("sensor") for path in files} - {None}
    return f", and the files are of {listed(sorted(map(str, read)))}" if read else ""


def to_bytes(arrays: dict[str, NDArray[Any]]) -> bytes:
    """The data file's bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def write(arrays: dict[str, NDArray[Any]], path: Path) -> int:
    """Writes the data file, or leaves what was there; returns its bytes."""
    content = to_bytes(arrays)
    write_atomic(path, content)
    return len(content)


# ---------------------------------------------------------------- reading


def _read(
    files: Sequence[Path], columns: Columns, progress: Progress
) -> tuple[list[Recording], int]:
    """Recordings with all their sensors joined, times from each one's start; files without use."""
    by_name: dict[str, Recording] = {}
    skipped = 0
    for number, path in enumerate(files, 1):
        progress.status(f"reading  {number} of {len(files)}: {path}")
        parts = list(read_file(columns, path))
        skipped += not parts
        for part in parts:
            held = by_name.setdefault(part.name, part)
            if held is not part:
                _join(held, part, path)
    recordings = list(by_name.values())
    folders = [os.path.dirname(r.name.partition(":")[0]) for r in recordings]
    common = os.path.commonpath([os.path.abspath(f) for f in folders]) if folders else ""
    for recording in recordings:
        recording.name = os.path.relpath(recording.name, common)
        _from_zero(recording)
    return recordings, skipped


def _join(held: Recording, part: Recording, path: Path) -> None:
    for name in part.signals:
        if name in held.signals:
            raise DataError(
                f"{path}: a second file of the sensor {name!r} of the recording {held.name!r};"
                " add what tells them apart to --name, such as {recording}"
            )
    if (held.group, held.split, held.label) != (part.group, part.split, part.label):
        raise DataError(
            f"{path}: the files of the recording {held.name!r} name different groups, splits or"
            " labels; correct them or --name"
        )
    held.signals |= part.signals
    held.rows += part.rows
    held.repeated_rows += part.repeated_rows
    if held.label_codes is None:
        held.label_codes, held.label_times_s = part.label_codes, part.label_times_s
        held.label_names = part.label_names


def _from_zero(recording: Recording) -> None:
    """Times from the first sample on; those since 1970 are good to a microsecond only."""
    times = [s.times_s for s in recording.signals.values()]
    origin = min((float(t[0]) for t in times if len(t)), default=0.0)
    digits = 6 if origin > SINCE_1970_S else 12
    for signal in recording.signals.values():
        signal.times_s = np.round(signal.times_s - origin, digits)
    if recording.label_times_s is not None:
        recording.label_times_s = np.round(recording.label_times_s - origin, digits)


# ---------------------------------------------------------------- the data file


def _arrays(
    parts: Sequence[tuple[Recording, Windows]],
    columns: Columns,
    cut: Cut,
    rates: dict[str, Rate],
    counts: Counts,
) -> tuple[dict[str, NDArray[Any]], str]:
    """The data file by key, and what its groups are."""
    kept = [(recording, windows) for recording, windows in parts if len(windows.starts_s)]
    if not kept:
        dropped = ", ".join(f"{n} {why}" for why, n in counts.dropped.items() if n)
        raise DataError(
            f"no window of {cut.window_s:g} s is left: {counts.segments_too_short} stretches"
            f" without a gap are shorter; dropped: {dropped or 'none'}; change --window-s,"
            " --max-gap-s or --purity"
        )
    labels = np.concatenate([windows.labels for _, windows in kept])
    names = sorted(set(labels), key=_natural)
    if len(names) < 2:
        raise DataError(
            f"all windows have the label {names[0]!r}; a classifier needs two classes, add"
            " recordings of another or check --label"
        )
    code = {name: i for i, name in enumerate(names)}
    groups, group_kind = _groups(kept, columns, cut)
    arrays: dict[str, NDArray[Any]] = {
        f"modality_{s.name}": np.concatenate([windows.values[s.name] for _, windows in kept])
        for s in columns.sensors
    }
    arrays["y"] = np.array([code[label] for label in labels], np.int64)
    arrays["group"] = groups
    arrays["class_names"] = np.array(names)
    splits = [recording.split for recording, _ in kept]
    if any(split is not None for split in splits):
        arrays["split"] = np.repeat(
            np.array([_split(r) for r, _ in kept], np.int8), [len(w.starts_s) for _, w in kept]
        )
    # Not used by a search: these lead from a window back to its recording,
    arrays["recording"] = _repeated(kept, [recording.name for recording, _ in kept])
    arrays["start_s"] = np.concatenate([windows.starts_s for _, windows in kept])
    for sensor in columns.sensors:  # and these from a candidate back to the sensor.
        arrays[f"columns_{sensor.name}"] = np.array(sensor.columns)
        if not sensor.vector:
            arrays[f"rate_hz_{sensor.name}"] = np.array(rates[sensor.name].hz)
    return arrays, group_kind


def _groups(
    kept: Sequence[tuple[Recording, Windows]], columns: Columns, cut: Cut
) -> tuple[NDArray[Any], str]:
    if any(recording.group is not None for recording, _ in kept):
        groups = _repeated(kept, [str(recording.group) for recording, _ in kept])
        return groups, f"column {columns.group}" if columns.group else "file name"
    groups, kind = _repeated(kept, [recording.name for recording, _ in kept]), "recording"
    if cut.block_s is not None:
        blocks = np.concatenate([windows.blocks for _, windows in kept])
        pairs = zip(groups, blocks, strict=True)
        groups, kind = np.array([f"{name} {block}" for name, block in pairs]), "block"
    count = len(np.unique(groups))
    if count < 3 and all(recording.split is None for recording, _ in kept):
        raise DataError(
            f"without a group each {kind} is kept whole in one split, so that neighbouring windows"
            f" are not in two, and {count} with windows cannot fill three splits: {REMEDY}"
        )
    return groups, kind


def _repeated(kept: Sequence[tuple[Recording, Windows]], values: Sequence[str]) -> NDArray[Any]:
    return np.repeat(np.array(values), [len(windows.starts_s) for _, windows in kept])


def _split(recording: Recording) -> int:
    split = SPLIT_NAMES.get(str(recording.split).lower())
    if split is None:
        raise DataError(
            f"{recording.name}: split {recording.split!r} is not one of {', '.join(SPLITS)} (or 0,"
            " 1, 2)"
        )
    return split


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers in their order, then words in theirs."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _checked(arrays: dict[str, NDArray[Any]], name: str) -> Task:
    """The task that a search would make of these arrays."""
    try:
        return make_task(arrays, name)
    except DataError as error:
        if "split" in str(error) or "training rows" in str(error):
            raise DataError(f"{error}; in an import: {REMEDY}") from None
        raise


def parse_sensor(text: str, vector: bool) -> SensorPlan:
    """`NAME=COL,COL[@HZ]` of a series, or `NAME=COL,COL[:FILL]` of a vector."""
    option = "--vector" if vector else "--sensor"
    mark = ":" if vector else "@"
    name, equals, rest = text.partition("=")
    listing, marked, number = rest.rpartition(mark) if mark in rest else (rest, "", "")
    names = tuple(column.strip() for column in listing.split(","))
    try:
        value = float(number) if marked else None
    except ValueError:
        value = float("nan")
    odd = value is not None and (not np.isfinite(value) or (not vector and value <= 0))
    if not equals or not all(names) or len(set(names)) < len(names) or odd:
        form = "NAME=COLUMN,COLUMN:FILL" if vector else "NAME=COLUMN,COLUMN@HZ"
        raise UsageError(
            f"{option} {text}: must be {form}, different columns and the last part optional"
        )
    if vector:
        return SensorPlan(name, names, vector=True, fill=value)
    return SensorPlan(name, names, rate_hz=value)
