"""Energy of an inference, life of a battery, and bytes that a radio need not send.

    energy = latency x active current x supply voltage
    mean current = active share x active current + sleep share x sleep current
    life = usable capacity / (mean current + self-discharge)

Latency is modelled and the currents are those of the data sheets that the profile names, so all of
these are modelled too. Nothing but the core is counted.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from nas.errors import ProfileError, UsageError

USABLE_SHARE = 0.8
HOURS_PER_DAY, DAYS_PER_YEAR = 24.0, 365.25
S_PER_DAY = 86_400.0
CLASS_BYTES = 1  # what a node sends instead of the window: the class


@dataclass(frozen=True, slots=True)
class Power:
    """What a part draws, in amperes at `voltage_v` volts."""

    active_a: float
    sleep_a: float
    voltage_v: float


def read_power(profile: Mapping[str, Any]) -> Power:
    """The currents of a profile as run.json holds it.

    Raises:
        ProfileError: one of them is missing.
    """
    keys = ("active_current_a", "sleep_current_a", "supply_voltage_v")
    for key in keys:
        if not isinstance(profile.get(key), float | int):
            raise ProfileError(
                f"profile {profile.get('name', '?')}: {key} is missing, so energy and battery life"
                " cannot be told; add it to [power] and run the search again"
            )
    return Power(*(float(profile[key]) for key in keys))


def energy_formula(latency_ms: float, power: Power) -> str:
    """The energy of an inference with its numbers filled in."""
    energy_uj = latency_ms * 1e3 * power.active_a * power.voltage_v
    return (
        f"{latency_ms:.3g} ms x {power.active_a * 1e3:.3g} mA x {power.voltage_v:g} V"
        f" = {energy_uj:.3g} uJ"
    )


# ---------------------------------------------------------------- cells


@dataclass(frozen=True, slots=True)
class Cell:
    """A primary cell or a pack in series; `rated_ma` is the current its capacity is stated at.

    `voltage_v` and `rated_ma` are None for a capacity that the user gave.
    """

    name: str
    text: str
    capacity_mah: float
    voltage_v: float | None
    rated_ma: float | None
    self_discharge_percent_per_year: float
    shelf_life_years: float
    source: str


OWN_CELL = Cell("", "the capacity that was given", 0.0, None, None, 2.0, 10.0, "")


@cache
def cells() -> Mapping[str, Cell]:
    """The cells of `cells.toml` by name."""
    rows = tomllib.loads((Path(__file__).parent / "cells.toml").read_text())
    return {name: Cell(name, **row) for name, row in rows.items()}


def read_cell(text: str) -> Cell:
    """A cell by name, in upper or lower case, or one of so many mAh.

    Raises:
        UsageError: neither a known name nor a capacity above 0.
    """
    for name, cell in cells().items():
        if name.lower() == text.lower():
            return cell
    try:
        capacity = float(text.lower().removesuffix("mah"))
    except ValueError:
        capacity = math.nan
    if not 0 < capacity < math.inf:
        raise UsageError(
            f"--cell {text}: no such cell; give one of {', '.join(cells())}, or a capacity in mAh"
        )
    return replace(OWN_CELL, name=f"{capacity:g} mAh", capacity_mah=capacity)


# ---------------------------------------------------------------- life


@dataclass(frozen=True, slots=True)
class Duty:
    """One inference each `period_s` seconds, asleep in between."""

    latency_s: float
    period_s: float
    power: Power

    @property
    def active_share(self) -> float:
        """Share of the time that the core computes."""
        return self.latency_s / self.period_s

    @property
    def active_part_a(self) -> float:
        """What computing adds to the mean current."""
        return self.active_share * self.power.active_a

    @property
    def sleep_part_a(self) -> float:
        """What sleeping adds to the mean current."""
        return (1 - self.active_share) * self.power.sleep_a

    @property
    def mean_a(self) -> float:
        """Mean current in amperes."""
        return self.active_part_a + self.sleep_part_a


def duty_of(latency_ms: float, period_s: float, power: Power) -> Duty:
    """One inference of `latency_ms` each `period_s`.

    Raises:
        UsageError: the inference takes as long as the period, or longer.
    """
    if latency_ms / 1e3 >= period_s:
        raise UsageError(
            f"--every-s {period_s:g}: an inference takes {latency_ms / 1e3:.3g} s, so it cannot run"
            " that often; choose a longer period or a faster candidate"
        )
    return Duty(latency_ms / 1e3, period_s, power)


@dataclass(frozen=True, slots=True)
class Life:
    """How long a cell lasts.

    Attributes:
        days: of service, not yet held against the shelf life.
        leak_a: self-discharge as a current.
        beyond_shelf: whether the cell would go bad before it is empty.
    """

    days: float
    leak_a: float
    beyond_shelf: bool


def life_of(duty: Duty, cell: Cell) -> Life:
    """The life of `cell` under `duty`: charge over current; its voltage does not enter.

    The part is taken to draw its current from the cell directly or through a linear regulator.
    """
    hours_per_year = DAYS_PER_YEAR * HOURS_PER_DAY
    capacity_ah = cell.capacity_mah / 1e3
    leak_a = capacity_ah * cell.self_discharge_percent_per_year / 100 / hours_per_year
    days = capacity_ah * USABLE_SHARE / (duty.mean_a + leak_a) / HOURS_PER_DAY
    return Life(days, leak_a, days > cell.shelf_life_years * DAYS_PER_YEAR)


# ---------------------------------------------------------------- radio


def window_bytes(inputs: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Bytes of one raw window of all `inputs` of architecture.json, as the data file stores them.

    None where the file does not say how wide a stored value is: runs before that was recorded.
    """
    total = 0
    for source in inputs.values():
        if "stored_bytes" not in source:
            return None
        total += math.prod(source["shape"]) * int(source["stored_bytes"])
    return total


def stream_bytes_per_s(inputs: Mapping[str, Mapping[str, Any]], period_s: float) -> float:
    """What a node without a network would send: every window, but no sample twice.

    Windows that overlap share samples. Where the rate of a series is known, no more is counted than
    it delivers; where it is not, windows are taken not to overlap.

    Args:
        inputs: of architecture.json, all with `stored_bytes`.
        period_s: from one inference to the next.
    """
    total = 0.0
    for source in inputs.values():
        width = int(source["stored_bytes"])
        windows = math.prod(source["shape"]) * width / period_s
        rate_hz = source.get("rate_hz") or math.inf
        total += min(windows, rate_hz * source["shape"][-1] * width)
    return total


def rates_known(inputs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether no series is without its sampling rate."""
    return all(source.get("rate_hz") for source in inputs.values() if source["kind"] == "series")
