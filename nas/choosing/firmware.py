"""The part of a brief that is about the C: how to use it, what to check first, what is proven."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.choosing.choose import FrontRow
from nas.choosing.measured import CYCLE_BAND
from nas.choosing.steps import Steps, c_steps
from nas.deploy.c_text import comment, identifiers
from nas.export.emulate import Verdict

Document = Mapping[str, Any]

C_USE = """\
`c/` is C99 without heap, libraries or globals. Add `{prefix}.c` and everything in `kernels/` to the
firmware's build, with `c/` on the include path; compile with `-O2 -mcpu=cortex-m4 -mthumb`.

```c
#include "{prefix}.h"

static uint32_t arena[{upper}_ARENA_BYTES / 4]; /* {arena}yours between two runs */

/* One window of real values a sensor, channels last, as float: the index of its class. */
int classify({arguments}) {{
{quantise}
    {prefix}_run(arena); /* overwrites its inputs */
    const int8_t *logits = {prefix}_output(arena);
    int best = 0;
    for (int i = 1; i < (int){upper}_OUTPUT_SIZE; i++)
        best = logits[i] > logits[best] ? i : best;
    return best; /* {classes} */
}}
```

- `make check` in `c/` compiles it for this machine and compares recorded inputs with what they must
  give. `c/main.c` does the same on a board and returns 0.
- Two models link into one firmware when their prefixes differ:
  `nas bundle RUN {id} --prefix NAME --out FOLDER` writes the folder again with another one."""

NO_C = (
    "There is no folder `c` here; `nas bundle RUN {id}` writes it, `nas verify RUN {id}` proves it."
)

FIRST_ON_THE_BOARD = """\
1. **The same integers.** Build `c/main.c` for the board: it must return 0. Then run one recorded
   window of your data file through the Python above and through your firmware; compare the int8
   inputs, then the logits. The C and TensorFlow Lite Micro must equal `model_integer.onnx`; LiteRT
   on a PC rounds a few logits differently, by one.
2. **The same data.** Units, axes, channel order and sampling rate of the firmware's buffers must be
   those of the recordings.
3. **Memory.** Paint the stack, run, read its high-water mark in bytes: {stack}
4. **Time.** Read the cycle counter (DWT->CYCCNT) around an inference: {cycles}
5. **Current.** Measure the mean over some periods, with sensors and radio as in the product.
6. **New people, new places.** Record windows that no training saw; compare with the test score."""


@dataclass(frozen=True, slots=True)
class Proofs:
    """What is known of a candidate beyond the search.

    Attributes:
        verification: verification.json; None for a candidate that was never verified.
        verdict: of the run on the emulated chip; None where bytes and time are predicted.
        others: verdicts of all of the run's candidates that were run there.
        prefix: of the C in the folder `c`; None without that folder.
        steps: how it runs step by step; None where it does not.
    """

    verification: Document | None
    verdict: Verdict | None
    others: Sequence[Verdict]
    prefix: str | None
    steps: Steps | None = None


def c_prefix(folder: Path) -> str | None:
    """With what the names of a candidate's C begin; None without a folder `c`."""
    sources = sorted((folder / "c").glob("*.c"))
    return next((s.stem for s in sources if s.with_suffix(".h").exists()), None)


def firmware(row: FrontRow, about: Document, proofs: Proofs) -> str:
    """How the C is used, as a function to paste."""
    prefix = proofs.prefix
    if prefix is None:
        return NO_C.format(id=row.id)
    inputs = identifiers(source["name"] for source in about["graph"]["inputs"])
    names = inputs.values()
    upper, verdict = prefix.upper(), proofs.verdict
    arena = (
        "" if verdict is None else f"{verdict.measured_ram_bytes - verdict.stack_bytes:,} bytes, "
    )
    whole = C_USE.format(
        id=row.id,
        prefix=prefix,
        upper=upper,
        arena=arena,
        arguments=",\n             ".join(
            f"const float {name}[{upper}_INPUT_{name.upper()}_SIZE]" for name in names
        ),
        quantise="\n".join(f"    {prefix}_quantise_{name}(arena, {name});" for name in names),
        classes=comment(", ".join(f"{i} {name}" for i, name in enumerate(about["classes"]))),
    )
    return whole if proofs.steps is None else f"{whole}\n\n{c_steps(proofs.steps, prefix, inputs)}"


def first_checks(about: Document, verdict: Verdict | None) -> str:
    """What to look at first on a board, with the figures that must come out."""
    if verdict is None:
        stack = "none was\n   measured."
        cycles = f"{about['cost']['cycles']:,.0f}\n   cycles are predicted."
    else:
        stack = f"it was {verdict.stack_bytes:,} on the\n   emulated chip, without interrupts."
        cycles = f"{verdict.modelled_cycles:,}\n   cycles are modelled."
    return FIRST_ON_THE_BOARD.format(stack=stack, cycles=cycles)


def proven(row: FrontRow, proofs: Proofs) -> str:
    """What ran and what it showed, and what none of it shows."""
    proof, verdict = proofs.verification, proofs.verdict
    if proof is None:
        ran = "- That the files compute what was scored: not verified; `nas verify RUN` does it.\n"
    else:
        ran = f"- Run with {proof['inputs']} inputs (candidate verified: {row.verified}):\n"
        for check in proof["runtimes"]:
            ran += f"  - {check['runtime']}: "
            if check["compared"]:
                ran += f"{check['differing']:,} of {check['compared']:,} outputs differ from the"
                ran += f" reference, same class in {100 * check['argmax_agreement']:.5g} %\n"
            else:
                ran += "not run\n"
    return f"""\
{ran}{_limits(verdict)}\
- Scores hold for recordings like these. Another mounting, sensor or sampling rate is new data."""


def _limits(verdict: Verdict | None) -> str:
    """What the run on the emulated chip does not show, or that there was none."""
    if verdict is None:
        return (
            "- The C was not run on the emulated chip: RAM, Flash, time and energy are what its"
            " kernels are\n  expected to need.\n"
        )
    return f"""\
- On the emulated chip the C ran with {verdict.inputs} inputs inside exactly the budget of
  {verdict.device}, compiled by {verdict.compiler}. Another compiler gives other bytes and cycles.
- Not run on silicon. The cycle model was within {100 * CYCLE_BAND:.0f} % of silicon on public
  programs, not on this one.
- Flash is modelled with the wait states of the profile and with caches like an STM32L4's; a part
  without caches waits longer, one that runs from RAM not at all.
- The stack is that of the inference alone: interrupts and the caller need their own.
"""
