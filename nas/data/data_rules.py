"""The rules of the data contract: each check returns what it read, or raises a DataError.

`where` is always the file or the task that the message begins with.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import DataError

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

PLAIN_KEYS = ("y", "split", "group", "class_names")
PREFIXES = ("modality", "scale", "offset")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SPLITS = ("train", "val", "test")
LARGEST = 1e30
"""Real values beyond this leave no room to subtract a mean in float32."""


# ---------------------------------------------------------------- the file


class NpzArrays(Mapping[str, Array]):
    """The arrays of an open .npz: read when asked for, never unpickled."""

    def __init__(self, where: str, npz: Any) -> None:
        self._where, self._npz = where, npz
        self._keys = list(npz.files)
        twice = sorted({key for key in self._keys if self._keys.count(key) > 1})
        if twice:
            raise DataError(f"{where}: key {twice[0]!r} occurs twice; save the file again")

    def __getitem__(self, key: str) -> Array:
        if key not in self._keys:
            raise KeyError(key)
        try:
            array = self._npz[key]
        except Exception as error:  # zipfile, zlib, ast and numpy each raise their own
            if "allow_pickle" in str(error):
                raise DataError(
                    f"{self._where}: {key!r} holds pickled objects, which are never loaded; "
                    "save it as an array of numbers or strings"
                ) from None
            raise DataError(
                f"{self._where}: {key!r} cannot be read ({one_line(error)}); "
                "the file is damaged, write or copy it again"
            ) from None
        if not isinstance(array, np.ndarray):
            raise DataError(
                f"{self._where}: {key!r} is not a numpy array; write the file with numpy.savez"
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArrays]:
    """Open a data file. Arrays must be read inside the `with` block."""
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path, or use --task NAME") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a directory; give the .npz file itself") from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be opened ({one_line(error)}); check the path and its rights"
        ) from None
    with stream:
        try:
            npz = np.load(stream, allow_pickle=False)
        except Exception:  # as many types as there are ways to damage a file
            raise DataError(
                f"{path}: is not an .npz archive, or is cut short; write it with numpy.savez"
            ) from None
        if isinstance(npz, np.ndarray):
            raise DataError(
                f"{path}: is a single array (.npy), not an .npz archive; "
                "save named arrays with numpy.savez"
            )
        with npz:
            yield NpzArrays(str(path), npz)


def one_line(error: BaseException) -> str:
    """The text of an exception without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


# ---------------------------------------------------------------- the keys


@dataclass(frozen=True)
class Keys:
    """Modality names in the file's order, and the keys that no rule reads."""

    modalities: tuple[str, ...]
    ignored: tuple[str, ...]


def sort_keys(where: str, keys: Iterable[str]) -> Keys:
    """Sort the keys by rule. Near misses of a rule are errors, other keys are ignored."""
    names, owners, ignored = [], [], []
    every = list(keys)
    for key in every:
        prefix = next((p for p in PREFIXES if key.startswith(p)), None)
        if prefix is None:
            if key not in PLAIN_KEYS:
                ignored.append(key)
            continue
        name = key[len(prefix) + 1 :]
        if key != f"{prefix}_{name}" or not NAME.fullmatch(name):
            raise DataError(
                f"{where}: key {key!r} is not {prefix}_NAME with a NAME of letters, digits and "
                "'_' that begins with a letter; rename it"
            )
        if prefix == "modality":
            names.append(name)
        else:
            owners.append((key, name))
    if not names:
        raise DataError(
            f"{where}: no modality among the keys {listed(every)}; "
            "name the sensor arrays modality_NAME"
        )
    for key, name in owners:
        if name not in names:
            raise DataError(
                f"{where}: {key!r} belongs to no modality; the modalities are {listed(names)}"
                f"{closest(name, names)}; rename or remove it"
            )
    return Keys(tuple(names), tuple(ignored))


def listed(names: Iterable[str]) -> str:
    """Names for a message: quoted where they are odd, at most twelve."""
    shown = [name if NAME.fullmatch(name) else repr(name) for name in names]
    more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
    return (", ".join(shown[:12]) or "(none)") + more


def closest(name: str, known: Iterable[str]) -> str:
    """' (did you mean X?)', or nothing."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]}?)" if match else ""


def chosen_modalities(
    where: str, asked: Iterable[str] | None, known: tuple[str, ...]
) -> tuple[str, ...]:
    """The asked modalities in the order of `known`; all of them for None."""
    if asked is None:
        return known
    names = list(asked)
    for name in names:
        if name not in known:
            raise DataError(
                f"{where}: no modality {name!r}{closest(name, known)}; "
                f"the modalities are {listed(known)}"
            )
    if not names or len(set(names)) != len(names):
        raise DataError(
            f"{where}: modalities {listed(names)}: at least one is needed and each only once; "
            f"the modalities are {listed(known)}"
        )
    return tuple(name for name in known if name in names)


# ---------------------------------------------------------------- labels, split, group


def check_rows(where: str, key: str, array: Array, count: int) -> None:
    """One row for each of the `count` labels."""
    if len(array) != count:
        raise DataError(
            f"{where}: {key} has {len(array)} rows and y has {count}; "
            "every array needs one row for each sample"
        )


def check_flat(where: str, key: str, array: Array, kinds: str, wanted: str) -> None:
    """A one-dimensional array of one of the numpy `kinds`."""
    if array.ndim != 1:
        raise DataError(
            f"{where}: {key} has shape {array.shape}; it must have one dimension, flatten it"
        )
    if array.dtype.kind not in kinds:
        raise DataError(f"{where}: {key} has type {array.dtype}; it must hold {wanted}, convert it")


def read_labels(where: str, arrays: Mapping[str, Array]) -> Ints:
    """Labels (N,) of 0..K-1 without gaps, K at least 2."""
    if "y" not in arrays:
        raise DataError(f"{where}: no key 'y'; add the class of each sample as integers 0..K-1")
    y = np.asarray(arrays["y"])
    check_flat(where, "y", y, "iu", "integer classes 0..K-1")
    if len(y) == 0:
        raise DataError(f"{where}: y is empty; a task needs samples")
    labels = np.unique(y)
    if labels[0] < 0:
        row = int(np.argmax(y < 0))
        raise DataError(
            f"{where}: y has label {labels[0]}, the first negative one in row {row}; "
            "labels must be 0..K-1, drop or renumber such rows"
        )
    if len(labels) == 1:
        raise DataError(
            f"{where}: y has only the label {labels[0]}; a classifier needs two classes, add one"
        )
    return y.astype(np.int64) if int(labels[-1]) < 2**62 else _gap(where, labels)


def _gap(where: str, labels: Array) -> Ints:
    missing = int(np.argmax(labels != np.arange(len(labels), dtype=labels.dtype)))
    raise DataError(
        f"{where}: y has no label {missing} but a label {labels[-1]}; "
        "labels must be 0..K-1 without gaps, renumber them"
    )


def read_class_names(where: str, arrays: Mapping[str, Array], y: Ints) -> tuple[str, ...]:
    """K class names, from the file or '0'..'K-1'; checks that the labels have no gaps."""
    labels = np.unique(y)
    names: tuple[str, ...] | None = None
    if "class_names" in arrays:
        array = np.asarray(arrays["class_names"])
        check_flat(where, "class_names", array, "Uiu", "one string for each class")
        names = tuple(str(name) for name in array.tolist())
        if len(names) != labels[-1] + 1:
            raise DataError(
                f"{where}: class_names has {len(names)} names and y has labels up to {labels[-1]}; "
                "K classes need K names, correct one of them"
            )
        odd = [n for n in names if not n.strip() or not n.isprintable() or names.count(n) > 1]
        if odd:
            raise DataError(
                f"{where}: class_names has {odd[0]!r}; names must be printable, "
                "not empty and different from each other"
            )
    if labels[-1] != len(labels) - 1:
        _gap(where, labels)
    return names or tuple(str(label) for label in labels)


def read_group(where: str, arrays: Mapping[str, Array], count: int) -> Array | None:
    """Subject or site of each row (N,), integers or strings; None where the file has none."""
    if "group" not in arrays:
        return None
    group = np.asarray(arrays["group"])
    check_flat(where, "group", group, "iuUS", "integers or strings")
    check_rows(where, "group", group, count)
    return group


def read_split(where: str, arrays: Mapping[str, Array], count: int) -> npt.NDArray[np.int8] | None:
    """Split of each row (N,): 0, 1 or 2, each present; None where the file has none."""
    if "split" not in arrays:
        return None
    split = np.asarray(arrays["split"])
    check_flat(where, "split", split, "iu", "integers 0, 1, 2")
    check_rows(where, "split", split, count)
    bad = (split < 0) | (split > 2)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{where}: split has the value {split[row]} in row {row}; "
            "only 0 (train), 1 (validation) and 2 (test) are allowed"
        )
    for code, name in enumerate(("training", "validation", "test")):
        if not (split == code).any():
            raise DataError(
                f"{where}: split has no {name} rows (value {code}); "
                "add some, or leave the key out to get a stratified split"
            )
    return split.astype(np.int8)


def check_split(
    where: str, y: Ints, split: Array, group: Array | None, class_names: tuple[str, ...]
) -> None:
    """Every class occurs in training and no group in two splits."""
    counts = np.bincount(y[split == 0], minlength=len(class_names))
    if not counts.all():
        missing = int(np.argmin(counts))
        raise DataError(
            f"{where}: class {missing} ({class_names[missing]!r}) has no training rows; "
            "every class must occur in training, move some of its rows there or drop the class"
        )
    if group is None:
        return
    values, inverse = np.unique(group, return_inverse=True)
    member = np.zeros((len(values), 3), bool)
    member[inverse, split] = True
    shared = member.sum(axis=1) > 1
    if shared.any():
        first = int(np.argmax(shared))
        where_found = " and ".join(SPLITS[code] for code in np.flatnonzero(member[first]))
        raise DataError(
            f"{where}: group {values[first].item()!r} occurs in {where_found} "
            f"({int(shared.sum())} such groups); splits must not share a group, "
            "move it to one split or leave split out"
        )


# ---------------------------------------------------------------- modalities


def check_modality(where: str, name: str, stored: Array, count: int) -> None:
    """Shape (N, T, C), (N, H, W, C) or (N, F) of numbers, no axis of size 0."""
    if stored.dtype.kind not in "iuf":
        raise DataError(
            f"{where}: modality_{name} has type {stored.dtype}; "
            "it must hold integers or floats, convert it or rename the key"
        )
    if stored.ndim not in (2, 3, 4):
        raise DataError(
            f"{where}: modality_{name} has shape {stored.shape}; it must be (N, F) for vectors, "
            "(N, T, C) for series or (N, H, W, C) for images, reshape it"
        )
    check_rows(where, f"modality_{name}", stored, count)
    if 0 in stored.shape:
        raise DataError(
            f"{where}: modality_{name} has shape {stored.shape}; "
            "no axis may have size 0, fill it or remove the key"
        )


def read_factor(where: str, key: str, arrays: Mapping[str, Array], channels: int) -> Array | None:
    """`scale_NAME` or `offset_NAME`: () or (C,) finite numbers; None where the file has none."""
    if key not in arrays:
        return None
    factor = np.asarray(arrays[key])
    if factor.dtype.kind not in "iuf":
        raise DataError(f"{where}: {key} has type {factor.dtype}; it must be a number, convert it")
    if factor.shape not in ((), (1,), (channels,)):
        raise DataError(
            f"{where}: {key} has shape {factor.shape}; it must be one number or one for each of "
            f"the {channels} channels"
        )
    if not np.isfinite(factor).all():
        raise DataError(f"{where}: {key} is {factor.tolist()}; it must be finite, correct it")
    return factor


def read_rate_hz(name: str, arrays: Mapping[str, Array]) -> float | None:
    """`rate_hz_NAME`, as `nas import` writes it: one positive number.

    Keys that the format does not name belong to the user, so anything else of this name is ignored.
    """
    rate = np.asarray(arrays.get(f"rate_hz_{name}", ()))
    if rate.shape != () or rate.dtype.kind not in "iuf" or not 0 < rate < np.inf:
        return None
    return float(rate)


def read_columns(name: str, arrays: Mapping[str, Array], channels: int) -> tuple[str, ...]:
    """`columns_NAME`, as `nas import` writes it: a text for each channel; () for anything else."""
    columns = np.asarray(arrays.get(f"columns_{name}", ()))
    if columns.shape != (channels,) or columns.dtype.kind != "U":
        return ()
    return tuple(columns.tolist())


def check_finite(where: str, name: str, real: Array) -> None:
    """No NaN or infinity among the real values (N, ...), and none beyond `LARGEST`."""
    bad = ~(np.abs(real) <= LARGEST)
    if not bad.any():
        return
    row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
    kind = "NaN or infinite values"
    if np.isfinite(real).all():
        kind = f"values beyond {LARGEST:g}"
    raise DataError(
        f"{where}: modality_{name} has {int(bad.sum())} {kind}, the first in row {row}; "
        "values must be finite, replace them or drop such rows"
    )
