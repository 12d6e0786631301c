"""The detail panel of one candidate: network, chip, costs, memory, errors, checks, files."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nas.hardware.memory import lifetimes
from nas.network.ops import size
from nas.report.chip import emulated, kinds, saved_by_bits, under_tflm
from nas.report.choice import ladder_tables
from nas.report.data import Candidate, Run
from nas.report.drawing import arena_svg, flow_svg
from nas.report.energy import energy_line
from nas.report.format import (
    DASH,
    badge,
    count,
    dig,
    esc,
    facts,
    interval,
    kilobytes,
    names,
    number,
    percent,
    plural,
    records,
    shape,
    short,
    table,
)
from nas.report.words import architecture_words

MOST_CLASSES = 20  # more classes are shown as their most frequent confusions
MOST_CONFUSIONS = 20
HALF_CLASSES = 8  # a matrix of more does not fit half of a panel


def panel(candidate: Candidate, run: Run) -> str:
    """The article that a click on the candidate shows."""
    ladders = ladder_tables(run, candidate.id)
    room = "wide" if len(_matrix(candidate.document.get("confusion"))) > HALF_CLASSES else ""
    parts = [
        _head(candidate, run),
        _block("Architecture", _architecture(candidate), "wide"),
        _block("On the emulated chip", emulated(candidate, run), "wide"),
        _block("What the bits save", saved_by_bits(candidate), "wide"),
        _block("Costs per operator, predicted", _costs(candidate), "wide"),
        _block("The arena over time", _arena(candidate), "wide"),
        _block("Confusion on the test split", confusion(candidate.document), room),
        f'<div class="stack {room}">'
        + _block("With a sensor missing", _missing_sensors(candidate))
        + _block("Worst group of the test split", _worst_group(candidate.document))
        + _block("Energy", energy_line(candidate, run))
        + "</div>",
        _block("What less costs, from this one down", ladders, "wide ladder") if ladders else "",
        _block("Verification", _verification(candidate.verification), "wide"),
        _block("What it takes in", _inputs(candidate.document), "wide"),
        _block("The same network under TFLM", under_tflm(candidate)),
        _block("Training", _training(candidate.document)),
        _block("Files", _files(candidate)),
    ]
    return (
        f'<article class="detail" id="candidate-{candidate.index}" data-index="{candidate.index}" '
        f'aria-label="Candidate {esc(candidate.id)}">{"".join(parts)}</article>'
    )


def _block(title: str, body: str, kind: str = "") -> str:
    return f'<section class="block {kind}"><h4>{title}</h4>{body}</section>'


def _head(candidate: Candidate, run: Run) -> str:
    value = candidate.values
    size, time = (f"<small>{kind}</small>" for kind in kinds(candidate))
    numbers = facts(
        [
            ("Validation", _score(value, "val")),
            ("Test", _score(value, "test")),
            ("RAM", kilobytes(value["ram_bytes"]) + size),
            ("Flash", kilobytes(value["flash_bytes"]) + size),
            ("Latency", short(value["latency_ms"], "ms") + time),
            ("Energy", short(value["energy_uj"], "µJ") + time),
        ]
    )
    knee = ' <span class="badge">knee</span>' if candidate.id == run.knee else ""
    command = f"nas pick {shlex.quote(str(run.folder))} {candidate.id} --out {candidate.id}"
    return (
        f'<header><h3 tabindex="-1"><code>{esc(candidate.id)}</code> '
        f"{badge(candidate.verified)}{knee}</h3>"
        '<p class="links"><button type="button" data-step="-1">\u2190 previous</button> '
        '<button type="button" data-step="1">next \u2192</button> '
        '<button type="button" data-back>back to the charts</button></p>'
        f"{numbers}"
        f'<p class="export">To take it: <code data-command="{esc(candidate.id)}">{esc(command)}'
        '</code> <button type="button" data-copy>Copy</button></p></header>'
    )


def _score(value: Mapping[str, float | None], split: str) -> str:
    ends = interval(value[f"{split}_low"], value[f"{split}_high"])
    small = "" if ends == DASH else f"<small>{ends}</small>"
    return f"{percent(value[f'{split}_score'])}{small}"


def _architecture(candidate: Candidate) -> str:
    words = "".join(
        f"<li><b>{esc(part)}</b>: {esc(text)}</li>"
        for part, text in architecture_words(candidate.graph)
    )
    return (
        f'<ul class="words">{words}</ul>'
        f'<div class="scroll" tabindex="0">{flow_svg(candidate.graph)}</div>'
    )


def _costs(candidate: Candidate) -> str:
    step = {name: i for i, name in enumerate(candidate.plan.order, 1)}
    rows = sorted(candidate.per_op, key=lambda op: step.get(op.name, len(step) + 1))
    total = sum(op.cycles for op in rows)
    heads = "Step|Operator|Kernel|#MACs|#Cycles|Share|#Weights, B|#Output, B|#Scratch, B"
    cells = [
        [
            str(step.get(op.name, DASH)),
            esc(op.name),
            f"<code>{esc(op.kernel)}</code>",
            count(op.macs),
            count(op.cycles),
            _bar(op.cycles / total if total else 0.0),
            count(op.weight_bytes),
            count(op.output_bytes),
            count(op.scratch_bytes),
        ]
        for op in rows
    ]
    macs, weights = sum(op.macs for op in rows), sum(op.weight_bytes for op in rows)
    sums = ["", "Sum", "", count(macs), count(total), "", count(weights), "", ""]
    return table(heads.split("|"), [*cells, [f"<b>{s}</b>" if s else "" for s in sums]])


def _bar(share: float) -> str:
    width = min(100.0, max(0.0, 100 * share))
    return f'<span class="bar"><i style="width:{width:.1f}%"></i></span>{percent(share, 0)}'


def _arena(candidate: Candidate) -> str:
    plan = candidate.plan
    note = f"The arena takes {count(plan.arena_bytes)} bytes."
    note += (
        " That is what the operators of this order need at once, so no placement is smaller."
        if plan.arena_bytes <= plan.lower_bound_bytes
        else f" The operators of this order need {count(plan.lower_bound_bytes)} at once."
    )
    note += " Each rectangle is a tensor: its steps from left to right, its bytes upwards."
    return (
        f'<p class="note">{note}</p>'
        f'<div class="scroll" tabindex="0">{arena_svg(candidate.graph, plan)}</div>'
        f"<details><summary>All {len(plan.offsets)} buffers</summary>{_buffers(candidate)}"
        "</details>"
    )


def _buffers(candidate: Candidate) -> str:
    """Every tensor with its place and time, by the time at which it begins."""
    graph, plan = candidate.graph, candidate.plan
    reused = plan.in_place
    spans = sorted(lifetimes(graph, plan).items(), key=lambda item: item[1])
    rows = [
        [
            esc(name),
            shape(graph.shapes[name]),
            count(size(graph.shapes[name])),
            f"{plan.offsets[name]}\u2013{plan.offsets[name] + size(graph.shapes[name]) - 1}",
            f"{math.floor(first)}\u2013{math.ceil(last) - 1}",
            f"in place of {esc(reused[name])}" if name in reused else "",
        ]
        for name, (first, last) in spans
    ]
    return table(["Buffer", "Shape", "#Bytes", "#At bytes", "#Live in steps", ""], rows)


def _missing_sensors(candidate: Candidate) -> str:
    """Test score with each sensor at its training mean."""
    missing = candidate.document.get("missing_sensors")
    if not isinstance(missing, Mapping) or not missing:
        return _absent("Not recorded: the run was written by an earlier version.")
    whole = candidate.values["test_score"]
    rows = [["none", percent(whole), ""]]
    for name, given in missing.items():
        score = number(dig(given, "score"))
        lost = DASH
        if score is not None and whole is not None:
            lost = f"{100 * (score - whole):+.1f}\u00a0points".replace("-", "\u2212")
        rows.append([esc(name), percent(score), lost])
    note = (
        "Missing means: all of the sensor's input stands at its training mean, as if the program "
        "fed in a constant. The network was not trained for it."
    )
    return f'<p class="note">{note}</p>' + table(["Missing", "#Test", "#Change"], rows)


def confusion(document: Mapping[str, Any]) -> str:
    """The matrix, or the most frequent confusions where there are many classes."""
    matrix = _matrix(document.get("confusion"))
    if not matrix:
        return _absent("The folder holds no confusion matrix.")
    labels = names(document.get("classes"))
    labels += [f"class {i}" for i in range(len(labels), len(matrix))]
    if len(matrix) > MOST_CLASSES:
        return _confusions(matrix, labels)
    heads = ["Truth", *(f"#{i}" for i in range(1, len(matrix) + 1)), "#Recall"]
    rows = []
    for i, row in enumerate(matrix):
        whole = sum(row)
        cells = [_shade(n, whole, i == j) for j, n in enumerate(row)]
        found = percent(row[i] / whole) if whole else DASH
        rows.append([f"{i + 1}\u2002{esc(labels[i])}", *cells, found])
    return table(heads, rows, "confusion")


def _matrix(value: Any) -> list[list[float]]:
    """A square matrix of numbers, or nothing."""
    rows = value if isinstance(value, list) else []
    matrix = [[number(n) or 0.0 for n in row] for row in rows if isinstance(row, list)]
    return matrix if all(len(row) == len(rows) for row in matrix) else []


def _shade(n: float, whole: float, right: bool) -> str:
    share = n / whole if whole else 0.0
    kind = "right" if right else "wrong"
    return f'<span class="cell {kind}" style="--share:{100 * share:.0f}%">{n:.0f}</span>'


def _confusions(matrix: Sequence[Sequence[float]], labels: Sequence[str]) -> str:
    wrong = [
        (n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n > 0
    ]
    wrong.sort(reverse=True)
    rows = [[esc(labels[i]), esc(labels[j]), count(n)] for n, i, j in wrong[:MOST_CONFUSIONS]]
    return f'<p class="note">{len(matrix)} classes; the most frequent confusions:</p>' + table(
        ["Truth", "Taken for", "#Rows"], rows
    )


def _worst_group(document: Mapping[str, Any]) -> str:
    worst = dig(document, "groups", "worst")
    if not isinstance(worst, Mapping):
        return _absent("The data has no groups.")
    return (
        f"<p>Group <b>{esc(worst.get('group'))}</b>: {percent(worst.get('score'))} on "
        f"{plural(worst.get('rows'), 'row')}.</p>"
    )


def _verification(document: Mapping[str, Any] | None) -> str:
    if document is None:
        return _absent("Not verified: the folder holds no verification.json.")
    heads = "Runtime|#Outputs compared|#Differing|#Largest difference|#Same class|Note"
    rows = [
        [
            esc(row.get("runtime")),
            count(row.get("compared")),
            count(row.get("differing")),
            count(row.get("largest_difference")),
            percent(row.get("argmax_agreement"), 2),
            esc(row.get("note")),
        ]
        for row in records(document.get("runtimes"))
    ]
    failure = document.get("failure")
    failed = f" Its C was not run on the emulated chip: {esc(failure)}" if failure else ""
    return (
        f'<p class="note">{badge(str(document.get("verified") or "no"))} Files compared with the '
        f"integer reference on {plural(document.get('inputs'), 'input')}.{failed}</p>"
        + table(heads.split("|"), rows, "reasons")
    )


def _inputs(document: Mapping[str, Any]) -> str:
    inputs = document.get("inputs")
    if not isinstance(inputs, Mapping) or not inputs:
        return _absent("architecture.json does not list the inputs.")
    rows = []
    for name, given in inputs.items():
        sizes = dig(given, "shape")
        rows.append(
            [
                esc(name),
                esc(dig(given, "kind")),
                esc(shape(sizes) if isinstance(sizes, list) else None),
                _some(dig(given, "mean")),
                _some(dig(given, "std")),
                _some(dig(given, "scale")),
                _some(dig(given, "zero_point")),
            ]
        )
    return table(["Sensor", "Kind", "Shape", "Mean", "Deviation", "Scale", "Zero point"], rows)


def _some(value: Any) -> str:
    """A number, or the first few of a list."""
    if not isinstance(value, list):
        plain = number(value)
        return DASH if plain is None else f"{plain:.3g}"
    more = f" and {len(value) - 6} more" if len(value) > 6 else ""
    return ", ".join(_some(v) for v in value[:6]) + more


def _training(document: Mapping[str, Any]) -> str:
    training = document.get("training")
    if not isinstance(training, Mapping):
        return _absent("architecture.json does not tell.")
    scores = training.get("val_scores")
    shown = [percent(s) for s in scores[:12]] if isinstance(scores, list) else []
    weights = str(training.get("weights_hash") or "")[:16]
    return facts(
        [
            ("Trainings (seeds)", count(training.get("seeds"))),
            ("Steps of each", count(training.get("steps"))),
            ("Validation scores", ", ".join(shown) or DASH),
            ("Weights", f"<code>{esc(weights)}</code>"),
        ]
    )


def _files(candidate: Candidate) -> str:
    home = f"candidates/{quote(candidate.id)}/"
    items = "".join(
        f'<li><a href="{esc(home + quote(name))}">{esc(name)}</a></li>' for name in candidate.files
    )
    return f'<ul class="files">{items}</ul>'


def _absent(text: str) -> str:
    return f'<p class="note">{text}</p>'
