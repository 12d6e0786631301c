"""Energy, battery life and radio bytes by hand, the cells, and what is refused."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from nas.choosing import battery
from nas.choosing.battery import (
    Power,
    cells,
    duty_of,
    energy_formula,
    life_of,
    rates_known,
    read_cell,
    read_power,
    stream_bytes_per_s,
    window_bytes,
)
from nas.errors import ProfileError, UsageError
from nas.hardware.budget import price
from nas.hardware.profile import list_profiles, load_profile
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d

POWER = Power(active_a=4e-3, sleep_a=2e-6, voltage_v=3.0)


def test_the_formula_gives_the_energy_of_the_cost() -> None:
    op = Conv2d("o", ("x",), 4, (3, 3), (1, 1), "same", 8, True)
    graph = Graph((Input("x", (8, 8, 2)),), (op,), "o")
    for profile in list_profiles():
        cost = price(graph, profile).cost
        text = energy_formula(cost.latency_s * 1e3, read_power(profile.to_dict()))
        assert text.endswith(f" = {cost.energy_j * 1e6:.3g} uJ")
    assert energy_formula(2.5, POWER) == "2.5 ms x 4 mA x 3 V = 30 uJ"


def test_power_of_a_profile() -> None:
    profile = load_profile("cortex-m4-32k").to_dict()
    assert read_power(profile) == Power(3.7e-3, 2.2e-6, 3.0)
    for key in ("active_current_a", "sleep_current_a", "supply_voltage_v"):
        with pytest.raises(ProfileError, match=f"cortex-m4-32k: {key} is missing.*add it"):
            read_power({k: v for k, v in profile.items() if k != key})


# ---------------------------------------------------------------- cells


def test_every_cell_is_told_with_its_source() -> None:
    assert {"CR2032", "2xAAA"} <= set(cells())
    rows = tomllib.loads((Path(battery.__file__).parent / "cells.toml").read_text())
    for name, cell in cells().items():
        assert cell.name == name and set(rows[name]) == {*battery.Cell.__slots__} - {"name"}
        assert 100 < cell.capacity_mah < 5000 and cell.voltage_v == 3.0
        assert cell.rated_ma and cell.rated_ma < 30 and len(cell.source) > 60
        assert 0.5 <= cell.self_discharge_percent_per_year <= 3 and cell.shelf_life_years == 10
    assert cells()["CR2032"].capacity_mah == 235


def test_a_cell_is_named_or_given_in_mah() -> None:
    assert read_cell("cr2032") is read_cell("CR2032") is cells()["CR2032"]
    assert read_cell("2xaaa").name == "2xAAA"
    for text in ("500", "500mAh", "5e2"):
        own = read_cell(text)
        assert (own.name, own.capacity_mah, own.voltage_v) == ("500 mAh", 500.0, None)


@pytest.mark.parametrize("text", ["CR9999", "0", "-5", "nan", "inf", ""])
def test_no_such_cell(text: str) -> None:
    with pytest.raises(UsageError, match=r"no such cell; give one of CR2032, .* or a capacity"):
        read_cell(text)


# ---------------------------------------------------------------- life


def test_mean_current_by_hand() -> None:
    duty = duty_of(500.0, 2.0, POWER)  # a quarter of the time active
    assert duty.active_share == 0.25
    assert duty.active_part_a == pytest.approx(1e-3)
    assert duty.sleep_part_a == pytest.approx(1.5e-6)
    assert duty.mean_a == pytest.approx(1.0015e-3)


def test_life_by_hand() -> None:
    """87.66 mAh at 10 % a year lose 1 uA; 80 % of them at 9 + 1 uA last 7,012.8 hours."""
    cell = replace(read_cell("87.66"), self_discharge_percent_per_year=10.0)
    duty = duty_of(1.0, 1000.0, Power(9.0, 0.0, 3.0))  # 9 A for a millionth of the time
    life = life_of(duty, cell)
    assert life.leak_a == pytest.approx(1e-6)
    assert life.days == pytest.approx(7012.8 / 24) and not life.beyond_shelf
    assert life_of(duty, replace(cell, shelf_life_years=0.79)).beyond_shelf
    assert not life_of(duty, replace(cell, shelf_life_years=0.81)).beyond_shelf


def test_longer_periods_and_larger_cells_last_longer() -> None:
    lives = [life_of(duty_of(5.0, t, POWER), cells()["CR2032"]).days for t in (0.1, 1, 10, 100)]
    assert lives == sorted(lives) and len(set(lives)) == 4
    duty = duty_of(5.0, 1.0, POWER)
    assert life_of(duty, cells()["CR2450"]).days > life_of(duty, cells()["CR2032"]).days


@pytest.mark.parametrize("latency_ms", [1000.0, 1500.0])
def test_an_inference_must_end_before_the_next(latency_ms: float) -> None:
    with pytest.raises(
        UsageError, match=r"--every-s 1: an inference takes 1(\.5)? s.*longer period"
    ):
        duty_of(latency_ms, 1.0, POWER)
    assert duty_of(999.0, 1.0, POWER).active_share == pytest.approx(0.999)


# ---------------------------------------------------------------- radio


def test_bytes_of_a_raw_window() -> None:
    inputs = {
        "accel": {"shape": [16, 4], "stored_bytes": 2},
        "view": {"shape": [6, 5, 1], "stored_bytes": 1},
        "stats": {"shape": [4], "stored_bytes": 8},
    }
    assert window_bytes(inputs) == 128 + 30 + 32
    assert window_bytes(inputs | {"old": {"shape": [4]}}) is None


def test_no_sample_is_streamed_twice() -> None:
    accel = {"kind": "series", "shape": [20, 3], "stored_bytes": 2}  # 2 s at 10 Hz
    stats = {"kind": "vector", "shape": [4], "stored_bytes": 8}
    assert stream_bytes_per_s({"accel": accel}, 1.0) == 120  # each second a window of 2 s
    assert not rates_known({"accel": accel, "stats": stats})
    known = {"accel": accel | {"rate_hz": 10.0}, "stats": stats | {"rate_hz": None}}
    assert rates_known(known)
    assert stream_bytes_per_s(known, 1.0) == 10 * 3 * 2 + 32
    assert stream_bytes_per_s(known, 2.0) == 60 + 16  # windows side by side
    assert stream_bytes_per_s(known, 8.0) == 15 + 4  # and with gaps, which need not be sent
