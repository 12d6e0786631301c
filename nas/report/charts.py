"""The charts of the front: every pair of objectives as plotly documents, and parallel axes.

The figures are plain data; the scripts in browser/ draw them. A colour is the name of a variable
of report.css, which differs between light and dark. Text that plotly shows is escaped here, since
plotly reads markup in it.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from nas.report.data import Budgets, Candidate, Run, Trial
from nas.report.format import METRIC_NAMES, interval, kilobytes, percent, short
from nas.run_folder import shown_bits

ACCENT, FAINT, GREY, WARN, INK = "--accent", "--accent-faint", "--grey", "--warn", "--ink"
MOST_GREY = 1500  # more trained points than this are thinned evenly
OBJECTIVES = ("error", "ram", "flash", "latency")


@dataclass(frozen=True)
class Axis:
    """One number of a candidate: its column, what one shown unit is worth, whether it is drawn
    logarithmically, and whether more of it is better."""

    column: str
    label: str
    unit: float
    log: bool = True
    more_is_better: bool = False


def axes(run: Run) -> list[Axis]:
    """The objectives of the run that can be drawn; the score stands for the error."""
    known = {
        "error": Axis("val_score", f"Validation {METRIC_NAMES.get(run.metric, 'score')}, %", 0.01,
                      log=False, more_is_better=True),
        "ram": Axis("ram_bytes", "RAM, KB", 1024),
        "flash": Axis("flash_bytes", "Flash, KB", 1024),
        "latency": Axis("latency_ms", "Latency, ms", 1),
        "energy": Axis("energy_uj", "Energy, µJ", 1),
        "arena": Axis("arena_bytes", "Arena, KB", 1024),
        "weights": Axis("weight_bytes", "Weights, KB", 1024),
    }  # fmt: skip
    given = run.manifest.get("objectives")
    chosen = given if isinstance(given, list) else OBJECTIVES
    return [known[name] for name in known if name in chosen]


def parallel_axes(run: Run) -> list[dict[str, Any]]:
    """The objectives, the weights' bytes and bits, with their range over the candidates and ticks.

    Values are in the shown unit; the better end is the upper one.
    """
    chosen = [axis for axis in axes(run) if axis.column != "weight_bytes"]
    chosen += [Axis("weight_bytes", "Weights, KB", 1024),
               Axis("bits", "Bits a weight", 1, log=False)]  # fmt: skip
    documents = []
    for axis in chosen:
        values = [
            v for c in run.candidates if (v := _shown(c.values[axis.column], axis)) is not None
        ]
        low, high = min(values, default=1.0), max(values, default=1.0)
        if low == high:  # an axis needs a length
            low, high = low * 0.9, high * 1.1 or 1.0
        ticks = _ticks(low, high) if axis.log else _even_ticks(low, high)
        label = "Score, %" if axis.column == "val_score" else axis.label
        documents.append(
            {"column": axis.column, "label": label, "unit": axis.unit, "log": axis.log,
             "low": low, "high": high, "ticks": [t for t in ticks if low <= t <= high],
             "moreIsBetter": axis.more_is_better}
        )  # fmt: skip
    return documents


def other_trained(run: Run) -> list[Trial]:
    """Trained trials that are not on the front, one an architecture."""
    front = {candidate.id for candidate in run.candidates}
    others = {t.id: t for t in run.trials if t.status == "trained" and t.val_score is not None}
    return [trial for name, trial in others.items() if name not in front]


def front_figures(run: Run) -> list[dict[str, Any]]:
    """One figure for every pair of objectives; the score is always the upright axis."""
    others = thinned(other_trained(run))
    figures = []
    for first, second in combinations(axes(run), 2):
        x, y = (second, first) if not first.log else (first, second)
        figures.append(_front_figure(run, x, y, others))
    return figures


def _front_figure(run: Run, x: Axis, y: Axis, others: Sequence[Trial]) -> dict[str, Any]:
    grey = [(_of_trial(t, x), _of_trial(t, y), _hover_trial(t)) for t in others]
    shown = [(a, b, text) for a, b, text in grey if a is not None and b is not None]
    points = [(_shown(c.values[x.column], x), _shown(c.values[y.column], y))
              for c in run.candidates]  # fmt: skip
    across = [p[0] for p in points] + [row[0] for row in shown]
    up = [p[1] for p in points] + [row[1] for row in shown]
    layout: dict[str, Any] = {"shapes": [], "annotations": []}
    for key, axis, column in (("x", x, across), ("y", y, up)):
        budget = _shown(_budget(run.budgets, axis), axis)
        layout[f"{key}axis"] = _axis(axis, [*column, budget])
        if budget is not None:
            _add_budget(layout, key, budget, axis.label.rpartition(", ")[2])
    marks = [_mark(c, run) for c in run.candidates]
    front: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "uid": "front",
        "x": [p[0] for p in points], "y": [p[1] for p in points],
        "hovertext": [_hover(c, run) for c in run.candidates], "hoverinfo": "text",
        "marker": {"color": ACCENT, "size": [9 + 3 * (m[0] == "d") for m in marks],
                   "symbol": marks,
                   "line": {"width": 1.5, "color": ACCENT}},
    }  # fmt: skip
    if not y.log:
        front["error_y"] = _error_bars(run.candidates, y)
    return {"kind": "front", "data": [cloud(shown), front, _ring()], "layout": layout}


def _mark(candidate: Candidate, run: Run) -> str:
    """Open where it is not verified; the knee is a diamond."""
    knee = candidate.id == run.knee
    return ("diamond" if knee else "circle") + ("-open" if candidate.verified == "no" else "")


def cloud(rows: Sequence[tuple[float, float, str]]) -> dict[str, Any]:
    """A trace of grey points: (x, y, text to show)."""
    return {
        "type": "scatter", "mode": "markers",
        "x": [row[0] for row in rows], "y": [row[1] for row in rows],
        "hovertext": [row[2] for row in rows], "hoverinfo": "text",
        "marker": {"color": GREY, "size": 5, "opacity": 0.8},
    }  # fmt: skip


def _ring() -> dict[str, Any]:
    """Marks the selected candidate; the page moves it."""
    return {
        "type": "scatter", "mode": "markers", "x": [], "y": [], "hoverinfo": "skip",
        "marker": {"size": 18, "symbol": "circle-open", "color": INK, "line": {"width": 2}},
    }  # fmt: skip


def _error_bars(candidates: Iterable[Candidate], axis: Axis) -> dict[str, Any]:
    above, below = [], []
    for c in candidates:
        score, low, high = (c.values[name] for name in ("val_score", "val_low", "val_high"))
        above.append(_length(score, high, axis))
        below.append(_length(low, score, axis))
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below,
            "color": FAINT, "thickness": 1.2, "width": 3}  # fmt: skip


def _length(low: float | None, high: float | None, axis: Axis) -> float:
    return 0.0 if low is None or high is None else max(0.0, (high - low) / axis.unit)


def _budget(budgets: Budgets, axis: Axis) -> float | None:
    if axis.column == "latency_ms":
        return budgets.latency_ms if budgets.latency_is_limit else None
    found: float | None = getattr(budgets, axis.column, None)
    return found


def _shown(value: float | None, axis: Axis) -> float | None:
    return None if value is None or (axis.log and value <= 0) else value / axis.unit


def _of_trial(trial: Trial, axis: Axis) -> float | None:
    value = trial.costs.get(axis.column) if axis.log else trial.val_score
    return _shown(value, axis)


def _axis(axis: Axis, values: Iterable[float | None]) -> dict[str, Any]:
    plain = [v for v in values if v is not None]
    title = {"title": {"text": axis.label}}
    if not axis.log or not plain:
        return title
    low, high = min(plain) / 1.15, max(plain) * 1.15
    ticks = _ticks(low, high)
    return title | {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones: 1, 2, 5 a decade, more where that gives too few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8)):
        ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(ticks) >= 4:
            return ticks
    return ticks or [low, high]


def _even_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers between two."""
    wide = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(wide))
    step = max(s * power for s in (1, 2, 5) if s * power <= wide)
    first = math.ceil(low / step)
    return [round(i * step, 9) for i in range(first, math.floor(high / step) + 1)]


def _add_budget(layout: dict[str, Any], key: str, budget: float, unit: str) -> None:
    """A dashed line at the budget; annotations of a logarithmic axis take the logarithm."""
    line = {"color": WARN, "width": 1.2, "dash": "dash"}
    text: dict[str, Any] = {"showarrow": False, "text": f"budget {budget:.4g} {unit}",
                            "font": {"size": 11, "color": WARN}}  # fmt: skip
    if key == "x":
        shape = {"type": "line", "xref": "x", "x0": budget, "x1": budget, "yref": "paper",
                 "y0": 0, "y1": 1}  # fmt: skip
        text |= {"xref": "x", "x": math.log10(budget), "yref": "paper", "y": 1,
                 "xanchor": "right", "yanchor": "bottom"}  # fmt: skip
    else:
        shape = {"type": "line", "yref": "y", "y0": budget, "y1": budget, "xref": "paper",
                 "x0": 0, "x1": 1}  # fmt: skip
        text |= {"yref": "y", "y": math.log10(budget), "xref": "paper", "x": 0,
                 "xanchor": "left", "yanchor": "bottom"}  # fmt: skip
    layout["shapes"].append({**shape, "line": line, "layer": "below"})
    layout["annotations"].append(text)


def _hover(candidate: Candidate, run: Run) -> str:
    value, budgets = candidate.values, run.budgets
    lines = [
        f"<b>{plain_text(candidate.id)}</b> ({plain_text(candidate.verified)})",
        _score_line("validation", value, "val"),
        _score_line("test", value, "test"),
        f"RAM {kilobytes(value['ram_bytes'])}{_of(value['ram_bytes'], budgets.ram_bytes)}",
        f"Flash {kilobytes(value['flash_bytes'])}{_of(value['flash_bytes'], budgets.flash_bytes)}",
        f"arena {kilobytes(value['arena_bytes'])}, weights {kilobytes(value['weight_bytes'])}",
        f"{short(value['latency_ms'], 'ms')}, {short(value['energy_uj'], 'µJ')}",
        "RAM, Flash, latency and energy predicted"
        if candidate.verdict is None
        else "RAM and Flash measured, latency and energy modelled",
        f"bits {plain_text(shown_bits(candidate.weight_bits))}",
        f"sensors {plain_text(candidate.modalities)}",
    ]
    return "<br>".join(lines)


def _hover_trial(trial: Trial) -> str:
    cost = trial.costs
    return (
        f"{plain_text(trial.id)}, not on the front<br>validation {percent(trial.val_score)}<br>"
        f"RAM {kilobytes(cost['ram_bytes'])}, Flash {kilobytes(cost['flash_bytes'])}, "
        f"{short(cost['latency_ms'], 'ms')}, predicted"
    )


def _score_line(name: str, value: Mapping[str, float | None], key: str) -> str:
    ends = interval(value[f"{key}_low"], value[f"{key}_high"])
    return f"{name} {percent(value[f'{key}_score'])} ({ends})"


def _of(value: float | None, budget: float | None) -> str:
    return "" if not budget or value is None else f", {percent(value / budget, 0)} of the budget"


def plain_text(value: str) -> str:
    """Text in which plotly sees no markup."""
    return html.escape(value, quote=False)


def thinned(trials: Sequence[Trial]) -> list[Trial]:
    """At most `MOST_GREY` of them, evenly."""
    if len(trials) <= MOST_GREY:
        return list(trials)
    return [trials[i] for i in np.linspace(0, len(trials) - 1, MOST_GREY).astype(int)]
