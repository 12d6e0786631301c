"""Proof on the chip's own instructions: a candidate's C, linked, run on an emulated Cortex-M4.

The folder `c/` as it lies on disk is compiled into a program inside the budget that the profile
leaves, run with real inputs, and compared with the integer reference byte for byte. Bytes and
instructions are measured; cycles are modelled (`nas.emulation.cycles`).
"""

import contextlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from nas.deploy.c_bundle import Description, c_bundle
from nas.deploy.toolchain import Compiler, Memory, compile_firmware
from nas.emulation.elf import Image
from nas.emulation.emulator import Machine, Measurement
from nas.errors import BuildError, MachineFault
from nas.hardware.cost import Cost, estimate
from nas.hardware.memory import MemoryPlan
from nas.hardware.profile import Profile
from nas.hardware.program import Program, program_of
from nas.network import reference
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.ops import size

PREFIX = "model"  # of a candidate's bundle, unless it was written again with another
ARENA = "firmware_arena"
RUNTIME = "cortex-m4-emulated"
UNNAMED = Description("A model", (), {})


@dataclass(frozen=True, slots=True)
class Difference:
    """The first byte at which the C and the reference part."""

    operator: str
    input: int
    index: int
    c: int
    reference: int

    def __str__(self) -> str:
        return (
            f"input {self.input}: {self.operator}, element {self.index}: the C gives {self.c}, the"
            f" reference {self.reference}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the emulated chip showed of one candidate; the fields of verdict.json.

    Attributes:
        stack_bytes: high-water mark of the painted stack.
        instructions: of one inference, exact.
        modelled_cycles: of one inference at the profile's wait states.
        core_cycles: of them those at 0 wait states.
        data_misses: 8-byte reads from Flash that its data cache did not hold.
        code_misses: the same for instructions.
        largest_difference: of one output, in integer steps.
        argmax_agreement: share of inputs with the same class.
        difference: where C and reference part first; None when they do not, or not found.
    """

    id: str
    runtime: str
    inputs: int
    outputs_compared: int
    outputs_differing: int
    predicted_ram_bytes: int
    measured_ram_bytes: int
    predicted_flash_bytes: int
    measured_flash_bytes: int
    stack_bytes: int
    instructions: int
    predicted_cycles: float
    modelled_cycles: int
    compiler: str
    device: str
    core_cycles: int
    data_misses: int
    code_misses: int
    wait_states: int
    largest_difference: int
    argmax_agreement: float
    difference: Difference | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in verdict.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Bench:
    """What candidates are compiled with and for; `cache` is a folder for compilers' own files."""

    profile: Profile
    compiler: Compiler
    cache: Path


@dataclass(frozen=True, slots=True)
class Emulated:
    """What a program did: (n, classes) outputs, one measured inference, and how it is linked."""

    outputs: Int8
    measurement: Measurement
    image: Image

    @property
    def ram_bytes(self) -> int:
        """The arena and the stack's high-water mark."""
        return self.image.static_bytes + self.measurement.stack_bytes


def emulate(
    name: str,
    model: IntegerModel,
    plan: MemoryPlan,
    folder: Path,
    inputs: Mapping[str, Int8],
    bench: Bench,
) -> Verdict:
    """Compiles the bundle in `folder`, runs it with `inputs`, and compares.

    Args:
        inputs: (n, height, width, channels) by modality.

    Raises:
        BuildError: the compiler refuses, or the device's budget does not hold the program.
        MachineFault: the program faults, as on a stack overflow.
    """
    program = program_of(model.graph, plan, bench.profile.flash_wait_states)
    expected = reference.run(model, inputs)
    got = run_bundle(folder, program, inputs, bench)
    apart = np.abs(got.outputs.astype(np.int16) - expected)
    differing = int((apart > 0).sum())
    difference = None
    if differing:
        # The outputs do differ, so nothing that keeps the place from being found may hide that:
        # the program that stops after each operator is a little larger.
        with contextlib.suppress(BuildError, MachineFault):
            difference = find_difference(model, program, folder, inputs, bench)
    cost = estimate(program, bench.profile)
    return Verdict(
        id=name,
        runtime=RUNTIME,
        inputs=len(expected),
        outputs_compared=expected.size,
        outputs_differing=differing,
        largest_difference=int(apart.max()),
        argmax_agreement=float((got.outputs.argmax(1) == expected.argmax(1)).mean()),
        difference=difference,
        compiler=bench.compiler.version,
        device=bench.profile.name,
        **_figures(cost, got, bench.profile.flash_wait_states),
    )


def run_model(
    model: IntegerModel,
    program: Program,
    inputs: Mapping[str, Int8],
    bench: Bench,
    by_call: bool = False,
) -> Emulated:
    """Writes a model's bundle to a folder that is gone afterwards, and runs it."""
    with tempfile.TemporaryDirectory(prefix="nas-") as scratch:
        folder = Path(scratch)
        for path, text in c_bundle(model, program, inputs, UNNAMED, PREFIX).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        return run_bundle(folder, program, inputs, bench, by_call)


def run_bundle(
    folder: Path,
    program: Program,
    inputs: Mapping[str, Int8],
    bench: Bench,
    by_call: bool = False,
) -> Emulated:
    """Links the bundle in `folder`, runs it with all inputs, and measures it with the first.

    Args:
        by_call: measure each kernel call by itself (`Measurement.parts`).
    """
    run = f"{prefix_of(folder)}_run"
    with tempfile.TemporaryDirectory(prefix="nas-") as scratch:
        elf = Path(scratch) / "firmware.elf"
        memory = link(folder, program.memory_bytes, [run], bench, elf)
        with Machine(elf, memory, has_fpu=bench.profile.has_fpu, cache=bench.cache) as machine:
            got = _outputs(machine, run, program, inputs)
            measurement = machine.measure(
                run,
                (ARENA,),
                writes=writes(machine, program, inputs, 0),
                reads=[output_place(machine, program)],  # which must be equal in both its runs
                marks=machine.image.returns(run) if by_call else (),
            )
            return Emulated(got, measurement, machine.image)


def prefix_of(folder: Path) -> str:
    """The prefix of the bundle in `folder`.

    Raises:
        BuildError: no bundle is there.
    """
    file = folder / "kernels" / "names.h"
    try:
        found = re.search(r"^#define NAS\(name\) (\w+)_##name$", file.read_text(), re.M)
    except OSError as error:
        raise BuildError(
            f"{file}: cannot be read: {error.strerror}; nas bundle writes it"
        ) from None
    if found is None:
        raise BuildError(f"{file}: names no prefix; nas bundle writes it again")
    return found[1]


def _figures(cost: Cost, got: Emulated, wait_states: int) -> dict[str, Any]:
    total = got.measurement.total
    return {
        "predicted_ram_bytes": cost.ram_bytes,
        "measured_ram_bytes": got.ram_bytes,
        "predicted_flash_bytes": cost.flash_bytes,
        "measured_flash_bytes": got.image.flash_bytes,
        "stack_bytes": got.measurement.stack_bytes,
        "instructions": total.instructions,
        "predicted_cycles": cost.cycles,
        "modelled_cycles": total.cycles_at(wait_states),
        "core_cycles": total.cycles,
        "data_misses": total.data_misses,
        "code_misses": total.code_misses,
        "wait_states": wait_states,
    }


def link(
    folder: Path,
    arena_bytes: int,
    functions: Sequence[str],
    bench: Bench,
    out: Path,
    defines: Sequence[str] = (),
) -> Memory:
    """Links the bundle in `folder` with an arena of its own, in exactly the profile's budget.

    What the arena leaves of the RAM is the stack.

    Args:
        functions: that are called from outside.
    """
    profile, prefix = bench.profile, prefix_of(folder)
    words = -(-arena_bytes // 4)
    left = profile.ram_budget_bytes - 4 * words - 4 * len(defines)
    memory = Memory(profile.flash_budget_bytes, profile.ram_budget_bytes, max(8, left // 8 * 8))
    kernels = folder / "kernels"
    sources = [folder / f"{prefix}.c", *sorted(kernels.glob("*.c")), *sorted(kernels.glob("*.S"))]
    with resources.as_file(resources.files("nas.deploy") / "firmware" / "arena.c") as arena:
        compile_firmware(
            bench.compiler,
            [arena, *sources],
            out,
            memory,
            has_fpu=profile.has_fpu,
            roots=[*functions, ARENA],
            cache=bench.cache,
            include=[folder],
            defines=[f"ARENA_WORDS={words}", *defines],
        )
    return memory


def writes(
    machine: Machine, program: Program, inputs: Mapping[str, Int8], row: int
) -> list[tuple[int | str, bytes]]:
    """Address and bytes of every input."""
    arena = machine.image.symbol(ARENA).address
    return [
        (arena + program.plan.offsets[i.name], inputs[i.name][row].tobytes())
        for i in program.graph.inputs
    ]


def output_place(machine: Machine, program: Program) -> tuple[int, int]:
    """Address and bytes of the logits."""
    output = program.graph.output
    arena = machine.image.symbol(ARENA).address
    return arena + program.plan.offsets[output], size(program.graph.shapes[output])


def _outputs(machine: Machine, run: str, program: Program, inputs: Mapping[str, Int8]) -> Int8:
    """(n, classes) logits of all inputs."""
    shape = program.graph.shapes[program.graph.output]
    rows = []
    for row in range(len(next(iter(inputs.values())))):
        returned = machine.run(
            run,
            (ARENA,),
            writes=writes(machine, program, inputs, row),
            reads=[output_place(machine, program)],
        )
        rows.append(np.frombuffer(returned.outputs[0], np.int8).reshape(shape))
    return np.stack(rows)


def find_difference(
    model: IntegerModel,
    program: Program,
    folder: Path,
    inputs: Mapping[str, Int8],
    bench: Bench,
) -> Difference | None:
    """Runs the program operator by operator to the first byte that differs; None if none does."""
    prefix = prefix_of(folder)
    with tempfile.TemporaryDirectory(prefix="nas-") as scratch:
        elf = Path(scratch) / "steps.elf"
        run, stops = f"{prefix}_run", f"{prefix.upper()}_STEPS"
        memory = link(folder, program.memory_bytes, [run], bench, elf, [stops])
        with Machine(elf, memory, has_fpu=bench.profile.has_fpu, cache=bench.cache) as machine:
            for row in range(len(next(iter(inputs.values())))):
                one = {name: values[row : row + 1] for name, values in inputs.items()}
                tensors = reference.trace(model, one)
                found = _first_difference(machine, prefix, program, one, tensors, row)
                if found is not None:
                    return found
    return None


def _first_difference(
    machine: Machine,
    prefix: str,
    program: Program,
    one: Mapping[str, Int8],
    tensors: Mapping[str, Int8],
    row: int,
) -> Difference | None:
    arena = machine.image.symbol(ARENA).address
    for step, op in enumerate(program.ops, 1):
        wanted = tensors[op.name].ravel()
        returned = machine.run(
            f"{prefix}_run",
            (ARENA,),
            writes=[
                *writes(machine, program, one, 0),
                (f"{prefix}_steps", step.to_bytes(4, "little")),
            ],
            reads=[(arena + program.plan.offsets[op.name], wanted.size)],
        )
        got = np.frombuffer(returned.outputs[0], np.int8)
        if (got != wanted).any():
            index = int((got != wanted).argmax())
            return Difference(op.name, row, index, int(got[index]), int(wanted[index]))
    return None
