"""What a run was asked to do, and run.json, which remembers it."""

import datetime
import hashlib
import importlib.metadata
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.data.task import Task
from nas.errors import RunError
from nas.hardware.budget import DEFAULT_LATENCY_LIMIT_MS, Budget
from nas.hardware.cost import table_hash
from nas.hardware.profile import Profile
from nas.run_folder import read_json
from nas.space import Space
from nas.training.lessons import Distil
from nas.training.metrics import Metric
from nas.training.recipe import TrainOn
from nas.training.teaching import Choice, OwnModel
from nas.training.validation import Judging, Validation

FORMAT = 1  # of run.json
SAME_ON_RESUME = (
    *("data", "profile", "space", "space_file", "objectives", "metric", "validation"),
    *("distil", "teacher_kind", "own_teacher", "seed", "limits", "storage", "cost_table"),
)
OF_THIS_SESSION = ("command", "versions", "data", "sampler", "workers", "train_on")


@dataclass(frozen=True)
class Options:
    """What the command line says, with its units; see `run_search.py --help`."""

    task: str | None
    data: str | None
    modalities: tuple[str, ...] | None
    device: str
    space: Space
    teacher: str | None
    trials: int | None
    budget_s: float | None
    objectives: tuple[str, ...]
    metric: Metric
    max_latency_ms: float | None
    max_weight_bytes: int | None
    sampler: str
    distil: Distil | None
    validation: Validation | None
    verify: bool
    cc: str | None
    workers: int
    storage: str | None
    out: Path
    seed: int
    resume: bool
    quiet: bool
    task_sets_metric: bool = False
    artifacts: str | None = None
    train_on: TrainOn = "cpu"


def open_manifest(
    options: Options,
    task: Task,
    judged: Judging,
    profile: Profile,
    budget: Budget,
    chosen: Choice,
) -> dict[str, Any]:
    """run.json of a new run, not yet written, or that of the run to resume.

    Raises:
        RunError: the folder holds a run and `resume` is not set, or the other way round, or it
            holds another run than the one that the options ask for.
    """
    path, study = options.out / "run.json", options.out / "study.db"
    fresh = _manifest(options, task, judged, profile, budget, chosen)
    if not path.exists():
        if study.exists() and not options.resume:
            raise RunError(f"{options.out}: holds a study without run.json; choose another --out")
        return fresh
    if options.resume and options.storage is None and not study.exists():
        raise RunError(
            f"{study}: missing, so nothing to resume; restore it or choose another --out"
        )
    if not options.resume:
        raise RunError(
            f"{options.out}: holds a run already; add --resume to go on with it or choose another"
            " --out"
        )
    held = read_json(path)
    if isinstance(held.get("data"), dict):
        seen, now_seen = held["data"].get("modalities"), fresh["data"]["modalities"]
        _require_same(options, "modalities", seen, now_seen)
    for key in SAME_ON_RESUME:
        _require_same(options, key, held.get(key), fresh[key])
    return held | {key: fresh[key] for key in OF_THIS_SESSION} | {"ended": None}


def _require_same(options: Options, key: str, old: Any, new: Any) -> None:
    """Raises RunError when a run would go on with something else than it began with."""
    if isinstance(old, dict) and isinstance(new, dict):
        files = {"profile": options.device, "space_file": options.space.file}
        named = files.get(key, options.data or options.task)
        old, new = old.get("hash"), new["hash"]
        what = f"the content of {key} {named} has hash {str(new)[:12]} and had {str(old)[:12]}"
    else:
        what = f"{key} is {new!r} and was {old!r}"
    if old != new:
        raise RunError(
            f"{options.out}: {what} when the run began; resume with the same, or start a new run"
            " with another --out"
        )


def _manifest(
    options: Options,
    task: Task,
    judged: Judging,
    profile: Profile,
    budget: Budget,
    chosen: Choice,
) -> dict[str, Any]:
    own = chosen if isinstance(chosen, OwnModel) else None
    rows = {"train": len(task.rows("train")), "val": len(task.rows("val"))}
    return {
        "format": FORMAT,
        "command": [Path(sys.argv[0]).name, *map(shown_storage, sys.argv[1:])],
        "started": now(),
        "ended": None,
        "versions": _versions(),
        "seed": options.seed,
        "data": {
            "name": task.name,
            "path": str(task.path.resolve()) if task.path else None,
            "hash": task.data_hash,
            "modalities": list(task.names),
            "classes": list(task.class_names),
            "rows": rows | {"test": len(task.rows("test"))},
            "ignored_keys": list(task.ignored_keys),
        },
        "profile": profile.to_dict() | {"hash": profile.hash},
        "budgets": {
            "ram_bytes": budget.ram_bytes,
            "flash_bytes": budget.flash_bytes,
            "latency_ms": budget.latency_ms or DEFAULT_LATENCY_LIMIT_MS,
            "latency_is_limit": budget.latency_ms is not None,
            "weight_bytes": budget.weight_bytes,
        },
        "limits": [options.max_latency_ms, options.max_weight_bytes],
        # Trials are chosen between by predicted costs: those of two tables cannot be compared.
        "cost_table": table_hash(),
        "space": options.space.name,
        "space_file": None
        if options.space.file is None
        else {"path": str(options.space.file.resolve()), "hash": options.space.file_hash},
        "sampler": options.sampler,
        "objectives": list(options.objectives),
        "metric": options.metric,
        "validation": judged.kind,
        "distil": options.distil,
        "teacher_kind": "onnx" if own else chosen,
        "own_teacher": None if own is None else hashlib.sha256(own.content).hexdigest(),
        "storage": None if options.storage is None else shown_storage(options.storage),
        "workers": options.workers,
        "train_on": options.train_on,
        "notes": [],
    }


def shown_storage(url: str) -> str:
    """A storage's URL without its password, as it may be kept and shown."""
    return re.sub(r"(://[^:@/]*:)[^@]*@", r"\1***@", url)


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    packages = ("mcu-nas", "torch", "optuna", "numpy", "onnx", "onnxruntime", "ai-edge-litert")
    found = {"python": sys.version.split()[0]}
    for package in (*packages, "tflite-micro", "tflite-runtime"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
