"""Calibration: coefficients found again, calls told apart, predictions that hold."""

import random
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from nas.calibration import measure
from nas.calibration.fit import Sample, fit_function, non_negative
from nas.calibration.measure import measured, roomy
from nas.calibration.samples import KINDS, calibration_graph, single_operator
from nas.calibration.table import CoreTable, to_toml
from nas.deploy.toolchain import cache_folder, find_compiler
from nas.errors import CalibrationError
from nas.export.emulate import Bench, run_model
from nas.hardware.budget import Budget, price
from nas.hardware.cost import kernel_costs
from nas.hardware.profile import load_profile
from nas.hardware.work import Work
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d, Op, Pool
from nas.network.random_model import random_inputs, with_random_numbers
from nas.space import Problem, RandomTrial, Sensor
from search_spaces import SPACES

DEVICE = load_profile("cortex-m4-64k")
WATCH = Problem((Sensor("accel", "series", (1, 100, 3)), Sensor("photo", "image", (16, 16, 1))), 5)


def bench(core: str = "cortex-m4") -> Bench:
    return Bench(roomy(replace(DEVICE, core=core)), find_compiler(), cache_folder())


def test_coefficients_are_found_again() -> None:
    rng = random.Random(0)
    samples = []
    for _ in range(40):
        rows, values = rng.randint(1, 50), rng.randint(1, 2000)
        cycles = 100 + 20 * rows + 3 * values
        samples.append(
            Sample("k", {"row": rows, "value": values}, values / 8, cycles, values // 8, 9)
        )
    fit = fit_function(samples)
    assert fit.cycles == pytest.approx({"call": 100, "row": 20, "value": 3}, rel=1e-3)
    for sample in samples:
        terms = {"call": 1.0, **sample.quantities}
        misses = sum(value * terms[name] for name, value in fit.code_misses.items())
        assert misses == pytest.approx(9, rel=0.01)
    assert fit.data_misses[1] == pytest.approx(1, rel=0.05)
    assert fit.samples == 40 and fit.error_p95 < 1e-3
    # What the quantities do not explain shows as an error of calls left out.
    odd = [replace(s, cycles=s.cycles * (1 + i % 2)) for i, s in enumerate(samples)]
    assert fit_function(odd).error_mean > 0.1
    assert non_negative(np.array([[1.0], [1.0]]), np.array([-1.0, -2.0])).tolist() == [0.0]


def test_a_program_has_every_kind_and_never_the_same_sizes() -> None:
    rng = random.Random(0)
    first, second = calibration_graph(rng), calibration_graph(rng)
    assert first != second
    assert len(first.ops) >= len(KINDS)
    assert {type(op) for op in first.ops} == set(get_args(Op))


def test_calls_are_measured_one_by_one() -> None:
    ops: tuple[Op, ...] = (
        Conv2d("a", ("x",), 8, (3, 3), (1, 1), "same", 8, True),
        Pool("b", ("a",), "max", (2, 2), (2, 2)),
        Conv2d("o", ("b",), 4, (1, 1), (1, 1), "valid", 4, False),
    )
    linked = measured(Graph((Input("x", (8, 8, 3)),), ops, "o"), bench(), 0)
    assert [sample.function for sample in linked.samples] == ["conv_8", "max_pool", "conv_4"]
    macs = (64 * 8 * 27, 0, 16 * 4 * 8)
    assert all(s.cycles > m for s, m in zip(linked.samples, macs, strict=True))
    assert linked.samples[0].cycles > linked.samples[2].cycles > 0
    assert {"conv_8", "gemm_8", "max_pool", "gemm_4"} <= set(linked.code_bytes)
    assert linked.stack_bytes > linked.frame_bytes > 0
    assert 0 < linked.constant_bytes < 400 and linked.run_bytes > 0


def test_other_calls_than_expected_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    op = Conv2d("o", ("x",), 4, (1, 1), (1, 1), "valid", 8, False)
    graph = Graph((Input("x", (4, 4, 3)),), (op,), "o")
    monkeypatch.setattr(measure, "work_of", lambda op, program: [Work("conv_8", {})] * 3)
    with pytest.raises(CalibrationError, match="1 calls were measured, 3 expected"):
        measured(graph, bench(), 0)


def test_the_table_reads_back(tmp_path: Path) -> None:
    rows = {
        "program": {"flash_bytes": 64, "core": "fpu"},
        "code_bytes": {"add": 520},
        "kernels": {
            "add": {"samples": 3, "needs": ["add"], "cycles": {"call": 1.5, "value": 20.0}}
        },
    }
    text = to_toml({"source": 'a "quoted" one'}, {"fpu": CoreTable(rows, {})})
    assert tomllib.loads(text) == {"source": 'a "quoted" one', "fpu": rows}


def test_the_committed_table_is_of_the_pinned_compiler() -> None:
    pins = (Path(__file__).parents[1] / "constraints.txt").read_text().split()
    (pin,) = [line.split("==")[1] for line in pins if line.startswith("ziglang==")]
    assert kernel_costs()["compiler"] == f"zig {pin}"
    for core in ("fpu", "no_fpu"):
        kernels = kernel_costs()[core]["kernels"]
        errors = [row["error_mean"] for row in kernels.values() if row["samples"] >= 20]
        assert np.mean(errors) < 0.03


@pytest.mark.parametrize("seed", range(6))
def test_predictions_of_architectures_that_no_calibration_saw(seed: int) -> None:
    """The short form of benchmarks/linked.py."""
    rng = random.Random(seed)
    device = replace(DEVICE, core="cortex-m4f") if seed % 2 else DEVICE
    budget = Budget(device.ram_budget_bytes, device.flash_budget_bytes, None, None)
    while True:
        priced = price(SPACES["conv"].sample(RandomTrial(rng), WATCH).lower(), device)
        if not budget.refusal(priced.cost) and priced.cost.cycles < 2e6:
            break
    numbers = np.random.default_rng(seed)
    model = with_random_numbers(priced.graph, numbers, odd_zeros=False)
    inputs = random_inputs(priced.graph, 4, numbers)
    got = run_model(model, priced.program, inputs, replace(bench(), profile=device))
    assert (got.outputs == reference.run(model, inputs)).all()
    over = priced.cost.ram_bytes - got.ram_bytes
    assert 0 <= over <= max(128, 0.02 * got.ram_bytes)
    off = abs(priced.cost.flash_bytes - got.image.flash_bytes)
    assert off <= max(256, 0.01 * got.image.flash_bytes)
    cycles = got.measurement.total.cycles_at(device.flash_wait_states)
    assert priced.cost.cycles == pytest.approx(cycles, rel=0.15)


def test_single_operators_are_single() -> None:
    rng = random.Random(1)
    for _ in range(20):
        graph = single_operator(rng)
        assert [op.name for op in graph.ops] == ["op0"]
