"""What the engine asks of a search space, and what a space may know of the data.

A space turns a trial into an `Architecture`: plain, frozen data that lowers to a `Graph`. The
engine never sees the genes. Names and choices of a trial must not depend on earlier draws (Optuna's
samplers model a fixed set of parameters), so a space draws every gene of every sensor and leaves
out of the architecture what has no effect; two trials with equal architectures then have one id and
are trained once.
"""

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from nas.data.task import Task
from nas.errors import SpaceError
from nas.network.graph import Graph
from nas.network.ops import Shape

SensorKind: TypeAlias = Literal["series", "image", "vector"]

Genes: TypeAlias = Mapping[str, int | str]  # name of a gene -> what a trial draws for it


class Trial(Protocol):
    """The two methods of an Optuna trial that a space uses; ordered genes are integers."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


class RandomTrial:
    """A trial of random genes, or of each gene's first choice with `lowest`."""

    def __init__(self, rng: random.Random, lowest: bool = False) -> None:
        self._rng, self._lowest = rng, lowest

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A uniform draw from low to high, both included."""
        return low if self._lowest else self._rng.randint(low, high)

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """A uniform draw."""
        return choices[0] if self._lowest else self._rng.choice(choices)


class FixedTrial:
    """A trial whose genes are given.

    Raises:
        SpaceError: a gene that is not given, or a value that it cannot take.
    """

    def __init__(self, genes: Genes) -> None:
        self._genes = genes

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """The given integer."""
        value = self._genes.get(name)
        if not isinstance(value, int) or not low <= value <= high:
            raise SpaceError(f"gene {name} is {value!r}; it must be an integer {low}..{high}")
        return value

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """The given choice."""
        value = self._genes.get(name)
        if value not in choices:
            raise SpaceError(f"gene {name} is {value!r}; it must be one of {', '.join(choices)}")
        return str(value)


@dataclass(frozen=True, slots=True)
class Sensor:
    """One modality: its kind and its (height, width, channels) as the graph takes it."""

    name: str
    kind: SensorKind
    shape: Shape


@dataclass(frozen=True, slots=True)
class Problem:
    """All that an architecture depends on besides the trial."""

    sensors: tuple[Sensor, ...]
    classes: int


def problem_of(task: Task) -> Problem:
    """What a search space may know of a task."""
    sensors = tuple(Sensor(m.name, m.kind, m.graph_shape) for m in task.modalities)
    return Problem(sensors, task.classes)


class Architecture(Protocol):
    """A point of a search space: frozen, comparable, JSON both ways."""

    def to_json(self) -> dict[str, Any]: ...

    def lower(self) -> Graph: ...


def no_starts(problem: Problem) -> Sequence[Genes]:
    """For a space that knows no good networks beforehand."""
    return ()


@dataclass(frozen=True, slots=True)
class Space:
    """A search space by name: how to draw an architecture and how to read one back.

    `parse` raises SpaceError for a document that is not of this space. `starts` gives the genes of
    the networks with which a search begins: what is known to be good before anything was trained.
    `file` and the SHA-256 of its content are those of a user's space; it is
    `own_space.load_space_file` that sets them.
    """

    name: str
    summary: str
    sample: Callable[[Trial, Problem], Architecture]
    parse: Callable[[Mapping[str, Any]], Architecture]
    starts: Callable[[Problem], Sequence[Genes]] = no_starts
    file: Path | None = None
    file_hash: str | None = None


def architecture_id(architecture: Architecture) -> str:
    """`c` and 12 hex digits of the hash of the canonical JSON."""
    text = json.dumps(architecture.to_json(), sort_keys=True, separators=(",", ":"))
    return "c" + hashlib.sha256(text.encode()).hexdigest()[:12]
