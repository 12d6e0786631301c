"""Small folders in the layouts as which the papers' data sets were published."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.io import wavfile

STATUSES = (
    *("healthy", "positive_mild", "no_resp_illness_exposed", "positive_asymp"),
    *("resp_illness_not_identified", "positive_moderate"),
)
SOUNDS = ("cough-heavy", "counting-normal", "breathing-deep")
ROOMS = ("hallway", "bedroom", "kitchen")
APS = (3, 5, 8)


def write_tones(file: Path, hz: float, seconds: float = 3.0, rate_hz: int = 16_000) -> None:
    """A tone in noise."""
    rng = np.random.default_rng(int(hz))
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    sound = np.sin(2 * np.pi * hz * times) + rng.normal(0, 0.01, len(times))
    wavfile.write(file, rate_hz, (8_000 * sound).astype(np.int16))


def write_coswara(root: Path, people: int = 12) -> Path:
    """Two dates of people; the table names the status of each."""
    rows = ["id,a,covid_status,record_date"]
    for number in range(people):
        status = STATUSES[number % len(STATUSES)]
        rows.append(f"person{number},33,{status},2022-01-18")
        home = root / "Extracted_data" / f"2020041{number % 2}" / f"person{number}"
        home.mkdir(parents=True)
        for place, sound in enumerate(SOUNDS):
            write_tones(home / f"{sound}.wav", 300 * (1 + place) + 10 * number)
        (home / "metadata.json").write_text("{}")
    (root / "combined_data.csv").write_text("\n".join(rows) + "\n")
    return root


def write_slp(root: Path, subjects: tuple[int, ...] = (1, 2, 6, 91)) -> Path:
    """Subjects with the published picture sizes; the first column tells subject, cover, frame."""
    for subject in subjects:
        for place, cover in enumerate(("uncover", "cover1", "cover2")):
            for modality, shape in (("depthRaw", (64, 80)), ("IRraw", (60, 40))):
                folder = root / "danaLab" / f"{subject:05d}" / modality / cover
                folder.mkdir(parents=True)
                for frame in range(1, 46):
                    picture = np.full(shape, 2_000, np.uint16)
                    picture[:, : shape[1] // 2] = 1_000 + 100 * place + frame
                    if modality == "depthRaw":
                        picture[:2] = 0
                    np.save(folder / f"{frame:06d}.npy", picture)
    return root / "danaLab"


def write_house(root: Path, rooms: tuple[str, ...] = ROOMS, minutes: int = 9) -> Path:
    """One house: a scripted walk, a minute in a room and the next, and half as much living.

    The access point of a room is heard there at -40 dBm and elsewhere at -80, the last one never
    while its number is odd seconds; the wrist moves with the number of the room.
    """
    house = root / "house_A"
    (house / "metadata").mkdir(parents=True)
    names = "".join(f"{place + 1},{room}\n" for place, room in enumerate(rooms))
    (house / "metadata" / "room_names.dat").write_text(names)
    tags = "".join(f"{place + 1},{10 + place},{20 + place}\n" for place in range(len(rooms)))
    (house / "metadata" / "room_tags.dat").write_text(tags)
    write_walk(house / "experiments" / "fingerprint_floor", len(rooms), 60 * minutes)
    write_walk(house / "experiments" / "living_1", len(rooms), 30 * minutes)
    return house


def write_walk(folder: Path, rooms: int, seconds: int, stay_s: int = 60) -> None:
    """The three files of an experiment."""
    folder.mkdir(parents=True)
    began = datetime(2017, 3, 2, 10, 0, tzinfo=UTC)
    packets = ["timestamp, ap_id, wearable_id, rssi"]
    accel = ["timestamp, ap_id, wearable_id, counter, acc1x, acc1y, acc1z"]
    annotations = ["timestamp, camera, tag, tag_coord_x, tag_coord_y, tag_coord_z"]
    for step in range(5 * seconds):
        second = step / 5
        at = f"{began + timedelta(seconds=second + 0.1):%Y-%m-%d %H:%M:%S.%f}"
        room = int(second // stay_s) % rooms
        for place, ap in enumerate(APS):
            packets.append(f"{at}, {ap}, 1, {-40 if place == room else -80}")
        accel.append(f"{at}, 3, 1, {step}, {room}, {step % 2}, 9.81")
        annotations.append(f"{at}, 0, {10 + room + 10 * (step % 2)}, 0.1, 0.2, 0.0")
    for name, lines in (
        ("rx_wearable_data.dat", packets),
        ("accelerometer_filtered.dat", accel),
        ("tag_annotations.dat", annotations),
    ):
        (folder / name).write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")


def write_lomapp(root: Path, rooms: tuple[str, ...] = ("hall", "kitchen", "stairs")) -> Path:
    """C and PD as converted to .npy: 300 samples in a room and the next, twice around."""
    for seed, person in enumerate(("C", "PD")):
        rng = np.random.default_rng(seed)
        room = np.repeat(np.tile(np.arange(len(rooms)), 2), 300)
        rssi = rng.normal(-80, 2, (len(room), 4)) + 20 * np.eye(4)[room]
        accel = rng.normal(0, 1, (len(room), 6)) + room[:, None]
        (root / person).mkdir(parents=True)
        np.save(root / person / "rssi.npy", windows(rssi))
        np.save(root / person / "accl.npy", windows(accel))
        np.save(root / person / "location.npy", windows(np.array(rooms)[room][:, None])[:, :, 0])
    return root


def windows(samples: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """(N, 25, C) windows, one sample apart, of samples (n, C)."""
    return np.lib.stride_tricks.sliding_window_view(samples, 25, axis=0).transpose(0, 2, 1)
