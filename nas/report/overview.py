"""All candidates at once: filters, parallel axes, every pair of objectives, and the table."""

from collections.abc import Sequence
from typing import Any

from nas.report.charts import MOST_GREY, axes, other_trained
from nas.report.choice import PREDICTABLE
from nas.report.data import Candidate, Run
from nas.report.format import (
    DASH,
    badge,
    count,
    esc,
    interval,
    kilobytes,
    percent,
    plots,
    section,
    short,
)
from nas.run_folder import shown_bits

COLUMNS = (
    ("id", "Candidate"),
    ("verified", "Verified"),
    ("val_score", "#Validation"),
    ("test_score", "#Test"),
    ("arena_bytes", "#Arena"),
    ("weight_bytes", "#Weights"),
    ("ram_bytes", "#RAM"),
    ("flash_bytes", "#Flash"),
    ("latency_ms", "#Latency"),
    ("energy_uj", "#Energy"),
    ("bits", "Bits per layer"),
    ("modalities", "Sensors"),
)
COLUMN_BYTES = ("arena_bytes", "weight_bytes", "ram_bytes", "flash_bytes")
NUMERIC = [i for i, (_, name) in enumerate(COLUMNS) if name[0] == "#"]
LIMITS = (
    ("Score from, %", "val_score"),
    ("RAM up to, KB", "ram_bytes"),
    ("Flash up to, KB", "flash_bytes"),
    ("Latency up to, ms", "latency_ms"),
)


def overview_section(run: Run, figures: Sequence[Any]) -> str:
    """The candidates, in charts and in a table that are linked."""
    others = len(other_trained(run))
    if not run.candidates and not others:
        return section("front", "The candidates", "<p>There is nothing to draw yet.</p>")
    note = (
        "<p>The charts and the table are linked: point at a candidate and it is marked everywhere, "
        "select it for all its details, narrow the choice and the rest steps back.</p>"
    )
    body = note + _filters(run) + _parallel() + _pairs(run, figures, others) + _table(run)
    return section("front", "The candidates", body)


def _filters(run: Run) -> str:
    limits = "".join(
        f'<label>{name}<input type="number" data-filter="{key}" inputmode="decimal" '
        'placeholder="any" step="any" min="0"></label>'
        for name, key in LIMITS
    )
    bits = "".join(f"<option>{bits}</option>" for bits in (4, 2))
    sensors = dict.fromkeys(s for c in run.candidates for s in c.modalities.split("+"))
    uses = "".join(
        f'<label>Sensor {esc(name)}<select data-sensor="{esc(name)}"><option value="">any</option>'
        '<option value="yes">used</option><option value="no">not used</option></select></label>'
        for name in sensors
        if len(sensors) > 1
    )
    return (
        f'<form class="filters" id="filters">{limits}'
        f'<label>Bits up to<select data-filter="most_bits">'
        f'<option value="">any</option>{bits}</select></label>{uses}'
        '<label>Search<input type="search" data-filter="text" placeholder="id"></label>'
        '<span class="shown"><output id="shown"></output> '
        '<button type="reset">Show all</button></span></form>'
    )


def _parallel() -> str:
    return (
        "<h3>All objectives at once</h3>"
        "<p>A line is a candidate; the better end of each axis is the upper one (on a narrow "
        "screen the right one). Drag along an axis to keep only what crosses it there, click the "
        "axis to undo.</p>"
        '<div id="parallel" class="views" tabindex="0" role="application" aria-label="All '
        'objectives at once; arrow keys go through the candidates, enter shows one"></div>'
    )


def _pairs(run: Run, figures: Sequence[Any], others: int) -> str:
    if not figures:
        return ""
    thinned = f" ({count(MOST_GREY)} of {count(others)} are drawn)" if others > MOST_GREY else ""
    key = (
        '<p class="key"><span><i class="dot"></i>on the front, verified</span> '
        '<span><i class="dot open"></i>on the front, not verified</span> '
        '<span><i class="dot knee"></i>knee</span> '
        f'<span><i class="dot grey"></i>trained, not on the front, costs predicted{thinned}</span> '
        '<span><i class="dash"></i>budget</span></p>'
    )
    note = (
        f"<h3>Every pair of the {len(axes(run))} objectives</h3>"
        "<p>Bars are the 90\u00a0% interval of the score; costs are on logarithmic axes. Select a "
        "point to see that candidate; with the box or the lasso of a chart's toolbar, keep a group "
        "of them (double click undoes it).</p>"
    )
    return note + key + plots("front", len(figures))


def _table(run: Run) -> str:
    heads = "".join(
        f'<th scope="col"{" class=n" if i in NUMERIC else ""}>'
        f'<button type="button" data-column="{i + 1}">{name.removeprefix("#")}</button></th>'
        for i, (_, name) in enumerate(COLUMNS)
    )
    rows = "".join(_row(candidate, run) for candidate in run.candidates)
    return (
        '<h3 id="candidates">As a table</h3>'
        '<div class="scroll tall" tabindex="0"><table id="table" class="pick"><thead><tr>'
        f'<th scope="col" class="side">A\u2009/\u2009B</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(candidate: Candidate, run: Run) -> str:
    value = candidate.values
    knee = ' <span class="badge">knee</span>' if candidate.id == run.knee else ""
    kind = "<small>predicted</small>" if candidate.verdict is None else ""
    bits = esc(shown_bits(candidate.weight_bits))
    cells = [
        f'<button type="button" class="open"><code>{esc(candidate.id)}</code></button>{knee}',
        badge(candidate.verified, short_name=True),
        *(
            f"{percent(value[f'{split}_score'])}<small>"
            f"{interval(value[f'{split}_low'], value[f'{split}_high'], DASH)}</small>"
            for split in ("val", "test")
        ),
        *(kilobytes(value[name]) + kind * (name in PREDICTABLE) for name in COLUMN_BYTES),
        short(value["latency_ms"], "ms") + kind,
        short(value["energy_uj"], "µJ") + kind,
        f'<span class="bitlist">{bits.replace("/", "/<wbr>")}</span>'
        f"<small>{short(value['bits'])} a weight</small>",
        f'<span class="bitlist">{esc(candidate.modalities).replace("+", " + ")}</span>',
    ]
    keys = [
        candidate.id,
        candidate.verified,
        *(value[COLUMNS[i][0]] for i in NUMERIC),
        value["bits"],
        candidate.modalities,
    ]
    tds = "".join(
        f'<td data-key="{"" if key is None else esc(key)}"{" class=n" if i in NUMERIC else ""}>'
        f"{cell}</td>"
        for i, (cell, key) in enumerate(zip(cells, keys, strict=True))
    )
    tick = (
        f'<td class="side"><input type="checkbox" data-compare="{candidate.index}" '
        f'aria-label="Compare {esc(candidate.id)}"></td>'
    )
    return f'<tr data-index="{candidate.index}">{tick}{tds}</tr>'
