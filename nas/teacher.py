"""The fixed teacher of a search: an ensemble of wide float networks, or the user's own ONNX model.

Members are `Student` networks without quantisers, built from a `Graph` like every other network,
and regularised so that they do not merely memorise the training split: augmentation, dropout,
weight decay and label smoothing. What a student needs of a teacher is its averaged
log-probabilities for every sample of every augmented copy, so these are what is cached, under a
hash of all they depend on.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from nas import metrics
from nas.errors import DataError
from nas.evaluate import Bench
from nas.graph import Graph, Input
from nas.metrics import Metric
from nas.numerics import Int8
from nas.ops import Concat, Conv2d, Op, Pool, Reshape
from nas.run_folder import write_atomic
from nas.space import Problem, Sensor
from nas.student import Student
from nas.task import Task
from nas.training import Recipe, predict, train

MEMBERS = 3
VERSION = 1  # of everything below: raise it when a change makes another teacher of the same data
TEACHER_STEPS = 900
STEM_CHANNELS = 16
STAGE_GROWTH = 1.5
EMBEDDING = 32
HIDDEN = 48


def teacher_graph(problem: Problem) -> Graph:
    """A wide branch per sensor, concatenated, and a hidden layer; it is trained in float."""
    ops: list[Op] = []
    features = [_branch(ops, sensor) for sensor in problem.sensors]
    fused = features[0]
    if len(features) > 1:
        ops.append(Concat("fusion", tuple(features)))
        fused = "fusion"
    ops.append(_dense("hidden", fused, HIDDEN, True))
    ops.append(_dense("output", "hidden", problem.classes, False))
    ops.append(Reshape("logits", ("output",), (problem.classes,)))
    return Graph(tuple(Input(s.name, s.shape) for s in problem.sensors), tuple(ops), "logits")


def _dense(name: str, source: str, units: int, relu: bool) -> Conv2d:
    return Conv2d(name, (source,), units, (1, 1), (1, 1), "valid", 8, relu)


def _branch(ops: list[Op], sensor: Sensor) -> str:
    name = sensor.name
    if sensor.kind == "vector":
        ops.append(_dense(f"{name}_0", name, 96, True))
        ops.append(_dense(f"{name}_1", f"{name}_0", EMBEDDING, True))
        return f"{name}_1"
    height, width, _ = sensor.shape
    source, channels = name, float(STEM_CHANNELS)
    size = 5 if sensor.kind == "series" else 3
    layer = 0
    while layer < 2 or (layer < 5 and max(height, width) > 4):
        # Short signals keep their resolution in the stem.
        step = 2 if max(height, width) > (16 if layer == 0 else 4) else 1
        kernel = (size if height > 1 else 1, size if width > 1 else 1)
        stride = (step if height > 1 else 1, step if width > 1 else 1)
        ops.append(
            Conv2d(f"{name}_{layer}", (source,), round(channels), kernel, stride, "same", 8, True)
        )
        source, channels, layer = f"{name}_{layer}", channels * STAGE_GROWTH, layer + 1
        height, width = -(-height // stride[0]), -(-width // stride[1])
    return _readout(ops, name, source, (height, width), round(channels / STAGE_GROWTH))


def _readout(ops: list[Op], name: str, source: str, size: tuple[int, int], channels: int) -> str:
    """An embedding of the flattened map; a large map is pooled to a coarse grid first."""
    cells = [min(4 if min(size) == 1 else 2, n) for n in size]
    stride = (size[0] // cells[0], size[1] // cells[1])
    kernel = (size[0] - (cells[0] - 1) * stride[0], size[1] - (cells[1] - 1) * stride[1])
    if kernel != (1, 1):
        ops.append(Pool(f"{name}_grid", (source,), "average", kernel, stride))
        source = f"{name}_grid"
    if cells != [1, 1]:
        features = cells[0] * cells[1] * channels
        ops.append(Reshape(f"{name}_flat", (source,), (1, 1, features)))
        source = f"{name}_flat"
    ops.append(_dense(f"{name}_embedding", source, EMBEDDING, True))
    return f"{name}_embedding"


@dataclass(frozen=True)
class Answers:
    """A teacher's log-probabilities: of every training copy, of validation and of test.

    `bank` is (copies, n, classes) in the order of `augment.make_bank`, the others (n, classes).
    """

    bank: NDArray[np.float32]
    val: NDArray[np.float32]
    test: NDArray[np.float32]
    parameters: int


@dataclass(frozen=True)
class Teacher:
    """The fixed teacher of a run, as its students need it.

    Attributes:
        kind: `ensemble` of our own, or `onnx` for the user's.
        hash: of all that the answers depend on; the name of the cached file.
        file: the answers; students read `bank` from it.
        parameters: of all members; 0 when unknown.
    """

    kind: str
    hash: str
    file: Path
    val_score: float
    test_score: float
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {
            "kind": self.kind,
            "hash": self.hash,
            "val_score": self.val_score,
            "test_score": self.test_score,
            "parameters": self.parameters,
        }


def train_member(bench: Bench, metric: Metric, seed: int) -> Answers:
    """Trains one wide float network on the whole bank and asks it everything."""
    torch.manual_seed(seed)
    data = bench.training
    net = Student(teacher_graph(bench.problem), data.scales, quantised=False, dropout=0.3)
    rows = len(data.labels)
    batch_size = 64 if rows >= 1000 else 32
    recipe = Recipe(
        steps=max(200, min(TEACHER_STEPS, 60 * rows // batch_size)),
        batch_size=batch_size,
        class_weighting=metric != "accuracy",
        dropout=0.3,
        label_smoothing=0.05,
    )
    train(net, data, recipe, seed)

    def ask(inputs: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = predict(net, inputs, data.scales).log_softmax(-1).numpy()
        return answers

    def tensors(inputs: Mapping[str, Int8]) -> dict[str, torch.Tensor]:
        return {k: torch.from_numpy(v).permute(0, 3, 1, 2) for k, v in inputs.items()}

    copies = range(len(next(iter(data.inputs.values()))))
    return Answers(
        np.stack([ask({k: v[copy] for k, v in data.inputs.items()}) for copy in copies]),
        ask(tensors(bench.inputs["val"])),
        ask(tensors(bench.inputs["test"])),
        sum(p.numel() for p in net.parameters()),
    )


def average(members: Sequence[Answers]) -> Answers:
    """The ensemble: normalised mean of the members' log-probabilities."""

    def mean(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return _log_softmax(np.mean(parts, 0))

    return Answers(
        mean([m.bank for m in members]),
        mean([m.val for m in members]),
        mean([m.test for m in members]),
        sum(m.parameters for m in members),
    )


def _log_softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = x - x.max(-1, keepdims=True)
    result: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result.astype(np.float32)


def run_onnx(bench: Bench, path: str) -> Answers:
    """Asks the user's model, in ONNX Runtime.

    Its inputs are named after modalities and take float32 real values (stored * scale + offset) in
    the data's layout, (n, ...); its one output is (n, classes) logits or probabilities.

    Raises:
        DataError: the file or its inputs or its output do not fit.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"--teacher {path}: ONNX Runtime cannot load it ({reason})") from None
    names = [declared.name for declared in session.get_inputs()]
    modalities = {m.name: m for m in bench.task.modalities}
    unknown = [name for name in names if name not in modalities]
    if unknown:
        raise DataError(
            f"--teacher {path}: input {unknown[0]!r} is no modality of the data; its inputs must be"
            f" named among {', '.join(modalities)}"
        )

    def real(name: str, integers: Int8) -> NDArray[np.float32]:
        m = modalities[name]
        values = integers.reshape(len(integers), *m.shape) * np.float32(m.input_scale)
        return np.asarray(values * m.std + m.mean, np.float32)

    def ask(inputs: Mapping[str, Int8]) -> NDArray[np.float32]:
        n = len(inputs[names[0]])
        parts = []
        for start in range(0, n, 256):
            feed = {name: real(name, inputs[name][start : start + 256]) for name in names}
            parts.append(np.asarray(session.run(None, feed)[0], np.float32))
        return _as_log_probabilities(np.concatenate(parts), (n, bench.task.classes), path)

    bank = {
        k: v.permute(0, 1, 3, 4, 2).numpy() for k, v in bench.training.inputs.items() if k in names
    }
    copies = range(len(bank[names[0]]))
    return Answers(
        np.stack([ask({k: v[copy] for k, v in bank.items()}) for copy in copies]),
        ask(bench.inputs["val"]),
        ask(bench.inputs["test"]),
        0,
    )


def _as_log_probabilities(
    output: NDArray[np.float32], shape: tuple[int, int], path: str
) -> NDArray[np.float32]:
    if output.shape != shape or not np.isfinite(output).all():
        raise DataError(
            f"--teacher {path}: output of shape {output.shape} must be {shape} finite logits or"
            " probabilities"
        )
    if output.min() >= 0 and np.allclose(output.sum(1), 1, atol=1e-3):
        return _log_softmax(np.log(np.maximum(output, 1e-7)))
    return _log_softmax(output)


def cache_folder() -> Path:
    """Where teachers' answers are kept between runs: $NAS_CACHE_DIR or ~/.cache/nas."""
    return Path(os.environ.get("NAS_CACHE_DIR") or Path.home() / ".cache" / "nas") / "teachers"


def teacher_hash(task: Task, metric: Metric, seed: int, onnx: bytes | None) -> str:
    """Hash of all that a teacher's answers depend on."""
    own = {"members": MEMBERS, "seed": seed, "weighted": metric != "accuracy"}
    key: dict[str, Any] = {"version": VERSION, "data": task.data_hash}
    key |= own if onnx is None else {"onnx": hashlib.sha256(onnx).hexdigest()}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def get_teacher(
    task: Task, metric: Metric, identity: str, kind: str, ask: Callable[[], Answers]
) -> Teacher:
    """The teacher from the cache, or from `ask`, whose answers are then cached."""
    file = cache_folder() / f"{identity}.npz"
    answers = _read(file)
    if answers is None:
        answers = ask()
        buffer = io.BytesIO()
        np.savez(
            buffer,
            bank=answers.bank,
            val=answers.val,
            test=answers.test,
            parameters=np.array(answers.parameters),
        )
        write_atomic(file, buffer.getvalue())

    def score(log_probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        predicted = log_probabilities.argmax(1).astype(np.int64)
        return metrics.score(metric, labels, predicted, task.classes)

    return Teacher(
        kind,
        identity,
        file,
        score(answers.val, task.y[task.rows("val")]),
        score(answers.test, task.y[task.rows("test")]),
        answers.parameters,
    )


def _read(file: Path) -> Answers | None:
    """Cached answers; None when there are none or the file is torn: it is then made again."""
    try:
        with np.load(file, allow_pickle=False) as held:
            return Answers(held["bank"], held["val"], held["test"], int(held["parameters"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
