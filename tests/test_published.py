"""The data sets of the papers, read from small folders of their published layouts."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from published import (
    APS,
    ROOMS,
    write_coswara,
    write_house,
    write_lomapp,
    write_slp,
    write_tones,
    write_walk,
)

from nas.data import residential
from nas.data.named_tasks import Given, find_data
from nas.data.slp import area_means
from nas.data.task import Task
from nas.errors import DataError


def given(name: str, folder: Path) -> Given:
    return find_data(name, str(folder), None, lambda text: None)


def groups(task: Task) -> list[set[object]]:
    assert task.group is not None
    return [set(task.group[task.rows(split)].tolist()) for split in ("train", "val", "test")]


def notes(found: Given) -> tuple[str, ...]:
    assert found.original is not None
    return found.original.notes


# ---------------------------------------------------------------- Coswara


def test_coswara(tmp_path: Path) -> None:
    folder = write_coswara(tmp_path)
    for place, file in enumerate(
        sorted((folder / "Extracted_data/20200411/person1").glob("*.wav"))
    ):
        write_tones(file, 310 * (1 + place), seconds=20.0)
    found = given("covid-audio", folder)
    task = found.task
    assert task.name == "covid-audio" and task.path == folder.resolve() and found.published
    assert task.names == ("cough", "speech", "breath")
    assert all(m.shape == (64, 40, 1) and m.values.dtype == np.uint8 for m in task.modalities)
    assert task.class_names == ("negative", "positive")
    assert notes(found) == ()
    # 3 s hold one window and 20 s the most that is taken; the persons' statuses alternate.
    persons = [*([1] * 6), *range(2, 12)]
    assert task.group is not None
    assert task.group.tolist() == [f"person{n}" for n in (0, *persons)]
    assert task.y.tolist() == [n % 2 for n in (0, *persons)]
    trained, validated, tested = groups(task)
    assert trained and validated and tested
    assert not (trained & validated or trained & tested or validated & tested)
    # Each sound is in its own modality: their tones are a third of the band apart.
    peaks = [m.real(slice(None)).mean(axis=(0, 1))[:, 0].argmax() for m in task.modalities]
    assert peaks[0] < peaks[1] < peaks[2]


def test_coswara_counts_whom_it_leaves_out(tmp_path: Path) -> None:
    folder = write_coswara(tmp_path)
    table = (folder / "combined_data.csv").read_text().splitlines()
    table += ["gone,33,healthy,x", "well,33,recovered_full,x", "new,33,under_validation,x"]
    (folder / "combined_data.csv").write_text("\n".join(table))
    write_tones(folder / "Extracted_data/20200410/person0/cough-heavy.wav", 440, seconds=1.5)
    found = given("covid-audio", folder)
    assert notes(found) == (
        "left out: 1 people with a sound that is empty or shorter than 2 s",
        "left out: 1 people of combined_data.csv without a folder",
        "left out: 2 people who had recovered or were not validated",
    )
    assert found.task.group is not None and "person0" not in found.task.group
    assert len(found.task.y) == 11


def test_coswara_unpacked_beside_its_table(tmp_path: Path) -> None:
    whole = given("covid-audio", write_coswara(tmp_path / "a")).task
    beside = write_coswara(tmp_path / "b" / "Coswara-Data")
    (beside / "Extracted_data").rename(beside / "unpacked")
    assert given("covid-audio", tmp_path / "b").task.data_hash == whole.data_hash


def rewritten(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8-sig")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def first_home(folder: Path) -> Path:
    return folder / "Extracted_data" / "20200410" / "person0"


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(home: Path) -> None:
    for file in home.glob("*.wav"):
        file.unlink()


Harm = Callable[[Path], object]
COSWARA_HARMS: dict[str, tuple[Harm, str]] = {
    "no table": (
        lambda f: (f / "combined_data.csv").unlink(),
        r"combined_data\.csv: no such file",
    ),
    "another table": (
        lambda f: rewritten(f / "combined_data.csv", "covid_status", "status"),
        r"combined_data\.csv: no column 'covid_status'; the columns are id, a, status,",
    ),
    "unknown status": (
        lambda f: rewritten(f / "combined_data.csv", "positive_asymp", "maybe"),
        r"covid_status 'maybe' of person3 is not one of healthy, .*; correct or remove",
    ),
    "two statuses": (
        lambda f: rewritten(f / "combined_data.csv", "person1,33", "person0,33"),
        r"combined_data\.csv: person0 occurs twice with two statuses; remove one row",
    ),
    "cut table": (
        lambda f: rewritten(f / "combined_data.csv", "person11,33,positive_moderate", "person11"),
        r"combined_data\.csv: line 13 has 2 of 4 columns; the file is cut short",
    ),
    "no recordings": (
        lambda f: shutil.rmtree(f / "Extracted_data"),
        r"no folder of anyone in combined_data\.csv; unpack the recordings first",
    ),
    "torn wav": (
        lambda f: torn(first_home(f) / "breathing-deep.wav"),
        r"person0/breathing-deep\.wav: is no whole wav file .*; unpack it again, or remove",
    ),
    "missing wav": (
        lambda f: (first_home(f) / "counting-normal.wav").unlink(),
        r"person0/counting-normal\.wav: no such file",
    ),
    "empty person": (
        lambda f: emptied(first_home(f)),
        r"person0: holds none of cough-heavy\.wav, counting-normal\.wav, breathing-deep\.wav",
    ),
    "person twice": (
        lambda f: shutil.copytree(first_home(f), f / "again" / "person0"),
        r"person0: the same person is in .*person0 too; remove one",
    ),
    "no positive person": (
        lambda f: (
            rewritten(f / "combined_data.csv", "positive_mild", "recovered_full"),
            rewritten(f / "combined_data.csv", "positive_asymp", "under_validation"),
            rewritten(f / "combined_data.csv", "positive_moderate", "recovered_full"),
        ),
        r"6 negative and 0 positive people; both are needed \(left out: 6 people who had",
    ),
}


@pytest.mark.parametrize("case", COSWARA_HARMS)
def test_harmed_coswara(case: str, tmp_path: Path) -> None:
    harm, match = COSWARA_HARMS[case]
    folder = write_coswara(tmp_path)
    harm(folder)
    with pytest.raises(DataError, match=match) as refused:
        given("covid-audio", folder)
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------- SLP


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slp(tmp_path_factory.mktemp("slp"))


def test_slp(bed: Path) -> None:
    found = given("depth-thermal-pose", bed)
    task = found.task
    assert task.names == ("depth", "thermal") and notes(found) == ()
    assert all(m.shape == (32, 32, 1) for m in task.modalities)
    assert task.class_names == ("supine", "left side", "right side")
    assert len(task.y) == 4 * 3 * 45
    assert task.y[:45].tolist() == [0] * 15 + [1] * 15 + [2] * 15
    assert (task.y.reshape(12, 45) == task.y[:45]).all()
    assert groups(task) == [{1, 2}, {6}, {91}]
    depth, thermal = (m.values[..., 0] for m in task.modalities)
    # Row 45 + 6 is subject 1, cover1, frame 7; the left half says so, in both modalities.
    assert (depth[51, 5, :16] == 1_107).all() and (depth[51, 5, 16:] == 2_000).all()
    assert (thermal[51, :, :16] == 1_107).all() and (thermal[51, :, 16:] == 2_000).all()
    assert (depth[:, 0] > 1_000).all()  # not measured: the median of the picture instead


def test_slp_by_its_parent_and_without_a_cover(bed: Path, tmp_path: Path) -> None:
    root = tmp_path / "slp" / "danaLab"
    shutil.copytree(bed, root, ignore=shutil.ignore_patterns("cover1"))
    found = given("depth-thermal-pose", root.parent)
    assert len(found.task.y) == 4 * 2 * 45
    assert notes(found) == ("left out: cover1, as the folder lacks it",)


def test_area_means() -> None:
    picture = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_allclose(area_means(picture, 2), [[1, 4], [7, 10]])
    thirds = area_means(np.array([[0, 3], [0, 3]], np.float32), 3)  # pixels are divided
    np.testing.assert_allclose(thirds, [[0, 1.5, 3]] * 3, atol=1e-6)
    assert area_means(np.full((424, 512), 7, np.float32), 32) == pytest.approx(7)


SLP_HARMS: dict[str, tuple[Harm, str]] = {
    "no subjects": (
        lambda f: [shutil.rmtree(home) for home in f.iterdir()],
        r"danaLab: no folder of a subject, such as 00001",
    ),
    "no raw depth": (
        lambda f: (f / "00001" / "depthRaw").rename(f / "00001" / "depth"),
        r"00001: no folder depthRaw; unpack depthRaw and IRraw",
    ),
    "no covers": (
        lambda f: [shutil.rmtree(cover) for cover in (f / "00001" / "depthRaw").iterdir()],
        r"00001/depthRaw: holds none of uncover, cover1, cover2",
    ),
    "empty subject": (
        lambda f: [shutil.rmtree(inside) for inside in (f / "00002").iterdir()],
        r"00002: no folder depthRaw/uncover; unpack the subject again, or remove the folder",
    ),
    "missing frame": (
        lambda f: (f / "00002" / "IRraw" / "cover2" / "000031.npy").unlink(),
        r"00002/IRraw/cover2/000031\.npy: no such file",
    ),
    "torn frame": (
        lambda f: torn(f / "00002" / "IRraw" / "cover2" / "000031.npy"),
        r"000031\.npy: is no \.npy file of numbers or strings",
    ),
    "pickled frame": (
        lambda f: np.save(f / "00001/IRraw/uncover/000001.npy", np.array([{}]), allow_pickle=True),
        r"000001\.npy: is no \.npy file .* \(pickles are never opened\)",
    ),
    "three channels": (
        lambda f: np.save(f / "00001/IRraw/uncover/000001.npy", np.zeros((60, 40, 3))),
        r"000001\.npy: has shape \(60, 40, 3\) of float64; one picture of numbers, at least 32",
    ),
    "blind depth": (
        lambda f: np.save(f / "00001/depthRaw/uncover/000001.npy", np.zeros((60, 40))),
        r"000001\.npy: all distances are 0",
    ),
    "no test subject": (
        lambda f: shutil.rmtree(f / "00091"),
        r"danaLab: 3 subjects, none of 91-102 for the test",
    ),
}


@pytest.mark.parametrize("case", SLP_HARMS)
def test_harmed_slp(case: str, bed: Path, tmp_path: Path) -> None:
    harm, match = SLP_HARMS[case]
    folder = Path(shutil.copytree(bed, tmp_path / "danaLab"))
    harm(folder)
    with pytest.raises(DataError, match=match) as refused:
        given("depth-thermal-pose", folder)
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------- one house


def test_residential(tmp_path: Path) -> None:
    found = given("indoor-localisation", write_house(tmp_path))
    task = found.task
    assert task.names == ("rssi", "accel") and task.class_names == ROOMS and notes(found) == ()
    rssi, accel = task.modalities
    assert rssi.shape == (20, len(APS)) and accel.shape == (20, 3)
    assert rssi.columns == ("ap 3", "ap 5", "ap 8") and rssi.rate_hz == 5.0
    # A room's own access point is loud in its windows, and the wrist tells the room too.
    inside = np.array([rssi.values[row, 10].argmax() for row in range(len(task.y))])
    assert (inside == task.y).mean() > 0.95
    assert (np.abs(accel.values[:, :, 0].mean(axis=1) - task.y) < 0.5).mean() > 0.95
    assert set(np.unique(rssi.values)) <= {-40.0, -80.0, -60.0}
    trained, validated, tested = groups(task)
    assert tested == {"living_1"} and not trained & validated
    # 9 minutes are 18 blocks of 30 s, 6 of each room, the fifth of each to validate.
    assert len(trained) == 15 and len(validated) == 3
    assert all(str(name).startswith("fingerprint_floor ") for name in trained | validated)
    assert [len(task.rows(s)) for s in ("train", "val", "test")] == [14 * 15, 14 * 3, 134]


def test_a_window_has_the_room_of_most_of_its_samples(tmp_path: Path) -> None:
    house = write_house(tmp_path)
    task = given("indoor-localisation", house).task
    living = task.rows("test")
    starts = np.arange(len(living)) * 10
    middle = (starts + 10) / 5 // 60 % 3  # room of the sample in the middle
    clear = (starts / 5 // 60) == ((starts + 19) / 5 // 60)
    assert clear.sum() > 100 and (task.y[living][clear] == middle[clear]).all()


def test_what_is_not_heard_and_who_is_not_labelled(tmp_path: Path) -> None:
    house = write_house(tmp_path)
    walk = house / "experiments" / "living_1"
    packets = (walk / "rx_wearable_data.dat").read_text(encoding="utf-8-sig").splitlines()
    kept = [line for line in packets if ", 5, 1," not in line]
    kept += [kept[1].replace(", 3, 1,", ", 77, 1,")]
    (walk / "rx_wearable_data.dat").write_text("\n".join(kept))
    tags = (walk / "tag_annotations.dat").read_text(encoding="utf-8-sig").splitlines()
    (walk / "tag_annotations.dat").write_text("\n".join(tags[:601]))  # two minutes of 4.5
    (house / "experiments" / "calibration").mkdir()
    found = given("indoor-localisation", house)
    rssi, living = found.task.modalities[0].values, found.task.rows("test")
    assert (rssi[living][:, :, 1] == -120.0).all() and (rssi[living][:, :, 0] > -100).all()
    assert notes(found) == (
        "left out: 1 experiments that are neither fingerprint nor living",
        "left out: 1 access points that only free living hears",
        "left out: 74 windows with a label for less than half of their samples",
    )
    assert len(living) == 134 - 74


def shortened(file: Path, kept: Callable[[int, str], bool]) -> None:
    """Keeps the lines of a file for which `kept`, of the line's number and text, holds."""
    lines = file.read_text(encoding="utf-8-sig").splitlines()
    file.write_text("\n".join(line for n, line in enumerate(lines) if kept(n, line)))


def test_a_signal_holds_for_a_second(tmp_path: Path) -> None:
    house = write_house(tmp_path)
    walk = house / "experiments" / "living_1"
    # Access point 5 falls silent after 10 samples: packets are 3 a sample, below a header.
    shortened(walk / "rx_wearable_data.dat", lambda n, line: n <= 30 or ", 5, 1," not in line)
    task = given("indoor-localisation", house).task
    first = task.modalities[0].values[task.rows("test")[0], :, 1]
    assert first.tolist() == [-80.0] * 15 + [-120.0] * 5


def test_windows_without_a_moving_wrist_are_left_out(tmp_path: Path) -> None:
    house = write_house(tmp_path)
    walk = house / "experiments" / "living_1"
    shortened(walk / "accelerometer_filtered.dat", lambda n, line: not 101 <= n <= 200)
    found = given("indoor-localisation", house)
    # Of samples 100-199 none is left, so that nine windows have none of their own.
    assert notes(found) == ("left out: 9 windows in which the accelerometer is mostly silent",)


def test_the_nearest_annotation_counts() -> None:
    stamps = (np.array([0.0, 1.0]), np.array([4, 7]))
    walk = residential._Walk("w", True, {}, (np.zeros(0), np.zeros((0, 3))), stamps)
    times = np.array([-0.6, -0.4, 0.0, 0.3, 0.7, 1.4, 1.6])
    assert residential._room_at(walk, times).tolist() == [-1, 4, 4, 4, 7, 7, -1]


def test_a_room_without_training_is_left_out(tmp_path: Path) -> None:
    house = write_house(tmp_path, rooms=(*ROOMS[:2], "outside"), minutes=12)
    walk = house / "experiments" / "fingerprint_floor"
    shutil.rmtree(walk)
    write_walk(walk, 2, 600)
    found = given("indoor-localisation", house)
    assert found.task.class_names == ROOMS[:2]
    assert any(note.endswith("windows of rooms without training") for note in notes(found))


HOUSE_HARMS: dict[str, tuple[Harm, str]] = {
    "several houses": (
        lambda h: shutil.copytree(h, h.parent / "house_B"),
        r"holds the houses house_A, house_B; .* give one: .*house_A",
    ),
    "no house": (
        lambda h: shutil.rmtree(h),
        r"no folder experiments; give one house of the unpacked data set",
    ),
    "no fingerprint": (
        lambda h: (h / "experiments" / "fingerprint_floor").rename(h / "experiments" / "walk"),
        r"experiments: no folder fingerprint\*; the folders are living_1, walk",
    ),
    "no living": (
        lambda h: shutil.rmtree(h / "experiments" / "living_1"),
        r"experiments: no folder living\*",
    ),
    "no rooms": (
        lambda h: (h / "metadata" / "room_names.dat").unlink(),
        r"room_names\.dat: cannot be read",
    ),
    "room without a name": (
        lambda h: rewritten(h / "metadata" / "room_tags.dat", "3,12,22", "9,12,22"),
        r"room_tags\.dat: room 9 has no name in room_names\.dat",
    ),
    "odd tag": (
        lambda h: rewritten(h / "metadata" / "room_tags.dat", "3,12,22", "3,12,x"),
        r"room_tags\.dat: 'x' is no whole number",
    ),
    "unknown tags": (
        lambda h: (h / "metadata" / "room_tags.dat").write_text("1,70\n2,71\n3,72\n"),
        r"tag_annotations\.dat: none of its tags, as 10, is in metadata/room_tags\.dat",
    ),
    "missing file": (
        lambda h: (h / "experiments/living_1/accelerometer_filtered.dat").unlink(),
        r"living_1/accelerometer_filtered\.dat: no such file",
    ),
    "missing column": (
        lambda h: rewritten(h / "experiments/living_1/rx_wearable_data.dat", "rssi", "power"),
        r"rx_wearable_data\.dat: no column 'rssi'; the columns are timestamp, ap_id,",
    ),
    "cut file": (
        lambda h: torn_line(h / "experiments/living_1/rx_wearable_data.dat"),
        r"rx_wearable_data\.dat: line 101 has 3 of 4 columns; the file is cut short",
    ),
    "odd time": (
        lambda h: rewritten(
            h / "experiments/living_1/tag_annotations.dat", "2017-03-02 10:00:00.1", "soon"
        ),
        r"tag_annotations\.dat: Invalid isoformat string",
    ),
    "not a number": (
        lambda h: rewritten(h / "experiments/living_1/rx_wearable_data.dat", "-40\n", "nan\n"),
        r"rx_wearable_data\.dat: holds values that are not finite",
    ),
    "empty recording": (
        lambda h: (h / "experiments/living_1/rx_wearable_data.dat").write_text(
            "timestamp, ap_id, wearable_id, rssi\n"
        ),
        r"rx_wearable_data\.dat: no rows; unpack it again, or remove the experiment's folder",
    ),
    "too short": (
        lambda h: (
            shutil.rmtree(h / "experiments/living_1"),
            write_walk(h / "experiments/living_1", 3, 3),
        ),
        r"house_A: its living experiments give no windows for test",
    ),
    "too few blocks": (
        lambda h: (
            shutil.rmtree(h / "experiments/fingerprint_floor"),
            write_walk(h / "experiments/fingerprint_floor", 3, 180),
        ),
        r"house_A: its fingerprint experiments give no windows for val",
    ),
}


def torn_line(file: Path) -> None:
    lines = file.read_text(encoding="utf-8-sig").splitlines()[:101]
    file.write_text("\n".join([*lines[:100], lines[100][:30]]))


@pytest.mark.parametrize("case", HOUSE_HARMS)
def test_harmed_house(case: str, tmp_path: Path) -> None:
    harm, match = HOUSE_HARMS[case]
    house = write_house(tmp_path / "set")
    harm(house)
    whole = case in ("several houses", "no house")
    with pytest.raises(DataError, match=match) as refused:
        given("indoor-localisation", house.parent if whole else house)
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------- LoMAPP


def test_lomapp(tmp_path: Path) -> None:
    found = given("parkinson-localisation", write_lomapp(tmp_path / "data"))
    task = found.task
    assert task.names == ("rssi", "accel") and task.class_names == ("hall", "kitchen", "stairs")
    assert [m.shape for m in task.modalities] == [(25, 4), (25, 6)]
    rssi = task.modalities[0].values
    assert (rssi[:, -1].argmax(axis=1) == task.y).mean() > 0.95  # the room of the last sample
    assert [len(task.rows(s)) for s in ("train", "val", "test")] == [178, 173, 356]
    assert notes(found) == ("left out: 24 validation windows that share samples with training",)


def test_lomapp_validation_shares_no_sample_with_training(tmp_path: Path) -> None:
    folder = write_lomapp(tmp_path)
    for person in ("C", "PD"):
        rssi = np.load(folder / person / "rssi.npy")
        rssi[:, :, 0] = np.arange(len(rssi))[:, None] + np.arange(25)  # each sample's number
        np.save(folder / person / "rssi.npy", rssi)
    task = given("parkinson-localisation", folder).task
    stamps = task.modalities[0].values[:, :, 0]
    trained, validated = (set(stamps[task.rows(s)].ravel()) for s in ("train", "val"))
    assert trained and validated and not trained & validated


LOMAPP_HARMS: dict[str, tuple[Harm, str]] = {
    "no person": (
        lambda f: shutil.rmtree(f / "PD"),
        r"no folder PD; give the folder of one pair, with C and PD",
    ),
    "pickles": (
        lambda f: (
            (f / "C" / "rssi.npy").unlink(),
            (f / "C" / "rssi.pkl").write_bytes(pickle.dumps([1])),
        ),
        r"C/rssi\.pkl: a pickle is a program and is never opened here; convert it to \.npy",
    ),
    "missing file": (
        lambda f: (f / "PD" / "accl.npy").unlink(),
        r"PD/accl\.npy: no such file",
    ),
    "objects": (
        lambda f: np.save(f / "C/location.npy", np.array([["a"]], object), allow_pickle=True),
        r"C/location\.npy: is no \.npy file of numbers or strings",
    ),
    "coded rooms": (
        lambda f: np.save(f / "C/location.npy", np.zeros((1_776, 25))),
        r"C/location\.npy: has shape \(1776, 25\) of float64; names of rooms",
    ),
    "flat rssi": (
        lambda f: np.save(f / "C/rssi.npy", np.zeros((1_776, 25))),
        r"C/rssi\.npy: has shape \(1776, 25\) of float64; numbers \(windows, samples, columns\)",
    ),
    "other lengths": (
        lambda f: np.save(f / "C/accl.npy", np.zeros((1_775, 25, 6))),
        r"C/accl\.npy: has \(1775, 25\) windows and samples, location\.npy \(1776, 25\)",
    ),
    "another home": (
        lambda f: np.save(f / "PD/rssi.npy", np.zeros((1_776, 25, 5))),
        r"rssi of C has windows \(25, 4\) and that of PD \(25, 5\)",
    ),
    "empty": (
        lambda f: [
            np.save(f / "C" / f"{name}.npy", np.load(f / "C" / f"{name}.npy")[:0])
            for name in ("rssi", "accl", "location")
        ],
        r"C/location\.npy: is empty",
    ),
    "too short": (
        lambda f: [
            np.save(f / "C" / f"{name}.npy", np.load(f / "C" / f"{name}.npy")[:40])
            for name in ("rssi", "accl", "location")
        ],
        r"no windows are left for validation from C; give longer recordings",
    ),
}


@pytest.mark.parametrize("case", LOMAPP_HARMS)
def test_harmed_lomapp(case: str, tmp_path: Path) -> None:
    harm, match = LOMAPP_HARMS[case]
    folder = write_lomapp(tmp_path)
    harm(folder)
    with pytest.raises(DataError, match=match) as refused:
        given("parkinson-localisation", folder)
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("name", "write"),
    (
        ("covid-audio", write_coswara),
        ("depth-thermal-pose", write_slp),
        ("indoor-localisation", write_house),
        ("parkinson-localisation", write_lomapp),
    ),
)
def test_a_folder_of_another_layout(
    name: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "photos"):
        with pytest.raises(DataError) as refused:
            given(name, path)
        assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)
    with pytest.raises(DataError, match=r"readme\.txt: is not an \.npz archive"):
        given(name, tmp_path / "readme.txt")
    with pytest.raises(DataError, match=r"none: no such file or folder; check the path"):
        given(name, tmp_path / "none")
    first, second = (given(name, write(tmp_path / part)).task for part in "ab")
    assert first.data_hash == second.data_hash
