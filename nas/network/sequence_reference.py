"""The integer reference of what series need: attention, selective scans, positions, streaming.

Same rules as in `reference`: each function prepares an operator's constants once and returns the
step that maps batches of its inputs to its output. A step that keeps something from one run to the
next holds it itself, so a model that runs step by step is made anew for each sequence.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nas.network.integer import IntegerModel
from nas.network.numerics import Int8, Int64, Rounding, quantise_multipliers, rescale
from nas.network.ops import (
    Attention,
    History,
    LastStep,
    Running,
    SelectiveScan,
)
from nas.network.softmax import exponentials, softmax, softmax_in_float

Step: TypeAlias = Callable[..., Int8]

STATE_BITS = 15  # a_n and 1 - a_n are integers of 2^-15
_HALF = np.array([2.0**-STATE_BITS])


def rescaler(
    factors: NDArray[np.float64], rounding: Rounding = "double"
) -> Callable[[Int64], Int64]:
    """round(x * factor), one factor or one for each place of the last axis."""
    multiplier, shift = quantise_multipliers(factors)
    return lambda x: rescale(x, multiplier, shift, rounding)


def attention_factors(model: IntegerModel, op: Attention) -> tuple[float, float, float]:
    """(products to scores, scale of the softmax's input, weighted values to output).

    The root of a head's width is part of the softmax's scale.
    """
    q, k, v = (model.scales[name].scale for name in op.inputs)
    scores, out = model.internal(op, "scores"), model.scales[op.name].scale
    width = model.graph.shapes[op.name][2] // op.heads
    return q * k / scores, scores * float(np.float32(width**-0.5)), v / 256 / out


def attention(model: IntegerModel, op: Attention, rounding: Rounding) -> Step:
    """Scores and weights of every head are int8; the weights' real values are (w + 128) / 256.

    LiteRT rounds the products as TFLM does, its predecessor half up; both take the softmax of
    float32 numbers.
    """
    to_scores, softmax_scale, to_output = attention_factors(model, op)
    products: Rounding = "double_up" if rounding == "double_up_dense" else "double"
    score, out = (rescaler(np.array([f]), products) for f in (to_scores, to_output))
    zero = model.scales[op.name].zero_point
    weigh = partial(softmax, table=exponentials(softmax_scale))
    if rounding in ("double_up", "double_up_dense"):
        weigh = partial(softmax_in_float, scale=softmax_scale)

    def heads(x: Int8) -> NDArray[np.float64]:
        n, _, steps, channels = x.shape
        return x.reshape(n, steps, op.heads, channels // op.heads).swapaxes(1, 2).astype(np.float64)

    def step(q: Int8, k: Int8, v: Int8) -> Int8:
        products = (heads(q) @ heads(k).swapaxes(2, 3)).astype(np.int64)  # exact below 2^53
        scores = np.clip(score(products), -128, 127).astype(np.int8)
        weights = weigh(scores).astype(np.float64) + 128
        mixed = out((weights @ heads(v)).astype(np.int64)) + zero
        clipped = np.clip(mixed, -128, 127).astype(np.int8)
        return clipped.swapaxes(1, 2).reshape(q.shape)

    return step


def decay_table(dt_scale: float) -> NDArray[np.int16]:
    """(256,) a_1 = sigmoid(-dt) in units of 2^-15 for dt of -128 to 127 steps, below one."""
    x = np.arange(-128, 128) * dt_scale
    with np.errstate(over="ignore"):
        decay = np.round((1 << STATE_BITS) / (1.0 + np.exp(x)))
    held: NDArray[np.int16] = np.minimum(decay, (1 << STATE_BITS) - 1).astype(np.int16)
    return held


def forgetting_tables(model: IntegerModel, op: SelectiveScan) -> Int64:
    """(256, states) 1 - a_n in units of 2^-15 for dt of -128 to 127 steps."""
    decay = decay_table(model.scales[op.inputs[1]].scale).astype(np.int64)
    halve = rescaler(_HALF)
    powers = [decay]
    while len(powers) < model.graph.shapes[op.inputs[2]][2]:
        powers.append(halve(powers[-1] * decay))
    return (1 << STATE_BITS) - np.stack(powers, axis=1)


def scan_factors(model: IntegerModel, op: SelectiveScan) -> tuple[float, float]:
    """(sum over states to the int16 sum, its product with the gate to the output)."""
    u, _, b, c, z = (model.scales[name].scale for name in op.inputs)
    between, out = model.internal(op, "sum"), model.scales[op.name].scale
    return u * b * c / between, between * z / out


def selective_scan(model: IntegerModel, op: SelectiveScan, rounding: Rounding) -> Step:
    """The state has the scale of u times that of b: |b u| <= 2^14 and so is |h|.

    a_(n+1) = round(a_n a_1), h += round((1 - a_n)(b_n u - h)), in integers of 2^-15.
    """
    # Every runtime rounds here as TFLM does: these are no kernels that work on vectors.
    to_sum, to_output = (rescaler(np.array([f])) for f in scan_factors(model, op))
    forgetting = forgetting_tables(model, op)
    skip = model.weights[op.name].bias.astype(np.int64)
    zero = model.scales[op.name].zero_point
    halve = rescaler(_HALF)
    states = model.graph.shapes[op.inputs[2]][2]
    kept: dict[str, Int64] = {}

    def step(u: Int8, dt: Int8, b: Int8, c: Int8, z: Int8) -> Int8:
        wide = [x[:, 0].astype(np.int64) for x in (u, b, c, z)]
        u_, b_, c_, z_ = wide
        # (n, steps, states, channels)
        forget = forgetting[dt[:, 0].astype(np.int64) + 128].swapaxes(2, 3)
        h = kept.get("h") if op.carry else None
        if h is None:
            h = np.zeros((len(u), states, u.shape[3]), np.int64)
        out = np.empty(u_.shape, np.int64)
        for t in range(u_.shape[1]):
            h = h + halve(forget[:, t] * (b_[:, t, :, None] * u_[:, t, None, :] - h))
            out[:, t] = (h * c_[:, t, :, None]).sum(1)
        kept["h"] = h
        summed = np.clip(to_sum(out + skip * u_), -(1 << 15), (1 << 15) - 1)
        gated = np.clip(to_output(summed * z_) + zero, -128, 127)
        return gated.astype(np.int8)[:, None]

    return step


def last_step(model: IntegerModel, op: LastStep, rounding: Rounding) -> Step:
    """A copy."""

    def step(x: Int8) -> Int8:
        return x[:, :, -1:]

    return step


def history(model: IntegerModel, op: History, rounding: Rounding) -> Step:
    """What came before, and what came now."""
    _, _, channels = model.graph.shapes[op.name]
    zero = model.scales[op.name].zero_point
    kept: dict[str, Int8] = {}

    def step(x: Int8) -> Int8:
        before = kept.get("x")
        if before is None:
            before = np.full((len(x), 1, op.steps, channels), zero, np.int8)
        joined = np.concatenate([before, x], axis=2)
        kept["x"] = joined[:, :, -op.steps :]
        return joined

    return step


def running(model: IntegerModel, op: Running, rounding: Rounding) -> Step:
    """The pool's own arithmetic, on all that came so far."""
    steps = model.graph.shapes[op.inputs[0]][1]
    count = op.frames * steps
    kept: dict[str, Int64] = {}

    def largest(x: Int8) -> Int8:
        newest = x.max(2, keepdims=True).astype(np.int64)
        kept["x"] = np.maximum(kept.get("x", newest), newest)
        return kept["x"].astype(np.int8)

    def mean(x: Int8) -> Int8:
        kept["x"] = kept.get("x", np.int64(0)) + x.sum(2, keepdims=True, dtype=np.int64)
        # Half away from zero; before the last frame the value does not count.
        rounded: Int8 = np.sign(kept["x"]) * ((np.abs(kept["x"]) + count // 2) // count)
        return rounded.astype(np.int8)

    return mean if op.function == "average" else largest
