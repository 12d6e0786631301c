"""A candidate's folder: the artefacts, and all that is known of it in architecture.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.data.task import Modality, Task
from nas.deploy.c_bundle import TEST_VECTORS, Description, c_bundle
from nas.deploy.to_c import Normalisation
from nas.export.to_onnx import to_onnx
from nas.export.to_onnx_integer import to_onnx_integer
from nas.export.to_tflite import to_tflite
from nas.hardware.budget import price
from nas.hardware.cost import Cost
from nas.hardware.profile import Profile
from nas.hardware.program import Program
from nas.hardware.stepwise import Stepwise
from nas.network.graph import Graph
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.ops import Conv2d, DepthwiseConv2d
from nas.network.streaming import step_model
from nas.run_folder import write_atomic, write_json

SMALLEST_GROUP = 5  # rows below which a subject's score says nothing


@dataclass(frozen=True)
class Candidate:
    """A trained architecture with everything that its folder holds.

    Attributes:
        document: the architecture's JSON, its space by name among the rest.
        cost_at_8_bits: of the same graph with 8 bits in every layer.
        stepwise: the form that runs step by step, where there is one.
        val_scores: of every training of this architecture, the shipped one first.
        rows: that the shipped model was trained on.
        taught_by: `teacher` (that of run.json), `none`, or the id of the candidate that taught it.
        predicted: (n,) classes given to the test split by the shipped model.
        scores_without: sensor -> test score of the shipped model with that sensor missing.
    """

    id: str
    document: Mapping[str, Any]
    model: IntegerModel
    program: Program
    cost: Cost
    cost_at_8_bits: Cost
    stepwise: Stepwise | None
    val_scores: Sequence[float]
    rows: int
    steps: int
    taught_by: str
    predicted: NDArray[np.int64]
    scores_without: Mapping[str, float]


def at_8_bits(graph: Graph, profile: Profile) -> Cost:
    """The predicted cost of the same graph with 8 bits in every layer, to see what its bits do."""
    ops = tuple(
        replace(op, weight_bits=8) if isinstance(op, Conv2d | DepthwiseConv2d) else op
        for op in graph.ops
    )
    return price(replace(graph, ops=ops), profile).cost


def write_candidate(run: Path, candidate: Candidate, task: Task) -> Path:
    """Writes candidates/<id>/ but its README and returns it; RunError when the disk refuses."""
    folder = run / "candidates" / candidate.id
    model = candidate.model
    write_atomic(folder / "model.npz", model.to_bytes())
    write_atomic(folder / "model.tflite", to_tflite(model))
    write_atomic(folder / "model.onnx", to_onnx(model))
    write_atomic(folder / "model_integer.onnx", to_onnx_integer(model))
    write_json(folder / "architecture.json", _describe(candidate, task))
    rows = task.rows("test")[:TEST_VECTORS]
    used = {source.name for source in model.graph.inputs}
    vectors = {m.name: m.quantised(rows) for m in task.modalities if m.name in used}
    inputs = {m.name: _input(m) for m in task.modalities if m.name in used}
    about = describe(f"Candidate {candidate.id}", task.class_names, inputs)
    write_c(folder / "c", c_bundle(model, candidate.program, vectors, about))
    if candidate.stepwise is not None:
        write_c(folder / "c_step", step_bundle(model, candidate.stepwise, vectors, about))
    return folder


def step_bundle(
    model: IntegerModel,
    held: Stepwise,
    inputs: Mapping[str, Int8],
    about: Description,
    prefix: str = "model",
) -> dict[str, str]:
    """The files of a windowed model's stepwise form; `inputs` are whole windows."""
    stepped = step_model(model, held.made)
    return c_bundle(stepped, held.program, inputs, about, prefix, made=held.made)


def describe(title: str, classes: Sequence[str], inputs: Mapping[str, Any]) -> Description:
    """What a bundle tells its readers; `inputs` as in architecture.json."""
    normalisation = {
        name: Normalisation(entry["mean"], entry["std"]) for name, entry in inputs.items()
    }
    return Description(title, list(classes), normalisation)


def write_c(folder: Path, files: Mapping[str, str]) -> None:
    """Writes a bundle's files and removes all others; RunError if the disk refuses."""
    for name, text in files.items():
        write_atomic(folder / name, text.encode())
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()


def _describe(candidate: Candidate, task: Task) -> dict[str, Any]:
    labels = task.y[task.rows("test")]
    confusion = np.zeros((task.classes, task.classes), int)
    np.add.at(confusion, (labels, candidate.predicted), 1)
    used = {source.name for source in candidate.model.graph.inputs}
    return {
        "id": candidate.id,
        "space": candidate.document["space"],
        "architecture": dict(candidate.document),
        "graph": candidate.model.graph.to_json(),
        "inputs": {m.name: _input(m) for m in task.modalities if m.name in used},
        "classes": list(task.class_names),
        "cost": candidate.cost.to_json(),
        "at_8_bits": weights_and_cycles(candidate.cost_at_8_bits),
        "plan": candidate.program.plan.to_json(),
        "stepwise": _describe_steps(candidate.stepwise),
        "training": {
            "seeds": len(candidate.val_scores),
            "rows": candidate.rows,
            "steps": candidate.steps,
            "taught_by": candidate.taught_by,
            "val_scores": list(candidate.val_scores),
            "weights_hash": candidate.model.hash,
        },
        "groups": _worst_group(candidate.predicted, task),
        "confusion": confusion.tolist(),
        "missing_sensors": {name: {"score": s} for name, s in candidate.scores_without.items()},
    }


def _describe_steps(held: Stepwise | None) -> dict[str, Any] | None:
    if held is None:
        return None
    return {
        "step_readings": held.made.frame_steps,
        "window_steps": held.made.frames,
        "state_bytes": held.made.state_bytes,
        "memory_bytes": held.memory_bytes,
        "ram_bytes": held.ram_bytes,
        "flash_bytes": held.flash_bytes,
        "step_cycles": held.step_cycles,
        "last_step_cycles": held.last_step_cycles,
    }


def weights_and_cycles(cost: Cost) -> dict[str, Any]:
    """What the bits of weights change in a cost."""
    per_op = [
        {"name": op.name, "weight_bytes": op.weight_bytes, "cycles": op.cycles}
        for op in cost.per_op
    ]
    return {
        "weight_bytes": cost.weight_bytes,
        "flash_bytes": cost.flash_bytes,
        "cycles": cost.cycles,
        "per_op": per_op,
    }


def _input(modality: Modality) -> dict[str, Any]:
    """How real values become the artefact's integers: round((x - mean) / std / scale).

    `stored_type` is what one value is in the data file; `rate_hz` and `columns` are None and empty
    where it does not name them.
    """
    return {
        "kind": modality.kind,
        "shape": list(modality.shape),
        "mean": [float(v) for v in modality.mean],
        "std": [float(v) for v in modality.std],
        "scale": modality.input_scale,
        "zero_point": modality.zero_point,
        "stored_type": modality.values.dtype.name,
        "stored_bytes": modality.values.dtype.itemsize,
        "rate_hz": modality.rate_hz,
        "columns": list(modality.columns),
    }


def _worst_group(predicted: NDArray[np.int64], task: Task) -> dict[str, Any] | None:
    """The subject or site of the test split with the lowest accuracy."""
    if task.group is None:
        return None
    rows = task.rows("test")
    groups, right = task.group[rows], predicted == task.y[rows]
    scores = [
        (float(right[groups == g].mean()), str(g), int(n))
        for g, n in zip(*np.unique(groups, return_counts=True), strict=True)
        if n >= SMALLEST_GROUP
    ]
    if not scores:
        return None
    score, group, count = min(scores)
    return {"worst": {"group": group, "score": score, "rows": count}}
