"""Windows of recordings whose contents are known by formula: rates, gaps, labels, blocks."""

from collections.abc import Sequence

import numpy as np
import pytest

from nas.errors import DataError
from nas.importing.recordings import Recording, SensorPlan, Signal
from nas.importing.windows import Counts, Cut, Rate, Windows, choose_rate, cut_recording, found_rate

ACCEL = SensorPlan("accel", ("ax", "ay"))
GYRO = SensorPlan("gyro", ("gx",))
RSSI = SensorPlan("rssi", ("a", "b"), vector=True)
CUT = Cut(window_s=1.0, stride_s=0.5, purity=0.8)


def signal(times: Sequence[float] | np.ndarray, *slopes: float) -> Signal:
    """Lines through zero, so that interpolated values are known: slope * time."""
    at = np.asarray(times, float)
    return Signal(at, at[:, None] * np.array(slopes))


def recording(label: str = "walk", **signals: Signal) -> Recording:
    return Recording("r", None, None, label, signals)


def labelled(names: Sequence[str], hz: float, **signals: Signal) -> Recording:
    made = recording(**signals)
    known = tuple(sorted(set(names) - {""}))
    codes = {name: i for i, name in enumerate(known)} | {"": -1}
    made.label_codes = np.array([codes[name] for name in names])
    made.label_names, made.label_times_s = known, np.arange(len(names)) / hz
    return made


def windows(
    made: Recording, *sensors: SensorPlan, cut: Cut = CUT, **hz: float
) -> tuple[Windows, Counts]:
    rates = {}
    for sensor in sensors:
        found = found_rate(made.signals[sensor.name])
        asked = hz.get(sensor.name, sensor.rate_hz)
        plan = SensorPlan(sensor.name, sensor.columns, asked, sensor.vector)
        rates[sensor.name] = choose_rate(plan, [found], cut.window_s)
    counts = Counts.new()
    return cut_recording(made, sensors, rates, cut, counts), counts


def test_regular_samples_are_kept_as_they_are() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 2))
    made = recording(accel=Signal(np.arange(40) / 10, values))
    seen, counts = windows(made, ACCEL)
    assert seen.starts_s.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert set(seen.labels) == {"walk"} and counts.gaps["accel"] == 0
    for window, start in zip(seen.values["accel"], (0, 5, 10, 15, 20, 25, 30), strict=True):
        np.testing.assert_array_equal(window, values[start : start + 10].astype(np.float32))


def test_jittered_samples_lie_on_straight_lines() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(60) / 10 + rng.uniform(-0.03, 0.03, 60)
    seen, _ = windows(recording(accel=signal(times, 2.0, -1.0)), ACCEL, accel=10.0)
    assert seen.values["accel"].shape == (10, 10, 2)
    at = seen.starts_s[:, None] + np.arange(10) / 10
    np.testing.assert_allclose(seen.values["accel"][:, :, 0], 2 * at, atol=1e-5)
    np.testing.assert_allclose(seen.values["accel"][:, :, 1], -at, atol=1e-5)


def test_sensors_of_different_rates_start_and_end_together() -> None:
    """The gyro begins 0.3 s late and ends early: windows lie where both have samples."""
    made = recording(
        accel=signal(np.arange(50) / 10, 1.0, 1.0), gyro=signal(0.3 + np.arange(160) / 40, 1.0)
    )
    seen, _ = windows(made, ACCEL, GYRO)
    assert seen.values["accel"].shape == (7, 10, 2) and seen.values["gyro"].shape == (7, 40, 1)
    np.testing.assert_allclose(seen.starts_s, 0.3 + 0.5 * np.arange(7))
    for name, steps in (("accel", 10), ("gyro", 40)):
        at = seen.starts_s[:, None] + np.arange(steps) / steps
        np.testing.assert_allclose(seen.values[name][:, :, 0], at, atol=1e-5)


def test_a_gap_breaks_windows_and_a_short_one_is_bridged() -> None:
    times = np.arange(60) / 10
    whole = np.delete(times, [10, 11, 12])  # 0.4 s of silence: four periods
    seen, counts = windows(recording(accel=signal(whole, 1.0, 1.0)), ACCEL)
    assert counts.gaps["accel"] == 0 and len(seen.starts_s) == 11
    broken = np.delete(times, [10, 11, 12, 13])  # 0.5 s
    seen, counts = windows(recording(accel=signal(broken, 1.0, 1.0)), ACCEL)
    assert counts.gaps["accel"] == 1
    assert seen.starts_s.tolist() == [0.0, *(1.4 + 0.5 * np.arange(8))]
    longer = Cut(1.0, 0.5, 0.8, max_gap_s=0.6)
    seen, counts = windows(recording(accel=signal(broken, 1.0, 1.0)), ACCEL, cut=longer)
    assert counts.gaps["accel"] == 0 and len(seen.starts_s) == 11


def test_missing_values_of_one_column_are_counted_and_break_where_they_are_long() -> None:
    made = recording(accel=signal(np.arange(60) / 10, 1.0, 3.0))
    made.signals["accel"].values[20:22, 1] = np.nan
    seen, counts = windows(made, ACCEL)
    at = seen.starts_s[:, None] + np.arange(10) / 10
    np.testing.assert_allclose(seen.values["accel"][:, :, 1], 3 * at, atol=1e-5)
    assert (counts.missing["accel"], counts.gaps["accel"]) == (2, 0)
    made.signals["accel"].values[20:26, 1] = np.nan
    seen, counts = windows(made, ACCEL)
    assert (counts.missing["accel"], counts.gaps["accel"]) == (6, 1)
    assert not np.isnan(seen.values["accel"]).any()
    assert ((seen.starts_s + 0.9 <= 1.9 + 1e-9) | (seen.starts_s >= 2.6)).all()


def test_a_clearly_lower_rate_takes_means() -> None:
    """A vibration at half the old rate is gone, not folded to 0 Hz; the slope stays."""
    times = np.arange(400) / 100
    vibration = np.where(np.arange(400) % 2, 1.0, -1.0)
    values = np.stack([times + vibration, times], axis=1)
    seen, _ = windows(recording(accel=Signal(times, values)), ACCEL, accel=10.0)
    at = seen.starts_s[:, None] + np.arange(10) / 10
    inner = slice(1, -1)  # at the ends of a recording half a period is all there is
    np.testing.assert_allclose(seen.values["accel"][inner, :, 0], at[inner], atol=0.02)
    np.testing.assert_allclose(seen.values["accel"][inner, :, 1], at[inner], atol=1e-5)
    nearly, _ = windows(recording(accel=Signal(times, values)), ACCEL, accel=90.0)
    assert np.abs(nearly.values["accel"][:, :, 0]).max() > 1.5  # straight lines: it is kept


def test_nothing_is_read_behind_the_last_sample() -> None:
    """A line goes on rising to the end of every window, also at a rate above the recording's."""
    made = recording(accel=signal(np.arange(20) / 10, 1.0, 1.0))
    fine = Cut(0.5, 0.05, 0.8)
    seen, _ = windows(made, ACCEL, cut=fine, accel=40.0)
    at = seen.starts_s[:, None] + np.arange(20) / 40
    np.testing.assert_allclose(seen.values["accel"][:, :, 0], at, atol=1e-5)
    assert 1.9 - 0.05 < at.max() <= 1.9 + 1e-9


@pytest.mark.parametrize(
    ("rates", "asked", "hz"),
    (([49.8, 50.3], None, 50.0), ([48.0], None, 48.0), ([33.45], None, 33.45), ([50.0], 20, 20)),
)
def test_rate(rates: list[float], asked: float | None, hz: float) -> None:
    rate = choose_rate(SensorPlan("accel", ("ax",), asked), rates, 2.0)
    assert rate == Rate(hz, min(rates), max(rates), round(2 * hz))


def test_rates_that_fit_no_window() -> None:
    with pytest.raises(DataError, match=r"accel: a window of 2 s holds 0 samples at 0\.05 Hz;"):
        choose_rate(ACCEL, [0.05], 2.0)
    with pytest.raises(DataError, match="accel: no recording has two samples of it"):
        choose_rate(ACCEL, [0.0], 2.0)


def test_labels_are_majorities_and_mixed_windows_are_dropped() -> None:
    accel = signal(np.arange(60) / 10, 1.0, 1.0)
    names = [*["sit"] * 22, *["walk"] * 28, *[""] * 10]
    seen, counts = windows(labelled(names, 10, accel=accel), ACCEL)
    found = dict(zip(seen.starts_s.tolist(), seen.labels.tolist(), strict=True))
    # At 1.5 s 7 of 10 rows are sit; at 2.0 s 8 are walk, which is just enough.
    assert found == {
        **dict.fromkeys((0.0, 0.5, 1.0), "sit"),
        **dict.fromkeys((2.0, 2.5, 3.0, 3.5, 4.0), "walk"),
    }
    assert counts.dropped["mixed labels"] == 1 and counts.dropped["no label"] == 2
    half = Cut(1.0, 0.5, 0.5)
    seen, counts = windows(labelled(names, 10, accel=accel), ACCEL, cut=half)
    assert seen.labels.tolist() == ["sit"] * 4 + ["walk"] * 5
    none = Cut(1.0, 0.5, 0.8, dropped_labels=frozenset({"sit"}))
    seen, counts = windows(labelled(names, 10, accel=accel), ACCEL, cut=none)
    assert set(seen.labels) == {"walk"} and counts.dropped["label sit"] == 3


def test_vectors_are_means_of_what_is_there() -> None:
    values = np.array([[-50, np.nan], [-54, -80], [-60, np.nan], [-60, np.nan]], float)
    made = recording(
        accel=signal(np.arange(40) / 10, 1.0, 1.0),
        rssi=Signal(np.array([0.1, 0.9, 1.1, 1.6]), values),
    )
    step = Cut(1.0, 1.0, 0.8)
    seen, counts = windows(made, ACCEL, RSSI, cut=step)
    assert seen.starts_s.tolist() == [0.0] and seen.values["rssi"].tolist() == [[-52, -80]]
    assert counts.dropped["no value of rssi"] == 3
    filled = SensorPlan("rssi", ("a", "b"), vector=True, fill=-99.0)
    seen, counts = windows(made, ACCEL, filled, cut=step)
    assert seen.values["rssi"].tolist() == [[-52, -80], [-60, -99], [-99, -99], [-99, -99]]


def test_blocks_are_not_crossed() -> None:
    made = recording(accel=signal(np.arange(600) / 10, 1.0, 1.0))
    cut = Cut(2.0, 0.5, 0.8, block_s=10.0)
    seen, _ = windows(made, ACCEL, cut=cut)
    assert set(seen.blocks.tolist()) == set(range(6))
    assert (seen.blocks == (seen.starts_s + 1e-9) // 10).all()
    assert (seen.starts_s + 2.0 <= 10 * (seen.blocks + 1) + 1e-6).all()
    assert len(seen.starts_s) == 6 * 17  # (10 - 2) / 0.5 + 1 in each


def test_a_recording_that_is_too_short() -> None:
    made = recording(accel=signal(np.arange(9) / 10, 1.0, 1.0))
    seen, counts = windows(made, ACCEL)
    assert len(seen.starts_s) == 0 and counts.segments_too_short == 1
