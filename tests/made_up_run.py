"""A run folder made up for tests of the report: every fusion, awkward names, one unverified."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.export.bundle import at_8_bits, weights_and_cycles
from nas.export.emulate import Verdict
from nas.hardware.budget import price
from nas.hardware.cost import Cost
from nas.hardware.memory import MemoryPlan
from nas.hardware.profile import load_profile
from nas.network.graph import Graph
from nas.run_folder import (
    CostSummary,
    TrialRecord,
    summarise,
    write_front,
    write_json,
    write_trials,
)
from nas.space import architecture_id
from search_spaces.convolutional import ConvBranch, ConvLayer
from search_spaces.multimodal import MultimodalStudent
from search_spaces.vector import DenseLayer, VectorBranch

NASTY = '<b>&"\'</script><img src="http://x.test/a.png">'
CLASSES = [NASTY, "walk & run", "Ünïcode \u2028", "sit"]
PROFILE = load_profile("cortex-m4-32k")
REASON = "ram_bytes {n} is over the budget of 28672 bytes <i>"


def student(number: int) -> MultimodalStudent:
    """A small architecture that differs with its number: one to three sensors, every fusion."""
    bits = (8, 4, 2)
    wide = ConvLayer(4 + 2 * number, bits[number % 3], 0, True)
    deep = ConvLayer(6 + number, bits[(number + 1) % 3], bits[number % 3], number % 2 == 0)
    series = ConvBranch(
        "accel", (1, 64, 3), 1, 5, "stride", (wide, deep), ("mean", "grid")[number % 2], 8, 8
    )
    image = ConvBranch("view", (12, 10, 1), 1, 3, "max", (wide,), "mean", 8, 4)
    vector = VectorBranch(NASTY, (1, 1, 9), (DenseLayer(8, 4),))
    branches = (series, image, vector)[: 1 + number % 3]
    fusion = "none" if len(branches) == 1 else ("add", "gate", "concat")[number // 3 % 3]
    return MultimodalStudent(
        "conv",
        branches,
        fusion,  # type: ignore[arg-type]
        4 if fusion == "gate" else 0,
        8,
        4,
        8,
        len(CLASSES),
    )


def costed(number: int) -> tuple[Graph, MemoryPlan, Cost]:
    graph = student(number).lower()
    priced = price(graph, PROFILE)
    return graph, priced.plan, priced.cost


def architecture(number: int) -> dict[str, Any]:
    """architecture.json of a candidate."""
    graph, plan, cost = costed(number)
    inputs = {
        source.name: {
            "kind": "series",
            "shape": list(source.shape),
            "mean": [0.1] * source.shape[2],
            "std": 1.5,
            "scale": 0.03,
            "zero_point": -3,
        }
        for source in graph.inputs
    }
    plain = student(number)
    return {
        "id": architecture_id(plain),
        "space": "conv",
        "architecture": plain.to_json(),
        "graph": graph.to_json(),
        "inputs": inputs,
        "classes": CLASSES,
        "cost": cost.to_json(),
        "at_8_bits": weights_and_cycles(at_8_bits(graph, PROFILE)),
        "plan": plan.to_json(),
        "training": {"seeds": 2, "steps": 900, "val_scores": [0.91, 0.92], "weights_hash": "ab12"},
        "groups": {"worst": {"group": NASTY, "score": 0.613, "rows": 31}} if number else None,
        "confusion": (np.eye(4, dtype=int) * 40 + 3).tolist(),
        **(
            {"missing_sensors": {i.name: {"score": 0.4321} for i in graph.inputs}} if number else {}
        ),
    }


def front_row(number: int, score: float, verified: str) -> dict[str, Any]:
    graph, _, cost = costed(number)
    summary = summarise(graph, cost)
    columns = {name: getattr(summary, name) for name in CostSummary.__slots__}
    if verified == "emulated":
        found = verdict(number)
        latency_s = found.modelled_cycles / PROFILE.clock_hz
        columns |= {
            "ram_bytes": found.measured_ram_bytes,
            "flash_bytes": found.measured_flash_bytes,
            "latency_ms": latency_s * 1e3,
            "energy_uj": latency_s * PROFILE.active_current_a * PROFILE.supply_voltage_v * 1e6,
        }
    return {
        "id": architecture_id(student(number)),
        "verified": verified,
        "metric": "accuracy",
        "val_score": score,
        "val_low": score - 0.02,
        "val_high": score + 0.02,
        "test_score": score - 0.01,
        "test_low": score - 0.03,
        "test_high": score + 0.01,
        "test_accuracy": score - 0.01,
        **columns,
        "seeds": 2,
        "steps": 900,
        "trial": number,
        "weights_hash": "ab12",
    }


def trial(
    number: int, status: str, score: float | None, reason: str = "", ram_bytes: int = 0
) -> TrialRecord:
    plain = student(number)
    graph, _, cost = costed(number)
    cost = replace(cost, ram_bytes=ram_bytes or cost.ram_bytes)
    return TrialRecord(
        number,
        architecture_id(plain),
        status,  # type: ignore[arg-type]
        score,
        summarise(graph, cost),
        3.0,
        20.0 * number,
        reason,
        plain.to_json(),
    )


def manifest() -> dict[str, Any]:
    """run.json."""
    return {
        "format": 1,
        "command": ["run_search.py", "--data", NASTY],
        "started": "2026-03-01T20:00:00+00:00",
        "ended": "2026-03-01T22:14:00+00:00",
        "versions": {"python": "3.11", "torch": "2.6"},
        "seed": 0,
        "data": {
            "name": f"my {NASTY}",
            "path": None,
            "hash": "d" * 16,
            "modalities": ["accel", "view", NASTY],
            "classes": CLASSES,
            "rows": {"train": 700, "val": 150, "test": 150},
            "ignored_keys": ["note"],
        },
        "profile": {**PROFILE.to_dict()},
        "budgets": {
            "ram_bytes": PROFILE.ram_budget_bytes,
            "flash_bytes": PROFILE.flash_budget_bytes,
            "latency_ms": 50.0,
            "latency_is_limit": True,
            "weight_bytes": None,
        },
        "space": "conv",
        "sampler": "ehvi",
        "objectives": ["error", "ram", "flash", "latency"],
        "metric": "accuracy",
        "teacher": {"kind": "conv", "hash": "e" * 16, "val_score": 0.97, "test_score": 0.96,
                    "parameters": 123456, "size_bytes": 493824},
        "distil": "logits",
        "trials": {"trained": 8, "stopped": 2, "duplicate": 1, "infeasible": 3, "failed": 1},
        "hypervolume": 0.5,
        "hypervolume_reference": {"error": 1.0, "ram": 1.0, "flash": 1.0, "latency": 1.0},
        "seed_deviation": 0.004,
        "notes": [f"A note about {NASTY}"],
    }  # fmt: skip


def made_up_verdict(name: str, ram_bytes: int, flash_bytes: int, cycles: int) -> Verdict:
    """What was measured is given; predicted were 66 bytes more RAM, 100 more Flash, 5 % less
    cycles."""
    return Verdict(
        id=name,
        runtime="cortex-m4-emulated",
        inputs=64,
        outputs_compared=256,
        outputs_differing=0,
        predicted_ram_bytes=ram_bytes + 66,
        measured_ram_bytes=ram_bytes,
        predicted_flash_bytes=flash_bytes + 100,
        measured_flash_bytes=flash_bytes,
        stack_bytes=500,
        instructions=45_678,
        predicted_cycles=0.95 * cycles,
        modelled_cycles=cycles,
        compiler="zig 0.1",
        device="cortex-m4-32k",
        core_cycles=cycles - 2 * 1_500,
        data_misses=500,
        code_misses=1_000,
        wait_states=2,
        largest_difference=0,
        argmax_agreement=1.0,
        difference=None,
    )


def verdict(number: int) -> Verdict:
    """verdict.json of a candidate; another compiler than the name says."""
    _, _, cost = costed(number)
    name = architecture_id(student(number))
    sizes = cost.ram_bytes - 66, cost.flash_bytes - 100
    found = made_up_verdict(name, *sizes, round(cost.cycles / 0.95))
    stack = sizes[0] - cost.arena_bytes - 36
    return replace(found, stack_bytes=stack, compiler=f"zig {NASTY}")


def proof(number: int, verified: str) -> dict[str, Any]:
    """verification.json."""
    runtime = {
        "runtime": "onnxruntime model_integer.onnx",
        "compared": 600,
        "differing": 0,
        "largest_difference": 0,
        "argmax_agreement": 1.0,
        "note": NASTY,
    }
    return {
        "id": architecture_id(student(number)),
        "inputs": 150,
        "verified": verified,
        "runtimes": [runtime],
        "tflm_arena_bytes": 4752,
        "tflite_bytes": 7536,
        "failure": "" if verified == "emulated" else f"no compiler {NASTY}",
    }


def write_run(run: Path, candidates: int = 5, trained: int = 8) -> Path:
    """A run folder: the first was not run on the emulated chip, the last was not verified."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "run.json", manifest())
    last = candidates - 1
    low = min(0.9, 0.98 - 0.01 * candidates)
    verified = ["host", *["emulated"] * (candidates - 2), "no"][-candidates:]
    rows = [front_row(i, low + 0.01 * i, verified[i]) for i in range(candidates)]
    write_front(run, rows)
    records = [trial(i, "trained", 0.9 + 0.01 * (i % 6)) for i in range(trained)]
    records.append(trial(2, "duplicate", 0.92))
    records += [
        trial(20 + i, "infeasible", None, REASON.format(n=n), n)
        for i, n in enumerate((40000, 57344, 40002))
    ]
    records.append(trial(23, "failed", None, "diverged"))
    records += [trial(number, "stopped", None, "halfway") for number in (24, 25)]
    write_trials(run, records)
    for i, row in enumerate(rows):
        home = run / "candidates" / row["id"]
        write_json(home / "architecture.json", architecture(i))
        (home / "model & more.onnx").write_bytes(b"onnx")
        if i != last:
            write_json(home / "verification.json", proof(i, verified[i]))
        if verified[i] == "emulated":
            write_json(home / "verdict.json", verdict(i).to_json())
    return run
