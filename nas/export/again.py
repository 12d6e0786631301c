"""Writes the C of a finished candidate again, with another prefix or to another folder."""

from pathlib import Path

import numpy as np

from nas.deploy.c_bundle import TEMPLATES, TEST_VECTORS, c_bundle
from nas.deploy.c_text import check_prefix
from nas.errors import BuildError, RunError
from nas.export.bundle import describe, step_bundle, write_c
from nas.export.emulate import prefix_of
from nas.hardware.memory import MemoryPlan, check_plan
from nas.hardware.profile import Profile
from nas.hardware.program import program_of
from nas.hardware.stepwise import stepwise
from nas.network.integer import load_integer_model
from nas.network.random_model import random_inputs
from nas.network.streaming import why_not
from nas.run_folder import read_json

KERNEL_SUFFIXES = (".c", ".h", ".S", ".inc", ".o")


def write_again(
    run: Path, name: str, prefix: str, out: Path, steps: bool = False
) -> dict[str, str]:
    """Writes the bundle of candidate `name` to `out` and returns its files; test inputs are random.

    Args:
        steps: the form that runs step by step.

    Raises:
        RunError: no such candidate, a prefix that is no C identifier, a folder of something else,
            a network that does not run step by step.
    """
    check_prefix(prefix)
    folder = run / "candidates" / name
    if not folder.is_dir():
        raise RunError(f"{folder}: no such candidate; nas pick {run} lists them")
    _check_out(out)
    document = read_json(folder / "architecture.json")
    model = load_integer_model(folder / "model.npz")
    if absent := [key for key in ("plan", "classes", "inputs") if key not in document]:
        raise RunError(
            f"{folder / 'architecture.json'}: no {absent[0]!r}; it was written by another version"
        )
    plan = MemoryPlan.from_json(document["plan"])
    check_plan(model.graph, plan)
    try:
        profile = Profile.from_dict(read_json(run / "run.json")["profile"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{run}/run.json: profile: {error}; written by another version") from None
    program = program_of(model.graph, plan, profile.flash_wait_states)
    inputs = random_inputs(model.graph, TEST_VECTORS, np.random.default_rng(0))
    about = describe(f"Candidate {name}", document["classes"], document["inputs"])
    if steps:
        held = stepwise(model.graph, profile)
        if held is None:
            reason = why_not(model.graph) or f"that form is too large for {profile.name}"
            raise RunError(f"{name}: does not run step by step: {reason}")
        files = step_bundle(model, held, inputs, about, prefix)
    else:
        files = c_bundle(model, program, inputs, about, prefix)
    write_c(out, files)
    return files


def _check_out(out: Path) -> None:
    """RunError where writing a bundle would overwrite or delete what no bundle has brought."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; choose another --out")
    found = [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
    if not found:
        return
    try:
        prefix = prefix_of(out)
    except BuildError:
        raise RunError(f"{out}: holds something else than a bundle; choose another --out") from None
    known = {*TEMPLATES, "test_vectors.h", "main.c.o", "check"}  # the last are what make brings
    known |= {f"{prefix}.c", f"{prefix}.h", f"{prefix}.c.o", f"lib{prefix}.a"}
    for path in found:
        is_kernel = path.parts[0] == "kernels" and path.suffix in KERNEL_SUFFIXES
        if not is_kernel and path.as_posix() not in known:
            raise RunError(f"{out}: holds {path}, which is of no bundle; choose another --out")
