"""README.md of a candidate's folder: the brief for a proof of concept on a board.

Written from the files of the run folder alone, so it can be written again at any time. Its two
snippets work as pasted; a test runs them.
"""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.choosing.battery import CLASS_BYTES, energy_formula, rates_known, read_power, window_bytes
from nas.choosing.choose import FrontRow, parse_rows
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

C_QUANTISE = """\
#include <math.h>
#include <stdint.h>

static int8_t quantise(float real, float mean, float std, float scale) {
    float q = rintf((real - mean) / std / scale); /* halves to even, as in Python */
    return (int8_t)(q < -128.0f ? -128.0f : q > 127.0f ? 127.0f : q);
}
"""

FIRST_ON_THE_BOARD = """\
1. **The same integers.** Run one recorded window of your data file through the Python above and
   through your firmware; compare the int8 inputs, then the logits. With TensorFlow Lite Micro both
   must be equal to `model_integer.onnx`; LiteRT on a PC rounds a few logits differently, by one.
2. **The same data.** Units, axes, channel order and sampling rate of the firmware's buffers must be
   those of the recordings.
3. **Memory.** Paint the stack, run, read its high-water mark and the arena that is really used.
4. **Time.** Read the cycle counter (DWT->CYCCNT) around an inference: {cycles} cycles are modelled.
5. **Current.** Measure the mean over some periods, with sensors and radio as in the product.
6. **New people, new places.** Record windows that no training saw; compare with the test score."""


def write_briefs(run: Path) -> None:
    """Writes README.md of every candidate of the front; RunError when a file cannot be read."""
    manifest = read_manifest(run)
    for row in parse_rows(read_front(run)):
        folder = run / "candidates" / row.id
        proof = folder / "verification.json"
        text = brief(
            row,
            read_json(folder / "architecture.json"),
            manifest,
            read_json(proof) if proof.exists() else None,
        )
        write_atomic(folder / "README.md", text.encode())


def brief(row: FrontRow, about: Document, manifest: Document, proof: Document | None) -> str:
    """The text of README.md; `about` is architecture.json, `manifest` run.json.

    `proof` is verification.json, None for a candidate that was never verified.
    """
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
        _needs(row, about, manifest),
        "## What goes in, what comes out",
        _inputs(about),
        "In Python, in this folder:",
        f"```python\n{PYTHON}\n{_example(about)}\n```",
        "In C, before any runtime:",
        f"```c\n{C_QUANTISE}\n{_c_inputs(about)}```",
        "## What to check first on the board",
        FIRST_ON_THE_BOARD.format(cycles=f"{about['cost']['cycles']:,.0f}"),
        "## What is not proven",
        _unproven(row, proof),
        "## Files",
        FILES,
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


def _needs(row: FrontRow, about: Document, manifest: Document) -> str:
    budgets, power = manifest["budgets"], read_power(manifest["profile"])

    def share(amount: int, budget: int) -> str:
        return f"{amount:,} bytes, {100 * amount / budget:.0f} % of {budget:,}"

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
| RAM of the program | {share(row.ram_bytes, budgets["ram_bytes"])} | estimated |
| Flash of the program | {share(row.flash_bytes, budgets["flash_bytes"])} | estimated |
| latency | {row.latency_ms:.3g} ms | modelled |
| energy an inference | {formula} | modelled |
| radio an inference | {radio}
| a window before it is quantised | {window} | exact, in no figure above |

Estimated and modelled numbers are for a C program of this project's kernels, not for TensorFlow
Lite Micro, whose interpreter needs more of both memories. Energy = latency x active current x
supply voltage of the profile: the core alone, without sensors, radio, regulator and sleep. Latency
begins with the int8 inputs: quantising the window comes on top. Battery life:
`nas pick RUN {row.id} --every-s 1 --cell CR2032`."""


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


def _c_inputs(about: Document) -> str:
    """One function a sensor, with its constants as the float32 values that they are."""
    parts = []
    for name, rule in about["inputs"].items():
        channels, count = rule["shape"][-1], math.prod(rule["shape"])
        parts.append(
            f"{_c_array(f'{name}_mean', rule['mean'])}{_c_array(f'{name}_std', rule['std'])}"
            f"void feed_{name}(const float real[{count}], int8_t input[{count}]) {{\n"
            f"    for (int i = 0; i < {count}; i++)\n"
            f"        input[i] = quantise(real[i], {name}_mean[i % {channels}],"
            f" {name}_std[i % {channels}], {_c_float(rule['scale'])});\n}}\n"
        )
    return "\n".join(parts)


def _c_float(value: float) -> str:
    """The shortest decimal that reads back as this float32."""
    text = str(np.float32(value))
    return f"{text}f" if any(c in text for c in ".e") else f"{text}.0f"


def _c_array(name: str, values: Sequence[float]) -> str:
    body = textwrap.fill(", ".join(map(_c_float, values)), 96, initial_indent="    ")
    body = body.replace("\n", "\n    ")
    return f"static const float {name}[{len(values)}] = {{\n{body}}};\n"


def _unproven(row: FrontRow, proof: Document | None) -> str:
    if proof is None:
        ran = "- That the files compute what was scored: not verified; `nas verify RUN` does it.\n"
    else:
        ran = f"- Run on a PC only, with {proof['inputs']} inputs (candidate verified:"
        ran += f" {row.verified}):\n"
        for check in proof["runtimes"]:
            ran += f"  - {check['runtime']}: "
            if check["compared"]:
                ran += f"{check['differing']:,} of {check['compared']:,} outputs differ from the"
                ran += f" reference, same class in {100 * check['argmax_agreement']:.5g} %\n"
            else:
                ran += "not run\n"
    return f"""\
{ran}\
- Not run on a chip or in an emulator, and no C is generated yet: RAM, Flash, time and energy are
  what our kernels are expected to need.
- Cycles come from a cost table that was not fitted to a board. The cycle model behind it was within
  10 % of silicon on public programs, not on this one.
- Scores hold for recordings like these. Another mounting, sensor or sampling rate is new data."""
