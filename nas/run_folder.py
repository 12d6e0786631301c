"""A run folder on disk: its files, their columns, and the lock that keeps two writers apart.

    run.json  study.db  trials.csv  front.csv  report.html  progress.json
    candidates/<id>/  architecture.json model.onnx model_integer.onnx model.tflite model.npz c/
                      verification.json verdict.json README.md; c_step/ and steps.json where the
                      network runs step by step
    trained/<id>.npz  integer models of the search, so that nothing is trained twice

Every file is written beside its place and then moved there, so a reader, a full disk or a killed
process never leaves half a file.
"""

import contextlib
import csv
import fcntl
import io
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from nas.errors import RunError
from nas.hardware.cost import Cost
from nas.network.graph import Graph
from nas.network.ops import Conv2d, DepthwiseConv2d

Status: TypeAlias = Literal["trained", "stopped", "duplicate", "infeasible", "failed"]

FRONT_COLUMNS = (
    "id",
    "verified",
    "metric",
    "val_score",
    "val_low",
    "val_high",
    "test_score",
    "test_low",
    "test_high",
    "test_accuracy",
    "arena_bytes",
    "weight_bytes",
    "ram_bytes",
    "flash_bytes",
    "latency_ms",
    "energy_uj",
    "weight_bits",
    "modalities",
    "seeds",
    "steps",
    "trial",
    "weights_hash",
    "streamed_ram_bytes",
    "step_cycles",
    "last_step_cycles",
)
STEPWISE_COLUMNS = FRONT_COLUMNS[-3:]  # empty where a network does not run step by step
MOST_SHOWN_BITS = 16  # layers whose bits a person is shown one by one


@dataclass(frozen=True, slots=True)
class CostSummary:
    """What the front says of a cost: bytes, milliseconds, microjoules, bits per layer, sensors."""

    arena_bytes: int
    weight_bytes: int
    ram_bytes: int
    flash_bytes: int
    latency_ms: float
    energy_uj: float
    weight_bits: str
    modalities: str


def shown_bits(weight_bits: str) -> str:
    """`weight_bits` for people: of many layers, how many have which bits, as in 21x8/12x4."""
    layers = weight_bits.split("/")
    if len(layers) <= MOST_SHOWN_BITS:
        return weight_bits
    return "/".join(f"{n}x{bits}" for bits, n in Counter(layers).most_common())


def summarise(graph: Graph, cost: Cost) -> CostSummary:
    """The columns of front.csv and trials.csv that are known before any training."""
    bits = [str(op.weight_bits) for op in graph.ops if isinstance(op, Conv2d | DepthwiseConv2d)]
    return CostSummary(
        cost.arena_bytes,
        cost.weight_bytes,
        cost.ram_bytes,
        cost.flash_bytes,
        cost.latency_s * 1e3,
        cost.energy_j * 1e6,
        "/".join(bits),
        "+".join(source.name for source in graph.inputs),
    )


def read_cost(row: Mapping[str, str]) -> CostSummary:
    """The costs in a row of front.csv or trials.csv."""
    return CostSummary(
        arena_bytes=int(row["arena_bytes"]),
        weight_bytes=int(row["weight_bytes"]),
        ram_bytes=int(row["ram_bytes"]),
        flash_bytes=int(row["flash_bytes"]),
        latency_ms=float(row["latency_ms"]),
        energy_uj=float(row["energy_uj"]),
        weight_bits=row["weight_bits"],
        modalities=row["modalities"],
    )


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of the study.

    Attributes:
        number: the trial's number in the study.
        status: `trained` cost training time; `stopped` was left halfway, without hope of the
            front; a `duplicate` took over the scores of an equal architecture; `infeasible` was
            refused by its cost, `reason` says by which budget.
        val_score: of the integer model, None without a whole training.
        train_s: CPU-bound seconds of training and scoring.
        finished_s: seconds since the start of the run's first session.
        halfway_score: of the student halfway through its training, None where not looked at.
    """

    number: int
    id: str
    status: Status
    val_score: float | None
    cost: CostSummary
    train_s: float
    finished_s: float
    reason: str
    architecture: Mapping[str, Any] = field(hash=False)
    halfway_score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "TrialRecord":
        """Raises TypeError or KeyError for another document."""
        values = {k: v for k, v in document.items() if k != "cost"}
        return TrialRecord(cost=CostSummary(**document["cost"]), **values)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` in one step.

    Raises:
        RunError: the folder or the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunError(
            f"{path}: cannot be written ({error.strerror}); free space and go on with --resume,"
            " or choose another --out"
        ) from None


def remove_leftovers(folder: Path) -> None:
    """Deletes what `write_atomic` left half written when a process was killed."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes `document` with sorted keys left as they are and full precision."""
    write_atomic(path, (json.dumps(document, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Raises RunError for a missing or torn file."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); is this the folder of a run?") from None
    if not isinstance(document, dict):
        raise RunError(f"{path}: not a JSON object; is this the folder of a run?")
    return document


def read_manifest(run: Path) -> dict[str, Any]:
    """run.json; RunError where it is missing, torn or not of this format."""
    manifest = read_json(run / "run.json")
    absent = [key for key in ("data", "profile", "budgets") if key not in manifest]
    if absent:
        raise RunError(f"{run / 'run.json'}: no {absent[0]!r}; it was written by another version")
    return manifest


def judged_crosswise(manifest: Mapping[str, Any]) -> bool:
    """Whether a run's validation scores are of rows held out in turn, not of a split."""
    return manifest.get("validation") == "cross"


def write_trials(run: Path, records: Sequence[TrialRecord]) -> None:
    """trials.csv, one row a trial."""
    cost_columns = [f.name for f in fields(CostSummary)]
    columns = ["number", "id", "status", "val_score", *cost_columns]
    columns += ["train_s", "finished_s", "reason", "architecture", "halfway_score"]
    rows = []
    for record in records:
        plain = record.to_json()
        plain |= plain.pop("cost")
        plain["architecture"] = json.dumps(plain["architecture"], separators=(",", ":"))
        for name in ("val_score", "halfway_score"):
            plain[name] = "" if plain[name] is None else repr(plain[name])
        rows.append(plain)
    write_csv(run / "trials.csv", columns, rows)


def write_front(run: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """front.csv; every row has every column of `FRONT_COLUMNS`, numbers at full precision."""
    write_csv(run / "front.csv", FRONT_COLUMNS, rows)


def read_front(run: Path) -> list[dict[str, str]]:
    """The rows of front.csv as text; RunError if there is no complete front."""
    try:
        with (run / "front.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            absent = set(FRONT_COLUMNS) - set(reader.fieldnames or ()) - set(STEPWISE_COLUMNS)
    except OSError as error:
        raise RunError(
            f"{run / 'front.csv'}: {error.strerror}; finish the run with --resume"
        ) from None
    if absent or any(None in row.values() for row in rows):
        raise RunError(f"{run / 'front.csv'}: columns are missing; it was written by another tool")
    return [dict.fromkeys(STEPWISE_COLUMNS, "") | row for row in rows]  # runs of earlier versions


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table, written whole or not at all; RunError when the disk refuses."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, buffer.getvalue().encode())


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the run folder for one writer; the operating system frees it when the process ends.

    What an earlier writer left half written is deleted.

    Raises:
        RunError: another process holds it, or the folder cannot be made.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("a+")
    except OSError as error:
        raise RunError(
            f"{run}: cannot be used as a run folder ({error.strerror}); choose another --out"
        ) from None
    with file:
        if not _locks(file):
            raise RunError(
                f"{run}: another run is writing here; wait for it or choose another --out"
            )
        remove_leftovers(run)
        yield


def _locks(file: IO[str]) -> bool:
    """Whether the lock is ours now; tried twice, as `is_locked` holds it for a moment."""
    for _ in range(2):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.1)
        else:
            return True
    return False


def is_locked(run: Path) -> bool:
    """Whether a run holds the folder, which has one.

    Raises:
        RunError: the folder is not that of a run.
    """
    try:
        with (run / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        raise RunError(f"{run}: not the folder of a run; give the one after --out") from None
    return False
