"""Packed weights of 4 and 2 bits, and the C kernels that read them, on this machine."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from test_pack_conv import Layer, build_library, random_layer, shifts

from nas.packing import pack_low_bits
from nas.packing.channels import Channels

LIMIT = {4: 7, 2: 1}  # the largest weight
KERNELS = {
    4: ["conv_4", "conv_4_wide", "fully_connected_4", "fully_connected_4_wide"],
    2: ["conv_2", "conv_2_wide", "fully_connected_2"],
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build_library(tmp_path_factory.mktemp("low_bits"))


def low_bits_layer(rng: np.random.Generator, bits: int) -> Layer:
    """A random layer; some have weights at their limits only."""
    layer = random_layer(rng)
    shape, limit = layer.channels.values.shape, LIMIT[bits]
    values = rng.integers(-limit, limit + 1, shape)
    if rng.random() < 0.3:
        values[:] = rng.choice([-limit, limit], (shape[0], 1))
    bias = rng.integers(-500, 501, shape[0]) - layer.in_zero * values.sum(axis=1)
    bound = np.abs(bias) + 128 * np.abs(values).sum(axis=1)
    channels = replace(
        layer.channels,
        values=values.astype(np.int8),
        bias=bias.astype(np.int32),
        right_shift=shifts(rng, bound, shape[0]),
    )
    return replace(layer, channels=channels)


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.parametrize("bits", [4, 2])
def test_kernels_compute_what_numpy_does(library: ctypes.CDLL, bits: int, seed: int) -> None:
    layer = low_bits_layer(np.random.default_rng(seed), bits)
    for name in KERNELS[bits]:
        np.testing.assert_array_equal(layer.computed(library, name), layer.expected())


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("inner", [1, 2, 3, 32, 33, 64, 512, 514, 1020, 1024, 4100])
def test_inner_products_at_the_kernels_limits(library: ctypes.CDLL, bits: int, inner: int) -> None:
    signs = np.array([1, -1, 1, -1, 1, -1], np.int8)
    values = np.repeat((signs * LIMIT[bits])[:, None], inner, axis=1)
    values[4:, inner // 2 :] *= -1
    channels = Channels(
        values,
        np.arange(6, dtype=np.int32),
        np.full(6, 1 << 30, np.int32),
        np.full(6, 5, np.int8),
        3,
    )
    for value in (-128, 127):
        x = np.full((2, 2, inner), value, np.int8)
        layer = Layer(x, channels, (1, 1), (1, 1), (0, 0), (2, 2), 0)
        for name in KERNELS[bits]:
            np.testing.assert_array_equal(layer.computed(library, name), layer.expected())


def test_words_of_4_bits_hold_four_channels() -> None:
    values = np.array([[1, -2], [3, -4], [-5, 6], [7, -7], [2, 0]], np.int8)
    first = 4096 * 7 - 256 * 5 + 16 * 3 + 1
    second = (-4096 * 7 + 256 * 6 - 16 * 4 - 2) & 0xFFFF
    assert pack_low_bits.pack_4(values, 1).tolist() == [second << 16 | first, 2]


def test_words_of_2_bits_hold_two_k_pairs_of_four_channels() -> None:
    # Inputs (0, 2), then (1, 3) and (4, none); even channels' zeros are 1.
    values = np.zeros((4, 5), np.int8)
    assert pack_low_bits.pack_2(values, 1).tolist() == [0x11001100, 0x11111111]
    values[3, 0] = -1  # bits 14 and 15, turned by 8 for the k-pair and 4 for the channel pair
    values[0, 4] = 1  # bits 0 and 1, turned by 8
    assert pack_low_bits.pack_2(values, 1).tolist() == [0x1D001100, 0x11111211]


def test_sizes() -> None:
    assert pack_low_bits.packed_bytes_4(27, 16) == 4 * 14 * 4
    assert pack_low_bits.packed_bytes_4(27, 13) == 4 * 14 * 4
    assert pack_low_bits.packed_bytes_2(27, 16) == 4 * 7 * 4
    assert pack_low_bits.packed_bytes_2(32, 2) == 8 * 4
    assert (pack_low_bits.is_wide_4(512), pack_low_bits.is_wide_4(513)) == (False, True)
    assert (pack_low_bits.is_wide_2(1020), pack_low_bits.is_wide_2(1021)) == (False, True)
