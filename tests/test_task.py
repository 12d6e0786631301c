"""The data contract: what a good file becomes, how it is measured, quantised, hashed and split."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nas.data.task import Modality, Task, load_task, make_task, measure, stratified_split
from nas.errors import DataError

Arrays = dict[str, npt.NDArray[Any]]

REAL_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_FILES = (
    "av_digits_hard",
    "coswara_voice",
    "fruit_rgb_depth_thermal",
    "indoor_zone",
    "rfid_accel_rssi",
    "uci_har",
)


def saved(path: Path, arrays: Arrays, compressed: bool = False) -> Path:
    save: Callable[..., None] = np.savez_compressed if compressed else np.savez
    save(path, **arrays)
    return path


# ---------------------------------------------------------------- good files


def test_round_trip(tmp_path: Path, toy_arrays: Arrays) -> None:
    path = saved(tmp_path / "toy.npz", toy_arrays)
    task = load_task(path)
    assert task.name == "toy" and task.path == path.resolve() and task.path.is_absolute()
    assert task.names == ("accel", "view", "stats")
    assert task.class_names == ("sit", "walk", "run") and task.classes == 3
    assert task.ignored_keys == ("note",)
    assert task.y.dtype == np.int64 and task.split.dtype == np.int8
    np.testing.assert_array_equal(task.y, toy_arrays["y"])
    np.testing.assert_array_equal(task.split, toy_arrays["split"])
    assert task.group is not None
    np.testing.assert_array_equal(task.group, toy_arrays["group"])
    for modality in task.modalities:
        np.testing.assert_array_equal(modality.values, toy_arrays[f"modality_{modality.name}"])
        assert modality.values.dtype == toy_arrays[f"modality_{modality.name}"].dtype


def test_kinds_and_shapes(toy_arrays: Arrays) -> None:
    series, image, vector = make_task(toy_arrays, "toy").modalities
    assert (series.kind, series.shape, series.graph_shape) == ("series", (8, 3), (1, 8, 3))
    assert (image.kind, image.shape, image.graph_shape) == ("image", (6, 5, 1), (6, 5, 1))
    assert (vector.kind, vector.shape, vector.graph_shape) == ("vector", (4,), (1, 1, 4))
    assert [m.channels for m in (series, image, vector)] == [3, 1, 4]


def test_rows(toy_arrays: Arrays) -> None:
    task = make_task(toy_arrays, "toy")
    rows = {name: task.rows(name) for name in ("train", "val", "test")}
    assert all(r.dtype == np.int64 for r in rows.values())
    assert sorted(np.concatenate(list(rows.values()))) == list(range(60))
    for code, name in enumerate(rows):
        assert (toy_arrays["split"][rows[name]] == code).all()


def test_a_task_cannot_be_changed_and_leaves_the_callers_arrays_writable(
    toy_arrays: Arrays,
) -> None:
    task = make_task(toy_arrays, "toy")
    with pytest.raises(ValueError, match="read-only"):
        task.modalities[0].values[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        task.y[0] = 1
    toy_arrays["modality_accel"][0] = 0


def test_numbers_stand_in_for_missing_class_names(toy_arrays: Arrays) -> None:
    del toy_arrays["class_names"]
    assert make_task(toy_arrays, "toy").class_names == ("0", "1", "2")


# ---------------------------------------------------------------- measuring and quantising


def reference(arrays: Arrays, modality: Modality, rows: npt.NDArray[np.int64]) -> Any:
    """The quantisation that a reader of the run folder does with the file's own arrays."""
    name = modality.name
    x = arrays["modality_" + name][rows].astype(np.float32)
    scale = arrays.get("scale_" + name, 1)
    offset = arrays.get("offset_" + name, 0)
    x = x * scale + offset
    shift = np.asarray(json.loads(json.dumps(modality.mean.tolist())), np.float32)
    spread = np.asarray(json.loads(json.dumps(modality.std.tolist())), np.float32)
    step = float(np.array([modality.input_scale], np.float32)[0])
    q = np.clip(np.round((x - shift) / spread / step) + modality.zero_point, -128, 127)
    return x, q.astype(np.int8)


@pytest.mark.parametrize("factor", [None, np.float32, np.float64, np.float16, np.int32])
@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "i8", "f2", "f4", ">f4", "f8"]
)
def test_quantisation_equals_the_readers(dtype: str, factor: Any, toy_arrays: Arrays) -> None:
    rng = np.random.default_rng(3)
    values = np.clip(rng.standard_t(2, (60, 8, 3)) * 20 + 60, -100, 120)
    toy_arrays["modality_accel"] = (values if dtype != "u1" else abs(values)).astype(dtype)
    del toy_arrays["scale_accel"], toy_arrays["offset_accel"]
    if factor is not None:
        toy_arrays["scale_accel"] = factor(3)
        toy_arrays["offset_accel"] = np.array([1, 0, 7], factor)
    task = make_task(toy_arrays, "toy")
    accel = task.modalities[0]
    for rows in (task.rows("train"), task.rows("test"), np.arange(60)[::-1]):
        x, q = reference(toy_arrays, accel, rows)
        got = accel.quantised(rows)
        assert got.dtype == np.int8 and got.shape == (len(rows), 1, 8, 3)
        np.testing.assert_array_equal(got.reshape(q.shape), q)
        real = accel.real(rows)
        assert real.dtype == x.dtype
        np.testing.assert_array_equal(real, x)
    np.testing.assert_array_equal(accel.quantised(slice(0, 5)), accel.quantised(np.arange(5)))


def test_values_at_rounding_ties_equal_the_readers(toy_arrays: Arrays) -> None:
    stats = make_task(toy_arrays, "toy").modalities[2]
    ties = (np.arange(-128, 128)[:, None] + 0.5) * stats.input_scale * stats.std + stats.mean
    below, at, above = (np.nextafter(ties.astype(np.float32), t) for t in (-np.inf, ties, np.inf))
    arrays = {"modality_stats": np.concatenate([below, at, above]).astype(np.float32)}
    rows = np.arange(3 * 256)
    _, q = reference(arrays, stats, rows)
    got = replace(stats, values=arrays["modality_stats"]).quantised(rows)
    np.testing.assert_array_equal(got.reshape(q.shape), q)


@pytest.mark.parametrize("seed", range(20))
def test_input_scale_is_of_the_largest_normalised_value(seed: int) -> None:
    real = np.random.default_rng(seed).normal(seed, 3, (50, 6)).astype(np.float32)
    mean, std, scale = measure(real)
    assert scale == float(np.float32(float(np.abs((real - mean) / std).max()) / 127))


def test_real_values_are_float32_with_float32_factors(toy_arrays: Arrays) -> None:
    task = make_task(toy_arrays, "toy")
    assert {m.real(task.rows("val")).dtype for m in task.modalities} == {np.dtype(np.float32)}


def test_statistics_come_from_the_training_rows_only(toy_arrays: Arrays) -> None:
    before = make_task(toy_arrays, "toy").modalities[0]
    toy_arrays["modality_accel"][toy_arrays["split"] > 0] = 30000
    after = make_task(toy_arrays, "toy").modalities[0]
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.std, after.std)
    assert before.input_scale == after.input_scale
    assert (after.quantised(np.flatnonzero(toy_arrays["split"] > 0)) == 127).all()


def test_statistics_by_hand() -> None:
    real = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)
    mean, std, scale = measure(real)
    assert mean.tolist() == [2.0, 5.0] and mean.dtype == np.float32
    assert std.tolist() == [1.0, 1.0] and std.dtype == np.float32
    assert type(scale) is float and scale == float(np.float32(1 / 127))


def test_spikes_saturate_at_eight_deviations() -> None:
    real = np.zeros((1000, 1), np.float32)
    real[0] = 100.0
    assert measure(real)[2] == float(np.float32(8 / 127))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, -3e7])
def test_constant_channels_get_std_one(value: float, toy_arrays: Arrays) -> None:
    toy_arrays["modality_stats"] = np.full((60, 4), value)
    stats = make_task(toy_arrays, "toy").modalities[2]
    assert stats.std.tolist() == [1.0] * 4
    assert stats.input_scale == float(np.float32(1 / 127))
    assert not stats.quantised(slice(None)).any()


def test_a_constant_channel_does_not_stretch_the_scale_of_others(toy_arrays: Arrays) -> None:
    alone = make_task(toy_arrays, "toy").modalities[2].input_scale
    wide = np.concatenate([toy_arrays["modality_stats"], np.full((60, 1), 1.0)], axis=1)
    toy_arrays["modality_stats"] = wide
    toy_arrays["scale_stats"] = np.array([1, 1, 1, 1, 1e9 + 30])
    assert make_task(toy_arrays, "toy").modalities[2].input_scale == pytest.approx(alone)


def test_values_far_outside_training_saturate_without_a_warning(toy_arrays: Arrays) -> None:
    toy_arrays["modality_stats"] = toy_arrays["modality_stats"] * np.float32(1e-30)
    toy_arrays["modality_stats"][-1] = 1e29
    q = make_task(toy_arrays, "toy").modalities[2].quantised(slice(None))
    assert (q[-1] == 127).all()


# ---------------------------------------------------------------- restricted, hash


def test_restricted_keeps_the_files_order(tmp_path: Path, toy_arrays: Arrays) -> None:
    path = saved(tmp_path / "toy.npz", toy_arrays)
    task = load_task(path)
    some = task.restricted(["stats", "accel"])
    assert some.names == ("accel", "stats")
    assert some.modalities[0] is task.modalities[0]
    assert some.data_hash == load_task(path, ("stats", "accel")).data_hash != task.data_hash
    assert task.restricted(task.names).data_hash == task.data_hash


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["accle"], r"toy: no modality 'accle' \(did you mean accel\?\); the modalities are "),
        (["accel", "zz"], r"no modality 'zz'; the modalities are accel, view, stats"),
        ([], r"modalities \(none\): at least one is needed"),
        (["view", "view"], r"modalities view, view: .* only once"),
    ],
)
def test_unknown_modalities(names: list[str], match: str, toy_arrays: Arrays) -> None:
    with pytest.raises(DataError, match=match):
        make_task(toy_arrays, "toy").restricted(names)
    with pytest.raises(DataError, match=match):
        make_task(toy_arrays, "toy", modalities=names)


def test_modalities_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    arrays = {
        "modality_good": np.arange(40.0).reshape(20, 2),
        "modality_bad": np.array([object()] * 20),
        "note": np.array([object()]),
        "y": np.arange(20) % 2,
    }
    assert load_task(saved(tmp_path / "a.npz", arrays), ["good"]).names == ("good",)


def test_each_array_is_read_once(toy_arrays: Arrays) -> None:
    reads: list[str] = []

    class Counted(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            reads.append(key)
            return super().__getitem__(key)

    make_task(Counted(toy_arrays), "toy")
    assert sorted(reads) == sorted(set(toy_arrays) - {"note"})


def test_hash_is_of_the_content(tmp_path: Path, toy_arrays: Arrays) -> None:
    base = load_task(saved(tmp_path / "a.npz", toy_arrays)).data_hash
    assert len(base) == 64 and int(base, 16)
    assert load_task(saved(tmp_path / "b.npz", toy_arrays, compressed=True)).data_hash == base
    assert make_task(toy_arrays, "other").data_hash == base
    assert make_task({**toy_arrays, "note": np.zeros(3)}, "toy").data_hash == base
    view = np.asfortranarray(toy_arrays["modality_view"])
    assert make_task({**toy_arrays, "modality_view": view}, "toy").data_hash == base


def _bump(key: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        array = arrays[key].copy()
        array.flat[-1] += 1
        arrays[key] = array

    return change


@pytest.mark.parametrize(
    "change",
    [
        _bump("modality_view"),
        _bump("modality_accel"),
        _bump("offset_accel"),
        lambda a: a.update(scale_accel=np.float32(0.002)),
        lambda a: a.update(scale_view=np.float32(1)),
        lambda a: a.update(group=a["group"].astype(np.int16)),
        lambda a: a.update(class_names=np.array(["sit", "walk", "fly"])),
        lambda a: a.update(y=(a["y"] + 1) % 3),
        lambda a: a.update(modality_more=a["modality_view"]),
        lambda a: a.update(modality_view=a["modality_view"].reshape(60, 5, 6, 1)),
        lambda a: a.pop("group"),
        lambda a: a.pop("split"),
    ],
)
def test_hash_changes_with_the_content(change: Any, toy_arrays: Arrays) -> None:
    base = make_task(toy_arrays, "toy").data_hash
    change(toy_arrays)
    assert make_task(toy_arrays, "toy").data_hash != base


# ---------------------------------------------------------------- a split of our own


def test_split_by_class(toy_arrays: Arrays) -> None:
    for key in ("split", "group"):
        del toy_arrays[key]
    task = make_task(toy_arrays, "toy")
    for label in range(3):
        assert np.bincount(task.split[task.y == label]).tolist() == [12, 4, 4]
    np.testing.assert_array_equal(task.split, make_task(toy_arrays, "again").split)


def test_split_by_group_keeps_groups_whole(toy_arrays: Arrays) -> None:
    del toy_arrays["split"]
    names = np.array([f"person {g}" for g in toy_arrays["group"]])
    for group in (toy_arrays["group"], names):
        task = make_task({**toy_arrays, "group": group}, "toy")
        for value in np.unique(group):
            assert len(set(task.split[group == value])) == 1
        assert np.bincount(task.split).tolist() == [36, 12, 12]


@pytest.mark.parametrize("seed", range(8))
def test_split_by_uneven_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.choice(30, 900, p=rng.dirichlet(np.ones(30)))
    y = rng.integers(0, 4, 900)
    split = stratified_split("toy", y, 4, group)
    shares = np.array([np.bincount(split[y == c], minlength=3) / (y == c).sum() for c in range(4)])
    assert np.abs(shares - [0.6, 0.2, 0.2]).max() < 0.15
    assert all(len(set(split[group == g])) == 1 for g in np.unique(group))


def test_split_by_group_prefers_every_class_in_training() -> None:
    group = np.repeat(np.arange(8), 5)
    y = np.where(group == 0, 1, 0)
    split = stratified_split("toy", y, 2, group)
    assert (split[group == 0] == 0).all() and set(split) == {0, 1, 2}


def test_every_row_its_own_group() -> None:
    split = stratified_split("toy", np.arange(500) % 5, 5, np.arange(500))
    assert np.bincount(split).tolist() == [300, 100, 100]


# ---------------------------------------------------------------- real files


def real_file(name: str) -> Path:
    path = REAL_FOLDER / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not beside the repository (shared/data)")
    return path


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_file(name: str) -> None:
    path = real_file(name)
    task = load_task(path)
    assert isinstance(task, Task) and task.name == name
    with np.load(path, allow_pickle=False) as npz:
        arrays = {key: npz[key] for key in npz.files}
    assert task.names == tuple(k[9:] for k in arrays if k.startswith("modality_"))
    assert len(np.unique(task.y[task.rows("train")])) == task.classes
    rows = task.rows("test")[:200]
    for modality in task.modalities:
        x, q = reference(arrays, modality, rows)
        np.testing.assert_array_equal(modality.real(rows), x)
        np.testing.assert_array_equal(modality.quantised(rows).reshape(q.shape), q)
        assert modality.quantised(rows).shape[1:] == modality.graph_shape
        assert modality.input_scale == float(np.float32(modality.input_scale))
        train = modality.quantised(task.rows("train"))
        assert max(abs(int(train.min())), int(train.max())) in (127, 128)


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_file_without_its_split(name: str) -> None:
    with np.load(real_file(name), allow_pickle=False) as npz:
        arrays = {key: npz[key] for key in npz.files if key != "split"}
    task = make_task(arrays, name)
    shares = np.bincount(task.split) / len(task.y)
    assert np.abs(shares - [0.6, 0.2, 0.2]).max() < 0.12


# ---------------------------------------------------------------- what an import tells


def test_rate_and_columns_are_kept_where_they_are_such(toy_arrays: Arrays) -> None:
    plain = make_task(toy_arrays, "toy")
    assert plain.modalities[0].rate_hz is None and plain.modalities[0].columns == ()
    told = {"rate_hz_accel": np.array(50), "columns_accel": np.array(["x", "y", "z"])}
    task = make_task(toy_arrays | told, "toy")
    assert task.modalities[0].rate_hz == 50 and task.modalities[0].columns == ("x", "y", "z")
    assert task.ignored_keys == ("note",) and task.data_hash == plain.data_hash


@pytest.mark.parametrize(
    "key, value",
    [
        ("rate_hz_accel", np.array(0.0)),
        ("rate_hz_accel", np.array(np.nan)),
        ("rate_hz_accel", np.array([50.0, 50.0])),
        ("rate_hz_accel", np.array("fast")),
        ("rate_hz_nobody", np.array(50.0)),
        ("rate_hz_view", np.array(50.0)),
        ("rate_hz_stats", np.array(50.0)),
        ("columns_accel", np.array(["x", "y"])),
        ("columns_accel", np.arange(3)),
    ],
)
def test_other_keys_of_these_names_are_the_users_own(
    toy_arrays: Arrays, key: str, value: Any
) -> None:
    task = make_task(toy_arrays | {key: value}, "toy")
    assert set(task.ignored_keys) == {"note", key}
    assert task.modalities[0].rate_hz is None and task.modalities[0].columns == ()
