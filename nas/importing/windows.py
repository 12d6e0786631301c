"""Cuts recordings into windows: a fixed rate for each sensor, and nothing invented.

Every sensor is resampled to its rate by straight lines between neighbouring samples; where the rate
is clearly lower than that of the recording, each value is instead the mean of the signal over its
period, so that faster vibration does not fold into it. A missing sample longer than `max_gap_s` is
never bridged: the recording is cut there, and windows start anew behind it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.importing.recordings import Floats, Recording, SensorPlan, Signal

GAP_PERIODS = 4.0  # default: a longer silence is a gap
MEAN_BELOW = 0.8  # rate of the result over rate of the recording, below which means are taken
WHOLE_RATE = 0.005  # a rate this close to a whole number of Hz is that number
SAME_RATE = 0.1  # a recording whose rate is further from the result's counts as resampled
SLACK = 0.01  # of a period: rounding of times
INSTANT_S = 1e-6  # what times since 1970 are rounded to, and a little more

Segment = tuple[float, float]  # of time in which every sensor has samples; a sample fills a period


@dataclass(frozen=True)
class Cut:
    """How windows are cut; times in seconds.

    Attributes:
        purity: least share of a window's rows that must have its label.
        max_gap_s: None: `GAP_PERIODS` of the slower of the two rates.
        block_s: pieces of a recording that stay whole in a split; None: all of it.
        dropped_labels: windows with these are left out.
    """

    window_s: float
    stride_s: float
    purity: float
    max_gap_s: float | None = None
    block_s: float | None = None
    dropped_labels: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rate:
    """One sensor's rate in Hz: of the result, and lowest and highest of the recordings."""

    hz: float
    lowest_hz: float
    highest_hz: float
    steps: int


@dataclass(frozen=True)
class Windows:
    """Windows of one recording: values by modality, label, start, and the block each lies in."""

    values: Mapping[str, NDArray[np.float32]]
    labels: NDArray[np.object_]
    starts_s: Floats
    blocks: NDArray[np.int64]


@dataclass
class Counts:
    """What was found on the way; `dropped` counts windows by reason."""

    missing: Counter[str]
    gaps: Counter[str]
    dropped: Counter[str]
    segments_too_short: int = 0

    @staticmethod
    def new() -> "Counts":
        """All zero."""
        return Counts(Counter(), Counter(), Counter())


def found_rate(signal: Signal) -> float:
    """Hz: one over the median step; 0 for fewer than two samples."""
    if len(signal.times_s) < 2:
        return 0.0
    return float(1.0 / np.median(np.diff(signal.times_s)))


def choose_rate(sensor: SensorPlan, rates_hz: Sequence[float], window_s: float) -> Rate:
    """The asked rate, or the median of the recordings', a whole number of Hz where that is close.

    Raises:
        DataError: a window would hold fewer than two samples of a series, or none of a vector.
    """
    found = np.array([rate for rate in rates_hz if rate > 0])
    if len(found) == 0:
        raise DataError(
            f"--sensor {sensor.name}: no recording has two samples of it; check its columns"
        )
    hz = float(np.median(found)) if sensor.rate_hz is None else sensor.rate_hz
    if sensor.rate_hz is None and abs(hz - round(hz)) < WHOLE_RATE * hz and round(hz):
        hz = float(round(hz))
    steps = round(window_s * hz)
    if steps < (1 if sensor.vector else 2):
        raise DataError(
            f"--sensor {sensor.name}: a window of {window_s:g} s holds {steps} samples at"
            f" {hz:.4g} Hz; use a longer --window-s, or correct --time-unit if the rate is wrong"
        )
    return Rate(hz, float(found.min()), float(found.max()), steps)


def cut_recording(
    recording: Recording,
    sensors: Sequence[SensorPlan],
    rates: Mapping[str, Rate],
    cut: Cut,
    counts: Counts,
) -> Windows:
    """All windows of one recording that have one label and every sensor."""
    for name, signal in recording.signals.items():
        counts.missing[name] += int(np.isnan(signal.values).sum())
    series = [rates[s.name] for s in sensors if not s.vector]
    reach = max([cut.window_s, *(rate.steps / rate.hz for rate in series)])
    slack = SLACK * min(1 / rate.hz for rate in rates.values())
    starts, lows, highs, blocks = [], [], [], []
    for low, high, block in _blocks(_segments(recording, sensors, rates, cut, counts), cut):
        count = int((high - low - reach + slack) / cut.stride_s + 1e-9) + 1
        if high - low - reach + slack < 0:
            counts.segments_too_short += 1
            continue
        starts.append(low + cut.stride_s * np.arange(count))
        lows.append(np.full(count, low))
        highs.append(np.full(count, high))
        blocks.append(np.full(count, block, np.int64))
    if not starts:
        return Windows({}, np.empty(0, object), np.empty(0), np.empty(0, np.int64))
    start, block_of = np.concatenate(starts), np.concatenate(blocks)
    bounds = (np.concatenate(lows), np.concatenate(highs))
    labels, keep = _label(recording, start, cut, counts)
    vectors = {}
    for sensor in sensors:
        if sensor.vector:
            means = _means(recording.signals[sensor.name], start, cut.window_s, sensor.fill)
            whole = ~np.isnan(means).any(axis=1)
            counts.dropped[f"no value of {sensor.name}"] += int((keep & ~whole).sum())
            keep &= whole
            vectors[sensor.name] = means
    values = {}
    for sensor in sensors:
        if sensor.vector:
            values[sensor.name] = vectors[sensor.name][keep].astype(np.float32)
        else:
            kept = (bounds[0][keep], bounds[1][keep])
            rate = rates[sensor.name]
            values[sensor.name] = _resample(recording.signals[sensor.name], start[keep], kept, rate)
    return Windows(values, labels[keep], start[keep], block_of[keep])


# ---------------------------------------------------------------- where there is signal


def _segments(
    recording: Recording,
    sensors: Sequence[SensorPlan],
    rates: Mapping[str, Rate],
    cut: Cut,
    counts: Counts,
) -> list[Segment]:
    """Stretches without a gap in any series, of times at which all of them have samples."""
    common: list[Segment] | None = None
    series = [s for s in sensors if not s.vector]
    for sensor in series or sensors:
        signal = recording.signals[sensor.name]
        found_hz, hz = found_rate(signal), rates[sensor.name].hz
        longest = cut.max_gap_s
        if sensor.vector:
            longest = np.inf
        elif longest is None:
            longest = GAP_PERIODS * max(1 / hz, 1 / (found_hz or np.inf))
        # Not more than a period of the result: nothing is read behind the last sample.
        period = 1 / max(hz, found_hz)
        whole: list[Segment] | None = None
        for channel in range(signal.values.shape[1]):
            held = ~np.isnan(signal.values[:, channel])
            if channel and held.all():
                continue  # every time of an earlier channel
            times = signal.times_s if held.all() else signal.times_s[held]
            own = _without_gaps(times, longest, period)
            whole = own if whole is None else _intersection(whole, own)
        counts.gaps[sensor.name] += max(0, len(whole or []) - 1)
        common = whole if common is None else _intersection(common, whole or [])
    return common or []


def _without_gaps(times_s: Floats, longest_s: float, period_s: float) -> list[Segment]:
    if len(times_s) == 0:
        return []
    breaks = np.flatnonzero(np.diff(times_s) > longest_s * (1 + 1e-9))
    first = times_s[np.concatenate([[0], breaks + 1])]
    last = times_s[np.concatenate([breaks, [len(times_s) - 1]])] + period_s
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _intersection(first: Sequence[Segment], second: Sequence[Segment]) -> list[Segment]:
    """Both lists are in order; so is the result."""
    found, i, j = [], 0, 0
    while i < len(first) and j < len(second):
        low, high = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if low <= high:
            found.append((low, high))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return found


def _blocks(segments: Sequence[Segment], cut: Cut) -> list[tuple[float, float, int]]:
    """Segments cut at multiples of `block_s` from the start: no window crosses a block's end."""
    if cut.block_s is None:
        return [(low, high, 0) for low, high in segments]
    pieces = []
    origin = segments[0][0] if segments else 0.0
    for low, high in segments:
        block = int((low - origin) / cut.block_s)
        while low < high:
            end = origin + (block + 1) * cut.block_s
            pieces.append((low, min(high, end), block))
            low, block = end, block + 1
    return pieces


# ---------------------------------------------------------------- values


def _resample(
    signal: Signal, starts_s: Floats, bounds: tuple[Floats, Floats], rate: Rate
) -> NDArray[np.float32]:
    """(W, T, C) at `rate` from each start on; means over a period stay inside the bounds (W,)."""
    at = starts_s[:, None] + np.arange(rate.steps) / rate.hz
    out = np.empty((*at.shape, signal.values.shape[1]), np.float32)
    means = rate.hz < MEAN_BELOW * found_rate(signal)
    half = 0.5 / rate.hz
    for channel in range(out.shape[2]):
        values = signal.values[:, channel]
        held = ~np.isnan(values)
        times = signal.times_s
        if not held.all():
            times, values = times[held], values[held]
        if means:
            low = np.maximum(at - half, bounds[0][:, None])
            high = np.minimum(at + half, bounds[1][:, None])
            area = _area(times, values, high) - _area(times, values, low)
            out[:, :, channel] = area / (high - low)
        else:
            out[:, :, channel] = np.interp(at, times, values)
    return out


def _area(times_s: Floats, values: Floats, at: Floats) -> Floats:
    """Integral of the line through the samples, from the first of them to each time of `at`."""
    steps = np.diff(times_s) * (values[1:] + values[:-1]) / 2
    before = np.concatenate([[0.0], np.cumsum(steps)])
    i = np.clip(np.searchsorted(times_s, at, side="right") - 1, 0, len(times_s) - 1)
    area: Floats = before[i] + (at - times_s[i]) * (values[i] + np.interp(at, times_s, values)) / 2
    return area


def _means(signal: Signal, starts_s: Floats, window_s: float, fill: float | None) -> Floats:
    """(W, C): mean of the values inside each window; `fill` or NaN where there are none."""
    first = np.searchsorted(signal.times_s, starts_s - INSTANT_S)
    last = np.searchsorted(signal.times_s, starts_s + window_s - INSTANT_S)
    held = ~np.isnan(signal.values)
    zero = np.zeros((1, signal.values.shape[1]))
    sums = np.concatenate([zero, np.cumsum(np.where(held, signal.values, 0.0), axis=0)])
    numbers = np.concatenate([zero, np.cumsum(held, axis=0)])
    count = numbers[last] - numbers[first]
    means: Floats = np.full(count.shape, np.nan if fill is None else fill)
    np.divide(sums[last] - sums[first], count, out=means, where=count > 0)
    return means


# ---------------------------------------------------------------- labels


def _label(
    recording: Recording, starts_s: Floats, cut: Cut, counts: Counts
) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Each window's label and whether it stays: the majority of its rows, if they are enough."""
    if recording.label_codes is None or recording.label_times_s is None:
        best = np.full(len(starts_s), recording.label or "", object)
        share = np.ones(len(starts_s))
    else:
        first = np.searchsorted(recording.label_times_s, starts_s - INSTANT_S)
        last = np.searchsorted(recording.label_times_s, starts_s + cut.window_s - INSTANT_S)
        best, most = np.full(len(starts_s), "", object), np.zeros(len(starts_s))
        names = {-1: "", **dict(enumerate(recording.label_names))}
        for code, label in sorted(names.items(), key=lambda pair: pair[1]):
            before = np.concatenate([[0], np.cumsum(recording.label_codes == code)])
            count = before[last] - before[first]
            best[count > most] = label
            most = np.maximum(count, most)
        share = most / np.maximum(last - first, 1)
    keep = np.ones(len(starts_s), bool)
    for reason, out in (
        ("no label", best == ""),
        ("mixed labels", share < cut.purity),
        *((f"label {label}", best == label) for label in sorted(cut.dropped_labels)),
    ):
        out = np.asarray(out, bool)
        counts.dropped[reason] += int((keep & out).sum())
        keep &= ~out
    return best, keep
