"""Tables for the terminal."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from nas.calibration.table import CoreTable
from nas.choosing.choose import parse_rows
from nas.choosing.measured import CYCLE_BAND, PREDICTED, misses_text, verdicts_of
from nas.export.verification import Verification
from nas.hardware.budget import Budget, Priced
from nas.hardware.profile import Profile
from nas.run_folder import read_front, shown_bits

BYTES = ("weights B", "arena B", "RAM B", "Flash B", "stepwise B")
STEPWISE_WIDTH = 12
NEEDED_WIDTHS = {"bits": 142, "arena B": 117, "verified": 108, "Flash B": 100, "stepwise B": 88}
"""Columns of the front -> width of a terminal below which they are left out."""


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> None:
    """Prints rows under columns; those named in `right` are aligned to the right."""
    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        align: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=align, no_wrap=column != columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*row)
    _console().print(table)


def print_front(run: Path) -> None:
    """The front as a table, as wide as the terminal allows, and where the report is."""
    width = terminal_width()
    table: dict[str, list[str]] = {}
    front = read_front(run)
    verdicts = verdicts_of(run, parse_rows(front))
    for row in front:
        sign = "" if row["id"] in verdicts else PREDICTED
        streamed = row["streamed_ram_bytes"]
        cells = {
            "candidate": row["id"],
            "verified": row["verified"],
            "val": _with_interval(row, "val"),
            "test": _with_interval(row, "test"),
            "weights B": f"{int(row['weight_bytes']):,}",
            "arena B": f"{int(row['arena_bytes']):,}",
            "RAM B": f"{sign}{int(row['ram_bytes']):,}",
            "Flash B": f"{sign}{int(row['flash_bytes']):,}",
            "stepwise B": f"{sign}{int(float(streamed)):,}" if streamed else "-",
            "ms": f"{sign}{float(row['latency_ms']):.2f}",
            "sensors": row["modalities"],
            "bits": shown_bits(row["weight_bits"]),
        }
        for column, cell in cells.items():
            table.setdefault(column, []).append(cell)
    if not any(row["streamed_ram_bytes"] for row in front):
        table.pop("stepwise B", None)
        width += STEPWISE_WIDTH
    for column, needed in NEEDED_WIDTHS.items():
        if width < needed:
            table.pop(column, None)
    rows = list(zip(*table.values(), strict=True))
    print_table(tuple(table), rows, right=(*BYTES, "ms"))
    found = "1 candidate" if len(rows) == 1 else f"{len(rows)} candidates"
    print(f"{found}; scores with 90 % intervals")
    print(kinds_text(len(verdicts), len(rows)))
    if verdicts:
        print(misses_text(verdicts.values()))
    print(f"report: {run / 'report.html'}")
    print(f"choose: nas pick {shlex.quote(str(run))}")


def kinds_text(measured: int, rows: int) -> str:
    """How RAM, Flash and time of a front are known, of which `measured` candidates were run."""
    if not measured:
        return f"{PREDICTED} RAM, Flash, ms are predicted; nas verify measures them"
    text = "RAM and Flash measured on the emulated chip; ms modelled there,"
    text += f" +-{100 * CYCLE_BAND:.0f} %"
    return text if measured == rows else f"{text}; {PREDICTED} predicted, not run"


def _with_interval(row: dict[str, str], split: str) -> str:
    score, low, high = (float(row[f"{split}_{part}"]) for part in ("score", "low", "high"))
    return f"{score:.3f} ({low:.2f}-{high:.2f})"


def terminal_width() -> int:
    """Columns to print into; wide where the output is no terminal."""
    return _console().width


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    return console


def print_verification(results: Sequence[Verification]) -> None:
    """One row a candidate and runtime."""
    rows = []
    for result in results:
        for check in result.runtimes:
            if check.compared:
                seen = f"{check.differing:,} of {check.compared:,}"
                largest, agreement = str(check.largest_difference), f"{check.argmax_agreement:.2%}"
            else:
                seen, largest, agreement = "not run", "", ""
            rows.append(
                (result.id, result.verified, check.runtime, seen, largest, agreement, check.note)
            )
    columns = ("candidate", "verified", "runtime", "outputs differing", "largest", "same class")
    print_table((*columns, "note"), rows, right=columns[3:6])


def print_cost(priced: Priced, profile: Profile, budget: Budget) -> None:
    """Cost per operator and in all, against a device's budget."""
    cost = priced.cost
    rows = [
        (
            op.name,
            op.kernel,
            f"{op.macs:,}",
            f"{op.cycles:,.0f}",
            f"{op.cycles / cost.cycles:.1%}",
            f"{op.weight_bytes:,}",
            f"{op.output_bytes:,}",
            f"{op.scratch_bytes:,}",
        )
        for op in cost.per_op
    ]
    numbers = ("MACs", "cycles", "share", "weights B", "output B", "scratch B")
    print_table(("operator", "kernel", *numbers), rows, right=numbers)
    print(f"on {profile.name}:")
    print(f"  arena   {cost.arena_bytes:>9,} B  exact")
    print(f"  weights {cost.weight_bytes:>9,} B  exact")
    print(f"  RAM     {cost.ram_bytes:>9,} B  predicted, of {budget.ram_bytes:,}")
    print(f"  Flash   {cost.flash_bytes:>9,} B  predicted, of {budget.flash_bytes:,}")
    print(f"  latency {cost.latency_s * 1e3:>9.3f} ms predicted")
    print(f"  energy  {cost.energy_j * 1e6:>9.2f} uJ predicted, core only")
    print("fits" if not budget.refusal(cost) else f"does not fit: {budget.refusal(cost)}")


def print_devices(profiles: Sequence[Profile]) -> None:
    """What `nas devices` shows."""
    rows = [
        (
            p.name,
            p.part,
            f"{p.clock_hz / 1e6:g}",
            f"{p.ram_bytes:,}",
            f"{p.ram_budget_bytes:,}",
            f"{p.flash_bytes:,}",
            f"{p.flash_budget_bytes:,}",
        )
        for p in profiles
    ]
    columns = ("device", "part", "MHz", "RAM B", "for the model", "Flash B", "for the model ")
    print_table(columns, rows, right=columns[2:])


def print_calibration(tables: Mapping[str, CoreTable]) -> None:
    """Every kernel of both cores, and how far its fitted cycles are off calls left out."""
    rows = [
        (
            core,
            name,
            f"{fit.samples:,}",
            f"{fit.error_mean:.1%}",
            f"{fit.error_p95:.1%}",
            f"{table.rows['kernels'][name]['stack_bytes']:,}",
        )
        for core, table in tables.items()
        for name, fit in table.fits.items()
    ]
    columns = ("core", "kernel", "calls", "cycles off, mean", "95 % below", "stack B")
    print_table(columns, rows, right=columns[2:])
