"""Our .tflite files in tflite-runtime, LiteRT's predecessor: `make tflite-runtime` runs this.

It needs numpy below 2 and Python 3.11 at most, so it has an environment of its own, without
anything else of ours: `write DIR` makes the files in the usual environment, `check DIR` runs them
in the other one and compares every output with the reference.
"""

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np

from nas.deploy.toolchain import Compiler
from nas.export import runtimes, verify
from nas.export.emulate import Bench
from nas.hardware.profile import load_profile
from nas.network import reference
from nas.network.integer import load_integer_model
from nas.network.numerics import Int8, Rounding

MODELS, INPUTS = 40, 16


def write(folder: Path) -> None:
    """Every operator case and `MODELS` random models of each kind; the last as a candidate."""
    from integer_models import OPERATOR_CASES, random_model, single, with_ties
    from sequence_graphs import FAMILIES, random_sequence

    from nas.export.to_onnx import to_onnx
    from nas.export.to_onnx_integer import to_onnx_integer
    from nas.export.to_tflite import to_tflite
    from nas.network.ops import Add, Mul
    from nas.network.random_model import with_random_numbers

    rng = np.random.default_rng(0)
    models = [single(op, shapes, rng) for op, shapes in OPERATOR_CASES]
    models += [m for kind in (Add, Mul) for size in (4096, 15) for m in with_ties(kind, size)]
    models += [
        with_random_numbers(random_sequence(random.Random(seed), family), rng)
        for family in FAMILIES
        for seed in range(MODELS)
    ]
    models += [random_model(rng) for _ in range(MODELS)]
    for number, model in enumerate(models):
        (folder / f"{number}.npz").write_bytes(model.to_bytes())
        (folder / f"{number}.tflite").write_bytes(to_tflite(model))
    candidate = folder / "candidate"
    candidate.mkdir()
    files = {"model.npz": model.to_bytes(), "model.tflite": to_tflite(model)}
    files |= {"model.onnx": to_onnx(model), "model_integer.onnx": to_onnx_integer(model)}
    for name, data in files.items():
        (candidate / name).write_bytes(data)


def check(folder: Path) -> None:
    """Ends with an AssertionError where an output is not the reference's."""
    assert importlib.util.find_spec("ai_edge_litert") is None, "this environment has LiteRT"
    lite = runtimes.lite_runtime()
    assert (lite.package, lite.rounding) == ("tflite-runtime", "double_up_dense")
    outputs = 0
    differing: dict[Rounding, int] = dict.fromkeys(("double", "double_up", "double_up_dense"), 0)
    files = sorted(folder.glob("*.tflite"), key=lambda file: int(file.stem))
    assert len(files) > MODELS
    for file in files:
        model = load_integer_model(file.with_suffix(".npz"))
        inputs = _inputs(file)
        seen = runtimes.run_litert(file.read_bytes(), inputs)
        outputs += seen.size
        for rounding in differing:
            expected = reference.run(model, inputs, rounding).reshape(seen.shape)
            count = int((seen != expected).sum())
            differing[rounding] += count
            ok = rounding != lite.rounding or count == 0
            assert ok, f"{file.name}: {count} of {seen.size} outputs differ in {lite.package}"
    assert differing["double"] and differing["double_up"], "its rounding would need no name"
    inputs = _inputs(folder / "candidate" / "model.tflite")
    nothing = Compiler((), "zig", "none: there is no C to compile")
    bench = Bench(load_profile("cortex-m4-64k"), nothing, folder)
    result = verify.verify_candidate(folder / "candidate", inputs, bench).verification
    seen_check = result.runtimes[2]
    assert seen_check.runtime == f"tflite-runtime {lite.version}, model.tflite"
    assert seen_check.compared > 0 and seen_check.differing == 0
    assert result.verified == "no"  # the other runtimes are not installed here
    print(
        f"{lite.package} {lite.version}, numpy {np.__version__}: {len(files)} models,"
        f" {outputs:,} outputs, {differing[lite.rounding]} differ from the reference"
    )


def _inputs(file: Path) -> dict[str, Int8]:
    model = load_integer_model(file.with_suffix(".npz"))
    rng = np.random.default_rng(1)
    return {
        source.name: rng.integers(-128, 128, (INPUTS, *source.shape)).astype(np.int8)
        for source in model.graph.inputs
    }


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
