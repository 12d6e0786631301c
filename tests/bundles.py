"""Bundles of made-up models, and what compiles and runs them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from integer_models import Case

from nas.calibration.measure import roomy
from nas.deploy.c_bundle import Description, c_bundle
from nas.deploy.to_c import Normalisation
from nas.deploy.toolchain import Compiler, find_compiler
from nas.export.bundle import write_c
from nas.export.emulate import UNNAMED, Bench
from nas.hardware.memory import plan_memory
from nas.hardware.profile import load_profile
from nas.hardware.program import Program, program_of
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.ops import Add, Conv2d, Op, Pool
from nas.network.random_model import random_inputs, with_random_numbers

PROFILE = replace(roomy(load_profile("cortex-m4-64k")), ram_bytes=256 << 10)


def bench(cache: Path, has_fpu: bool = False, compiler: Compiler | None = None) -> Bench:
    """A chip with room for any model."""
    profile = replace(PROFILE, core="cortex-m4f" if has_fpu else "cortex-m4")
    return Bench(profile, compiler or find_compiler(), cache)


def planned(graph: Graph, stages: bool = True) -> Program:
    """With all weights in RAM that the arena has room for, or with none."""
    wait_states = PROFILE.flash_wait_states if stages else 0
    return program_of(graph, plan_memory(graph), wait_states)


def put(
    folder: Path,
    model: IntegerModel,
    inputs: dict[str, Int8],
    program: Program | None = None,
    about: Description = UNNAMED,
    prefix: str = "model",
) -> Path:
    """Writes the bundle of `model` to `folder`, in the place of any earlier one."""
    write_c(folder, c_bundle(model, program or planned(model.graph), inputs, about, prefix))
    return folder


def extreme_inputs(graph: Graph, rng: np.random.Generator, count: int = 2) -> dict[str, Int8]:
    """Random inputs, then all -128, all 127, and both in turn."""
    inputs = random_inputs(graph, count, rng)
    for name, values in inputs.items():
        turn = np.where(np.arange(values[0].size) % 2, 127, -128).reshape(values[0].shape)
        most = [np.full(values[0].shape, v) for v in (-128, 127)]
        inputs[name] = np.concatenate([values, np.stack([*most, turn]).astype(np.int8)])
    return inputs


def merged(cases: Sequence[Case], rng: np.random.Generator) -> IntegerModel:
    """One model of many unrelated operators, each with inputs of its own."""
    inputs: list[Input] = []
    ops: list[Op] = []
    for number, (op, shapes) in enumerate(cases):
        names = {f"in{i}": f"in{number}_{i}" for i in range(len(shapes))}
        inputs += [Input(names[f"in{i}"], shape) for i, shape in enumerate(shapes)]
        ops.append(replace(op, name=f"o{number}", inputs=tuple(names[i] for i in op.inputs)))
    return with_random_numbers(Graph(tuple(inputs), tuple(ops), ops[-1].name), rng)


def small_graph(names: Sequence[str] = ("accel",)) -> Graph:
    """A classifier of three classes: a convolution and a pool for each input."""
    inputs = tuple(Input(name, (1, 12, 2 + i)) for i, name in enumerate(names))
    ops: list[Op] = []
    ends = []
    for number, name in enumerate(names):
        conv, pool = f"conv{number}", f"pool{number}"
        ops.append(Conv2d(conv, (name,), 5, (1, 3), (1, 1), "same", (8, 4, 2)[number % 3], True))
        ops.append(Pool(pool, (conv,), "average", (1, 12), (1, 1)))
        ops.append(Conv2d(f"end{number}", (pool,), 3, (1, 1), (1, 1), "valid", 8, False))
        ends.append(f"end{number}")
    while len(ends) > 1:
        left, right = ends.pop(0), ends.pop(0)
        ends.append(f"sum{len(ops)}")
        ops.append(Add(ends[-1], (left, right), False))
    return Graph(inputs, tuple(ops), ends[0])


def small_model(names: Sequence[str] = ("accel",), seed: int = 0) -> IntegerModel:
    return with_random_numbers(small_graph(names), np.random.default_rng(seed))


def described(model: IntegerModel, **named: Sequence[str] | str) -> Description:
    """A description in which every input has a normalisation."""
    normalisation = {
        i.name: Normalisation([0.25 * c - 0.1 for c in range(i.shape[2])], [1.5] * i.shape[2])
        for i in model.graph.inputs
    }
    title, classes = named.get("title", "A model"), named.get("classes", ("a", "b", "c"))
    return Description(str(title), list(classes), normalisation)
