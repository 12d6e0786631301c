"""Runs calibration programs on the emulated chip and reads what each call and kernel took."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from nas.calibration.fit import Sample
from nas.calibration.samples import calibration_graph, small_graph
from nas.emulation.elf import STARTUP, Image
from nas.errors import CalibrationError
from nas.export.emulate import PREFIX, Bench, run_model
from nas.hardware.cost import constant_bytes
from nas.hardware.memory import plan_memory
from nas.hardware.profile import Profile
from nas.hardware.program import Program, program_of
from nas.hardware.work import Work, work_of
from nas.network.graph import Graph
from nas.network.random_model import random_inputs, with_random_numbers

SMALL_PROGRAMS = 40
ROOM_BYTES = 4 << 20  # calibration programs need no small device


@dataclass(frozen=True, slots=True)
class Linked:
    """What one program showed.

    Attributes:
        calls: the kernel calls of its model, in order.
        samples: what each call took.
        code_bytes: bytes of every function that was linked, rounded up to words, by name without
            the prefix.
        run_bytes: of the model's own function, which makes the calls.
        constant_bytes: everything else in Flash, without weights and descriptors.
        stack_bytes: high-water mark.
        frame_bytes: of it what the model's own function took while it called kernels.
    """

    calls: tuple[Work, ...]
    samples: tuple[Sample, ...]
    code_bytes: Mapping[str, int]
    run_bytes: int
    constant_bytes: int
    stack_bytes: int
    frame_bytes: int


def roomy(profile: Profile) -> Profile:
    """The same core with memory for any calibration program."""
    return replace(
        profile,
        ram_bytes=ROOM_BYTES,
        flash_bytes=ROOM_BYTES,
        ram_reserved_bytes=0,
        flash_reserved_bytes=0,
    )


def calibration_programs(bench: Bench, count: int, seed: int) -> Iterator[Linked]:
    """`count` programs of random operators, measured one after another."""
    rng = random.Random(seed)
    for number in range(count):
        graph = calibration_graph(rng)
        yield measured(graph, bench, number, staging_bytes=rng.choice((0, ROOM_BYTES // 8)))


def small_programs(bench: Bench, seed: int) -> Iterator[Linked]:
    """Programs of the size of real ones, for the bytes that their calls take."""
    rng = random.Random(f"small {seed}")
    for number in range(SMALL_PROGRAMS):
        yield measured(small_graph(rng), bench, number, rng.choice((0, ROOM_BYTES // 8)))


def measured(graph: Graph, bench: Bench, seed: int, staging_bytes: int = 0) -> Linked:
    """One program with random numbers, measured call by call.

    Raises:
        CalibrationError: the generated source makes other calls than `hardware.work` says.
    """
    rng = np.random.default_rng(seed)
    program = program_of(graph, plan_memory(graph), bench.profile.flash_wait_states, staging_bytes)
    model = with_random_numbers(graph, rng, odd_zeros=False)
    got = run_model(model, program, random_inputs(graph, 1, rng), bench, by_call=True)
    measurement, image = got.measurement, got.image
    calls = tuple(work for op in program.ops for work in work_of(op, program))
    # After the last call the model's own function returns, or that call was a jump and did it.
    if len(measurement.parts) - len(calls) not in (0, 1):
        raise CalibrationError(
            f"{len(measurement.parts)} calls were measured, {len(calls)} expected: hardware/work.py"
            " and deploy/calls.py must make the same calls"
        )
    samples = tuple(
        Sample(
            work.function,
            work.quantities,
            work.flash_parts,
            part.cycles,
            part.data_misses,
            part.code_misses,
        )
        for work, part in zip(calls, measurement.parts, strict=False)
    )
    # A program whose only call is a jump has left its own frame before.
    jumped = len(calls) == 1 and len(measurement.parts) == 1
    frame = 0 if jumped else image.frame_bytes(f"{PREFIX}_run")
    return Linked(calls, samples, *_bytes(image, program), measurement.stack_bytes, frame)


def _bytes(image: Image, program: Program) -> tuple[dict[str, int], int, int]:
    """Code by function, of the model's own function, and what the rest takes."""
    held: dict[str, int] = {}
    for symbol in image.functions:
        name = symbol.name.removeprefix(f"{PREFIX}_")
        if name in STARTUP:  # what every program has
            continue
        held[name] = held.get(name, 0) + -(-symbol.size // 4) * 4
    run = held.pop("run")
    known = sum(constant_bytes(op, program.kernels[op.name]) for op in program.ops)
    rest = image.flash_bytes - sum(held.values()) - run - known
    return held, run, rest
