"""Scores of an integer model on a task, and with one of its sensors missing."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nas.data.task import Task, load_task
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel
from nas.network.ops import Add, Conv2d, Pool, Reshape
from nas.network.random_model import with_random_numbers
from nas.training.metrics import score
from nas.training.scoring import classify_split, scores_without


@pytest.fixture
def task(toy_arrays: dict[str, npt.NDArray[Any]], tmp_path: Any) -> Task:
    path = tmp_path / "toy.npz"
    np.savez(path, **toy_arrays)
    return load_task(path)


@pytest.fixture
def model(task: Task) -> IntegerModel:
    """Two of the three sensors of the toy data, added to three logits."""
    shapes = {m.name: m.graph_shape for m in task.modalities}
    return with_random_numbers(
        Graph(
            tuple(Input(name, shapes[name]) for name in ("accel", "stats")),
            (
                Pool("mean", ("accel",), "average", shapes["accel"][:2], (1, 1)),
                Conv2d("a", ("mean",), 3, (1, 1), (1, 1), "same", 8, False),
                Conv2d("s", ("stats",), 3, (1, 1), (1, 1), "same", 8, False),
                Add("sum", ("a", "s"), False),
                Reshape("logits", ("sum",), (3,)),
            ),
            "logits",
        ),
        np.random.default_rng(3),
    )


@pytest.mark.parametrize("zero_point", [0, 21])
def test_a_missing_sensor_stands_at_its_mean(
    task: Task, model: IntegerModel, zero_point: int
) -> None:
    moved = tuple(replace(m, zero_point=zero_point) for m in task.modalities)
    task = replace(task, modalities=moved)
    rows = task.rows("test")
    inputs = {m.name: m.quantised(rows) for m in moved}
    found = scores_without(task, model, "macro_f1")
    assert list(found) == ["accel", "stats"]
    for modality in moved:
        if modality.name not in found:
            continue
        # The mean itself, as stored values would give it, is that constant.
        constant = np.full_like(inputs[modality.name], zero_point)
        outputs = reference.run(
            model,
            {n: inputs[n] for n in found} | {modality.name: constant},
        )
        expected = score("macro_f1", task.y[rows], outputs.argmax(1), task.classes)
        assert found[modality.name] == expected
    whole = score("macro_f1", task.y[rows], classify_split(task, model, "test"), task.classes)
    assert any(value != whole for value in found.values())
