"""Transformer branches: patches of a sensor as tokens, self-attention, feed-forward layers.

A series is cut into patches in time, an image or spectrogram into tiles, so that at most 64 tokens
remain: attention takes their square. There is no operator that normalises: training puts batch
normalisation behind every linear layer, where it becomes the scale of each output channel.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from nas.network.ops import Add, Attention, Conv2d, Op, Pair, Positions, Reshape, Shape
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
    if_equal,
    known,
    nearest,
    read_steps,
    start_decimation,
)

Stem: TypeAlias = Literal["patch", "conv"]
PositionKind: TypeAlias = Literal["none", "learned", "sinusoidal"]

TOKENS = {"series": (8, 16, 32, 64), "image": (9, 16, 36, 64)}  # at most
START_TOKENS = {"series": 16, "image": 36}
WIDTHS = (8, 12, 16, 20, 24, 28, 32)
HEADS = (1, 2, 4)  # each divides every width
RATIOS = (1, 2, 3)
MAX_DEPTH = 3
STEM_STRIDE = 2  # of the convolution in front of an image's tiles


@dataclass(frozen=True, slots=True)
class TransformerBranch:
    """Decimation, embedding, positions, blocks, readout; embedding of 0 units: none.

    Attributes:
        stem: `patch` cuts; `conv` lets the windows of a series overlap, and puts a convolution of
            stride 2 in front of an image's tiles.
        patch: steps, or rows and columns, a token.
        ratio: width of the feed-forward layers, as a multiple of `width`.
    """

    sensor: str
    shape: Shape
    decimation: int
    stem: Stem
    patch: int
    positions: PositionKind
    width: int
    depth: int
    heads: int
    ratio: int
    readout: StepReadout
    stem_bits: int
    attention_bits: int
    feed_forward_bits: int
    embedding: int
    embedding_bits: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; `parse_transformer` is its inverse."""
        return {**asdict(self), "branch": "transformer", "shape": list(self.shape)}

    def lower(self, ops: list[Op]) -> tuple[str, int]:
        """Appends the operators; name and length of the feature vector."""
        name = self.sensor
        source, shape = decimate(ops, name, self.shape, self.decimation)
        source, tokens = self._embed(ops, source, shape)
        if self.positions != "none":
            ops.append(Positions(f"{name}_positions", (source,), self.positions))
            source = f"{name}_positions"
        for i in range(self.depth):
            block = f"{name}_block{i}"
            source = attend(ops, block, source, self.width, self.heads, self.attention_bits)
            inner, bits = self.ratio * self.width, self.feed_forward_bits
            hidden = dense(ops, f"{block}_hidden", source, inner, bits)
            fed = dense(ops, f"{block}_forward", hidden, self.width, bits, relu=False)
            ops.append(Add(f"{block}_sum", (source, fed), relu=False))
            source = f"{block}_sum"
        source = read_steps(ops, f"{name}_readout", source, tokens, self.readout)
        return embed(ops, name, source, self.width, self.embedding, self.embedding_bits)

    def _embed(self, ops: list[Op], source: str, shape: Shape) -> tuple[str, int]:
        """Name and number of the tokens, of `width` each."""
        name, patch = self.sensor, self.patch
        image = shape[0] > 1
        if self.stem == "conv" and image and patch > 1:
            stride = _on_axes(shape, STEM_STRIDE)
            channels = self.width // 2
            ops.append(
                Conv2d(
                    f"{name}_stem",
                    (source,),
                    channels,
                    _on_axes(shape, 3),
                    stride,
                    "same",
                    self.stem_bits,
                    True,
                )
            )
            source, shape = f"{name}_stem", (*_windows(shape, stride), channels)
            kernel, patch = -(-patch // STEM_STRIDE), -(-patch // STEM_STRIDE)
        else:
            kernel = patch // 2 * 2 + 3 if self.stem == "conv" else patch
        stride = _on_axes(shape, patch)
        embedded = f"{name}_embed"
        ops.append(
            Conv2d(
                embedded,
                (source,),
                self.width,
                _on_axes(shape, kernel),
                stride,
                "same",
                self.stem_bits,
                True,
            )
        )
        rows, columns = _windows(shape, stride)
        if rows > 1:
            ops.append(Reshape(f"{name}_tokens", (embedded,), (1, rows * columns, self.width)))
            embedded = f"{name}_tokens"
        return embedded, rows * columns


def attend(ops: list[Op], name: str, source: str, width: int, heads: int, bits: int) -> str:
    """Appends self-attention around a residual: (1, tokens, width) in and out."""
    parts = [
        dense(ops, f"{name}_{part}", source, width, bits, relu=False)
        for part in ("query", "key", "value")
    ]
    ops.append(Attention(f"{name}_attention", tuple(parts), heads))
    mixed = dense(ops, f"{name}_mix", f"{name}_attention", width, bits, relu=False)
    ops.append(Add(f"{name}_attended", (source, mixed), relu=False))
    return f"{name}_attended"


def _on_axes(shape: Shape, length: int) -> Pair:
    """A window on the axes that are longer than one."""
    return (length if shape[0] > 1 else 1, length if shape[1] > 1 else 1)


def _windows(shape: Shape, stride: Pair) -> Pair:
    return -(-shape[0] // stride[0]), -(-shape[1] // stride[1])


def patch_of(shape: Shape, tokens: int) -> int:
    """The smallest patch of which a map has at most `tokens`."""
    patch = 1
    while True:
        rows, columns = _windows(shape, _on_axes(shape, patch))
        if rows * columns <= tokens:
            return patch
        patch += 1


def _token_choices(sensor: Sensor) -> tuple[int, ...]:
    """The most tokens that a sensor may have, without those that change nothing."""
    choices = TOKENS["image" if sensor.kind == "image" else "series"]
    patches = [patch_of(sensor.shape, most) for most in choices]
    return tuple(c for i, c in enumerate(choices) if i == 0 or patches[i] != patches[i - 1])


def sample_transformer(
    trial: Trial, prefix: str, sensor: Sensor, features: int | None
) -> TransformerBranch:
    """Draws a branch; given `features` are its embedding, or its width where that is the same."""
    decimation = choose_int(trial, f"{prefix}.decimation", decimations(sensor))
    tokens = choose_int(trial, f"{prefix}.tokens", _token_choices(sensor))
    stem = trial.suggest_categorical(f"{prefix}.stem", get_args(Stem))
    positions = trial.suggest_categorical(f"{prefix}.positions", get_args(PositionKind))
    width = choose_int(trial, f"{prefix}.width", WIDTHS)
    depth = trial.suggest_int(f"{prefix}.depth", 1, MAX_DEPTH)
    heads = choose_int(trial, f"{prefix}.heads", HEADS)
    ratio = choose_int(trial, f"{prefix}.ratio", RATIOS)
    # The last tile of an image is a corner of it.
    readouts = get_args(StepReadout)[: 1 if sensor.kind == "image" else 2]
    readout = trial.suggest_categorical(f"{prefix}.readout", readouts)
    stem_bits = choose_bits(trial, f"{prefix}.stem_bits")
    attention_bits = choose_bits(trial, f"{prefix}.attention_bits")
    feed_forward_bits = choose_bits(trial, f"{prefix}.feed_forward_bits")
    embedding_bits = choose_bits(trial, f"{prefix}.embedding_bits")
    units = 0 if features in (None, width) else features or 0
    decimated = tuple(max(1, n // decimation) for n in sensor.shape[:2])
    branch = TransformerBranch(
        sensor.name,
        sensor.shape,
        decimation,
        stem,  # type: ignore[arg-type]
        patch_of((*decimated, sensor.shape[2]), tokens),
        positions,  # type: ignore[arg-type]
        width,
        depth,
        heads,
        ratio,
        readout,  # type: ignore[arg-type]
        stem_bits,
        attention_bits,
        feed_forward_bits,
        units,
        embedding_bits if units else 0,
    )
    branch = if_equal(branch, replace(branch, stem="patch"))
    return if_equal(branch, replace(branch, readout="mean"))


def start_transformer(sensor: Sensor, start: Start, embedding: int) -> dict[str, int | str]:
    """Genes of one block on about 16 tokens of a series, 36 of an image; the stem has 8 bits."""
    readout = "last" if start.readout == "last" and sensor.kind == "series" else "mean"
    most = START_TOKENS["image" if sensor.kind == "image" else "series"]
    bits = BITS.index(start.bits)
    return {
        "decimation": start_decimation(sensor),
        "tokens": nearest(_token_choices(sensor), most),
        "stem": "conv",
        "positions": "learned",
        "width": nearest(WIDTHS, start.width),
        "depth": 1,
        "heads": HEADS.index(2),
        "ratio": RATIOS.index(2),
        "readout": readout,
        "stem_bits": BITS.index(8),
        "attention_bits": bits,
        "feed_forward_bits": bits,
        "embedding_bits": bits,
    }


def parse_transformer(document: Mapping[str, Any]) -> TransformerBranch:
    """Reads what `to_json` wrote; SpaceError, KeyError or TypeError for another document."""
    known(document, "stem", get_args(Stem))
    known(document, "positions", get_args(PositionKind))
    known(document, "readout", get_args(StepReadout))
    values = {k: v for k, v in document.items() if k not in ("branch", "shape")}
    return TransformerBranch(shape=tuple(document["shape"]), **values)


TRANSFORMER = Kind(("transformer",), sample_transformer, start_transformer)
