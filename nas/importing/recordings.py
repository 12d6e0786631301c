"""Reads recordings, CSV or parquet, into signals: times and values of each sensor.

A recording is one uninterrupted session by one clock: a file, a part of a file that a column names,
or several files, one for each sensor. Only this module knows pandas.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nas.data.data_rules import closest, listed, one_line
from nas.errors import DataError, ToolMissing, UsageError

Floats = NDArray[np.float64]
TimeUnit = Literal["s", "ms", "us", "ns"]

SECONDS: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SUFFIXES = (".csv", ".csv.gz", ".tsv", ".txt", ".parquet")
SEPARATORS = (",", ";", "\t")
MOST_REPEATED = 0.01
"""Share of rows that may have the time of the row before; they are left out and counted."""
APART = (
    "it must increase within a recording: sort the file, or name the column that tells its"
    " recordings apart with --recording"
)
FIELDS = ("group", "label", "split", "sensor", "recording")


@dataclass(frozen=True)
class SensorPlan:
    """Which columns make one modality.

    Attributes:
        rate_hz: of the result; None: as found. Without a time column also that of the rows.
        vector: one mean a window and column instead of a series.
        fill: of a vector: the value of a column that has none in a window; None drops the window.
    """

    name: str
    columns: tuple[str, ...]
    rate_hz: float | None = None
    vector: bool = False
    fill: float | None = None


@dataclass(frozen=True)
class Columns:
    """Where files keep what; None where they do not. `pattern` reads the rest off file names."""

    sensors: tuple[SensorPlan, ...]
    time: str | None = None
    time_unit: TimeUnit = "s"
    label: str | None = None
    group: str | None = None
    split: str | None = None
    recording: str | None = None
    pattern: str | None = None
    decimal: str = "."


@dataclass
class Signal:
    """One sensor of one recording: times (n,) in s, ascending, and values (n, C) or NaN."""

    times_s: Floats
    values: Floats


@dataclass
class Recording:
    """One session. `label_codes` (n,) index `label_names`, at `label_times_s`; -1 is no label."""

    name: str
    group: str | None
    split: str | None
    label: str | None
    signals: dict[str, Signal] = field(default_factory=dict)
    label_times_s: Floats | None = None
    label_codes: NDArray[np.intp] | None = None
    label_names: tuple[str, ...] = ()
    rows: int = 0
    repeated_rows: int = 0


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and in folders all with a known suffix; in order, each once."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.name.lower().endswith(SUFFIXES))
            if not inside:
                raise UsageError(f"{path}: no file that ends in {', '.join(SUFFIXES)}")
            found |= dict.fromkeys(inside)
        elif path.exists():
            found[path] = None
        else:
            raise UsageError(f"{path}: no such file or folder; check the path")
    return list(found)


# ---------------------------------------------------------------- file names


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of a file-name pattern such as `{group}/{label}_{}.csv`."""
    parts = re.split(r"\{(\w*)\}", pattern)
    names = [name for name in parts[1::2] if name]
    odd = [name for name in names if name not in FIELDS or names.count(name) > 1]
    if odd or not names:
        what = f"{{{odd[0]}}} is unknown or occurs twice" if odd else "it names nothing"
        raise UsageError(
            f"--name {pattern}: {what}; the fields are"
            f" {', '.join(f'{{{name}}}' for name in FIELDS)}, and {{}} for anything else"
        )
    if "recording" in names and "sensor" not in names:
        raise UsageError(
            f"--name {pattern}: {{recording}} joins the files of one recording, one for each"
            " {sensor}; for files that must share a split use {group}"
        )
    text = re.escape(parts[0])
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        text += (f"(?P<{name}>[^/]+?)" if name else "[^/]*?") + re.escape(literal)
    return re.compile(text)


def read_name(columns: Columns, path: Path) -> dict[str, str]:
    """The fields of a file's name and, where the pattern has slashes, of its folders."""
    if columns.pattern is None:
        return {}
    depth = columns.pattern.count("/") + 1
    name = "/".join(path.absolute().parts[-depth:])
    expression = compile_pattern(columns.pattern)
    match = expression.fullmatch(_without_suffix(name)) or expression.fullmatch(name)
    if match is None:
        raise UsageError(f"--name {columns.pattern}: does not fit {name!r}; correct the pattern")
    return match.groupdict()


def _without_suffix(name: str) -> str:
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


# ---------------------------------------------------------------- files


def read_file(columns: Columns, path: Path) -> Iterator[Recording]:
    """The recordings of one file, or the parts of them that it holds.

    Raises:
        DataError: the file cannot be read, lacks a column, or holds what is no number or no time.
        ToolMissing: parquet without pyarrow.
    """
    fields = read_name(columns, path)
    sensors = [s for s in columns.sensors if fields.get("sensor", s.name) == s.name]
    if not sensors:
        return
    keys = [c for c in (columns.recording, columns.group, columns.split) if c is not None]
    needed = [c for s in sensors for c in s.columns] + keys
    if columns.time is not None:
        needed.append(columns.time)
    optional = [columns.label] if columns.label and "sensor" in fields else []
    if columns.label and not optional:
        needed.append(columns.label)
    frame = _read_frame(columns, path, list(dict.fromkeys(needed)), optional)
    if frame.empty:
        raise DataError(f"{path}: no rows; leave the file out")
    for name, rows in _parts(path, frame, keys):
        recording = Recording(name, None, fields.get("split"), fields.get("label"))
        first = frame.iloc[rows[0]]
        recording.group = _text(first[columns.group]) if columns.group else fields.get("group")
        if columns.split:
            recording.split = _text(first[columns.split])
        if "sensor" in fields:
            depth = str(columns.pattern).count("/") + 1
            recording.name = _joint_name(path.absolute(), name, fields, depth)
        _read_part(columns, path, frame, rows, sensors, recording)
        yield recording


def _read_frame(
    columns: Columns, path: Path, needed: list[str], optional: list[str]
) -> pd.DataFrame:
    try:
        if path.name.lower().endswith(".parquet"):
            return _chosen(path, _parquet(path), needed, optional)
        with_separator = [
            (separator, list(_csv(path, columns, separator, nrows=0)))
            for separator in SEPARATORS
            if separator != columns.decimal
        ]
        # The separator is the one that finds the most of the asked columns in the header.
        separator, header = max(
            with_separator, key=lambda pair: len({*needed, *optional} & set(pair[1]))
        )
        _require(path, needed, header)
        held = {*needed, *optional} & set(header)
        return _csv(path, columns, separator, usecols=lambda name: name.strip() in held)
    except (DataError, ToolMissing):
        raise
    except Exception as error:  # parsers, codecs and the system each raise their own
        raise DataError(f"{path}: cannot be read as a table ({one_line(error)})") from None


def _csv(path: Path, columns: Columns, separator: str, **options: Any) -> pd.DataFrame:
    frame = pd.read_csv(
        path,
        sep=separator,
        decimal=columns.decimal,
        encoding="utf-8-sig",
        skipinitialspace=True,
        index_col=False,
        low_memory=False,
        **options,
    )
    return frame.rename(columns=lambda name: str(name).strip())


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise ToolMissing(
            f"{path}: parquet needs pyarrow, which is not installed: pip install 'mcu-nas[parquet]'"
        ) from None


def _chosen(
    path: Path, frame: pd.DataFrame, needed: list[str], optional: list[str]
) -> pd.DataFrame:
    frame = frame.reset_index() if any(frame.index.names) else frame
    _require(path, needed, list(frame.columns))
    return frame[[*needed, *(c for c in optional if c in frame.columns)]]


def _require(path: Path, needed: Sequence[str], header: Sequence[str]) -> None:
    for column in needed:
        if column not in header:
            raise DataError(
                f"{path}: no column {column!r}{closest(column, header)}; the columns are"
                f" {listed(header)}"
            )


def _parts(
    path: Path, frame: pd.DataFrame, keys: list[str]
) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Name and rows of each recording in a file: one for each combination of the key columns."""
    name = _without_suffix(str(path))
    if not keys:
        yield name, np.arange(len(frame))
        return
    for key in keys:
        empty = np.flatnonzero(frame[key].isna())
        if len(empty):
            raise DataError(f"{path}: column {key!r} is empty in data row {empty[0] + 1}; fill it")
    numbers = frame.groupby(keys, sort=False).ngroup().to_numpy()
    order = np.argsort(numbers, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        values = [_text(frame[key].iloc[rows[0]]) for key in dict.fromkeys(keys)]
        yield f"{name}:{','.join(values)}", rows


def _joint_name(path: Path, name: str, fields: dict[str, str], depth: int) -> str:
    """One name for all files of a recording: all that the pattern reads but the sensor."""
    part = name[len(_without_suffix(str(path))) :]
    others = [value for key, value in fields.items() if key != "sensor"]
    return str(Path(*path.parts[: len(path.parts) - depth], *others)) + part


def _text(value: Any) -> str:
    """A label or a group as text; whole numbers without a decimal point."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _read_part(
    columns: Columns,
    path: Path,
    frame: pd.DataFrame,
    rows: NDArray[np.intp],
    sensors: Sequence[SensorPlan],
    recording: Recording,
) -> None:
    recording.rows = len(rows)
    part = frame.iloc[rows]
    times = None if columns.time is None else _times(columns, path, part[columns.time], rows)
    for sensor in sensors:
        values = np.stack([_numbers(path, part[c], rows) for c in sensor.columns], axis=1)
        if times is None:
            assert sensor.rate_hz is not None
            rate_hz = sensor.rate_hz
            own = np.arange(len(rows)) / rate_hz
        else:
            own = times
        # A row without a value of this sensor is one of another's.
        held = np.asarray(~np.isnan(values).all(axis=1))
        if not held.all():
            own, values, numbers = own[held], values[held], rows[held]
        else:
            numbers = rows
        once = _once(path, sensor, own, numbers)
        if len(once) < len(own):
            recording.repeated_rows += len(own) - len(once)
            own, values = own[once], values[once]
        recording.signals[sensor.name] = Signal(own, values)
    if columns.label is not None and columns.label in part:
        codes, values = pd.factorize(part[columns.label])
        recording.label_codes, recording.label_names = codes, tuple(map(_text, values))
        recording.label_times_s = np.arange(len(rows)) / rate_hz if times is None else times


def _numbers(path: Path, column: pd.Series, rows: NDArray[np.intp]) -> Floats:
    numbers: Floats
    if pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.to_numpy(np.float64, na_value=np.nan)
    else:
        parsed = pd.to_numeric(column, errors="coerce")
        bad = np.flatnonzero((parsed.isna() & column.notna()).to_numpy())
        if len(bad):
            raise DataError(
                f"{path}: column {column.name!r} has {column.iloc[bad[0]]!r} in data row"
                f" {rows[bad[0]] + 1}; it must hold numbers, or nothing where one is missing"
                " (--decimal , for decimal commas)"
            )
        numbers = parsed.to_numpy(np.float64, na_value=np.nan)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise DataError(
            f"{path}: column {column.name!r} is infinite in data row {rows[infinite[0]] + 1};"
            " leave the field empty where a value is missing"
        )
    return numbers


def _times(columns: Columns, path: Path, column: pd.Series, rows: NDArray[np.intp]) -> Floats:
    """Seconds, ascending: numbers in `time_unit`, or ISO 8601 text."""
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        stamps = column
    elif pd.api.types.is_numeric_dtype(column.dtype):
        seconds: Floats = column.to_numpy(np.float64, na_value=np.nan) * SECONDS[columns.time_unit]
        return _ascending(path, column, seconds, rows)
    else:
        stamps = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
        bad = np.flatnonzero((stamps.isna() & column.notna()).to_numpy())
        if len(bad):
            raise DataError(
                f"{path}: time {column.name!r} is {column.iloc[bad[0]]!r} in data row"
                f" {rows[bad[0]] + 1}; it must hold numbers or ISO 8601 times"
            )
    missing = stamps.isna().to_numpy()
    whole = stamps.to_numpy("datetime64[ns]").astype(np.int64)
    return _ascending(path, column, np.where(missing, np.nan, whole / 1e9), rows)


def _ascending(path: Path, column: pd.Series, seconds: Floats, rows: NDArray[np.intp]) -> Floats:
    if not np.isfinite(seconds).all():
        row = rows[np.argmin(np.isfinite(seconds))] + 1
        raise DataError(f"{path}: time {column.name!r} is missing in data row {row}; fill it")
    back = np.flatnonzero(np.diff(seconds) < 0)
    if len(back):
        at = int(back[0]) + 1
        raise DataError(
            f"{path}: time {column.name!r} runs backwards, from {column.iloc[at - 1]!s} to"
            f" {column.iloc[at]!s} in data row {rows[at] + 1}; {APART}"
        )
    return seconds


def _once(
    path: Path, sensor: SensorPlan, times_s: Floats, rows: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Rows whose time is not that of the row before; a few repeats are left out, many refused."""
    once = np.flatnonzero(np.diff(times_s, prepend=-np.inf) > 0)
    repeated = len(rows) - len(once)
    if repeated > MOST_REPEATED * len(rows):
        at = int(np.flatnonzero(np.diff(times_s) == 0)[0]) + 1
        raise DataError(
            f"{path}: the time repeats in {repeated} of {len(rows)} rows of {sensor.name}, the"
            f" first in data row {rows[at] + 1}; {APART}"
        )
    return once
