import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from host_kernels import RUNTIME, Buffer, library, structure

from nas.network.numerics import Int8, rescale, unpack, weight_limit
from nas.packing.channels import Channels
from nas.packing.pack_depthwise import (
    Shape,
    pack_table,
    pack_weights,
    plane,
    scratch_bytes,
    table_bytes,
    weight_bytes,
)

KERNELS = [(1, 3), (1, 5), (1, 7), (3, 3), (5, 5), (3, 1), (1, 1), (2, 2), (4, 3), (1, 11), (7, 7)]


def largest_left(magnitude: int) -> int:
    """How far to the left a sum may be shifted and stay below 2^30."""
    return min(20, 30 - int(magnitude).bit_length())


def random_channels(rng: np.random.Generator, count: int, taps: int, bits: int) -> Channels:
    """Shifts to both sides; one layer in four at the ends of all ranges."""
    limit = weight_limit(bits)
    values = rng.integers(-limit, limit + 1, (count, taps))
    bias = rng.integers(-3000, 3000, count)
    if rng.integers(4) == 0:
        values = rng.choice([-limit, limit], (count, taps))
    sums = np.abs(values).sum(axis=1) * 128 + np.abs(bias)
    most = rng.choice([0, 12, 23], count)
    shift = [rng.integers(-largest_left(s), m + 1) for s, m in zip(sums, most, strict=True)]
    return Channels(
        values.astype(np.int8),
        bias.astype(np.int32),
        rng.integers(1 << 30, 1 << 31, count).astype(np.int32),
        np.array(shift, np.int8),
        int(rng.choice([-128, 127, rng.integers(-128, 128)])),
    )


def padded(size: int, kernel: int, stride: int, same: bool) -> tuple[int, int]:
    """(outputs, padding before) of one axis."""
    if not same:
        return (size - kernel) // stride + 1, 0
    outputs = -(-size // stride)
    return outputs, max((outputs - 1) * stride + kernel - size, 0) // 2


def expected(x: Int8, shape: Shape, channels: Channels, zero: int) -> Int8:
    (kh, kw), (sh, sw), (top, left) = shape.kernel, shape.stride, shape.padding
    height, width = shape.outputs
    rows, columns = (height - 1) * sh + kh, (width - 1) * sw + kw
    around = np.full(
        (max(rows, x.shape[0] + top), max(columns, x.shape[1] + left), x.shape[2]), zero
    )
    around[top : top + x.shape[0], left : left + x.shape[1]] = x
    total = np.zeros((height, width, x.shape[2]), np.int64) + channels.bias
    for i in range(kh):
        for j in range(kw):
            view = around[i : i + rows - kh + 1 : sh, j : j + columns - kw + 1 : sw]
            total += view * channels.values[:, i * kw + j].astype(np.int64)
    shift = -channels.right_shift.astype(np.int64)
    scaled = rescale(total, channels.multiplier.astype(np.int64), shift, "double")
    return np.clip(scaled + channels.out_zero, -128, 127).astype(np.int8)


def run(x: Int8, shape: Shape, channels: Channels, zero: int, bits: int) -> Int8:
    kernels = library("depthwise.c", "depthwise_planes.c")
    weights = Buffer(pack_weights(channels, bits).tobytes())
    table = Buffer(pack_table(channels).tobytes())
    source, target = Buffer(x.tobytes()), Buffer(bytes(np.prod(shape.outputs) * shape.channels))
    scratch = Buffer(bytes(scratch_bytes(shape.kernel, shape.stride, *shape.outputs)))
    sizes = (*shape.inputs, shape.channels, *shape.outputs, shape.channels)
    rest = (*shape.kernel, *shape.stride, *shape.padding, zero, channels.out_zero)
    conv = structure([weights, table], "6H6B2b", *sizes, *rest)
    call = getattr(kernels, f"test_depthwise_{bits}")
    call(conv.address, source.address, target.address, scratch.address)
    assert (source.int8() == x.ravel()).all()
    scratch.int8()
    return target.int8().reshape(*shape.outputs, shape.channels)


@pytest.mark.parametrize("seed", range(100))
def test_the_c_kernel_equals_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = int(rng.choice([8, 4, 2]))
    kernel = KERNELS[rng.integers(len(KERNELS))]
    inputs = int(rng.integers(1, 12)), int(rng.integers(1, 20))
    stride = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    same = bool(rng.integers(2)) or any(n < k for n, k in zip(inputs, kernel, strict=True))
    axes = [padded(*axis, same) for axis in zip(inputs, kernel, stride, strict=True)]
    (height, top), (width, left) = axes
    shape = Shape(kernel, stride, (top, left), inputs, (height, width), int(rng.integers(1, 10)))
    channels = random_channels(rng, shape.channels, kernel[0] * kernel[1], bits)
    x = rng.integers(-128, 128, (*inputs, shape.channels)).astype(np.int8)
    if seed % 4 == 0:
        x = rng.choice([-128, 127], x.shape).astype(np.int8)
    zero = int(rng.integers(-128, 128))
    assert (run(x, shape, channels, zero, bits) == expected(x, shape, channels, zero)).all()


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_packed_sizes_are_exact(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for count, taps in [(1, 1), (3, 9), (32, 9), (7, 25), (64, 5)]:
        channels = random_channels(rng, count, taps, bits)
        packed = pack_weights(channels, bits)
        assert packed.nbytes == weight_bytes(count, taps, bits)
        assert (unpack(packed, bits, count * taps) == channels.values.ravel()).all()
        table = pack_table(channels)
        assert table.nbytes == table_bytes(count)
        assert table.nbytes <= 10 * count + 3
        assert (table[: 2 * count : 2] == 2 * channels.bias).all()
        assert (table[2 * count :].view(np.int8)[:count] == channels.right_shift).all()


@pytest.mark.parametrize(
    ("kernel", "stride", "outputs", "size"),
    [
        ((3, 3), (1, 1), (16, 16), 4 * 64 + 18 * 9 * 16),
        ((1, 5), (1, 1), (1, 48), 4 * 40 + 26 * 16),
        ((3, 3), (1, 1), (96, 96), 4 * 64 + (3 + 2) * 49 * 16),
        ((3, 3), (2, 2), (8, 8), 4 * 64 + 17 * 9 * 16),
    ],
)
def test_scratch(
    kernel: tuple[int, int], stride: tuple[int, int], outputs: tuple[int, int], size: int
) -> None:
    assert scratch_bytes(kernel, stride, *outputs) == size


def shape_of(kernel: tuple[int, int], stride: int, inputs: tuple[int, int], channels: int) -> Shape:
    axes = [padded(n, k, stride, True) for n, k in zip(inputs, kernel, strict=True)]
    padding, outputs = (axes[0][1], axes[1][1]), (axes[0][0], axes[1][0])
    return Shape(kernel, (stride, stride), padding, inputs, outputs, channels)


SHAPES = [
    shape_of((3, 3), 1, (16, 16), 32),
    shape_of((3, 3), 1, (25, 5), 64),
    shape_of((3, 3), 1, (2, 2), 4),
    shape_of((3, 3), 1, (7, 7), 6),
    shape_of((3, 3), 1, (9, 2), 1023),
    shape_of((3, 3), 2, (48, 48), 8),
    shape_of((5, 5), 1, (12, 11), 24),
    shape_of((1, 5), 1, (1, 48), 64),
    shape_of((1, 7), 2, (1, 97), 24),
    shape_of((1, 3), 1, (1, 41), 511),
    shape_of((1, 4), 2, (3, 40), 3),
    shape_of((3, 1), 1, (31, 1), 5),
]


def test_each_shape_gets_the_fastest_plane_that_it_fits() -> None:
    names = [found.name if (found := plane(shape)) else None for shape in SHAPES]
    assert names == [
        "depthwise_3x3_16_32",
        "depthwise_3x3_5_64",
        "depthwise_3x3_2_4",
        "depthwise_3x3_7_6",
        "depthwise_3x3_1x1_2_1023",
        "depthwise_3x3_2x2_24_8",
        "depthwise_5x5_1x1_11_24",
        "depthwise_1x5_1x1_48_64",
        "depthwise_1x7_2x2_49_24",
        "depthwise_1x3_1x1_41_511",
        "depthwise_1x4_2x2_20_3",
        "depthwise_3x1_1x1_1_5",
    ]
    assert plane(shape_of((3, 3), 3, (9, 9), 8)) is None
    assert plane(shape_of((1, 3), 1, (1, 41), 512)) is None
    assert plane(shape_of((11, 11), 1, (20, 20), 8)) is None


TARGETS = {
    0: ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"],
    1: ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"],
}


@pytest.mark.parametrize("target", [0, 1], ids=["fpu", "no fpu"])
def test_planes_take_the_code_bytes_that_are_counted(target: int, tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    elffile = pytest.importorskip("elftools.elf.elffile")
    (tmp_path / "names.h").write_text("#define NAS(name) test_##name\n")
    for shape in SHAPES:
        found = plane(shape)
        assert found is not None
        source, result = tmp_path / f"{found.name}.S", tmp_path / f"{found.name}.o"
        source.write_text(found.text)
        command = [sys.executable, "-m", "ziglang", "cc", *TARGETS[target], f"-I{tmp_path}"]
        subprocess.run([*command, f"-I{RUNTIME}", "-c", str(source), "-o", str(result)], check=True)
        with result.open("rb") as stream:
            section = elffile.ELFFile(stream).get_section_by_name(f".text.test_{found.name}")
            assert section["sh_size"] == found.code_bytes[target], found.name
