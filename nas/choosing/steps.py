"""The stepwise form of a candidate, in words that the brief and the report share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.run_folder import read_json

C_STEPS = """\
Where readings come one after the other, take `c_step/` instead: the same outputs, without a window.

```c
#include "{prefix}.h"

static uint32_t state[{upper}_STATE_BYTES / 4]; /* {memory:,} bytes, kept between the steps */

{prefix}_reset(state);
/* then, whenever {readings}: */
{inputs}
if ({prefix}_step(state)) {{ /* the last of a window's {steps} steps */
    const int8_t *logits = {prefix}_output(state);
}}
```"""


@dataclass(frozen=True, slots=True)
class Steps:
    """How a network runs step by step.

    Attributes:
        step_readings: of each series a step.
        window_steps: steps after which there is an output.
        memory_bytes: what the caller holds.
        ram_bytes: the same with the stack.
        windows: that were compared on the emulated chip; 0 where the rest is predicted.
    """

    step_readings: int
    window_steps: int
    memory_bytes: int
    ram_bytes: float
    step_cycles: float
    last_step_cycles: float
    windows: int
    outputs_differing: int

    @property
    def kinds(self) -> tuple[str, str]:
        """How bytes and cycles are known."""
        return ("measured", "modelled") if self.windows else ("predicted", "predicted")

    @property
    def readings(self) -> str:
        """When a step is due."""
        if self.step_readings == 1:
            return "a new reading of each series is there"
        return f"{self.step_readings} new readings of each series are there"


def steps_of(folder: Path, about: Mapping[str, Any]) -> Steps | None:
    """From a candidate's folder and its architecture.json; None where it has no stepwise form."""
    held = about.get("stepwise")
    if not held:
        return None
    sizes = (held["step_readings"], held["window_steps"], held["memory_bytes"])
    proof = folder / "steps.json"
    if not proof.exists():
        predicted = (held["ram_bytes"], held["step_cycles"], held["last_step_cycles"])
        return Steps(*sizes, *predicted, 0, 0)
    seen = read_json(proof)
    found = (seen["measured_ram_bytes"], seen["step_cycles"], seen["last_step_cycles"])
    return Steps(*sizes, *found, seen["windows"], seen["outputs_differing"])


def steps_in_words(steps: Steps, ram_bytes: float, clock_hz: float) -> str:
    """Bytes, time and proof, in sentences.

    Args:
        ram_bytes: of the form that holds the whole window.
    """
    size, time = steps.kinds
    each, last = (1e3 * c / clock_hz for c in (steps.step_cycles, steps.last_step_cycles))
    proof = "It was not run on the emulated chip."
    if steps.windows:
        differ = f"{steps.outputs_differing} outputs differ from" if steps.outputs_differing else ""
        proof = f"On the emulated chip {differ or 'all outputs equal'} those of {steps.windows}"
        proof += " whole windows."
    return (
        f"It also runs step by step, whenever {steps.readings}: {steps.ram_bytes:,.0f} bytes of RAM"
        f" ({size}) instead of {ram_bytes:,.0f}, however long the window;"
        f" {steps.step_cycles:,.0f} cycles or {each:.3g} ms a step, {steps.last_step_cycles:,.0f}"
        f" or {last:.3g} ms for the last of a window's {steps.window_steps} ({time}). {proof}"
    )


def c_steps(steps: Steps, prefix: str, inputs: Mapping[str, str]) -> str:
    """How the C of the stepwise form is used; `inputs` are names in C by sensor."""
    lines = [
        f"{prefix}_quantise_{name}(state, {name}); /* float {name}[] */" for name in inputs.values()
    ]
    return C_STEPS.format(
        prefix=prefix,
        upper=prefix.upper(),
        memory=steps.memory_bytes,
        readings=steps.readings,
        inputs="\n".join(lines),
        steps=steps.window_steps,
    )
