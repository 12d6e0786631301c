"""The integer reference: what a model computes, to the last bit. Everything else must equal it.

It follows TensorFlow Lite's int8 specification as TensorFlow Lite Micro carries it out: int32
accumulators, one requantisation a channel, average pooling on the raw integers, addition with 20
bits of head room. Tensors are int8 arrays (n, height, width, channels).

Every candidate of a search is scored here, so it has to be fast. A convolution is a float32 matrix
product wherever that is exact: all partial sums are integers, and below 2^24 float32 holds each of
them. Each operator prepares its constants once; inputs then pass in batches that fit the cache.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError, UnsupportedOp
from nas.network import sequence_reference as sequence
from nas.network.graph import Graph
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8, Int64, Rounding, quantise_multipliers, rescale
from nas.network.ops import (
    Add,
    Attention,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    History,
    LastStep,
    Mul,
    Op,
    Pad,
    Pool,
    Positions,
    Reshape,
    Running,
    SelectiveScan,
    Table,
    size,
    window_padding,
)
from nas.network.requantising import SCALAR_ROUNDING, VECTOR_ELEMENTS, in_vectors, requantiser

Step: TypeAlias = Callable[..., Int8]  # a batch of each input of an operator -> its output
Real: TypeAlias = NDArray[np.floating[Any]]
Precision: TypeAlias = type[np.float32] | type[np.float64]
Row = TypeVar("Row")

ADD_SHIFT = 20  # bits of head room that Add gives its inputs

_BATCH_ELEMENTS = 1 << 17  # of the largest array in a batch: int64 temporaries stay in cache
_FLOAT32_EXACT = 1 << 24  # every integer up to here is a float32


def run(
    model: IntegerModel, inputs: Mapping[str, NDArray[np.int8]], rounding: Rounding = "double"
) -> Int8:
    """Output (n, *shape) for inputs (n, height, width, channels) by modality.

    Raises:
        DataError: an input that is missing, not int8, or of another shape.
    """
    output = model.graph.output
    return np.concatenate([batch[output] for batch in _batches(model, inputs, rounding)])


def trace(
    model: IntegerModel, inputs: Mapping[str, NDArray[np.int8]], rounding: Rounding = "double"
) -> dict[str, Int8]:
    """Every tensor by name, (n, *shape); for finding the operator at which two runs part."""
    batches = list(_batches(model, inputs, rounding))
    return {name: np.concatenate([b[name] for b in batches]) for name in model.graph.shapes}


def row_of(rows: Mapping[type[Op], Row], op: Op, reader: str) -> Row:
    """The row of `op` in a reader's table; UnsupportedOp names operator and reader."""
    try:
        return rows[type(op)]
    except KeyError:
        known = ", ".join(sorted(kind.__name__ for kind in rows))
        raise UnsupportedOp(
            f"{op.name}: {reader} has no row for {type(op).__name__}, only for {known}; add one"
        ) from None


def add_factors(model: IntegerModel, op: Add | Positions) -> tuple[float, float, float]:
    """(first input, second input, sum to output): TFLite's real factors of an Add.

    Both inputs are brought to twice the larger scale, which leaves a bit for the carry.
    """
    if isinstance(op, Positions):
        first, second = model.scales[op.inputs[0]].scale, float(model.weights[op.name].scales[0])
    else:
        first, second = (model.scales[name].scale for name in op.inputs)
    common = 2.0 * max(first, second)
    target = model.scales[op.name].scale
    return first / common, second / common, common / ((1 << ADD_SHIFT) * target)


def _batches(
    model: IntegerModel, inputs: Mapping[str, NDArray[np.int8]], rounding: Rounding
) -> Iterator[dict[str, Int8]]:
    graph = model.graph
    count = _count(graph, inputs)
    steps = [(op, row_of(KERNELS, op, "the reference")(model, op, rounding)) for op in graph.ops]
    rows = _batch_rows(graph)
    for start in range(0, max(count, 1), rows):
        tensors: dict[str, Int8] = {
            source.name: inputs[source.name][start : start + rows] for source in graph.inputs
        }
        for op, step in steps:
            tensors[op.name] = step(*(tensors[name] for name in op.inputs))
        yield tensors


def _count(graph: Graph, inputs: Mapping[str, NDArray[np.int8]]) -> int:
    counts = set()
    for source in graph.inputs:
        given = inputs.get(source.name)
        if given is None or given.dtype != np.int8 or given.shape[1:] != source.shape:
            what = "missing" if given is None else f"{given.dtype} {given.shape}"
            raise DataError(
                f"input {source.name!r} is {what}; it must be int8 of shape (n, *{source.shape}):"
                " quantise it with the model's input scale"
            )
        counts.add(len(given))
    if len(counts) > 1:
        raise DataError(f"inputs have {sorted(counts)} rows; all modalities need the same number")
    return counts.pop()


def _batch_rows(graph: Graph) -> int:
    """Inputs a batch, so that neither a tensor nor the windows of a convolution grow large."""
    largest = 1
    for op in graph.ops:
        largest = max(largest, size(graph.shapes[op.name]))
        if isinstance(op, Conv2d):
            height, width, _ = graph.shapes[op.name]
            window = op.kernel[0] * op.kernel[1] * graph.shapes[op.inputs[0]][2]
            largest = max(largest, height * width * window)
    return min(256, max(1, _BATCH_ELEMENTS // largest))


def _low(model: IntegerModel, op: Conv2d | DepthwiseConv2d | Add | Positions) -> int:
    """Lower bound of the output: a ReLU cuts at real zero."""
    relu = not isinstance(op, Positions) and op.relu
    return max(-128, model.scales[op.name].zero_point) if relu else -128


def _accumulator_type(values: Int8) -> Precision:
    """float32 where each partial sum of (out, taps) weights times 255 is an integer it holds."""
    worst = int(np.abs(values.astype(np.int64)).sum(axis=1).max()) * 255
    return np.float32 if worst < _FLOAT32_EXACT else np.float64


def _centred(
    model: IntegerModel, op: Conv2d | DepthwiseConv2d, kind: Any
) -> Callable[[Int8], Real]:
    """int8 (n, h, w, c) -> input minus zero point with padding around it, as floats."""
    source = op.inputs[0]
    zero = kind(model.scales[source].zero_point)
    rows, columns = window_padding(op, model.graph.shapes[source])

    def centre(x: Int8) -> Real:
        n, h, w, c = x.shape
        padded: Real = np.zeros((n, h + sum(rows), w + sum(columns), c), kind)
        inner = padded[:, rows[0] : rows[0] + h, columns[0] : columns[0] + w]
        np.subtract(x, zero, out=inner, dtype=kind)
        return padded

    return centre


def _conv(model: IntegerModel, op: Conv2d, rounding: Rounding) -> Step:
    held, scale = model.weights[op.name], model.scales[op.name]
    matrix = held.values.reshape(op.channels, -1)
    kind = _accumulator_type(matrix)
    weights = np.ascontiguousarray(matrix.T.astype(kind))
    bias = held.bias.astype(np.int64)
    centre = _centred(model, op, kind)
    requantise = requantiser(model.factors(op), scale.zero_point, _low(model, op), rounding)
    height, width, channels = model.graph.shapes[op.name]

    def step(x: Int8) -> Int8:
        windows = _windows(centre(x), op, height, width)
        accumulator = (windows @ weights).astype(np.int64)
        accumulator += bias
        return requantise(accumulator).reshape(len(x), height, width, channels)

    return step


def _windows(x: Real, op: Conv2d, height: int, width: int) -> Real:
    """(n, h, w, c) -> (n * height * width, kernel height * kernel width * c)."""
    n, _, _, c = x.shape
    if op.kernel == (1, 1) and op.stride == (1, 1):
        return x.reshape(n * height * width, c)
    row, column, element = x.strides[1], x.strides[2], x.strides[3]
    # The columns of a window lie side by side in memory: one run of kernel width * c elements.
    view = np.lib.stride_tricks.as_strided(
        x,
        (n, height, width, op.kernel[0], op.kernel[1] * c),
        (x.strides[0], row * op.stride[0], column * op.stride[1], row, element),
        writeable=False,
    )
    return view.reshape(n * height * width, op.kernel[0] * op.kernel[1] * c)


def _depthwise(model: IntegerModel, op: DepthwiseConv2d, rounding: Rounding) -> Step:
    held, scale = model.weights[op.name], model.scales[op.name]
    taps = held.values[0]
    kind = _accumulator_type(taps.reshape(-1, taps.shape[-1]).T)
    weights = taps.astype(kind)
    bias = held.bias.astype(np.int64)
    centre = _centred(model, op, kind)
    requantise = in_vectors(model.factors(op), scale.zero_point, _low(model, op), rounding)
    shape = model.graph.shapes[op.name]

    def step(x: Int8) -> Int8:
        padded = centre(x)
        total: Real = np.zeros((len(x), *shape), kind)
        product: Real = np.empty_like(total)
        for i, j, view in _taps(padded, op.kernel, op.stride, shape):
            np.multiply(view, weights[i, j], out=product)
            total += product
        accumulator = total.astype(np.int64)
        accumulator += bias
        return requantise(accumulator)

    return step


def _taps(
    x: NDArray[Any], kernel: tuple[int, int], stride: tuple[int, int], out: Sequence[int]
) -> list[tuple[int, int, NDArray[Any]]]:
    """For each place (i, j) of a window the view (n, height, width, c) of what stands there."""
    high, wide = (out[0] - 1) * stride[0] + 1, (out[1] - 1) * stride[1] + 1
    return [
        (i, j, x[:, i : i + high : stride[0], j : j + wide : stride[1]])
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def _pool(model: IntegerModel, op: Pool, rounding: Rounding) -> Step:
    shape = model.graph.shapes[op.name]
    count = op.kernel[0] * op.kernel[1]

    def largest(x: Int8) -> Int8:
        best = np.full((len(x), *shape), -128, np.int8)
        for _, _, view in _taps(x, op.kernel, op.stride, shape):
            np.maximum(best, view, out=best)
        return best

    def mean(x: Int8) -> Int8:
        total = np.zeros((len(x), *shape), np.int32)
        for _, _, view in _taps(x, op.kernel, op.stride, shape):
            total += view
        # Half away from zero, of the integers and not of the reals they stand for.
        rounded = (np.abs(total) + count // 2) // count
        signed: Int8 = (np.sign(total) * rounded).astype(np.int8)
        return signed

    return mean if op.function == "average" else largest


def _positions(model: IntegerModel, op: Positions, rounding: Rounding) -> Step:
    added, values = _add(model, op, rounding), model.weights[op.name].values
    return lambda x: added(x, np.broadcast_to(values, x.shape).copy())


def _add(model: IntegerModel, op: Add | Positions, rounding: Rounding) -> Step:
    scalar = SCALAR_ROUNDING[rounding]
    zero = model.scales[op.name].zero_point
    out = np.array([add_factors(model, op)[2]])
    requantise = requantiser(out, zero, _low(model, op), scalar)
    summed = _common_sum(model, op, scalar)
    if rounding != "double_up":
        return lambda a, b: requantise(summed(a, b))

    summed_in_vectors = _common_sum(model, op, "single")
    elements = size(model.graph.shapes[op.name])
    whole = elements - elements % VECTOR_ELEMENTS

    def step(a: Int8, b: Int8) -> Int8:
        left, right = a.reshape(-1, elements), b.reshape(-1, elements)
        first = summed_in_vectors(left[:, :whole], right[:, :whole])
        total = np.concatenate([first, summed(left[:, whole:], right[:, whole:])], axis=1)
        return requantise(total).reshape(a.shape)

    return step


def _common_sum(
    model: IntegerModel, op: Add | Positions, rounding: Rounding
) -> Callable[[Int8, Int8], Int64]:
    """Both inputs of an Add brought to their common scale, and summed."""
    # An input has 256 values: rescale each of them once. The index is the byte without its sign.
    values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
    tables = []
    zeros = [model.scales[name].zero_point for name in op.inputs]
    for zero, factor in zip([*zeros, 0], add_factors(model, op), strict=False):
        raised = (values - zero) << ADD_SHIFT
        multiplier, shift = quantise_multipliers(np.array([factor]))
        tables.append(rescale(raised, multiplier, shift, rounding))

    def summed(a: Int8, b: Int8) -> Int64:
        total: Int64 = tables[0][a.view(np.uint8)]
        total += tables[1][b.view(np.uint8)]
        return total

    return summed


def _mul(model: IntegerModel, op: Mul, rounding: Rounding) -> Step:
    left, right, out = (model.scales[name] for name in (*op.inputs, op.name))
    factors = model.factors(op)
    if rounding != SCALAR_ROUNDING[rounding]:
        product = np.float32(left.scale) * np.float32(right.scale)
        factors = np.array([product / np.float32(out.scale)], np.float64)
    requantise = requantiser(factors, out.zero_point, -128, SCALAR_ROUNDING[rounding])

    def step(a: Int8, b: Int8) -> Int8:
        product = a.astype(np.int64) - left.zero_point
        product *= b.astype(np.int64) - right.zero_point
        return requantise(product)

    return step


def _concat(model: IntegerModel, op: Concat, rounding: Rounding) -> Step:
    return lambda *parts: np.concatenate(parts, axis=-1)


def _table(model: IntegerModel, op: Table, rounding: Rounding) -> Step:
    by_byte = np.roll(model.table(op), 128)  # from the order -128..127 to that of unsigned bytes

    return lambda x: by_byte[x.view(np.uint8)]


def _pad(model: IntegerModel, op: Pad, rounding: Rounding) -> Step:
    top, bottom, left, right = op.padding
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    zero = model.scales[op.name].zero_point
    return lambda x: np.pad(x, around, constant_values=zero)


def _reshape(model: IntegerModel, op: Reshape, rounding: Rounding) -> Step:
    return lambda x: x.reshape(len(x), *op.shape)


KERNELS: dict[type[Op], Callable[[IntegerModel, Any, Rounding], Step]] = {
    Conv2d: _conv,
    DepthwiseConv2d: _depthwise,
    Pool: _pool,
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Table: _table,
    Pad: _pad,
    Reshape: _reshape,
    Attention: sequence.attention,
    SelectiveScan: sequence.selective_scan,
    Positions: _positions,
    LastStep: sequence.last_step,
    History: sequence.history,
    Running: sequence.running,
}
