"""The .tflite rows of operators on series: attention, selective scans, positions, last steps.

A selective scan is a WHILE loop over its steps. Its arithmetic is int32 ADD, SUB and MUL; each
rescaling is a QUANTIZE, which all runtimes round as the reference does.

Runtimes derive the factor of a rescaling from the float32 scales of tensors, in their own order.
Inside an operator those scales are ours to choose, so they are chosen (`_exact_scales`) such that
every runtime arrives at the reference's multiplier to the last bit. Their products are near the
true ones. Where true ones must stand again a RESHAPE passes from one to the other: it copies bytes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nas.errors import UnsupportedOp
from nas.export.tflite_writer import TfliteWriter
from nas.network.integer import Scale
from nas.network.numerics import quantise_multiplier
from nas.network.ops import Attention, LastStep, Positions, SelectiveScan
from nas.network.sequence_reference import (
    STATE_BITS,
    attention_factors,
    forgetting_tables,
    scan_factors,
)

# Float32 values from the true scale on: how many at once, and the last, a few percent higher.
_CANDIDATES, _FARTHEST = 1 << 12, 1 << 18


def positions(writer: TfliteWriter, op: Positions) -> None:
    """The addition of a constant tensor."""
    held = writer.model.weights[op.name]
    added = writer.constant(f"{op.name}/values", held.values[np.newaxis])
    writer.quantise(added, held.scales, 0, 0)
    inputs = [writer.tensors[op.inputs[0]], added]
    writer.op("ADD", 2, inputs, writer.activation(op.name), "AddOptions")


def last_step(writer: TfliteWriter, op: LastStep) -> None:
    """A slice of one column."""
    _, steps, channels = writer.model.graph.shapes[op.inputs[0]]
    begin = writer.constant(f"{op.name}/begin", np.array([0, 0, steps - 1, 0], np.int32))
    length = writer.constant(f"{op.name}/size", np.array([1, 1, 1, channels], np.int32))
    inputs = [writer.tensors[op.inputs[0]], begin, length]
    writer.op("SLICE", 2, inputs, writer.activation(op.name), "SliceOptions")


def _exact_scales(name: str, factor: float, out: float) -> tuple[float, float]:
    """(numerator, target near `out`), both float32: a runtime that divides the one by the other in
    float64 arrives at the multiplier and shift of `factor`."""
    wanted = quantise_multiplier(factor)
    first = int(np.float32(out).view(np.int32))
    for start in range(first, first + _FARTHEST, _CANDIDATES):
        bits = np.arange(start, start + _CANDIDATES, dtype=np.int32)
        targets = bits.view(np.float32).astype(np.float64)
        numerators = (factor * targets).astype(np.float32)
        fractions, shifts = np.frexp(numerators.astype(np.float64) / targets)
        multipliers = np.floor(fractions * (1 << 31) + 0.5)
        fitting = np.flatnonzero((multipliers == wanted[0]) & (shifts == wanted[1]))
        if len(fitting):
            return float(numerators[fitting[0]]), float(targets[fitting[0]])
    raise UnsupportedOp(
        f"{name}: no float32 scales give the factor {factor!r} exactly in a .tflite file; train the"
        " candidate again with another seed"
    )


# ---------------------------------------------------------------- attention


def attention(writer: TfliteWriter, op: Attention) -> None:
    """Two BATCH_MATMUL with a SOFTMAX between, heads beside each other."""
    model = writer.model
    q, k, v = (writer.tensors[name] for name in op.inputs)
    out = model.scales[op.name]
    to_scores, _, to_output = attention_factors(model, op)
    true_scores = Scale(model.internal(op, "scores"), 0)
    # TFLM multiplies two scales in float64 and LiteRT in float32: one of them is a power of two.
    query = 2.0 ** round(np.log2(model.scales[op.inputs[0]].scale))
    product, target = _exact_scales(op.name, to_scores, true_scores.scale)
    query_scale, key_scale, score_scale = (Scale(s, 0) for s in (query, product / query, target))
    product, target = _exact_scales(op.name, to_output, out.scale)
    value_scale, mixed_scale = Scale(product * 256, 0), Scale(target, out.zero_point)
    queries = _by_head(writer, op, q, "queries", query_scale)
    keys = _by_head(writer, op, k, "keys", key_scale)
    values = _by_head(writer, op, v, "values", value_scale)
    _, heads, count, width = writer.shape(queries)
    steps = writer.shape(keys)[2]

    def tensor(part: str, last: int, scale: Scale) -> int:
        return writer.tensor(f"{op.name}/{part}", (1, heads, count, last), "int8", scale)

    products = tensor("products", steps, score_scale)
    multiply = {"adjX": False, "asymmetricQuantizeInputs": False}
    options = "BatchMatMulOptions"
    writer.op("BATCH_MATMUL", 2, [queries, keys], products, options, **multiply, adjY=True)
    scores = writer.reshape(products, tensor("scores", steps, true_scores))
    weights = tensor("weights", steps, Scale(1 / 256, -128))
    beta = float(np.float32(width**-0.5))
    writer.op("SOFTMAX", 2, [scores], weights, "SoftmaxOptions", beta=beta)
    mixed = tensor("mixed", width, mixed_scale)
    writer.op("BATCH_MATMUL", 2, [weights, values], mixed, options, **multiply, adjY=False)
    joined = _swap(writer, mixed, f"{op.name}/joined", mixed_scale)
    writer.reshape(joined, writer.activation(op.name))


def _by_head(writer: TfliteWriter, op: Attention, source: int, part: str, scale: Scale) -> int:
    """(1, 1, n, width) -> (1, heads, n, width / heads)."""
    _, _, count, width = writer.shape(source)
    shape = (1, count, op.heads, width // op.heads)
    split = writer.tensor(f"{op.name}/{part} by step", shape, "int8", scale)
    return _swap(writer, writer.reshape(source, split), f"{op.name}/{part}", scale)


def _swap(writer: TfliteWriter, source: int, name: str, scale: Scale) -> int:
    """(1, a, b, c) -> (1, b, a, c)."""
    _, a, b, c = writer.shape(source)
    order = writer.constant(f"{name}/order", np.array([0, 2, 1, 3], np.int32))
    swapped = writer.tensor(name, (1, b, a, c), "int8", scale)
    return writer.op("TRANSPOSE", 2, [source, order], swapped, "TransposeOptions")


# ---------------------------------------------------------------- selective scan


def selective_scan(writer: TfliteWriter, op: SelectiveScan) -> None:
    """A loop whose variables are the step, the state, the output so far, and the inputs.

    The state is int32 (1, 1, channels, states). The output so far begins as the bytes of u, each
    step of which is overwritten.
    """
    u, dt, b, c, z = (writer.tensors[name] for name in op.inputs)
    steps, channels = writer.shape(u)[2:]
    scale = writer.model.scales[op.name]
    step = writer.constant(f"{op.name}/first", np.zeros(1, np.int32))
    zeros = np.zeros((1, 1, channels, writer.shape(b)[3]), np.int32)
    state = writer.constant(f"{op.name}/state", zeros)
    so_far = writer.tensor(f"{op.name}/so far", writer.shape(u), "int8", scale)
    before = [step, state, writer.reshape(u, so_far), u, dt, b, c, z]
    with writer.subgraph(f"{op.name}/more") as condition:
        held = [writer.like(x) for x in before]
        more = writer.tensor("more", (1,), "bool")
        writer.op("LESS", 1, [held[0], _int32(writer, "steps", [steps])], more, "LessOptions")
        writer.ends(held, [more])
    with writer.subgraph(f"{op.name}/step") as body:
        held = [writer.like(x) for x in before]
        writer.ends(held, [*_step(writer, op, held), *held[3:]])
    after = [writer.like(x) for x in before]
    after[2] = writer.activation(op.name)
    subgraphs = {"condSubgraphIndex": condition, "bodySubgraphIndex": body}
    writer.op_of_many("WHILE", 1, before, after, "WhileOptions", **subgraphs)


def _int32(writer: TfliteWriter, name: str, values: Sequence[int] | NDArray[np.int32]) -> int:
    return writer.constant(name, np.array(values, np.int32))


def _step(writer: TfliteWriter, op: SelectiveScan, held: Sequence[int]) -> tuple[int, int, int]:
    """One step of the loop: (next step, next state, output so far)."""
    step, state, so_far = held[:3]
    channels = writer.shape(state)[2]
    names = ("u", "dt", "b", "c", "z")
    u, dt, b, c, z = (_now(writer, held[3 + i], step, name) for i, name in enumerate(names))
    column = (1, 1, channels, 1)
    u, z = (
        writer.cast(_shaped(writer, x, n, column), f"wide {n}") for x, n in ((u, "u"), (z, "z"))
    )
    b, c = writer.cast(b, "wide b"), writer.cast(c, "wide c")
    state = _next_state(writer, op, state, u, dt, b)
    products = _arithmetic(writer, "MUL", state, c, writer.shape(state))
    total = _sum_of_states(writer, products)
    skip = _int32(writer, "skip", writer.model.weights[op.name].bias.reshape(column))
    total = _arithmetic(writer, "ADD", total, _arithmetic(writer, "MUL", u, skip, column), column)
    y = _gated(writer, op, total, z)
    zero = _int32(writer, "zero", [0])
    place = writer.tensor("place", (4,), "int32")
    writer.op("CONCATENATION", 1, [zero, zero, step, zero], place, "ConcatenationOptions", axis=0)
    written = writer.tensor("written", writer.shape(so_far), "int8", writer.scale(so_far))
    row = _shaped(writer, y, "row", (1, 1, 1, channels))
    writer.op("DYNAMIC_UPDATE_SLICE", 1, [so_far, row, place], written, "DynamicUpdateSliceOptions")
    return _arithmetic(writer, "ADD", step, _int32(writer, "one", [1]), (1,)), state, written


def _now(writer: TfliteWriter, series: int, step: int, name: str) -> int:
    """Column `step` of a series, (1, 1, 1, n)."""
    shape = (1, 1, 1, writer.shape(series)[3])
    column = writer.tensor(name, shape, "int8", writer.scale(series))
    return writer.op("GATHER", 2, [series, step], column, "GatherOptions", axis=2)


def _shaped(writer: TfliteWriter, x: int, name: str, shape: Sequence[int]) -> int:
    return writer.reshape(x, writer.tensor(f"{name} reshaped", shape, "int8", writer.scale(x)))


def _arithmetic(writer: TfliteWriter, code: str, a: int, b: int, shape: Sequence[int]) -> int:
    """ADD, SUB or MUL of two int32 tensors, which wraps nowhere: no value reaches 2^31."""
    result = writer.tensor(code.lower(), shape, "int32")
    return writer.op(code, 1, [a, b], result, f"{code.capitalize()}Options")


def _next_state(
    writer: TfliteWriter, op: SelectiveScan, state: int, u: int, dt: int, b: int
) -> int:
    """h + round((a_n - 1)(h - b_n u)): both signs turned, as -2^15 fits int16 and 2^15 does not."""
    shape = writer.shape(state)
    decay = _decay(writer, op, dt, shape)
    given = _arithmetic(writer, "MUL", u, b, shape)
    difference = _arithmetic(writer, "SUB", state, given, shape)
    change = _arithmetic(writer, "MUL", decay, difference, shape)
    change = _rescaled(writer, change, 2.0**-STATE_BITS, 1.0)
    return _arithmetic(writer, "ADD", state, change, shape)


def _decay(writer: TfliteWriter, op: SelectiveScan, dt: int, shape: Sequence[int]) -> int:
    """a_n - 1 of every channel and state in units of 2^-15, from tables of high and low bytes.

    TFLM gathers no int16; two tables take less than the operators that raise a_1 to its powers.
    """
    channels, states = shape[2:]
    table = -forgetting_tables(writer.model, op).astype(np.int32)  # (256, states)
    high = (table + 128) >> 8
    parts = []
    index = _arithmetic(
        writer,
        "ADD",
        writer.cast(dt, "wide dt"),
        _int32(writer, "offset", [128]),
        (1, 1, 1, channels),
    )
    flat = writer.reshape(index, writer.tensor("index", (channels,), "int32"))
    for name, entries in (("high", high), ("low", table - (high << 8))):
        held = writer.constant(f"{name} bytes", entries.astype(np.int8))
        found = writer.tensor(name, (channels, states), "int8")
        writer.op("GATHER", 2, [held, flat], found, "GatherOptions", axis=0)
        parts.append(writer.cast(found, f"wide {name}"))
    raised = _arithmetic(writer, "MUL", parts[0], _int32(writer, "256", [256]), (channels, states))
    joined = _arithmetic(writer, "ADD", raised, parts[1], (channels, states))
    return writer.reshape(joined, writer.tensor("decay", shape, "int32"))


def _rescaled(writer: TfliteWriter, x: int, source: float, target: float) -> int:
    """x times source / target, rounded and held to int16, as int32 again."""
    writer.quantise(x, np.array([source], np.float32), 0, 0)
    narrow = writer.tensor("int16", writer.shape(x), "int16", Scale(target, 0))
    return writer.cast(writer.op("QUANTIZE", 2, [x], narrow, "QuantizeOptions"), "int32")


def _sum_of_states(writer: TfliteWriter, products: int) -> int:
    """(1, 1, channels, states) -> (1, 1, channels, 1), by additions: SUM rounds elsewhere."""
    _, _, channels, states = writer.shape(products)
    column = (1, 1, channels, 1)
    if states == 1:
        return products
    parts = [writer.tensor(f"state {n}", column, "int32") for n in range(states)]
    axis = _int32(writer, "axis", np.array(3))
    writer.op_of_many("SPLIT", 1, [axis, products], parts, "SplitOptions", numSplits=states)
    total = parts[0]
    for part in parts[1:]:
        total = _arithmetic(writer, "ADD", total, part, column)
    return total


def _gated(writer: TfliteWriter, op: SelectiveScan, total: int, z: int) -> int:
    """The int16 sum times the gate, int8 (1, 1, channels, 1)."""
    to_sum, to_output = scan_factors(writer.model, op)
    out, between = writer.model.scales[op.name], writer.model.internal(op, "sum")
    summed = _rescaled(writer, total, *_exact_scales(op.name, to_sum, between))
    product = _arithmetic(writer, "MUL", summed, z, writer.shape(total))
    source, target = _exact_scales(op.name, to_output, out.scale)
    writer.quantise(product, np.array([source], np.float32), 0, 0)
    y = writer.tensor("gated", writer.shape(total), "int8", Scale(target, out.zero_point))
    return writer.op("QUANTIZE", 2, [product], y, "QuantizeOptions")
