"""What a run was given to learn from: read once, told, and kept where every process finds it."""

from dataclasses import replace
from typing import Any

from nas.data.named_tasks import Given, find_data
from nas.data.originals import Show
from nas.manifest import Options
from nas.training.workers import DataSource

KEPT = "data.npz"
"""In the run folder: what was read of a published folder, as that can take minutes."""


def open_data(options: Options, show: Show) -> Given:
    """The data of the options; what is read of a folder has its place in the run folder."""
    given = find_data(options.task, options.data, options.modalities, show)
    if given.original is None:
        return given
    return replace(given, task=replace(given.task, path=(options.out / KEPT).resolve()))


def keep(given: Given) -> str | None:
    """Writes what was read of a published folder, and says so; None where there is none."""
    if given.original is None or given.task.path is None:
        return None
    from nas.importing.datafile import write  # pandas, which few runs need

    size = write(given.data_file(), given.task.path)
    return f"wrote {given.task.path} ({size:,} bytes): what was read; as --data it is faster"


def source_of(given: Given) -> DataSource:
    """Where other processes find the same task."""
    task, named = given.task, given.named
    if task.path is None:
        assert named is not None
        return DataSource(named.name, None, task.names, task.data_hash)
    return DataSource(None, str(task.path), task.names, task.data_hash)


def describe(given: Given, options: Options) -> dict[str, Any] | None:
    """For run.json: the task's name, what it set, and whether the data are those it is named for.

    None without a task.
    """
    if given.named is None:
        return None
    return {
        "name": given.named.name,
        "set": _set(given, options),
        "published_data": given.published,
        "folder": options.data if given.original is not None else None,
        "left_out": [] if given.original is None else list(given.original.notes),
    }


def _set(given: Given, options: Options) -> dict[str, Any]:
    """What the task decided because no option did."""
    assert given.named is not None
    decided: dict[str, Any] = {}
    if options.task_sets_metric:
        decided["metric"] = options.metric
    if given.named.modalities and options.modalities is None:
        decided["modalities"] = list(given.task.names)
    return decided


def told(given: Given, options: Options) -> list[str]:
    """Lines for the terminal: what the task sets."""
    if given.named is None:
        return []
    return [
        f"task {given.named.name} sets --{option}"
        f" {value if isinstance(value, str) else ','.join(value)}"
        for option, value in _set(given, options).items()
    ]


def notes(given: Given, options: Options) -> list[str]:
    """What a reader of the results must know of the data: a stand-in, what was left out."""
    lines = []
    if given.named is not None and not given.published:
        classes = ", ".join(given.task.class_names[:6])
        more = ", ..." if given.task.classes > 6 else ""
        lines.append(
            f"{options.data} stands in for the data of {given.named.name}: its classes are"
            f" {classes}{more}, and its scores are no scores of that task"
        )
    if given.original is not None:
        lines += given.original.notes
    return lines
