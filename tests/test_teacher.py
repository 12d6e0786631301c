"""The teacher: when it is asked and when remembered, and the user's own ONNX model."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nas.data.task import Task, make_task
from nas.errors import DataError, UsageError
from nas.network.graph import Graph
from nas.space import Problem, Sensor
from nas.training import teacher_training
from nas.training.augment import COPIES
from nas.training.evaluate import Bench, prepare
from nas.training.mdcsa import DualAttention
from nas.training.recipe import Recipe
from nas.training.student import Student
from nas.training.teacher import (
    MEMBERS,
    TEACHER_KINDS,
    Answers,
    Member,
    NetworkKind,
    Teacher,
    TeacherKind,
    cache_folder,
    combine,
    get_teacher,
    log_softmax,
    member_file,
    members,
    teacher_hash,
    warning,
    write_answers,
)
from nas.training.teacher_training import run_onnx, teacher_graph, train_member
from nas.training.teaching import SEED, OwnModel, choose_teacher, teacher_of
from nas.training.validation import judging
from nas.training.workers import Pool

torch.set_num_threads(1)

Arrays = dict[str, np.ndarray]
FLOAT, CLASSES = TensorProto.FLOAT, 3


def cached(task: Task, identity: str, kind: str, ask: Callable[[], Answers]) -> Teacher:
    return get_teacher(task, judging(task, "split"), "accuracy", identity, kind, ask)


@pytest.fixture
def task(toy_arrays: Arrays) -> Task:
    return make_task(toy_arrays, "toy")


@pytest.fixture
def bench(task: Task) -> Bench:
    return prepare(task, judging(task, "split"), 0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "teachers"


def answers(task: Task, seed: int = 0) -> Answers:
    rng = np.random.default_rng(seed)

    def some(*shape: int) -> np.ndarray:
        return log_softmax(rng.normal(size=(*shape, task.classes)).astype(np.float32))

    counts = {split: len(task.rows(split)) for split in ("train", "val", "test")}
    features = rng.normal(size=(1, 2, counts["train"], 5)).astype(np.float16)
    numbers = some(1, 2, counts["train"]), some(counts["val"]), some(counts["test"]), 7
    return Answers(*numbers, features)


# ---------------------------------------------------------------- identity and cache


def test_hash_is_of_data_kind_weighting_seed_and_model(task: Task, toy_arrays: Arrays) -> None:
    base = teacher_hash(task, "split", "accuracy", 0, "conv")
    toy_arrays["modality_stats"] = toy_arrays["modality_stats"] + 1
    fewer = task.restricted(["accel"])
    others = {
        "data": teacher_hash(make_task(toy_arrays, "toy"), "split", "accuracy", 0, "conv"),
        "fewer modalities": teacher_hash(fewer, "split", "accuracy", 0, "conv"),
        "attention": teacher_hash(task, "split", "accuracy", 0, "attention"),
        "both": teacher_hash(task, "split", "accuracy", 0, "both"),
        "weighted loss": teacher_hash(task, "split", "macro_f1", 0, "conv"),
        "seed": teacher_hash(task, "split", "accuracy", 1, "conv"),
        "onnx": teacher_hash(task, "split", "accuracy", 0, b"a"),
        "other onnx": teacher_hash(task, "split", "accuracy", 0, b"b"),
        "judged crosswise": teacher_hash(task, "cross", "accuracy", 0, "conv"),
    }
    assert len({base, *others.values()}) == 1 + len(others)
    assert all(len(identity) == 64 for identity in others.values())
    renamed = replace(task, name="renamed")
    assert base == teacher_hash(renamed, "split", "accuracy", 0, "conv")
    # Both balanced metrics train the same teacher; a model of the user's has no seed.
    balanced = teacher_hash(task, "split", "balanced_accuracy", 0, "conv")
    assert others["weighted loss"] == balanced
    assert others["onnx"] == teacher_hash(task, "split", "accuracy", 1, b"a")


def test_cache_folder(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.setenv("NAS_CACHE_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "nas" / "teachers"


def test_a_teacher_is_asked_once(task: Task, cache: Path) -> None:
    asked = []

    def ask() -> Answers:
        asked.append(1)
        return answers(task, seed=len(asked))

    first = cached(task, "one", "conv", ask)
    assert first == cached(task, "one", "conv", ask) and len(asked) == 1
    assert [file.name for file in cache.iterdir()] == [
        "one.npz"
    ] and first.file == cache / "one.npz"
    given = answers(task, seed=1)
    with np.load(first.file, allow_pickle=False) as held:
        np.testing.assert_array_equal(held["bank"], given.bank)
    for split, log_probabilities in (("val", given.val), ("test", given.test)):
        right = (log_probabilities.argmax(1) == task.y[task.rows(split)]).mean()
        assert getattr(first, f"{split}_score") == right
    cached(task, "two", "conv", ask)
    assert len(asked) == 2


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "first bytes": lambda data: b"XX" + data[2:],
    "one array": lambda data: data.replace(b"\x93NUMPY", b"\x93NUMPX"),
    "no zip": lambda data: b"torn",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_torn_cache_is_made_again(damage: str, task: Task, cache: Path) -> None:
    def get() -> Teacher:
        return get_teacher(
            task, judging(task, "split"), "accuracy", "one", "conv", lambda: answers(task)
        )

    first = get()
    whole = first.file.read_bytes()
    first.file.write_bytes(DAMAGE[damage](whole))
    assert get() == first
    assert first.file.read_bytes() == whole


def test_no_damage_of_the_cache_is_fatal(task: Task, cache: Path) -> None:
    def get() -> Teacher:
        return get_teacher(
            task, judging(task, "split"), "accuracy", "one", "conv", lambda: answers(task)
        )

    whole = get().file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        torn = bytearray(whole)
        for position in rng.integers(0, len(torn), 3):
            torn[position] = rng.integers(256)
        (cache / "one.npz").write_bytes(torn)
        get()


def test_what_run_json_says(task: Task, cache: Path) -> None:
    teacher = get_teacher(
        task, judging(task, "split"), "accuracy", "one", "onnx", lambda: answers(task), 1234
    )
    document = teacher.to_json()
    assert document.pop("val_score") == teacher.val_score
    assert document.pop("test_score") == teacher.test_score
    assert document == {"kind": "onnx", "hash": "one", "parameters": 7, "size_bytes": 1234}
    own = cached(task, "two", "both", lambda: answers(task)).to_json()
    assert (own["kind"], own["parameters"], own["size_bytes"]) == ("both", 7, 28)


def test_members_are_forgotten_once_they_are_combined(task: Task, cache: Path) -> None:
    for number in range(6):
        write_answers(member_file("one", number), answers(task))
    write_answers(member_file("two", 0), answers(task))
    cached(task, "one", "both", lambda: answers(task))
    assert sorted(file.name for file in cache.iterdir()) == ["one.npz", "two.0.npz"]


def test_an_ensemble_is_the_normalised_mean(task: Task) -> None:
    made = [answers(task, seed) for seed in range(MEMBERS)]
    wanted = members("conv", "split")
    assert wanted == [Member("conv", 0, number) for number in range(MEMBERS)]
    mean = combine(judging(task, "split"), list(zip(wanted, made, strict=True)))
    assert mean.parameters == 7 * MEMBERS
    for name in ("bank", "val", "test"):
        part = getattr(mean, name)
        assert part.shape == getattr(made[0], name).shape
        np.testing.assert_allclose(np.exp(part).sum(-1), 1, rtol=1e-5)
        logits = np.mean([getattr(member, name) for member in made], 0)
        np.testing.assert_allclose(np.diff(part), np.diff(logits), atol=1e-5)
    assert mean.features is not None and mean.features.dtype == np.float16
    side_by_side = np.concatenate([member.features for member in made], -1)
    assert (mean.features == side_by_side).all() and mean.features.shape[-1] == 5 * MEMBERS


def test_crosswise_a_row_is_answered_by_the_part_that_has_not_seen_it(task: Task) -> None:
    judged = judging(task, "cross")
    assert judged.fold is not None
    wanted = members("attention", "cross")
    assert wanted == [Member("attention", part, 0) for part in range(4)]
    made = [answers(task, seed) for seed in range(4)]
    made = [replace(held, val=held.bank[0, 0][judged.fold * 2]) for held in made]
    whole = combine(judged, list(zip(wanted, made, strict=True)))
    assert whole.bank.shape == (4, *made[0].bank.shape[1:]) and whole.parameters == 7
    for part, held in enumerate(made):
        np.testing.assert_allclose(whole.bank[part], held.bank[0], atol=1e-5)
        assert whole.features is not None and held.features is not None
        assert (whole.features[part] == held.features[0]).all()
        rows = judged.fold == part - 1
        np.testing.assert_allclose(whole.val[rows], held.val[rows], atol=1e-5)
    np.testing.assert_allclose(whole.test, made[0].test, atol=1e-5)


@pytest.mark.parametrize(("validation", "parts"), (("split", 1), ("cross", 4)))
def test_both_kinds_together(task: Task, validation: Any, parts: int) -> None:
    judged, wanted = judging(task, validation), members("both", validation)
    conv, attention = members("conv", validation), members("attention", validation)
    assert wanted == conv + attention and len(set(wanted)) == 2 * len(conv)
    made = [answers(task, seed) for seed in range(len(wanted))]
    if judged.fold is not None:
        made = [replace(held, val=held.bank[0, 0][judged.fold]) for held in made]
    whole = combine(judged, list(zip(wanted, made, strict=True)))
    assert len(whole.bank) == parts and whole.parameters == 7 * len(wanted) // parts
    for part in range(parts):
        banks = [held.bank[0] for m, held in zip(wanted, made, strict=True) if m.part == part]
        np.testing.assert_allclose(whole.bank[part], log_softmax(np.mean(banks, 0)), atol=1e-5)


SERIES = Problem((Sensor("s", "series", (1, 8, 2)), Sensor("v", "vector", (1, 1, 3))), 2)
STATIC = Problem((Sensor("v", "vector", (1, 1, 3)), Sensor("i", "image", (9, 9, 1))), 2)


def test_the_choice_of_a_teacher(tmp_path: Path) -> None:
    assert choose_teacher(None, SERIES) == choose_teacher(None, STATIC) == "conv"
    for kind in TEACHER_KINDS:
        assert choose_teacher(kind, SERIES) == kind
    assert choose_teacher("conv", STATIC) == "conv"
    for kind in ("attention", "both"):
        with pytest.raises(UsageError, match=f"--teacher {kind}: .* none of v, i is one; use"):
            choose_teacher(kind, STATIC)
    file = tmp_path / "m.onnx"
    file.write_bytes(b"model")
    assert choose_teacher(str(file), STATIC) == OwnModel(str(file), b"model")
    with pytest.raises(UsageError, match=r"--teacher atention: .*; give conv, attention, both or"):
        choose_teacher("atention", SERIES)


def test_a_model_of_ones_own_is_scored_on_rows_that_it_may_not_have_seen(
    task: Task, cache: Path
) -> None:
    judged = judging(task, "cross")
    right = np.full((48, 3), -9.0, np.float32)
    right[np.arange(48), task.y[judged.held_out]] = 0.0
    val = task.split[judged.held_out] == 1
    right[val] = right[val][:, [1, 2, 0]]  # wrong on all that it has not seen
    given = replace(answers(task), val=right)
    for kind, expected in (("onnx", 0.0), ("conv", 0.75)):
        teacher = get_teacher(task, judged, "accuracy", kind, kind, lambda: given)
        assert teacher.val_score == expected


def test_log_softmax_of_large_numbers() -> None:
    x = np.array([[1000.0, 1000.0, -1000.0]], np.float32)
    np.testing.assert_allclose(log_softmax(x), [[-np.log(2), -np.log(2), -2000 - np.log(2)]])


# ---------------------------------------------------------------- the ensemble


@pytest.mark.parametrize(
    "sensors",
    (
        [Sensor("s", "series", (1, 200, 6))],
        [Sensor("s", "series", (1, 1, 1)), Sensor("v", "vector", (1, 1, 3))],
        [Sensor("i", "image", (1, 1, 3))],
        [Sensor("i", "image", (96, 64, 3)), Sensor("j", "image", (5, 300, 1))],
        [Sensor("v", "vector", (1, 1, 600))],
    ),
)
def test_graph_of_any_sensors(sensors: list[Sensor]) -> None:
    graph = teacher_graph(Problem(tuple(sensors), 5), 500)
    assert isinstance(graph, Graph) and graph.shapes[graph.output] == (5,)
    assert [source.name for source in graph.inputs] == [sensor.name for sensor in sensors]
    net = Student(graph, dict.fromkeys("sijv", 0.1), quantised=False).eval()
    inputs = {s.name: torch.zeros(2, s.shape[2], *s.shape[:2]) for s in sensors}
    assert net(inputs).shape == (2, 5)


def test_images_with_enough_rows_have_a_wide_teacher() -> None:
    sensors = (Sensor("i", "image", (32, 32, 1)), Sensor("s", "series", (1, 64, 3)))

    def stems(rows: int) -> list[int]:
        shapes = teacher_graph(Problem(sensors, 5), rows).shapes
        return [shapes["i_0"][2], shapes["s_0"][2]]

    assert stems(999) == [12, 12] and stems(1000) == [24, 12]


@pytest.mark.parametrize("network", ("conv", "attention"))
def test_a_member_answers_for_every_copy_and_split(
    network: NetworkKind, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Recipe(steps=30, batch_size=16, peak_rate=1e-2)
    monkeypatch.setattr(teacher_training, "teacher_recipe", lambda *given: short)
    member = Member(network, 0, 0)
    first, again, other = (train_member(bench, "accuracy", member, seed) for seed in (1, 1, 2))
    rows = {split: len(labels) for split, labels in bench.labels.items()}
    assert first.bank.shape == (1, 1 + COPIES, rows["train"], CLASSES)
    assert (first.val.shape, first.test.shape) == ((rows["val"], CLASSES), (rows["test"], CLASSES))
    assert first.parameters > 1000
    assert first.features is not None and first.features.dtype == np.float16
    assert first.features.shape[:3] == first.bank.shape[:3] and first.features.std() > 0
    for name in ("bank", "val", "test"):
        np.testing.assert_allclose(np.exp(getattr(first, name)).sum(-1), 1, rtol=1e-4)
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.val != other.val).any()
    assert (first.bank[0, 0].argmax(1) == bench.labels["train"]).mean() > 0.7


@pytest.mark.parametrize("network", ("conv", "attention"))
def test_a_member_without_a_fold_has_not_seen_it(
    network: NetworkKind, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(task, judging(task, "cross"), 0)
    assert bench.judging.fold is not None
    seen: list[int] = []
    usual = teacher_training.train

    def note(net: Any, data: Any, recipe: Recipe, seed: int) -> None:
        seen.append(len(data.labels))
        kept = bench.judging.fold != 1
        if len(seen) == 2:
            assert (data.labels.numpy() == bench.labels["train"][kept]).all()
            assert (
                data.inputs["accel"].numpy() == bench.training.inputs["accel"][:, kept].numpy()
            ).all()
        usual(net, data, replace(recipe, steps=2), seed)

    monkeypatch.setattr(teacher_training, "train", note)
    whole, part = (train_member(bench, "accuracy", Member(network, part, 0), 0) for part in (0, 2))
    assert seen == [48, 48 - int((bench.judging.fold == 1).sum())]
    assert whole.bank.shape == part.bank.shape == (1, 1 + COPIES, 48, CLASSES)
    assert (whole.val != part.val).any()
    assert whole.features is not None and part.features is not None
    assert whole.features.shape[:3] == whole.bank.shape[:3] and whole.features.std() > 0


def test_a_teacher_that_has_learnt_nothing_is_warned_of() -> None:
    labels = np.array([0, 0, 0, 1, 2], np.int64)
    guess, wise = (Teacher("conv", "h", Path("f"), s, 0.0, 1, 4) for s in (0.63, 0.65))
    text = warning(guess, "accuracy", labels, 3)
    assert (
        text is not None and "scores 0.630 on validation, and always naming one class 0.6" in text
    )
    assert warning(wise, "accuracy", labels, 3) is None
    assert warning(guess, "balanced_accuracy", labels, 3) is None


class Here:
    """A pool that trains in this process, and knows what it was asked for."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.made: list[tuple[Member, int]] = []

    def submit(self, function: Any, metric: Any, member: Member, seed: int) -> "Future[Answers]":
        self.made.append((member, seed))
        future: Future[Answers] = Future()
        future.set_result(train_member(self.bench, metric, member, seed))
        return future


@pytest.mark.parametrize("kind", TEACHER_KINDS)
def test_a_teacher_of_each_kind_is_trained_once(
    kind: TeacherKind, bench: Bench, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Recipe(steps=2, batch_size=16)
    monkeypatch.setattr(teacher_training, "teacher_recipe", lambda *given: short)
    wanted = members(kind, "split")

    def get(pool: Here) -> Teacher:
        return teacher_of(
            bench.task, bench.judging, "accuracy", kind, cast(Pool, pool), lambda *counts: None
        )

    first = Here(bench)
    teacher = get(first)
    assert first.made == [(member, SEED + member.number) for member in wanted]
    assert teacher.hash == teacher_hash(bench.task, "split", "accuracy", SEED, kind)
    assert teacher.kind == kind and [f.name for f in cache.iterdir()] == [f"{teacher.hash}.npz"]
    each = {
        "conv": Student(
            teacher_graph(bench.problem, len(bench.training.labels)), bench.training.scales, False
        )
    }
    each |= {"attention": DualAttention(bench.problem)}
    sizes = [sum(p.numel() for p in each[member.network].parameters()) for member in wanted]
    assert teacher.parameters == sum(sizes) and teacher.size_bytes == 4 * sum(sizes)
    idle = Here(bench)
    assert get(idle) == teacher and idle.made == []
    whole = teacher.file.read_bytes()
    teacher.file.unlink()
    write_answers(member_file(teacher.hash, 1), train_member(bench, "accuracy", wanted[1], 1))
    rest = Here(bench)
    assert get(rest) == teacher and teacher.file.read_bytes() == whole
    assert rest.made == [(m, SEED + m.number) for m in wanted if m != wanted[1]]


# ---------------------------------------------------------------- the user's own model

INPUTS = {"accel": ["n", 8, 3], "stats": ["n", 4], "view": ["n", 6, 5, 1]}
RNG = np.random.default_rng(5)
WEIGHTS = {"accel": RNG.normal(size=(24, CLASSES)), "stats": RNG.normal(size=(4, CLASSES))}
WEIGHTS["view"] = RNG.normal(0, 0.01, (30, CLASSES))
WEIGHTS = {name: weight.astype(np.float32) for name, weight in WEIGHTS.items()}


def model(
    path: Path,
    inputs: dict[str, list[Any]] | None = None,
    kind: int = FLOAT,
    tail: str | None = None,
) -> str:
    """An ONNX file: flattened inputs times WEIGHTS, summed, and an operator behind."""
    inputs = INPUTS if inputs is None else inputs
    nodes, parts = [], []
    for name, weight in zip(inputs, WEIGHTS, strict=False):
        nodes.append(helper.make_node("Flatten", [name], [f"{name}_flat"], axis=1))
        nodes.append(helper.make_node("Cast", [f"{name}_flat"], [f"{name}_real"], to=FLOAT))
        nodes.append(helper.make_node("MatMul", [f"{name}_real", weight], [f"{name}_part"]))
        parts.append(f"{name}_part")
    nodes.append(helper.make_node("Sum", parts or list(WEIGHTS)[:1], ["sum"]))
    if tail is not None:
        nodes.append(helper.make_node(tail, ["sum"], ["out"]))
    output, counts = "sum" if tail is None else "out", tail in ("Shape", "Size")
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.INT64 if counts else FLOAT, None)],
        [numpy_helper.from_array(weight, name) for name, weight in WEIGHTS.items()],
    )
    # Initialisers and inputs share a name space: the weights get names of their own.
    for item in [*graph.initializer]:
        item.name = f"{item.name}_weight"
    for node in graph.node:
        for i, name in enumerate(node.input):
            if node.op_type in ("MatMul", "Sum") and name in WEIGHTS:
                node.input[i] = f"{name}_weight"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(made, str(path))
    return str(path)


def by_hand(task: Task, rows: np.ndarray) -> np.ndarray:
    """The model's logits from real values, as the int8 inputs hold them: to half a step."""
    total = np.zeros((len(rows), CLASSES))
    for modality in task.modalities:
        if modality.name in WEIGHTS:
            steps = modality.quantised(rows).reshape(len(rows), *modality.shape)
            real = steps * modality.input_scale * modality.std + modality.mean
            limit = 0.51 * modality.input_scale * modality.std + 1e-5
            near = np.abs(real - modality.real(rows)) <= limit
            assert near[(steps > -128) & (steps < 127)].all()
            total += real.reshape(len(rows), -1) @ WEIGHTS[modality.name]
    return total


def test_a_model_sees_real_values(bench: Bench, tmp_path: Path) -> None:
    seen = run_onnx(bench, model(tmp_path / "m.onnx"))
    task = bench.task
    for split, log_probabilities in (
        ("train", seen.bank[0, 0]),
        ("val", seen.val),
        ("test", seen.test),
    ):
        expected = log_softmax(by_hand(task, task.rows(split)).astype(np.float32))
        np.testing.assert_allclose(log_probabilities, expected, rtol=1e-3, atol=1e-3)
    assert seen.bank.shape == (1, 1 + COPIES, len(task.rows("train")), CLASSES)
    assert (seen.bank[0, 1] != seen.bank[0, 0]).any() and seen.parameters == 0


def test_logits_and_probabilities_say_the_same(bench: Bench, tmp_path: Path) -> None:
    logits = run_onnx(bench, model(tmp_path / "a.onnx"))
    probabilities = run_onnx(bench, model(tmp_path / "b.onnx", tail="Softmax"))
    clear = np.exp(logits.val) > 1e-6  # smaller ones are cut at 1e-7
    np.testing.assert_allclose(probabilities.val[clear], logits.val[clear], atol=1e-2)
    assert (probabilities.val.argmax(1) == logits.val.argmax(1)).all()


def test_a_model_may_use_some_of_the_modalities(bench: Bench, tmp_path: Path) -> None:
    seen = run_onnx(bench, model(tmp_path / "m.onnx", {"accel": ["n", 8, 3]}))
    assert seen.val.shape == (len(bench.labels["val"]), CLASSES)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown input": (
        {"inputs": {"microphone": ["n", 8, 3]}},
        "input 'microphone' is no modality of the data; .* named among accel, view, stats",
    ),
    "no input": ({"inputs": {}}, "it has no input; its inputs must be named among accel"),
    "rank": ({"inputs": {"accel": ["n", 3, 8, 1]}}, r"cannot be run on accel float32 \(\d+, 8, 3"),
    "size": ({"inputs": {"accel": ["n", 24, 1]}}, r"cannot be run on accel float32 \(\d+, 8, 3"),
    "one row": ({"inputs": {"accel": [1, 8, 3]}}, "cannot be run on .* any number of rows"),
    "double": ({"kind": TensorProto.DOUBLE}, "cannot be run on .* must take float32 values"),
    "flat output": ({"tail": "ReduceSum"}, r"output of shape \(1, 1\) must be \(\d+, 3\) finite"),
    "square output": ({"tail": "Shape"}, r"output of shape \(2,\) must be \(\d+, 3\) finite"),
    "scalar output": ({"tail": "Size"}, r"output of shape \(1,\) must be \(\d+, 3\) finite"),
    "infinite output": ({"tail": "Log"}, "must be .* finite logits or probabilities"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_model_that_does_not_fit(case: str, bench: Bench, tmp_path: Path) -> None:
    values, match = BAD[case]
    path = model(tmp_path / "m.onnx", **values)
    with pytest.raises(DataError, match=match) as error:
        run_onnx(bench, path)
    text = str(error.value)
    assert text.startswith(f"--teacher {path}: ") and "\n" not in text


@pytest.mark.parametrize("content", (b"", b"not a model", b"PK\x03\x04"))
def test_a_file_that_is_no_model(content: bytes, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"ONNX Runtime cannot load it \(") as error:
        run_onnx(bench, str(path))
    assert str(error.value).startswith(f"--teacher {path}: ") and "\n" not in str(error.value)
