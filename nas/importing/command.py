"""`nas import` on the command line: its options, and what it prints."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli_types import positive, share_above_0
from nas.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nas.data.task import Task
    from nas.importing.datafile import Import
    from nas.importing.recordings import Columns
    from nas.importing.windows import Cut

MOST_GROUPS = 20  # that the table shows
FEWEST_GROUPS = 3  # in validation or test, below which a note says so

EPILOG = """\
examples:
  nas import recordings --sensor accel=ax,ay,az --time t --label activity --group person \\
      --window-s 2.56 --stride-s 1.28 --out my_sensors.npz
  nas import recordings --name "{group}_{label}_{sensor}.csv" --sensor accel=x,y,z@50 \\
      --sensor gyro=x,y,z@100 --time t --time-unit ms --window-s 2 --out my_sensors.npz

  nas import Coswara-Data --task covid-audio --out coswara.npz       (nas tasks lists them)

Every sensor is resampled to one rate by straight lines between samples (means over a period where
the rate is clearly lower than the recording's). Missing values and short silences are bridged so;
windows never cross a gap. Windows that overlap never lie in two splits: without --group each
recording is a group of its own, with --block-s each piece of it.
"""


def add_import_verb(verbs: Any) -> None:
    """Adds the verb `import` to the parser's."""
    parser = verbs.add_parser(
        "import",
        help="make a data file from CSV or parquet recordings, or from a published data set",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recordings", nargs="+", type=Path, metavar="RECORDING", help="files, or folders of them"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="F.npz", help="data file")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be written")
    parser.add_argument("--quiet", action="store_true", help="no progress, for logs")
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="read the folder of a published data set instead; no option below goes with it",
    )
    where = parser.add_argument_group("what is where")
    where.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME=COL,COL[@HZ]",
        help="columns of one sensor, and its rate in the result (as found); repeat it",
    )
    where.add_argument(
        "--vector",
        action="append",
        default=[],
        metavar="NAME=COL,COL[:FILL]",
        help="columns of which each window keeps the mean, as signal strengths; FILL where a"
        " column has no value in a window, else the window is dropped",
    )
    where.add_argument(
        "--time",
        metavar="COL",
        help="numbers or ISO 8601; without it rows are @HZ apart",
    )
    where.add_argument(
        "--time-unit", choices=("s", "ms", "us", "ns"), default="s", help="(%(default)s)"
    )
    where.add_argument("--label", metavar="COL", help="the class of each row")
    where.add_argument("--group", metavar="COL", help="person or site, never in two splits")
    where.add_argument("--split", metavar="COL", help="train, val or test (made by group)")
    where.add_argument("--recording", metavar="COL", help="tells the recordings of one file apart")
    where.add_argument(
        "--name",
        metavar="PATTERN",
        help="what file names say: {group} {label} {split} {sensor} {recording}, {} for the rest;"
        " with slashes also folders",
    )
    where.add_argument("--decimal", choices=(".", ","), default=".", help="(%(default)s)")
    _add_window_options(parser)
    parser.set_defaults(run=run_import)


def _add_window_options(parser: argparse.ArgumentParser) -> None:
    windows = parser.add_argument_group("windows")
    windows.add_argument("--window-s", type=positive, metavar="S", help="needed without --task")
    windows.add_argument("--stride-s", type=positive, metavar="S", help="(as --window-s)")
    windows.add_argument(
        "--purity",
        type=share_above_0,
        default=0.8,
        metavar="P",
        help="least share of a window's rows that have its label (%(default)s)",
    )
    windows.add_argument(
        "--drop-label", action="append", default=[], metavar="L", help="leave these windows out"
    )
    windows.add_argument(
        "--max-gap-s",
        type=positive,
        metavar="S",
        help="a longer silence of a sensor is a gap (4 periods)",
    )
    windows.add_argument(
        "--block-s",
        type=positive,
        metavar="S",
        help="without groups: keep pieces of this length whole, not recordings",
    )


def run_import(chosen: argparse.Namespace) -> int:
    """Reads, prints what was found and, without --dry-run, writes the file."""
    from nas.importing.datafile import import_recordings
    from nas.progress import Progress

    out: Path = chosen.out
    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: a data file ends in .npz")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out {out}: must be a file in a folder that exists")
    if chosen.task is not None:
        return import_published(chosen)
    columns, cut = _plan(chosen)
    with Progress(chosen.quiet) as progress:
        made = import_recordings(chosen.recordings, columns, cut, out.stem, progress)
    _print(made, columns, cut)
    return _write(made.arrays, out, chosen.dry_run, "")


def _write(arrays: "dict[str, NDArray[Any]]", out: Path, dry_run: bool, task: str) -> int:
    """Writes the file, or says how large it would be; `task` is the option to search it with."""
    from nas.importing.datafile import to_bytes, write

    windows = len(arrays["y"])
    if dry_run:
        size = len(to_bytes(arrays))
        print(f"dry run: nothing written; {out} would hold {windows:,} windows in {size:,} bytes")
        return 0
    size = write(arrays, out)
    print(f"wrote {out}: {windows:,} windows in {size:,} bytes")
    print(f"next: nas search {task}--data {out} --device cortex-m4-64k --minutes 10")
    return 0


def import_published(chosen: argparse.Namespace) -> int:
    """Reads the folder of a named task's data set, prints what it holds and writes it."""
    from nas.data.named_tasks import find_data, find_task
    from nas.progress import Progress

    for option in ("sensor", "vector", "time", "label", "group", "split", "recording", "name"):
        if getattr(chosen, option):
            raise UsageError(f"--{option} with --task: the task knows its layout; leave one out")
    if chosen.window_s is not None:
        raise UsageError("--window-s with --task: the task knows its windows; leave one out")
    if find_task(chosen.task).read is None or len(chosen.recordings) != 1:
        raise UsageError(f"--task {chosen.task}: give one folder, of a task that reads folders")
    folder: Path = chosen.recordings[0]
    with Progress(chosen.quiet) as progress:
        given = find_data(chosen.task, str(folder), None, progress.status)
    if given.original is None:
        raise UsageError(f"{folder}: is a file already; nas search --data takes it as it is")
    for modality in given.task.modalities:
        print(f"{modality.name}: {' x '.join(map(str, modality.shape))}, {modality.values.dtype}")
    for note in given.original.notes:
        print(note)
    _print_splits(given.task)
    return _write(given.data_file(), chosen.out, chosen.dry_run, f"--task {chosen.task} ")


def _plan(chosen: argparse.Namespace) -> "tuple[Columns, Cut]":
    from nas.importing.datafile import parse_sensor
    from nas.importing.recordings import Columns, compile_pattern
    from nas.importing.windows import Cut

    if chosen.window_s is None:
        raise UsageError("no --window-s; give the length of a window in seconds, or --task NAME")
    sensors = [parse_sensor(text, False) for text in chosen.sensor]
    sensors += [parse_sensor(text, True) for text in chosen.vector]
    names = [sensor.name for sensor in sensors]
    if not sensors or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        what = f"the name {twice!r} twice" if sensors else "none given"
        raise UsageError(f"--sensor: {what}; give each modality as --sensor NAME=COLUMN,COLUMN")
    fields = compile_pattern(chosen.name).groupindex if chosen.name else {}
    for field in ("label", "group", "split", "recording"):
        if getattr(chosen, field) and field in fields:
            raise UsageError(f"--{field} and {{{field}}} in --name: two sources; leave one out")
    if not chosen.label and "label" not in fields:
        raise UsageError("no label; name its column with --label, or {label} in --name")
    if chosen.block_s and (chosen.group or "group" in fields):
        raise UsageError("--block-s with a group: groups are kept whole; leave one out")
    if chosen.time is None:
        rates = {sensor.rate_hz for sensor in sensors}
        if None in rates or (len(rates) > 1 and "sensor" not in fields):
            raise UsageError(
                "no --time: every --sensor needs its rate, as NAME=COLUMN@50, the same for all in"
                " one file, and a --vector a time column"
            )
    columns = Columns(
        sensors=tuple(sensors),
        time=chosen.time,
        time_unit=chosen.time_unit,
        label=chosen.label,
        group=chosen.group,
        split=chosen.split,
        recording=chosen.recording,
        pattern=chosen.name,
        decimal=chosen.decimal,
    )
    cut = Cut(
        chosen.window_s,
        chosen.stride_s or chosen.window_s,
        chosen.purity,
        chosen.max_gap_s,
        chosen.block_s,
        frozenset(chosen.drop_label),
    )
    return columns, cut


def _print(made: "Import", columns: "Columns", cut: "Cut") -> None:
    """What was found and what became of it."""
    from nas.tables import print_table

    rows = []
    for sensor in columns.sensors:
        values, rate = made.arrays[f"modality_{sensor.name}"], made.rates[sensor.name]
        rows.append(
            (
                sensor.name,
                ",".join(sensor.columns),
                f"{rate.lowest_hz:.4g} to {rate.highest_hz:.4g}",
                "mean" if sensor.vector else f"{rate.hz:.4g}",
                f"{made.resampled[sensor.name]:,}",
                f"{made.counts.missing[sensor.name]:,}",
                f"{made.counts.gaps[sensor.name]:,}",
                " x ".join(map(str, values.shape)),
                f"{values.dtype}, {values.nbytes:,} B",
            )
        )
    heads = (
        "sensor",
        "columns",
        "Hz found",
        "Hz of the result",
        "other rate",
        "missing values",
        "gaps",
    )
    print_table((*heads, "shape", "type"), rows, right=heads[2:])
    skipped = f", {made.skipped_files} of other sensors" if made.skipped_files else ""
    print(f"{made.files:,} files{skipped}, {made.rows:,} rows, {made.recordings:,} recordings")
    if made.incomplete:
        print(
            f"left out, for lack of a sensor: {len(made.incomplete)} recordings, the first"
            f" {made.incomplete[0]}"
        )
    if made.repeated_rows:
        print(f"left out: {made.repeated_rows:,} rows with the time of the row before")
    print(f"windows of {cut.window_s:g} s every {cut.stride_s:g} s: {len(made.arrays['y']):,} kept")
    for reason, count in made.counts.dropped.items():
        if count:
            print(f"  dropped: {count:,} {reason}")
    if made.counts.segments_too_short:
        print(f"  too short for a window: {made.counts.segments_too_short:,} stretches of signal")
    _print_classes(made)


def _print_splits(task: "Task") -> None:
    """Groups, windows and windows of each class in each split."""
    import numpy as np

    from nas.data.data_rules import SPLITS
    from nas.tables import print_table

    rows = []
    for code, split in enumerate(SPLITS):
        inside = task.split == code
        counts = np.bincount(task.y[inside], minlength=task.classes)
        groups = "" if task.group is None else f"{len(np.unique(task.group[inside])):,}"
        rows.append((split, groups, f"{inside.sum():,}", *(f"{n:,}" for n in counts)))
    columns = ("split", "groups", "windows", *task.class_names)
    print_table(columns, rows, right=columns[1:])


def _print_classes(made: "Import") -> None:
    import numpy as np

    from nas.data.data_rules import SPLITS
    from nas.tables import print_table

    task = made.task
    assert task.group is not None
    _print_splits(task)
    rows = []
    for group in np.unique(task.group)[:MOST_GROUPS]:
        inside = task.group == group
        counts = np.bincount(task.y[inside], minlength=task.classes)
        split = SPLITS[task.split[inside][0]]
        rows.append((str(group), split, f"{inside.sum():,}", *(f"{n:,}" for n in counts)))
    columns = (f"group ({made.group_kind})", "split", "windows", *task.class_names)
    print_table(columns, rows, right=columns[2:])
    more = len(np.unique(task.group)) - MOST_GROUPS
    if more > 0:
        print(f"and {more:,} more groups")
    source = "as given" if made.split_given else "made by whole groups, as a search would"
    print(f"split: {source}")
    if made.group_kind in ("recording", "block"):
        print(
            f"group: none given, so each {made.group_kind} is one; a person with several may be in"
            " two splits, --group keeps them in one"
        )
    for code, split in enumerate(SPLITS):
        groups = len(np.unique(task.group[task.split == code]))
        if code and groups < FEWEST_GROUPS:
            only = "1 group" if groups == 1 else f"{groups} groups"
            print(f"note: {split} is of {only} only: its score says little of others")
        for label in np.setdiff1d(np.arange(task.classes), task.y[task.split == code]):
            print(f"note: class {task.class_names[label]} has no window in {split}")
