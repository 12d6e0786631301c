"""Coswara: cough, speech and breathing of people with and without COVID-19.

Published at https://github.com/iiscleap/Coswara-Data (CC BY 4.0; described in arXiv 2305.12741):

    combined_data.csv                       a row a person: id, covid_status, and much else
    Extracted_data/<date>/<id>/<sound>.wav  after the repository's own extract_data.py

A person's folder may lie anywhere below. Of the nine sounds cough-heavy, counting-normal and
breathing-deep are read; `audio` says how. TinyM2Net-V3 names neither its data set nor its
preparation, so all of this is our choice: up to 6 windows of 2 s a person, window k of the three
sounds forming sample k; positive is every covid_status positive_*, negative healthy, exposed and
other respiratory illness (as the data set's own paper counts them); recovered and not validated
people are left out; split by person.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.audio import OFFSET, SCALE, loudest, mel_energies, read_wav
from nas.data.data_rules import listed
from nas.data.originals import Original, Show, notes_of, open_folder, read_rows
from nas.errors import DataError

TABLE = "combined_data.csv"
SOUNDS = {"cough": "cough-heavy", "speech": "counting-normal", "breath": "breathing-deep"}
CLASSES = ("negative", "positive")
STATUS: dict[str, int | None] = {
    "healthy": 0,
    "no_resp_illness_exposed": 0,
    "resp_illness_not_identified": 0,
    "positive_asymp": 1,
    "positive_mild": 1,
    "positive_moderate": 1,
    "recovered_full": None,
    "under_validation": None,
}
"""Class of each published covid_status; None: left out."""
MOST_WINDOWS = 6


def read_coswara(path: Path, show: Show) -> Original:
    """Reads the published folder.

    Raises:
        DataError: no table, an unknown status, a wav file that is missing or torn, or nobody left.
    """
    root = open_folder(path, "Coswara-Data")
    status = _statuses(root / TABLE)
    homes = _homes(root, status)
    left_out: Counter[str] = Counter()
    values: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in SOUNDS}
    labels, persons, counts = [], [], []
    for number, (person, label) in enumerate(status.items(), 1):
        show(f"reading  {number} of {len(status)} people")
        if label is None:
            left_out["people who had recovered or were not validated"] += 1
            continue
        if person not in homes:
            left_out[f"people of {TABLE} without a folder"] += 1
            continue
        windows = _windows(homes[person])
        count = min(map(len, windows.values()))
        if count == 0:
            left_out["people with a sound that is empty or shorter than 2 s"] += 1
            continue
        for name in SOUNDS:
            values[name].append(windows[name][:count])
        labels.append(label)
        persons.append(person)
        counts.append(count)
    _check(path, labels, left_out)
    arrays: dict[str, NDArray[Any]] = {
        f"modality_{name}": np.concatenate(values[name]) for name in SOUNDS
    }
    for name in SOUNDS:
        arrays[f"scale_{name}"] = np.array(SCALE, np.float32)
        arrays[f"offset_{name}"] = np.array(OFFSET, np.float32)
    arrays["y"] = np.repeat(np.array(labels, np.int64), counts)
    arrays["group"] = np.repeat(np.array(persons), counts)
    arrays["class_names"] = np.array(CLASSES)
    return Original(arrays, notes_of(left_out))


def _statuses(table: Path) -> dict[str, int | None]:
    """Class of each person, None for those who are left out."""
    found: dict[str, int | None] = {}
    for person, status in read_rows(table, ("id", "covid_status")):
        if status not in STATUS:
            raise DataError(
                f"{table}: covid_status {status!r} of {person} is not one of {listed(STATUS)};"
                " correct or remove the row"
            )
        if found.setdefault(person, STATUS[status]) != STATUS[status]:
            raise DataError(f"{table}: {person} occurs twice with two statuses; remove one row")
    if not found:
        raise DataError(f"{table}: no rows; download it again")
    return found


def _homes(root: Path, people: dict[str, int | None]) -> dict[str, Path]:
    """The folder of each person who has one."""
    homes: dict[str, Path] = {}
    for place, names, _ in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in set(names) & people.keys():
            if name in homes:
                raise DataError(
                    f"{place}/{name}: the same person is in {homes[name]} too; remove one of them"
                )
            homes[name] = Path(place, name)
    if not homes:
        raise DataError(
            f"{root}: no folder of anyone in {TABLE}; unpack the recordings first, with the data"
            " set's own extract_data.py"
        )
    return homes


def _windows(home: Path) -> dict[str, NDArray[np.uint8]]:
    sounds = {name: home / f"{file}.wav" for name, file in SOUNDS.items()}
    if not any(file.exists() for file in sounds.values()):
        raise DataError(
            f"{home}: holds none of {', '.join(f.name for f in sounds.values())}; unpack it again,"
            " or remove the folder to leave the person out"
        )
    return {
        name: loudest(mel_energies(read_wav(file)), MOST_WINDOWS) for name, file in sounds.items()
    }


def _check(path: Path, labels: list[int], left_out: "Counter[str]") -> None:
    counts = [labels.count(label) for label in range(len(CLASSES))]
    if min(counts) == 0:
        reasons = "; ".join(notes_of(left_out)) or "nobody was left out"
        raise DataError(
            f"{path}: {counts[0]} negative and {counts[1]} positive people; both are needed"
            f" ({reasons})"
        )
