"""Networks with attention, scans and causal layers in the runtimes that users have."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from integer_models import ONE, OPERATOR_CASES, single
from sequence_graphs import FAMILIES, Family, random_sequence
from test_exporters import EXACT, EXPORTERS, Run, _onnx, _qdq, differing

from nas.errors import GraphError, Mismatch, Refusal, UnsupportedOp
from nas.export import runtimes, tflite_sequence, to_onnx, to_onnx_integer, to_tflite, verify
from nas.export.verification import Verification, require_equal
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.integer import LARGEST_SKIP, IntegerModel, Scale
from nas.network.numerics import Int8, quantise_multiplier
from nas.network.ops import (
    Attention,
    Conv2d,
    History,
    LastStep,
    Op,
    Running,
    SelectiveScan,
    Shape,
    Table,
)
from nas.network.random_model import random_inputs, with_random_numbers
from nas.network.softmax import exponentials, softmax, softmax_in_float

FIVE = tuple(f"in{i}" for i in range(5))
THREE = FIVE[:3]
SEED_OF_A_WEIGHT = 571_735_145  # of which one rounds differently in float32


def sequence(family: Family, seed: int, count: int = 8) -> tuple[IntegerModel, dict[str, Int8]]:
    rng = np.random.default_rng(seed)
    model = with_random_numbers(random_sequence(random.Random(seed), family), rng)
    return model, random_inputs(model.graph, count, rng)


@pytest.mark.parametrize("runtime", EXACT)
@pytest.mark.parametrize("family", FAMILIES)
def test_random_sequences_equal_the_reference(family: Family, runtime: str) -> None:
    for seed in range(6):
        assert differing(runtime, *sequence(family, seed)) == 0, seed


def attention() -> tuple[IntegerModel, dict[str, Int8]]:
    rng = np.random.default_rng(6)
    model = single(Attention("o", THREE, 2), [(1, 24, 8)] * 3, rng)
    return model, random_inputs(model.graph, 30, rng)


def scan(states: int = 4) -> tuple[IntegerModel, dict[str, Int8]]:
    rng = np.random.default_rng(7)
    wide, narrow = (1, 24, 6), (1, 24, states)
    shapes: list[Shape] = [wide, wide, narrow, narrow, wide]
    model = single(SelectiveScan("o", FIVE, False), shapes, rng)
    return model, random_inputs(model.graph, 10, rng)


@pytest.mark.parametrize("runtime", EXACT)
@pytest.mark.parametrize("make", [attention, scan])
@pytest.mark.parametrize("zero_point", [-128, 127])
def test_extreme_values(
    make: Callable[[], tuple[IntegerModel, dict[str, Int8]]], zero_point: int, runtime: str
) -> None:
    """Inputs at both ends of int8, which saturate scores, states and sums; any zero point."""
    model, inputs = make()
    scales = {**model.scales, "o": Scale(model.scales["o"].scale, zero_point)}
    ends = {name: np.where(x < 0, -128, 127).astype(np.int8) for name, x in inputs.items()}
    for factor in (
        1 / 1024,
        1 / 64,
        1.0,
        16.0,
    ):  # of the inner scale: what saturates, what is all zero
        inner = next(name for name in scales if "/" in name)
        held = {**scales, inner: Scale(model.scales[inner].scale * factor, 0)}
        assert differing(runtime, replace(model, scales=held), ends) == 0


@pytest.mark.parametrize("runtime", EXACT)
def test_nearly_forgetting_and_nearly_keeping(runtime: str) -> None:
    """Steps dt so wide that a state is replaced at once, or kept for good."""
    model, inputs = scan()
    for scale in (2.0**-12, 0.5):
        scales = {**model.scales, "in1": Scale(scale, 0)}
        assert differing(runtime, replace(model, scales=scales), inputs) == 0


def test_litert_takes_the_softmax_in_float() -> None:
    """In a few of a million weights, so the mode is compared where they differ."""
    rng = np.random.default_rng(0)
    scores = rng.integers(-128, 128, (20_000, 64)).astype(np.int8)
    ours, theirs = softmax(scores, exponentials(0.0237)), softmax_in_float(scores, 0.0237)
    differences = np.abs(ours.astype(int) - theirs)
    assert differences.max() == 1 and 0 < differences.sum() < 100
    rows = (differences > 0).any(1)
    assert (_softmax_of_litert(scores[rows], 0.0237) == theirs[rows]).all()


def test_attention_differs_between_runtimes() -> None:
    """In LiteRT by its softmax alone; its predecessor rounds products half up besides."""
    rng = np.random.default_rng(SEED_OF_A_WEIGHT)
    model = single(Attention("o", THREE, 2), [(1, 33, 16)] * 3, rng)
    inputs = random_inputs(model.graph, 16, rng)
    tflm, lite, old = (
        reference.run(model, inputs, mode) for mode in ("double", "double_up", "double_up_dense")
    )
    assert 0 < (lite != tflm).sum() < 10 < (old != tflm).sum()
    assert differing("ai-edge-litert", model, inputs) == 0


def _softmax_of_litert(scores: Int8, scale: float) -> Int8:
    """A file of one softmax, in LiteRT."""
    source = Scale(float(np.float32(scale)), 0)
    graph = Graph((Input("x", (1, 1, scores.shape[1])),), (Table("o", ("x",), "tanh"),), "o")
    model = IntegerModel(graph, {"x": source, "o": Scale(1 / 256, -128)}, {})

    def row(writer: Any, op: Op) -> None:
        inputs, out = [writer.tensors["x"]], writer.activation("o")
        writer.op("SOFTMAX", 2, inputs, out, "SoftmaxOptions", beta=1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(to_tflite.ROWS, Table, row)
        data = to_tflite.to_tflite(model)
    return runtimes.run_litert(data, {"x": scores[:, None, None]})


def test_one_changed_number_is_noticed() -> None:
    model, inputs = scan()
    held = model.weights["o"]
    other = replace(model, weights={"o": replace(held, bias=held.bias + 3000)})
    for run in EXACT.values():
        assert (run(other, inputs) != reference.run(model, inputs).reshape(10, -1)).any()


@pytest.mark.parametrize("run", [_onnx, _qdq])
@pytest.mark.parametrize("make", [attention, scan])
def test_onnx_batch_is_free(
    make: Callable[[], tuple[IntegerModel, dict[str, Int8]]], run: Run
) -> None:
    model, inputs = make()
    rows = [run(model, {k: v[n : n + 1] for k, v in inputs.items()}) for n in range(3)]
    assert (run(model, inputs)[:3] == np.concatenate(rows)).all()


@pytest.mark.parametrize("write", [to_onnx.to_onnx, to_onnx_integer.to_onnx_integer])
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_files_are_valid(family: Family, write: Callable[[IntegerModel], bytes]) -> None:
    data = write(sequence(family, 3)[0])
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    assert data == write(sequence(family, 3)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_qdq_decides_as_the_reference(family: Family) -> None:
    agreeing = total = 0
    for seed in range(8):
        model, inputs = sequence(family, seed, 32)
        got = _qdq(model, inputs)
        wanted = reference.run(model, inputs).reshape(got.shape)
        agreeing += int((got.argmax(axis=1) == wanted.argmax(axis=1)).sum())
        total += len(got)
    assert agreeing / total > 0.97


def test_qdq_weights_of_one_do_not_wrap_to_zero() -> None:
    """ONNX Runtime's own kernel for a softmax of bytes, which it takes where heads have one channel
    and scores thus no factor, turns 256 / 256 to 0."""
    rng = np.random.default_rng(8)
    model = single(Attention("o", THREE, 8), [(1, 1, 8)] * 3, rng)
    inputs = random_inputs(model.graph, 30, rng)
    got = _qdq(model, inputs)
    assert np.abs(got.astype(int) - reference.run(model, inputs).reshape(got.shape)).max() <= 1


# ---------------------------------------------------------------- .tflite


def names_of(model: IntegerModel) -> set[tuple[str, int]]:
    codes = schema.ModelT.InitFromPackedBuf(to_tflite.to_tflite(model), 0).operatorCodes
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if k.isupper()}
    return {(names[c.builtinCode], c.version) for c in codes}


def test_tflite_operators_of_attention() -> None:
    assert names_of(attention()[0]) == {
        ("RESHAPE", 1),
        ("TRANSPOSE", 2),
        ("BATCH_MATMUL", 2),
        ("SOFTMAX", 2),
    }


def test_tflite_operators_of_a_scan() -> None:
    assert names_of(scan()[0]) == {
        *{("RESHAPE", 1), ("WHILE", 1), ("LESS", 1), ("CAST", 1), ("GATHER", 2), ("SPLIT", 1)},
        *{("ADD", 1), ("SUB", 1), ("MUL", 1), ("QUANTIZE", 2), ("CONCATENATION", 1)},
        ("DYNAMIC_UPDATE_SLICE", 1),
    }
    assert ("SPLIT", 1) not in names_of(scan(states=1)[0])


@pytest.mark.parametrize(("kernel", "padded"), [(3, True), (2, False)])
def test_causal_columns_are_a_pad_unless_there_are_none(kernel: int, padded: bool) -> None:
    op = Conv2d("o", ONE, 2, (1, kernel), (1, 2), "causal", 8, False)
    assert (("PAD", 2) in names_of(single(op, [(1, 8, 3)], np.random.default_rng(0)))) is padded


def test_exact_scales_give_the_very_multiplier() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        factor, out = float(10 ** rng.uniform(-6, 1)), float(np.float32(rng.uniform(0.001, 10)))
        numerator, target = tflite_sequence._exact_scales("o", factor, out)
        assert float(np.float32(numerator)) == numerator and float(np.float32(target)) == target
        assert quantise_multiplier(numerator / target) == quantise_multiplier(factor)
        assert 0 <= target / out - 1 < 0.02


def test_scales_that_cannot_be_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_sequence, "_FARTHEST", 0)
    with pytest.raises(UnsupportedOp, match="o: no float32 scales give the factor"):
        tflite_sequence._exact_scales("o", 0.3, 0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_arena_of_tflm_is_known(family: Family) -> None:
    pytest.importorskip("tflite_micro", reason="wheels for Linux on x86-64 only")
    model, _ = sequence(family, 1)
    arena = runtimes.tflm_arena_bytes(to_tflite.to_tflite(model))
    assert arena is not None and arena > max(np.prod(s) for s in model.graph.shapes.values())


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "op", [History("h", ONE, 3), Running("h", ONE, "average", 2)], ids=lambda op: type(op).__name__
)
def test_no_file_holds_a_stepwise_model(op: Op, exporter: Any) -> None:
    model = single(op, [(1, 1, 4)], np.random.default_rng(0))
    write = getattr(exporter, exporter.__name__.rpartition(".")[2])
    with pytest.raises(
        UnsupportedOp, match=rf"h: the .* exporter has no row for {type(op).__name__}"
    ):
        write(model)


def test_a_skip_that_could_overflow() -> None:
    model, _ = scan()
    held = model.weights["o"]
    bias = held.bias.copy()
    bias[2] = LARGEST_SKIP
    replace(model, weights={"o": replace(held, bias=bias)})
    bias[2] = -LARGEST_SKIP - 1
    with pytest.raises(GraphError, match="o: a skip of 4194305 and 4 states may add up to more"):
        replace(model, weights={"o": replace(held, bias=bias)})


def _unknown(model: IntegerModel, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file with an operator of a version that no runtime has."""

    def row(writer: Any, op: Op) -> None:
        writer.op("BITCAST", 99, [writer.tensors[op.inputs[0]]], writer.activation(op.name))

    monkeypatch.setitem(to_tflite.ROWS, LastStep, row)
    return to_tflite.to_tflite(model)


def test_a_runtime_that_cannot_run_a_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = single(LastStep("o", ONE), [(1, 4, 2)], np.random.default_rng(0))
    data = _unknown(model, monkeypatch)
    inputs = random_inputs(model.graph, 2, np.random.default_rng(0))
    with pytest.raises(Refusal, match="ai-edge-litert cannot run this file: "):
        runtimes.run_litert(data, inputs)
    with pytest.raises(Refusal, match="ONNX Runtime cannot run this file: "):
        runtimes.run_onnx(data, inputs)
    pytest.importorskip("tflite_micro", reason="wheels for Linux on x86-64 only")
    with pytest.raises(Refusal, match="TFLM cannot run this file: "):
        runtimes.run_tflm(data, inputs)
    assert runtimes.tflm_arena_bytes(data) is None
    result = _verified(tmp_path, model, data, inputs)
    assert result.verified == "no" and result.tflm_arena_bytes is None
    assert [check.compared > 0 for check in result.runtimes] == [True, False, False, True]
    with pytest.raises(Mismatch, match=r"TFLM cannot run this file: .*; report this"):
        require_equal([replace(result, failure="")])


def _verified(
    folder: Path, model: IntegerModel, data: bytes, inputs: dict[str, Int8]
) -> Verification:
    (folder / "model.npz").write_bytes(model.to_bytes())
    (folder / "model.tflite").write_bytes(data)
    (folder / "model.onnx").write_bytes(to_onnx.to_onnx(model))
    (folder / "model_integer.onnx").write_bytes(to_onnx_integer.to_onnx_integer(model))
    bench: Any = None  # without a folder c nothing is compiled
    return verify.verify_candidate(folder, inputs, bench).verification


def test_every_family_has_its_operators_in_the_cases() -> None:
    kinds = {type(op) for op, _ in OPERATOR_CASES}
    for family in FAMILIES:
        used = {type(op) for seed in range(5) for op in sequence(family, seed)[0].graph.ops}
        assert used <= kinds
