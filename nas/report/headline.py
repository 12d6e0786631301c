"""The head of the report: data, device, search and best candidate in sentences and tiles."""

from nas.report.choice import candidate_link
from nas.report.data import Candidate, Run
from nas.report.format import (
    METRIC_NAMES,
    count,
    dig,
    esc,
    interval,
    kilobytes,
    names,
    number,
    percent,
    plural,
    short,
)
from nas.report.history import trial_counts
from nas.report.meaning import spent
from nas.run_folder import judged_crosswise

FEW = 20  # networks trained, below which a front says little of what is possible


def device_name(run: Run) -> str:
    """The profile's name as HTML."""
    return esc(dig(run.manifest, "profile", "name"))


def _metric(run: Run) -> str:
    return esc(METRIC_NAMES.get(run.metric, run.metric))


def headline(run: Run) -> str:
    """What was searched, on what, and what came of it."""
    data = run.manifest["data"]
    notes = "".join(f"<li>{esc(note)}</li>" for note in names(run.manifest.get("notes")))
    return (
        f'<header id="top"><p class="eyebrow">Search report</p><h1>{esc(dig(data, "name"))} on '
        f"{device_name(run)}</h1><p>{_sentence_data(run)} {_sentence_device(run)}</p>"
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
    return f"On {device_name(run)}{at} the model may use {', '.join(limits[:-1])} and {limits[-1]}."


def _sentence_search(run: Run) -> str:
    n = trial_counts(run)
    failed = f", and {plural(n['failed'], 'trial')} failed" if n["failed"] else ""
    stopped = f", left {count(n['stopped'])} more halfway" if n["stopped"] else ""
    return (
        f"The search trained <b>{plural(n['trained'], 'network')}</b> in {spent(run)}{stopped}, "
        f"refused {count(n['infeasible'])} by their cost before any training, and met "
        f"{plural(n['duplicate'], 'duplicate')}{failed}. "
        f"<b>{plural(len(run.candidates), 'candidate')}</b> on the front."
        + (" So few networks are a trial run: search for longer." if n["trained"] < FEW else "")
    )


def _sentence_best(run: Run) -> str:
    if not run.candidates:
        return "No network fits the budgets and is trained yet, so the front is empty."
    best = _best(run)
    teacher = dig(run.manifest, "teacher", "val_score")
    beside = ""
    if number(teacher) is not None:
        kind = dig(run.manifest, "teacher", "kind")
        test = dig(run.manifest, "teacher", "test_score")
        beside = f" The {esc(kind)} teacher reaches {percent(teacher)} and {percent(test)}."
    value = best.values
    judged = "cross-validated" if judged_crosswise(run.manifest) else "validation"
    return (
        f"The best one, {candidate_link(best)}, reaches <b>{percent(value['val_score'])}</b> "
        f"{judged} {_metric(run)} and {percent(value['test_score'])} on the test split "
        f"({interval(value['test_low'], value['test_high'])}).{beside}"
    )


def _best(run: Run) -> Candidate:
    return max(run.candidates, key=lambda c: (c.values["val_score"] or 0, -c.index))


def _least(run: Run, column: str) -> Candidate:
    return min(run.candidates, key=lambda c: (c.values[column] or 0, c.index))


def _tiles(run: Run) -> str:
    if not run.candidates:
        return ""
    best = _best(run)
    tiles = [_tile("Best score", percent(best.values["val_score"]), best)]
    tiles += [
        _tile("Knee of the front", percent(c.values["val_score"]), c)
        for c in run.candidates
        if c.id == run.knee
    ]
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
        f"<small>{about}<br>{candidate_link(candidate)}</small></div>"
    )
