"""A search space of your own: one strided convolution a sensor, a hidden layer, bits per layer.

    python run_search.py --task watch --space examples/own_space.py --trials 20

A space is two functions: `sample` draws an architecture from a trial, `parse` reads one back from
the JSON that it wrote. An architecture lowers to a `Graph` of operators (nas/network/ops.py has
them all); the engine does the rest: cost, memory plan, training, export. Checked before a search
starts:

- draw every gene in every trial, with the same choices; leave out what has no effect afterwards
- the architecture depends on the trial and the problem only, and survives to_json and parse
- the network's inputs are sensors of the data, its output is (classes,) logits
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas.errors import SpaceError
from nas.network.graph import Graph, Input
from nas.network.ops import Concat, Conv2d, Op, Pool, Reshape, Shape
from nas.space import Problem, Space, Trial

CHANNELS = (4, 8, 12, 16, 24)
BITS = (2, 4, 8)
HIDDEN = (8, 16, 32)


@dataclass(frozen=True)
class Stem:
    """One sensor: a convolution over time or space, then the mean of what it finds."""

    sensor: str
    shape: Shape  # height, width, channels
    channels: int
    kernel: int
    bits: int


@dataclass(frozen=True)
class Student:
    """A stem for each sensor, then two fully connected layers."""

    stems: tuple[Stem, ...]
    hidden: int
    hidden_bits: int
    classes: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; `space` is the name below."""
        return {"space": "stems", **asdict(self)}

    def lower(self) -> Graph:
        """The operators, in order; tensors are known by the name of what computes them."""
        ops: list[Op] = []
        features = []
        for stem in self.stems:
            name, (height, width, _) = stem.sensor, stem.shape
            kernel = (min(stem.kernel, height), min(stem.kernel, width))
            stride = (min(2, height), min(2, width))
            conv = Conv2d(
                f"{name}_conv", (name,), stem.channels, kernel, stride, "same", stem.bits, True
            )
            rest = (-(-height // stride[0]), -(-width // stride[1]))
            ops.append(conv)
            features.append(conv.name)
            if rest != (1, 1):  # a vector is one position already
                ops.append(Pool(f"{name}_mean", (conv.name,), "average", rest, rest))
                features[-1] = f"{name}_mean"
        fused = features[0]
        if len(features) > 1:
            fused = "fusion"
            ops.append(Concat(fused, tuple(features)))
        one = (1, 1)
        ops.append(
            Conv2d("hidden", (fused,), self.hidden, one, one, "valid", self.hidden_bits, True)
        )
        ops.append(Conv2d("output", ("hidden",), self.classes, one, one, "valid", 8, False))
        ops.append(Reshape("logits", ("output",), (self.classes,)))
        return Graph(tuple(Input(s.sensor, s.shape) for s in self.stems), tuple(ops), "logits")


def sample(trial: Trial, problem: Problem) -> Student:
    """Ordered choices are drawn by their index, so that a sampler can use the order."""

    def choose(name: str, choices: tuple[int, ...]) -> int:
        return choices[trial.suggest_int(name, 0, len(choices) - 1)]

    stems = tuple(
        Stem(
            sensor.name,
            sensor.shape,
            choose(f"{sensor.name}.channels", CHANNELS),
            choose(f"{sensor.name}.kernel", (3, 5, 7)) if sensor.kind != "vector" else 1,
            choose(f"{sensor.name}.bits", BITS),
        )
        for sensor in problem.sensors
    )
    return Student(stems, choose("hidden", HIDDEN), choose("hidden.bits", BITS), problem.classes)


def parse(document: Mapping[str, Any]) -> Student:
    """The inverse of `to_json`."""
    try:
        stems = tuple(Stem(**{**stem, "shape": tuple(stem["shape"])}) for stem in document["stems"])
        values = {key: document[key] for key in ("hidden", "hidden_bits", "classes")}
    except (KeyError, TypeError) as error:
        raise SpaceError(f"not an architecture of the space 'stems': {error}") from None
    return Student(stems, **values)


SPACE = Space("stems", "one convolution a sensor and a hidden layer", sample, parse)
