"""report.html of a run: one file that opens offline and shows the front, its members, the search.

The page is made of the files of the run folder alone, so it can be written again at any time. The
style and the behaviour of the page are in report.css and report.js beside this module.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from nas.report.candidate import panel
from nas.report.charts import MOST_GREY, axes, front_figures, history_figures, other_trained
from nas.report.data import Candidate, Run, read_run
from nas.report.format import (
    DASH,
    METRIC_NAMES,
    badge,
    count,
    dig,
    esc,
    interval,
    kilobytes,
    names,
    number,
    percent,
    plural,
    script_json,
    short,
    table,
)
from nas.report.meaning import meaning, origin, spent
from nas.run_folder import write_atomic

# Nothing may be loaded from anywhere: a reader can trust the page offline and with private data.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
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
    ("weight_bits", "Bits per layer"),
    ("modalities", "Sensors"),
)


COLUMN_BYTES = ("arena_bytes", "weight_bytes", "ram_bytes", "flash_bytes")


def write_report(run: Path) -> Path:
    """Writes report.html into the run folder and returns its path.

    Raises:
        RunError: a file of the run is missing or torn, or the page cannot be written.
    """
    path = run / "report.html"
    write_atomic(path, _page(read_run(run)).encode())
    return path


def _page(run: Run) -> str:
    here = Path(__file__).parent
    figures = {"front": front_figures(run), "history": history_figures(run)}
    plots = {**figures, "candidates": [{"id": c.id, **c.values} for c in run.candidates]}
    main = [
        _headline(run),
        _front(run, figures["front"]),
        _candidates(run),
        _details(run),
        _history(run, figures["history"]),
        _refused(run),
        meaning(run),
        origin(run),
    ]
    title = f"Report: {esc(dig(run.manifest, 'data', 'name'))} on {_device(run)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{(here / 'report.css').read_text()}</style></head>"
        f"<body><main>{''.join(main)}</main>\n<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="plots">{script_json(plots)}</script>\n'
        f"<script>{(here / 'report.js').read_text()}</script></body></html>\n"
    )


def _device(run: Run) -> str:
    return esc(dig(run.manifest, "profile", "name"))


def _section(key: str, title: str, body: str) -> str:
    return f'<section id="{key}"><h2>{title}</h2>{body}</section>'


def _metric(run: Run) -> str:
    return esc(METRIC_NAMES.get(run.metric, run.metric))


def _headline(run: Run) -> str:
    data = run.manifest["data"]
    notes = "".join(f"<li>{esc(note)}</li>" for note in names(run.manifest.get("notes")))
    return (
        f'<header id="top"><p class="eyebrow">Search report</p><h1>{esc(dig(data, "name"))} on '
        f"{_device(run)}</h1><p>{_sentence_data(run)} {_sentence_device(run)}</p>"
        f"<p>{_sentence_search(run)}</p><p>{_sentence_best(run)}</p>{_tiles(run)}"
        f"{'<ul class=notes>' + notes + '</ul>' if notes else ''}</header>"
    )


def _sentence_data(run: Run) -> str:
    rows = [number(dig(run.manifest, "data", "rows", split)) for split in ("train", "val", "test")]
    sensors = names(dig(run.manifest, "data", "modalities"))
    classes = names(dig(run.manifest, "data", "classes"))
    split = f"{count(rows[0])} to train, {count(rows[1])} to validate, {count(rows[2])} to test"
    return (
        f"The data has {plural(sum(n or 0 for n in rows), 'row')} ({split}), "
        f"{plural(len(classes), 'class', 'classes')} and {plural(len(sensors), 'sensor')}: "
        f"{esc(', '.join(sensors) or None)}."
    )


def _sentence_device(run: Run) -> str:
    budgets = run.budgets
    clock = number(dig(run.manifest, "profile", "clock_hz"))
    limits = [
        f"{kilobytes(budgets.ram_bytes)} of RAM",
        f"{kilobytes(budgets.flash_bytes)} of Flash",
    ]
    if budgets.weight_bytes is not None:
        limits.append(f"{kilobytes(budgets.weight_bytes)} of weights")
    if budgets.latency_is_limit:
        limits.append(f"{budgets.latency_ms:g}\u00a0ms an inference")
    at = f" at {clock / 1e6:g}\u00a0MHz" if clock else ""
    return f"On {_device(run)}{at} the model may use {', '.join(limits[:-1])} and {limits[-1]}."


def _trial_counts(run: Run) -> dict[str, Any]:
    """Trials by status: of run.json, else counted in trials.csv."""
    counted = Counter(trial.status for trial in run.trials)
    kinds = ("trained", "duplicate", "infeasible", "failed")
    given = {kind: number(dig(run.manifest, "trials", kind)) for kind in kinds}
    return {kind: counted[kind] if n is None else n for kind, n in given.items()}


def _sentence_search(run: Run) -> str:
    n = _trial_counts(run)
    failed = f", and {plural(n['failed'], 'trial')} failed" if n["failed"] else ""
    return (
        f"The search trained <b>{plural(n['trained'], 'network')}</b> in {spent(run)}, refused "
        f"{count(n['infeasible'])} by their cost before any training, and met "
        f"{plural(n['duplicate'], 'duplicate')}{failed}. "
        f"<b>{plural(len(run.candidates), 'candidate')}</b> stand on the front."
    )


def _sentence_best(run: Run) -> str:
    if not run.candidates:
        return "No network fits the budgets and is trained yet, so the front is empty."
    best = _best(run)
    teacher = dig(run.manifest, "teacher", "val_score")
    beside = ""
    if number(teacher) is not None:
        kind = dig(run.manifest, "teacher", "kind")
        beside = f" The {esc(kind)} teacher reaches {percent(teacher)}."
    value = best.values
    return (
        f"The best one, {_link(best)}, reaches <b>{percent(value['val_score'])}</b> validation "
        f"{_metric(run)} and {percent(value['test_score'])} on the test split "
        f"({interval(value['test_low'], value['test_high'])}).{beside}"
    )


def _best(run: Run) -> Candidate:
    return max(run.candidates, key=lambda c: (c.values["val_score"] or 0, -c.index))


def _least(run: Run, column: str) -> Candidate:
    return min(run.candidates, key=lambda c: (c.values[column] or 0, c.index))


def _link(candidate: Candidate) -> str:
    return (
        f'<a href="#candidate-{candidate.index}" data-select="{candidate.index}">'
        f"<code>{esc(candidate.id)}</code></a>"
    )


def _tiles(run: Run) -> str:
    if not run.candidates:
        return ""
    best = _best(run)
    tiles = [_tile("Best score", percent(best.values["val_score"]), best)]
    for column, name in (("ram_bytes", "Least RAM"), ("flash_bytes", "Least Flash")):
        small = _least(run, column)
        tiles.append(_tile(name, kilobytes(small.values[column]), small))
    fast = _least(run, "latency_ms")
    tiles.append(_tile("Fastest", short(fast.values["latency_ms"], "ms"), fast))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(name: str, value: str, candidate: Candidate) -> str:
    ram = kilobytes(candidate.values["ram_bytes"])
    about = f"{percent(candidate.values['val_score'])} in {ram} of RAM"
    return (
        f'<div class="tile"><span>{name}</span><strong>{value}</strong>'
        f"<small>{about}<br>{_link(candidate)}</small></div>"
    )


def _front(run: Run, figures: Sequence[Any]) -> str:
    if not figures:
        body = "<p>One objective alone has no front; see the table.</p>"
        return _section("front", "The front", body)
    others = len(other_trained(run))
    if not run.candidates and not others:
        return _section("front", "The front", "<p>There is nothing to draw yet.</p>")
    thinned = f" ({count(MOST_GREY)} of {count(others)} are drawn)" if others > MOST_GREY else ""
    key = (
        '<p class="key"><span><i class="dot"></i>on the front, verified</span> '
        '<span><i class="dot open"></i>on the front, not verified</span> '
        f'<span><i class="dot grey"></i>trained, not on the front{thinned}</span> '
        '<span><i class="dash"></i>budget</span></p>'
    )
    note = (
        f"<p>Every pair of the {len(axes(run))} objectives. Bars are the 90\u00a0% interval of the "
        "score; costs are on logarithmic axes. Select a point to see that candidate.</p>"
    )
    return _section("front", "The front in every pair of objectives", note + key + _plots(
        "front", len(figures)))  # fmt: skip


def _plots(kind: str, n: int) -> str:
    return '<div class="plots">' + f'<div class="plot" data-kind="{kind}"></div>' * n + "</div>"


def _candidates(run: Run) -> str:
    filters = "".join(
        f'<label>{name}<input type="{kind}" data-filter="{key}" inputmode="{mode}" '
        f'placeholder="{hint}" step="any"></label>'
        for name, key, kind, mode, hint in (
            ("Search", "text", "search", "search", "id, sensor, bits"),
            ("Score at least, %", "val_score", "number", "decimal", "any"),
            ("RAM at most, KB", "ram_bytes", "number", "decimal", "any"),
            ("Flash at most, KB", "flash_bytes", "number", "decimal", "any"),
            ("Latency at most, ms", "latency_ms", "number", "decimal", "any"),
        )
    )
    heads = "".join(
        f'<th scope="col"{" class=n" if name[0] == "#" else ""}>'
        f'<button type="button" data-column="{i}">{name.removeprefix("#")}</button></th>'
        for i, (_, name) in enumerate(COLUMNS)
    )
    rows = "".join(_row(candidate) for candidate in run.candidates)
    body = (
        f'<div class="filters">{filters}<output id="shown"></output></div>'
        '<div class="scroll" tabindex="0"><table id="table" class="pick"><thead><tr>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    return _section("candidates", "The candidates", body)


def _row(candidate: Candidate) -> str:
    value = candidate.values
    cells = [
        f'<button type="button" class="open"><code>{esc(candidate.id)}</code></button>',
        badge(candidate.verified, short_name=True),
        *(
            f"{percent(value[f'{split}_score'])}<small>"
            f"{interval(value[f'{split}_low'], value[f'{split}_high'], DASH)}</small>"
            for split in ("val", "test")
        ),
        *(kilobytes(value[name]) for name in COLUMN_BYTES),
        short(value["latency_ms"], "ms"),
        short(value["energy_uj"], "µJ"),
        f'<span class="bitlist">{esc(candidate.weight_bits).replace("/", "/<wbr>")}</span>',
        f'<span class="bitlist">{esc(candidate.modalities).replace("+", " + ")}</span>',
    ]
    keys = [
        candidate.id,
        candidate.verified,
        *(value[name] for name, _ in COLUMNS[2:10]),
        candidate.weight_bits,
        candidate.modalities,
    ]
    tds = "".join(
        f'<td data-key="{"" if key is None else esc(key)}"{" class=n" if 2 <= i < 10 else ""}>'
        f"{cell}</td>"
        for i, (cell, key) in enumerate(zip(cells, keys, strict=True))
    )
    return f'<tr data-index="{candidate.index}">{tds}</tr>'


def _details(run: Run) -> str:
    panels = "".join(panel(candidate) for candidate in run.candidates)
    return f'<section id="details" aria-live="polite">{panels}</section>' if panels else ""


def _history(run: Run, figures: Sequence[Any]) -> str:
    if not figures:
        return _section("history", "The search over time", "<p>Nothing was trained yet.</p>")
    volume = number(run.manifest.get("hypervolume"))
    end = f" It ended at <b>{volume:.4g}</b>." if volume is not None else ""
    note = (
        "<p>The best score so far, with every trained network in grey, and the hypervolume of the "
        f"front so far: the share of the space of budgets that it dominates.{end}</p>"
    )
    return _section("history", "The search over time", note + _plots("history", len(figures)))


def _refused(run: Run) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for trial in run.trials:
        if trial.status in ("infeasible", "failed"):
            # Reasons that differ in their numbers alone are one reason.
            general = re.sub(r"(?<![\w.])[-+]?\d[\d.,_]*(e[-+]?\d+)?", "…", trial.reason)
            groups.setdefault((trial.status, general), []).append(trial.reason)
    if not groups:
        return _section("refused", "Refused trials", "<p>No trial was refused.</p>")
    rows = [
        [esc(status), esc(general), count(len(reasons)), esc(reasons[0])]
        for (status, general), reasons in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    note = "<p>Infeasible trials were refused by their exact cost and cost no training.</p>"
    heads = ["Status", "Reason", "#Trials", "For example"]
    return _section("refused", "Refused trials", note + table(heads, rows, "reasons"))
