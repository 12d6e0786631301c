"""What happened in the search: best score and hypervolume over time, and what was not trained."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.report.charts import ACCENT, GREY, INK, WARN, cloud, plain_text, thinned
from nas.report.data import Budgets, Run, Trial
from nas.report.format import (
    DASH,
    METRIC_NAMES,
    count,
    dig,
    esc,
    kilobytes,
    number,
    percent,
    plots,
    section,
    short,
    table,
)
from nas.search.pareto import Points, hypervolume

CURVE_POINTS = 60
OUTCOME_POINTS = 200
OUTCOMES = {  # status -> name, colour and dashes of its line, what it means
    "trained": ("Trained", ACCENT, "solid", "Fitted the budgets and was trained and scored."),
    "stopped": ("Stopped", GREY, "longdash", "Left halfway: no hope of the front at its cost."),
    "duplicate": ("Duplicate", INK, "dot", "Drawn again: it took over the score of its twin."),
    "infeasible": ("Refused", WARN, "dash", "Over a budget by its predicted cost: never trained."),
    "failed": ("Failed", GREY, "dashdot", "Its training diverged."),
}
BUDGET_NAMES = (
    ("ram_bytes", "RAM"),
    ("flash_bytes", "Flash"),
    ("latency_ms", "Latency"),
    ("weight_bytes", "Weights"),
)


@dataclass(frozen=True)
class CurvePoint:
    """The state of the search after `trained` trained trials; volume is None without budgets."""

    seconds: float
    trained: int
    best: float
    volume: float | None


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


def trial_counts(run: Run) -> dict[str, Any]:
    """Trials by status: of run.json, else counted in trials.csv."""
    counted = Counter(trial.status for trial in run.trials)
    given = {kind: number(dig(run.manifest, "trials", kind)) for kind in OUTCOMES}
    return {kind: counted[kind] if n is None else n for kind, n in given.items()}


def history_figures(run: Run) -> list[dict[str, Any]]:
    """Best score, hypervolume where the budgets are known, and outcomes, all over time.

    `across` holds the same traces over the number of trained networks.
    """
    curve = search_curve(run.trials, run.budgets)
    if not curve:
        return []
    unit, name = _time_unit(max(t.finished_s for t in run.trials))
    done = [t for t in run.trials if t.status == "trained" and t.val_score is not None]
    ranked = {id(t): i for i, t in enumerate(sorted(done, key=lambda t: t.finished_s), 1)}
    shown = thinned(done)
    grey = cloud([(t.finished_s / unit, 100 * (t.val_score or 0), _about(t)) for t in shown])
    best = _steps(curve, unit, [100 * point.best for point in curve], "%")
    count_best = [point.trained for point in curve]
    label = f"Validation {METRIC_NAMES.get(run.metric, 'score')}, %"
    figures = [_figure([grey, best], [[ranked[id(t)] for t in shown], count_best], name, label)]
    volumes = [(point.trained, point.volume) for point in curve if point.volume is not None]
    if volumes:
        steps = _steps(curve, unit, [volume for _, volume in volumes], "hypervolume")
        figures.append(_figure([steps], [[n for n, _ in volumes]], name, "Hypervolume"))
    return [*figures, _outcome_figure(run.trials, unit, name)]


def _about(trial: Trial) -> str:
    return f"{plain_text(trial.id)}: {percent(trial.val_score)}"


def _outcome_figure(trials: Sequence[Trial], unit: float, name: str) -> dict[str, Any]:
    """How many trials of each outcome there were by then: lines that only rise."""
    ordered = sorted(trials, key=lambda t: t.finished_s)
    moments = sorted(
        set(np.linspace(0, len(ordered) - 1, min(len(ordered), OUTCOME_POINTS)).astype(int))
    )
    trained = np.cumsum([t.status == "trained" for t in ordered])
    x = [ordered[i].finished_s / unit for i in moments]
    across = [int(trained[i]) for i in moments]
    traces = []
    for status, (title, colour, dash, _) in OUTCOMES.items():
        sums = np.cumsum([t.status == status for t in ordered])
        if not sums[-1]:
            continue
        traces.append(
            {"type": "scatter", "mode": "lines", "name": title, "x": x,
             "y": [int(sums[i]) for i in moments], "hoverinfo": "name+y",
             "line": {"color": colour, "width": 2.2, "dash": dash, "shape": "hv"}}
        )  # fmt: skip
    figure = _figure(traces, [across] * len(traces), name, "Trials so far")
    figure["layout"]["showlegend"] = True
    return figure


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


def _figure(
    data: list[dict[str, Any]], across: list[list[int]], time: str, label: str
) -> dict[str, Any]:
    titles = {"time": f"Time since the start, {time}", "trained": "Networks trained"}
    x = {"title": {"text": titles["time"]}, "rangemode": "tozero"}
    return {"kind": "history", "data": data, "titles": titles,
            "across": {"time": [trace["x"] for trace in data], "trained": across},
            "layout": {"xaxis": x, "yaxis": {"title": {"text": label}}}}  # fmt: skip


def history_section(run: Run, figures: Sequence[Any]) -> str:
    """The charts over time, what became of the trials, what was refused and why."""
    if not figures:
        charts = "<p>Nothing was trained yet.</p>"
    else:
        volume = number(run.manifest.get("hypervolume"))
        end = f" The exported front has <b>{volume:.4g}</b>." if volume is not None else ""
        charts = (
            "<p>The best score so far, with every trained network in grey; the hypervolume of the "
            f"front so far, that is the share of the space of budgets that it dominates.{end}</p>"
            '<p class="switch" role="group" aria-label="What runs to the right">'
            '<button type="button" data-across="time" aria-pressed="true">over time</button>'
            '<button type="button" data-across="trained" aria-pressed="false">over networks '
            f"trained</button></p>{plots('history', len(figures))}"
        )
    body = (
        f"{charts}<h3>What became of the trials</h3>{_outcomes(run)}{_refused(run)}{_failed(run)}"
    )
    return section("history", "The search over time", body)


def _outcomes(run: Run) -> str:
    counts = trial_counts(run)
    total = sum(counts.values())
    rows = [
        [name, count(counts[status]), percent(counts[status] / total) if total else DASH, about]
        for status, (name, _, _, about) in OUTCOMES.items()
    ]
    return table(["Outcome", "#Trials", "#Share", "What it means"], rows, "reasons")


def refusals(trials: Iterable[Trial], budgets: Budgets) -> dict[str, list[float]]:
    """Budget -> what each refused trial would have taken of it, as a multiple of the budget.

    A trial that is over two budgets counts in both; one that is over none that is known, which
    another version may have written, counts nowhere.
    """
    limits = _limits(budgets)
    over: dict[str, list[float]] = {}
    for trial in trials:
        if trial.status != "infeasible":
            continue
        for column, limit in limits.items():
            cost = trial.costs[column]
            if cost is not None and cost > limit:
                over.setdefault(column, []).append(cost / limit)
    return over


def _limits(budgets: Budgets) -> dict[str, float]:
    limits = {
        "ram_bytes": budgets.ram_bytes,
        "flash_bytes": budgets.flash_bytes,
        "latency_ms": budgets.latency_ms if budgets.latency_is_limit else None,
        "weight_bytes": budgets.weight_bytes,
    }
    return {column: limit for column, limit in limits.items() if limit}


def _refused(run: Run) -> str:
    """What was refused, by budget."""
    refused = [t for t in run.trials if t.status == "infeasible"]
    if not refused:
        return "<p>No trial was refused: all that were drawn fit the budgets.</p>"
    over, limits = refusals(refused, run.budgets), _limits(run.budgets)
    rows = []
    for column, name in BUDGET_NAMES:
        if column not in over:
            continue
        shares = over[column]
        limit = limits[column]
        rows.append(
            [
                name,
                f"{limit:g}\u00a0ms" if column == "latency_ms" else kilobytes(limit),
                count(len(shares)),
                f"{short(min(shares))} to {short(max(shares))} times the budget",
            ]
        )
    note = (
        "<h3>Refused, by budget</h3><p>The cost is predicted before any training, so these took "
        "no training time. A trial can be over more than one budget.</p>"
    )
    return (
        note
        + table(["Budget", "#Limit", "#Refused", "They needed"], rows, "reasons")
        + _reasons(refused, "Reason as recorded")
    )


def _failed(run: Run) -> str:
    failed = [t for t in run.trials if t.status == "failed"]
    return f"<h3>Failed</h3>{_reasons(failed, 'Reason')}" if failed else ""


def _reasons(trials: Sequence[Trial], head: str) -> str:
    """Reasons and how often; those that differ in their numbers alone are one."""
    groups: dict[str, list[str]] = {}
    for trial in trials:
        general = re.sub(r"(?<![\w.])[-+]?\d[\d.,_]*(e[-+]?\d+)?", "…", trial.reason)
        groups.setdefault(general, []).append(trial.reason)
    rows = [
        [esc(general), count(len(reasons)), esc(reasons[0])]
        for general, reasons in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    return table([head, "#Trials", "For example"], rows, "reasons")
