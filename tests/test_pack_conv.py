"""Packed weights of convolutions, and the C kernels that read them, on this machine."""

import ctypes
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.network.numerics import Int8, rescale
from nas.packing import pack_conv, pack_low_bits
from nas.packing.channels import Channels

RUNTIME = Path(pack_conv.__file__).parents[1] / "runtime"
FLAGS = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
CHECKED = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
GUARD = 64  # bytes on both sides of what a kernel may write


def packed(name: str, values: Int8, rows: int) -> NDArray[np.uint32]:
    """Weights as kernel `name` reads them."""
    count, inner = values.shape
    if "_8" in name:
        words = pack_conv.pack_8(values, rows, name.endswith("wide"))
        assert words.nbytes == pack_conv.packed_bytes(inner, count)
    elif "_4" in name:
        words = pack_low_bits.pack_4(values, rows)
        assert words.nbytes == pack_low_bits.packed_bytes_4(inner, count)
    else:
        words = pack_low_bits.pack_2(values, rows)
        assert words.nbytes == pack_low_bits.packed_bytes_2(inner, count)
    return words


@dataclass(frozen=True)
class Layer:
    """A convolution and all it computes with; padding to the right and bottom as the sizes say."""

    x: Int8  # (height, width, in channels)
    channels: Channels
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    out: tuple[int, int]
    in_zero: int

    @property
    def row(self) -> int:
        return self.kernel[1] * int(self.x.shape[2])

    @property
    def span(self) -> tuple[int, int]:
        """Rows and columns that all windows reach over."""
        return (
            (self.out[0] - 1) * self.stride[0] + self.kernel[0],
            (self.out[1] - 1) * self.stride[1] + self.kernel[1],
        )

    @property
    def is_padded(self) -> bool:
        height, width, _ = self.x.shape
        return any(self.pad) or self.span[0] > height or self.span[1] > width

    def expected(self) -> Int8:
        """(pixels, out channels), from the definition."""
        height, width, depth = self.x.shape
        top, left = self.pad
        full = np.full(
            (max(self.span[0], top + height), max(self.span[1], left + width), depth),
            self.in_zero,
            np.int64,
        )
        full[top : top + height, left : left + width] = self.x
        windows = np.lib.stride_tricks.sliding_window_view(full, self.kernel, axis=(0, 1))
        windows = windows[:: self.stride[0], :: self.stride[1]][: self.out[0], : self.out[1]]
        columns = windows.transpose(0, 1, 3, 4, 2).reshape(self.out[0] * self.out[1], -1)
        held = self.channels
        sums = columns @ held.values.astype(np.int64).T + held.bias
        shift = -held.right_shift.astype(np.int64)
        scaled = rescale(sums, held.multiplier.astype(np.int64), shift, "double")
        result: Int8 = np.clip(scaled + held.out_zero, -128, 127).astype(np.int8)
        return result

    def scratch(self, name: str) -> int:
        rows = self.kernel[0]
        if name.startswith("fully_connected"):
            return pack_conv.single_scratch_bytes(rows, self.row, self.is_padded)
        spacing = self.stride[1] * self.x.shape[2]
        return pack_conv.scratch_bytes(
            rows, self.row, spacing, self.span[0], self.out[1], self.is_padded
        )

    def computed(self, library: ctypes.CDLL, name: str) -> Int8:
        """(pixels, out channels) of kernel `name`, which must leave everything else alone."""
        held = self.channels
        weights = packed(name, held.values, self.kernel[0])
        table = pack_conv.table(held)
        count = len(held.values)
        assert table.nbytes == pack_conv.table_bytes(count)
        y, scratch = (
            np.full(2 * GUARD + size, 0x5A, np.int8)
            for size in (self.out[0] * self.out[1] * count, self.scratch(name))
        )
        sizes = (*self.x.shape, *self.out, count, *self.kernel, *self.stride, *self.pad)
        conv = struct.pack(
            "PP6H6B2b4x",
            weights.ctypes.data,
            table.ctypes.data,
            *sizes,
            self.in_zero,
            held.out_zero,
        )
        x = np.ascontiguousarray(self.x)
        arguments = (x.ctypes.data, y.ctypes.data + GUARD, scratch.ctypes.data + GUARD)
        library[f"t_{name}"](conv, *(ctypes.c_void_p(a) for a in arguments))
        for buffer in (y, scratch):
            assert (np.delete(buffer, np.s_[GUARD:-GUARD]) == 0x5A).all(), "wrote outside"
        result: Int8 = y[GUARD:-GUARD].reshape(-1, count)
        return result


def shifts(rng: np.random.Generator, bound: NDArray[np.int64], count: int) -> NDArray[np.int8]:
    """Shifts to both sides that a sum of up to `bound` may have; most give outputs within int8."""
    usual = np.log2(bound + 1).astype(np.int64) - rng.integers(5, 12, count)
    any_shift = rng.integers(-20, 24, count)
    chosen = np.where(rng.random(count) < 0.8, usual, any_shift).clip(-20, 23)
    least = np.ceil(np.log2(bound + 1)).astype(np.int64) - 29
    result: NDArray[np.int8] = np.maximum(chosen, least).astype(np.int8)
    return result


def random_layer(rng: np.random.Generator) -> Layer:
    """Any small sizes; every third layer has extreme weights and inputs."""
    pick = [int(v) for v in rng.integers(1, 13, 2)]
    depth, count = int(rng.integers(1, 20)), int(rng.integers(1, 10))
    kernel = [int(v) for v in rng.integers(1, 6, 2)]
    stride = [int(v) for v in rng.integers(1, 4, 2)]
    if rng.random() < 0.3:
        kernel, stride, depth = [1, 1], [1, 1], int(rng.integers(1, 200))
    elif rng.random() < 0.3:  # padded rows too long to be copied
        pick, depth = (
            [int(rng.integers(1, 7)), int(rng.integers(170, 300))],
            int(rng.integers(1, 4)),
        )
    pad = [int(rng.integers(0, k)) for k in kernel]
    after = [int(rng.integers(0, k)) for k in kernel]
    out = [
        max((n + b + a - k) // s + 1, 1)
        for n, b, a, k, s in zip(pick, pad, after, kernel, stride, strict=True)
    ]
    inner = kernel[0] * kernel[1] * depth
    x = rng.integers(-128, 128, (*pick, depth)).astype(np.int8)
    values = rng.integers(-127, 128, (count, inner)).astype(np.int8)
    if rng.random() < 0.3:
        x = rng.choice([-128, 127], x.shape, p=[0.9, 0.1]).astype(np.int8)
        values[:] = rng.choice([-127, 127], (count, 1))
    in_zero = int(rng.integers(-128, 128))
    bias = rng.integers(-20000, 20001, count) - in_zero * values.sum(axis=1, dtype=np.int64)
    bound = np.abs(bias) + 128 * np.abs(values.astype(np.int64)).sum(axis=1)
    channels = Channels(
        values,
        bias.astype(np.int32),
        rng.integers(1 << 30, 1 << 31, count).astype(np.int32),
        shifts(rng, bound, count),
        int(rng.integers(-128, 128)),
    )
    return Layer(
        x,
        channels,
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (pad[0], pad[1]),
        (out[0], out[1]),
        in_zero,
    )


def build_library(folder: Path) -> ctypes.CDLL:
    """The convolutions as this machine's compiler builds them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: install gcc or clang")
    (folder / "names.h").write_text("#define NAS(name) t_##name\n")
    parts = (
        "conv*.c",
        "fully_connected_*.c",
        "window.c",
        "copy_padded.c",
        "portable_*.c",
        "copy_rows.c",
        "fill.c",
    )
    sources = [str(path) for part in parts for path in sorted(RUNTIME.glob(part))]
    target = folder / "conv.so"
    command = [
        compiler,
        *FLAGS,
        *CHECKED,
        f"-I{folder}",
        f"-I{RUNTIME}",
        *sources,
        "-o",
        str(target),
    ]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build_library(tmp_path_factory.mktemp("conv"))


@pytest.mark.parametrize("seed", range(150))
def test_kernels_compute_what_numpy_does(library: ctypes.CDLL, seed: int) -> None:
    layer = random_layer(np.random.default_rng(seed))
    wide = [""] if layer.channels.values.shape[1] <= pack_conv.LARGEST_PACKED else []
    for suffix in [*wide, "_wide"]:
        for kind in ("conv_8", "fully_connected_8"):
            result = layer.computed(library, kind + suffix)
            np.testing.assert_array_equal(result, layer.expected())


def test_the_largest_packed_inner_product_is_exact(library: ctypes.CDLL) -> None:
    inner = pack_conv.LARGEST_PACKED
    ones = np.ones(3, np.int64)
    channels = Channels(
        np.full((3, inner), 127, np.int8),
        np.zeros(3, np.int32),
        (ones << 30).astype(np.int32),
        (16 * ones).astype(np.int8),
        0,
    )
    x = np.full((2, 2, inner), -128, np.int8)
    layer = Layer(x, channels, (1, 1), (1, 1), (0, 0), (2, 2), 0)
    assert (layer.expected() == -64).all()  # 512 * 127 * -128 / 2^17 is -63.5
    np.testing.assert_array_equal(layer.computed(library, "conv_8"), layer.expected())


@pytest.mark.parametrize(
    ("inner", "rows", "order"),
    [
        (1, 1, [[0, -1]]),
        (4, 1, [[0, 2], [1, 3]]),
        (7, 1, [[0, 2], [1, 3], [4, 5], [6, -1]]),
        (8, 2, [[0, 2], [1, 3], [4, 6], [5, 7]]),
        (10, 2, [[0, 2], [1, 3], [5, 7], [6, 8], [4, 9]]),
        (9, 3, [[0, 1], [2, 3], [4, 5], [6, 7], [8, -1]]),
    ],
)
def test_lanes_are_whole_words_of_rows_then_what_is_left(
    inner: int, rows: int, order: list[list[int]]
) -> None:
    assert pack_conv.lane_order(inner, rows).tolist() == order


def test_words_hold_two_channels() -> None:
    values = np.array([[-1, 2], [3, -4], [5, 6]], np.int8)
    # 256 * 3 - 1 and 256 * -4 + 2; the last channel is alone.
    assert pack_conv.pack_8(values, 1, wide=False).tolist() == [0xFC0202FF, 0x00060005]
    assert pack_conv.pack_8(values, 1, wide=True).tolist() == [0xFC0203FF, 0x00060005]


def test_tables_hold_doubled_biases_and_both_directions_of_shifts() -> None:
    channels = Channels(
        np.zeros((3, 1), np.int8),
        np.array([5, -6, 7], np.int32),
        np.array([1 << 30, (1 << 30) + 1, (1 << 30) + 2], np.int32),
        np.array([9, 0, -3], np.int8),
        0,
    )
    words = pack_conv.table(channels).view(np.uint32).tolist()
    assert words[:5] == [2**32 - 12, (1 << 30) + 1, 10, 1 << 30, 0x80080000]
    assert words[5:] == [0, 0, 14, (1 << 30) + 2, 0x00038000]


def test_sizes() -> None:
    assert pack_conv.packed_bytes(27, 16) == 8 * 14 * 4
    assert pack_conv.packed_bytes(27, 15) == 8 * 14 * 4
    assert pack_conv.table_bytes(15) == 160
    assert (pack_conv.is_wide(512), pack_conv.is_wide(513)) == (False, True)
    # 3x3 over 16x16x3: 14 k-pairs of four pixels, 9 rows of 18 pixels of 3 bytes
    assert pack_conv.scratch_bytes(3, 9, 3, 18, 16, padded=True) == 14 * 16 + 488
    # 3x3 over 16x16x16: rows of 288 bytes are too long, a tile's row has 6 * 16
    assert pack_conv.scratch_bytes(3, 48, 16, 18, 16, padded=True) == 72 * 16 + 96
    assert pack_conv.scratch_bytes(1, 32, 32, 8, 8, padded=False) == 16 * 16
    assert pack_conv.single_scratch_bytes(1, 255, padded=False) == 512
