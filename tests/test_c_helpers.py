"""A bundle as a library of this machine: its helpers for real values against the task's own."""

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import described, planned, put, small_model
from numpy.typing import NDArray

from nas.data.task import Modality
from nas.deploy.c_bundle import Description
from nas.deploy.to_c import Normalisation
from nas.deploy.toolchain import compile_host, find_host_compiler
from nas.network import reference
from nas.network.integer import Scale
from nas.network.numerics import Int8
from nas.network.random_model import random_inputs


class Library:
    """A bundle as a library of this machine, with an arena between guards."""

    def __init__(self, folder: Path, arena_bytes: int) -> None:
        out = folder.parent / "model.so"
        sources = [folder / "model.c", *sorted((folder / "kernels").glob("*.[cS]"))]
        compile_host(
            find_host_compiler(), sources, out, cache=folder.parent, include=[folder], shared=True
        )
        self.c = ctypes.CDLL(str(out))
        self.bytes = arena_bytes
        self.memory = np.full(arena_bytes // 4 + 16, 0xA5A5A5A5, np.uint32).view(np.uint8)
        self.first = 32

    @property
    def arena(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.memory.ctypes.data + self.first)

    def at(self, offset: int, size: int) -> Int8:
        start = self.first + offset
        held: Int8 = self.memory[start : start + size].view(np.int8).copy()
        return held

    def whole(self) -> bool:
        """Whether nothing was written outside of the arena."""
        end = self.first + self.bytes
        return bool((self.memory[: self.first] == 0xA5).all() and (self.memory[end:] == 0xA5).all())


def modality(scale: float, zero: int, mean: list[float], std: list[float]) -> Modality:
    f32 = np.float32
    return Modality(
        "accel",
        np.zeros((1, 12, 2), f32),
        None,
        None,
        np.array(mean, f32),
        np.array(std, f32),
        float(f32(scale)),
        zero,
    )


def values_of(m: Modality, count: int) -> NDArray[np.float32]:
    """Random values of all sizes, ties and their neighbours, and what is out of range."""
    rng = np.random.default_rng(0)
    q = rng.integers(-140, 140, (count, 12, 2)) + rng.choice((0.0, 0.5, 0.25), (count, 12, 2))
    real = (q * m.input_scale * m.std + m.mean).astype(np.float32)
    real = np.nextafter(real, real + rng.integers(-1, 2, real.shape).astype(np.float32))
    far = rng.choice((0, 1e-3, 1e9, -1e30, np.inf, -np.inf, -0.0), real.shape)
    chosen: NDArray[np.float32] = np.where(rng.random(real.shape) < 0.1, far, real)
    return chosen.astype(np.float32)


@pytest.mark.parametrize(
    "m",
    [
        modality(0.25, 0, [0.0, 0.0], [1.0, 1.0]),  # every half is a tie
        modality(0.0317, -3, [0.125, -7.3], [1.5, 0.01]),
        modality(1e-6, 127, [1e4, -1e-4], [300.0, 1e-5]),
        modality(40.0, -128, [0.0, 5.0], [1e-3, 2e5]),
    ],
    ids=["ties", "usual", "fine", "coarse"],
)
def test_quantise_is_that_of_the_task(m: Modality, tmp_path: Path) -> None:
    """Both compute in float32, step by step: not one value may differ, ties included.

    Data that are stored with a float64 scale or offset are normalised in float64 in training; see
    the next test.
    """
    model = small_model(("accel",))
    model = replace(model, scales={**model.scales, "accel": Scale(m.input_scale, m.zero_point)})
    held = Normalisation(m.mean.tolist(), m.std.tolist())
    about = Description("x", (), {"accel": held})
    inputs = random_inputs(model.graph, 2, np.random.default_rng(0))
    program = planned(model.graph)
    folder = put(tmp_path / "c", model, inputs, program, about)
    library = Library(folder, program.workspace.bytes)
    real = values_of(m, 400)
    told = replace(m, values=real)
    wanted = told.quantised(np.arange(len(real)))
    place = program.plan.offsets["accel"]
    for row, expected in zip(real, wanted, strict=True):
        row = np.ascontiguousarray(row)
        library.c.model_quantise_accel(library.arena, row.ctypes.data_as(ctypes.c_void_p))
        assert (library.at(place, row.size) == expected.ravel()).all()
    nothing = np.full(real[0].shape, np.nan, np.float32)
    library.c.model_quantise_accel(library.arena, nothing.ctypes.data_as(ctypes.c_void_p))
    assert (library.at(place, nothing.size) == max(-128, m.zero_point - 512)).all()
    assert library.whole()


def test_quantise_of_wide_data(tmp_path: Path) -> None:
    """With a float64 scale the training's values may be one step off, and only next to a tie."""
    rng = np.random.default_rng(1)
    stored = rng.integers(-30000, 30000, (2000, 12, 2)).astype(np.int16)
    m = modality(0.0317, 0, [0.125, -7.3], [1.5, 3.7])
    wide = replace(m, values=stored, scale=np.array(0.000613), offset=np.array([0.1, -7.0]))
    real = wide.real(np.arange(len(stored)))
    assert real.dtype == np.float64
    narrow = replace(m, values=real.astype(np.float32))
    every = np.arange(len(stored))
    apart = wide.quantised(every).astype(int) - narrow.quantised(every)
    assert np.abs(apart).max() <= 1
    exact = (real - m.mean) / m.std / m.input_scale
    to_tie = np.abs(exact - np.floor(exact) - 0.5).reshape(apart.shape)
    assert (to_tie[apart != 0] < 1e-4).all() and (apart != 0).mean() < 1e-3


def test_run_and_dequantise(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    model = small_model(("accel", "gyro"), seed=4)
    inputs = random_inputs(model.graph, 5, rng)
    program = planned(model.graph)
    folder = put(tmp_path / "c", model, inputs, program, described(model))
    library = Library(folder, program.workspace.bytes)
    expected = reference.run(model, inputs)
    scale = model.scales[model.graph.output]
    for row in range(5):
        for name, values in inputs.items():
            start = library.first + program.plan.offsets[name]
            data = values[row].ravel().view(np.uint8)
            library.memory[start : start + data.size] = data
        library.c.model_run(library.arena)
        got = library.at(program.plan.offsets[model.graph.output], 3)
        assert (got == expected[row].ravel()).all()
        logits = np.zeros(3, np.float32)
        library.c.model_dequantise(library.arena, logits.ctypes.data_as(ctypes.c_void_p))
        real = (got.astype(np.int32) - scale.zero_point).astype(np.float32)
        assert (logits == real * np.float32(scale.scale)).all()
    assert library.whole()
