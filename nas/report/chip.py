"""What the emulated chip showed of a candidate, what TFLM needs, and what low bits bring."""

from typing import Any

from nas.choosing.measured import CYCLE_BAND, TFLM_CODE_KB, band
from nas.choosing.steps import steps_in_words
from nas.export.emulate import Verdict
from nas.report.data import Candidate, Run
from nas.report.format import (
    DASH,
    change,
    count,
    dig,
    esc,
    facts,
    number,
    percent,
    plural,
    records,
    short,
    table,
)
from nas.report.words import weight_bits

BAND = f"\u00b1{100 * CYCLE_BAND:.0f}\u00a0%"
BITS = 8  # that low bits are compared with


def kinds(candidate: Candidate) -> tuple[str, str]:
    """How the candidate's bytes and its time are known, in a word each."""
    if candidate.verdict is None:
        return "predicted", "predicted"
    return "measured", f"modelled, {BAND}"


def emulated(candidate: Candidate, run: Run) -> str:
    """The run on the emulated chip, or why there was none."""
    verdict = candidate.verdict
    steps = step_by_step(candidate, run)
    if verdict is None:
        failure = dig(candidate.verification, "failure")
        why = esc(str(failure).rstrip(".")) if failure else "nas verify does it"
        return (
            f'<p class="note">Not run on the emulated chip: {why}. RAM, Flash, latency and energy '
            "are predicted.</p>"
        ) + steps
    facts_ = _verdict_facts(candidate, verdict, run)
    return _verdict_words(verdict) + facts_ + _predictions(verdict) + steps


def step_by_step(candidate: Candidate, run: Run) -> str:
    """What it needs where it runs step by step; "" where it does not."""
    ram, clock_hz = candidate.values["ram_bytes"], number(dig(run.manifest, "profile", "clock_hz"))
    if candidate.steps is None or ram is None or clock_hz is None:
        return ""
    return f'<p class="note">{esc(steps_in_words(candidate.steps, ram, clock_hz))}</p>'


def _verdict_words(verdict: Verdict) -> str:
    equal = f"all {count(verdict.outputs_compared)} outputs equal the integer reference"
    if verdict.outputs_differing:
        where = verdict.difference or "the operator was not found"
        equal = (
            f"<b>{count(verdict.outputs_differing)} of {count(verdict.outputs_compared)} outputs "
            f"differ</b> from the integer reference ({esc(where)})"
        )
    return (
        f'<p class="note">The C of this folder, compiled by {esc(verdict.compiler)}, ran on an '
        f"emulated Cortex-M4 with {plural(verdict.inputs, 'input')} inside exactly the budget of "
        f"{esc(verdict.device)}: {equal}. Bytes and instructions are measured; cycles are "
        f"modelled, and the model was within {100 * CYCLE_BAND:.0f}\u00a0% of silicon on public "
        "programs, not on this one.</p>"
    )


def _verdict_facts(candidate: Candidate, verdict: Verdict, run: Run) -> str:
    ram, flash = verdict.measured_ram_bytes, verdict.measured_flash_bytes
    arena = int(candidate.values["arena_bytes"] or 0)
    working = ram - verdict.stack_bytes - arena
    misses = count(verdict.data_misses + verdict.code_misses)
    latency = number(candidate.values["latency_ms"])
    ends = [short(end) for end in band(latency)] if latency else [DASH, DASH]
    waits = plural(verdict.wait_states, "wait state")
    parts = f"{count(arena)} arena + {count(working)} working memory + {count(verdict.stack_bytes)}"
    inputs = plural(verdict.inputs, "input")
    return facts(
        [
            _fact("RAM, measured", f"{count(ram)}\u00a0B", _of(ram, run.budgets.ram_bytes),
                  f"{parts} stack"),
            _fact("Flash, measured", f"{count(flash)}\u00a0B", _of(flash, run.budgets.flash_bytes)),
            _fact("Instructions, measured", count(verdict.instructions)),
            _fact("Cycles, modelled", count(verdict.modelled_cycles),
                  f"{count(verdict.core_cycles)} core + {misses} Flash misses \u00d7 {waits}"),
            _fact("Latency, modelled", short(latency, "ms"),
                  f"{ends[0]} to {ends[1]}\u00a0ms with the model's {BAND}"),
            _fact("Outputs differing", count(verdict.outputs_differing),
                  f"of {count(verdict.outputs_compared)}, with {inputs}"),
        ],
        "roomy",
    )  # fmt: skip


def _fact(name: str, value: str, *notes: str) -> tuple[str, str]:
    return name, value + "".join(f"<small>{note}</small>" for note in notes if note)


def _of(used: float, budget: float | None) -> str:
    return "" if not budget else f"{percent(used / budget, 0)} of {count(budget)}"


def _predictions(verdict: Verdict) -> str:
    rows = [
        ("RAM, B", verdict.predicted_ram_bytes, verdict.measured_ram_bytes),
        ("Flash, B", verdict.predicted_flash_bytes, verdict.measured_flash_bytes),
        ("Cycles", verdict.predicted_cycles, verdict.modelled_cycles),
    ]
    cells = [[name, count(a), count(b), change(a, b)] for name, a, b in rows]
    return table(["", "#Predicted", "#Emulated", "#Off by"], cells)


def under_tflm(candidate: Candidate) -> str:
    """What the same graph takes in TensorFlow Lite Micro, never mixed with our own figures."""
    arena = number(dig(candidate.verification, "tflm_arena_bytes"))
    size = number(dig(candidate.verification, "tflite_bytes"))
    if arena is None and size is None:
        return '<p class="note">Not recorded: the candidate was not verified.</p>'
    pairs = [
        ("Arena of TFLM's interpreter", f"{count(arena)}\u00a0B" if arena else "not run"),
        ("model.tflite, in Flash", f"{count(size)}\u00a0B"),
    ]
    return facts(pairs) + (
        '<p class="note">Another way to deploy this network, not a part of the figures above. The '
        "arena is what TFLM's interpreter allocates on this PC; its pointers have 64 bits, so a "
        "Cortex-M4 needs a little less. TFLM's own code, about "
        f"{TFLM_CODE_KB}\u00a0KB, comes on top of the file, and its stack on top of the arena.</p>"
    )


def saved_by_bits(candidate: Candidate) -> str:
    """Bytes and cycles of every layer at its bits, against 8 bits in all."""
    held = candidate.document.get("at_8_bits")
    plain = {str(row.get("name")): row for row in records(dig(held, "per_op"))}
    layers = [(op, bits) for op in candidate.graph.ops if (bits := weight_bits(op))]
    if not plain or not layers:
        return '<p class="note">Not recorded: the run was written by an earlier version.</p>'
    if all(bits == BITS for _, bits in layers):
        return '<p class="note">Every layer has 8 bits: nothing is saved, nothing is paid.</p>'
    own = {op.name: op for op in candidate.per_op}
    rows = []
    for op, bits in layers:
        before, now = plain.get(op.name, {}), own.get(op.name)
        if now is not None:
            rows.append(
                _layer(esc(op.name), f"{bits}\u00a0bits", (now.weight_bytes, now.cycles), before)
            )
    heads = ["Layer", "#Saved, B", "#Slower by", "#Weights, B", "#Cycles"]
    total = sum(op.weight_bytes for op in candidate.per_op), sum(op.cycles for op in own.values())
    whole = _layer("<b>Whole network</b>", "", total, held)
    return _bits_words(candidate, held) + table(heads, [*rows, whole])


def _layer(name: str, bits: str, now: tuple[float, float], before: Any) -> list[str]:
    """A row: bytes of weights and cycles, what they are at 8 bits, and the difference."""
    weights, cycles = number(dig(before, "weight_bytes")), number(dig(before, "cycles"))
    saved = DASH if weights is None else count(weights - now[0])
    return [
        name + (bits and f"<small>{bits}</small>"),
        f"<b>{saved}</b>",
        f"<b>{change(now[1], cycles or 0)}</b>",
        f"{count(now[0])}<small>{count(weights)} at {BITS}\u00a0bits</small>",
        f"{count(now[1])}<small>{count(cycles)} at {BITS}\u00a0bits</small>",
    ]


def _bits_words(candidate: Candidate, held: Any) -> str:
    """What the bits do to the linked program, which also holds a kernel for every width used."""
    now = number(dig(candidate.document, "cost", "flash_bytes"))
    before = number(dig(held, "flash_bytes"))
    flash = ""
    if now is not None and before is not None:
        word = "less" if now < before else "more"
        flash = (
            f" The whole program has {count(abs(before - now))} bytes of Flash {word} than with 8 "
            "bits throughout, as each width that is used brings its own kernels."
        )
    return (
        '<p class="note">Bytes saved, cycles paid, against the same network with 8 bits in every '
        f"layer. Bytes of weights are exact, cycles and Flash predicted.{flash}</p>"
    )
