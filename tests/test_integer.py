"""`IntegerModel`: its rules, its file and its hash."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from integer_models import random_model

from nas.errors import GraphError, RunError
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel, Scale, Weights, load_integer_model
from nas.network.ops import Concat, Conv2d, DepthwiseConv2d, Mul, Op, Pool, Table
from nas.network.random_model import with_random_numbers


def _model() -> IntegerModel:
    ops: tuple[Op, ...] = (
        Conv2d("conv", ("x",), 3, (1, 3), (1, 1), "same", 4, True),
        DepthwiseConv2d("dw", ("conv",), (1, 3), (1, 1), "same", 2, False),
        Concat("both", ("conv", "dw")),
        Pool("mean", ("both",), "average", (1, 6), (1, 1)),
        Table("gate", ("mean",), "sigmoid"),
        Mul("gated", ("mean", "gate")),
    )
    graph = Graph((Input("x", (1, 6, 2)),), ops, "gated")
    return with_random_numbers(graph, np.random.default_rng(3))


MODEL = _model()


def _with(name: str, **changes: object) -> IntegerModel:
    held = replace(MODEL.weights[name], **changes)  # type: ignore[arg-type]
    return replace(MODEL, weights={**MODEL.weights, name: held})


def test_every_tensor_needs_a_scale() -> None:
    scales = {name: scale for name, scale in MODEL.scales.items() if name != "gate"}
    with pytest.raises(GraphError, match="gate: no scale; every tensor needs one"):
        replace(MODEL, scales=scales)


@pytest.mark.parametrize("change", [{"scale": 0.5}, {"zero_point": 5}])
def test_a_concatenation_has_one_scale(change: dict[str, float]) -> None:
    other = replace(MODEL.scales["dw"], **change)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="dw: scale differs from conv, which must share it"):
        replace(MODEL, scales={**MODEL.scales, "dw": other})


def test_weights_must_be_there() -> None:
    with pytest.raises(GraphError, match=r"conv: needs weights.* \(\(3, 1, 3, 2\).* not None"):
        replace(MODEL, weights={"dw": MODEL.weights["dw"]})


def test_weights_must_have_the_shape() -> None:
    with pytest.raises(GraphError, match=r"dw: needs .* \(\(1, 1, 3, 3\).* not \(\(3, 1"):
        _with("dw", values=np.zeros((3, 1, 3, 1), np.int8))


def test_a_bias_a_channel() -> None:
    with pytest.raises(GraphError, match=r"conv: needs .* \(3,\), \(3,\)\), not .*, \(2,\)\)"):
        _with("conv", bias=np.zeros(2, np.int32))


@pytest.mark.parametrize(("name", "value", "limit", "bits"), [("conv", 8, 7, 4), ("dw", -2, 1, 2)])
def test_weights_must_fit_their_bits(name: str, value: int, limit: int, bits: int) -> None:
    values = MODEL.weights[name].values.copy()
    values.flat[0] = value
    with pytest.raises(
        GraphError, match=f"{name}: a weight exceeds {limit}, the most {bits} bits hold"
    ):
        _with(name, values=values)


def test_minus_128_is_no_weight() -> None:
    graph = Graph(
        (Input("x", (1, 1, 1)),),
        (Conv2d("c", ("x",), 1, (1, 1), (1, 1), "valid", 8, False),),
        "c",
    )
    scales = {"x": Scale(0.5, 0), "c": Scale(0.5, 0)}
    one = np.ones(1, np.float32)
    held = Weights(np.full((1, 1, 1, 1), -128, np.int8), one, np.zeros(1, np.int32))
    with pytest.raises(GraphError, match="c: a weight exceeds 127"):
        IntegerModel(graph, scales, {"c": held})


@pytest.mark.parametrize("scales", [[0.1, 0.0, 0.1], [0.1, -1.0, 0.1], [0.1, 0.1], [np.nan] * 3])
def test_a_positive_scale_a_channel(scales: list[float]) -> None:
    with pytest.raises(GraphError, match=r"conv: needs .*scales"):
        _with("conv", scales=np.array(scales, np.float32))


def test_factors_in_float64_in_one_order() -> None:
    conv, gated = MODEL.graph.ops[0], MODEL.graph.ops[-1]
    scales = {name: np.float64(scale.scale) for name, scale in MODEL.scales.items()}
    own = MODEL.weights["conv"].scales.astype(np.float64)
    assert (MODEL.factors(conv) == scales["x"] * own / scales["conv"]).all()
    product = scales["mean"] * scales["gate"] / scales["gated"]
    assert MODEL.factors(gated).tolist() == [product]


def test_file_round_trip() -> None:
    for seed in range(5):
        model = random_model(np.random.default_rng(seed))
        back = IntegerModel.from_bytes(model.to_bytes())
        assert back.graph == model.graph
        assert dict(back.scales) == dict(model.scales)
        assert back.hash == model.hash
        for name, held in model.weights.items():
            for field in ("values", "scales", "bias"):
                ours, theirs = getattr(held, field), getattr(back.weights[name], field)
                assert ours.dtype == theirs.dtype and (ours == theirs).all()


def test_hash_depends_on_each_number() -> None:
    held = MODEL.weights["conv"]
    values = held.values.copy()
    values.flat[0] += 1 if values.flat[0] < 7 else -1
    bias = held.bias + np.array([0, 0, 1], np.int32)
    scales = {**MODEL.scales, "gated": Scale(MODEL.scales["gated"].scale, 1 + 50)}
    others = [
        _with("conv", values=values),
        _with("conv", bias=bias),
        _with("conv", scales=held.scales * np.float32(2)),
        replace(MODEL, scales=scales),
        _model(),
    ]
    hashes = [model.hash for model in others]
    assert hashes[-1] == MODEL.hash
    assert len(set(hashes)) == len(others)


def test_load_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(MODEL.to_bytes())
    assert load_integer_model(path).hash == MODEL.hash


def _array_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def _other_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("data", [b"", b"text", _array_file(), _other_archive()])
def test_another_file_is_a_run_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"model\.npz: not a trained model .* export .* again"):
        load_integer_model(path)


def test_a_missing_file_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a trained model"):
        load_integer_model(tmp_path / "none.npz")


def test_a_damaged_file_is_a_run_error_or_the_same_model(tmp_path: Path) -> None:
    """Bytes that no reader looks at may differ; everything else must be noticed."""
    path, whole, rng = tmp_path / "model.npz", MODEL.to_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert load_integer_model(path).hash == MODEL.hash
        except RunError:
            refused += 1
    assert refused > 200
    for length in range(0, len(whole), 101):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError):
            load_integer_model(path)
