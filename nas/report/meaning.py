"""The closing sections of the report: what its numbers mean, and how the run was made."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nas.choosing.measured import CYCLE_BAND, misses_text
from nas.report.data import Run
from nas.report.format import (
    DASH,
    METRIC_NAMES,
    count,
    dig,
    duration,
    esc,
    facts,
    kilobytes,
    names,
    number,
    percent,
    table,
)
from nas.run_folder import judged_crosswise

KINDS = (
    ("Validation and test score", "measured",
     "On integers, as the reference, TFLM and the integer ONNX file compute them; LiteRT's own "
     "rounding may change a few outputs. Which rows: under Selection, below."),
    ("Arena", "exact", "Peak of the planned activations, inputs and output included."),
    ("Weights", "exact", "Packed weights, biases, requantisation constants and tables."),
)  # fmt: skip
RAN = (
    ("RAM", "measured", "The program linked and run on the emulated chip: arena, working memory "
     "and the stack's high-water mark. Interrupts need stack of their own."),
    ("Flash", "measured", "The linked program: weights, constants, code and start-up. "
     "What quantises real values is not in it, and not in the latency."),
    ("Latency", "modelled", "Cycles of the emulated run divided by the clock: the core's by "
     "published timings, the Flash's by wait states and caches after an STM32L4's. The model was "
     f"within {100 * CYCLE_BAND:.0f}\u00a0% of silicon on public programs; these networks were not "
     "run on silicon."),
    ("Energy", "modelled", "That latency times the active current times the supply voltage."),
)  # fmt: skip
OTHERS = (
    ("With a sensor missing", "measured", "Test score of the same integer model while all of that "
     "sensor's input stands at its training mean."),
    ("Battery life", "modelled", "From energy, sleep current and the cell's data sheet."),
    ("Verified", "measured", "The C on the emulated chip, or other runtimes alone (host), gave the "
     "same integers as the reference; each candidate says which, on how many inputs."),
)  # fmt: skip


def spent(run: Run) -> str:
    """Wall-clock time of the run, or the time of its last trial where the end is not known."""
    try:
        started = datetime.fromisoformat(str(run.manifest.get("started")))
        ended = datetime.fromisoformat(str(run.manifest.get("ended")))
        return duration((ended - started).total_seconds())
    except (ValueError, TypeError):
        return duration(max((t.finished_s for t in run.trials), default=None))


def meaning(run: Run) -> str:
    """What is measured, exact, modelled, predicted; intervals, selection, hypervolume."""
    rows = [[esc(name), f"<b>{esc(kind)}</b>", esc(text)] for name, kind, text in _kinds(run)]
    notes = "".join(f"<dt>{head}</dt><dd>{body}</dd>" for head, body in _notes(run))
    return (
        '<section id="meaning"><h2>What the numbers mean</h2>'
        + table(["Number", "Kind", "How it is made"], rows, "reasons")
        + f'<dl class="explain">{notes}</dl></section>'
    )


def _kinds(run: Run) -> list[tuple[str, str, str]]:
    """The rows that hold for this run: for candidates that ran on the chip, and for all else."""
    verdicts = [c.verdict for c in run.candidates if c.verdict is not None]
    name, who = "RAM, Flash, latency, energy", ""
    if verdicts:
        name += " of the rest"
        who = ", for every network that was not run on the emulated chip"
    how = (
        f"From the operators alone{who}, with a table of what each kernel took there. "
        + (misses_text(verdicts) or "How far predictions are off is not known for this run: nas "
           "verify measures it.")
    )  # fmt: skip
    return [*KINDS, *(RAN if verdicts else ()), (name, "predicted", how), *OTHERS]


def _notes(run: Run) -> list[tuple[str, str]]:
    deviation = number(run.manifest.get("seed_deviation"))
    seeds = (
        "and the luck of training (repeated seeds). Between trainings of one network the score "
        f"varied by {100 * deviation:.2f} percentage points (standard deviation)."
        if deviation is not None
        else "alone: no candidate had two final trainings, so the luck of training is not in them."
    )
    budgets = run.budgets
    limit = "the limit" if budgets.latency_is_limit else "a yardstick, no limit"
    metric = esc(METRIC_NAMES.get(run.metric, run.metric))
    return [
        ("Score", f"{metric}, higher is better. 1 KB is 1,024 bytes."),
        (
            "Intervals",
            "90\u00a0%: they count the finite sample (resampling its rows, or whole persons "
            f"or sites where the data name 5 or more) {seeds}",
        ),
        (
            "Selection",
            f"{_judged(run)} chose the networks. The test split was touched once, for the members "
            "of this front. The best of many validation scores is flattering, so members of the "
            "front were trained again with other seeds, as far as time went; these trainings "
            "decide, and the one nearest to their mean ships. Trust the test.",
        ),
        (
            "Hypervolume",
            "The volume dominated by the front in error and predicted costs: RAM / "
            f"{kilobytes(budgets.ram_bytes)}, Flash / {kilobytes(budgets.flash_bytes)} and latency "
            f"/ {budgets.latency_ms:g}\u00a0ms ({limit}). The reference point is 1 in each: "
            "0 is an empty front, 1 would be no error at no cost.",
        ),
    ]


def _judged(run: Run) -> str:
    """The rows whose score selected, as the subject of a sentence."""
    if not judged_crosswise(run.manifest):
        return "Only validation"
    return (
        "Only training and validation, of which each third was answered by a network that had not "
        "seen it (what ships was then trained on all of them, or on two thirds where time ran out),"
    )


def origin(run: Run) -> str:
    """How the run was made, so that it can be made again."""
    manifest = run.manifest
    command = manifest.get("command")
    words = " ".join(names(command)) if isinstance(command, list) else command
    pairs = [
        ("Command", f"<code>{esc(words)}</code>"),
        ("Started", esc(manifest.get("started"))),
        ("Ended", esc(manifest.get("ended"))),
        ("Seed", esc(manifest.get("seed"))),
        ("Search space", _space(manifest)),
        ("Sampler", esc(manifest.get("sampler"))),
        ("Objectives", esc(", ".join(names(manifest.get("objectives"))))),
        ("Teacher", _teacher(manifest)),
        ("Distillation", _distillation(manifest)),
        ("Data file", esc(dig(manifest, "data", "path"))),
        ("Data hash", f"<code>{esc(dig(manifest, 'data', 'hash'))}</code>"),
        ("Keys not used", esc(", ".join(names(dig(manifest, "data", "ignored_keys"))))),
        ("Device", _device(manifest)),
        ("Versions", _versions(manifest.get("versions"))),
    ]
    return f'<section id="origin"><h2>How this run was made</h2>{facts(pairs)}</section>'


def _distillation(manifest: Mapping[str, Any]) -> str:
    """By what the teacher teaches, and which candidates taught the levels below their own."""
    if "distil" not in manifest:
        return DASH
    distil = {
        "logits": "by the teacher's answers",
        "features": "by the teacher's answers and features",
        "walk": "by its answers, level by level of the memory",
    }.get(str(manifest["distil"]), "no")
    steps = manifest.get("walk") or ()
    taught = [f"<code>{esc(s.get('candidate'))}</code> of {esc(s.get('level'))}" for s in steps]
    return f"{distil}: {', '.join(taught)} taught what is smaller" if taught else distil


def _teacher(manifest: Mapping[str, Any]) -> str:
    teacher = manifest.get("teacher")
    if not isinstance(teacher, Mapping):
        return DASH
    return (
        f"{esc(teacher.get('kind'))}, {count(teacher.get('parameters'))} parameters, "
        f"{count(teacher.get('size_bytes'))} bytes, "
        f"{percent(teacher.get('val_score'))} on the rows that judge, unseen by it, "
        f"{percent(teacher.get('test_score'))} on test, "
        f"<code>{esc(str(teacher.get('hash') or '')[:16])}</code>"
    )


def _device(manifest: Mapping[str, Any]) -> str:
    profile = manifest.get("profile")
    ram, flash = dig(profile, "ram_bytes"), dig(profile, "flash_bytes")
    kept = dig(profile, "ram_reserved_bytes"), dig(profile, "flash_reserved_bytes")
    return (
        f"{esc(dig(profile, 'name'))}: {kilobytes(ram)} RAM ({kilobytes(kept[0])} of it for the "
        f"application), {kilobytes(flash)} Flash ({kilobytes(kept[1])} for the application)"
    )


def _space(manifest: Mapping[str, Any]) -> str:
    """By name; a user's with its file and the start of its hash."""
    name, digest = esc(manifest.get("space")), dig(manifest, "space_file", "hash")
    if digest is None:
        return name
    return f"{name}, from {esc(dig(manifest, 'space_file', 'path'))} ({esc(str(digest)[:12])})"


def _versions(value: Any) -> str:
    if not isinstance(value, Mapping):
        return DASH
    return ", ".join(f"{esc(name)} {esc(version)}" for name, version in value.items())
