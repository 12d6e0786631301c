"""LoMAPP: which room people with Parkinson's disease and their partners are in (MDCSA's data).

On request only (data-bris@bristol.ac.uk; MDCSA is arXiv 2308.02419). A dummy of two hours lies in
github ferdianjovan/Multihead-Dual-Convolutional-Self-Attention, data/ (CC0-1.0). Both come as
pickles, which are programs: nothing here opens one. The owner of the files converts them once,

    python -c "import pickle, sys, numpy as np; [np.save(f[:-4] + '.npy',
        np.array(np.asarray(pickle.load(open(f, 'rb'))).tolist())) for f in sys.argv[1:]]"
        data/*/rssi.pkl data/*/accl.pkl data/*/location.pkl

and this reads the result:

    <C|PD>/rssi.npy      (N, 25, A) signal strength; windows begin one sample (0.2 s) apart
           accl.npy      (N, 25, B) accelerometers
           location.npy  (N, 25) name of the room at each sample

As its authors do it, the room at the last sample is the label, the partner (C) trains and
validates, the patient (PD) is the test, and of each room the first half of C's windows trains.
Unlike them we drop validation windows that share samples with a training window, and keep every
fifth window of all, as neighbours share 24 of 25 samples. How the full data set names its pairs
is not published: give the folder of one pair.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.originals import Original, Show, labelled, notes_of, open_folder, read_array
from nas.errors import DataError

FILES = ("rssi", "accl", "location")
PERSONS = ("C", "PD")
KEEP_EVERY = 5
RATE_HZ = 5.0  # about: 39,500 windows in two hours


def read_lomapp(path: Path, show: Show) -> Original:
    """Reads the converted files of one pair.

    Raises:
        DataError: a missing or unconverted file, or arrays whose shapes do not fit.
    """
    root = open_folder(path, "data")
    partner, patient = (_person(root, name, show) for name in PERSONS)
    for name in ("rssi", "accl"):
        if partner[name].shape[1:] != patient[name].shape[1:]:
            raise DataError(
                f"{root}: {name} of C has windows {partner[name].shape[1:]} and that of PD"
                f" {patient[name].shape[1:]}; they must be of one pair in one home"
            )
    split = _halves(partner["location"][:, -1], partner["location"].shape[1])
    shared = int((split < 0).sum())
    split = np.concatenate([split, np.full(len(patient["location"]), 2, np.int8)])
    thin = np.concatenate([np.arange(len(p["location"])) for p in (partner, patient)])
    kept = (split >= 0) & (thin % KEEP_EVERY == 0)
    labels = np.concatenate([partner["location"][:, -1], patient["location"][:, -1]])
    names = np.unique(labels).tolist()
    y = labelled(names, labels, kept & (split == 0))
    left_out = Counter(
        {
            "validation windows that share samples with training": shared,
            "windows of rooms without training": int((kept & (y < 0)).sum()),
        }
    )
    kept &= y >= 0
    arrays: dict[str, NDArray[Any]] = {
        f"modality_{to}": np.concatenate([partner[of], patient[of]])[kept].astype(np.float32)
        for to, of in (("rssi", "rssi"), ("accel", "accl"))
    }
    arrays["y"], arrays["split"] = y[kept], split[kept]
    arrays["class_names"] = np.array(names)
    for to in ("rssi", "accel"):
        arrays[f"rate_hz_{to}"] = np.array(RATE_HZ)
    _check(root, arrays)
    return Original(arrays, notes_of(left_out))


def _person(root: Path, name: str, show: Show) -> dict[str, NDArray[Any]]:
    show(f"reading  {name}")
    home, found = root / name, {}
    if not home.is_dir():
        raise DataError(f"{root}: no folder {name}; give the folder of one pair, with C and PD")
    for file in FILES:
        path = home / f"{file}.npy"
        if not path.exists() and path.with_suffix(".pkl").exists():
            raise DataError(
                f"{path.with_suffix('.pkl')}: a pickle is a program and is never opened here;"
                " convert it to .npy as the README shows under Published data sets"
            )
        found[file] = read_array(path)
    rows = {file: array.shape[:2] for file, array in found.items()}
    if found["location"].ndim != 2 or found["location"].dtype.kind != "U":
        raise DataError(
            f"{home / 'location.npy'}: has shape {found['location'].shape} of"
            f" {found['location'].dtype}; names of rooms (windows, samples) are wanted"
        )
    for file in ("rssi", "accl"):
        if found[file].ndim != 3 or found[file].dtype.kind not in "iuf":
            raise DataError(
                f"{home / file}.npy: has shape {found[file].shape} of {found[file].dtype}; numbers"
                " (windows, samples, columns) are wanted"
            )
        if rows[file] != rows["location"]:
            raise DataError(
                f"{home / file}.npy: has {rows[file]} windows and samples, location.npy"
                f" {rows['location']}; convert both from one recording"
            )
    if 0 in found["location"].shape:
        raise DataError(f"{home / 'location.npy'}: is empty; convert it again")
    return found


def _halves(labels: NDArray[Any], length: int) -> NDArray[np.int8]:
    """Split of windows of `length` samples that begin one sample apart; -1 shares with training."""
    split = np.zeros(len(labels), np.int8)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        split[rows[(len(rows) + 1) // 2 :]] = 1
    trained = np.flatnonzero(split == 0)
    rows = np.arange(len(labels))
    after = np.searchsorted(trained, rows).clip(0, len(trained) - 1)
    away = np.minimum(np.abs(trained[after] - rows), np.abs(trained[(after - 1).clip(0)] - rows))
    split[(split == 1) & (away < length)] = -1
    return split


def _check(root: Path, arrays: dict[str, NDArray[Any]]) -> None:
    for code, what in enumerate(("training from C", "validation from C", "the test from PD")):
        if not (arrays["split"] == code).any():
            raise DataError(f"{root}: no windows are left for {what}; give longer recordings")
