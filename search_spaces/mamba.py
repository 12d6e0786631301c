"""Mamba branches: a causal stem, then gated selective state-space blocks.

On a series every operator is causal and every stride divides the length, so a network of such
branches can run one reading at a time. An image is read row by row: a row's pixels are the channels
of a step, as the bands of a spectrogram are.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from nas.network.ops import (
    Add,
    Conv2d,
    DepthwiseConv2d,
    Op,
    Padding,
    Reshape,
    SelectiveScan,
    Shape,
    Table,
    TableFunction,
    size,
)
from nas.space import Sensor, Trial
from search_spaces.branches import (
    BITS,
    Kind,
    Start,
    StepReadout,
    choose_bits,
    choose_int,
    decimate,
    decimations,
    dense,
    embed,
    known,
    nearest,
    read_steps,
    start_decimation,
)

STRIDES = (1, 2, 3, 4, 5)  # of which a sensor has those that divide its length
SHORTEST = 4  # a stride leaves at least this many steps
KERNELS = (3, 5, 7)
WIDTHS = (8, 12, 16, 20, 24, 32, 40)
STATES = (2, 4, 8)
EXPANSIONS = (1, 2)
FILTERS = (2, 3, 4)
RANKS = (1, 2, 4)
MAX_DEPTH = 3
START_STEPS = 32  # a start's stride leaves no more


@dataclass(frozen=True, slots=True)
class MambaBranch:
    """Decimation, causal stem, blocks, readout; embedding of 0 units: none.

    Attributes:
        expansion: inner channels of a block, as a multiple of `width`.
        filter: width of the causal depthwise convolution in a block.
        rank: of the map from inner channels to the step sizes.
        bits: weights into, between and out of the blocks' wide layers; what makes step sizes and
            the state's inputs and outputs has 8.
    """

    sensor: str
    shape: Shape
    decimation: int
    stride: int
    kernel: int
    width: int
    depth: int
    states: int
    expansion: int
    filter: int
    rank: int
    readout: StepReadout
    stem_bits: int
    bits: int
    embedding: int
    embedding_bits: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse_mamba` is its inverse."""
        return {**asdict(self), "branch": "mamba", "shape": list(self.shape)}

    def lower(self, ops: list[Op]) -> tuple[str, int]:
        """Appends the operators; name and length of the feature vector."""
        name = self.sensor
        source, shape = decimate(ops, name, self.shape, self.decimation)
        if shape[0] > 1:
            shape = (1, shape[0], size(shape[1:]))
            ops.append(Reshape(f"{name}_rows", (source,), shape))
            source = f"{name}_rows"
        kernel, stride = (1, self.kernel), (1, self.stride)
        padding: Padding = "causal" if self.kernel > 1 else "valid"
        stem = f"{name}_stem"
        ops.append(
            Conv2d(stem, (source,), self.width, kernel, stride, padding, self.stem_bits, False)
        )
        source, steps = stem, shape[1] // self.stride
        for i in range(self.depth):
            source = self._block(ops, f"{name}_block{i}", source, steps)
        source = read_steps(ops, f"{name}_readout", source, steps, self.readout)
        return embed(ops, name, source, self.width, self.embedding, self.embedding_bits)

    def _block(self, ops: list[Op], name: str, source: str, steps: int) -> str:
        """One block around a residual: (1, steps, width) in and out."""

        def linear(part: str, x: str, channels: int, bits: int) -> str:
            return dense(ops, f"{name}_{part}", x, channels, bits, relu=False)

        def table(x: str, function: TableFunction) -> str:
            ops.append(Table(f"{x}_{function}", (x,), function))
            return f"{x}_{function}"

        inner = self.expansion * self.width
        z = table(linear("gate", source, inner, self.bits), "silu")
        u = linear("in", source, inner, self.bits)
        kernel = (1, min(self.filter, steps))
        padding: Padding = "causal" if kernel[1] > 1 else "valid"
        ops.append(DepthwiseConv2d(f"{name}_filter", (u,), kernel, (1, 1), padding, 8, False))
        u = table(f"{name}_filter", "silu")
        dt = linear("step", linear("rank", u, self.rank, 8), inner, 8)
        b, c = (table(linear(part, u, self.states, 8), "tanh") for part in ("write", "read"))
        ops.append(SelectiveScan(f"{name}_scan", (u, dt, b, c, z), carry=False))
        out = linear("out", f"{name}_scan", self.width, self.bits)
        ops.append(Add(f"{name}_sum", (source, out), relu=False))
        return f"{name}_sum"


def _steps(shape: Shape) -> int:
    """Steps of a sensor: of a series its length, of an image its rows."""
    return shape[0] if shape[0] > 1 else shape[1]


def _strides(steps: int) -> tuple[int, ...]:
    """Strides that divide a length, so that every step of it counts in the last output."""
    return tuple(s for s in STRIDES if s == 1 or (steps % s == 0 and steps // s >= SHORTEST))


def _decimations(sensor: Sensor) -> tuple[int, ...]:
    """Of a series, the factors that divide its length; of an image, as of convolutions."""
    factors = decimations(sensor)
    if sensor.shape[0] > 1:
        return factors
    return tuple(f for f in factors if sensor.shape[1] % f == 0)


def sample_mamba(trial: Trial, prefix: str, sensor: Sensor, features: int | None) -> MambaBranch:
    """Draws a branch; given `features` are its embedding, or its width where that is the same.

    A drawn stride that does not divide the decimated length gives way to the largest one that does.
    """
    decimation = choose_int(trial, f"{prefix}.decimation", _decimations(sensor))
    drawn_stride = choose_int(trial, f"{prefix}.stride", _strides(_steps(sensor.shape)))
    drawn_kernel = choose_int(trial, f"{prefix}.kernel", KERNELS)
    width = choose_int(trial, f"{prefix}.width", WIDTHS)
    depth = trial.suggest_int(f"{prefix}.depth", 1, MAX_DEPTH)
    states = choose_int(trial, f"{prefix}.states", STATES)
    expansion = choose_int(trial, f"{prefix}.expansion", EXPANSIONS)
    drawn_filter = choose_int(trial, f"{prefix}.filter", FILTERS)
    rank = choose_int(trial, f"{prefix}.rank", RANKS)
    readout = trial.suggest_categorical(f"{prefix}.readout", get_args(StepReadout))
    stem_bits = choose_bits(trial, f"{prefix}.stem_bits")
    bits = choose_bits(trial, f"{prefix}.bits")
    embedding_bits = choose_bits(trial, f"{prefix}.embedding_bits")
    steps = max(1, _steps(sensor.shape) // decimation)
    stride = max(s for s in _strides(steps) if s <= drawn_stride)
    units = 0 if features in (None, width) else features or 0
    return MambaBranch(
        sensor.name,
        sensor.shape,
        decimation,
        stride,
        min(steps, max(drawn_kernel, stride)),
        width,
        depth,
        states,
        expansion,
        min(drawn_filter, steps // stride),
        rank,
        readout if steps // stride > 1 else "mean",  # type: ignore[arg-type]
        stem_bits,
        bits,
        units,
        embedding_bits if units else 0,
    )


def start_mamba(sensor: Sensor, start: Start, embedding: int) -> dict[str, int | str]:
    """Genes of one block of four states on up to 32 steps; the stem has 8 bits."""
    steps = _steps(sensor.shape)
    factors = _decimations(sensor)
    decimation = min(start_decimation(sensor), len(factors) - 1)
    left = max(1, steps // factors[decimation])
    strides = _strides(steps)
    enough = [i for i, s in enumerate(strides) if left // s <= START_STEPS]
    bits = BITS.index(start.bits)
    return {
        "decimation": decimation,
        "stride": enough[0] if enough else len(strides) - 1,
        "kernel": KERNELS.index(3 if left <= START_STEPS else 5),
        "width": nearest(WIDTHS, start.width),
        "depth": 1,
        "states": STATES.index(4),
        "expansion": EXPANSIONS.index(start.expansion),
        "filter": FILTERS.index(4),
        "rank": RANKS.index(2),
        "readout": "last" if start.readout == "last" and sensor.kind == "series" else "mean",
        "stem_bits": BITS.index(8),
        "bits": bits,
        "embedding_bits": bits,
    }


def parse_mamba(document: Mapping[str, Any]) -> MambaBranch:
    """Reads what `to_json` wrote; SpaceError, KeyError or TypeError for another document."""
    known(document, "readout", get_args(StepReadout))
    values = {k: v for k, v in document.items() if k not in ("branch", "shape")}
    return MambaBranch(shape=tuple(document["shape"]), **values)


MAMBA = Kind(("mamba",), sample_mamba, start_mamba)
