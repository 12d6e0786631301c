"""Writes small recordings to try `nas import` on: made up, but with the faults that real ones have.

    python examples/import/make_recordings.py DIR

Eight people carry a badge: an accelerometer at 50 Hz, and the signal strength of three radio
beacons about twice a second. They rest, walk and push a cart.

    DIR/badge/p1.csv ...                          both sensors in one file, activity in a column
    DIR/by_sensor/p1_walk_accel.csv, ..._rssi.csv one file for each sensor, activity in the name

In both the accelerometer has lost samples, one person's badge stops for a second and a half, and
beacons are not always heard.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RATE_HZ, SECONDS = 50, 30
ACTIVITIES = ("rest", "walk", "cart")
PEOPLE = tuple(f"p{i}" for i in range(1, 9))
BEACONS_DBM = {"rest": (-55, -80, -85), "walk": (-72, -68, -76), "cart": (-76, -74, -68)}
NOT_HEARD_BELOW_DBM = -90

Rows = list[tuple[float, str]]


def accelerometer(
    rng: np.random.Generator, activity: str, start_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (n,) in s and values (n, 3) in g; the clock jitters, and 1 sample in 500 is lost."""
    times = start_s + np.arange(SECONDS * RATE_HZ) / RATE_HZ
    times += rng.normal(0, 0.0005, len(times))
    pace_hz = {"rest": 0.3, "walk": 1.9, "cart": 1.5}[activity] * rng.uniform(0.8, 1.2)
    size = {"rest": 0.02, "walk": 0.35, "cart": 0.25}[activity] * rng.uniform(0.6, 1.4)
    phase = 2 * np.pi * pace_hz * times
    rattle = 0.04 * np.sin(2 * np.pi * 14 * times) if activity == "cart" else 0 * times
    values = np.stack(
        [size * np.sin(phase), 0.5 * size * np.sin(2 * phase + 1), 1 + size * np.cos(phase)], 1
    )
    values += rattle[:, None] + rng.normal(0, 0.06, values.shape)
    kept = rng.random(len(times)) > 0.002
    return times[kept], values[kept]


def beacons(
    rng: np.random.Generator, activity: str, start_s: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (n,) in s and strengths (n, 3) in dBm; NaN where a beacon was not heard."""
    times = start_s + np.cumsum(rng.uniform(0.4, 0.6, 2 * SECONDS - 4))
    values = (
        np.array(BEACONS_DBM[activity]) + rng.normal(0, 6, 3) + rng.normal(0, 5, (len(times), 3))
    )
    values[values < NOT_HEARD_BELOW_DBM] = np.nan
    return times, values


def lines(times: NDArray[np.float64], values: NDArray[np.float64], digits: int) -> Rows:
    """One line of text for each row; a missing value is an empty field."""
    texts = [
        ",".join("" if np.isnan(v) else f"{v:.{digits}f}" for v in row) for row in values.tolist()
    ]
    return list(zip(times.tolist(), texts, strict=True))


def write(path: Path, header: str, rows: Rows) -> None:
    """A CSV file of rows in the order of their times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(f"{t:.4f},{text}" for t, text in sorted(rows))]) + "\n")


def main() -> None:
    """Writes both folders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    rng = np.random.default_rng(0)
    for person in PEOPLE:
        together: Rows = []
        for number, activity in enumerate(ACTIVITIES):
            times, accel = accelerometer(rng, activity, number * SECONDS)
            if person == "p3":  # its battery came loose
                kept = (times < 40) | (times > 41.5)
                times, accel = times[kept], accel[kept]
            accel_rows = lines(times, accel, 3)
            rssi_rows = lines(*beacons(rng, activity, number * SECONDS), 0)
            name = f"{person}_{activity}"
            write(folder / "by_sensor" / f"{name}_accel.csv", "t,x,y,z", accel_rows)
            write(folder / "by_sensor" / f"{name}_rssi.csv", "t,door,desk,store", rssi_rows)
            together += [(t, f"{text},,,,{activity}") for t, text in accel_rows]
            together += [(t, f",,,{text},{activity}") for t, text in rssi_rows]
        header = "t,ax,ay,az,door,desk,store,activity"
        write(folder / "badge" / f"{person}.csv", header, together)


if __name__ == "__main__":
    main()
