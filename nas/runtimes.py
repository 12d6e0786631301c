"""Runs exported files in the runtimes that users have: ONNX Runtime, TFLM and LiteRT.

Each function takes a file's bytes and int8 inputs (n, height, width, channels) by modality, and
returns the int8 logits (n, classes). All run on one thread. A runtime is compared with the
reference in the rounding mode that `ROUNDING` gives for it, and must then be equal.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from nas.errors import ToolMissing
from nas.numerics import Int8, Rounding

ROUNDING: dict[str, Rounding] = {"onnx": "double", "tflm": "double", "litert": "double_up"}

_ARENA_BYTES = 32 << 20  # TFLM's working memory on the host; only what is used is ever touched


def run_onnx(data: bytes, inputs: Mapping[str, Int8]) -> Int8:
    """Logits of an .onnx file, either kind, in ONNX Runtime with its default optimisations."""
    runtime = _import("onnxruntime", "pip install onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
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
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=_ARENA_BYTES)
    # The interpreter knows inputs by position, the file by name.
    main = runtime.schema_fb.Model.GetRootAsModel(data, 0).Subgraphs(0)
    names = [main.Tensors(main.Inputs(i)).Name().decode() for i in range(main.InputsLength())]
    arrays = [inputs[name] for name in names]
    rows = []
    for n in range(len(arrays[0])):
        for i, values in enumerate(arrays):
            interpreter.set_input(np.ascontiguousarray(values[n : n + 1]), i)
        interpreter.invoke()
        rows.append(interpreter.get_output(0).reshape(-1).copy())
    return np.asarray(rows, np.int8)


def run_litert(data: bytes, inputs: Mapping[str, Int8]) -> Int8:
    """Logits of a .tflite file in LiteRT's own kernels, without XNNPACK or another delegate."""
    interpreter_module = _litert()
    kernels = interpreter_module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = interpreter_module.Interpreter(
        model_content=data, experimental_op_resolver_type=kernels, num_threads=1
    )
    interpreter.allocate_tensors()
    indices = {d["name"]: d["index"] for d in interpreter.get_input_details()}
    output = interpreter.get_output_details()[0]["index"]
    rows = []
    for n in range(len(next(iter(inputs.values())))):
        for name, index in indices.items():
            interpreter.set_tensor(index, inputs[name][n : n + 1])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(output).reshape(-1).copy())
    return np.asarray(rows, np.int8)


def _litert() -> Any:
    """LiteRT's interpreter module, or that of its predecessor, which needs numpy below 2."""
    try:
        return importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        return _import("tflite_runtime.interpreter", "pip install ai-edge-litert")


def _import(module: str, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ToolMissing(f"{module.split('.')[0]} cannot be loaded ({error}): {remedy}") from None
