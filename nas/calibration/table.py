"""`kernel_costs.toml`: what the calibration found, one part a kind of core."""

import itertools
import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.calibration.fit import Fit, Sample, fit_function, non_negative
from nas.calibration.measure import (
    ROOM_BYTES,
    Linked,
    calibration_programs,
    measured,
    roomy,
    small_programs,
)
from nas.calibration.samples import single_operator
from nas.deploy.kernel_files import files_of
from nas.deploy.toolchain import Compiler, Memory, compile_firmware
from nas.emulation.elf import STARTUP, read_elf
from nas.errors import CalibrationError
from nas.export.emulate import PREFIX, Bench
from nas.hardware.memory import plan_memory
from nas.hardware.profile import Profile
from nas.hardware.program import program_of
from nas.hardware.work import work_of
from nas.network.graph import Graph

MOST_DRAWS, SINGLES = 50_000, 6
WAIT_STATES = 4  # any but 0: misses are counted, not priced
PLANES = re.compile(r"depthwise_(3x3|shaped)_\d")


@dataclass(frozen=True, slots=True)
class CoreTable:
    """All rows for one kind of core, ready for the file; `errors` by function."""

    rows: Mapping[str, Any]
    fits: Mapping[str, Fit]


def calibrate_core(
    profile: Profile,
    compiler: Compiler,
    cache: Path,
    programs: int,
    seed: int,
    progress: Callable[[str], None],
) -> CoreTable:
    """Measures and fits every kernel on the core of `profile`."""
    bench = Bench(roomy(profile), compiler, cache)
    held = []
    for number, linked in enumerate(calibration_programs(bench, programs, seed), 1):
        held.append(linked)
        progress(f"{profile.core}: program {number} of {programs}")
    samples: dict[str, list[Sample]] = {}
    for linked in held:
        for sample in linked.samples:
            samples.setdefault(sample.function, []).append(sample)
    fits = {name: fit_function(found) for name, found in sorted(samples.items())}
    progress(f"{profile.core}: code and stack of {len(fits)} kernels")
    needs, code = _needs([*sorted(fits), "staged"], bench)
    stacks = _stacks(fits, bench)
    small = list(small_programs(bench, seed))
    call_bytes = _call_bytes(small, sorted(fits))
    rows = {
        "program": {
            "flash_bytes": max(linked.constant_bytes for linked in small),
            "stack_bytes": max(linked.frame_bytes for linked in held),
            "staged_stack_bytes": _stack("conv_8", bench, ROOM_BYTES // 8) - stacks["conv_8"],
            "core": "fpu" if profile.has_fpu else "no_fpu",
        },
        "code_bytes": code,
        "kernels": {
            name: _row(fits[name], stacks.get(name, 0), call_bytes[name], needs[name])
            for name in fits
        },
    }
    return CoreTable(rows, fits)


def _row(fit: Fit, stack: int, call_bytes: float, needs: Sequence[str]) -> dict[str, Any]:
    return {
        "samples": fit.samples,
        "error_mean": round(fit.error_mean, 4),
        "error_p95": round(fit.error_p95, 4),
        "stack_bytes": stack,
        "call_bytes": call_bytes,
        "needs": list(needs),
        "data_misses": [float(f"{v:.4g}") for v in fit.data_misses],
        "cycles": dict(fit.cycles),
        "code_misses": dict(fit.code_misses),
    }


def _needs(functions: Sequence[str], bench: Bench) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Function -> all functions that are linked for it, and the bytes of each of those."""
    needs: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    memory = Memory(bench.profile.flash_budget_bytes, bench.profile.ram_budget_bytes, 4096)
    for function in functions:
        # Planes have the bytes that their own sizes say; what drives them is shared.
        driver = "depthwise_planes" if PLANES.match(function) else function
        with tempfile.TemporaryDirectory(prefix="nas-") as scratch:
            folder = Path(scratch)
            files = files_of([driver])
            files["names.h"] = f"#define NAS(name) {PREFIX}_##name\n"
            for name, text in files.items():
                (folder / name).write_text(text)
            compile_firmware(
                bench.compiler,
                [folder / name for name in files if name.endswith((".c", ".S"))],
                folder / "kernel.elf",
                memory,
                has_fpu=bench.profile.has_fpu,
                roots=[f"{PREFIX}_{driver}"],
                cache=bench.cache,
                include=[folder],
            )
            image = read_elf(folder / "kernel.elf")
        found: dict[str, int] = {}
        for symbol in image.functions:
            name = symbol.name.removeprefix(f"{PREFIX}_")
            if name not in STARTUP:
                found[name] = found.get(name, 0) + -(-symbol.size // 4) * 4
        needs[function] = sorted(found)
        sizes |= found
    return needs, dict(sorted(sizes.items()))


def _singles(function: str, staging_bytes: int) -> Iterator[Graph]:
    """Random graphs of one operator that calls `function` first, staged if it may be."""
    rng = random.Random(0)
    for _ in range(MOST_DRAWS):
        graph = single_operator(rng)
        program = program_of(graph, plan_memory(graph), WAIT_STATES, staging_bytes)
        calls = work_of(graph.ops[0], program)
        staged = bool(program.workspace.staged_bytes)
        if calls and calls[0].function == function and staged == bool(staging_bytes):
            yield graph
    raise CalibrationError(f"{function}: too few of {MOST_DRAWS} drawn operators call it")


def _stack(function: str, bench: Bench, staging_bytes: int = 0) -> int:
    """Stack of a kernel with all that it calls: the most of several sizes, as paths differ."""
    graphs = itertools.islice(_singles(function, staging_bytes), SINGLES)
    linked = [measured(graph, bench, 0, staging_bytes) for graph in graphs]
    return max(one.stack_bytes - one.frame_bytes for one in linked)


def _stacks(functions: Iterable[str], bench: Bench) -> dict[str, int]:
    """Function -> stack; what is only ever called beside others, and calls nothing, has no row."""
    return {name: _stack(name, bench) for name in functions if name != "clip"}


def _call_bytes(held: Sequence[Linked], functions: Sequence[str]) -> dict[str, float]:
    """Function -> bytes that a call of it takes in the model's own function.

    One that none of the programs calls takes what a call does on average.
    """
    names = sorted({call.function for linked in held for call in linked.calls})
    counts = np.array(
        [[sum(c.function == n for c in linked.calls) for n in names] for linked in held], float
    )
    run_bytes = np.array([linked.run_bytes for linked in held], float)
    mean = float(run_bytes.sum() / counts.sum())
    # Near the mean where few programs tell: a weak pull keeps the sums from being split at will.
    pull = np.eye(len(names)) * 2
    found = non_negative(
        np.vstack([counts, pull]), np.concatenate([run_bytes, pull @ np.full(len(names), mean)])
    )
    by_name = {n: round(float(v), 1) for n, v in zip(names, found, strict=True)}
    return {name: by_name.get(name, round(mean, 1)) for name in functions}


def to_toml(header: Mapping[str, Any], cores: Mapping[str, CoreTable]) -> str:
    """The text of the file; keys in order, so that two calibrations can be compared by eye."""
    lines = [f"{key} = {_value(value)}" for key, value in header.items()]
    for core, table in cores.items():
        for part, row in table.rows.items():
            if part != "kernels":
                lines += ["", f"[{core}.{part}]"]
                lines += [f"{key} = {_value(value)}" for key, value in row.items()]
        for name, row in table.rows["kernels"].items():
            lines += ["", f"[{core}.kernels.{name}]"]
            lines += [f"{key} = {_value(value)}" for key, value in row.items()]
    return "\n".join([*lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)
