"""README.md of a candidate's folder: the brief for a proof of concept on a board.

Written from the files of the run folder alone, so it can be written again at any time. Its two
snippets work as pasted; a test runs them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.choosing.battery import CLASS_BYTES, energy_formula, rates_known, read_power, window_bytes
from nas.choosing.choose import FrontRow, parse_rows
from nas.choosing.firmware import Proofs, c_prefix, firmware, first_checks, proven
from nas.choosing.measured import CYCLE_BAND, TFLM_CODE_KB, band, misses_text, verdicts_of
from nas.choosing.steps import steps_in_words, steps_of
from nas.run_folder import (
    judged_crosswise,
    read_front,
    read_json,
    read_manifest,
    write_atomic,
)

Document = Mapping[str, Any]

FILES = """\
| file | what it is |
|---|---|
| `model.tflite` | int8 network for TensorFlow Lite (Micro), 4-bit weights packed |
| `model.onnx` | the same with QuantizeLinear and DequantizeLinear |
| `model_integer.onnx` | the same in integers: equals the reference bit for bit |
| `model.npz` | the integers themselves: graph, weights, biases, scales |
| `architecture.json` | network, input normalisation, cost per operator, plan, confusions |
| `verification.json` | runtimes that ran it, inputs, differing outputs |"""
FILES_OF_STEPS = """
| `c_step/` | the same step by step: no window, a state that you own |
| `steps.json` | its run on the emulated chip |"""
FILES_OF_C = """
| `c/` | the same in C for a Cortex-M4: no heap, no libraries, a self-test |
| `verdict.json` | its run on the emulated chip: bytes, instructions, cycles |"""

PYTHON = """\
import json
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # pip install ai-edge-litert

about = json.loads(Path("architecture.json").read_text())
model = Interpreter("model.tflite")
model.allocate_tensors()


def classify(sensors):
    \"\"\"One window of real values by sensor name: the name of its class, and the logits.\"\"\"
    for port in model.get_input_details():
        rule = about["inputs"][port["name"]]
        mean, std, scale = (np.float32(rule[key]) for key in ("mean", "std", "scale"))
        q = np.round((np.float32(sensors[port["name"]]) - mean) / std / scale)
        q = np.clip(q, -128, 127).astype(np.int8)
        model.set_tensor(port["index"], q.reshape(port["shape"]))
    model.invoke()
    logits = model.get_tensor(model.get_output_details()[0]["index"])[0]
    return about["classes"][logits.argmax()], logits

"""


def write_briefs(run: Path) -> None:
    """Writes README.md of every candidate of the front; RunError when a file cannot be read."""
    manifest = read_manifest(run)
    rows = parse_rows(read_front(run))
    verdicts = verdicts_of(run, rows)
    for row in rows:
        folder = run / "candidates" / row.id
        proof = folder / "verification.json"
        about = read_json(folder / "architecture.json")
        proofs = Proofs(
            read_json(proof) if proof.exists() else None,
            verdicts.get(row.id),
            list(verdicts.values()),
            c_prefix(folder),
            steps_of(folder, about),
        )
        text = brief(row, about, manifest, proofs)
        write_atomic(folder / "README.md", text.encode())


def brief(row: FrontRow, about: Document, manifest: Document, proofs: Proofs) -> str:
    """The text of README.md; `about` is architecture.json, `manifest` run.json."""
    profile, classes = manifest["profile"], about["classes"]
    parts = [
        f"# {row.id}: brief for a proof of concept",
        f"An integer network that reads {_listed(list(about['inputs']))} and tells"
        f" {len(classes)} classes apart: {_listed(classes)}. Searched and trained on"
        f" `{manifest['data']['name']}` for {profile['name']} ({profile['part']},"
        f" {profile['clock_hz'] / 1e6:g} MHz).",
        "## How good it is",
        _scores(row, about, manifest),
        "## What it needs",
        _needs(row, about, manifest, proofs),
        "## What goes in, what comes out",
        _inputs(about),
        "In Python, in this folder:",
        f"```python\n{PYTHON}\n{_example(about)}\n```",
        "## In your firmware",
        firmware(row, about, proofs),
        "## What to check first on the board",
        first_checks(about, proofs.verdict),
        "## What is proven, and what is not",
        proven(row, proofs),
        "## Files",
        FILES + (FILES_OF_C if proofs.prefix else "") + (FILES_OF_STEPS if proofs.steps else ""),
    ]
    return "\n\n".join(parts) + "\n"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _scores(row: FrontRow, about: Document, manifest: Document) -> str:
    rows = manifest["data"]["rows"]
    judges = f"{rows['val']:,} of validation"
    what = "The scores are those of the integers in these files."
    if judged_crosswise(manifest):
        judges = f"{rows['train'] + rows['val']:,} of training and validation, crosswise"
        what = (
            "The test score is that of the integers in these files. The other one is that of three"
            " networks of the same training, each on the part of the windows that it had not seen;"
            f" these integers were trained on {about['training']['rows']:,} of the windows."
        )
    lines = [
        f"| windows | {row.metric.replace('_', ' ')} | 90 % interval | |",
        "|---|---|---|---|",
        f"| {judges} | {row.val_score:.4f} | {row.val_low:.4f} to"
        f" {row.val_high:.4f} | it was chosen by these: expect a little less |",
        f"| {rows['test']:,} of test | {row.test_score:.4f} | {row.test_low:.4f} to"
        f" {row.test_high:.4f} | touched once, for the final front |",
    ]
    worst = (about.get("groups") or {}).get("worst")
    if worst:
        note = (
            f"Worst group of the test windows: `{worst['group']}` with accuracy"
            f" {worst['score']:.4f} ({worst['rows']:,} windows)."
        )
    else:
        note = (
            "How much worse it is for the worst person or site is not known: the data file names no"
            " groups, or each has too few test windows."
        )
    missing = about.get("missing_sensors") or {}
    if len(missing) > 1:
        scores = [f"`{name}` {entry['score']:.4f}" for name, entry in missing.items()]
        note += f" Test score with one sensor held at its training mean: {_listed(scores)}."
    return "\n".join([*lines, "", f"{note} {what}"])


def _needs(row: FrontRow, about: Document, manifest: Document, proofs: Proofs) -> str:
    budgets, power = manifest["budgets"], read_power(manifest["profile"])

    def share(amount: int, budget: int) -> str:
        return f"{amount:,} bytes, {100 * amount / budget:.0f} % of {budget:,}"

    run = proofs.verdict is not None
    size, time = ("measured", "modelled") if run else ("predicted", "predicted")
    formula = energy_formula(row.latency_ms, power)
    raw = window_bytes(about["inputs"])
    radio = (
        "not known: this run did not record how wide stored values are | |"
        if raw is None
        else f"{CLASS_BYTES} byte (the class) instead of {raw:,} (the raw window) | exact |"
    )
    values = sum(math.prod(rule["shape"]) for rule in about["inputs"].values())
    window = f"{4 * values:,} bytes as float32" + (f", {raw:,} as stored" if raw else "")
    return f"""\
| what | amount | kind |
|---|---|---|
| activation arena, inputs and output included | {row.arena_bytes:,} bytes | exact |
| weights, biases, constants, tables | {row.weight_bytes:,} bytes | exact |
| RAM of the program | {share(row.ram_bytes, budgets["ram_bytes"])} | {size} |
| Flash of the program | {share(row.flash_bytes, budgets["flash_bytes"])} | {size} |
| latency | {row.latency_ms:.3g} ms | {time} |
| energy an inference | {formula} | {time} |
| radio an inference | {radio}
| a window before it is quantised | {window} | exact, in no figure above |

{_kinds(row, proofs)}

{_steps(row, manifest, proofs)}{_bits(row, about)}\
Energy = latency x active current x supply voltage of the profile: the core,
without sensors, radio, regulator and sleep. All of this is from the int8 inputs on: quantising the
window, in time and code, comes on top. Battery life:
`nas pick RUN {row.id} --every-s 1 --cell CR2032`.

{_under_tflm(proofs.verification)}"""


def _steps(row: FrontRow, manifest: Document, proofs: Proofs) -> str:
    """What it needs step by step; "" where it does not run so."""
    if proofs.steps is None:
        return ""
    clock_hz = manifest["profile"]["clock_hz"]
    return steps_in_words(proofs.steps, row.ram_bytes, clock_hz) + "\n\n"


def _kinds(row: FrontRow, proofs: Proofs) -> str:
    """How the bytes and the time of the table are known."""
    verdict = proofs.verdict
    if verdict is None:
        text = "Its C was not run: RAM, Flash, latency and energy are predicted from its operators."
        return f"{text} {misses_text(proofs.others)}".rstrip()
    arena, stack = row.arena_bytes, verdict.stack_bytes
    low, high = band(row.latency_ms)
    return (
        f"Measured on the emulated chip, with {verdict.compiler}: RAM is {arena:,} bytes of arena,"
        f" {verdict.measured_ram_bytes - arena - stack:,} of working memory and {stack:,} of stack;"
        f" predicted were {verdict.predicted_ram_bytes:,} bytes of RAM,"
        f" {verdict.predicted_flash_bytes:,} of Flash and {verdict.predicted_cycles:,.0f} cycles."
        f" Modelled: {verdict.instructions:,} instructions take {verdict.modelled_cycles:,} cycles;"
        f" with the cycle model's {100 * CYCLE_BAND:.0f} % that is {low:.3g} to {high:.3g} ms."
    )


def _bits(row: FrontRow, about: Document) -> str:
    """What the bits save and cost against 8 in every layer; "" where that is not known."""
    plain, cost = about.get("at_8_bits"), about["cost"]
    if not plain or set(row.weight_bits) == {8}:
        return ""
    saved = plain["weight_bytes"] - cost["weight_bytes"]
    flash = cost["flash_bytes"] - plain["flash_bytes"]
    cycles = cost["cycles"] - plain["cycles"]
    return (
        f"Against 8 bits in every layer its bits {'save' if saved >= 0 else 'add'} {abs(saved):,}"
        f" bytes of weights ({cost['weight_bytes']:,} instead of {plain['weight_bytes']:,});"
        f" predicted are {_more(cycles, 'cycles')} and, with the kernels of every width used,"
        f" {_more(flash, 'bytes of Flash')}.\n\n"
    )


def _more(amount: float, what: str) -> str:
    return f"{abs(amount):,.0f} {what} {'less' if amount < 0 else 'more'}"


def _under_tflm(proof: Document | None) -> str:
    """What the same graph takes in TensorFlow Lite Micro."""
    if proof is None or proof.get("tflite_bytes") is None:
        return "What it needs under TensorFlow Lite Micro is not known: it was not verified."
    arena = proof.get("tflm_arena_bytes")
    taken = "was not run here" if arena is None else f"takes an arena of {arena:,} bytes"
    return (
        "None of this is TensorFlow Lite Micro. With `model.tflite`"
        f" ({proof['tflite_bytes']:,} bytes of Flash) its interpreter {taken} on a PC, whose"
        " pointers have 64 bits: a Cortex-M4 needs a little less. TFLM's own code, about"
        f" {TFLM_CODE_KB} KB of Flash, and its stack come on top."
    )


SHAPES = {
    "series": "{0} time steps of {1} channels",
    "image": "{0} rows of {1} pixels of {2} channels",
    "vector": "{0} features",
}


def _input(name: str, rule: Document) -> str:
    sizes = SHAPES[rule["kind"]].format(*rule["shape"]).replace(" 1 channels", " 1 channel")
    columns, rate_hz = rule.get("columns"), rule.get("rate_hz")
    named = f" ({', '.join(columns)})" if columns else ""
    rate = f" at {rate_hz:g} Hz: {rule['shape'][0] / rate_hz:g} s" if rate_hz else ""
    order = ", oldest first" if rule["kind"] == "series" else ""
    stored = f", stored as {rule['stored_type']}" if "stored_type" in rule else ""
    return (
        f"- `{name}`: {sizes}{named}{rate}{order}{stored}; int8 step {rule['scale']:.6g} deviations"
    )


def _inputs(about: Document) -> str:
    lines = [_input(name, rule) for name, rule in about["inputs"].items()]
    unnamed = "" if rates_known(about["inputs"]) else " (the data file does not name every one)"
    return f"""\
Sensors, in this order, each one window at the sampling rate of the recordings{unnamed}:

{chr(10).join(lines)}

int8 = round((x - mean) / std / scale), clipped to -128..127, channels last; x is the real value
(stored * scale + offset of the data file). `mean`, `std` and `scale` are in architecture.json. Out
come {len(about["classes"])} int8 logits: the class is the index of the largest."""


def _example(about: Document) -> str:
    windows = ", ".join(
        f"{json.dumps(name)}: np.zeros({tuple(rule['shape'])})"
        for name, rule in about["inputs"].items()
    )
    return f"print(classify({{{windows}}}))"
