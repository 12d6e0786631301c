"""Energy of an inference, with its formula, and how long a battery lasts."""

from typing import Any

from nas.choosing.battery import OWN_CELL, USABLE_SHARE, Power, cells, read_power
from nas.errors import ProfileError
from nas.report.data import Candidate, Run
from nas.report.format import dig, esc, section, short


def _power(run: Run) -> Power | None:
    """None where the profile of an older run lacks a current."""
    try:
        return read_power(run.manifest["profile"])
    except ProfileError:
        return None


def energy_line(candidate: Candidate, run: Run) -> str:
    """The energy of an inference as the product that it is."""
    power = _power(run)
    energy = short(candidate.values["energy_uj"], "µJ")
    kind = "predicted" if candidate.verdict is None else "modelled"
    if power is None:
        return f"<p>{energy} an inference; the profile's currents are not recorded.</p>"
    return (
        f"<p><b>{energy}</b> an inference = {short(candidate.values['latency_ms'], 'ms')} "
        f"\u00d7 {short(1e3 * power.active_a, 'mA')} \u00d7 {short(power.voltage_v, 'V')}: "
        f"{kind} latency \u00d7 active current \u00d7 supply voltage of "
        f"{esc(dig(run.manifest, 'profile', 'name'))}. This is the core alone: sensors, radio and "
        "regulator come on top.</p>"
    )


def battery_data(run: Run) -> dict[str, Any] | None:
    """What the page's battery calculation works with, or None without the part's currents."""
    power = _power(run)
    if power is None:
        return None
    known = [*cells().values(), OWN_CELL]
    return {
        "active_a": power.active_a,
        "sleep_a": power.sleep_a,
        "usable_share": USABLE_SHARE,
        "cells": [
            {
                "name": cell.name,
                "capacity_mah": cell.capacity_mah,
                "leak_percent": cell.self_discharge_percent_per_year,
                "shelf_years": cell.shelf_life_years,
            }
            for cell in known
        ],
    }


def battery_section(run: Run) -> str:
    """Inputs of the battery calculation, which the page's scripts carry out."""
    if not run.candidates or _power(run) is None:
        return ""
    options = "".join(
        f'<option value="{i}">{esc(cell.name)}: {esc(cell.text)}, {cell.capacity_mah:g}\u00a0mAh'
        "</option>"
        for i, cell in enumerate(cells().values())
    )
    body = (
        '<form class="filters" id="battery"><label>One inference every, s'
        '<input type="number" name="period" value="1" min="0.001" step="any"></label>'
        f'<label>Cell<select name="cell">{options}<option value="{len(cells())}">another</option>'
        '</select></label><label id="own" hidden>Its capacity, mAh<input type="number" '
        'name="capacity" value="220" min="0.1" step="any"></label></form>'
        '<div id="lasts" aria-live="polite"></div>'
        '<p class="note">Modelled. Mean current = (latency \u00d7 active current + rest of the '
        "period \u00d7 sleep current) / period; life = usable capacity / (mean current + "
        f"self-discharge); {100 * USABLE_SHARE:g}\u00a0% of a cell's capacity counts as usable. "
        "Only the core is counted: sensors, radio and regulator come on top.</p>"
    )
    return section("batteries", "How long a battery lasts", body)
