"""The compiled layers.compute what the tensor operations do, in every order of memory."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas.deploy import host_library as host_library_module
from nas.deploy.host_library import host_library, library_file
from nas.errors import ToolMissing
from nas.training import fused
from nas.training.fake_quantise import (
    fake_quantise,
    follow_and_quantise,
    quantise_weight,
    weight_scale,
)

SHAPES = [(64, 16, 1, 16), (3, 5, 7, 11), (1,), (40,), (2, 3, 4, 5)]
RANGES = [(-128.0, 127.0, 127.0), (0.0, 255.0, 255.0), (-32768.0, 32767.0, 32767.0)]


def by_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "takes", lambda _: False)


def values(shape: tuple[int, ...], order: str) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(shape) * 3
    if order == "channels last" and len(shape) == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if order == "gaps":
        return torch.randn(*shape, 2)[..., 0] * 3
    return x


def gradients(x: Tensor) -> Tensor:
    """Different everywhere, and in the plain order of memory."""
    return torch.arange(x.numel(), dtype=torch.float32).view(x.shape)


@pytest.mark.parametrize("order", ("plain", "channels last", "gaps"))
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("low", "high", "most"), RANGES)
def test_activations(
    low: float, high: float, most: float, shape: tuple[int, ...], order: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert fused.library() is not None, "this machine has a compiler"
    found = []
    for momentum in (0.05, 1.0):
        for compiled in (True, False):
            if not compiled:
                by_operations(monkeypatch)
            x, peak = values(shape, order).requires_grad_(), torch.tensor(1.3)
            y = follow_and_quantise(x, peak, momentum, most, low, high)
            y.backward(gradients(y))
            again = fake_quantise(x, torch.tensor(0.0213), low, high)
            found.append((y.detach(), peak, x.grad, again.detach()))
        monkeypatch.undo()
        mine, other = found[-2:]
        torch.testing.assert_close(mine[1], other[1], rtol=1e-6, atol=0)
        torch.testing.assert_close(mine[0], other[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(mine[2], other[2], rtol=0, atol=0)
        assert torch.equal(mine[3], other[3])


@pytest.mark.parametrize("compiled", (True, False))
def test_a_range_that_has_seen_nothing_begins_anew(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        by_operations(monkeypatch)
    peak = torch.tensor(0.0)
    for size, expected in ((0.0, 0.0), (2.0, 2.0), (4.0, 2.1)):
        follow_and_quantise(torch.tensor([-size, size / 2]), peak, 0.05, 127.0, -128.0, 127.0)
        assert peak.item() == pytest.approx(expected)


@pytest.mark.parametrize("bits", (8, 4, 2))
def test_weights(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    found = []
    for compiled in (True, False):
        if not compiled:
            by_operations(monkeypatch)
        w = torch.randn(7, 3, 5, 2, generator=torch.Generator().manual_seed(3)).requires_grad_()
        y, scale = quantise_weight(w, bits)
        y.backward(gradients(y))
        found.append((y.detach(), scale, w.grad))
        torch.testing.assert_close(scale, weight_scale(w, bits), rtol=1e-6, atol=0)
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def test_ties_go_to_even_and_clipping_stops_the_gradient() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9, 3.4], requires_grad=True)
    y = fake_quantise(x, torch.tensor(1.0), -3.0, 3.0)
    assert y.tolist() == [0.0, 2.0, 2.0, -0.0, -2.0, 3.0, -3.0, 3.0]
    y.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1, 1, 1, 1, 1, 0, 0, 1]


def test_what_is_no_number_stays_none() -> None:
    x = torch.tensor([float("nan"), 1.0])
    assert torch.isnan(fake_quantise(x, torch.tensor(0.1), -128.0, 127.0)).tolist() == [True, False]


def test_doubles_go_by_operations() -> None:
    x = torch.tensor([0.26], dtype=torch.float64)
    y = fake_quantise(x, torch.tensor(0.1), -128.0, 127.0)
    assert y.dtype == torch.float64 and y.item() == pytest.approx(0.3)


def test_without_a_compiler_operations_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ToolMissing("cc: no C compiler for this machine")

    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(host_library_module, "find_host_compiler", missing)
    assert fused.library.__wrapped__() is None


def test_a_library_is_compiled_once_and_for_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = ("nas.training", "layers.c", tmp_path, ("-O3", "-march=native"))
    made = host_library(*what)
    assert made == library_file(*what) and os.listdir(tmp_path) == [made.name]
    monkeypatch.setattr(host_library_module, "find_host_compiler", lambda: pytest.fail("compiled"))
    assert host_library(*what) == made
    monkeypatch.setattr(host_library_module, "_features", lambda: "flags: another")
    assert library_file(*what) != made != library_file(*what[:3], ("-O3",))
