"""Makes a teacher's answers: trains a network of ours, or runs the user's ONNX model.

Ours are `Student` networks without quantisers, built from a `Graph` like every other network, or
`DualAttention`, and regularised so that they do not merely memorise the training split:
augmentation, dropout, weight decay and label smoothing.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from nas.errors import DataError
from nas.network.graph import Graph, Input
from nas.network.numerics import Int8
from nas.network.ops import Concat, Conv2d, Op, Pool, Reshape
from nas.space import Problem, Sensor
from nas.training.evaluate import Bench
from nas.training.loop import Network, answers, predict, train
from nas.training.mdcsa import DualAttention
from nas.training.metrics import Metric
from nas.training.recipe import teacher_recipe
from nas.training.student import Student
from nas.training.teacher import Answers, Member, NetworkKind, log_softmax

STEM_CHANNELS, WIDE_STEM = 12, 24  # the second of images, where there is enough to learn from
WIDE_FROM = 1000  # training rows; what a wide network makes of fewer was not measured
STAGE_GROWTH = 1.5
FEWEST_LAYERS, MOST_LAYERS = 2, 5
SMALLEST_MAP = 4  # steps or pixels of the longest axis at which halving ends
LONGEST_STEM = 64
EMBEDDING = 32
HIDDEN = 48


def teacher_graph(problem: Problem, rows: int) -> Graph:
    """A wide branch per sensor, concatenated, and a hidden layer; it is trained in float.

    On the validation split of av_digits_hard one network with `WIDE_STEM` scored .868 and .856
    where one with `STEM_CHANNELS` scored .834 and .827 (two seeds), for twice the time.

    Average pools halve the maps: a strided convolution on an even map leaves one edge half blind,
    which cost 2 to 4 points on two image sets.
    """
    ops: list[Op] = []
    wide = rows >= WIDE_FROM
    features = [_branch(ops, sensor, wide) for sensor in problem.sensors]
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


def _branch(ops: list[Op], sensor: Sensor, wide: bool) -> str:
    name = sensor.name
    if sensor.kind == "vector":
        ops.append(_dense(f"{name}_0", name, 96, True))
        ops.append(_dense(f"{name}_1", f"{name}_0", EMBEDDING, True))
        return f"{name}_1"
    height, width, _ = sensor.shape
    stem = WIDE_STEM if wide and sensor.kind == "image" else STEM_CHANNELS
    source, channels, layer = name, stem, 0
    size = 5 if sensor.kind == "series" else 3
    while layer < FEWEST_LAYERS or (layer < MOST_LAYERS and max(height, width) > SMALLEST_MAP):
        kernel = (size if height > 1 else 1, size if width > 1 else 1)
        # A long signal is halved by its stem at once: full resolution would cost minutes.
        long = layer == 0 and max(height, width) > LONGEST_STEM
        stride = (2 if long and height > 1 else 1, 2 if long and width > 1 else 1)
        ops.append(Conv2d(f"{name}_{layer}", (source,), channels, kernel, stride, "same", 8, True))
        source = f"{name}_{layer}"
        height, width = -(-height // stride[0]), -(-width // stride[1])
        if max(height, width) > SMALLEST_MAP:
            window = (2 if height > 3 else 1, 2 if width > 3 else 1)
            ops.append(Pool(f"{name}_pool{layer}", (source,), "average", window, window))
            source, height, width = f"{name}_pool{layer}", height // window[0], width // window[1]
        last, channels, layer = channels, round(channels * STAGE_GROWTH), layer + 1
    return _readout(ops, name, source, (height, width), last)


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


def train_member(bench: Bench, metric: Metric, member: Member, seed: int) -> Answers:
    """Trains one network on the bank, and asks it everything.

    Part 0 trains on all rows, 1 + i on those that are not of fold i.
    """
    if member.part == 0:
        return train_network(bench, metric, member.network, None, seed)
    assert bench.judging.fold is not None
    kept = bench.judging.fold != member.part - 1
    return train_network(bench, metric, member.network, kept, seed)


def train_network(
    bench: Bench,
    metric: Metric,
    network: NetworkKind,
    kept: NDArray[np.bool_] | None,
    seed: int,
) -> Answers:
    """Trains a network on the rows of a mask (n,), or on all, and asks it about every row."""
    torch.manual_seed(seed)
    data = bench.training
    seen = data if kept is None else data.subset(kept)
    recipe = teacher_recipe(len(seen.labels), metric, network == "attention")
    net: Network
    if network == "attention":
        net = DualAttention(bench.problem, dropout=recipe.dropout)
    else:
        graph = teacher_graph(bench.problem, len(data.labels))
        net = Student(graph, data.scales, quantised=False, dropout=recipe.dropout)
    train(net.to(data.device), seen, recipe, seed)

    def ask(inputs: Mapping[str, torch.Tensor]) -> NDArray[np.float32]:
        log_probabilities = predict(net, inputs, data.scales).log_softmax(-1)
        return np.asarray(log_probabilities.numpy(), np.float32)

    def tensors(inputs: Mapping[str, Int8]) -> dict[str, torch.Tensor]:
        return {k: torch.from_numpy(v).permute(0, 3, 1, 2) for k, v in inputs.items()}

    bank, features = [], []
    for copy in range(len(next(iter(data.inputs.values())))):
        logits, held = answers(net, {k: v[copy] for k, v in data.inputs.items()}, data.scales)
        bank.append(logits.log_softmax(-1).numpy())
        features.append(held.half().numpy())
    return Answers(
        np.stack(bank)[None],
        ask(tensors(bench.inputs["val"])),
        ask(tensors(bench.inputs["test"])),
        sum(p.numel() for p in net.parameters()),
        np.stack(features)[None],
    )


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
    if unknown or not names:
        what = f"input {unknown[0]!r} is no modality of the data" if unknown else "it has no input"
        raise DataError(
            f"--teacher {path}: {what}; its inputs must be named among {', '.join(modalities)}"
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
            try:
                answer = np.asarray(session.run(None, feed)[0], np.float32)
            except Exception as error:  # types, shapes, operators: each has its own
                given = ", ".join(f"{k} {v.dtype} {v.shape}" for k, v in feed.items())
                raise DataError(
                    f"--teacher {path}: it cannot be run on {given} ({str(error).splitlines()[0]});"
                    " its inputs must take float32 values in the data's layout, any number of rows"
                ) from None
            parts.append(np.atleast_1d(answer))
        return _as_log_probabilities(np.concatenate(parts), (n, bench.task.classes), path)

    inputs = bench.training.inputs
    bank = {name: inputs[name].permute(0, 1, 3, 4, 2).cpu().numpy() for name in names}
    copies = range(len(bank[names[0]]))
    return Answers(
        np.stack([ask({k: v[copy] for k, v in bank.items()}) for copy in copies])[None],
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
        return log_softmax(np.log(np.maximum(output, 1e-7)))
    return log_softmax(output)
