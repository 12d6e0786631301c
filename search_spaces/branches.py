"""What every kind of branch shares: its contract, ordered genes, dense layers, decimation, readout.

A branch takes one sensor to one feature vector (1, 1, features). Genes are named from a prefix on,
so that a space may draw branches of several kinds for one sensor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from nas.errors import SpaceError
from nas.network.ops import Conv2d, LastStep, Op, Pair, Pool, Shape
from nas.space import Sensor, Trial

BITS = (2, 4, 8)
DECIMATIONS = (1, 2, 4)
SHORTEST_AXIS = 8  # decimation leaves at least this many steps or pixels
LONGEST_AXIS = 64  # beyond it a start decimates its input


class Branch(Protocol):
    """One sensor's part of a network: frozen, comparable, JSON."""

    @property
    def sensor(self) -> str: ...

    @property
    def shape(self) -> Shape: ...

    def to_json(self) -> dict[str, Any]: ...

    def lower(self, ops: list[Op]) -> tuple[str, int]: ...


AnyBranch = TypeVar("AnyBranch", bound=Branch)


@dataclass(frozen=True, slots=True)
class Start:
    """The size of a network with which a search begins; a kind of branch takes what it knows.

    Attributes:
        width: channels of the stem, or of every step.
        bits: of all weights but those of stem and output, which have 8.
        readout: `mean`, `grid` or `last`; a kind that lacks it takes `mean`.
        downsample: how a convolutional branch halves its map.
        expansion: inner channels of a Mamba block, as a multiple of `width`.
        hidden: units of the head's hidden layer.
    """

    width: int
    bits: int
    readout: str = "mean"
    downsample: str = "average"
    expansion: int = 1
    hidden: int = 32


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of branch.

    Attributes:
        words: the names under which files know it.
        sample: draws every gene of a sensor's branch, their names beginning with the given prefix;
            given features replace the drawn embedding.
        start: the genes, without prefix, of a branch of a given size. Beside a feature vector, all
            branches that choose it get an embedding of as many units as the last argument says.
    """

    words: tuple[str, ...]
    sample: Callable[[Trial, str, Sensor, int | None], Branch]
    start: Callable[[Sensor, Start, int], dict[str, int | str]]


def choose(trial: Trial, name: str, choices: tuple[int, ...] | tuple[float, ...]) -> float:
    """An ordered gene: Optuna sees the index, so that it can use the order."""
    return choices[trial.suggest_int(name, 0, len(choices) - 1)]


def choose_int(trial: Trial, name: str, choices: tuple[int, ...]) -> int:
    """An ordered gene of integers."""
    return int(choose(trial, name, choices))


def choose_bits(trial: Trial, name: str) -> int:
    """The bit-width gene of one layer."""
    return choose_int(trial, name, BITS)


def nearest(choices: tuple[int, ...], value: int) -> int:
    """Index of the choice nearest to `value`."""
    return min(range(len(choices)), key=lambda i: abs(choices[i] - value))


def known(document: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> None:
    """Raises SpaceError for a word that is not one of the choices."""
    if document[key] not in choices:
        raise SpaceError(f"{key} {document[key]!r} is not one of {', '.join(choices)}")


def decimations(sensor: Sensor) -> tuple[int, ...]:
    """The factors by which a sensor's input may be averaged down."""
    shortest = min((n for n in sensor.shape[:2] if n > 1), default=1)
    return tuple(f for f in DECIMATIONS if f == 1 or shortest // f >= SHORTEST_AXIS)


def start_decimation(sensor: Sensor) -> int:
    """Index of the smallest factor that leaves no axis longer than `LONGEST_AXIS`, or the last."""
    longest, factors = max(sensor.shape[:2]), decimations(sensor)
    enough = [i for i, f in enumerate(factors) if longest // f <= LONGEST_AXIS]
    return enough[0] if enough else len(factors) - 1


def if_equal(branch: AnyBranch, simpler: AnyBranch) -> AnyBranch:
    """`simpler` if it is the same network."""
    ops: tuple[list[Op], list[Op]] = ([], [])
    branch.lower(ops[0])
    simpler.lower(ops[1])
    return simpler if ops[0] == ops[1] else branch


def dense(ops: list[Op], name: str, source: str, units: int, bits: int, relu: bool = True) -> str:
    """Appends a fully connected layer, at every step of a series: a 1x1 convolution."""
    ops.append(Conv2d(name, (source,), units, (1, 1), (1, 1), "valid", bits, relu))
    return name


def window(
    ops: list[Op],
    name: str,
    source: str,
    shape: Shape,
    factor: int,
    function: Literal["average", "max"],
) -> tuple[str, Shape]:
    """A pool that divides each axis longer than one by `factor`; none if no axis is."""
    kernel: Pair = (min(factor, shape[0]), min(factor, shape[1]))
    if kernel == (1, 1):
        return source, shape
    ops.append(Pool(name, (source,), function, kernel, kernel))
    return name, (shape[0] // kernel[0], shape[1] // kernel[1], shape[2])


def decimate(ops: list[Op], sensor: str, shape: Shape, factor: int) -> tuple[str, Shape]:
    """What a branch reads of its sensor: means over windows of `factor`, or all where it is 1."""
    if factor == 1:
        return sensor, shape
    return window(ops, f"{sensor}_decimate", sensor, shape, factor, "average")


def embed(
    ops: list[Op], sensor: str, source: str, features: int, units: int, bits: int
) -> tuple[str, int]:
    """Name and length of a branch's feature vector: an embedding of `units`, or as it is with 0."""
    if not units:
        return source, features
    return dense(ops, f"{sensor}_embedding", source, units, bits), units


StepReadout: TypeAlias = Literal["mean", "last"]


def read_steps(ops: list[Op], name: str, source: str, steps: int, readout: StepReadout) -> str:
    """Appends the mean over the steps of a series, or its last one; nothing for a single step."""
    if steps == 1:
        return source
    if readout == "last":
        ops.append(LastStep(name, (source,)))
    else:
        ops.append(Pool(name, (source,), "average", (1, steps), (1, steps)))
    return name
