"""Convolutional branches: one sensor in, one feature vector (1, 1, features) out.

Time series and images share one family (a series is an image of height 1). Dense and
depthwise-separable convolutions are both in the space: dense won at equal size on most of our data
sets, not on all. A branch of a series may be causal; then it can run step by step.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from nas.network.ops import Conv2d, DepthwiseConv2d, Op, Padding, Pool, Reshape, Shape, size
from nas.space import Sensor, Trial
from search_spaces.branches import (
    BITS,
    SHORTEST_AXIS,
    Kind,
    Start,
    choose,
    choose_bits,
    choose_int,
    decimate,
    decimations,
    embed,
    if_equal,
    known,
    nearest,
    start_decimation,
    window,
)

Downsample: TypeAlias = Literal["stride", "average", "max"]
Readout: TypeAlias = Literal["mean", "max", "grid"]

WIDTHS = (3, 4, 6, 8, 10, 12, 16, 20, 24)
IMAGE_WIDTHS = WIDTHS[:7]  # wider stems are minutes of training for no gain that we saw
GROWTHS = (1.0, 1.25, 1.5, 2.0)
EMBEDDINGS = (0, 6, 8, 12, 16, 24, 32)
KERNELS = (3, 5, 7)
MAX_DEPTH = 4
MAX_CHANNELS = 64
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
    causal: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse_conv` is its inverse. A causal branch has a word of its own."""
        values = {k: v for k, v in asdict(self).items() if k != "causal"}
        word = "causal" if self.causal else "conv"
        return {**values, "branch": word, "shape": list(self.shape)}

    def lower(self, ops: list[Op]) -> tuple[str, int]:
        """Appends the operators; name and length of the feature vector."""
        name = self.sensor
        source, shape = decimate(ops, name, self.shape, self.decimation)
        for i, layer in enumerate(self.layers):
            source, shape = _lower_layer(ops, f"{name}_conv{i}", source, shape, self, layer)
            if layer.halve and self.downsample != "stride":
                source, shape = window(ops, f"{name}_pool{i}", source, shape, 2, self.downsample)
        source, features = _lower_readout(ops, self, source, shape)
        return embed(ops, name, source, features, self.embedding, self.embedding_bits)


def sample_conv(
    trial: Trial, prefix: str, sensor: Sensor, features: int | None, may_be_causal: bool = False
) -> ConvBranch:
    """Draws a branch; given `features` replace its embedding."""
    decimation = choose_int(trial, f"{prefix}.decimation", decimations(sensor))
    width = choose(trial, f"{prefix}.width", IMAGE_WIDTHS if sensor.kind == "image" else WIDTHS)
    growth = choose(trial, f"{prefix}.growth", GROWTHS)
    depth = trial.suggest_int(f"{prefix}.depth", 1, MAX_DEPTH)
    # A map that keeps its full size through every layer is the slowest way to the same score.
    fewest = 1 if max(sensor.shape[:2]) > SHORTEST_AXIS else 0
    halvings = trial.suggest_int(f"{prefix}.halvings", fewest, MAX_DEPTH)
    kernel = choose_int(trial, f"{prefix}.kernel", KERNELS[: 3 if sensor.kind == "series" else 2])
    downsample = trial.suggest_categorical(f"{prefix}.downsample", get_args(Downsample))
    separable = trial.suggest_categorical(f"{prefix}.convolution", ("dense", "separable"))
    readout = trial.suggest_categorical(f"{prefix}.readout", get_args(Readout))
    drawn_embedding = choose_int(trial, f"{prefix}.embedding", EMBEDDINGS)
    embedding_bits = choose_bits(trial, f"{prefix}.embedding_bits")
    asked = may_be_causal and sensor.kind == "series"
    causal = asked and trial.suggest_int(f"{prefix}.causal", 0, 1) == 1
    layers = []
    for i in range(MAX_DEPTH):
        bits = choose_bits(trial, f"{prefix}.bits.{i}")
        # The stem is dense: one filter a channel on one to six raw channels has nothing to mix.
        depthwise = choose_bits(trial, f"{prefix}.depthwise_bits.{i}") if i else 0
        channels = min(MAX_CHANNELS, round(width * growth**i))
        layers.append(
            ConvLayer(channels, bits, depthwise if separable == "separable" else 0, i < halvings)
        )
    units = drawn_embedding if features is None else features
    branch = ConvBranch(
        sensor.name,
        sensor.shape,
        decimation,
        kernel,
        downsample,  # type: ignore[arg-type]
        tuple(layers[:depth]),
        readout,  # type: ignore[arg-type]
        units,
        embedding_bits if units else 0,
        # A grid of positions needs the whole window: it has nothing from being causal.
        causal and readout != "grid",
    )
    return _simplest(branch)


def start_conv(sensor: Sensor, start: Start, embedding: int) -> dict[str, int | str]:
    """Genes of a branch that was good on every data set that we tried: dense convolutions.

    Every layer halves the map until a few positions are left; `average` pooling does that without
    the blind edge of a strided convolution on an even map, for four times its operations. Stem and
    outputs have 8 bits, what lies between has `start.bits`.
    """
    decimation = start_decimation(sensor)
    left = max(sensor.shape[:2]) // decimations(sensor)[decimation]
    depth = 3 if left <= 16 else MAX_DEPTH
    widths = IMAGE_WIDTHS if sensor.kind == "image" else WIDTHS
    genes: dict[str, int | str] = {
        "decimation": decimation,
        "width": nearest(widths, start.width),
        "growth": GROWTHS.index(1.5),
        "depth": depth,
        "halvings": 2 if depth == 3 else depth,
        "kernel": KERNELS.index(5 if sensor.kind == "series" else 3),
        "downsample": start.downsample,
        "convolution": "dense",
        "readout": start.readout if start.readout in get_args(Readout) else "mean",
        "embedding": EMBEDDINGS.index(embedding),
        "embedding_bits": BITS.index(start.bits),
    }
    for i in range(MAX_DEPTH):
        genes[f"bits.{i}"] = BITS.index(start.bits if i else 8)
        if i:
            genes[f"depthwise_bits.{i}"] = BITS.index(8)
    return genes


def _simplest(branch: ConvBranch) -> ConvBranch:
    """The first choice of each gene whose drawn one has no effect, as on a map of one position."""
    for i, layer in enumerate(branch.layers):
        layers = (*branch.layers[:i], replace(layer, halve=False), *branch.layers[i + 1 :])
        branch = if_equal(branch, replace(branch, layers=layers))
    branch = if_equal(branch, replace(branch, downsample="stride"))
    branch = if_equal(branch, replace(branch, readout="mean"))
    branch = if_equal(branch, replace(branch, causal=False))
    return if_equal(branch, replace(branch, kernel=KERNELS[0]))


def _lower_layer(
    ops: list[Op], name: str, source: str, shape: Shape, branch: ConvBranch, layer: ConvLayer
) -> tuple[str, Shape]:
    height, width, _ = shape
    # On an axis of one step or pixel only the middle of a kernel would ever see data.
    kernel = (branch.kernel if height > 1 else 1, branch.kernel if width > 1 else 1)
    halve = layer.halve and branch.downsample == "stride"
    stride = (2 if halve and height > 1 else 1, 2 if halve and width > 1 else 1)
    causal = branch.causal and kernel[1] > 1
    padding: Padding = "causal" if causal else "same"
    if layer.depthwise_bits:
        depthwise = f"{name}_depthwise"
        ops.append(
            DepthwiseConv2d(
                depthwise, (source,), kernel, stride, padding, layer.depthwise_bits, True
            )
        )
        ops.append(
            Conv2d(
                name, (depthwise,), layer.channels, (1, 1), (1, 1), "same", layer.weight_bits, True
            )
        )
    else:
        ops.append(
            Conv2d(
                name, (source,), layer.channels, kernel, stride, padding, layer.weight_bits, True
            )
        )
    columns = width // stride[1] if causal else -(-width // stride[1])
    return name, (-(-height // stride[0]), columns, layer.channels)


def _lower_readout(ops: list[Op], branch: ConvBranch, source: str, shape: Shape) -> tuple[str, int]:
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
        ops.append(Reshape(f"{name}_flatten", (source,), (1, 1, size(shape))))
        source = f"{name}_flatten"
    return source, size(shape)


def parse_conv(document: Mapping[str, Any]) -> ConvBranch:
    """Reads what `to_json` wrote; SpaceError, KeyError or TypeError for another document."""
    values = {k: v for k, v in document.items() if k not in ("branch", "layers", "shape")}
    known(document, "downsample", get_args(Downsample))
    known(document, "readout", get_args(Readout))
    layers = tuple(ConvLayer(**layer) for layer in document["layers"])
    shape, causal = tuple(document["shape"]), document["branch"] == "causal"
    return ConvBranch(shape=shape, layers=layers, causal=causal, **values)


def _start_either(sensor: Sensor, start: Start, embedding: int) -> dict[str, int | str]:
    return start_conv(sensor, start, embedding) | ({"causal": 0} if sensor.kind == "series" else {})


CONV = Kind(("conv",), sample_conv, start_conv)
EITHER_CONV = Kind(("conv", "causal"), partial(sample_conv, may_be_causal=True), _start_either)
"""Convolutions that may be causal."""
