"""Which room a person is in, from a wristband: signal strength at access points, acceleration.

Byrne et al., "Residential wearable RSSI and accelerometer measurements with detailed location
annotations", Scientific Data 5:180168 (2018), https://ndownloader.figshare.com/files/14220518.
The layout is that of the data authors' loader and of github rymc/bHealth:

    house_<A|B|C|D>/metadata/room_names.dat         room number, name; no header
                             room_tags.dat          room number, tags on its floor; no header
                   /experiments/<fingerprint*|living*>/rx_wearable_data.dat        timestamp, ap_id,
                                                       wearable_id, rssi
                                                       accelerometer_filtered.dat  timestamp, ...,
                                                       acc1x, acc1y, acc1z
                                                       tag_annotations.dat  timestamp, ..., tag, ...

One house at a time, as each has its own access points and rooms. As in the localisation paper's
code (github AloeUoB/tinyML_indoor_localisation): windows of 20 samples every 10, the label is the
mode, trained on the scripted walks (fingerprint), tested on free living. Not published, and our
choice: samples at 5 Hz (about MDCSA's rate); each access point's mean over the period, which holds
for 1 s, then -120 dBm until it is heard again; a label holds for 0.5 s; windows with a label for
less than half of their samples are left out; every fifth block of 30 s of a room validates, and no
window crosses a block.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.data_rules import SPLITS, listed, one_line
from nas.data.originals import Original, Show, folders, labelled, notes_of, open_folder, read_rows
from nas.errors import DataError

Floats = NDArray[np.float64]

UNPACKED = "ble-accelerometer-indoor-localisation-measurements"
RATE_HZ = 5
WINDOW, HOP = 20, 10
BLOCK = 30 * RATE_HZ
VALIDATE_EVERY = 5
UNHEARD_DBM = -120.0
RSSI_HOLDS = RATE_HZ  # periods
LABEL_HOLDS_S = 0.5
AXES = ("acc1x", "acc1y", "acc1z")
TRAIN, VALIDATE, TEST = range(3)


@dataclass(frozen=True)
class _Walk:
    """One experiment as recorded; times in s, `packets` by access point, room -1 is none."""

    name: str
    scripted: bool
    packets: dict[int, tuple[Floats, Floats]]
    accel: tuple[Floats, Floats]
    rooms: tuple[Floats, NDArray[np.int64]]


@dataclass(frozen=True)
class _Windows:
    """Windows of one experiment, their rooms, splits and groups."""

    rssi: NDArray[np.float32]
    accel: NDArray[np.float32]
    rooms: NDArray[np.int64]
    split: NDArray[np.int8]
    group: NDArray[np.str_]


def read_residential(path: Path, show: Show) -> Original:
    """Reads one house.

    Raises:
        DataError: several houses, a missing file or column, a damaged row, or too little data.
    """
    house = _house(path)
    names, room_of_tag = _rooms(house)
    left_out: Counter[str] = Counter()
    walks = []
    for folder, scripted in _experiments(house, left_out):
        show(f"reading  {house.name} {folder.name}")
        walks.append(_read_walk(folder, scripted, room_of_tag, left_out))
    # Only what training hears can be used later.
    heard = sorted({ap for walk in walks if walk.scripted for ap in walk.packets})
    cut = [_cut(walk, heard, left_out) for walk in walks]
    split = np.concatenate([windows.split for windows in cut])
    for code, what in ((TRAIN, "fingerprint"), (VALIDATE, "fingerprint"), (TEST, "living")):
        if not (split == code).any():
            raise DataError(
                f"{house}: its {what} experiments give no windows for {SPLITS[code]}"
                f" ({'; '.join(notes_of(left_out)) or 'too short'})"
            )
    labels = np.array([*names.values()])[np.concatenate([windows.rooms for windows in cut])]
    known = list(dict.fromkeys(names.values()))
    y = labelled(known, labels, split == TRAIN)
    kept = y >= 0
    left_out["windows of rooms without training"] = int((~kept).sum())
    arrays: dict[str, NDArray[Any]] = {
        "modality_rssi": np.concatenate([windows.rssi for windows in cut])[kept],
        "modality_accel": np.concatenate([windows.accel for windows in cut])[kept],
        "y": y[kept],
        "split": split[kept],
        "group": np.concatenate([windows.group for windows in cut])[kept],
        "class_names": np.array(known),
        "columns_rssi": np.array([f"ap {ap}" for ap in heard]),
        "columns_accel": np.array(AXES),
    }
    for name in ("rssi", "accel"):
        arrays[f"rate_hz_{name}"] = np.array(float(RATE_HZ))
    return Original(arrays, notes_of(left_out))


# ---------------------------------------------------------------- the folder


def _house(path: Path) -> Path:
    root = open_folder(path, UNPACKED)
    if (root / "experiments").is_dir():
        return root
    houses = [p.name for p in folders(root) if (p / "experiments").is_dir()]
    if not houses:
        raise DataError(
            f"{root}: no folder experiments; give one house of the unpacked data set, as house_A"
        )
    raise DataError(
        f"{root}: holds the houses {listed(houses)}; each has its own rooms and access points, so"
        f" give one: {root / houses[0]}"
    )


def _experiments(house: Path, left_out: "Counter[str]") -> Iterator[tuple[Path, bool]]:
    """Folder of each experiment, and whether it is scripted: those first."""
    walks = folders(house / "experiments")
    for kind in ("fingerprint", "living"):
        found = [walk for walk in walks if walk.name.startswith(kind)]
        if not found:
            raise DataError(
                f"{house / 'experiments'}: no folder {kind}*; the folders are"
                f" {listed(walk.name for walk in walks)}, and both kinds are needed"
            )
        for walk in found:
            yield walk, kind == "fingerprint"
    other = [walk for walk in walks if not walk.name.startswith(("fingerprint", "living"))]
    left_out["experiments that are neither fingerprint nor living"] = len(other)


def _rooms(house: Path) -> tuple[dict[int, str], dict[int, int]]:
    """Name of each room by number, and for each tag the place of its room among them."""
    names = {n: rest[0] for n, rest in _numbered(house / "metadata" / "room_names.dat") if rest}
    places = {number: place for place, number in enumerate(names)}
    room_of_tag = {}
    for number, tags in _numbered(house / "metadata" / "room_tags.dat"):
        if number not in places:
            raise DataError(
                f"{house / 'metadata' / 'room_tags.dat'}: room {number} has no name in"
                " room_names.dat; unpack the data set again"
            )
        for tag in filter(None, tags):
            room_of_tag[_whole(house / "metadata" / "room_tags.dat", tag)] = places[number]
    return names, room_of_tag


def _numbered(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and the other columns of each row; a header is passed over."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); unpack it again") from None
    for place, line in enumerate(lines):
        first, *rest = (field.strip() for field in line.split(","))
        if first and (place or first.isdigit()):
            yield _whole(path, first), rest


def _whole(path: Path, text: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise DataError(f"{path}: {text!r} is no whole number; unpack it again") from None


# ---------------------------------------------------------------- one experiment


def _read_walk(
    folder: Path, scripted: bool, room_of_tag: dict[int, int], left_out: "Counter[str]"
) -> _Walk:
    """Reads the three files of an experiment."""
    stamps, points, strengths = _columns(folder / "rx_wearable_data.dat", ("ap_id", "rssi"))
    packets = {int(ap): (stamps[points == ap], strengths[points == ap]) for ap in np.unique(points)}
    accel_s, *axes = _columns(folder / "accelerometer_filtered.dat", AXES)
    tag_s, tags = _columns(folder / "tag_annotations.dat", ("tag",))
    rooms = np.array([room_of_tag.get(int(tag), -1) for tag in tags], np.int64)
    if (rooms < 0).all():
        raise DataError(
            f"{folder / 'tag_annotations.dat'}: none of its tags, as {int(tags[0])}, is in"
            " metadata/room_tags.dat; unpack the data set again"
        )
    left_out["annotations at a tag of no room"] += int((rooms < 0).sum())
    return _Walk(folder.name, scripted, packets, (accel_s, np.stack(axes, axis=1)), (tag_s, rooms))


def _columns(path: Path, names: tuple[str, ...]) -> tuple[Floats, ...]:
    """Time in s, ascending, and the named columns; rows without a value in one are passed over."""
    rows = []
    for row in read_rows(path, ("timestamp", *names)):
        if not all(row):
            continue
        try:
            moment = datetime.fromisoformat(row[0])
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            rows.append((moment.timestamp(), *map(float, row[1:])))
        except ValueError as error:
            raise DataError(f"{path}: {one_line(error)}; unpack it again") from None
    if not rows:
        raise DataError(f"{path}: no rows; unpack it again, or remove the experiment's folder")
    table = np.array(rows, np.float64)
    if not np.isfinite(table).all():
        raise DataError(f"{path}: holds values that are not finite; unpack it again")
    table = table[np.argsort(table[:, 0], kind="stable")]
    return tuple(table.T)


# ---------------------------------------------------------------- windows


def _cut(walk: _Walk, heard: list[int], left_out: "Counter[str]") -> _Windows:
    """Windows on a grid of `RATE_HZ` over the time in which both sensors speak."""
    firsts = [times[0] for times, _ in (*walk.packets.values(), walk.accel)]
    lasts = [times[-1] for times, _ in (*walk.packets.values(), walk.accel)]
    start = max(min(firsts[:-1]), firsts[-1]) - 0.5 / RATE_HZ  # samples amid their periods
    count = max(0, int((min(max(lasts[:-1]), lasts[-1]) - start) * RATE_HZ) + 1)
    rssi = np.full((count, len(heard)), UNHEARD_DBM, np.float32)
    for column, ap in enumerate(heard):
        if ap in walk.packets:
            means, known = _period_means(*walk.packets[ap], start, count)
            last = np.maximum.accumulate(np.where(known, np.arange(count), -RSSI_HOLDS - 1))
            held = np.arange(count) - last <= RSSI_HOLDS
            rssi[held, column] = means[last[held]]
    left_out["access points that only free living hears"] += len(walk.packets.keys() - set(heard))
    accel = np.zeros((count, len(AXES)), np.float32)
    for column in range(len(AXES)):
        means, moved = _period_means(walk.accel[0], walk.accel[1][:, column], start, count)
        if moved.any():
            accel[:, column] = np.interp(np.arange(count), np.flatnonzero(moved), means[moved])
    rooms = _room_at(walk, start + (np.arange(count) + 0.5) / RATE_HZ)
    starts, labels, groups = [], [], []
    block = BLOCK if walk.scripted else max(count, WINDOW)
    for first in range(0, count, block):
        for begin in range(first, min(first + block, count) - WINDOW + 1, HOP):
            inside = rooms[begin : begin + WINDOW]
            if 2 * (inside >= 0).sum() < WINDOW:
                left_out["windows with a label for less than half of their samples"] += 1
            elif 2 * moved[begin : begin + WINDOW].sum() < WINDOW:
                left_out["windows in which the accelerometer is mostly silent"] += 1
            else:
                starts.append(begin)
                labels.append(int(np.bincount(inside[inside >= 0]).argmax()))
                groups.append(f"{walk.name} {first // block}" if walk.scripted else walk.name)
    at = np.array(starts, np.int64)[:, None] + np.arange(WINDOW)
    groups_of, labels_of = np.array(groups, np.str_), np.array(labels, np.int64)
    split = _validated(groups_of, labels_of) if walk.scripted else np.full(len(at), TEST, np.int8)
    return _Windows(rssi[at], accel[at], labels_of, split, groups_of)


def _period_means(
    times_s: Floats, values: Floats, start_s: float, count: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Mean of the values in each of `count` periods, and which of them have any."""
    period = np.floor((times_s - start_s) * RATE_HZ).astype(np.int64)
    inside = (period >= 0) & (period < count)
    hits = np.bincount(period[inside], minlength=count)
    sums = np.bincount(period[inside], values[inside], minlength=count)
    return sums / np.maximum(hits, 1), hits > 0


def _room_at(walk: _Walk, times_s: Floats) -> NDArray[np.int64]:
    """Room of the nearest annotation, -1 where none is within `LABEL_HOLDS_S`."""
    stamps, rooms = walk.rooms
    after = np.searchsorted(stamps, times_s).clip(0, len(stamps) - 1)
    before = (after - 1).clip(0)
    closer = np.abs(stamps[before] - times_s) <= np.abs(stamps[after] - times_s)
    nearest = np.where(closer, before, after)
    near = np.abs(stamps[nearest] - times_s) <= LABEL_HOLDS_S
    return np.where(near, rooms[nearest], -1)


def _validated(groups: NDArray[np.str_], labels: NDArray[np.int64]) -> NDArray[np.int8]:
    """Splits the blocks of a scripted walk: of each room's blocks in order, every fifth."""
    split = np.full(len(groups), TRAIN, np.int8)
    seen: Counter[int] = Counter()
    for group in dict.fromkeys(groups.tolist()):
        inside = groups == group
        room = int(np.bincount(labels[inside]).argmax())
        seen[room] += 1
        if seen[room] % VALIDATE_EVERY == 0:
            split[inside] = VALIDATE
    return split
