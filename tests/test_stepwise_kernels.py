"""Kernels that keep a state: fed frame by frame, on the chip and here, equal to the reference.

Whole models that run step by step are in test_emulate_steps.
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from bundles import bench, planned, put
from host_kernels import Buffer, library, structure
from integer_models import STEPWISE_CASES, single
from sequence_graphs import random_sequence

from nas.deploy.calls import Emitter, calls_of
from nas.emulation.emulator import Machine
from nas.export.emulate import ARENA, PREFIX, link
from nas.hardware.cost import estimate
from nas.hardware.profile import load_profile
from nas.hardware.program import Program
from nas.network import reference
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.op_rules import OPS
from nas.network.ops import STREAMING, History, Op, Running, SelectiveScan, size
from nas.network.random_model import random_inputs
from nas.network.streaming import stepping

Frame = Mapping[str, Int8]  # (1, height, width, channels) by input


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def first_states(model: IntegerModel, program: Program) -> list[tuple[int, bytes]]:
    """(offset in the arena, bytes) of every state before the first run."""
    found = []
    for op in program.ops:
        if op.name not in program.state_offsets:
            continue
        shapes = program.graph.input_shapes(op), program.graph.shapes[op.name]
        count = OPS[type(op)].state_bytes(op, *shapes)
        value = 0
        if isinstance(op, History):
            value = model.scales[op.name].zero_point
        elif isinstance(op, Running) and op.function == "max":
            value = -128
        found.append((program.state_offsets[op.name], np.full(count, value, np.int8).tobytes()))
    return found


def on_the_chip(
    model: IntegerModel, frames: Sequence[Frame], folder: Path, cache: Path, has_fpu: bool
) -> list[Int8]:
    """The output after each frame."""
    program, chip = planned(model.graph), bench(cache, has_fpu)
    put(folder / "c", model, dict(frames[0]), program)
    elf, output = folder / "steps.elf", model.graph.output
    memory = link(folder / "c", program.memory_bytes, [f"{PREFIX}_run"], chip, elf)
    with Machine(elf, memory, has_fpu=has_fpu, cache=cache) as machine:
        arena = machine.image.symbol(ARENA).address
        writes = first_states(model, program)
        found = []
        for frame in frames:
            writes += [(program.plan.offsets[n], held.tobytes()) for n, held in frame.items()]
            shape = model.graph.shapes[output]
            returned = machine.run(
                f"{PREFIX}_run",
                (ARENA,),
                writes=[(arena + at, data) for at, data in writes],
                reads=[(arena + program.plan.offsets[output], size(shape))],
            )
            found.append(np.frombuffer(returned.outputs[0], np.int8).reshape(shape))
            writes = []
    return found


@pytest.mark.parametrize(("op", "shapes"), STEPWISE_CASES, ids=lambda held: str(held)[:50])
def test_one_operator_on_the_chip(
    op: Op, shapes: list[tuple[int, ...]], tmp_path: Path, cache: Path
) -> None:
    rng = np.random.default_rng(0)
    model = single(op, shapes, rng)
    frames = [random_inputs(model.graph, 1, rng) for _ in range(5)]
    step = reference.KERNELS[type(op)](model, op, "double")
    expected = [step(*(frame[name] for name in op.inputs))[0] for frame in frames]
    got = on_the_chip(model, frames, tmp_path, cache, has_fpu=True)
    assert all((a == b).all() for a, b in zip(got, expected, strict=True))


def test_states_lie_behind_the_workspace_and_are_counted() -> None:
    made = stepping(random_sequence(random.Random(5), "mamba"))
    program = planned(made.graph)
    assert program.state_offsets and min(program.state_offsets.values()) == program.workspace.bytes
    assert all(offset % 4 == 0 for offset in program.state_offsets.values())
    padded = program.memory_bytes - program.workspace.bytes
    assert made.state_bytes <= padded < made.state_bytes + 4 * len(program.state_offsets)
    cost = estimate(program, load_profile("cortex-m4-64k"))
    assert cost.ram_bytes > program.memory_bytes


def test_how_states_begin() -> None:
    """What the C says is what this test writes, and what an operator without a state lacks."""
    for op, shapes in STEPWISE_CASES:
        model = single(op, shapes, np.random.default_rng(0))
        program = planned(model.graph)
        calls = calls_of(Emitter(model, program), op, "op1")
        ((offset, data),) = first_states(model, program)
        value = int(np.frombuffer(data, np.int8)[0])
        assert calls.resets == (f"NAS(fill)(a + {offset}, {value}, {len(data)});",)
        assert calls.reset_functions == ("fill",)
    assert {type(op) for op, _ in STEPWISE_CASES} == {*STREAMING, SelectiveScan}


@pytest.mark.parametrize("function", ["average", "max"])
@pytest.mark.parametrize("channels", [1, 5, 8])
def test_running_here(function: str, channels: int) -> None:
    rng = np.random.default_rng(channels)
    x = rng.integers(-128, 128, (4, 3, channels)).astype(np.int8)  # frames, steps, channels
    first = np.zeros(channels, np.int32) if function == "average" else np.full(channels, -128)
    state = Buffer(first.astype(np.int32 if function == "average" else np.int8).tobytes())
    running, y = structure([], "2HI", 3, channels, 12), Buffer(bytes(channels))
    kernel = getattr(library("running.c"), f"test_running_{function}")
    for frame in range(4):
        source = Buffer(x[frame].tobytes())
        kernel(running.address, source.address, y.address, state.address)
        seen = x[: frame + 1].reshape(-1, channels).astype(np.int64)
        total = seen.sum(0)
        expected = np.sign(total) * ((np.abs(total) + 6) // 12)
        assert (y.int8() == (expected if function == "average" else seen.max(0))).all()


@pytest.mark.parametrize("states", [1, 2, 5, 8])
def test_a_carried_scan_here(states: int) -> None:
    """In one run, and in one run a step: the same output and the same state."""
    rng = np.random.default_rng(states)
    steps, channels = 6, 3
    wide = [rng.integers(-128, 128, (steps, channels)).astype(np.int8) for _ in range(3)]
    narrow = [rng.integers(-128, 128, (steps, states)).astype(np.int8) for _ in range(2)]
    decay = Buffer(np.linspace(32767, 0, 256).astype(np.int16).tobytes())
    skip = Buffer(rng.integers(-20000, 20000, channels).astype(np.int32).tobytes())
    kernel = library("selective_scan.c").test_selective_scan

    def run(count: int, held: list[Int8], state: Buffer) -> Int8:
        sizes = (count, channels, states, 3, 1 << 30, -5, 1 << 30, -8)
        scan = structure([decay, skip], "3Hbx4i", *sizes)
        u, dt, z, b, c = (Buffer(x.tobytes()) for x in held)
        scratch = Buffer(bytes(4))
        kernel(*(held.address for held in (scan, u, dt, b, c, z, u, scratch, state)))
        return u.int8()

    whole, stepwise = (Buffer(bytes(2 * channels * states)) for _ in range(2))
    at_once = run(steps, [*wide, *narrow], whole)
    one_by_one = [run(1, [x[i : i + 1] for x in (*wide, *narrow)], stepwise) for i in range(steps)]
    assert (at_once == np.concatenate(one_by_one)).all()
    assert (whole.int8() == stepwise.int8()).all() and whole.int8().any()
