"""What the emulated chip showed of candidates, and by how much predictions missed it.

A figure of front.csv is measured where the candidate's verdict.json holds the same one, and
predicted everywhere else: nothing is called measured on the word of a column alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from nas.choosing.choose import FrontRow
from nas.errors import RunError
from nas.export.emulate import Difference, Verdict
from nas.run_folder import read_json

CYCLE_BAND = 0.10  # the cycle model on public programs, against what their silicon took
TFLM_CODE_KB = 100  # of the interpreter with the kernels of a small network, about
FIGURES = ("ram_bytes", "flash_bytes", "cycles")
PREDICTED = "~"  # before a figure in a table


def read_verdict(folder: Path) -> Verdict | None:
    """verdict.json of a candidate's folder; None where its C was not run.

    Raises:
        RunError: the file is torn or lacks a figure.
    """
    path = folder / "verdict.json"
    if not path.exists():
        return None
    document = read_json(path)
    try:
        values = {field.name: document[field.name] for field in fields(Verdict)}
        if values["difference"] is not None:
            values["difference"] = Difference(**values["difference"])
        verdict = Verdict(**values)
        if min(map(float, (*_predicted(verdict), *_measured(verdict)))) <= 0:
            raise ValueError("a figure is 0 or less")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: {error}; nas verify writes it again") from None
    return verdict


def verdict_of(folder: Path, ram_bytes: float | None, flash_bytes: float | None) -> Verdict | None:
    """The verdict that the figures of front.csv come from; None where they are predicted.

    A folder that was written anew since its verdict is one that has not been run.
    """
    verdict = read_verdict(folder)
    if verdict is None:
        return None
    held = (verdict.measured_ram_bytes, verdict.measured_flash_bytes)
    return verdict if held == (ram_bytes, flash_bytes) else None


def verdicts_of(run: Path, rows: Iterable[FrontRow]) -> dict[str, Verdict]:
    """Candidate -> its verdict, for those of `rows` whose figures were measured."""
    found = {}
    for row in rows:
        verdict = verdict_of(run / "candidates" / row.id, row.ram_bytes, row.flash_bytes)
        if verdict is not None:
            found[row.id] = verdict
    return found


@dataclass(frozen=True, slots=True)
class Miss:
    """By what share of the measured figure predictions missed it, in the mean and at most."""

    mean: float
    most: float


def misses(verdicts: Iterable[Verdict]) -> Mapping[str, Miss]:
    """Figure -> how predictions missed it; empty without verdicts."""
    pairs = [(_predicted(v), _measured(v)) for v in verdicts]
    if not pairs:
        return {}
    found = {}
    for i, name in enumerate(FIGURES):
        off = [abs(predicted[i] / measured[i] - 1) for predicted, measured in pairs]
        found[name] = Miss(sum(off) / len(off), max(off))
    return found


def misses_text(verdicts: Iterable[Verdict]) -> str:
    """`misses` as a sentence; "" without verdicts."""
    held = list(verdicts)
    found = misses(held)
    if not found:
        return ""
    parts = [
        f"{name} by {100 * found[key].mean:.1f} % in the mean and {100 * found[key].most:.1f} % at"
        " most"
        for key, name in zip(FIGURES, ("RAM", "Flash", "cycles"), strict=True)
    ]
    who = "the one candidate" if len(held) == 1 else f"the {len(held)} candidates"
    return (
        f"On {who} of this run that ran on the emulated chip, predictions missed"
        f" {parts[0]}, {parts[1]}, {parts[2]}."
    )


def band(figure: float) -> tuple[float, float]:
    """Where a modelled time may lie, by the cycle model's error."""
    return figure * (1 - CYCLE_BAND), figure * (1 + CYCLE_BAND)


def _predicted(verdict: Verdict) -> tuple[float, float, float]:
    return verdict.predicted_ram_bytes, verdict.predicted_flash_bytes, verdict.predicted_cycles


def _measured(verdict: Verdict) -> tuple[float, float, float]:
    return verdict.measured_ram_bytes, verdict.measured_flash_bytes, verdict.modelled_cycles
