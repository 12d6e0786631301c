"""The fixed teacher of a search: an ensemble of wide float networks, or the user's own ONNX model.

Members are `Student` networks without quantisers, built from a `Graph` like every other network,
and regularised so that they do not merely memorise the training split: augmentation, dropout,
weight decay and label smoothing. What a student needs of a teacher is its averaged
log-probabilities for every sample of every augmented copy, so these are what is cached, under a
hash of all they depend on.
"""

from nas.graph import Graph, Input
from nas.ops import Concat, Conv2d, Op, Pool, Reshape
from nas.space import Problem, Sensor

MEMBERS = 3
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
