"""Integer models of random numbers: for calibration and benchmarks, whose figures need no training.

Scales are such that outputs use their range, as those of a trained model do.
"""

import numpy as np

from nas.network.graph import Graph
from nas.network.integer import IntegerModel, Scale, Weights
from nas.network.numerics import Int8, weight_limit
from nas.network.ops import Attention, Conv2d, DepthwiseConv2d, Positions, SelectiveScan, size
from nas.network.ranges import non_negative_groups


def with_random_numbers(
    graph: Graph, rng: np.random.Generator, odd_zeros: bool = True
) -> IntegerModel:
    """Random scales, zero points, weights and biases for `graph`.

    The weight scales are chosen so that an accumulator of ordinary size lands inside int8. With
    `odd_zeros` some tensors without negative values have another zero point than -128, which is
    legal and what no training here does.
    """
    groups, positive = graph.scale_groups, non_negative_groups(graph)
    by_group: dict[str, Scale] = {}
    for name in graph.shapes:
        usual = positive[groups[name]] and not (odd_zeros and rng.random() < 0.3)
        zero = -128 if usual else int(rng.integers(-30, 31))
        zero = 0 if groups[name] in graph.symmetric else zero
        by_group.setdefault(groups[name], Scale(_float32(rng.uniform(0.01, 0.04)), zero))
    scales = {name: by_group[groups[name]] for name in graph.shapes}
    weights = {}
    for op in graph.ops:
        if isinstance(op, Conv2d | DepthwiseConv2d):
            weights[op.name] = _weights(graph, op, scales, rng)
        elif isinstance(op, Attention):
            scales |= _attention_scales(graph, op, scales, rng)
        elif isinstance(op, SelectiveScan):
            weights[op.name], held = _scan_numbers(graph, op, scales, rng)
            scales |= held
        elif isinstance(op, Positions):
            values = rng.integers(-127, 128, graph.shapes[op.name]).astype(np.int8)
            scale = np.array([rng.uniform(0.01, 0.04)], np.float32)
            weights[op.name] = Weights(values, scale, np.zeros(0, np.int32))
    return IntegerModel(graph, scales, weights)


def _float32(value: float) -> float:
    return float(np.float32(value))


def _weights(
    graph: Graph,
    op: Conv2d | DepthwiseConv2d,
    scales: dict[str, Scale],
    rng: np.random.Generator,
) -> Weights:
    shape = graph.weight_shape(op)
    assert shape is not None
    limit = weight_limit(op.weight_bits)
    values = rng.integers(-limit, limit + 1, shape).astype(np.int8)
    channels = graph.shapes[op.name][-1]
    taps = size(shape) // channels
    spread = 74.0 * np.sqrt(taps) * max(1.0, limit / 1.7)  # of an accumulator
    factor = 60.0 / spread * rng.uniform(0.5, 1.5, channels)
    source, target = scales[op.inputs[0]].scale, scales[op.name].scale
    bias = rng.normal(0.0, spread / 2, channels).round().astype(np.int32)
    return Weights(values, (factor * target / source).astype(np.float32), bias)


def _attention_scales(
    graph: Graph, op: Attention, scales: dict[str, Scale], rng: np.random.Generator
) -> dict[str, Scale]:
    """Scores that use their range, with weights from flat to nearly one-hot."""
    q, k = (scales[name].scale for name in op.inputs[:2])
    width = graph.shapes[op.name][2] // op.heads
    spread = 74.0**2 * np.sqrt(width) * q * k
    return {f"{op.name}/scores": Scale(_float32(spread / rng.uniform(30.0, 60.0)), 0)}


def _scan_numbers(
    graph: Graph, op: SelectiveScan, scales: dict[str, Scale], rng: np.random.Generator
) -> tuple[Weights, dict[str, Scale]]:
    """The skip and the scale of the sum over states."""
    u, _, b, c, _ = (scales[name].scale for name in op.inputs)
    skip = rng.integers(-20_000, 20_001, graph.shapes[op.name][2]).astype(np.int32)
    empty = Weights(np.zeros(0, np.int8), np.zeros(0, np.float32), skip)
    spread = 74.0 * 20_000 * u * b * c
    return empty, {f"{op.name}/sum": Scale(_float32(spread / rng.uniform(5_000, 12_000)), 0)}


def random_inputs(graph: Graph, count: int, rng: np.random.Generator) -> dict[str, Int8]:
    """`count` uniform int8 inputs of each modality."""
    return {
        i.name: rng.integers(-128, 128, (count, *i.shape)).astype(np.int8) for i in graph.inputs
    }
