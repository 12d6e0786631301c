"""Branches of feature vectors: one or two fully connected layers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas.network.ops import Op, Shape
from nas.space import Sensor, Trial
from search_spaces.branches import BITS, Kind, Start, choose_bits, choose_int, dense, nearest

UNITS = (6, 8, 12, 16, 24, 32, 48, 64)
START_FEATURES = 24


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """One fully connected layer with ReLU."""

    units: int
    weight_bits: int


@dataclass(frozen=True, slots=True)
class VectorBranch:
    """A feature vector: fully connected layers."""

    sensor: str
    shape: Shape
    layers: tuple[DenseLayer, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse_vector` is its inverse."""
        return {**asdict(self), "branch": "vector", "shape": list(self.shape)}

    def lower(self, ops: list[Op]) -> tuple[str, int]:
        """Appends the operators; name and length of the feature vector."""
        source, units = self.sensor, self.shape[2]
        for i, layer in enumerate(self.layers):
            source = dense(ops, f"{self.sensor}_fc{i}", source, layer.units, layer.weight_bits)
            units = layer.units
        return source, units


def sample_vector(trial: Trial, prefix: str, sensor: Sensor, features: int | None) -> VectorBranch:
    """Draws a branch; given `features` are the units of its last layer."""
    depth = trial.suggest_int(f"{prefix}.depth", 1, 2)
    drawn = [
        DenseLayer(
            choose_int(trial, f"{prefix}.units.{i}", UNITS),
            choose_bits(trial, f"{prefix}.bits.{i}"),
        )
        for i in range(2)
    ]
    layers = drawn[:depth]
    if features is not None:
        layers[-1] = DenseLayer(features, layers[-1].weight_bits)
    return VectorBranch(sensor.name, sensor.shape, tuple(layers))


def start_vector(sensor: Sensor, start: Start, embedding: int) -> dict[str, int | str]:
    """Two layers."""
    genes: dict[str, int | str] = {"depth": 2}
    for i, units in enumerate((min(UNITS[-1], 6 * start.width), embedding or START_FEATURES)):
        genes[f"units.{i}"] = nearest(UNITS, units)
        genes[f"bits.{i}"] = BITS.index(start.bits)
    return genes


def parse_vector(document: Mapping[str, Any]) -> VectorBranch:
    """Reads what `to_json` wrote; KeyError or TypeError for other keys."""
    values = {k: v for k, v in document.items() if k not in ("branch", "layers", "shape")}
    layers = tuple(DenseLayer(**layer) for layer in document["layers"])
    return VectorBranch(shape=tuple(document["shape"]), layers=layers, **values)


VECTOR = Kind(("vector",), sample_vector, start_vector)
