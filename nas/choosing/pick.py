"""`nas pick`: one candidate of a run chosen, explained, and copied out.

All of it is read from the run folder. The front under the limits, its knee, what less of a resource
would cost, and what the candidate means for a battery and a radio, each with its assumptions.
"""

import os
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.choosing import battery
from nas.choosing.battery import Cell, Duty, Power
from nas.choosing.choose import (
    KNEE,
    FrontRow,
    Limits,
    Resource,
    knee,
    parse_rows,
    saving_of,
    savings,
    within,
)
from nas.choosing.measured import CYCLE_BAND, PREDICTED, band, misses_text, verdicts_of
from nas.errors import RunError, UsageError
from nas.export.emulate import Verdict
from nas.run_folder import judged_crosswise, read_front, read_json, read_manifest, shown_bits
from nas.tables import kinds_text, print_table, terminal_width

NAMES: dict[Resource, tuple[str, str]] = {
    "flash": ("Flash", "bytes"),
    "ram": ("RAM", "bytes"),
    "latency": ("latency", "ms"),
    "weights": ("weights", "bytes"),
}
VERIFIED = {
    "no": "no: `nas verify` runs its files and compares them with what was scored",
    "host": "on a PC: its files gave what was scored; its C was not run on the emulated chip, or"
    " differs there",
    "emulated": "on the emulated chip: its C gave what was scored, byte for byte; not run on"
    " silicon",
}
WIDEST_TEXT = 100
GLUE = "\N{NO-BREAK SPACE}"  # printed as a space, where no line may break
LABEL = 10  # columns of a label before its text


@dataclass(frozen=True)
class Wish:
    """What the command line asks for; see `nas pick --help`.

    Attributes:
        id: a candidate, or the beginning of its id; the knee of what the limits leave without.
        less: so many bytes (ms of latency) less of `by`; the whole ladder without.
        out: where to copy the candidate's folder.
    """

    run: Path
    id: str | None
    limits: Limits
    by: Resource
    less: float | None
    every_s: float | None
    cell: Cell | None
    out: Path | None


def pick(wish: Wish) -> FrontRow:
    """Prints what was chosen and why, copies it if asked, and returns its row.

    Raises:
        NasError: nothing is left, no such candidate, a folder that cannot be read or written.
    """
    if wish.cell is not None and wish.every_s is None:
        raise UsageError("--cell without --every-s: how often an inference runs is missing; add it")
    manifest = read_manifest(wish.run)
    rows = parse_rows(read_front(wish.run))
    left = within(rows, wish.limits, manifest["data"]["modalities"])
    best = knee(left)
    chosen = best if wish.id is None else _named(wish.id, rows, left)
    folder = wish.run / "candidates" / chosen.id
    about = read_json(folder / "architecture.json")
    power = battery.read_power(manifest["profile"])
    # Whatever can be refused is refused before anything is printed.
    duty = None
    if wish.every_s is not None:
        duty = battery.duty_of(chosen.latency_ms, wish.every_s, power)
    ladder = savings(left, chosen, wish.by)
    if wish.less is not None:
        ladder = [saving_of(left, chosen, wish.by, wish.less)]
    raw = battery.window_bytes(about["inputs"])
    verdicts = verdicts_of(wish.run, rows)
    copied = None if wish.out is None else export(folder, wish.out)

    named = f"{manifest['data']['name']} on {manifest['profile']['name']}"
    kept = "" if len(left) == len(rows) else f", {len(left)} within the limits"
    print(f"{named}: {len(rows)} candidate{'s' if len(rows) > 1 else ''}{kept}")
    _print_front(left, best, chosen, verdicts)
    _print_text(kinds_text(sum(row.id in verdicts for row in left), len(left)))
    _print_text(KNEE, "* ")
    print(f"\n{chosen.id}, the knee" if chosen == best else f"\n> {chosen.id}")
    _print_facts(_facts(chosen, manifest, power, raw, verdicts))
    _print_ladder(ladder, chosen, wish)
    if duty is not None:
        kind = "modelled" if chosen.id in verdicts else "predicted"
        _print_duty(duty, wish.cell, manifest["profile"]["name"], about["inputs"], kind)
    print()
    if copied is None:
        print(f"folder:  {folder}")
        command = shlex.join(["nas", "pick", str(wish.run), chosen.id, "--out"])
        print(f"copy it: {command} FOLDER")
    else:
        print(f"copied:  {copied} (README.md says how to bring it to a board)")
    return chosen


def _named(text: str, rows: Sequence[FrontRow], left: Sequence[FrontRow]) -> FrontRow:
    """The candidate whose id begins with `text`."""
    found = [row for row in rows if row.id.startswith(text)]
    if len(found) != 1:
        problem = "no candidate's id begins so" if not found else "more than one id begins so"
        ids = ", ".join(row.id for row in found or rows[:12])
        raise UsageError(f"{text}: {problem}; take one of {ids}")
    if found[0] not in left:
        raise UsageError(
            f"{found[0].id}: it breaks the limits given beside it; leave them out, or the id"
        )
    return found[0]


def export(folder: Path, out: Path) -> Path:
    """Copies a candidate's folder to `out`, all of it or nothing, and returns `out`.

    Raises:
        RunError: `out` exists and is not an empty folder, or the disk refuses.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise RunError(f"--out {out}: exists and is not an empty folder; name another")
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, beside, ignore=shutil.ignore_patterns("*.tmp"))
        beside.replace(out)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise RunError(f"--out {out}: cannot be written ({error}); name another folder") from None
    return out


# ---------------------------------------------------------------- what is printed


def _print_front(
    left: Sequence[FrontRow], best: FrontRow, chosen: FrontRow, verdicts: Mapping[str, Verdict]
) -> None:
    width = terminal_width()
    table: dict[str, list[str]] = {}
    for row in left:
        sign = "" if row.id in verdicts else PREDICTED
        cells = {
            "": "*" if row == best else ">" if row == chosen else "",
            "candidate": row.id,
            "val": f"{row.val_score:.3f} ({row.val_low:.2f}-{row.val_high:.2f})",
            "weights B": f"{row.weight_bytes:,}",
            "RAM B": f"{sign}{row.ram_bytes:,}",
            "Flash B": f"{sign}{row.flash_bytes:,}",
            "ms": f"{sign}{row.latency_ms:.2f}",
            "uJ": f"{sign}{row.energy_uj:.3g}",
            "sensors": "+".join(row.modalities),
            "bits": shown_bits("/".join(map(str, row.weight_bits))),
        }
        for column, cell in cells.items():
            table.setdefault(column, []).append(cell)
    for column, needed in (("bits", 125), ("uJ", 100), ("weights B", 92)):
        if width < needed:
            table.pop(column)
    numbers = ("weights B", "RAM B", "Flash B", "ms", "uJ")
    print_table(tuple(table), list(zip(*table.values(), strict=True)), right=numbers)


def _facts(
    row: FrontRow,
    manifest: dict[str, Any],
    power: Power,
    raw: int | None,
    verdicts: Mapping[str, Verdict],
) -> Iterable[tuple[str, str]]:
    budgets = manifest["budgets"]
    run = row.id in verdicts
    size, time = ("measured", "modelled") if run else ("predicted", "predicted")

    def share(amount: int, budget: int) -> str:
        return f"{amount:,} bytes, {_percent(amount / budget)} of {budget:,} ({size})"

    bits = shown_bits("/".join(map(str, row.weight_bits)))
    crosswise = judged_crosswise(manifest)
    judges = "on training and validation, crosswise" if crosswise else "on validation"
    return (
        (
            "score",
            f"{row.val_score:.3f} {judges} ({row.val_low:.3f} to {row.val_high:.3f}),"
            f" {row.test_score:.3f} on test ({row.test_low:.3f} to {row.test_high:.3f});"
            f" {row.metric.replace('_', ' ')} with 90 % intervals{_of_what(manifest)}",
        ),
        ("sensors", ", ".join(row.modalities)),
        ("RAM", share(row.ram_bytes, budgets["ram_bytes"])),
        ("Flash", share(row.flash_bytes, budgets["flash_bytes"])),
        ("weights", f"{row.weight_bytes:,} bytes (exact), layers of {bits} bits"),
        ("latency", _latency(row.latency_ms, verdicts.values(), run)),
        ("energy", f"{battery.energy_formula(row.latency_ms, power)} ({time}, the core alone)"),
        ("radio", _radio(raw)),
        ("verified", VERIFIED.get(row.verified, row.verified)),
    )


def _latency(latency_ms: float, verdicts: Iterable[Verdict], run: bool) -> str:
    if not run:
        return f"{latency_ms:.3g} ms (predicted). {misses_text(verdicts)}".rstrip()
    low, high = band(latency_ms)
    return (
        f"{latency_ms:.3g} ms (modelled; {low:.3g} to {high:.3g} with the cycle model's"
        f" {100 * CYCLE_BAND:.0f}{GLUE}%)"
    )


def _of_what(manifest: dict[str, Any]) -> str:
    """What the intervals leave out, where they leave out something."""
    if manifest.get("seed_deviation") is None:
        return " of the finite sample alone, as no network had two final trainings"
    return ""


def _radio(raw: int | None) -> str:
    if raw is None:
        return "not known: this run did not record how wide stored values are"
    return (
        f"{battery.CLASS_BYTES} byte (the class) instead of {raw:,} (the raw window):"
        f" 1/{raw // battery.CLASS_BYTES:,}"
    )


def _print_ladder(ladder: Sequence[Any], chosen: FrontRow, wish: Wish) -> None:
    name, unit = NAMES[wish.by]

    def amount(value: float) -> str:
        return f"{value:,.0f}" if unit == "bytes" else f"{value:.3f}"

    if not ladder:
        print(f"\nNone of these needs less {name}.")
        return
    asked = "" if wish.less is None else f"{amount(wish.less)} {unit} "
    others = [other for other in NAMES if other != wish.by]
    print(
        f"\nWhat {asked}less {name} costs (--by {', '.join(others[:-1])} or {others[-1]}: of those)"
    )
    rows = [
        (
            step.row.id,
            amount(step.row.amount(wish.by)),
            amount(step.less),
            f"{-step.lost:+.3f}",
            "more than the noise" if step.real else "within the noise",
        )
        for step in ladder
    ]
    columns = ("candidate", f"{name}, {unit}", "less", "score", "")
    print_table(columns, rows, right=columns[1:4])


def _print_duty(
    duty: Duty, cell: Cell | None, profile: str, inputs: dict[str, dict[str, Any]], kind: str
) -> None:
    power = duty.power
    source = "" if cell is None else f" from {cell.name}"
    print(f"\nOne inference every {duty.period_s:g} s{source}")
    asleep = duty.sleep_part_a / duty.mean_a
    facts = [
        (
            "current",
            f"{_percent(duty.active_share)} x {power.active_a * 1e3:.3g} mA active +"
            f" {_percent(1 - duty.active_share)} x {power.sleep_a * 1e6:.3g} uA asleep"
            f" = {duty.mean_a * 1e6:.3g} uA in the mean; {_percent(asleep)} of it is sleep, which"
            " no smaller network saves",
        )
    ]
    assumed = [
        f"Latency is {kind}; the currents are those of profile {profile}, whose file says where"
        " they come from.",
        "Not counted: sensors, sampling, radio, waking up, the regulator's own current, cold.",
    ]
    if cell is not None:
        facts.append(("life", _life(duty, cell)))
        assumed += _cell_assumptions(duty, cell)
    if battery.window_bytes(inputs) is not None:
        facts.append(("radio", _radio_a_day(duty, inputs)))
        once = (
            "each sample once"
            if battery.rates_known(inputs)
            else "windows as if they did not overlap, as the data file does not name every rate"
        )
        assumed.append(
            f"Raw data: values as wide as the data file stores them, {once}, no packet headers."
        )
    _print_facts(facts)
    for line in assumed:
        _print_text(line, "  - ")


def _life(duty: Duty, cell: Cell) -> str:
    life = battery.life_of(duty, cell)
    told = f"{life.days:,.0f} days ({life.days / battery.DAYS_PER_YEAR:.1f} years)"
    if life.beyond_shelf:
        told = f"its shelf life of {cell.shelf_life_years:g} years; the charge would do for {told}"
    return (
        f"{told} = {cell.capacity_mah:,g} mAh x {_percent(battery.USABLE_SHARE)} /"
        f" ({duty.mean_a * 1e6:.3g} uA + {life.leak_a * 1e6:.2g} uA self-discharge)"
    )


def _cell_assumptions(duty: Duty, cell: Cell) -> list[str]:
    lines = [f"{cell.name}: {cell.text}. {' '.join(cell.source.split())}"] if cell.source else []
    lines += [
        f"Assumed: {_percent(battery.USABLE_SHARE)} of the capacity can be used, and"
        f" {cell.self_discharge_percent_per_year:g} % a year is lost to self-discharge.",
        "The current comes from the cell directly or through a linear regulator, so its voltage"
        f" does not enter; the figures of the part are for {duty.power.voltage_v:g} V.",
    ]
    if cell.rated_ma is not None and duty.power.active_a * 1e3 > cell.rated_ma:
        lines.append(
            f"The capacity is stated at {cell.rated_ma:g} mA and the part draws"
            f" {duty.power.active_a * 1e3:.3g} mA while it computes: plan a capacitor or less life."
        )
    return lines


def _radio_a_day(duty: Duty, inputs: dict[str, dict[str, Any]]) -> str:
    sent = battery.S_PER_DAY / duty.period_s * battery.CLASS_BYTES
    raw = battery.S_PER_DAY * battery.stream_bytes_per_s(inputs, duty.period_s)
    return f"{sent:,.0f} bytes a day instead of {raw:,.0f}"


def _percent(share: float) -> str:
    """A share of 1 with the digits that it needs near 0 and 1."""
    digits = 0 if 0.01 <= share <= 0.99 or share in (0, 1) else 3
    return f"{100 * share:.{digits}f}{GLUE}%"


def _print_facts(facts: Iterable[tuple[str, str]]) -> None:
    for label, text in facts:
        _print_text(text, f"  {label:<{LABEL}}")


def _print_text(text: str, begin: str = "") -> None:
    width = min(terminal_width(), WIDEST_TEXT)
    indent = " " * len(begin)
    lines = textwrap.wrap(text, width - len(begin), break_on_hyphens=False)
    print((begin + f"\n{indent}".join(lines)).replace(GLUE, " "))
