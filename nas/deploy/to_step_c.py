"""What differs in the C of a model that runs step by step: `step` and `reset` in place of `run`.

The memory that the caller owns holds, in this order, what a step works in, what outlives it (past
steps, the states of scans, sums of readouts), and the number of steps of the window so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nas.deploy.c_text import comment
from nas.deploy.calls import Calls
from nas.hardware.program import Program
from nas.hardware.stepwise import COUNTER_BYTES, step_memory_bytes
from nas.network.streaming import Stepping


@dataclass(frozen=True, slots=True)
class HeaderText:
    """The lines of a header that say how a model is used, and declare that.

    Attributes:
        memory: what the caller's memory is called, of `memory_bytes`.
    """

    memory: str
    memory_bytes: int
    summary: Sequence[str]
    declarations: Sequence[str]


def step_text(prefix: str, program: Program, made: Stepping) -> HeaderText:
    """How a stepwise model is used."""
    upper, kept = prefix.upper(), made.state_bytes + COUNTER_BYTES
    series = "reading" if made.frame_steps == 1 else f"{made.frame_steps} readings"
    return HeaderText(
        "state",
        step_memory_bytes(program),
        [
            " *",
            f" * Runs step by step: put the newest {series} of each series at",
            f" * {prefix}_input_<name>(state) and call {prefix}_step(state). After the last step",
            " * of a window it returns 1, and the logits (the largest is the class) are at",
            f" * {prefix}_output(state); then the next window begins. Inputs that are no series",
            " * are read in that last step. A step overwrites the inputs.",
        ],
        [
            f"/* What the caller gives, aligned to 4 bytes: {kept} are kept from step to step. */",
            f"#define {upper}_STATE_BYTES {step_memory_bytes(program)}u",
            "/* Readings of each series a step, and steps a window. */",
            f"#define {upper}_STEP_READINGS {made.frame_steps}u",
            f"#define {upper}_WINDOW_STEPS {made.frames}u",
            "",
            "/* Before the first step, and wherever a window is to begin anew. */",
            f"void {prefix}_reset(void *state);",
            "",
            "/* One step; 1 after the last one of a window, else 0. */",
            f"int {prefix}_step(void *state);",
        ],
    )


def step_functions(
    prefix: str, program: Program, calls: Sequence[Calls], made: Stepping
) -> list[str]:
    """The definitions of `reset` and `step`."""
    lines = [
        "",
        f"void {prefix}_reset(void *state) {{",
        f"    *(uint32_t *)(void *)((int8_t *)state + {program.memory_bytes}) = 0;",
        "}",
        "",
        f"int {prefix}_step(void *state) {{",
        "    int8_t *const a = state;",
        f"    uint32_t *const steps = (uint32_t *)(void *)(a + {program.memory_bytes});",
        f"    const int last = *steps == {made.frames - 1}u;",
        "    if (*steps == 0u) {",
        *(f"        {statement}" for call in calls for statement in call.resets),
        "    }",
    ]
    for op, call in zip(program.ops, calls, strict=True):
        if not call.statements:
            continue
        lines += ["", f"    /* {comment(op.name)} */"]
        if op.name in made.last_only:
            lines += ["    if (last) {", *(f"        {s}" for s in call.statements), "    }"]
        else:
            lines += [f"    {s}" for s in call.statements]
    return [*lines, "    *steps = last ? 0u : *steps + 1u;", "    return last;", "}"]
