"""The multimodal student: a branch per sensor that is on, a fusion, a head.

Fusions: `concat` puts the branches' features side by side; `add` sums embeddings of one width;
`gate` multiplies the concatenated features by a sigmoid of a linear layer of themselves, so that a
sensor that tells nothing can be turned down sample by sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from nas.errors import SpaceError
from nas.network.graph import Graph, Input
from nas.network.ops import Add, Concat, Mul, Op, Reshape, Table
from nas.space import Genes, Problem, Trial
from search_spaces.convolutional import (
    BITS,
    Branch,
    ConvBranch,
    ConvLayer,
    DenseLayer,
    Downsample,
    Readout,
    VectorBranch,
    branch_features,
    choose,
    choose_bits,
    dense,
    lower_branch,
    sample_branch,
    start_branch,
)

Fusion: TypeAlias = Literal["none", "concat", "add", "gate"]

HIDDEN = (0, 8, 12, 16, 24, 32, 48)
ADD_WIDTHS = (8, 12, 16, 24, 32)


@dataclass(frozen=True, slots=True)
class MultimodalStudent:
    """One point of the space; `gate_bits` and `hidden_bits` are 0 where there is no such layer."""

    branches: tuple[Branch, ...]
    fusion: Fusion
    gate_bits: int
    hidden: int
    hidden_bits: int
    output_bits: int
    classes: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse` is its inverse."""
        document = asdict(self)
        for branch, plain in zip(self.branches, document["branches"], strict=True):
            plain["branch"] = "conv" if isinstance(branch, ConvBranch) else "vector"
            plain["shape"] = list(plain["shape"])
        return {"space": "conv", **document}

    def lower(self) -> Graph:
        """The graph of this student."""
        ops: list[Op] = []
        features = [lower_branch(ops, branch) for branch in self.branches]
        fused = self._fuse(ops, features)
        if self.hidden:
            fused = dense(ops, "head_hidden", fused, self.hidden, self.hidden_bits)
        fused = dense(ops, "head_output", fused, self.classes, self.output_bits, relu=False)
        ops.append(Reshape("logits", (fused,), (self.classes,)))
        inputs = tuple(Input(branch.sensor, branch.shape) for branch in self.branches)
        return Graph(inputs, tuple(ops), "logits")

    def _fuse(self, ops: list[Op], features: list[str]) -> str:
        if self.fusion == "none":
            return features[0]
        if self.fusion == "add":
            total = features[0]
            for i, other in enumerate(features[1:], 1):
                ops.append(Add(f"fusion_add{i}", (total, other), relu=False))
                total = f"fusion_add{i}"
            return total
        ops.append(Concat("fusion_concat", tuple(features)))
        if self.fusion == "concat":
            return "fusion_concat"
        width = sum(branch_features(branch) for branch in self.branches)
        logits = dense(ops, "fusion_gate", "fusion_concat", width, self.gate_bits, relu=False)
        ops.append(Table("fusion_sigmoid", (logits,), "sigmoid"))
        ops.append(Mul("fusion_gated", ("fusion_concat", "fusion_sigmoid")))
        return "fusion_gated"


def sample(trial: Trial, problem: Problem) -> MultimodalStudent:
    """Draws every gene; what has no effect is left out of the architecture.

    A sensor is on in two of three draws. When a trial turns every sensor off, all are on, so that
    every draw is valid.
    """
    fusion = trial.suggest_categorical("fusion", ("concat", "add", "gate"))
    add_width = int(choose(trial, "fusion.width", ADD_WIDTHS))
    gate_bits = choose_bits(trial, "fusion.gate_bits")
    on = [trial.suggest_int(f"{s.name}.on", 0, 2) > 0 for s in problem.sensors]
    used = on if any(on) else [True] * len(on)
    if sum(used) == 1:
        fusion = "none"
    width = add_width if fusion == "add" else None
    branches = [sample_branch(trial, s, width) for s in problem.sensors]
    hidden = int(choose(trial, "head.hidden", HIDDEN))
    hidden_bits = choose_bits(trial, "head.hidden_bits")
    return MultimodalStudent(
        tuple(branch for branch, keep in zip(branches, used, strict=True) if keep),
        fusion,  # type: ignore[arg-type]
        gate_bits if fusion == "gate" else 0,
        hidden,
        hidden_bits if hidden else 0,
        choose_bits(trial, "head.output_bits"),
        problem.classes,
    )


# Width, bits, downsampling and readout of the networks with which a search begins, the most useful
# first: a small and a middling one at 4 bits, the same with strides, a large one, both ends of the
# bits.
STARTS: tuple[tuple[int, int, Downsample, Readout], ...] = (
    (8, 4, "average", "mean"),
    (4, 4, "average", "mean"),
    (8, 4, "stride", "mean"),
    (12, 4, "average", "grid"),
    (8, 8, "average", "mean"),
    (6, 2, "average", "mean"),
    (4, 2, "stride", "mean"),
)


def starts(problem: Problem) -> list[Genes]:
    """Genes of good networks of several sizes, then of one of them on some of the sensors.

    First without each one in turn, then, of three and more, with each one alone.
    """
    names = [sensor.name for sensor in problem.sensors]
    found = [_start(problem, names, *start) for start in STARTS]
    some = [[name for name in names if name != left_out] for left_out in names]
    some += [[name] for name in names] if len(names) > 2 else []
    found += [_start(problem, used, *STARTS[0]) for used in some if used]
    return found


def _start(
    problem: Problem,
    used: Sequence[str],
    width: int,
    bits: int,
    downsample: Downsample,
    readout: Readout,
) -> Genes:
    genes: dict[str, int | str] = {
        "fusion": "concat",
        "fusion.width": 0,
        "fusion.gate_bits": BITS.index(8),
        "head.hidden": HIDDEN.index(32 if width > 4 else 16),
        "head.hidden_bits": BITS.index(bits),
        "head.output_bits": BITS.index(8),
    }
    vectors = any(sensor.kind == "vector" for sensor in problem.sensors)
    for sensor in problem.sensors:
        genes[f"{sensor.name}.on"] = 1 if sensor.name in used else 0
        genes |= start_branch(sensor, width, bits, 24 if vectors else 0, downsample, readout)
    return genes


def parse(document: Mapping[str, Any]) -> MultimodalStudent:
    """Reads what `to_json` wrote.

    Raises:
        SpaceError: an unknown or missing key, another space, an unknown fusion or readout.
    """
    try:
        _known(document, "space", ("conv",))
        if not document["branches"]:
            raise SpaceError("an architecture has at least one branch")
        alone = len(document["branches"]) == 1
        _known(document, "fusion", ("none",) if alone else get_args(Fusion)[1:])
        values = {k: v for k, v in document.items() if k not in ("space", "branches")}
        branches = tuple(_parse_branch(b) for b in document["branches"])
        return MultimodalStudent(branches=branches, **values)
    except (AttributeError, KeyError, TypeError) as error:
        raise SpaceError(
            f"not an architecture of the space 'conv': {error}; see architecture.json of a run"
        ) from None


def _parse_branch(document: Mapping[str, Any]) -> Branch:
    values = {k: v for k, v in document.items() if k not in ("branch", "layers", "shape")}
    shape = tuple(document["shape"])
    _known(document, "branch", ("conv", "vector"))
    if document["branch"] == "conv":
        _known(document, "downsample", get_args(Downsample))
        _known(document, "readout", get_args(Readout))
        layers = tuple(ConvLayer(**layer) for layer in document["layers"])
        return ConvBranch(shape=shape, layers=layers, **values)
    units = tuple(DenseLayer(**layer) for layer in document["layers"])
    return VectorBranch(shape=shape, layers=units, **values)


def _known(document: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> None:
    if document[key] not in choices:
        raise SpaceError(f"{key} {document[key]!r} is not one of {', '.join(choices)}")
