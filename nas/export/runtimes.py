"""Runs exported files in the runtimes that users have: ONNX Runtime, TFLM and LiteRT.

Where LiteRT (ai-edge-litert) is not installed its predecessor tflite-runtime takes its place, with
the rounding of its own; `lite_runtime` says which one it is.

Each function takes a file's bytes and int8 inputs (n, height, width, channels) by modality, and
returns the int8 logits (n, classes). All run on one thread. A runtime is compared with the
reference in the rounding mode that `ROUNDING` gives for it, and must then be equal. A runtime that
cannot run a file raises Refusal: none is known to refuse what the exporters write.
"""

import importlib
import importlib.metadata
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from nas.errors import Refusal, ToolMissing
from nas.network.numerics import Int8, Rounding

ROUNDING: dict[str, Rounding] = {
    "onnx": "double",
    "tflm": "double",
    "ai-edge-litert": "double_up",
    "tflite-runtime": "double_up_dense",
}

REFUSED = "cannot run this file"  # in the message of every Refusal

_ARENA_BYTES = 32 << 20  # TFLM's working memory on the host; only what is used is ever touched


@dataclass(frozen=True, slots=True)
class LiteRuntime:
    """The package that runs .tflite files here, and how it rounds."""

    package: str
    version: str
    rounding: Rounding
    interpreter: Any


def lite_runtime() -> LiteRuntime:
    """LiteRT, or its predecessor where LiteRT is not installed.

    Raises:
        ToolMissing: neither is.
    """
    for package in ("ai-edge-litert", "tflite-runtime"):
        try:
            module = importlib.import_module(f"{package.replace('-', '_')}.interpreter")
        except ImportError as error:
            reason = error
        else:
            version = importlib.metadata.version(package)
            return LiteRuntime(package, version, ROUNDING[package], module)
    raise ToolMissing(
        f"ai-edge-litert cannot be loaded (nor can tflite-runtime: {reason}):"
        " pip install ai-edge-litert"
    )


def run_onnx(data: bytes, inputs: Mapping[str, Int8]) -> Int8:
    """Logits of an .onnx file, either kind, in ONNX Runtime with its default optimisations."""
    runtime = _import("onnxruntime", "pip install onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with _refusals("ONNX Runtime"):
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        feed = {}
        for declared in session.get_inputs():
            values = inputs[declared.name]
            feed[declared.name] = values.reshape(len(values), *declared.shape[1:])
        return np.asarray(session.run(None, feed)[0], np.int8)


def run_tflm(data: bytes, inputs: Mapping[str, Int8]) -> Int8:
    """Logits of a .tflite file in TensorFlow Lite Micro's interpreter."""
    runtime = _import(
        "tflite_micro.python.tflite_micro.runtime",
        "pip install tflite-micro (its wheels exist for Linux on x86-64 only)",
    )
    with _refusals("TFLM"):
        interpreter = runtime.Interpreter.from_bytes(data, arena_size=_ARENA_BYTES)
    # The interpreter knows inputs by position, the file by name.
    main = runtime.schema_fb.Model.GetRootAsModel(data, 0).Subgraphs(0)
    names = [main.Tensors(main.Inputs(i)).Name().decode() for i in range(main.InputsLength())]
    arrays = [inputs[name] for name in names]
    rows = []
    for n in range(len(arrays[0])):
        for i, values in enumerate(arrays):
            interpreter.set_input(np.ascontiguousarray(values[n : n + 1]), i)
        with _refusals("TFLM"):
            interpreter.invoke()
        rows.append(interpreter.get_output(0).reshape(-1).copy())
    return np.asarray(rows, np.int8)


def tflm_arena_bytes(data: bytes) -> int | None:
    """Arena that TFLM's interpreter takes for a .tflite file; None where it is not installed or
    cannot run the file.

    Of the 64-bit interpreter, whose pointers are larger: on a Cortex-M4 it is 2 to 6 % less, but
    for the scratch of CMSIS-NN's kernels, which this one does not have.
    """
    try:
        runtime = importlib.import_module("tflite_micro.python.tflite_micro.runtime")
    except ImportError:
        return None
    try:
        interpreter = runtime.Interpreter.from_bytes(data, arena_size=_ARENA_BYTES)
    except Exception:  # `run_tflm` says why it refuses the file
        return None
    found = re.search(r"Arena allocation total (\d+) bytes", _stderr_of(interpreter))
    return int(found[1]) if found else None


def _stderr_of(interpreter: Any) -> str:
    """What the interpreter's C++ prints of its allocations, which only the descriptor sees."""
    with tempfile.TemporaryFile() as file:
        held = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            interpreter.print_allocations()
        finally:
            os.dup2(held, 2)
            os.close(held)
        file.seek(0)
        return file.read().decode(errors="replace")


def run_litert(data: bytes, inputs: Mapping[str, Int8]) -> Int8:
    """Logits of a .tflite file in `lite_runtime`'s own kernels, without XNNPACK or a delegate."""
    lite = lite_runtime()
    module = lite.interpreter
    kernels = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with _refusals(lite.package):
        interpreter = module.Interpreter(
            model_content=data, experimental_op_resolver_type=kernels, num_threads=1
        )
        interpreter.allocate_tensors()
    indices = {d["name"]: d["index"] for d in interpreter.get_input_details()}
    output = interpreter.get_output_details()[0]["index"]
    rows = []
    for n in range(len(next(iter(inputs.values())))):
        for name, index in indices.items():
            interpreter.set_tensor(index, inputs[name][n : n + 1])
        with _refusals(lite.package):
            interpreter.invoke()
        rows.append(interpreter.get_tensor(output).reshape(-1).copy())
    return np.asarray(rows, np.int8)


@contextmanager
def _refusals(runtime: str) -> Iterator[None]:
    """What a runtime raises of a file that it cannot run, as one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # each runtime has classes of its own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Refusal(f"{runtime} {REFUSED}: {first}") from None


def _import(module: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ToolMissing(f"{module.split('.')[0]} cannot be loaded ({error}): {remedy}") from None
