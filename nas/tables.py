"""Tables for the terminal."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from nas.export.verify import Verification
from nas.hardware.budget import Budget, Priced
from nas.hardware.profile import Profile
from nas.run_folder import read_front


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
    for row in read_front(run):
        cells = {
            "candidate": row["id"],
            "verified": row["verified"],
            "val": _with_interval(row, "val"),
            "test": _with_interval(row, "test"),
            "weights B": f"{int(row['weight_bytes']):,}",
            "arena B": f"{int(row['arena_bytes']):,}",
            "RAM B": f"{int(row['ram_bytes']):,}",
            "Flash B": f"{int(row['flash_bytes']):,}",
            "ms": f"{float(row['latency_ms']):.2f}",
            "sensors": row["modalities"],
            "bits": row["weight_bits"],
        }
        for column, cell in cells.items():
            table.setdefault(column, []).append(cell)
    for column, needed in (("bits", 130), ("arena B", 105), ("verified", 96), ("Flash B", 88)):
        if width < needed:
            table.pop(column, None)
    rows = list(zip(*table.values(), strict=True))
    print_table(tuple(table), rows, right=("weights B", "arena B", "RAM B", "Flash B", "ms"))
    found = "1 candidate" if len(rows) == 1 else f"{len(rows)} candidates"
    print(f"{found}; scores with 90 % intervals; RAM, Flash, ms are estimates")
    print(f"report: {run / 'report.html'}")
    print(f"choose: nas pick {shlex.quote(str(run))}")


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
    print(f"  RAM     {cost.ram_bytes:>9,} B  estimated, of {budget.ram_bytes:,}")
    print(f"  Flash   {cost.flash_bytes:>9,} B  estimated, of {budget.flash_bytes:,}")
    print(f"  latency {cost.latency_s * 1e3:>9.3f} ms modelled")
    print(f"  energy  {cost.energy_j * 1e6:>9.2f} uJ modelled, core only")
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
