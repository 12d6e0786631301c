"""The one line that each bad array and each bad file gets: file, value, rule, remedy."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nas.data.task import load_task, make_task
from nas.errors import DataError

Arrays = dict[str, npt.NDArray[Any]]


def saved(path: Path, arrays: Arrays, compressed: bool = False) -> Path:
    save: Callable[..., None] = np.savez_compressed if compressed else np.savez
    save(path, **arrays)
    return path


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


# ---------------------------------------------------------------- bad arrays


def put(**changes: Any) -> Callable[[Arrays], Any]:
    return lambda arrays: arrays.update(changes)


def drop(*keys: str) -> Callable[[Arrays], Any]:
    return lambda arrays: [arrays.pop(key) for key in keys]


def also(*steps: Callable[[Arrays], Any]) -> Callable[[Arrays], Any]:
    return lambda arrays: [step(arrays) for step in steps]


def poke(key: str, index: Any, value: Any, dtype: Any = None) -> Callable[[Arrays], Any]:
    def change(arrays: Arrays) -> None:
        arrays[key] = arrays[key].astype(dtype or arrays[key].dtype)
        arrays[key][index] = value

    return change


Y = np.arange(60) % 3
STATS = np.ones((60, 4), np.float32)
ALL_MODALITIES = (
    "modality_accel",
    "scale_accel",
    "offset_accel",
    "modality_view",
    "modality_stats",
)

BAD = {
    # keys
    "no modality": (
        drop(*ALL_MODALITIES),
        "no modality among the keys y, split, group, class_names, note; name the sensor arrays",
    ),
    "no y": (drop("y"), "no key 'y'; add the class of each sample"),
    "modalityfoo": (put(modalityfoo=STATS), "key 'modalityfoo' is not modality_NAME .* rename"),
    "modality_": (put(modality_=STATS), "key 'modality_' is not modality_NAME"),
    "modality2": (put(modality2=STATS), "key 'modality2' is not modality_NAME"),
    "plus": (put(**{"modality_a+b": STATS}), r"key 'modality_a\+b' is not modality_NAME"),
    "newline": (put(**{"modality_a\nb": STATS}), r"key 'modality_a\\nb' is not modality_NAME"),
    "digit": (put(modality_3d=STATS), "key 'modality_3d' is not modality_NAME"),
    "umlaut": (put(modality_hör=STATS), "key 'modality_hör' is not modality_NAME"),
    "scales": (put(scales=1.0), "key 'scales' is not scale_NAME"),
    "offset": (put(offset=1.0), "key 'offset' is not offset_NAME"),
    "scale of none": (
        put(scale_acel=1.0),
        r"'scale_acel' belongs to no modality; the modalities are accel, view, stats "
        r"\(did you mean accel\?\); rename or remove",
    ),
    # labels
    "float y": (put(y=Y.astype(float)), "y has type float64; it must hold integer classes 0..K-1"),
    "bool y": (put(y=Y > 0), "y has type bool; it must hold integer"),
    "string y": (put(y=Y.astype(str)), "y has type <U21; it must hold integer"),
    "2-D y": (put(y=Y[:, None]), r"y has shape \(60, 1\); it must have one dimension"),
    "0-D y": (put(y=np.int64(3)), r"y has shape \(\); it must have one dimension"),
    "empty y": (put(y=Y[:0]), "y is empty; a task needs samples"),
    "negative": (poke("y", 7, -1), "y has label -1, the first negative one in row 7; labels must"),
    "one class": (put(y=Y * 0 + 2), "y has only the label 2; a classifier needs two classes"),
    "gap": (
        also(drop("class_names"), put(y=Y * 2)),
        "y has no label 1 but a label 4; labels must be 0..K-1 without gaps",
    ),
    "from 1": (also(drop("class_names"), put(y=Y + 1)), "y has no label 0 but a label 3"),
    "huge": (put(y=Y.astype(np.uint64) + 2**63), "y has no label 0 but a label 92233720368"),
    "big": (also(drop("class_names"), put(y=Y * 10**9)), "y has no label 1 but a label 2000000000"),
    "gap inside names": (
        also(put(y=np.where(Y == 1, 0, Y)), poke("y", 0, 2)),
        "y has no label 1 but a label 2",
    ),
    "few names": (
        put(class_names=np.array(["a", "b"])),
        "class_names has 2 names and y has labels up to 2; K classes need K names",
    ),
    "many names": (put(class_names=np.array(list("abcd"))), "class_names has 4 names and y has la"),
    "float names": (put(class_names=np.ones(3)), "class_names has type float64; it must hold one"),
    "2-D names": (put(class_names=np.array([["a"]])), r"class_names has shape \(1, 1\)"),
    "same names": (put(class_names=np.array(list("aba"))), "class_names has 'a'; names must be"),
    "empty name": (put(class_names=np.array(["a", "", "b"])), "class_names has ''; names must be"),
    "line break": (put(class_names=np.array(["a", "b\n", "c"])), r"class_names has 'b\\n'; names"),
    # split and group
    "short y": (put(y=Y[:-1]), "group has 60 rows and y has 59; every array needs one row"),
    "short split": (put(split=np.zeros(59, int)), "split has 59 rows and y has 60; every array"),
    "long group": (put(group=np.zeros(61, int)), "group has 61 rows and y has 60; every array"),
    "short modality": (put(modality_stats=STATS[:9]), "modality_stats has 9 rows and y has 60"),
    "2-D split": (put(split=np.zeros((60, 1), int)), r"split has shape \(60, 1\)"),
    "float split": (put(split=np.zeros(60)), "split has type float64; it must hold integers 0, 1"),
    "split 3": (poke("split", 4, 3), "split has the value 3 in row 4; only 0"),
    "split -1": (poke("split", 5, -1, int), "split has the value -1 in row 5; only 0"),
    "no train": (put(split=Y % 2 + 1), r"split has no training rows \(value 0\); add some"),
    "no val": (put(split=Y % 2 * 2), r"split has no validation rows \(value 1\); add some"),
    "no test": (put(split=Y % 2), r"split has no test rows \(value 2\); add some"),
    "class not trained": (
        also(drop("group"), poke("split", Y == 1, 1)),
        r"class 1 \('walk'\) has no training rows; every class must occur in training",
    ),
    "shared group": (
        poke("split", 0, 2),
        r"group 0 occurs in train and test \(1 such groups\); splits must not share a group",
    ),
    "shared by three": (
        put(group=np.array(["a"] * 60)),
        "group 'a' occurs in train and val and test ",
    ),
    "2-D group": (put(group=np.zeros((60, 2), int)), r"group has shape \(60, 2\)"),
    "float group": (put(group=np.zeros(60)), "group has type float64; it must hold integers or"),
    "two groups": (
        also(drop("split"), put(group=Y % 2)),
        "group has 2 different values; three splits need three groups, add a split array",
    ),
    "group is class": (
        also(drop("split"), put(group=Y)),
        "in 200 splits by group none has every class in training; 3 groups are too few",
    ),
    "few rows": (
        lambda a: (
            [a.update({k: v[:2]}) for k, v in a.items() if np.ndim(v) and len(v) == 60]
            + [a.pop(k) for k in ("split", "group", "class_names")]
        ),
        "2 rows in 2 classes are too few to make three splits; add rows",
    ),
    # modalities
    "1-D": (put(modality_stats=STATS[:, 0]), r"modality_stats has shape \(60,\); it must be \(N, "),
    "5-D": (put(modality_view=np.ones((60, 2, 2, 2, 2))), r"shape \(60, 2, 2, 2, 2\); it must be"),
    "0-D": (put(modality_stats=np.float32(1)), r"modality_stats has shape \(\); it must be"),
    "string": (put(modality_stats=STATS.astype(str)), "modality_stats has type <U32; it must hold"),
    "bool": (put(modality_stats=STATS > 0), "modality_stats has type bool; it must hold integers"),
    "complex": (put(modality_stats=STATS + 1j), "modality_stats has type complex64; it must hold"),
    "objects": (put(modality_stats=STATS.astype(object)), "modality_stats has type object; it"),
    "dates": (put(modality_stats=STATS.astype("M8[s]")), r"type datetime64\[s\]; it must hold"),
    "no features": (put(modality_stats=STATS[:, :0]), r"shape \(60, 0\); no axis may have size 0"),
    "no steps": (put(modality_accel=np.ones((60, 0, 3))), r"shape \(60, 0, 3\); no axis may have"),
    "NaN": (
        poke("modality_stats", ([9, 9, 31], [0, 1, 2]), np.nan),
        "modality_stats has 3 NaN or infinite values, the first in row 9; .* replace them or drop",
    ),
    "Inf": (
        poke("modality_accel", 59, -np.inf, np.float16),
        "modality_accel has 24 NaN or infinite values, the first in row 59; ",
    ),
    "NaN in test rows": (poke("modality_view", 59, np.nan, float), "modality_view has 30 NaN"),
    "float64 beyond float32": (
        poke("modality_stats", (2, 1), 1e300, float),
        "modality_stats has 1 NaN or infinite values, the first in row 2",
    ),
    "huge value": (
        poke("modality_stats", (2, 1), 1e31),
        r"modality_stats has 1 values beyond 1e\+30, the first in row 2",
    ),
    # scale and offset
    "string scale": (put(scale_accel=np.array("1")), "scale_accel has type <U1; it must be a numb"),
    "bool scale": (put(scale_accel=np.True_), "scale_accel has type bool; it must be a number"),
    "complex offset": (put(offset_accel=1j), "offset_accel has type complex128; it must be a numb"),
    "scale shape": (
        put(scale_accel=np.ones(2)),
        r"scale_accel has shape \(2,\); it must be one number or one for each of the 3 channels",
    ),
    "offset shape": (
        put(offset_accel=np.ones((8, 3))),
        r"offset_accel has shape \(8, 3\); it must",
    ),
    "NaN scale": (put(scale_accel=np.nan), "scale_accel is nan; it must be finite, correct it"),
    "Inf offset": (put(offset_view=np.array([np.inf])), r"offset_view is \[inf\]; it must be fin"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(case: str, toy_arrays: Arrays) -> None:
    change, match = BAD[case]
    change(toy_arrays)
    with pytest.raises(DataError, match=match) as error:
        make_task(toy_arrays, "toy")
    assert one_line(error).startswith("toy: ")


@pytest.mark.parametrize("case", [name for name in BAD if name not in ("objects", "newline")])
def test_bad_files(case: str, tmp_path: Path, toy_arrays: Arrays) -> None:
    change, match = BAD[case]
    change(toy_arrays)
    path = saved(tmp_path / "toy.npz", toy_arrays)
    with pytest.raises(DataError, match=match) as error:
        load_task(path)
    assert one_line(error).startswith(f"{path}: ")


# ---------------------------------------------------------------- bad files


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    "key", ["modality_stats", "y", "split", "group", "class_names", "scale_accel"]
)
def test_pickles_are_refused_and_never_run(key: str, tmp_path: Path, toy_arrays: Arrays) -> None:
    mark = tmp_path / "exploded"
    toy_arrays[key] = np.array([Bomb(mark)] * 60, dtype=object)
    path = saved(tmp_path / "toy.npz", toy_arrays)
    with pytest.raises(DataError, match=f"'{key}' holds pickled objects, which are never") as error:
        load_task(path)
    one_line(error)
    assert not mark.exists()


def test_a_bare_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "exploded", tmp_path / "toy.npz"
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(DataError, match=r"is not an \.npz archive, or is cut short"):
        load_task(path)
    assert not mark.exists()


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: no such file; check the path, or use --task"):
        load_task(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"is a directory; give the \.npz file itself"):
        load_task(tmp_path)
    with pytest.raises(DataError, match="cannot be opened"):
        load_task("a\0b")


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"PK\3\4", b"\x93NUMPY", b"a,b\n1,2\n"])
def test_other_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "toy.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is not an \.npz archive, or is cut short; write it"):
        load_task(path)


def test_single_array(tmp_path: Path) -> None:
    path = tmp_path / "toy.npy"
    np.save(path, STATS)
    with pytest.raises(DataError, match=r"is a single array \(\.npy\), not an \.npz archive"):
        load_task(path)


def test_members_that_are_no_arrays_or_come_twice(tmp_path: Path, toy_arrays: Arrays) -> None:
    path = saved(tmp_path / "toy.npz", toy_arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("modality_text", "hello")
    with pytest.raises(DataError, match="'modality_text' is not a numpy array; write the file"):
        load_task(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y", "hello")
    with pytest.raises(DataError, match="key 'y' occurs twice; save the file again"):
        load_task(path)


def test_array_that_promises_more_than_it_holds(tmp_path: Path, toy_arrays: Arrays) -> None:
    path = saved(tmp_path / "toy.npz", {k: v for k, v in toy_arrays.items() if k != "y"})
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (2000000000000,), }"
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"'y' cannot be read .*; the file is damaged") as error:
        load_task(path)
    one_line(error)


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_anywhere_is_one_line_or_harmless(
    compressed: bool, tmp_path: Path, toy_arrays: Arrays
) -> None:
    content = saved(tmp_path / "good.npz", toy_arrays, compressed).read_bytes()
    path = tmp_path / "toy.npz"
    rng = np.random.default_rng(5)
    for at in rng.integers(0, len(content), 120):
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), content[:at]):
            path.write_bytes(damaged)
            try:
                load_task(path)
            except DataError as error:
                assert "\n" not in str(error)
            else:
                assert damaged is not content[:at]
