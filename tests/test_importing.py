"""`nas import` as a user starts it: what it writes, what it prints, and what it refuses."""

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nas.cli import main
from nas.data.task import load_task
from nas.importing.recordings import Columns, read_name

STEPS, HZ = 100, 10
ACTIVITIES = ("rest", "walk")


def frame(seed: int, label: str = "", hz: int = HZ) -> pd.DataFrame:
    """Ten seconds: rest in the first half, walk in the second, unless a label is given."""
    rng = np.random.default_rng(seed)
    times = np.arange(STEPS * hz // HZ) / hz
    values = rng.normal(size=(len(times), 2)).round(3)
    half = np.where(np.arange(len(times)) < len(times) // 2, *ACTIVITIES)
    labels = half if not label else np.full(len(times), label)
    return pd.DataFrame({"t": times, "ax": values[:, 0], "ay": values[:, 1], "activity": labels})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five people, a file each."""
    made = tmp_path / "recordings"
    made.mkdir()
    for person in range(5):
        frame(person).to_csv(made / f"p{person}.csv", index=False)
    return made


class Import:
    """Runs the command in a folder of its own."""

    def __init__(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.out, self._capsys = tmp_path / "made.npz", capsys

    def __call__(self, *arguments: object, time: str | None = "t") -> str:
        status, out, error = self._run(*arguments, time=time)
        assert status == 0 and error == ""
        return out

    def refused(self, *arguments: object, time: str | None = "t") -> str:
        status, _, error = self._run(*arguments, time=time)
        assert status == 1 and error.startswith("error: ") and error.count("\n") == 1
        assert not self.out.exists()
        return error

    def _run(self, *arguments: object, time: str | None) -> tuple[int, str, str]:
        given = ["import", *map(str, arguments), "--out", str(self.out), "--quiet"]
        given += ["--time", time] if time else []
        if "--window-s" not in given:
            given += ["--window-s", "1"]
        status = main(given)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.out) as held:
            return {key: held[key] for key in held.files}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    return Import(tmp_path, capsys)


ACCEL = ("--sensor", "accel=ax,ay")
LABEL = ("--label", "activity")


# ---------------------------------------------------------------- what it writes


def test_a_folder_of_files(folder: Path, run: Import) -> None:
    seen = run(folder, *ACCEL, *LABEL, "--name", "{group}.csv")
    arrays = run.arrays
    assert arrays["modality_accel"].shape == (50, 10, 2)
    assert arrays["modality_accel"].dtype == np.float32
    assert arrays["class_names"].tolist() == ["rest", "walk"]
    assert arrays["split"].tolist() == load_task(run.out).split.tolist()
    assert arrays["group"].tolist() == np.repeat([f"p{i}" for i in range(5)], 10).tolist()
    assert arrays["y"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1] * 5
    held = frame(3)[["ax", "ay"]].to_numpy(np.float32)
    np.testing.assert_array_equal(arrays["modality_accel"][34], held[40:50])
    assert arrays["recording"][34] == "p3" and arrays["start_s"][34] == 4.0
    assert arrays["rate_hz_accel"] == 10
    task = load_task(run.out)
    assert task.names == ("accel",) and task.classes == 2
    assert set(task.ignored_keys) == {"recording", "start_s"}
    (accel,) = task.modalities
    assert accel.rate_hz == 10 and accel.columns == ("ax", "ay")
    for person in range(5):
        assert len(set(task.split[task.group == f"p{person}"])) == 1
    for text in ("5 files, 500 rows, 5 recordings", "50 kept", "50 x 10 x 2", "made by whole"):
        assert text in seen
    assert f"wrote {run.out}: 50 windows in {run.out.stat().st_size:,} bytes" in seen


def test_a_dry_run_says_all_and_writes_nothing(folder: Path, run: Import) -> None:
    before = sorted(folder.parent.rglob("*"))
    seen = run(folder, *ACCEL, *LABEL, "--stride-s", 0.5, "--dry-run")
    assert sorted(folder.parent.rglob("*")) == before
    assert "windows of 1 s every 0.5 s: 90 kept" in seen and "5 mixed labels" in seen
    assert "none given, so each recording is one" in seen
    assert "note: val is of 1 group only" in seen and "note: test is of 1 group only" in seen
    assert "note: train" not in seen
    assert "dry run: nothing written" in seen and " 90 windows in " in seen
    rows = [line.split() for line in seen.splitlines()]
    splits = {row[0]: row[1:] for row in rows if row and row[0] in ("train", "val", "test")}
    assert splits == {
        "train": ["3", "54", "27", "27"],
        "val": ["1", "18", "9", "9"],
        "test": ["1", "18", "9", "9"],
    }


def test_overlapping_windows_of_a_recording_are_never_in_two_splits(
    folder: Path, run: Import
) -> None:
    run(folder, *ACCEL, *LABEL, "--stride-s", 0.2)
    task, recording = load_task(run.out), run.arrays["recording"]
    assert len(set(recording)) == 5
    assert all(len(set(task.split[recording == name])) == 1 for name in set(recording))
    one = folder / "p0.csv"
    line = run_refused(run, one, *ACCEL, *LABEL, "--stride-s", 0.5)
    assert "each recording is kept whole in one split" in line and "--block-s" in line
    seen = run(one, *ACCEL, *LABEL, "--stride-s", 0.5, "--block-s", 1.5)
    arrays, task = run.arrays, load_task(run.out)
    assert "each block is one" in seen
    ends = arrays["start_s"] + 0.9
    for split in (0, 1, 2):
        inside, outside = task.split == split, task.split != split
        apart = np.abs(arrays["start_s"][inside][:, None] - arrays["start_s"][outside][None, :])
        assert apart.min() >= 1.0, "windows of two splits share samples"
    assert (ends <= 10).all()


def run_refused(run: Import, *arguments: object) -> str:
    run.out.unlink()
    return run.refused(*arguments)


def test_one_file_with_recordings_groups_and_splits_in_columns(run: Import, tmp_path: Path) -> None:
    parts = []
    for person in range(4):
        for take in range(2):
            part = frame(10 * person + take)
            part["person"], part["take"] = person, take
            part["set"] = ["train", "train", "validation", "test"][person]
            parts.append(part)
    # Rows of two recordings take turns, as two senders write into one log.
    table = pd.concat(parts).sort_values(["t", "person"], kind="stable")
    table.to_csv(tmp_path / "all.csv", index=False)
    columns = ("--group", "person", "--recording", "take", "--split", "set")
    run(tmp_path / "all.csv", *ACCEL, *LABEL, *columns)
    arrays = run.arrays
    assert arrays["split"].tolist() == np.repeat([0, 0, 1, 2], 20).tolist()
    assert arrays["group"].tolist() == np.repeat(["0", "1", "2", "3"], 20).tolist()
    assert len(set(arrays["recording"])) == 8
    want = frame(31)[["ax", "ay"]].to_numpy(np.float32)
    last = arrays["modality_accel"][arrays["recording"] == "all:1,3,test"]
    np.testing.assert_array_equal(last.reshape(-1, 2), want)


def test_a_file_for_each_sensor_with_rates_of_its_own(run: Import, tmp_path: Path) -> None:
    for person in range(3):
        for label in ACTIVITIES:
            for sensor, hz in (("accel", 10), ("gyro", 20)):
                made = frame(person, hz=hz).drop(columns="activity")
                path = tmp_path / f"p{person}" / f"{label}-{sensor}.csv"
                path.parent.mkdir(exist_ok=True)
                made.to_csv(path, index=False)
    (tmp_path / "p0" / "rest-mag.csv").write_text("t,ax\n0,1\n")
    (tmp_path / "p0" / "rest-gyro.csv").unlink()
    sensors = (*ACCEL, "--sensor", "gyro=ax")
    seen = run(tmp_path, *sensors, "--name", "{group}/{label}-{sensor}.csv")
    arrays = run.arrays
    assert arrays["modality_accel"].shape == (50, 10, 2)
    assert arrays["modality_gyro"].shape == (50, 20, 1)
    walks = arrays["modality_gyro"][(arrays["group"] == "p1") & (arrays["y"] == 1)]
    np.testing.assert_array_equal(walks.ravel(), frame(1, hz=20)["ax"].to_numpy(np.float32))
    assert "12 files, 1 of other sensors" in seen
    assert "for lack of a sensor: 1 recordings, the first p0/rest" in seen


def test_a_slow_sensor_in_the_rows_of_a_fast_one(run: Import, tmp_path: Path) -> None:
    for person in range(3):
        table = frame(person)
        table["rssi"] = np.where(np.arange(STEPS) % 5 == 0, -60.0 - person, np.nan)
        table["far"] = np.where(np.arange(STEPS) % 50 == 0, -90.0, np.nan)
        table.to_csv(tmp_path / f"p{person}.csv", index=False)
    seen = run(tmp_path, *ACCEL, "--sensor", "slow=rssi", "--vector", "mean=rssi,far:-99", *LABEL)
    arrays = run.arrays
    assert arrays["modality_slow"].shape[1:] == (2, 1) and arrays["rate_hz_slow"] == 2
    assert set(arrays["modality_mean"][:, 0]) == {-60.0, -61.0, -62.0}
    assert set(arrays["modality_mean"][:, 1]) == {-90.0, -99.0}
    assert "rate_hz_mean" not in arrays
    assert [line.split()[6] for line in seen.splitlines() if line.startswith(" accel")] == ["0"]
    assert load_task(run.out).modalities[2].kind == "vector"


TIMES: dict[str, tuple[Callable[[pd.Series], Any], tuple[object, ...]]] = {
    "ms": (lambda t: (t * 1000).astype(int), ("--time-unit", "ms")),
    "ns since 1970": (
        lambda t: (t * 1e9).astype(int) + 1_700_000_000 * 10**9,
        ("--time-unit", "ns"),
    ),
    "s since 1970": (lambda t: t + 1.7e9, ()),
    "ISO": (lambda t: pd.Timestamp("2024-03-31T01:59:57") + pd.to_timedelta(t, unit="s"), ()),
    "ISO with a zone": (
        lambda t: [f"2024-03-01T08:00:{second:06.3f}+02:00" for second in t],
        (),
    ),
}


@pytest.mark.parametrize("unit", TIMES)
def test_times_in_every_form_give_the_same_windows(
    unit: str, folder: Path, run: Import, tmp_path: Path
) -> None:
    run(folder, *ACCEL, *LABEL)
    expected = run.arrays
    convert, options = TIMES[unit]
    for path in folder.iterdir():
        table = pd.read_csv(path)
        table["t"] = convert(table["t"])
        table.to_csv(path, index=False)
    run(folder, *ACCEL, *LABEL, *options)
    for key, values in run.arrays.items():
        if key == "modality_accel":
            np.testing.assert_allclose(values, expected[key], atol=1e-4)
        else:
            np.testing.assert_array_equal(values, expected[key])


def test_without_a_time_column_rows_are_a_period_apart(folder: Path, run: Import) -> None:
    run(folder, *ACCEL, *LABEL)
    expected = run.arrays
    run(folder, "--sensor", "accel=ax,ay@10", *LABEL, time=None)
    for key, values in run.arrays.items():
        np.testing.assert_array_equal(values, expected[key])


def test_semicolons_decimal_commas_and_odd_headers(folder: Path, run: Import) -> None:
    run(folder, *ACCEL, *LABEL)
    expected = run.arrays
    for path in folder.iterdir():
        table = pd.read_csv(path).rename(columns={"ax": " ax "})
        table.to_csv(path, index=False, sep=";", decimal=",", encoding="utf-8-sig")
    run(folder, *ACCEL, *LABEL, "--decimal", ",")
    for key, values in run.arrays.items():
        np.testing.assert_array_equal(values, expected[key])


def test_parquet(folder: Path, run: Import) -> None:
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    run(folder, *ACCEL, *LABEL)
    expected = run.arrays
    for path in list(folder.iterdir()):
        pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))
        path.unlink()
    run(folder, *ACCEL, *LABEL)
    for key, values in run.arrays.items():
        np.testing.assert_array_equal(values, expected[key])


def test_parquet_without_pyarrow(
    run: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    original = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith(("pyarrow", "fastparquet")):
            raise ImportError(f"No module named {name!r}")
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    line = run.refused(tmp_path / "a.parquet", *ACCEL, *LABEL)
    assert "a.parquet: parquet needs pyarrow" in line and "pip install 'mcu-nas[parquet]'" in line


def test_labels_that_are_numbers_keep_their_order(run: Import, tmp_path: Path) -> None:
    for person in range(3):
        table = frame(person)
        table["activity"] = np.repeat([10.0, 9.0, 2.0, np.nan], STEPS // 4)
        table.to_csv(tmp_path / f"p{person}.csv", index=False)
    seen = run(tmp_path, *ACCEL, *LABEL, "--drop-label", "9")
    assert run.arrays["class_names"].tolist() == ["2", "10"]
    assert "label 9" in seen and "no label" in seen


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    (
        ("{group}_{label}.csv", "x/ann_walk.csv", {"group": "ann", "label": "walk"}),
        ("{group}_{label}", "x/ann_walk.csv.gz", {"group": "ann", "label": "walk"}),
        ("{group}/{}-{label}.csv", "x/ann/7-walk.csv", {"group": "ann", "label": "walk"}),
        ("{}_{label}.csv", "a.b_c.csv", {"label": "c"}),
    ),
)
def test_file_names(pattern: str, path: str, fields: dict[str, str]) -> None:
    assert read_name(Columns((), pattern=pattern), Path(path)) == fields


# ---------------------------------------------------------------- what it refuses


def changed(change: Callable[[pd.DataFrame], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        table = pd.read_csv(folder / "p2.csv")
        result = change(table)
        (table if result is None else result).to_csv(folder / "p2.csv", index=False)

    return apply


def put(column: str, row: int, value: object) -> Callable[[Path], None]:
    def change(table: pd.DataFrame) -> None:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value

    return changed(change)


# what is wrong -> how the recordings are harmed, what the line must name
BAD_FILES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing column": (
        changed(lambda t: t.rename(columns={"ay": "az"})),
        ("p2.csv: no column 'ay'", "the columns are t, ax, az, activity"),
    ),
    "text": (
        put("ax", 6, "1,5"),
        ("p2.csv: column 'ax' has '1,5' in data row 7", "must hold numbers", "--decimal ,"),
    ),
    "infinite": (put("ay", 3, "inf"), ("p2.csv: column 'ay' is infinite in data row 4",)),
    "time back": (
        put("t", 41, 0.05),
        ("p2.csv: time 't' runs backwards, from 4.0 to 0.05 in data row 42", "--recording"),
    ),
    "time missing": (put("t", 9, ""), ("p2.csv: time 't' is missing in data row 10; fill it",)),
    "time text": (
        put("t", 9, "noon"),
        ("p2.csv: time 't' is '0.0' in data row 1", "numbers or ISO 8601 times"),
    ),
    "time repeats": (
        changed(lambda t: t.assign(t=t["t"].round(0))),
        ("p2.csv: the time repeats in ", " rows of accel, the first in data row 2", "--recording"),
    ),
    "empty": (lambda f: (f / "p2.csv").write_text("t,ax,ay,activity\n"), ("p2.csv: no rows",)),
    "no table": (
        lambda f: (f / "p2.csv").write_bytes(b"\xff\xfe\x00\x01"),
        ("p2.csv: cannot be read as a table",),
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(case: str, folder: Path, run: Import) -> None:
    harm, named = BAD_FILES[case]
    harm(folder)
    line = run.refused(folder, *ACCEL, *LABEL)
    assert [text for text in named if text not in line] == [], line


FOLDER = object()
BAD_OPTIONS: dict[str, tuple[list[object], str]] = {
    "no sensor": ([FOLDER, *LABEL], "--sensor: none given"),
    "sensor form": (
        [FOLDER, "--sensor", "ax", *LABEL],
        "--sensor ax: must be NAME=COLUMN,COLUMN@H",
    ),
    "sensor rate": ([FOLDER, "--sensor", "a=ax@-5", *LABEL], "--sensor a=ax@-5: must be NAME"),
    "vector fill": ([FOLDER, "--vector", "a=ax:x", *LABEL], "--vector a=ax:x: must be NAME=COLUMN"),
    "sensor twice": (
        [FOLDER, *ACCEL, "--vector", "accel=ay", *LABEL],
        "--sensor: the name 'accel' twice",
    ),
    "sensor name": ([FOLDER, "--sensor", "3d=ax", *LABEL], "'modality_3d' is not modality_NAME"),
    "no label": ([FOLDER, *ACCEL], "no label; name its column with --label"),
    "two labels": (
        [FOLDER, *ACCEL, *LABEL, "--name", "{label}.csv"],
        "--label and {label} in --name: two sources",
    ),
    "field": ([FOLDER, *ACCEL, *LABEL, "--name", "{who}.csv"], "{who} is unknown"),
    "pattern": ([FOLDER, *ACCEL, *LABEL, "--name", "{group}.txt"], "does not fit 'p0.csv'"),
    "blocks of groups": (
        [FOLDER, *ACCEL, *LABEL, "--name", "{group}.csv", "--block-s", 5],
        "--block-s with a group",
    ),
    "no file": (["missing.csv", *ACCEL, *LABEL], "missing.csv: no such file or folder"),
    "long windows": (
        [FOLDER, *ACCEL, *LABEL, "--window-s", 60],
        "no window of 60 s is left: 5 stretches without a gap are shorter",
    ),
    "one class": (
        [FOLDER, *ACCEL, *LABEL, "--drop-label", "walk"],
        "all windows have the label 'rest'; a classifier needs two classes",
    ),
    "split": ([FOLDER, *ACCEL, *LABEL, "--split", "activity"], "split 'rest' is not one of train"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case: str, folder: Path, run: Import) -> None:
    arguments, named = BAD_OPTIONS[case]
    line = run.refused(*(folder if a is FOLDER else a for a in arguments))
    assert named in line, line


def test_times_in_another_unit_fit_no_window(folder: Path, run: Import) -> None:
    for path in folder.iterdir():
        table = pd.read_csv(path)
        table["t"] = (table["t"] * 1000).astype(int)
        table.to_csv(path, index=False)
    line = run.refused(folder, *ACCEL, *LABEL)
    assert "a window of 1 s holds 0 samples at 0.01 Hz" in line and "--time-unit" in line


def test_no_time_needs_rates(folder: Path, run: Import) -> None:
    line = run.refused(folder, *ACCEL, *LABEL, time=None)
    assert "no --time: every --sensor needs its rate" in line


def test_a_class_without_training_windows(run: Import, tmp_path: Path) -> None:
    for number, (label, split) in enumerate(
        [("rest", "train"), ("rest", "val"), ("rest", "test"), ("walk", "test")]
    ):
        frame(number, label).assign(set=split).to_csv(tmp_path / f"{number}.csv", index=False)
    line = run.refused(tmp_path, *ACCEL, *LABEL, "--split", "set")
    assert "class 1 ('walk') has no training rows" in line and "in an import: " in line


def test_a_group_in_two_splits(run: Import, tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        frame(number).assign(set=split, who="ann").to_csv(tmp_path / f"{number}.csv", index=False)
    line = run.refused(tmp_path, *ACCEL, *LABEL, "--split", "set", "--group", "who")
    assert "group 'ann' occurs in train and val and test" in line


def test_two_files_of_one_sensor(run: Import, tmp_path: Path) -> None:
    for take in (1, 2):
        frame(take).to_csv(tmp_path / f"rest_{take}_accel.csv", index=False)
    line = run.refused(tmp_path, *ACCEL, "--name", "{label}_{}_{sensor}.csv")
    assert "a second file of the sensor 'accel' of the recording" in line and "{recording}" in line


def test_the_folder_of_out_must_exist(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["import", str(folder), *ACCEL, *LABEL, "--time", "t", "--window-s", "1", "--out"]
    assert main([*base, str(tmp_path / "none" / "a.npz")]) == 1
    assert "must be a file in a folder that exists" in capsys.readouterr().err
    assert main([*base, str(tmp_path / "a.csv")]) == 1
    assert "a data file ends in .npz" in capsys.readouterr().err
