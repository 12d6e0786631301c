"""Which rows judge a network, and that none judges what it has trained."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from test_end_to_end import World, document, table

from nas import cli
from nas.data.task import Task, make_task
from nas.errors import DataError, RunError
from nas.network.integer import IntegerModel
from nas.space import FixedTrial
from nas.training import evaluate, metrics
from nas.training.evaluate import Wanted, fit_pack, prepare, recipe_of, train_student
from nas.training.lessons import Lessons
from nas.training.loop import TrainingSet
from nas.training.recipe import SEARCH_EPOCHS, Recipe, batch_size_for, student_steps
from nas.training.scoring import classify
from nas.training.trained_file import pack, read_answers
from nas.training.validation import FEW_ROWS, FOLDS, VALIDATIONS, about, judging
from search_spaces import SPACES

torch.set_num_threads(1)

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture
def task(toy_arrays: Arrays) -> Task:
    return make_task(toy_arrays, "toy")


def of_people(people: list[tuple[int, int]], classes: int = 2) -> Task:
    """A task with (rows, class) for each person of training and validation."""
    persons = [*people, *((3, label) for label in range(classes))]
    y = np.concatenate([np.full(rows, label) for rows, label in persons])
    group = np.repeat(np.arange(len(persons)), [rows for rows, _ in persons])
    split = np.where(group < len(people), group % 2, 2)
    rng = np.random.default_rng(0)
    return make_task(
        {"modality_x": rng.normal(size=(len(y), 4)), "y": y, "group": group, "split": split}, "toy"
    )


def test_few_rows_of_validation_are_joined_by_those_of_training(task: Task) -> None:
    judged = judging(task, None)
    assert judged.kind == "cross" and judged.fold is not None
    both = np.flatnonzero(task.split < 2)
    assert (judged.train == both).all() and (judged.held_out == both).all()
    assert len(judged.fold) == len(both)
    assert "48 rows of training and validation" in about(judged)
    assert judged.trained_rows(final=True) == 48
    assert judged.trained_rows(final=False) == (judged.fold > 0).sum() < 48


def test_a_split_that_is_asked_for_judges_alone(task: Task) -> None:
    judged = judging(task, "split")
    assert judged.kind == "split" and judged.fold is None
    assert (judged.train == task.rows("train")).all()
    assert (judged.held_out == task.rows("val")).all()
    assert judged.trained_rows(final=False) == judged.trained_rows(final=True) == 36
    assert about(judged) == "the validation split, 12 rows"


@pytest.mark.parametrize("rows", [FEW_ROWS - 1, FEW_ROWS])
def test_where_validation_begins_to_be_large(rows: int) -> None:
    split = np.repeat([0, 1, 2], [30, rows, 3])
    y = np.arange(len(split)) % 3
    arrays = {"modality_x": np.eye(3)[y], "y": y, "split": split, "group": np.arange(len(y))}
    task = make_task(arrays, "toy")
    assert judging(task, None).kind == ("cross" if rows < FEW_ROWS else "split")
    assert judging(task, "cross").kind == "cross"


def test_folds_are_whole_groups_and_hold_every_class(task: Task) -> None:
    judged = judging(task, "cross")
    assert judged.fold is not None and task.group is not None
    people = task.group[judged.train]
    for person in np.unique(people):
        assert len(set(judged.fold[people == person])) == 1
    persons = [len(set(people[judged.fold == part])) for part in range(FOLDS)]
    assert sum(persons) == 8 and max(persons) - min(persons) <= 1
    for part in range(FOLDS):
        assert set(task.y[judged.train[judged.fold != part]]) == {0, 1, 2}
    again = judging(task, "cross")
    assert again.fold is not None and (again.fold == judged.fold).all()


@pytest.mark.parametrize("carriers", [2, 3, 4])
def test_rare_people_of_a_class_are_spread(carriers: int) -> None:
    for others in range(4, 16):
        judged = judging(of_people([(6, 0)] * others + [(6, 1)] * carriers), "cross")
        assert judged.fold is not None
        rare = np.bincount(judged.fold[6 * others :], minlength=FOLDS) // 6
        assert max(rare) - min(rare) <= 1
        people = np.bincount(judged.fold, minlength=FOLDS) // 6
        assert max(people) - min(people) <= 1


def test_rows_are_dealt_where_neither_groups_nor_a_split_are_given(toy_arrays: Arrays) -> None:
    del toy_arrays["group"], toy_arrays["split"]
    judged = judging(make_task(toy_arrays, "toy"), "cross")
    assert judged.fold is not None
    assert sorted(np.bincount(judged.fold).tolist()) == [16, 16, 16]


def test_a_split_without_groups_is_kept(toy_arrays: Arrays) -> None:
    del toy_arrays["group"]
    task = make_task(toy_arrays, "toy")
    assert judging(task, None).kind == "split"
    with pytest.raises(DataError, match=r"has a split and no group, so rows .* add a group or use"):
        judging(task, "cross")


def test_too_few_people_cannot_be_judged_crosswise(toy_arrays: Arrays) -> None:
    toy_arrays["group"] = toy_arrays["split"]  # one person each in training and validation
    for task in (of_people([(6, 0)] * 6 + [(6, 1)]), make_task(toy_arrays, "toy")):
        assert judging(task, None).kind == "split"
        with pytest.raises(DataError, match=r"--validation cross: in 500 deals of the groups into"):
            judging(task, "cross")


def test_the_command_line_says_what_is_done() -> None:
    assert cli.FEW_ROWS == FEW_ROWS and cli.VALIDATIONS == VALIDATIONS


# ---------------------------------------------------------------- training


def genes(bench: evaluate.Bench) -> Any:
    space = SPACES["conv"]
    return space.sample(FixedTrial(space.starts(bench.problem)[0]), bench.problem)


def test_no_row_is_judged_by_a_network_that_saw_it(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(task, judging(task, "cross"), 0)
    recipe = recipe_of(bench, "accuracy", distil=False, final=False)
    rows = {row.tobytes(): i for i, row in enumerate(bench.inputs["train"]["accel"])}
    assert len(rows) == 48
    seen: list[tuple[set[int], int]] = []
    answered: list[int] = []

    def train_and_note(wanted: Any, data: TrainingSet, used: Recipe) -> list[IntegerModel]:
        clean = data.inputs["accel"][0].permute(0, 2, 3, 1).contiguous().numpy()
        seen.append(({rows[row.tobytes()] for row in clean}, used.steps))
        assert len(data.labels) == len(clean)
        return fit_pack(wanted, data, Recipe(steps=2, batch_size=8))

    def classify_and_note(model: IntegerModel, inputs: Any) -> Any:
        asked = {rows[row.tobytes()] for row in inputs["accel"]}
        assert not asked & seen[-1][0] and len(asked | seen[-1][0]) == 48
        answered.extend(asked)
        return classify(model, inputs)

    monkeypatch.setattr(evaluate, "fit_pack", train_and_note)
    monkeypatch.setattr(evaluate, "classify", classify_and_note)
    graph = genes(bench).lower()
    search = train_student(bench, graph, recipe, "accuracy", None, 1)
    assert sorted(answered) == list(range(48)) and len(seen) == FOLDS
    for part, steps in seen:
        assert steps == pytest.approx(recipe.steps * len(part) / 48, abs=0.5)
    final = train_student(bench, graph, recipe, "accuracy", None, 1, final=True)
    assert len(seen) == 2 * FOLDS + 1
    assert seen[-1] == (set(range(48)), recipe.steps)  # what ships
    assert final.val_score == search.val_score and final.model != search.model


@pytest.mark.parametrize("kind", ["split", "cross"])
def test_the_score_is_that_of_the_answers_kept(task: Task, kind: Any, tmp_path: Path) -> None:
    judged = judging(task, kind)
    bench = prepare(task, judged, 0)
    recipe = Recipe(steps=20, batch_size=16)
    trained = train_student(bench, genes(bench).lower(), recipe, "balanced_accuracy", None, 3)
    file = tmp_path / "c.npz"
    assert trained.model is not None
    file.write_bytes(trained.model)
    answers, labels = read_answers(file), task.y[judged.held_out]
    assert metrics.score("balanced_accuracy", labels, answers, 3) == trained.val_score
    if kind == "split":
        model = IntegerModel.from_bytes(trained.model)
        assert (classify(model, bench.inputs["val"]) == answers).all()


def test_each_network_has_the_teacher_of_its_part(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = prepare(task, judging(task, "cross"), 0)
    assert bench.judging.fold is not None
    copies, rows = next(iter(bench.training.inputs.values())).shape[:2]
    own = np.random.default_rng(0).normal(size=(1 + FOLDS, copies, rows, 3)).astype(np.float32)
    short = Recipe(steps=2, batch_size=8, distil_weight=0.7)
    taught: list[Any] = []

    def note(wanted: Any, data: TrainingSet, recipe: Recipe) -> list[IntegerModel]:
        assert data.teacher is not None
        taught.append(data.teacher.numpy())
        return fit_pack(wanted, data, short)

    monkeypatch.setattr(evaluate, "fit_pack", note)
    graph = genes(bench).lower()
    train_student(bench, graph, short, "accuracy", Lessons(own), 3, final=True)
    assert (taught[-1] == own[0]).all() and len(taught) == 1 + FOLDS
    for part in range(FOLDS):
        assert (taught[part] == own[1 + part][:, bench.judging.fold != part]).all()
    taught.clear()
    train_student(bench, graph, short, "accuracy", Lessons(own[:1]), 3)  # the user's own teacher
    for part in range(FOLDS):
        assert (taught[part] == own[0][:, bench.judging.fold != part]).all()


# ---------------------------------------------------------------- the file


def test_a_file_without_answers_is_named(task: Task, tmp_path: Path) -> None:
    bench = prepare(task, judging(task, "split"), 0)
    one = [Wanted(genes(bench).lower(), 0)]
    model = fit_pack(one, bench.training, Recipe(steps=1, batch_size=8))[0]
    file = tmp_path / "old.npz"
    file.write_bytes(model.to_bytes())
    with pytest.raises(RunError, match=r"old.npz: no answers to held-out rows .* start a new run"):
        read_answers(file)
    packed = pack(model, np.array([2, 0, 1]))
    assert IntegerModel.from_bytes(packed).hash == model.hash
    file.write_bytes(packed)
    assert read_answers(file).tolist() == [2, 0, 1]
    file.write_bytes(packed[:-30])
    with pytest.raises(RunError, match=r"old.npz"):
        read_answers(file)


# ---------------------------------------------------------------- a run


def test_a_run_on_few_rows(tmp_path: Path) -> None:
    world = World(tmp_path)
    with np.load(world.data) as held:
        arrays = dict(held)
    arrays["split"][100:280] = 2  # 20 rows are left for validation
    arrays["group"] = np.arange(320)
    np.savez(world.data, **arrays)
    end = ("--trials", 2, "--no-verify")
    world.search("--data", world.data, *end, "--out", world.run)
    manifest = document(world.run / "run.json")
    assert manifest["validation"] == "cross"
    teacher = next((world.folder / "cache" / "teachers").iterdir())
    with np.load(teacher) as held:
        assert held["bank"].shape[0] == 1 + FOLDS and held["val"].shape == (100, 3)
    labels = arrays["y"][arrays["split"] < 2]
    assert len(labels) == 100
    for row in table(world.run / "front.csv"):
        files = [world.run / "trained" / f"{row['id']}{n}.npz" for n in ("", ".1", ".2", ".3")]
        scores = [
            metrics.score("accuracy", labels, read_answers(file), 3)
            for file in files
            if file.exists()
        ]
        assert float(row["val_score"]) in scores and float(row["val_score"]) > 0.7
        training = document(world.run / "candidates" / row["id"] / "architecture.json")["training"]
        assert training["rows"] == 100 and int(row["steps"]) == 2 * student_steps(100)
    assert student_steps(100) == SEARCH_EPOCHS * 100 // batch_size_for(100)
    line = world.refused(
        *("--data", world.data, *end, "--out", world.run, "--resume", "--validation", "split")
    )
    assert "validation is 'split' and was 'cross'" in line
