"""Proof that a candidate's files compute what was scored: every runtime against the reference.

The integer-exact ONNX in ONNX Runtime and the .tflite in TFLM must equal the reference in its own
rounding; the .tflite in LiteRT, or in tflite-runtime where LiteRT is missing, must equal it in that
runtime's rounding; for the QDQ ONNX, whose float kernels round differently, the agreement is
measured and reported. Inputs are test samples, topped up with random ones.
"""

from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas.data.task import Task
from nas.errors import Mismatch, RunError, ToolMissing
from nas.export import runtimes
from nas.network import reference
from nas.network.integer import load_integer_model
from nas.network.numerics import Int8, Rounding
from nas.run_folder import read_front, read_json, write_front, write_json
from nas.training.workers import MOST_DEATHS, DataSource, pool, prepared

INPUTS = 256
MUST_BE_EQUAL = ("model_integer.onnx", "tflm", "litert")


@dataclass(frozen=True, slots=True)
class Check:
    """One file in one runtime.

    Attributes:
        compared: outputs that were compared; 0 when the runtime is missing.
        differing: outputs that differ from the reference in this runtime's rounding.
        largest_difference: of one output, in integer steps.
        argmax_agreement: share of inputs with the same class.
    """

    runtime: str
    compared: int
    differing: int
    largest_difference: int
    argmax_agreement: float
    note: str


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of one candidate; `host` when every runtime that must be equal is."""

    id: str
    inputs: int
    verified: Literal["host", "no"]
    runtimes: tuple[Check, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in verification.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Run:
    """How one file is run, and what it must equal."""

    name: str
    file: str
    run: Callable[..., Int8]
    rounding: Rounding
    title: str
    note: str


_RUNS = (
    _Run(
        "model_integer.onnx",
        "model_integer.onnx",
        runtimes.run_onnx,
        runtimes.ROUNDING["onnx"],
        "ONNX Runtime, model_integer.onnx",
        "must be equal",
    ),
    _Run(
        "tflm",
        "model.tflite",
        runtimes.run_tflm,
        runtimes.ROUNDING["tflm"],
        "TensorFlow Lite Micro, model.tflite",
        "must be equal",
    ),
    _Run(
        "litert",
        "model.tflite",
        runtimes.run_litert,
        runtimes.ROUNDING["ai-edge-litert"],
        "LiteRT, model.tflite",
        "must be equal, in its own rounding",
    ),
    _Run(
        "model.onnx",
        "model.onnx",
        runtimes.run_onnx,
        runtimes.ROUNDING["onnx"],
        "ONNX Runtime, model.onnx (QDQ)",
        "float kernels: agreement is reported, not required",
    ),
)


def verification_inputs(task: Task) -> dict[str, Int8]:
    """modality -> (INPUTS, height, width, channels): test samples, topped up with random ones."""
    rows = task.rows("test")[:INPUTS]
    rng = np.random.default_rng(0)
    inputs = {}
    for modality in task.modalities:
        random = rng.integers(-128, 128, (INPUTS - len(rows), *modality.graph_shape))
        inputs[modality.name] = np.concatenate([modality.quantised(rows), random.astype(np.int8)])
    return inputs


def verify_candidate(folder: Path, inputs: dict[str, Int8]) -> Verification:
    """Runs every file of a candidate and compares.

    Raises:
        RunError: a file of the candidate is missing or torn.
    """
    model = load_integer_model(folder / "model.npz")
    used = {source.name: inputs[source.name] for source in model.graph.inputs}
    expected: dict[Rounding, Int8] = {}
    checks = []
    for run in map(_installed, _RUNS):
        if run.rounding not in expected:
            expected[run.rounding] = reference.run(model, used, run.rounding)
        checks.append(_check(folder, run, used, expected[run.rounding]))
    names = [run.name for run in _RUNS]
    equal = all(
        check.compared > 0 and check.differing == 0
        for name, check in zip(names, checks, strict=True)
        if name in MUST_BE_EQUAL
    )
    count = len(next(iter(used.values())))
    return Verification(folder.name, count, "host" if equal else "no", tuple(checks))


def _installed(run: _Run) -> _Run:
    """The row of LiteRT for the package and version that stand for it here, with its rounding."""
    if run.name != "litert":
        return run
    try:
        lite = runtimes.lite_runtime()
    except ToolMissing:  # the check says so
        return run
    return replace(
        run, rounding=lite.rounding, title=f"{lite.package} {lite.version}, model.tflite"
    )


def _check(folder: Path, run: _Run, inputs: dict[str, Int8], expected: Int8) -> Check:
    try:
        data = (folder / run.file).read_bytes()
    except OSError as error:
        raise RunError(
            f"{folder / run.file}: {error.strerror}; run the search again with --resume"
        ) from None
    try:
        seen = run.run(data, inputs)
    except ToolMissing as missing:
        return Check(run.title, 0, 0, 0, 0.0, str(missing))
    difference = np.abs(seen.astype(np.int16) - expected.astype(np.int16))
    agreement = float((seen.argmax(1) == expected.argmax(1)).mean())
    return Check(
        run.title,
        seen.size,
        int((difference > 0).sum()),
        int(difference.max()),
        agreement,
        run.note,
    )


def _verify(folder: Path) -> Verification:
    return verify_candidate(folder, prepared())


def verify_run(
    run: Path,
    ids: Sequence[str] | None = None,
    workers: int = 2,
    progress: Callable[[Verification], None] = lambda _: None,
) -> list[Verification]:
    """Verifies candidates of a run and brings front.csv up to date.

    Raises:
        RunError: no such run or candidate, or its data are gone.
        DataError: the data have changed.
    """
    manifest, rows = read_json(run / "run.json"), read_front(run)
    known = [row["id"] for row in rows]
    unknown = sorted(set(ids or []) - set(known))
    if unknown:
        raise RunError(f"{run}: {unknown[0]!r} is no candidate; the front has {', '.join(known)}")
    chosen = list(ids) if ids else known
    source = data_source(manifest)
    source.load()
    results = _verify_all([run / "candidates" / i for i in chosen], source, workers, progress)
    verdicts = {result.id: result.verified for result in results}
    for row in rows:
        row["verified"] = verdicts.get(row["id"], row["verified"])
    write_front(run, rows)
    return results


def _verify_all(
    folders: Sequence[Path],
    source: DataSource,
    workers: int,
    progress: Callable[[Verification], None],
) -> list[Verification]:
    """Verifies candidates in processes and writes each one's verification.json."""
    results: list[Verification] = []
    deaths = 0
    with pool(max(1, min(workers, len(folders))), source, verification_inputs) as processes:
        while len(results) < len(folders):
            try:
                futures = [processes.submit(_verify, f) for f in folders[len(results) :]]
                for future in futures:
                    result = future.result()
                    folder = folders[len(results)]
                    write_json(folder / "verification.json", result.to_json())
                    progress(result)
                    results.append(result)
            except BrokenProcessPool:
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise RunError(
                        f"{folders[len(results)]}: {deaths} processes were killed while they"
                        " verified, probably for memory; use fewer --workers"
                    ) from None
                processes.replace()
    return results


def data_source(manifest: dict[str, Any]) -> DataSource:
    """Where the data of a run are, from its run.json."""
    try:
        data = manifest["data"]
        return DataSource(
            None if data["path"] else data["name"],
            data["path"],
            tuple(data["modalities"]),
            data["hash"],
        )
    except KeyError as error:
        raise RunError(f"run.json: no key {error}; it was written by another version") from None


def require_equal(results: Sequence[Verification]) -> None:
    """Raises Mismatch when a runtime that must equal the reference ran and did not."""
    for result in results:
        for run, check in zip(_RUNS, result.runtimes, strict=True):
            if run.name in MUST_BE_EQUAL and check.differing:
                raise Mismatch(
                    f"{result.id}: {check.differing} of {check.compared} outputs differ in"
                    f" {check.runtime} (by up to {check.largest_difference}); they must be equal:"
                    " report this candidate's folder"
                )
