"""The multimodal student: a branch per sensor that is on, a fusion, a head.

Fusions: `concat` puts the branches' features side by side; `add` sums embeddings of one width;
`gate` multiplies the concatenated features by a sigmoid of a linear layer of themselves, so that a
sensor that tells nothing can be turned down sample by sample; `attention` takes the embeddings as
one token each and lets the sensors look at each other.

A `Family` is one search space of such students: which kinds of branch a sensor may have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from nas.errors import SpaceError
from nas.network.graph import Graph, Input
from nas.network.ops import Add, Concat, Mul, Op, Reshape, Table
from nas.space import Genes, Problem, Sensor, SensorKind, Trial
from search_spaces.branches import (
    BITS,
    Branch,
    Kind,
    Start,
    choose_bits,
    choose_int,
    dense,
    known,
)
from search_spaces.convolutional import parse_conv
from search_spaces.mamba import parse_mamba
from search_spaces.transformer import HEADS, attend, parse_transformer
from search_spaces.vector import START_FEATURES, parse_vector

Fusion: TypeAlias = Literal["none", "concat", "add", "gate", "attention"]

HIDDEN = (0, 8, 12, 16, 24, 32, 48)
FUSION_WIDTHS = (8, 12, 16, 24, 32)

PARSERS: dict[str, Callable[[Mapping[str, Any]], Branch]] = {
    "conv": parse_conv,
    "causal": parse_conv,
    "vector": parse_vector,
    "transformer": parse_transformer,
    "mamba": parse_mamba,
}
"""The word of a branch in a file -> its reader."""


@dataclass(frozen=True, slots=True)
class SensorAttention:
    """The attention between sensors: one residual block on one token a sensor."""

    heads: int
    weight_bits: int


@dataclass(frozen=True, slots=True)
class MultimodalStudent:
    """One point of a family.

    `gate_bits` and `hidden_bits` are 0 and `attention` is None where there is no such layer.
    """

    space: str
    branches: tuple[Branch, ...]
    fusion: Fusion
    gate_bits: int
    hidden: int
    hidden_bits: int
    output_bits: int
    classes: int
    attention: SensorAttention | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse` is its inverse. The key `attention` goes with that fusion."""
        held = {name: getattr(self, name) for name in self.__slots__}
        held["branches"] = [branch.to_json() for branch in self.branches]
        if self.attention is None:
            del held["attention"]
        else:
            held["attention"] = asdict(self.attention)
        return held

    def lower(self) -> Graph:
        """The graph of this student."""
        ops: list[Op] = []
        features = [branch.lower(ops) for branch in self.branches]
        fused = self._fuse(ops, [name for name, _ in features], [width for _, width in features])
        if self.hidden:
            fused = dense(ops, "head_hidden", fused, self.hidden, self.hidden_bits)
        fused = dense(ops, "head_output", fused, self.classes, self.output_bits, relu=False)
        ops.append(Reshape("logits", (fused,), (self.classes,)))
        inputs = tuple(Input(branch.sensor, branch.shape) for branch in self.branches)
        return Graph(inputs, tuple(ops), "logits")

    def _fuse(self, ops: list[Op], features: list[str], widths: list[int]) -> str:
        if self.fusion == "none":
            return features[0]
        if self.fusion == "add":
            total = features[0]
            for i, other in enumerate(features[1:], 1):
                ops.append(Add(f"fusion_add{i}", (total, other), relu=False))
                total = f"fusion_add{i}"
            return total
        ops.append(Concat("fusion_concat", tuple(features)))
        if self.fusion == "gate":
            logits = dense(
                ops, "fusion_gate", "fusion_concat", sum(widths), self.gate_bits, relu=False
            )
            ops.append(Table("fusion_sigmoid", (logits,), "sigmoid"))
            ops.append(Mul("fusion_gated", ("fusion_concat", "fusion_sigmoid")))
            return "fusion_gated"
        if self.attention is None:
            return "fusion_concat"
        heads, bits = self.attention.heads, self.attention.weight_bits
        ops.append(Reshape("fusion_tokens", ("fusion_concat",), (1, len(widths), widths[0])))
        attended = attend(ops, "fusion", "fusion_tokens", widths[0], heads, bits)
        ops.append(Reshape("fusion_vector", (attended,), (1, 1, sum(widths))))
        return "fusion_vector"


@dataclass(frozen=True, slots=True)
class Family:
    """One search space of multimodal students.

    Attributes:
        name: of the space.
        kinds: for each kind of sensor, the kinds of branch that it may have, by the word of the
            gene that chooses; where there is one only, there is no such gene.
        fusions: the choices of that gene.
        starts: the networks with which a search begins, the most useful first: the kind of their
            branches and their size. The first one is also tried on some of the sensors.
    """

    name: str
    kinds: Mapping[SensorKind, Mapping[str, Kind]]
    fusions: tuple[str, ...]
    starts: tuple[tuple[str, Start], ...]

    @property
    def words(self) -> tuple[str, ...]:
        """What a branch may be called in a file."""
        rows = [kind for choices in self.kinds.values() for kind in choices.values()]
        return tuple(dict.fromkeys(word for kind in rows for word in kind.words))


def sample(family: Family, trial: Trial, problem: Problem) -> MultimodalStudent:
    """Draws every gene; what has no effect is left out of the architecture.

    A sensor is on in two of three draws. When a trial turns every sensor off, all are on, so that
    every draw is valid.
    """
    fusion = trial.suggest_categorical("fusion", family.fusions)
    drawn_width = choose_int(trial, "fusion.width", FUSION_WIDTHS)
    gate_bits = choose_bits(trial, "fusion.gate_bits")
    attention = None
    if "attention" in family.fusions:
        heads = choose_int(trial, "fusion.heads", HEADS)
        attention = SensorAttention(heads, choose_bits(trial, "fusion.attention_bits"))
    on = [trial.suggest_int(f"{s.name}.on", 0, 2) > 0 for s in problem.sensors]
    used = on if any(on) else [True] * len(on)
    if sum(used) == 1:
        fusion = "none"
    width = drawn_width if fusion in ("add", "attention") else None
    branches = [_sample_branch(family, trial, s, width) for s in problem.sensors]
    hidden = choose_int(trial, "head.hidden", HIDDEN)
    hidden_bits = choose_bits(trial, "head.hidden_bits")
    return MultimodalStudent(
        family.name,
        tuple(branch for branch, keep in zip(branches, used, strict=True) if keep),
        fusion,  # type: ignore[arg-type]
        gate_bits if fusion == "gate" else 0,
        hidden,
        hidden_bits if hidden else 0,
        choose_bits(trial, "head.output_bits"),
        problem.classes,
        attention if fusion == "attention" else None,
    )


def _prefixes(family: Family, sensor: Sensor) -> dict[str, str]:
    """Kind of branch -> what the names of its genes begin with."""
    words = family.kinds[sensor.kind]
    return {word: f"{sensor.name}.{word}" if len(words) > 1 else sensor.name for word in words}


def _sample_branch(family: Family, trial: Trial, sensor: Sensor, width: int | None) -> Branch:
    """Draws the genes of every kind of branch, and which of them the sensor has."""
    kinds = family.kinds[sensor.kind]
    drawn = {
        word: kinds[word].sample(trial, prefix, sensor, width)
        for word, prefix in _prefixes(family, sensor).items()
    }
    if len(drawn) == 1:
        return next(iter(drawn.values()))
    return drawn[trial.suggest_categorical(f"{sensor.name}.kind", tuple(drawn))]


def starts(family: Family, problem: Problem) -> list[Genes]:
    """Genes of good networks of several sizes, then of one of them on some of the sensors.

    First without each one in turn, then, of three and more, with each one alone.
    """
    names = [sensor.name for sensor in problem.sensors]
    found = [_start(family, problem, names, *start) for start in family.starts]
    some = [[name for name in names if name != left_out] for left_out in names]
    some += [[name] for name in names] if len(names) > 2 else []
    found += [_start(family, problem, used, *family.starts[0]) for used in some if used]
    return found


def _start(family: Family, problem: Problem, used: Sequence[str], kind: str, start: Start) -> Genes:
    genes: dict[str, int | str] = {
        "fusion": "concat",
        "fusion.width": 0,
        "fusion.gate_bits": BITS.index(8),
        "head.hidden": HIDDEN.index(start.hidden),
        "head.hidden_bits": BITS.index(start.bits),
        "head.output_bits": BITS.index(8),
    }
    if "attention" in family.fusions:
        genes |= {"fusion.heads": 0, "fusion.attention_bits": BITS.index(start.bits)}
    kinds_of_sensors = {sensor.kind for sensor in problem.sensors}
    embedding = START_FEATURES if "vector" in kinds_of_sensors else 0
    for sensor in problem.sensors:
        genes[f"{sensor.name}.on"] = 1 if sensor.name in used else 0
        kinds = family.kinds[sensor.kind]
        for word, prefix in _prefixes(family, sensor).items():
            held = kinds[word].start(sensor, start, embedding)
            genes |= {f"{prefix}.{name}": value for name, value in held.items()}
        if len(kinds) > 1:
            # Beside a series an image keeps its convolutions.
            mixed = sensor.kind == "image" and "series" in kinds_of_sensors
            genes[f"{sensor.name}.kind"] = next(iter(kinds)) if mixed else kind
    return genes


def parse(family: Family, document: Mapping[str, Any]) -> MultimodalStudent:
    """Reads what `to_json` wrote.

    Raises:
        SpaceError: an unknown or missing key, another space, an unknown fusion, branch or readout.
    """
    try:
        known(document, "space", (family.name,))
        if not document["branches"]:
            raise SpaceError("an architecture has at least one branch")
        alone = len(document["branches"]) == 1
        known(document, "fusion", ("none",) if alone else family.fusions)
        values = {k: v for k, v in document.items() if k not in ("branches", "attention")}
        held = document["attention"] if document["fusion"] == "attention" else None
        if held is None and "attention" in document:
            raise KeyError("attention")
        attention = None if held is None else SensorAttention(**held)
        branches = []
        for branch in document["branches"]:
            known(branch, "branch", family.words)
            branches.append(PARSERS[branch["branch"]](branch))
        return MultimodalStudent(branches=tuple(branches), attention=attention, **values)
    except (AttributeError, KeyError, TypeError) as error:
        raise SpaceError(
            f"not an architecture of the space {family.name!r}: {error}; see architecture.json of"
            " a run"
        ) from None
