"""Convolutional branches: one sensor in, one feature vector (1, 1, features) out.

Time series and images share one family (a series is an image of height 1); a feature vector gets
fully connected layers. Dense and depthwise-separable convolutions are both in the space: dense won
at equal size on most of our data sets, not on all.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from nas.network.ops import Conv2d, DepthwiseConv2d, Op, Pair, Pool, Reshape, Shape, size
from nas.space import Sensor, Trial

Downsample: TypeAlias = Literal["stride", "average", "max"]
Readout: TypeAlias = Literal["mean", "max", "grid"]

BITS = (2, 4, 8)
WIDTHS = (3, 4, 6, 8, 10, 12, 16, 20, 24)
IMAGE_WIDTHS = WIDTHS[:7]  # wider stems are minutes of training for no gain that we saw
GROWTHS = (1.0, 1.25, 1.5, 2.0)
EMBEDDINGS = (0, 6, 8, 12, 16, 24, 32)
DECIMATIONS = (1, 2, 4)
KERNELS = (3, 5, 7)
UNITS = (6, 8, 12, 16, 24, 32, 48, 64)
MAX_DEPTH = 4
MAX_CHANNELS = 64
SHORTEST_AXIS = 8  # decimation leaves at least this many steps or pixels
LONGEST_AXIS = 64  # beyond it a start decimates its input
GRID_CELLS = {"series": 4, "image": 2}  # cells an axis that the `grid` readout keeps


@dataclass(frozen=True, slots=True)
class ConvLayer:
    """One convolution; `depthwise_bits` is 0 for a dense one."""

    channels: int
    weight_bits: int
    depthwise_bits: int
    halve: bool


@dataclass(frozen=True, slots=True)
class ConvBranch:
    """A time series or an image: decimation, convolutions, readout, embedding (0 units: none)."""

    sensor: str
    shape: Shape
    decimation: int
    kernel: int
    downsample: Downsample
    layers: tuple[ConvLayer, ...]
    readout: Readout
    embedding: int
    embedding_bits: int


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


Branch: TypeAlias = ConvBranch | VectorBranch


def choose(trial: Trial, name: str, choices: tuple[int, ...] | tuple[float, ...]) -> float:
    """An ordered gene: Optuna sees the index, so that it can use the order."""
    return choices[trial.suggest_int(name, 0, len(choices) - 1)]


def choose_bits(trial: Trial, name: str) -> int:
    """The bit-width gene of one layer."""
    return int(choose(trial, name, BITS))


def sample_branch(trial: Trial, sensor: Sensor, embedding: int | None) -> Branch:
    """Draws every gene of one sensor's branch; a given `embedding` replaces the drawn one."""
    if sensor.kind == "vector":
        return _sample_vector(trial, sensor, embedding)
    return _sample_conv(trial, sensor, embedding)


def _sample_vector(trial: Trial, sensor: Sensor, embedding: int | None) -> VectorBranch:
    depth = trial.suggest_int(f"{sensor.name}.depth", 1, 2)
    drawn = [
        DenseLayer(
            int(choose(trial, f"{sensor.name}.units.{i}", UNITS)),
            choose_bits(trial, f"{sensor.name}.bits.{i}"),
        )
        for i in range(2)
    ]
    layers = drawn[:depth]
    if embedding is not None:
        layers[-1] = DenseLayer(embedding, layers[-1].weight_bits)
    return VectorBranch(sensor.name, sensor.shape, tuple(layers))


def _sample_conv(trial: Trial, sensor: Sensor, embedding: int | None) -> ConvBranch:
    name = sensor.name
    decimation = int(choose(trial, f"{name}.decimation", _decimations(sensor)))
    width = choose(trial, f"{name}.width", IMAGE_WIDTHS if sensor.kind == "image" else WIDTHS)
    growth = choose(trial, f"{name}.growth", GROWTHS)
    depth = trial.suggest_int(f"{name}.depth", 1, MAX_DEPTH)
    # A map that keeps its full size through every layer is the slowest way to the same score.
    fewest = 1 if max(sensor.shape[:2]) > SHORTEST_AXIS else 0
    halvings = trial.suggest_int(f"{name}.halvings", fewest, MAX_DEPTH)
    kernel = int(choose(trial, f"{name}.kernel", KERNELS[: 3 if sensor.kind == "series" else 2]))
    downsample = trial.suggest_categorical(f"{name}.downsample", ("stride", "average", "max"))
    separable = trial.suggest_categorical(f"{name}.convolution", ("dense", "separable"))
    readout = trial.suggest_categorical(f"{name}.readout", ("mean", "max", "grid"))
    drawn_embedding = int(choose(trial, f"{name}.embedding", EMBEDDINGS))
    embedding_bits = choose_bits(trial, f"{name}.embedding_bits")
    layers = []
    for i in range(MAX_DEPTH):
        bits = choose_bits(trial, f"{name}.bits.{i}")
        # The stem is dense: one filter a channel on one to six raw channels has nothing to mix.
        depthwise = choose_bits(trial, f"{name}.depthwise_bits.{i}") if i else 0
        channels = min(MAX_CHANNELS, round(width * growth**i))
        layers.append(
            ConvLayer(channels, bits, depthwise if separable == "separable" else 0, i < halvings)
        )
    units = drawn_embedding if embedding is None else embedding
    branch = ConvBranch(
        name,
        sensor.shape,
        decimation,
        kernel,
        downsample,  # type: ignore[arg-type]
        tuple(layers[:depth]),
        readout,  # type: ignore[arg-type]
        units,
        embedding_bits if units else 0,
    )
    return _simplest(branch)


def _decimations(sensor: Sensor) -> tuple[int, ...]:
    """The factors by which a sensor's input may be averaged down."""
    shortest = min((n for n in sensor.shape[:2] if n > 1), default=1)
    return tuple(f for f in DECIMATIONS if f == 1 or shortest // f >= SHORTEST_AXIS)


def start_branch(
    sensor: Sensor,
    width: int,
    bits: int,
    embedding: int,
    downsample: Downsample,
    readout: Readout,
) -> dict[str, int | str]:
    """Genes of a branch that was good on every data set that we tried: dense convolutions.

    Every layer halves the map until a few positions are left; `average` pooling does that without
    the blind edge of a strided convolution on an even map, for four times its operations. Stem and
    outputs have 8 bits, what lies between has `bits`.
    """
    name = sensor.name
    genes: dict[str, int | str] = {}
    if sensor.kind == "vector":
        first = min(UNITS[-1], 6 * width)
        units = (first, embedding or 24)
        genes[f"{name}.depth"] = 2
        for i in range(2):
            genes[f"{name}.units.{i}"] = _nearest(UNITS, units[i])
            genes[f"{name}.bits.{i}"] = BITS.index(bits)
        return genes
    longest = max(sensor.shape[:2])
    decimations = _decimations(sensor)
    enough = [i for i, f in enumerate(decimations) if longest // f <= LONGEST_AXIS]
    decimation = enough[0] if enough else len(decimations) - 1
    depth = 3 if longest // decimations[decimation] <= 16 else MAX_DEPTH
    genes |= {
        f"{name}.decimation": decimation,
        f"{name}.width": WIDTHS.index(width),
        f"{name}.growth": GROWTHS.index(1.5),
        f"{name}.depth": depth,
        f"{name}.halvings": 2 if depth == 3 else depth,
        f"{name}.kernel": KERNELS.index(5 if sensor.kind == "series" else 3),
        f"{name}.downsample": downsample,
        f"{name}.convolution": "dense",
        f"{name}.readout": readout,
        f"{name}.embedding": EMBEDDINGS.index(embedding),
        f"{name}.embedding_bits": BITS.index(bits),
    }
    for i in range(MAX_DEPTH):
        genes[f"{name}.bits.{i}"] = BITS.index(bits if i else 8)
        if i:
            genes[f"{name}.depthwise_bits.{i}"] = BITS.index(8)
    return genes


def _nearest(choices: tuple[int, ...], value: int) -> int:
    """Index of the choice nearest to `value`."""
    return min(range(len(choices)), key=lambda i: abs(choices[i] - value))


def _simplest(branch: ConvBranch) -> ConvBranch:
    """The first choice of each gene whose drawn one has no effect, as on a map of one position."""
    for i, layer in enumerate(branch.layers):
        layers = (*branch.layers[:i], replace(layer, halve=False), *branch.layers[i + 1 :])
        branch = _if_equal(branch, replace(branch, layers=layers))
    branch = _if_equal(branch, replace(branch, downsample="stride"))
    branch = _if_equal(branch, replace(branch, readout="mean"))
    return _if_equal(branch, replace(branch, kernel=KERNELS[0]))


def _if_equal(branch: ConvBranch, simpler: ConvBranch) -> ConvBranch:
    """`simpler` if it is the same network."""
    ops: tuple[list[Op], list[Op]] = ([], [])
    _lower(ops[0], branch)
    _lower(ops[1], simpler)
    return simpler if ops[0] == ops[1] else branch


def branch_features(branch: Branch) -> int:
    """Length of the feature vector that `lower_branch` leaves."""
    ops: list[Op] = []
    shape = _lower(ops, branch)[1]
    return shape[2]


def lower_branch(ops: list[Op], branch: Branch) -> str:
    """Appends the branch's operators and returns the name of its (1, 1, features) tensor."""
    return _lower(ops, branch)[0]


def dense(ops: list[Op], name: str, source: str, units: int, bits: int, relu: bool = True) -> str:
    """Appends a fully connected layer: a 1x1 convolution."""
    ops.append(Conv2d(name, (source,), units, (1, 1), (1, 1), "valid", bits, relu))
    return name


def _lower(ops: list[Op], branch: Branch) -> tuple[str, Shape]:
    if isinstance(branch, VectorBranch):
        source, units = branch.sensor, branch.shape[2]
        for i, layer in enumerate(branch.layers):
            source = dense(ops, f"{branch.sensor}_fc{i}", source, layer.units, layer.weight_bits)
            units = layer.units
        return source, (1, 1, units)
    return _lower_conv(ops, branch)


def _lower_conv(ops: list[Op], branch: ConvBranch) -> tuple[str, Shape]:
    name, source, shape = branch.sensor, branch.sensor, branch.shape
    if branch.decimation > 1:
        source, shape = _window(
            ops, f"{name}_decimate", source, shape, branch.decimation, "average"
        )
    for i, layer in enumerate(branch.layers):
        source, shape = _lower_layer(ops, f"{name}_conv{i}", source, shape, branch, layer)
        if layer.halve and branch.downsample != "stride":
            source, shape = _window(ops, f"{name}_pool{i}", source, shape, 2, branch.downsample)
    source, shape = _lower_readout(ops, branch, source, shape)
    if branch.embedding:
        source = dense(ops, f"{name}_embedding", source, branch.embedding, branch.embedding_bits)
        shape = (1, 1, branch.embedding)
    return source, shape


def _lower_layer(
    ops: list[Op], name: str, source: str, shape: Shape, branch: ConvBranch, layer: ConvLayer
) -> tuple[str, Shape]:
    height, width, _ = shape
    # On an axis of one step or pixel only the middle of a kernel would ever see data.
    kernel = (branch.kernel if height > 1 else 1, branch.kernel if width > 1 else 1)
    halve = layer.halve and branch.downsample == "stride"
    stride = (2 if halve and height > 1 else 1, 2 if halve and width > 1 else 1)
    if layer.depthwise_bits:
        depthwise = f"{name}_depthwise"
        ops.append(
            DepthwiseConv2d(
                depthwise, (source,), kernel, stride, "same", layer.depthwise_bits, True
            )
        )
        ops.append(
            Conv2d(
                name, (depthwise,), layer.channels, (1, 1), (1, 1), "same", layer.weight_bits, True
            )
        )
    else:
        ops.append(
            Conv2d(name, (source,), layer.channels, kernel, stride, "same", layer.weight_bits, True)
        )
    return name, (-(-height // stride[0]), -(-width // stride[1]), layer.channels)


def _window(
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


def _lower_readout(
    ops: list[Op], branch: ConvBranch, source: str, shape: Shape
) -> tuple[str, Shape]:
    """Pools the map over all positions, or over a coarse grid of them that is then flattened."""
    name = branch.sensor
    cells = (1, 1)
    if branch.readout == "grid":
        most = GRID_CELLS["series" if branch.shape[0] == 1 else "image"]
        cells = (min(most, shape[0]), min(most, shape[1]))
    stride = (shape[0] // cells[0], shape[1] // cells[1])
    kernel = (shape[0] - (cells[0] - 1) * stride[0], shape[1] - (cells[1] - 1) * stride[1])
    if kernel != (1, 1):
        function: Literal["average", "max"] = "max" if branch.readout == "max" else "average"
        ops.append(Pool(f"{name}_readout", (source,), function, kernel, stride))
        source, shape = f"{name}_readout", (*cells, shape[2])
    if cells != (1, 1):
        shape = (1, 1, size(shape))
        ops.append(Reshape(f"{name}_flatten", (source,), shape))
        source = f"{name}_flatten"
    return source, shape
