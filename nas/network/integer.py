"""`IntegerModel`: a graph with the integers that a training left, and nothing else.

It is what is scored, exported and verified. Weights are int8 values of 8, 4 or 2 bits with one
scale an output channel; the bias is int32 on the accumulator's grid (input scale times weight
scale). Scales are float32 values, multiplied in float64 in one fixed order (`factors`), so that
every reader derives the same multipliers.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.errors import GraphError, RunError
from nas.network.graph import Graph
from nas.network.numerics import Int8, table, weight_limit
from nas.network.ops import Conv2d, DepthwiseConv2d, Mul, Op, Positions, SelectiveScan, Shape, Table

LARGEST_SKIP, MOST_STATES = 1 << 22, 128  # of a scan: 2 * 128 * (2^22 + 128 * 2^14) is below 2^31


@dataclass(frozen=True, slots=True)
class Scale:
    """real = (integer - zero_point) * scale; `scale` is a float32 value."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Weights:
    """values (out, kh, kw, in) or (1, kh, kw, channels), scales (out,), bias (out,).

    `Positions` have values (1, steps, channels), one scale, no bias; a `SelectiveScan` has a bias
    (channels,) alone: its skip, in units of the state's scale times that of c.
    """

    values: Int8
    scales: NDArray[np.float32]
    bias: NDArray[np.int32]


@dataclass(frozen=True)
class IntegerModel:
    """A graph, the scale of every tensor and the weights of every operator that has some.

    `scales` also holds those of `Graph.internal_scales`.

    Raises:
        GraphError: a tensor without scale, weights of another shape or beyond their bits, tensors
            that must share a scale and do not.
    """

    graph: Graph
    scales: Mapping[str, Scale]
    weights: Mapping[str, Weights]

    def __post_init__(self) -> None:
        groups = self.graph.scale_groups
        for name in self.graph.shapes:
            if name not in self.scales:
                raise GraphError(f"{name}: no scale; every tensor needs one")
            if self.scales[name] != self.scales[groups[name]]:
                raise GraphError(f"{name}: scale differs from {groups[name]}, which must share it")
            _check_scale(name, self.scales[name])
            if groups[name] in self.graph.symmetric and self.scales[name].zero_point != 0:
                raise GraphError(
                    f"{name}: attention and scans read it, so its zero point must be 0"
                )
        for name in self.graph.internal_scales:
            if name not in self.scales or self.scales[name].zero_point != 0:
                raise GraphError(f"{name}: needs a scale with zero point 0")
            _check_scale(name, self.scales[name])
        for op in self.graph.ops:
            self._check_weights(op)

    def _check_weights(self, op: Op) -> None:
        expected = _weight_shapes(op, self.graph)
        if expected is None:
            return
        held = self.weights.get(op.name)
        found = held and (held.values.shape, held.scales.shape, held.bias.shape)
        if held is None or found != expected:
            raise GraphError(
                f"{op.name}: needs weights, scales and bias of shapes {expected}, not {found}"
            )
        if held.values.dtype != np.int8 or held.bias.dtype != np.int32:
            raise GraphError(
                f"{op.name}: weights must be int8 and biases int32, as files hold them"
            )
        bits = op.weight_bits if isinstance(op, Conv2d | DepthwiseConv2d) else 8
        limit = weight_limit(bits)
        if np.abs(held.values.astype(np.int16)).max(initial=0) > limit:
            raise GraphError(f"{op.name}: a weight exceeds {limit}, the most {bits} bits hold")
        if not (held.scales > 0).all():
            raise GraphError(f"{op.name}: needs positive scales")
        if isinstance(op, SelectiveScan):
            self._check_sum(op, held)

    def _check_sum(self, op: SelectiveScan, held: Weights) -> None:
        """States reach 2^14; twice what they, c and the skip add up to must fit int32."""
        states = self.graph.shapes[op.inputs[2]][2]
        skip = int(np.abs(held.bias.astype(np.int64)).max())
        if skip > LARGEST_SKIP or states > MOST_STATES:
            raise GraphError(
                f"{op.name}: a skip of {skip} and {states} states may add up to more than 32-bit"
                f" sums hold: at most {LARGEST_SKIP} and {MOST_STATES}; the scales of b and c are"
                " too small for it"
            )

    def internal(self, op: Op, part: str) -> float:
        """Scale of what `op` requantises to in between."""
        return self.scales[f"{op.name}/{part}"].scale

    def factors(self, op: Op) -> NDArray[np.float64]:
        """(channels,) real factor from the accumulator of `op` to its output."""
        source, target = self.scales[op.inputs[0]].scale, self.scales[op.name].scale
        if isinstance(op, Conv2d | DepthwiseConv2d):
            return source * self.weights[op.name].scales.astype(np.float64) / target
        if isinstance(op, Mul):
            return np.array([source * self.scales[op.inputs[1]].scale / target])
        raise GraphError(f"{op.name}: {type(op).__name__} has no factor of its own")

    def table(self, op: Table) -> Int8:
        """The 256 entries of `op`."""
        i, o = self.scales[op.inputs[0]], self.scales[op.name]
        return table(op.function, i.scale, i.zero_point, o.scale, o.zero_point)

    @property
    def _scaled(self) -> tuple[str, ...]:
        return (*self.graph.shapes, *self.graph.internal_scales)

    def to_bytes(self) -> bytes:
        """An .npz without pickles; `IntegerModel.from_bytes` is its inverse."""
        arrays: dict[str, NDArray[np.generic]] = {
            "graph": np.array(json.dumps(self.graph.to_json(), sort_keys=True)),
            "tensors": np.array(self._scaled),
            "scales": np.array([self.scales[n].scale for n in self._scaled], np.float32),
            "zero_points": np.array([self.scales[n].zero_point for n in self._scaled]),
        }
        for name, held in self.weights.items():
            arrays |= {
                f"values:{name}": held.values,
                f"scales:{name}": held.scales,
                f"bias:{name}": held.bias,
            }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "IntegerModel":
        """Raises GraphError for an illegal model, ValueError or KeyError for another file."""
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            graph = Graph.from_json(json.loads(str(held["graph"])))
            scales = {
                str(name): Scale(float(scale), int(zero))
                for name, scale, zero in zip(
                    held["tensors"], held["scales"], held["zero_points"], strict=True
                )
            }
            names = [key.removeprefix("values:") for key in held.files if key.startswith("values:")]
            weights = {
                n: Weights(held[f"values:{n}"], held[f"scales:{n}"], held[f"bias:{n}"])
                for n in names
            }
        return IntegerModel(graph, scales, weights)

    @property
    def hash(self) -> str:
        """SHA-256 of graph, scales and weights: the identity of one training's result."""
        digest = hashlib.sha256(self.graph.hash.encode())
        for name in self._scaled:
            digest.update(f"{name} {self.scales[name]}".encode())
            if name in self.weights:
                held = self.weights[name]
                for array in (held.values, held.scales, held.bias):
                    digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _weight_shapes(op: Op, graph: Graph) -> tuple[Shape, Shape, Shape] | None:
    """Shapes of values, scales and bias of `op`; None without any."""
    shape, channels = graph.weight_shape(op), graph.shapes[op.name][-1]
    if isinstance(op, SelectiveScan):
        return (0,), (0,), (channels,)
    if shape is None:
        return None
    return (shape, (1,), (0,)) if isinstance(op, Positions) else (shape, (channels,), (channels,))


def _check_scale(name: str, held: Scale) -> None:
    if not 0 < held.scale < float("inf") or float(np.float32(held.scale)) != held.scale:
        raise GraphError(f"{name}: scale {held.scale!r} must be a positive float32 value")
    if not -128 <= held.zero_point <= 127:
        raise GraphError(f"{name}: zero point {held.zero_point} is not within -128..127")


def load_integer_model(path: Path) -> IntegerModel:
    """Raises RunError for a file that is missing, torn or not such a model."""
    try:
        return IntegerModel.from_bytes(path.read_bytes())
    except Exception as error:  # a torn archive raises whatever its damage leads to
        raise RunError(
            f"{path}: not a trained model ({error}); export the candidate again"
        ) from None
