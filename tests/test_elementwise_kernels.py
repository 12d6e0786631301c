from typing import TypeAlias

import numpy as np
import pytest
from host_kernels import Buffer, library, structure
from numpy.typing import NDArray

from nas.network.numerics import Int8, Int64, quantise_multiplier, rescale
from nas.network.reference import ADD_SHIFT

Factor: TypeAlias = tuple[int, int]


def random_int8(rng: np.random.Generator, *shape: int) -> Int8:
    """One in three of them at the ends of the range."""
    if rng.integers(3) == 0:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def scaled(values: Int64, factor: Factor) -> Int64:
    return rescale(values, np.array([factor[0]]), np.array([factor[1]]), "double")


def clipped(values: NDArray[np.int64], low: int = -128) -> Int8:
    return np.clip(values, low, 127).astype(np.int8)


def call(name: str, *arguments: object) -> None:
    kernel = getattr(library(f"{name}.c"), f"test_{name}")
    kernel(*(a.address if isinstance(a, Buffer) else a for a in arguments))


@pytest.mark.parametrize("function", ["max", "average"])
@pytest.mark.parametrize("seed", range(40))
def test_pools(function: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, channels = (int(n) for n in rng.integers(1, [9, 24, 12]))
    kernel = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
    stride = int(rng.integers(1, kernel[0] + 1)), int(rng.integers(1, kernel[1] + 1))
    x = random_int8(rng, height, width, channels)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, (0, 1)).astype(np.int64)
    windows = windows[:: stride[0], :: stride[1]]
    expected = windows.max(axis=(3, 4))
    if function == "average":
        total, count = windows.sum(axis=(3, 4)), kernel[0] * kernel[1]
        expected = np.sign(total) * ((np.abs(total) + count // 2) // count)
    sizes = (width, channels, *expected.shape[:2], *kernel, *stride)
    source = Buffer(x.tobytes())
    target = source if seed % 2 else Buffer(bytes(expected.size))
    call(f"{function}_pool", structure([], "8H", *sizes), source, target)
    assert (target.int8()[: expected.size] == expected.ravel()).all()


@pytest.mark.parametrize("seed", range(60))
def test_add(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right, out = np.exp(rng.uniform(-6, 3, 3))
    if seed % 5 == 0:
        right = left
    common = 2 * max(left, right)
    reals = left / common, right / common, common / ((1 << ADD_SHIFT) * out)
    factors = [quantise_multiplier(float(real)) for real in reals]
    zeros = [int(z) for z in rng.integers(-128, 128, 3)]
    low = max(-128, zeros[2]) if rng.integers(2) else -128
    values = [random_int8(rng, 37) for _ in range(2)]
    total = np.zeros(37, np.int64)
    for x, factor, zero in zip(values, factors, zeros, strict=False):
        total += scaled((x.astype(np.int64) - zero) << ADD_SHIFT, factor)
    flat = [n for factor in factors for n in factor]
    buffers = [Buffer(x.tobytes()) for x in values]
    target = [*buffers, Buffer(bytes(37))][seed % 3]
    call("add", structure([], "6i4b", *flat, *zeros, low), *buffers, target, 37)
    assert (target.int8() == clipped(scaled(total, factors[2]) + zeros[2], low)).all()


@pytest.mark.parametrize("seed", range(40))
def test_mul(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor = quantise_multiplier(float(np.exp(rng.uniform(-20, 4))))
    zeros = [int(z) for z in rng.integers(-128, 128, 3)]
    values = [random_int8(rng, 37) for _ in range(2)]
    product = values[0].astype(np.int64) - zeros[0]
    product *= values[1].astype(np.int64) - zeros[1]
    buffers = [Buffer(x.tobytes()) for x in values]
    target = [*buffers, Buffer(bytes(37))][seed % 3]
    call("mul", structure([], "2i3b", *factor, *zeros), *buffers, target, 37)
    assert (target.int8() == clipped(scaled(product, factor) + zeros[2])).all()


@pytest.mark.parametrize("size", [0, 1, 3, 4, 17, 64])
def test_look_up_fill_and_clip(size: int) -> None:
    rng = np.random.default_rng(size)
    x, table = random_int8(rng, size), random_int8(rng, 256)
    target = Buffer(x.tobytes())
    call("look_up", Buffer(table.tobytes()), target, target, size)
    assert (target.int8() == table[x.astype(np.int64) + 128]).all()
    target = Buffer(x.tobytes())
    call("clip", target, -5, size)
    assert (target.int8() == np.maximum(x, -5)).all()
    call("fill", target, -7, size)
    assert (target.int8() == -7).all()


@pytest.mark.parametrize("row_bytes", [1, 4, 15, 16, 39])
def test_copied_rows_leave_what_is_between_them(row_bytes: int) -> None:
    rng = np.random.default_rng(row_bytes)
    source, target = random_int8(rng, 5, row_bytes + 3), random_int8(rng, 5, row_bytes + 7)
    x, y = Buffer(source.tobytes()), Buffer(target.tobytes())
    call("copy_rows", x, row_bytes + 3, y, row_bytes + 7, row_bytes, 5)
    target[:, :row_bytes] = source[:, :row_bytes]
    assert (y.int8() == target.ravel()).all()
