"""What the report reads from a run folder, checked once so that nothing later can trip over it.

Only files of the folder are read: run.json, trials.csv, front.csv, and of every candidate
architecture.json and, where they exist, verification.json and verdict.json.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.choosing.choose import FrontRow, knee, parse_rows
from nas.choosing.measured import verdict_of
from nas.choosing.steps import Steps, steps_of
from nas.errors import GraphError, PlanError, RunError
from nas.export.emulate import Verdict
from nas.hardware.memory import MemoryPlan, check_plan
from nas.network.graph import Graph
from nas.network.ops import size
from nas.report.format import dig, number
from nas.report.words import weight_bits
from nas.run_folder import FRONT_COLUMNS, read_front, read_json

DEFAULT_LATENCY_MS = 100.0  # what hypervolume divides by when no limit was given
COSTS = ["arena_bytes", "weight_bytes", "ram_bytes", "flash_bytes", "latency_ms"]
OPTIONAL = [
    "val_low",
    "val_high",
    "test_score",
    "test_low",
    "test_high",
    "test_accuracy",
    "energy_uj",
]
PER_OP = ["name", "kernel", "macs", "cycles", "weight_bytes", "output_bytes", "scratch_bytes"]


@dataclass(frozen=True)
class Trial:
    """One row of trials.csv; `costs` has the keys of `COSTS` and `energy_uj`."""

    id: str
    status: str
    val_score: float | None
    costs: Mapping[str, float | None]
    finished_s: float
    reason: str


@dataclass(frozen=True)
class OpRow:
    """One operator of architecture.json's cost."""

    name: str
    kernel: str
    macs: float
    cycles: float
    weight_bytes: float
    output_bytes: float
    scratch_bytes: float


@dataclass(frozen=True)
class Candidate:
    """One member of the front with its folder.

    Attributes:
        values: the numeric columns of front.csv, optional ones may be None, and `bits`: the mean
            number of bits of a weight.
        document: architecture.json, of which `graph`, `per_op` and `plan` are checked already.
        verification: verification.json, or None without one.
        verdict: what the emulated chip measured; None where RAM, Flash and time are predicted.
        steps: how it runs step by step; None where it does not.
        files: names of what lies in the candidate's folder; a folder ends in a slash.
    """

    index: int
    id: str
    verified: str
    values: Mapping[str, float | None]
    weight_bits: str
    modalities: str
    graph: Graph
    per_op: tuple[OpRow, ...]
    plan: MemoryPlan
    document: Mapping[str, Any]
    verification: Mapping[str, Any] | None
    verdict: Verdict | None
    steps: Steps | None
    files: tuple[str, ...]


@dataclass(frozen=True)
class Budgets:
    """What the device leaves for the model; None where the run does not say."""

    ram_bytes: float | None
    flash_bytes: float | None
    latency_ms: float
    latency_is_limit: bool
    weight_bytes: float | None


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes:
        rows: front.csv for choosing, in the order of `candidates`; empty where it lacks a number
            that choosing needs, such as an interval.
        knee: id of the candidate at the knee of the front, None without `rows`.
    """

    folder: Path
    manifest: Mapping[str, Any]
    budgets: Budgets
    metric: str
    trials: tuple[Trial, ...]
    candidates: tuple[Candidate, ...]
    rows: tuple[FrontRow, ...]
    knee: str | None


def read_run(folder: Path) -> Run:
    """Reads the folder.

    Raises:
        RunError: a file is missing or torn, or front.csv and the candidates contradict each other.
    """
    manifest = read_json(folder / "run.json")
    for key in ("format", "data", "profile"):
        if key not in manifest:
            raise RunError(f"{folder / 'run.json'}: key {key!r} is missing; write the run again")
    if manifest["format"] != 1:
        raise RunError(
            f"{folder / 'run.json'}: format {manifest['format']!r} is not 1; use the version of "
            "this tool that wrote it"
        )
    trials = _read_trials(folder / "trials.csv")
    rows = _front_rows(folder)
    candidates = tuple(_read_candidate(folder, i, row) for i, row in enumerate(rows))
    metric = rows[0]["metric"] if rows else str(manifest.get("metric") or "accuracy")
    chosen = _rows(rows)
    best = knee(chosen).id if chosen else None
    return Run(folder, manifest, _budgets(manifest), metric, trials, candidates, chosen, best)


def _rows(rows: list[dict[str, str]]) -> tuple[FrontRow, ...]:
    try:
        return parse_rows(rows)
    except RunError:
        return ()


def _front_rows(folder: Path) -> list[dict[str, str]]:
    path = folder / "front.csv"
    try:
        rows = read_front(folder)
        if not rows and not path.read_text().startswith(FRONT_COLUMNS[0]):
            raise _torn(path, "it has no header")
    except (ValueError, csv.Error) as error:
        raise _torn(path, error) from None
    for i, row in enumerate(rows, 1):
        if any(row[column] is None for column in FRONT_COLUMNS):
            raise _torn(path, f"row {i} is cut off")
    return rows


def _budgets(manifest: Mapping[str, Any]) -> Budgets:
    def left(kind: str) -> float | None:
        given = number(dig(manifest, "budgets", f"{kind}_bytes"))
        whole = number(dig(manifest, "profile", f"{kind}_bytes"))
        if given is not None or whole is None:
            return given
        return whole - (number(dig(manifest, "profile", f"{kind}_reserved_bytes")) or 0)

    latency = number(dig(manifest, "budgets", "latency_ms"))
    return Budgets(
        left("ram"),
        left("flash"),
        latency or DEFAULT_LATENCY_MS,
        bool(latency and dig(manifest, "budgets", "latency_is_limit")),
        number(dig(manifest, "budgets", "weight_bytes")),
    )


def _torn(path: Path, what: object) -> RunError:
    return RunError(f"{path}: {what}; finish the run with --resume to write it again")


def _number(
    row: Mapping[str, str | None] | Mapping[str, str], column: str, optional: bool = False
) -> float | None:
    """The number of a cell; ValueError for a torn one."""
    cell = row.get(column)
    if cell is None:
        raise ValueError(f"column {column!r} is missing")
    value = float(cell) if cell or not optional else math.nan
    if math.isfinite(value):
        return value
    if optional:
        return None
    raise ValueError(f"column {column!r}: {cell!r} is not a finite number")


def _read_trials(path: Path) -> tuple[Trial, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if not reader.fieldnames:
                raise ValueError("it has no header")
            return tuple(_trial(row) for row in reader)
    except OSError as error:
        raise _torn(path, error.strerror) from None
    except (ValueError, csv.Error) as error:
        raise _torn(path, error) from None


def _trial(row: Mapping[str, str | None]) -> Trial:
    texts = {name: row.get(name) for name in ("id", "status", "reason", "architecture")}
    absent = [name for name, value in texts.items() if value is None]
    if absent:
        raise ValueError(f"column {absent[0]!r} is missing")
    costs = {name: _number(row, name, optional=True) for name in (*COSTS, "energy_uj")}
    return Trial(
        str(texts["id"]),
        str(texts["status"]),
        _number(row, "val_score", optional=True),
        costs,
        _number(row, "finished_s") or 0.0,
        str(texts["reason"]),
    )


def _read_candidate(folder: Path, index: int, row: Mapping[str, str]) -> Candidate:
    path = folder / "front.csv"
    try:
        values = {name: _number(row, name) for name in ("val_score", *COSTS)}
        values |= {name: _number(row, name, optional=True) for name in OPTIONAL}
    except ValueError as error:
        raise _torn(path, f"row {index + 1}: {error}") from None
    name = row["id"]
    if not name or Path(name).name != name or name in (".", ".."):
        raise _torn(path, f"row {index + 1}: id {name!r} is not a plain name")
    home = folder / "candidates" / name
    document = read_json(home / "architecture.json")
    graph, per_op, plan = _parse(home / "architecture.json", document)
    values["bits"] = mean_bits(graph)
    proof = home / "verification.json"
    verification = read_json(proof) if proof.exists() else None
    files = tuple(sorted(p.name + "/" * p.is_dir() for p in home.iterdir() if p.name[0] != "."))
    return Candidate(
        index, name, row["verified"] or "no", values, row["weight_bits"], row["modalities"],
        graph, per_op, plan, document, verification,
        verdict_of(home, values["ram_bytes"], values["flash_bytes"]), steps_of(home, document),
        files,
    )  # fmt: skip


def mean_bits(graph: Graph) -> float:
    """Bits of a weight, over all weights of the graph; 0 without any."""
    shapes = [(graph.weight_shape(op), weight_bits(op)) for op in graph.ops]
    sizes = [(size(form), bits) for form, bits in shapes if form is not None and bits]
    whole = sum(n for n, _ in sizes)
    return sum(n * bits for n, bits in sizes) / whole if whole else 0.0


def _parse(path: Path, document: Mapping[str, Any]) -> tuple[Graph, tuple[OpRow, ...], MemoryPlan]:
    try:
        graph = Graph.from_json(document["graph"])
        per_op = tuple(_op_row(row) for row in document["cost"]["per_op"])
        return graph, per_op, _plan(graph, document["plan"])
    except (
        GraphError,
        PlanError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
    ) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else error
        raise _torn(path, what) from None


def _op_row(row: Mapping[str, Any]) -> OpRow:
    name, kernel = str(row["name"]), str(row["kernel"])
    return OpRow(name, kernel, *(float(row[key]) for key in PER_OP[2:]))


def _plan(graph: Graph, document: Mapping[str, Any]) -> MemoryPlan:
    """The plan, checked as the search checks it: what is drawn is what may run."""
    plan = MemoryPlan.from_json(document)
    check_plan(graph, plan)
    return plan
