"""The ONNX rows of operators on series in integers, equal to `sequence_reference`.

A series is (N, channels, 1, steps) here. The channels of a head lie beside each other, so that a
reshape to (N, heads, width, steps) splits them. A selective scan is a Scan over the last axis.
"""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from nas.export.onnx_arithmetic import (
    centred,
    clip,
    divide,
    high_product,
    requantise,
    rescale,
    unsigned,
)
from nas.export.onnx_builder import OnnxWriter
from nas.network import softmax
from nas.network.numerics import Int64
from nas.network.ops import Attention, Positions, SelectiveScan
from nas.network.reference import ADD_SHIFT, add_factors
from nas.network.sequence_reference import (
    STATE_BITS,
    attention_factors,
    forgetting_tables,
    scan_factors,
)

_ONE = (1 << 31) - 1
_LOWEST = -(1 << 31)


def positions(writer: OnnxWriter, op: Positions, inputs: Sequence[str]) -> str:
    """The addition of a constant, whose rescaling is done beforehand."""
    first, second, out = (np.array([factor]) for factor in add_factors(writer.model, op))
    raised = writer.op(
        "Mul", centred(writer, op, 0, inputs[0]), writer.constant(np.int64(1 << ADD_SHIFT))
    )
    values = writer.model.weights[op.name].values.astype(np.int64).transpose(2, 0, 1)
    held = writer.op("Mul", writer.constant(values), writer.constant(np.int64(1 << ADD_SHIFT)))
    total = writer.op("Add", rescale(writer, raised, first), rescale(writer, held, second))
    return requantise(writer, op, total, out)


def attention(writer: OnnxWriter, op: Attention, inputs: Sequence[str]) -> str:
    """MatMulInteger of the heads, softmax, MatMulInteger."""
    _, count, channels = writer.model.graph.shapes[op.name]
    width = channels // op.heads
    to_scores, softmax_scale, to_output = attention_factors(writer.model, op)
    split = writer.int64(0, op.heads, width, -1)
    q, k, v = (writer.op("Reshape", unsigned(writer, x), split) for x in inputs)
    zero, none = writer.constant(np.uint8(128)), writer.constant(np.uint8(0))
    by_step = writer.op("Transpose", q, perm=[0, 1, 3, 2])
    products = writer.op("MatMulInteger", by_step, k, zero, zero)
    wide = writer.cast(products, TensorProto.INT64)
    scores = clip(writer, rescale(writer, wide, np.array([to_scores])), -128, 127)
    weights = writer.cast(_softmax(writer, scores, softmax_scale), TensorProto.UINT8)
    turned = writer.op("Transpose", weights, perm=[0, 1, 3, 2])
    mixed = writer.op("MatMulInteger", v, turned, zero, none)
    joined = writer.op("Reshape", mixed, writer.int64(0, channels, 1, count))
    wide = writer.cast(joined, TensorProto.INT64)
    return requantise(writer, op, wide, np.array([to_output]))


def _softmax(writer: OnnxWriter, scores: str, scale: float) -> str:
    """`softmax.softmax` of int64 scores along the last axis, plus 128: 0 to 255."""
    highest = writer.op("ReduceMax", scores, writer.int64(-1), keepdims=1)
    table = writer.constant(softmax.exponentials(scale))
    powers = writer.op("Gather", table, writer.op("Sub", highest, scores), axis=0)
    rounded = divide(writer, powers, np.array([1 << softmax.SUM_BITS]))
    total = writer.op("ReduceSum", rounded, writer.int64(-1), keepdims=1)
    # Bits below the leading one: how many powers of two from 2 on the sum reaches.
    reached = writer.op("GreaterOrEqual", total, writer.constant(_powers_of_two(1, 32)))
    counts = writer.cast(reached, TensorProto.INT64)
    bits = writer.op("ReduceSum", counts, writer.int64(-1), keepdims=1)
    factor = _reciprocal(writer, total, bits)
    # shift_right(high(power, factor), 23 + SUM_BITS - (31 - bits)) of what is never negative
    first = 23 + softmax.SUM_BITS - 31
    divisor = writer.op("Gather", writer.constant(_powers_of_two(first, first + 32)), bits, axis=0)
    half = writer.op("Div", divisor, writer.constant(np.int64(2)))
    weights = writer.op("Add", high_product(writer, powers, factor), half)
    return clip(writer, writer.op("Div", weights, divisor), 0, 255)


def _powers_of_two(first: int, last: int) -> Int64:
    powers: Int64 = np.int64(1) << np.arange(first, last, dtype=np.int64)
    return powers


def _reciprocal(writer: OnnxWriter, total: str, bits: str) -> str:
    """`softmax.reciprocal` of totals whose leading one has `bits` bits below it."""

    def number(value: int) -> str:
        return writer.constant(np.int64(value))

    raising = writer.constant(_powers_of_two(0, 32)[::-1])
    raised = writer.op("Mul", total, writer.op("Gather", raising, bits, axis=0))
    # (fraction + 2^31) >> 1, where fraction = raised - 2^31
    half = writer.op("Div", raised, number(2))
    first, second = softmax.RECIPROCAL
    x = writer.op("Add", high_product(writer, half, number(second)), number(first))
    for _ in range(softmax.NEWTON_STEPS):
        missing = writer.op("Sub", number(1 << 29), high_product(writer, half, x))
        step = writer.op("Mul", high_product(writer, x, missing), number(4))
        x = writer.op("Add", x, clip(writer, step, _LOWEST, _ONE))
    return clip(writer, writer.op("Mul", x, number(2)), _LOWEST, _ONE)


def selective_scan(writer: OnnxWriter, op: SelectiveScan, inputs: Sequence[str]) -> str:
    """A Scan with the state (N, channels, states); the skip and the gate behind it."""
    u, dt, b, c, z = inputs
    to_sum, to_output = (np.array([factor]) for factor in scan_factors(writer.model, op))
    forgetting = writer.constant(forgetting_tables(writer.model, op))
    last = writer.int64(-1)

    def step(state: str, now: Sequence[str]) -> tuple[str, str]:
        given, index, factor, read = now  # u, dt (N, channels, 1), b, c (N, states, 1)
        forget = writer.op(
            "Squeeze", writer.op("Gather", forgetting, index, axis=0), writer.int64(2)
        )
        product = writer.op("Mul", given, writer.op("Transpose", factor, perm=[0, 2, 1]))
        change = writer.op("Mul", forget, writer.op("Sub", product, state))
        moved = writer.op("Add", state, rescale(writer, change, np.array([2.0**-STATE_BITS])))
        terms = writer.op("Mul", moved, writer.op("Transpose", read, perm=[0, 2, 1]))
        return moved, writer.op("ReduceSum", terms, last, keepdims=1)

    wide = [writer.cast(x, TensorProto.INT64) for x in (u, dt, b, c, z)]
    index = writer.op("Add", wide[1], writer.constant(np.int64(128)))
    series = [wide[0], index, *wide[2:4]]
    summed = writer.scan(_nothing(writer, u, b), series, step, [TensorProto.INT64] * 6)
    skip = writer.along_channels(writer.model.weights[op.name].bias.astype(np.int64))
    total = writer.op("Add", summed, writer.op("Mul", wide[0], skip))
    held = clip(writer, rescale(writer, total, to_sum), -(1 << 15), (1 << 15) - 1)
    return requantise(writer, op, writer.op("Mul", held, wide[4]), to_output)


def _nothing(writer: OnnxWriter, u: str, b: str) -> str:
    """Zeros (N, channels, states)."""
    lengths = [
        writer.op("Slice", writer.op("Shape", x), writer.int64(first), writer.int64(2))
        for x, first in ((u, 0), (b, 1))
    ]
    return writer.zeros(writer.op("Concat", *lengths, axis=0))
