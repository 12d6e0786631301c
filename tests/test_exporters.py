"""The exported files in the runtimes that users have: every operator, then whole random models.

A runtime is compared with the reference in that runtime's own rounding, and must be equal.
"""

import zlib
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from integer_models import (
    ONE,
    OPERATOR_CASES,
    Case,
    random_model,
    single,
    with_ties,
)

from nas.errors import ToolMissing, UnsupportedOp
from nas.export import runtimes, tflite_writer, to_onnx, to_onnx_integer, to_tflite
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel, Scale
from nas.network.numerics import Int8, Rounding
from nas.network.op_rules import OPS
from nas.network.ops import (
    STREAMING,
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Mul,
    Op,
    Pad,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Shape,
    Table,
)
from nas.network.random_model import random_inputs, with_random_numbers

Run = Callable[[IntegerModel, dict[str, Int8]], Int8]


def _onnx(model: IntegerModel, inputs: dict[str, Int8]) -> Int8:
    return runtimes.run_onnx(to_onnx_integer.to_onnx_integer(model), inputs)


def _qdq(model: IntegerModel, inputs: dict[str, Int8]) -> Int8:
    return runtimes.run_onnx(to_onnx.to_onnx(model), inputs)


def _tflm(model: IntegerModel, inputs: dict[str, Int8]) -> Int8:
    pytest.importorskip("tflite_micro", reason="wheels for Linux on x86-64 only")
    return runtimes.run_tflm(to_tflite.to_tflite(model), inputs)


def _litert(model: IntegerModel, inputs: dict[str, Int8]) -> Int8:
    return runtimes.run_litert(to_tflite.to_tflite(model), inputs)


EXACT: dict[str, Run] = {"onnx": _onnx, "tflm": _tflm, "ai-edge-litert": _litert}
EXPORTERS = (to_onnx, to_onnx_integer, to_tflite)


def differing(runtime: str, model: IntegerModel, inputs: dict[str, Int8]) -> int:
    """Number of outputs of `runtime` that are not the reference's in its mode."""
    got = EXACT[runtime](model, inputs)
    wanted = reference.run(model, inputs, runtimes.ROUNDING[runtime])
    assert got.dtype == np.int8
    assert got.shape == (len(wanted), wanted[0].size)
    return int((got != wanted.reshape(got.shape)).sum())


def _name(case: object) -> str:
    if not isinstance(case, Conv2d | DepthwiseConv2d):
        return type(case).__name__ if not isinstance(case, list) else "x".join(map(str, case[0]))
    text = f"{case.kernel}{case.stride}".replace(", ", "").replace(")(", "s").strip("()")
    return f"{type(case).__name__}-{text}-{case.padding}-{case.weight_bits}"


@pytest.mark.parametrize("runtime", EXACT)
@pytest.mark.parametrize(("op", "shapes"), OPERATOR_CASES, ids=_name)
def test_operator_equals_the_reference(op: Op, shapes: list[Shape], runtime: str) -> None:
    rng = np.random.default_rng(zlib.crc32(f"{op} {shapes}".encode()))
    model = single(op, shapes, rng)
    assert differing(runtime, model, random_inputs(model.graph, 8, rng)) == 0


def test_every_operator_is_tested_and_has_every_row() -> None:
    assert {type(op) for op, _ in OPERATOR_CASES} == set(OPS) - set(STREAMING)
    assert set(reference.KERNELS) == set(OPS)
    for exporter in EXPORTERS:
        assert set(exporter.ROWS) == set(OPS) - set(STREAMING)


@pytest.mark.parametrize("runtime", EXACT)
@pytest.mark.parametrize("first", range(0, 40, 8))
def test_random_models_equal_the_reference(first: int, runtime: str) -> None:
    for seed in range(first, first + 8):
        rng = np.random.default_rng(seed)
        model = random_model(rng)
        assert differing(runtime, model, random_inputs(model.graph, 16, rng)) == 0, seed


@pytest.mark.parametrize("runtime", EXACT)
@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_extreme_zero_points(zero_point: int, runtime: str) -> None:
    ops: tuple[Op, ...] = (
        Conv2d("a", ("x",), 4, (3, 3), (1, 1), "same", 8, True),
        DepthwiseConv2d("b", ("a",), (3, 3), (2, 2), "same", 4, False),
        Pad("c", ("b",), (1, 0, 0, 2)),
        Pool("d", ("c",), "average", (2, 2), (1, 1)),
        Add("e", ("d", "d"), True),
        Mul("f", ("e", "d")),
    )
    rng = np.random.default_rng(5)
    model = with_random_numbers(Graph((Input("x", (6, 7, 3)),), ops, "f"), rng)
    scales = {name: Scale(s.scale, zero_point) for name, s in model.scales.items()}
    extreme = replace(model, scales=scales)
    assert differing(runtime, extreme, random_inputs(model.graph, 8, rng)) == 0


@pytest.mark.parametrize("runtime", EXACT)
@pytest.mark.parametrize("elements", [4096, 15])  # whole vectors only, and less than one
@pytest.mark.parametrize("kind", [Add, Mul])
def test_all_pairs_at_scales_that_make_ties(
    kind: type[Add] | type[Mul], elements: int, runtime: str
) -> None:
    pairs = np.stack(np.meshgrid(*[np.arange(-128, 128, dtype=np.int8)] * 2)).reshape(2, -1)
    rows = pairs.shape[1] // elements
    left, right = pairs[:, : rows * elements].reshape(2, rows, 1, 1, elements)
    for model in with_ties(kind, elements):
        assert differing(runtime, model, {"in0": left, "in1": right}) == 0


@pytest.mark.parametrize("runtime", EXACT)
def test_an_output_that_is_an_input(runtime: str) -> None:
    model = with_random_numbers(Graph((Input("x", (1, 3, 2)),), (), "x"), np.random.default_rng(0))
    assert differing(runtime, model, random_inputs(model.graph, 3, np.random.default_rng(0))) == 0


def test_the_comparison_notices_one_changed_weight() -> None:
    rng = np.random.default_rng(3)
    model = random_model(rng)
    name, held = next(iter(model.weights.items()))
    changed = replace(model, weights={**model.weights, name: replace(held, bias=held.bias + 4000)})
    inputs = random_inputs(model.graph, 16, rng)
    wanted = reference.run(model, inputs)
    for run in EXACT.values():
        got = run(changed, inputs)
        assert (got != wanted.reshape(got.shape)).any()


def test_litert_rounds_in_its_own_way() -> None:
    """Were it equal to `double` as well, its own mode would have no reason to exist."""
    rng = np.random.default_rng(4)
    op = Conv2d("o", ONE, 8, (3, 3), (1, 1), "same", 2, False)
    model = single(op, [(8, 8, 4)], rng)
    inputs = random_inputs(model.graph, 20, rng)
    got = _litert(model, inputs)
    assert (got != reference.run(model, inputs, "double").reshape(got.shape)).any()


def _qdq_cases() -> list[Case]:
    """Each seventh and all of series; in longer attention an error of one score grows."""
    series = (Attention, SelectiveScan, Positions, LastStep)
    chosen = [
        case for i, case in enumerate(OPERATOR_CASES) if i % 7 == 0 or isinstance(case[0], series)
    ]
    return [case for case in chosen if not (isinstance(case[0], Attention) and case[1][0][1] > 20)]


def test_qdq_decides_as_the_reference() -> None:
    """Logits within 2 steps, and the same class in more than 98 of 100 random inputs."""
    agreeing = total = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        model = random_model(rng)
        inputs = random_inputs(model.graph, 64, rng)
        got = _qdq(model, inputs).astype(int)
        wanted = reference.run(model, inputs).reshape(got.shape).astype(int)
        assert np.abs(got - wanted).max() <= 3
        agreeing += int((got.argmax(axis=1) == wanted.argmax(axis=1)).sum())
        total += len(got)
    assert agreeing / total > 0.98


@pytest.mark.parametrize(("op", "shapes"), _qdq_cases(), ids=_name)
def test_qdq_of_one_operator_is_a_step_away_at_most(op: Op, shapes: list[Shape]) -> None:
    rng = np.random.default_rng(0)
    model = single(op, shapes, rng)
    inputs = random_inputs(model.graph, 8, rng)
    got = _qdq(model, inputs)
    wanted = reference.run(model, inputs).reshape(got.shape)
    exact = Concat | Pad | Pool | Reshape | Table | SelectiveScan | LastStep
    most = 0 if isinstance(op, exact) else 1
    assert np.abs(got.astype(int) - wanted).max() <= most


@pytest.mark.parametrize("kernel", [(2, 2), (3, 2), (4, 4), (1, 7)])
def test_qdq_average_pool_is_exact(kernel: tuple[int, int]) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        model = single(Pool("o", ONE, "average", kernel, (1, 1)), [(9, 9, 4)], rng)
        inputs = random_inputs(model.graph, 16, rng)
        got = _qdq(model, inputs)
        assert (got == reference.run(model, inputs).reshape(got.shape)).all()


# ---------------------------------------------------------------- the files


def _mixed() -> IntegerModel:
    ops: tuple[Op, ...] = (
        Conv2d("eight", ("image",), 3, (3, 3), (1, 1), "same", 8, False),
        Conv2d("four", ("eight",), 3, (3, 3), (1, 1), "same", 4, False),
        DepthwiseConv2d("two", ("four",), (3, 3), (1, 1), "same", 2, False),
        Pool("mean", ("two",), "average", (4, 5), (1, 1)),
        Conv2d("motion", ("acc",), 3, (1, 8), (1, 1), "valid", 8, False),
        Concat("both", ("mean", "motion", "vector")),
        Conv2d("classes", ("both",), 4, (1, 1), (1, 1), "valid", 8, False),
    )
    inputs = (Input("image", (4, 5, 2)), Input("acc", (1, 8, 6)), Input("vector", (1, 1, 5)))
    return with_random_numbers(Graph(inputs, ops, "classes"), np.random.default_rng(0))


MIXED = _mixed()


@pytest.mark.parametrize("write", [to_onnx.to_onnx, to_onnx_integer.to_onnx_integer])
def test_onnx_file(write: Callable[[IntegerModel], bytes]) -> None:
    model = onnx.load_from_string(write(MIXED))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 21 and model.ir_version == 10
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert list(shapes) == ["image", "acc", "vector", "logits"]
    assert shapes == {
        "image": ["N", 4, 5, 2],
        "acc": ["N", 8, 6],
        "vector": ["N", 5],
        "logits": ["N", 4],
    }
    kinds = {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.INT8}
    assert write(MIXED) == write(MIXED)


def test_qdq_holds_four_bit_weights_in_four_bits() -> None:
    graph = onnx.load_from_string(to_onnx.to_onnx(MIXED)).graph
    stored = {tuple(c.dims): c.data_type for c in graph.initializer if len(c.dims) == 4}
    assert stored == {
        (3, 2, 3, 3): onnx.TensorProto.INT8,
        (3, 3, 3, 3): onnx.TensorProto.INT4,
        (3, 1, 3, 3): onnx.TensorProto.INT8,
        (3, 6, 1, 8): onnx.TensorProto.INT8,
        (4, 11, 1, 1): onnx.TensorProto.INT8,
    }


@pytest.mark.parametrize("run", [_onnx, _qdq])
def test_onnx_batch_is_free(run: Run) -> None:
    rng = np.random.default_rng(1)
    inputs = random_inputs(MIXED.graph, 9, rng)
    whole = run(MIXED, inputs)
    rows = [run(MIXED, {k: v[n : n + 1] for k, v in inputs.items()}) for n in range(9)]
    assert (whole == np.concatenate(rows)).all()


def _tflite(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def test_tflite_file() -> None:
    data = to_tflite.to_tflite(MIXED)
    assert data[4:8] == b"TFL3" and data == to_tflite.to_tflite(MIXED)
    main = _tflite(data).subgraphs[0]
    inputs = [main.tensors[i] for i in main.inputs]
    assert [t.name.decode() for t in inputs] == ["image", "acc", "vector"]
    assert [t.shape.tolist() for t in inputs] == [[1, 4, 5, 2], [1, 1, 8, 6], [1, 1, 1, 5]]
    assert len(main.outputs) == 1
    output = main.tensors[main.outputs[0]]
    assert (output.name, output.shape.tolist()) == (b"logits", [1, 4])
    ends = zip((*inputs, output), ("image", "acc", "vector", "classes"), strict=True)
    for tensor, name in ends:
        held = tensor.quantization
        assert held.scale.tolist() == [MIXED.scales[name].scale]
        assert held.zeroPoint.tolist() == [MIXED.scales[name].zero_point]
        assert tensor.type == schema.TensorType.INT8


def test_tflite_output_that_is_flat_already_is_not_reshaped() -> None:
    op = Reshape("o", ONE, (12,))
    model = single(op, [(2, 3, 2)], np.random.default_rng(0))
    main = _tflite(to_tflite.to_tflite(model)).subgraphs[0]
    assert [main.tensors[main.outputs[0]].name, len(main.operators)] == [b"logits", 1]


def test_tflite_signature_names_the_inputs() -> None:
    signature = _tflite(to_tflite.to_tflite(MIXED)).signatureDefs[0]
    assert [entry.name for entry in signature.inputs] == [b"image", b"acc", b"vector"]
    assert [entry.name for entry in signature.outputs] == [b"logits"]


def test_tflite_operator_versions_are_the_lowest() -> None:
    model = _tflite(to_tflite.to_tflite(MIXED))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
    assert {(names[c.builtinCode], c.version) for c in model.operatorCodes} == {
        ("CONV_2D", 3),
        ("CONV_2D", 7),  # int4
        ("DEPTHWISE_CONV_2D", 7),
        ("AVERAGE_POOL_2D", 2),
        ("CONCATENATION", 2),
        ("RESHAPE", 1),
    }


def test_tflite_stores_low_bits_in_four() -> None:
    model = _tflite(to_tflite.to_tflite(MIXED))
    held = {t.name.decode(): t for t in model.subgraphs[0].tensors}
    kinds = schema.TensorType
    for name, kind, length in (("eight", kinds.INT8, 54), ("four", kinds.INT4, 41)):
        tensor = held[f"{name}/weights"]
        assert (tensor.type, len(model.buffers[tensor.buffer].data)) == (kind, length)
    two = held["two/weights"]
    assert (two.type, len(model.buffers[two.buffer].data)) == (kinds.INT4, 14)
    assert two.quantization.quantizedDimension == 3


def test_tflite_constants_lie_at_multiples_of_16() -> None:
    data = to_tflite.to_tflite(MIXED)
    model = schema.Model.GetRootAsModel(data, 0)
    checked = 0
    for i in range(model.BuffersLength()):
        table = model.Buffers(i)._tab
        field = table.Offset(4)
        if field:
            assert table.Vector(field) % 16 == 0
            checked += 1
    assert checked == 11  # weights and bias of five convolutions, one shape


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda m: m.__name__)
def test_an_operator_without_a_row(exporter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    write = getattr(exporter, exporter.__name__.rpartition(".")[2])
    monkeypatch.delitem(exporter.ROWS, Pool)
    with pytest.raises(UnsupportedOp, match=r"mean: the .* exporter has no row for Pool, only"):
        write(MIXED)


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda m: m.__name__)
def test_weight_bits_without_a_row(exporter: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    write = getattr(exporter, exporter.__name__.rpartition(".")[2])
    monkeypatch.delitem(exporter.STORED_BITS, 4)
    with pytest.raises(
        UnsupportedOp, match=r"four: the .* exporter has no row for 4-bit weights, only for 8, 2"
    ):
        write(MIXED)


@pytest.mark.parametrize("exporter", (to_onnx, to_onnx_integer), ids=lambda m: m.__name__)
def test_a_modality_named_as_the_output(exporter: ModuleType) -> None:
    graph = Graph((Input("logits", (1, 1, 3)),), (Table("t", ("logits",), "tanh"),), "t")
    model = with_random_numbers(graph, np.random.default_rng(0))
    with pytest.raises(UnsupportedOp, match="input 'logits' has the name of the output"):
        getattr(exporter, exporter.__name__.rpartition(".")[2])(model)


@pytest.mark.parametrize(
    ("run", "remedy"),
    [
        (runtimes.run_onnx, "pip install onnxruntime"),
        (runtimes.run_tflm, r"pip install tflite-micro \(its wheels exist for Linux on x86-64"),
        (runtimes.run_litert, "pip install ai-edge-litert"),
    ],
)
def test_a_missing_runtime(
    run: Callable[..., Int8], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> ModuleType:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(runtimes.importlib, "import_module", refuse)  # type: ignore[attr-defined]
    with pytest.raises(ToolMissing, match=f"cannot be loaded .*: {remedy}"):
        run(b"", {"x": np.zeros((1, 1, 1, 1), np.int8)})


def test_a_missing_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_writer, "schema", None)
    with pytest.raises(ToolMissing, match="pip install ai-edge-litert flatbuffers"):
        to_tflite.to_tflite(MIXED)


def test_each_runtime_has_a_rounding() -> None:
    assert runtimes.ROUNDING == {
        "onnx": "double",
        "tflm": "double",
        "ai-edge-litert": "double_up",
        "tflite-runtime": "double_up_dense",
    }


def test_the_predecessor_of_litert_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtimes.lite_runtime().package == "ai-edge-litert"
    stand_in = ModuleType("interpreter")

    def load(name: str) -> ModuleType:
        if name == "tflite_runtime.interpreter":
            return stand_in
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(runtimes.importlib, "import_module", load)  # type: ignore[attr-defined]
    monkeypatch.setattr(runtimes.importlib.metadata, "version", lambda package: f"1 of {package}")  # type: ignore[attr-defined]
    lite = runtimes.lite_runtime()
    assert (lite.version, lite.rounding) == ("1 of tflite-runtime", "double_up_dense")
    assert lite.interpreter is stand_in


def test_the_predecessor_rounds_up_in_dense_convolutions_only() -> None:
    """`make tflite-runtime` compares with the runtime itself; here only where the modes part."""
    rng = np.random.default_rng(4)
    depthwise = DepthwiseConv2d("o", ONE, (3, 3), (1, 1), "same", 2, False)
    dense = Conv2d("o", ONE, 16, (3, 3), (1, 1), "same", 2, False)
    for model, as_in in (
        (single(depthwise, [(8, 8, 16)], rng), "double"),
        (single(dense, [(8, 8, 16)], rng), "double_up"),
        (with_ties(Add, 4096)[0], "double"),
        (with_ties(Mul, 4096)[2], "double_up"),
    ):
        inputs = random_inputs(model.graph, 20, rng)
        modes: tuple[Rounding, ...] = ("double", "double_up", "double_up_dense")
        outputs = {mode: reference.run(model, inputs, mode) for mode in modes}
        assert (outputs["double"] != outputs["double_up"]).any(), model.graph.ops
        assert (outputs["double_up_dense"] == outputs[as_in]).all(), model.graph.ops
