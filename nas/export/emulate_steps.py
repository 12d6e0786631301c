"""Proof of the stepwise form: its C, fed reading by reading on the emulated chip, against windows.

What the linked program answers after the last step of each window must equal what the integer
reference computes from the whole window.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.emulation.emulator import Machine, Measurement
from nas.export.emulate import ARENA, RUNTIME, Bench, link, output_place, prefix_of, writes
from nas.hardware.stepwise import Stepwise
from nas.network import reference
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.ops import size
from nas.network.streaming import frame_of


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """What the emulated chip showed of one candidate's stepwise form; the fields of steps.json.

    Attributes:
        step_readings: of each series a step.
        measured_ram_bytes: what the caller holds, and the stack.
        step_cycles: modelled, of a step in the middle of a window.
        last_step_cycles: modelled, of the last step.
    """

    id: str
    runtime: str
    windows: int
    step_readings: int
    window_steps: int
    outputs_compared: int
    outputs_differing: int
    largest_difference: int
    argmax_agreement: float
    predicted_ram_bytes: int
    measured_ram_bytes: int
    predicted_flash_bytes: int
    measured_flash_bytes: int
    memory_bytes: int
    stack_bytes: int
    predicted_step_cycles: float
    step_cycles: int
    predicted_last_step_cycles: float
    last_step_cycles: int
    compiler: str
    device: str

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in steps.json."""
        return asdict(self)


def emulate_steps(
    name: str,
    model: IntegerModel,
    held: Stepwise,
    folder: Path,
    inputs: Mapping[str, Int8],
    bench: Bench,
) -> StepVerdict:
    """Compiles the stepwise bundle in `folder`, feeds it `inputs` step by step, and compares.

    Args:
        model: the windowed one, which defines the outputs.
        inputs: whole windows (n, height, width, channels) by modality.

    Raises:
        BuildError: the compiler refuses, or the device's budget does not hold the program.
        MachineFault: the program faults.
    """
    expected = reference.run(model, inputs)
    prefix = prefix_of(folder)
    reset, step = f"{prefix}_reset", f"{prefix}_step"
    with tempfile.TemporaryDirectory(prefix="nas-") as scratch:
        elf = Path(scratch) / "steps.elf"
        memory = link(folder, held.memory_bytes, [reset, step], bench, elf)
        with Machine(elf, memory, has_fpu=bench.profile.has_fpu, cache=bench.cache) as machine:
            machine.run(reset, (ARENA,))
            rows = range(len(expected))
            got = np.stack([_window(machine, step, held, inputs, row) for row in rows])
            got = got.reshape(expected.shape)
            middle, last = (
                _measure(machine, reset, step, held, inputs, frame)
                for frame in (max(0, held.made.frames // 2 - 1), held.made.frames - 1)
            )
            image = machine.image
    apart = np.abs(got.astype(np.int16) - expected)
    waits, stack = bench.profile.flash_wait_states, max(middle.stack_bytes, last.stack_bytes)
    return StepVerdict(
        id=name,
        runtime=RUNTIME,
        windows=len(expected),
        step_readings=held.made.frame_steps,
        window_steps=held.made.frames,
        outputs_compared=expected.size,
        outputs_differing=int((apart > 0).sum()),
        largest_difference=int(apart.max()),
        argmax_agreement=float((got.argmax(1) == expected.argmax(1)).mean()),
        predicted_ram_bytes=held.ram_bytes,
        measured_ram_bytes=image.static_bytes + stack,
        predicted_flash_bytes=held.flash_bytes,
        measured_flash_bytes=image.flash_bytes,
        memory_bytes=held.memory_bytes,
        stack_bytes=stack,
        predicted_step_cycles=held.step_cycles,
        step_cycles=middle.total.cycles_at(waits),
        predicted_last_step_cycles=held.last_step_cycles,
        last_step_cycles=last.total.cycles_at(waits),
        compiler=bench.compiler.version,
        device=bench.profile.name,
    )


def _window(
    machine: Machine, step: str, held: Stepwise, inputs: Mapping[str, Int8], row: int
) -> Int8:
    """The logits after the last step of a window; the one before it must have ended."""
    made, place = held.made, output_place(machine, held.program)
    for frame in range(made.frames):
        fed = {i.name: frame_of(i, made, inputs, frame) for i in made.graph.inputs}
        returned = machine.run(
            step, (ARENA,), writes=writes(machine, held.program, fed, row), reads=[place]
        )
        if returned.value != (frame == made.frames - 1):
            # The outputs cannot be right: count all of them.
            return np.full(size(made.graph.shapes[made.graph.output]), -128, np.int8)
    return np.frombuffer(returned.outputs[0], np.int8)


def _measure(
    machine: Machine,
    reset: str,
    step: str,
    held: Stepwise,
    inputs: Mapping[str, Int8],
    frame: int,
) -> Measurement:
    """One step of the first window, with the state that the steps before it have left."""
    made, program = held.made, held.program
    fed = [
        {i.name: frame_of(i, made, inputs, f) for i in made.graph.inputs} for f in range(frame + 1)
    ]
    arena = machine.image.symbol(ARENA).address
    whole = (arena, held.memory_bytes)
    state = machine.run(reset, (ARENA,), reads=[whole]).outputs[0]
    for before in fed[:-1]:
        new = writes(machine, program, before, 0)
        state = machine.run(step, (ARENA,), writes=new, reads=[whole]).outputs[0]
    return machine.measure(
        step,
        (ARENA,),
        writes=[(arena, state), *writes(machine, program, fed[-1], 0)],
        reads=[output_place(machine, program)] if frame == made.frames - 1 else [],
    )
