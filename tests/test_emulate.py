"""Every operator's C on the emulated chip, and on this machine under sanitizers: equal bytes."""

import random
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import bench, extreme_inputs, merged, planned, put, small_graph
from integer_models import OPERATOR_CASES, RICH_CASES, TWO, random_model, single, with_ties
from sequence_graphs import FAMILIES, random_sequence

from nas.deploy.toolchain import Compiler, compile_host, find_host_compiler
from nas.errors import ToolMissing
from nas.export.emulate import Verdict, emulate, find_difference, run_bundle
from nas.hardware.program import Program
from nas.network import reference
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.ops import Add, Attention, Mul, SelectiveScan
from nas.network.random_model import with_random_numbers

AT_ONCE = 26  # operators of one program


CASES = OPERATOR_CASES + RICH_CASES
# Every program holds a bit of each kind.
PROGRAMS = [CASES[i :: -(-len(CASES) // AT_ONCE)] for i in range(-(-len(CASES) // AT_ONCE))]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for compilers' own files; zig compiles a kernel at one path only once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundle")


def spread(model: IntegerModel, rng: np.random.Generator) -> IntegerModel:
    """Some channels' factors are raised up to 64 times: requantisation then shifts to the left."""
    weights = {}
    for name, held in model.weights.items():
        raised = rng.choice((1, 1, 4, 64), held.scales.shape).astype(np.float32)
        weights[name] = replace(held, scales=held.scales * raised)
    return replace(model, weights=weights)


def program_with(number: int) -> tuple[IntegerModel, Program, dict[str, Int8]]:
    rng = np.random.default_rng(number)
    model = spread(merged(PROGRAMS[number], rng), rng)
    program = planned(model.graph, stages=number % 2 == 1)
    return model, program, extreme_inputs(model.graph, rng, 1)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_operators_on_the_chip(number: int, cache: Path, place: Path) -> None:
    model, program, inputs = program_with(number)
    if number < 2:
        assert bool(program.workspace.staged_bytes) == (number == 1)
    folder = put(place, model, inputs, program)
    found = find_difference(model, program, folder, inputs, bench(cache, number % 3 == 0))
    assert found is None, str(found)


def random_of(number: int) -> IntegerModel:
    """A random model: of images and series, or of a family of series alone."""
    rng = np.random.default_rng(100 + number)
    if number < 3:
        return random_model(rng, 8)
    graph = random_sequence(random.Random(number), FAMILIES[number % 3])
    return with_random_numbers(graph, rng)


@pytest.mark.parametrize("number", range(12))
def test_random_models_on_the_chip(number: int, cache: Path, place: Path) -> None:
    rng, model = np.random.default_rng(number), random_of(number)
    inputs = extreme_inputs(model.graph, rng, 1)
    program = planned(model.graph)
    folder = put(place, model, inputs, program)
    chip = bench(cache, number % 2 == 1)
    assert (run_bundle(folder, program, inputs, chip).outputs == reference.run(model, inputs)).all()
    found = find_difference(model, program, folder, inputs, chip)
    assert found is None, str(found)


def test_a_verdict(cache: Path, place: Path) -> None:
    rng = np.random.default_rng(7)
    model = with_random_numbers(small_graph(("accel", "gyro")), rng, odd_zeros=False)
    inputs, program = extreme_inputs(model.graph, rng, 4), planned(model.graph)
    chip = bench(cache, has_fpu=True)
    verdict = emulate("x", model, program.plan, put(place, model, inputs), inputs, chip)
    assert verdict.difference is None and verdict.outputs_differing == 0
    assert (verdict.inputs, verdict.outputs_compared) == (7, 7 * 3)
    assert verdict.argmax_agreement == 1.0 and verdict.largest_difference == 0
    assert 0 < verdict.stack_bytes <= 1024
    assert verdict.measured_ram_bytes == program.workspace.bytes + verdict.stack_bytes
    assert verdict.core_cycles > verdict.instructions > 1000
    misses = verdict.data_misses + verdict.code_misses
    assert verdict.modelled_cycles == verdict.core_cycles + chip.profile.flash_wait_states * misses
    assert (verdict.device, verdict.compiler) == (chip.profile.name, chip.compiler.version)
    assert Verdict(**verdict.to_json()) == verdict


def test_roundings_on_the_chip(cache: Path, place: Path) -> None:
    """Additions and products at scales at which every second sum is a tie."""
    values = np.arange(-128, 128, dtype=np.int8)
    inputs = {"in0": np.repeat(values, 256), "in1": np.tile(values, 256)}
    kinds: tuple[type[Add] | type[Mul], ...] = (Add, Mul)
    for kind in kinds:
        for model in with_ties(kind, 4096):
            assert tuple(i.name for i in model.graph.inputs) == TWO
            rows = {name: held.reshape(16, 1, 1, 4096) for name, held in inputs.items()}
            program = planned(model.graph)
            folder = put(place, model, rows, program)
            found = find_difference(model, program, folder, rows, bench(cache))
            assert found is None, str(found)


@pytest.mark.parametrize("part", ["o/scores", "o/sum", "o"])
def test_factors_of_one_and_more_on_the_chip(part: str, cache: Path, place: Path) -> None:
    """Scales so small that nearly all is cut: paths that no trained model takes."""
    rng = np.random.default_rng(0)
    five = tuple(f"in{i}" for i in range(5))
    series = (1, 9, 8)
    for op in (Attention("o", five[:3], 2), SelectiveScan("o", five, False)):
        for scale in (2e-4, 1e-5):
            model = single(op, [series] * len(op.inputs), rng)
            if part not in model.scales:
                continue
            held = replace(model.scales[part], scale=float(np.float32(scale)))
            model = replace(model, scales={**model.scales, part: held})
            inputs, program = extreme_inputs(model.graph, rng, 2), planned(model.graph)
            folder = put(place, model, inputs, program)
            found = find_difference(model, program, folder, inputs, bench(cache))
            assert found is None, str(found)


# ---------------------------------------------------------------- on this machine

STEPS = r"""
/* Runs up to each operator in turn, in an arena between guards, and compares what it left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

extern volatile uint32_t model_steps;

int main(int count, char **words) {
    FILE *file = fopen(words[1], "rb");
    uint32_t header[3]; /* operators, or 0 at the end; bytes */
    (void)count;
    while (fread(header, 4, 3, file) == 3) {
        void *arena = malloc(MODEL_ARENA_BYTES);
        int8_t *wanted = malloc(header[2]);
        memset(arena, 0xA5, MODEL_ARENA_BYTES);
        for (uint32_t place[2]; fread(place, 4, 2, file) == 2 && place[1];) {
            if (fread((int8_t *)arena + place[0], 1, place[1], file) != place[1]) return 2;
        }
        if (fread(wanted, 1, header[2], file) != header[2]) return 2;
        model_steps = header[0];
        model_run(arena);
        if (memcmp((int8_t *)arena + header[1], wanted, header[2])) {
            printf("operator %u differs\n", (unsigned)header[0]);
            return 1;
        }
        free(wanted);
        free(arena);
    }
    fclose(file);
    puts("equal");
    return 0;
}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Compiler]:
    compiler = find_host_compiler()
    if compiler.family == "zig":
        with pytest.raises(ToolMissing, match="no address sanitizer"):
            compile_host(compiler, [], Path("out"), cache=Path("cache"), sanitize=True)
        pytest.skip("sanitizers need gcc or clang")
    yield compiler


def records(model: IntegerModel, program: Program, inputs: dict[str, Int8]) -> bytes:
    """For each input and each operator: its number, all inputs and the output that it must give."""
    found = []
    for row in range(len(next(iter(inputs.values())))):
        one = {name: values[row : row + 1] for name, values in inputs.items()}
        tensors = reference.trace(model, one)
        held = [(program.plan.offsets[name], v.tobytes()) for name, v in one.items()]
        given = b"".join(np.array([at, len(data)], "<u4").tobytes() + data for at, data in held)
        for step, op in enumerate(program.ops, 1):
            wanted = tensors[op.name].tobytes()
            head = np.array([step, program.plan.offsets[op.name], len(wanted)], "<u4").tobytes()
            found.append(head + given + bytes(8) + wanted)
    return b"".join(found)


def build_host(
    folder: Path, main: Path, out: Path, compiler: Compiler, defines: Sequence[str] = ()
) -> None:
    kernels = sorted((folder / "kernels").glob("*.[cS]"))
    sources = [main, folder / "model.c", *kernels]
    compile_host(
        compiler, sources, out, cache=out.parent, include=[folder], defines=defines, sanitize=True
    )


def test_operators_under_sanitizers(host: Compiler, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    model = spread(merged(CASES, rng), rng)
    program = planned(model.graph)
    inputs = extreme_inputs(model.graph, rng, 1)
    folder = put(tmp_path / "c", model, inputs, program)
    (tmp_path / "steps.c").write_text(STEPS)
    build_host(folder, tmp_path / "steps.c", tmp_path / "steps", host, ["MODEL_STEPS"])
    (tmp_path / "records").write_bytes(records(model, program, inputs))
    done = subprocess.run(
        [tmp_path / "steps", tmp_path / "records"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal\n", done.stderr


def test_random_models_under_sanitizers(host: Compiler, tmp_path: Path) -> None:
    """The bundle's own main.c is the program."""
    for number in (0, 1, 3, 4, 5):
        rng, model = np.random.default_rng(200 + number), random_of(number)
        inputs = {name: values[1:3] for name, values in extreme_inputs(model.graph, rng, 2).items()}
        folder = put(tmp_path / "c", model, inputs)
        build_host(folder, folder / "main.c", tmp_path / "check", host)
        done = subprocess.run([tmp_path / "check"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
