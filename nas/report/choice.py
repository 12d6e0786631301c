"""Help to choose: the knee of the front, what less of a resource costs, and two side by side."""

from collections.abc import Sequence
from typing import Any

from nas.choosing.choose import KNEE, RESOURCES, FrontRow, Resource, Saving, can_tell_apart, savings
from nas.report.data import Candidate, Run
from nas.report.format import (
    DASH,
    count,
    dig,
    esc,
    interval,
    kilobytes,
    number,
    percent,
    section,
    short,
    table,
)
from nas.run_folder import shown_bits

RESOURCE_NAMES: dict[Resource, str] = {
    "flash": "Flash",
    "ram": "RAM",
    "latency": "latency",
    "weights": "weights",
}
PREDICTABLE = ("ram_bytes", "flash_bytes")  # where a candidate was not run on the emulated chip
MOST_STEPS = 6  # of a ladder that are shown


def candidate_link(candidate: Candidate) -> str:
    """The id as a link that selects the candidate."""
    return (
        f'<a href="#candidate-{candidate.index}" data-select="{candidate.index}">'
        f"<code>{esc(candidate.id)}</code></a>"
    )


def choice_section(run: Run) -> str:
    """The knee, and ladders down from the candidate with the best score; nothing without rows."""
    if not run.rows:
        why = "front.csv lacks intervals, so nothing is recommended." if run.candidates else ""
        return section("choice", "Which one to take", f"<p>{why}</p>") if why else ""
    by_id = {c.id: c for c in run.candidates}
    at = by_id[run.knee or ""]
    best = max(run.rows, key=lambda row: row.val_score)
    value = at.values
    text = (
        f"<p><b>At the knee: {candidate_link(at)}</b>, {percent(value['val_score'])} with "
        f"{kilobytes(value['ram_bytes'])} of RAM, {kilobytes(value['flash_bytes'])} of Flash, "
        f"{short(value['latency_ms'], 'ms')}. {_against(run, at, best)}</p>"
        f'<p class="note">{KNEE} Your own limits come first: set them below.</p>'
    )
    ladders = ladder_tables(run, best.id)
    if ladders:
        text += (
            f"<h3>What less costs, from the best score down ({candidate_link(by_id[best.id])})</h3>"
            + ladders
        )
    return section("choice", "Which one to take", text)


def _against(run: Run, at: Candidate, best: FrontRow) -> str:
    if at.id == best.id:
        return "It also has the best score."
    row = run.rows[at.index]
    lost = f"{100 * (best.val_score - row.val_score):.1f} points below the best score"
    if can_tell_apart(row, best):
        return f"It is {lost}, which is more than chance."
    return f"It is {lost}, which may be chance."


def ladder_tables(run: Run, identity: str) -> str:
    """What less of each resource costs, from one candidate down; "" where nothing is cheaper."""
    chosen = next((row for row in run.rows if row.id == identity), None)
    if chosen is None:
        return ""
    index = {candidate.id: candidate for candidate in run.candidates}
    parts = []
    for resource in RESOURCES:
        steps = savings(run.rows, chosen, resource)
        if steps:
            rows = [_step(step, resource, index[step.row.id]) for step in steps[:MOST_STEPS]]
            rest = len(steps) - MOST_STEPS
            more = f'<p class="note">and {count(rest)} further down</p>' if rest > 0 else ""
            heads = [f"#Less {RESOURCE_NAMES[resource]}", "#Score", "Candidate"]
            parts.append(f"<div>{table(heads, rows)}{more}</div>")
    return f'<div class="ladders">{"".join(parts)}</div>' if parts else ""


def _step(step: Saving, resource: Resource, candidate: Candidate) -> list[str]:
    less = short(step.less, "ms") if resource == "latency" else kilobytes(step.less)
    points = -100 * step.lost
    sign = "+" if points > 0 else "\u2212" if points < 0 else "\u00b1"
    noise = "" if step.real else "<small>may be chance</small>"
    return [
        f"\u2212{less}",
        f"{sign}{abs(points):.1f}\u00a0points{noise}",
        candidate_link(candidate),
    ]


# ---------------------------------------------------------------- two side by side


def comparison(run: Run) -> dict[str, Any]:
    """What the page compares: rows with their kind, the cells of every candidate, who differs.

    `kind` is `score`, `cost` (lower is better), or empty; validation comes first. A cell is
    (text, value). `apart` holds a string for every candidate: "1" where its score can be
    told from the other's.
    """
    sensors = list(dict.fromkeys(s for c in run.candidates for s in c.modalities.split("+")))
    heads = [
        ("Validation", "score"),
        ("Test", "score"),
        ("Worst group of the test split", "score"),
        *((f"Test without {name}", "score") for name in sensors),
        ("RAM", "cost"),
        ("Flash", "cost"),
        ("Arena", "cost"),
        ("Weights", "cost"),
        ("Latency", "cost"),
        ("Energy", "cost"),
        ("Multiply-accumulates", "cost"),
        ("Bits a weight", ""),
        ("Bits per layer", ""),
        ("Sensors", ""),
        ("Verified", ""),
    ]
    return {
        "rows": [{"label": label, "kind": kind} for label, kind in heads],
        "cells": [_cells(candidate, sensors) for candidate in run.candidates],
        "apart": ["".join(str(int(can_tell_apart(a, b))) for b in run.rows) for a in run.rows],
    }


def _cells(candidate: Candidate, sensors: Sequence[str]) -> list[tuple[str, float | None]]:
    value = candidate.values
    worst = number(dig(candidate.document, "groups", "worst", "score"))
    scores = [(_scored(value, split), value[f"{split}_score"]) for split in ("val", "test")]
    absent = [number(dig(candidate.document, "missing_sensors", s, "score")) for s in sensors]
    used = candidate.modalities.split("+")
    missing = [
        (percent(score) if name in used else "not used", score)
        for name, score in zip(sensors, absent, strict=True)
    ]
    macs = sum(op.macs for op in candidate.per_op)
    kind = " (predicted)" if candidate.verdict is None else ""
    sizes = ("ram_bytes", "flash_bytes", "arena_bytes", "weight_bytes")
    return [
        *scores,
        (percent(worst), worst),
        *missing,
        *((kilobytes(value[name]) + kind * (name in PREDICTABLE), value[name]) for name in sizes),
        (short(value["latency_ms"], "ms") + kind, value["latency_ms"]),
        (short(value["energy_uj"], "µJ") + kind, value["energy_uj"]),
        (count(macs), macs),
        (short(value["bits"]), value["bits"]),
        (shown_bits(candidate.weight_bits), None),
        (candidate.modalities.replace("+", " + "), None),
        (candidate.verified, None),
    ]


def _scored(value: Any, split: str) -> str:
    ends = interval(value[f"{split}_low"], value[f"{split}_high"])
    shown = percent(value[f"{split}_score"])
    return shown if ends == DASH else f"{shown} ({ends})"


def comparison_section(run: Run) -> str:
    """Places that the page's scripts fill; hidden without them and with a single candidate."""
    if len(run.candidates) < 2:
        return ""
    options = "".join(f'<option value="{c.index}">{esc(c.id)}</option>' for c in run.candidates)
    pickers = "".join(
        f'<label>Candidate {name}<select data-side="{i}">{options}</select></label>'
        for i, name in enumerate("AB")
    )
    body = (
        "<p>Choose two here, or tick them in the table.</p>"
        f'<div class="filters">{pickers}</div><div id="compared" aria-live="polite"></div>'
    )
    return section("compare", "Two side by side", body)
