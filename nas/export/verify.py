"""Proof that a candidate's files compute what was scored: every runtime against the reference.

The C on an emulated Cortex-M4, the integer-exact ONNX in ONNX Runtime and the .tflite in TFLM must
equal the reference in its own rounding; the .tflite in LiteRT, or in tflite-runtime where LiteRT is
missing, must equal it in that runtime's rounding; for the QDQ ONNX, whose float kernels round
differently, the agreement is measured and reported. Inputs are test samples, topped up with random
ones.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nas.data.task import Task
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.emulation.emulator import check_hook
from nas.emulation.tools import check_tools
from nas.errors import BuildError, MachineFault, Mismatch, Refusal, RunError, ToolMissing
from nas.export import runtimes
from nas.export.emulate import Bench, Verdict, emulate
from nas.export.emulate_steps import StepVerdict, emulate_steps
from nas.export.verification import Check, Proof, Verification
from nas.hardware.memory import MemoryPlan
from nas.hardware.profile import Profile
from nas.hardware.stepwise import stepwise
from nas.network import reference
from nas.network.integer import IntegerModel, load_integer_model
from nas.network.numerics import Int8, Rounding
from nas.run_folder import read_front, read_json, write_front, write_json
from nas.training.workers import MOST_DEATHS, DataSource, pool, prepared

INPUTS, EMULATED_INPUTS, STEPPED_WINDOWS = 256, 64, 16
MUST_BE_EQUAL = ("model_integer.onnx", "tflm", "litert")


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


def verify_candidate(folder: Path, inputs: dict[str, Int8], bench: Bench) -> Proof:
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
    verdict, failure = _emulated(folder, model, used, bench)
    if verdict is not None:
        checks.append(_c_check(verdict))
    steps, stepwise_failure = _emulated_steps(folder, model, used, bench)
    if steps is not None:
        checks.append(_step_check(steps))
    failure = failure or stepwise_failure
    verified: Literal["emulated", "host", "no"] = "host" if equal else "no"
    proved = verdict is not None and not verdict.outputs_differing
    if equal and proved and not failure and not (steps and steps.outputs_differing):
        verified = "emulated"
    data = (folder / "model.tflite").read_bytes()
    verification = Verification(
        folder.name,
        len(next(iter(used.values()))),
        verified,
        tuple(checks),
        runtimes.tflm_arena_bytes(data),
        len(data),
        failure,
    )
    return Proof(verification, verdict, steps)


def _emulated(
    folder: Path, model: IntegerModel, inputs: dict[str, Int8], bench: Bench
) -> tuple[Verdict | None, str]:
    """The verdict on the candidate's C, or none and why it could not be run."""
    few = {name: values[:EMULATED_INPUTS] for name, values in inputs.items()}
    if not (folder / "c").is_dir():
        return None, "there is no folder c; nas bundle writes it"
    plan = MemoryPlan.from_json(read_json(folder / "architecture.json").get("plan", {}))
    try:
        return emulate(folder.name, model, plan, folder / "c", few, bench), ""
    except (BuildError, MachineFault, Mismatch) as error:
        return None, str(error)


def _emulated_steps(
    folder: Path, model: IntegerModel, inputs: dict[str, Int8], bench: Bench
) -> tuple[StepVerdict | None, str]:
    """The same of the candidate's stepwise form, where it has one."""
    few = {name: values[:STEPPED_WINDOWS] for name, values in inputs.items()}
    held = stepwise(model.graph, bench.profile) if (folder / "c_step").is_dir() else None
    if held is None:
        return None, ""
    try:
        return emulate_steps(folder.name, model, held, folder / "c_step", few, bench), ""
    except (BuildError, MachineFault, Mismatch) as error:
        return None, f"step by step: {error}"


def _step_check(steps: StepVerdict) -> Check:
    return Check(
        f"C step by step on an emulated Cortex-M4 ({steps.compiler})",
        steps.outputs_compared,
        steps.outputs_differing,
        steps.largest_difference,
        steps.argmax_agreement,
        "must be equal to the whole window",
    )


def _c_check(verdict: Verdict) -> Check:
    return Check(
        f"C on an emulated Cortex-M4 ({verdict.compiler})",
        verdict.outputs_compared,
        verdict.outputs_differing,
        verdict.largest_difference,
        verdict.argmax_agreement,
        "must be equal" if verdict.difference is None else str(verdict.difference),
    )


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
        seen = run.run(data, inputs).reshape(len(expected), -1)
    except (ToolMissing, Refusal) as missing:
        return Check(run.title, 0, 0, 0, 0.0, str(missing))
    expected = expected.reshape(len(expected), -1)
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


def _verify(folder: Path, bench: Bench) -> Proof:
    return verify_candidate(folder, prepared(), bench)


def bench_of(manifest: dict[str, Any], cc: str | None) -> Bench:
    """The device of a run and the compiler for it.

    Raises:
        ToolMissing: compiler or emulator is not installed.
        RunError: the manifest has no profile that can be read.
    """
    check_tools()
    try:
        profile = Profile.from_dict(manifest["profile"])
    except (KeyError, TypeError) as error:
        raise RunError(f"run.json: profile: {error}; it was written by another version") from None
    bench = Bench(profile, find_compiler(cc), cache_folder())
    check_hook(bench.cache)
    return bench


def verify_run(
    run: Path,
    ids: Sequence[str] | None = None,
    workers: int = 2,
    progress: Callable[[Verification], None] = lambda _: None,
    cc: str | None = None,
) -> list[Verification]:
    """Verifies candidates of a run and brings front.csv up to date.

    Args:
        cc: compiler for the Cortex-M4; None is `toolchain.find_compiler`'s choice.

    Raises:
        RunError: no such run or candidate, or its data are gone.
        DataError: the data have changed.
        ToolMissing: compiler or emulator is not installed.
    """
    manifest, rows = read_json(run / "run.json"), read_front(run)
    known = [row["id"] for row in rows]
    unknown = sorted(set(ids or []) - set(known))
    if unknown:
        raise RunError(f"{run}: {unknown[0]!r} is no candidate; the front has {', '.join(known)}")
    bench = bench_of(manifest, cc)
    chosen = list(ids) if ids else known
    source = data_source(manifest)
    source.load()
    proofs = _verify_all([run / "candidates" / i for i in chosen], source, workers, progress, bench)
    by_id = {proof.verification.id: proof for proof in proofs}
    for row in rows:
        if row["id"] in by_id:
            document = read_json(run / "candidates" / row["id"] / "architecture.json")
            _enter(row, by_id[row["id"]], bench.profile, document["cost"])
    write_front(run, rows)
    return [proof.verification for proof in proofs]


def _enter(
    row: dict[str, Any], proof: Proof, profile: Profile, predicted: Mapping[str, Any]
) -> None:
    """Puts what was measured in the place of what was predicted, or that back if the C failed."""
    row["verified"] = proof.verification.verified
    if proof.verdict is None:
        latency_s = predicted["latency_s"]
        row["ram_bytes"], row["flash_bytes"] = predicted["ram_bytes"], predicted["flash_bytes"]
    else:
        latency_s = proof.verdict.modelled_cycles / profile.clock_hz
        row["ram_bytes"] = proof.verdict.measured_ram_bytes
        row["flash_bytes"] = proof.verdict.measured_flash_bytes
    if proof.steps is not None:
        row["streamed_ram_bytes"] = proof.steps.measured_ram_bytes
        row["step_cycles"] = proof.steps.step_cycles
        row["last_step_cycles"] = proof.steps.last_step_cycles
    row["latency_ms"] = latency_s * 1e3
    row["energy_uj"] = latency_s * profile.active_current_a * profile.supply_voltage_v * 1e6


def _verify_all(
    folders: Sequence[Path],
    source: DataSource,
    workers: int,
    progress: Callable[[Verification], None],
    bench: Bench,
) -> list[Proof]:
    """Verifies candidates in processes; writes each one's proofs."""
    results: list[Proof] = []
    deaths = 0
    with pool(max(1, min(workers, len(folders))), source, verification_inputs) as processes:
        while len(results) < len(folders):
            try:
                futures = [processes.submit(_verify, f, bench) for f in folders[len(results) :]]
                for future in futures:
                    result = future.result()
                    _keep(folders[len(results)], result)
                    progress(result.verification)
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


def _keep(folder: Path, proof: Proof) -> None:
    write_json(folder / "verification.json", proof.verification.to_json())
    for name, held in (("verdict.json", proof.verdict), ("steps.json", proof.steps)):
        if held is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_json(folder / name, held.to_json())


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
