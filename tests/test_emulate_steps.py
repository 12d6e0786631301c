"""The stepwise bundle: on this machine under sanitizers, and on the emulated chip."""

import random
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sequence_graphs import Family, random_sequence

from nas.deploy.toolchain import cache_folder, compile_host, find_compiler, find_host_compiler
from nas.export.bundle import step_bundle, write_c
from nas.export.emulate import PREFIX, UNNAMED, Bench
from nas.export.emulate_steps import StepVerdict, emulate_steps
from nas.hardware.memory import plan_memory
from nas.hardware.profile import load_profile
from nas.hardware.program import program_of
from nas.hardware.stepwise import COUNTER_BYTES, Stepwise, stepwise
from nas.network.random_model import random_inputs, with_random_numbers
from nas.network.streaming import stepping

PROFILE = load_profile("cortex-m4-32k")


def written(seed: int, family: Family, folder: Path) -> tuple[Stepwise, Callable[[], StepVerdict]]:
    """A random model's stepwise bundle in `folder`, and what runs it on the emulated chip."""
    graph, rng = random_sequence(random.Random(seed), family), np.random.default_rng(seed)
    model, made = with_random_numbers(graph, rng, odd_zeros=False), stepping(graph)
    inputs = random_inputs(graph, 3, rng)
    program = program_of(made.graph, plan_memory(made.graph), PROFILE.flash_wait_states)
    held = Stepwise(made, program, 0, 0, 0.0, 0.0)
    write_c(folder, step_bundle(model, held, inputs, UNNAMED))

    def run() -> StepVerdict:
        bench = Bench(PROFILE, find_compiler(), cache_folder())
        return emulate_steps("x", model, held, folder, inputs, bench)

    return held, run


@pytest.mark.parametrize("family", ["mamba", "causal"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_this_machine(family: Family, seed: int, tmp_path: Path) -> None:
    written(seed, family, tmp_path)
    sources = [tmp_path / "main.c", tmp_path / f"{PREFIX}.c"]
    sources += sorted((tmp_path / "kernels").glob("*.c"))
    program = tmp_path / "check"
    compile_host(
        find_host_compiler(),
        sources,
        program,
        cache=cache_folder(),
        include=[tmp_path],
        sanitize=True,
        options=["-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror"],
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("family", ["mamba", "causal"])
def test_on_the_emulated_chip(family: Family, tmp_path: Path) -> None:
    held, run = written(5, family, tmp_path)
    verdict = run()
    assert verdict.outputs_differing == 0 and verdict.outputs_compared > 0
    assert verdict.window_steps == held.made.frames > 1
    assert verdict.memory_bytes == held.program.memory_bytes + COUNTER_BYTES
    assert verdict.measured_ram_bytes == -(-verdict.memory_bytes // 4) * 4 + verdict.stack_bytes
    assert 0 < verdict.step_cycles < verdict.last_step_cycles
    assert held.made.state_bytes < verdict.memory_bytes


def test_a_state_that_is_not_cleared_is_seen(tmp_path: Path) -> None:
    """Windows after the first one would begin with what the one before has left."""
    _, run = written(5, "mamba", tmp_path)
    source = tmp_path / f"{PREFIX}.c"
    text = source.read_text()
    assert "if (*steps == 0u) {" in text
    source.write_text(text.replace("if (*steps == 0u) {", "if (*steps == 999u) {"))
    assert run().outputs_differing > 0


def test_a_window_of_another_length_is_seen(tmp_path: Path) -> None:
    held, run = written(5, "causal", tmp_path)
    source, last = tmp_path / f"{PREFIX}.c", held.made.frames - 1
    text = source.read_text()
    assert f"*steps == {last}u" in text
    source.write_text(text.replace(f"*steps == {last}u", f"*steps == {last - 1}u"))
    assert run().outputs_differing == run().outputs_compared


def test_a_form_that_the_device_does_not_hold_is_not_offered() -> None:
    """It would be written, not link, and take the candidate's proof with it."""
    graph = random_sequence(random.Random(5), "mamba")
    held = stepwise(graph, PROFILE)
    assert held is not None
    for room, need in (("ram", held.ram_bytes), ("flash", held.flash_bytes)):
        reserved = getattr(PROFILE, f"{room}_reserved_bytes")
        exactly = replace(PROFILE, **{f"{room}_bytes": reserved + need})
        assert stepwise(graph, exactly) == held
        less = replace(PROFILE, **{f"{room}_bytes": reserved + need - 1})
        assert stepwise(graph, less) is None
