"""The charts of the report as plotly documents, and the history they show.

The figures are plain data; report.js draws them. Text that plotly shows is escaped here, since
plotly reads markup in it.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from nas.pareto import Points, hypervolume
from nas.report.data import Budgets, Candidate, Run, Trial
from nas.report.format import METRIC_NAMES, interval, kilobytes, percent, short

ACCENT, GREY, LINE, INK = "#0f6b8f", "#c3cad1", "#b4552d", "#3b4650"
CURVE_POINTS = 60
MOST_GREY = 1500  # more trained points than this are thinned evenly
OBJECTIVES = ("error", "ram", "flash", "latency")


@dataclass(frozen=True)
class Axis:
    """One objective: its column, what one shown unit is worth, and whether it is logarithmic."""

    column: str
    label: str
    unit: float
    log: bool = True


@dataclass(frozen=True)
class CurvePoint:
    """The state of the search after `trained` trained trials; volume is None without budgets."""

    seconds: float
    trained: int
    best: float
    volume: float | None


def axes(run: Run) -> list[Axis]:
    """The objectives of the run that can be drawn; the score stands for the error."""
    known = {
        "error": Axis("val_score", f"Validation {METRIC_NAMES.get(run.metric, 'score')}, %", 0.01,
                      log=False),
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


def other_trained(run: Run) -> list[Trial]:
    """Trained trials that are not on the front, one an architecture."""
    front = {candidate.id for candidate in run.candidates}
    others = {t.id: t for t in run.trials if t.status == "trained" and t.val_score is not None}
    return [trial for name, trial in others.items() if name not in front]


def front_figures(run: Run) -> list[dict[str, Any]]:
    """One figure for every pair of objectives; the score is always the upright axis."""
    others = _thinned(other_trained(run))
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
    marks = ["circle" if c.verified != "no" else "circle-open" for c in run.candidates]
    front: dict[str, Any] = {
        "type": "scatter", "mode": "markers",
        "x": [p[0] for p in points], "y": [p[1] for p in points],
        "hovertext": [_hover(c, run) for c in run.candidates], "hoverinfo": "text",
        "marker": {"color": ACCENT, "size": 9, "symbol": marks,
                   "line": {"width": 1.5, "color": ACCENT}},
    }  # fmt: skip
    if not y.log:
        front["error_y"] = _error_bars(run.candidates, y)
    return {"kind": "front", "data": [_cloud(shown), front, _ring()], "layout": layout}


def _cloud(rows: Sequence[tuple[float, float, str]]) -> dict[str, Any]:
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
            "color": "rgba(15,107,143,.4)", "thickness": 1.2, "width": 3}  # fmt: skip


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


def _add_budget(layout: dict[str, Any], key: str, budget: float, unit: str) -> None:
    """A dashed line at the budget; annotations of a logarithmic axis take the logarithm."""
    line = {"color": LINE, "width": 1.2, "dash": "dash"}
    text: dict[str, Any] = {"showarrow": False, "text": f"budget {budget:.4g} {unit}",
                            "font": {"size": 11, "color": LINE}}  # fmt: skip
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
        f"<b>{_text(candidate.id)}</b> ({_text(candidate.verified)})",
        _score_line("validation", value, "val"),
        _score_line("test", value, "test"),
        f"RAM {kilobytes(value['ram_bytes'])}{_of(value['ram_bytes'], budgets.ram_bytes)}",
        f"Flash {kilobytes(value['flash_bytes'])}{_of(value['flash_bytes'], budgets.flash_bytes)}",
        f"arena {kilobytes(value['arena_bytes'])}, weights {kilobytes(value['weight_bytes'])}",
        f"{short(value['latency_ms'], 'ms')}, {short(value['energy_uj'], 'µJ')}",
        f"bits {_text(candidate.weight_bits)}",
        f"sensors {_text(candidate.modalities)}",
    ]
    return "<br>".join(lines)


def _hover_trial(trial: Trial) -> str:
    cost = trial.costs
    return (
        f"{_text(trial.id)}, not on the front<br>validation {percent(trial.val_score)}<br>"
        f"RAM {kilobytes(cost['ram_bytes'])}, Flash {kilobytes(cost['flash_bytes'])}, "
        f"{short(cost['latency_ms'], 'ms')}"
    )


def _score_line(name: str, value: Mapping[str, float | None], key: str) -> str:
    ends = interval(value[f"{key}_low"], value[f"{key}_high"])
    return f"{name} {percent(value[f'{key}_score'])} ({ends})"


def _of(value: float | None, budget: float | None) -> str:
    return "" if not budget or value is None else f", {percent(value / budget, 0)} of the budget"


def _text(value: str) -> str:
    return html.escape(value, quote=False)


def _thinned(trials: Sequence[Trial]) -> list[Trial]:
    if len(trials) <= MOST_GREY:
        return list(trials)
    return [trials[i] for i in np.linspace(0, len(trials) - 1, MOST_GREY).astype(int)]


def search_curve(trials: Iterable[Trial], budgets: Budgets) -> list[CurvePoint]:
    """Best score and hypervolume after at most `CURVE_POINTS` moments, in the order of time."""
    done = [t for t in trials if t.status == "trained" and t.val_score is not None]
    done.sort(key=lambda trial: trial.finished_s)
    if not done:
        return []
    moments = set(np.linspace(0, len(done) - 1, min(len(done), CURVE_POINTS)).astype(int).tolist())
    kept: Points = np.empty((0, 4))
    best, volume, curve = 0.0, 0.0, []
    for i, trial in enumerate(done):
        best = max(best, trial.val_score or 0.0)
        point = normalised(trial, budgets)
        if point is not None:
            kept, gained = _gain(kept, point)
            volume += gained
        if i in moments:
            shown = volume if budgets.ram_bytes and budgets.flash_bytes else None
            curve.append(CurvePoint(trial.finished_s, i + 1, best, shown))
    return curve


def normalised(trial: Trial, budgets: Budgets) -> Points | None:
    """(4,) error, RAM and Flash as shares of their budgets, latency of its limit."""
    cost = [trial.costs[name] for name in ("ram_bytes", "flash_bytes", "latency_ms")]
    limits = [budgets.ram_bytes, budgets.flash_bytes, budgets.latency_ms]
    if trial.val_score is None or None in cost or not all(limits):
        return None
    shares = [float(c or 0) / float(b or 1) for c, b in zip(cost, limits, strict=True)]
    return np.array([1 - trial.val_score, *shares])


def _gain(kept: Points, point: Points) -> tuple[Points, float]:
    """The front with `point`, and the volume up to 1 in each coordinate that only it dominates.

    That is its own box less what the others dominate of it; adding it up is far cheaper than the
    volume of every front from anew.
    """
    corner = np.ones(4)
    if (point >= corner).any() or (kept <= point).all(1).any():
        return kept, 0.0
    gained = float((corner - point).prod()) - hypervolume(np.maximum(kept, point), corner)
    kept = kept[~(point <= kept).all(1)]
    return np.concatenate([kept, point[None]]), max(0.0, gained)


def history_figures(run: Run) -> list[dict[str, Any]]:
    """Best score over time, and hypervolume over time where the budgets are known."""
    curve = search_curve(run.trials, run.budgets)
    if not curve:
        return []
    unit, name = _time_unit(curve[-1].seconds)
    trained = _thinned([t for t in run.trials if t.status == "trained" and t.val_score is not None])
    cloud = _cloud([(t.finished_s / unit, 100 * (t.val_score or 0), _text(t.id)) for t in trained])
    metric = METRIC_NAMES.get(run.metric, "score")
    best = _steps(curve, unit, [100 * point.best for point in curve], "%")
    figures = [_history_figure([cloud, best], name, f"Validation {metric}, %")]
    volumes = [point.volume for point in curve if point.volume is not None]
    if volumes:
        steps = _steps(curve, unit, volumes, "hypervolume")
        figures.append(_history_figure([steps], name, "Hypervolume"))
    return figures


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 180:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")


def _steps(
    curve: Sequence[CurvePoint], unit: float, values: Sequence[float], what: str
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": [point.seconds / unit for point in curve],
        "y": list(values), "line": {"color": ACCENT, "width": 2.2, "shape": "hv"},
        "hovertext": [
            f"{value:.4g} {what} after {point.trained} trained"
            for value, point in zip(values, curve, strict=True)
        ],
        "hoverinfo": "text",
    }  # fmt: skip


def _history_figure(data: list[dict[str, Any]], time: str, label: str) -> dict[str, Any]:
    x = {"title": {"text": f"Time since the start, {time}"}, "rangemode": "tozero"}
    return {"kind": "history", "data": data,
            "layout": {"xaxis": x, "yaxis": {"title": {"text": label}}}}  # fmt: skip
