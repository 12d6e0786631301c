"""One operator as C: its constants, and the statements that call its kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.deploy.c_text import integers, octets, shorts, words
from nas.hardware.program import Program, in_words
from nas.network.integer import IntegerModel
from nas.network.numerics import quantise_multiplier
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
    Shape,
    Table,
    size,
    window_padding,
)
from nas.network.reference import add_factors, row_of
from nas.network.sequence_reference import attention_factors, decay_table, scan_factors
from nas.network.softmax import exponentials
from nas.packing import by_bits, pack_conv, pack_depthwise
from nas.packing.channels import channels_of


@dataclass(frozen=True, slots=True)
class Calls:
    """One operator's part of the source.

    Attributes:
        constants: definitions.
        statements: the calls of its kernels.
        functions: those kernels, without prefix.
        resets: statements that bring its state to what it is before the first run.
        reset_functions: the kernels that those call.
    """

    constants: tuple[str, ...]
    statements: tuple[str, ...]
    functions: tuple[str, ...]
    resets: tuple[str, ...] = ()
    reset_functions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Emitter:
    """What the rows below need of the whole: `at` gives a tensor's place in the arena `a`."""

    model: IntegerModel
    program: Program

    def at(self, tensor: str, offset: int = 0) -> str:
        """A tensor's place as a C expression."""
        return f"a + {self.program.plan.offsets[tensor] + offset}"

    def scratch(self, op: Op) -> str:
        """The place of an operator's working memory."""
        return f"a + {self.program.workspace.offsets.get(op.name, 0)}"

    def state(self, op: Op) -> str:
        """The place of what an operator keeps from one run to the next."""
        return f"a + {self.program.state_offsets[op.name]}"

    def shape(self, tensor: str) -> Shape:
        """(height, width, channels) of a tensor."""
        return self.model.graph.shapes[tensor]

    def zero(self, tensor: str) -> int:
        """Zero point of a tensor."""
        return self.model.scales[tensor].zero_point


def calls_of(emitter: Emitter, op: Op, name: str) -> Calls:
    """The C of `op`, its constants named after `name`."""
    return row_of(ROWS, op, "the C writer")(emitter, op, name)


def _conv(e: Emitter, op: Conv2d, name: str) -> Calls:
    channels = channels_of(e.model, op)
    packed = by_bits.pack(channels.values, op.kernel[0], op.weight_bits)
    table = pack_conv.table(channels)
    kernel = e.program.kernels[op.name].name
    return _weighted(e, op, name, packed, table, kernel, ())


def _depthwise(e: Emitter, op: DepthwiseConv2d, name: str) -> Calls:
    channels, kernel = channels_of(e.model, op), e.program.kernels[op.name]
    packed = pack_depthwise.pack_weights(channels, op.weight_bits).view(np.uint32)
    function, extra = kernel.name, []
    if kernel.plane is not None:
        function = "depthwise_planes"
        extra = [str(op.weight_bits), f"NAS_PLANE(NAS({kernel.plane.name}))"]
    return _weighted(e, op, name, packed, pack_depthwise.pack_table(channels), function, extra)


def _weighted(
    e: Emitter,
    op: Conv2d | DepthwiseConv2d,
    name: str,
    weights: NDArray[np.uint32],
    table: NDArray[np.int32],
    function: str,
    extra: Sequence[str],
) -> Calls:
    source = e.shape(op.inputs[0])
    out = e.shape(op.name)
    padding = window_padding(op, source)
    fields = [
        f"{name}_weights",
        f"{name}_table",
        *source,
        *out,
        *op.kernel,
        *op.stride,
        padding[0][0],
        padding[1][0],
        e.zero(op.inputs[0]),
        e.zero(op.name),
    ]
    arguments = [f"&{name}", e.at(op.inputs[0]), e.at(op.name), e.scratch(op), *extra]
    clip, functions = _clip(e, op)
    if op.name in e.program.workspace.staged_bytes:
        arguments += [f"NAS({function})", str(weights.size), str(table.size)]
        function, functions = "staged", (function, *functions)
    return Calls(
        (
            words(f"{name}_weights", weights),
            integers(f"{name}_table", table),
            f"static const nas_conv {name} = {{{', '.join(map(str, fields))}}};",
        ),
        (f"NAS({function})({', '.join(arguments)});", *clip),
        (function, *functions),
    )


def _clip(e: Emitter, op: Conv2d | DepthwiseConv2d) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A ReLU whose real zero is not -128: the kernels saturate at -128 by themselves."""
    zero = e.zero(op.name)
    if not op.relu or zero <= -128:
        return (), ()
    return (f"NAS(clip)({e.at(op.name)}, {zero}, {size(e.shape(op.name))});",), ("clip",)


def _pool(e: Emitter, op: Pool, name: str) -> Calls:
    _, width, channels = e.shape(op.inputs[0])
    height_out, width_out, _ = e.shape(op.name)
    fields = [width, channels, height_out, width_out, *op.kernel, *op.stride]
    function = f"{op.function}_pool"
    return Calls(
        (f"static const nas_pool {name} = {{{', '.join(map(str, fields))}}};",),
        (f"NAS({function})(&{name}, {e.at(op.inputs[0])}, {e.at(op.name)});",),
        (function,),
    )


def _factor(value: float) -> str:
    multiplier, shift = quantise_multiplier(value)
    return f"{{{multiplier}, {shift}}}"


def _add(e: Emitter, op: Add, name: str) -> Calls:
    factors = ", ".join(map(_factor, add_factors(e.model, op)))
    low = max(-128, e.zero(op.name)) if op.relu else -128
    zeros = ", ".join(str(e.zero(tensor)) for tensor in (*op.inputs, op.name))
    return Calls(
        (f"static const nas_add {name} = {{{factors}, {zeros}, {low}}};",),
        (_two_inputs(e, op, name, "add"),),
        ("add",),
    )


def _mul(e: Emitter, op: Mul, name: str) -> Calls:
    zeros = ", ".join(str(e.zero(tensor)) for tensor in (*op.inputs, op.name))
    factor = _factor(float(e.model.factors(op)[0]))
    return Calls(
        (f"static const nas_mul {name} = {{{factor}, {zeros}}};",),
        (_two_inputs(e, op, name, "mul"),),
        ("mul",),
    )


def _two_inputs(e: Emitter, op: Add | Mul, name: str, function: str) -> str:
    places = ", ".join(e.at(tensor) for tensor in (*op.inputs, op.name))
    return f"NAS({function})(&{name}, {places}, {size(e.shape(op.name))});"


def _concat(e: Emitter, op: Concat, name: str) -> Calls:
    height, width, channels = e.shape(op.name)
    statements, first = [], 0
    for tensor in op.inputs:
        part = e.shape(tensor)[2]
        statements.append(
            _copy(e.at(tensor), part, e.at(op.name, first), channels, part, height * width)
        )
        first += part
    return Calls((), tuple(statements), ("copy_rows",))


def _copy(x: str, x_stride: int, y: str, y_stride: int, row_bytes: int, rows: int) -> str:
    if x_stride == y_stride == row_bytes:  # one run of bytes
        x_stride = y_stride = row_bytes = row_bytes * rows
        rows = 1
    return f"NAS(copy_rows)({x}, {x_stride}, {y}, {y_stride}, {row_bytes}, {rows});"


def _pad(e: Emitter, op: Pad, name: str) -> Calls:
    height, width, channels = e.shape(op.inputs[0])
    shape = e.shape(op.name)
    row, out_row = width * channels, shape[1] * channels
    first = op.padding[0] * out_row + op.padding[2] * channels
    return Calls(
        (),
        (
            f"NAS(fill)({e.at(op.name)}, {e.zero(op.name)}, {size(shape)});",
            _copy(e.at(op.inputs[0]), row, e.at(op.name, first), out_row, row, height),
        ),
        ("fill", "copy_rows"),
    )


def _table(e: Emitter, op: Table, name: str) -> Calls:
    count = size(e.shape(op.name))
    return Calls(
        (octets(f"{name}_table", np.asarray(e.model.table(op))),),
        (f"NAS(look_up)({name}_table, {e.at(op.inputs[0])}, {e.at(op.name)}, {count});",),
        ("look_up",),
    )


def _reshape(e: Emitter, op: Reshape, name: str) -> Calls:
    x, y = e.at(op.inputs[0]), e.at(op.name)
    if x == y:
        return Calls((), (), ())
    count = size(e.shape(op.name))
    return Calls((), (_run(x, y, count),), ("copy_rows",))


def _attention(e: Emitter, op: Attention, name: str) -> Calls:
    (_, queries, width), steps = e.shape(op.name), e.shape(op.inputs[1])[1]
    to_scores, softmax_scale, to_output = attention_factors(e.model, op)
    fields = [f"{name}_exponentials", queries, steps, width, op.heads, _factor(to_scores)]
    fields += [_factor(to_output), e.zero(op.name)]
    places = [*map(e.at, (*op.inputs, op.name)), e.scratch(op)]
    return Calls(
        (
            integers(f"{name}_exponentials", exponentials(softmax_scale).astype(np.int32)),
            f"static const nas_attention {name} = {{{', '.join(map(str, fields))}}};",
        ),
        (f"NAS(attention)(&{name}, {', '.join(places)});",),
        ("attention",),
    )


def _scan(e: Emitter, op: SelectiveScan, name: str) -> Calls:
    (_, steps, channels), states = e.shape(op.name), e.shape(op.inputs[2])[2]
    skip = e.model.weights[op.name].bias
    factors = map(_factor, scan_factors(e.model, op))
    fields = [f"{name}_decay", f"{name}_skip", steps, channels, states, e.zero(op.name), *factors]
    decay = decay_table(e.model.scales[op.inputs[1]].scale)
    carried = op.name in e.program.state_offsets
    places = [*map(e.at, (*op.inputs, op.name)), e.scratch(op), e.state(op) if carried else "0"]
    return Calls(
        (
            shorts(f"{name}_decay", decay),
            integers(f"{name}_skip", skip),
            f"static const nas_scan {name} = {{{', '.join(map(str, fields))}}};",
        ),
        (f"NAS(selective_scan)(&{name}, {', '.join(places)});",),
        ("selective_scan",),
        *(_filled(e, op, 0) if carried else ()),
    )


def _filled(e: Emitter, op: Op, value: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`resets` and `reset_functions` of an operator whose state begins with all bytes alike."""
    count = e.model.graph.state_bytes(op)
    return (f"NAS(fill)({e.state(op)}, {value}, {count});",), ("fill",)


def _positions(e: Emitter, op: Positions, name: str) -> Calls:
    """An addition whose second input lies in Flash, in words: kernels read it four by four."""
    source, out = op.inputs[0], op.name
    values = e.model.weights[out].values.ravel()
    held = np.zeros(in_words(values.size), np.int8)
    held[: values.size] = values
    factors = ", ".join(map(_factor, add_factors(e.model, op)))
    zeros = f"{e.zero(source)}, 0, {e.zero(out)}"
    places = f"{e.at(source)}, (const int8_t *){name}_values, {e.at(out)}"
    return Calls(
        (
            words(f"{name}_values", held.view(np.uint32)),
            f"static const nas_add {name} = {{{factors}, {zeros}, -128}};",
        ),
        (f"NAS(add)(&{name}, {places}, {values.size});",),
        ("add",),
    )


def _last_step(e: Emitter, op: LastStep, name: str) -> Calls:
    _, steps, channels = e.shape(op.inputs[0])
    source = e.at(op.inputs[0], (steps - 1) * channels)
    return Calls((), (_run(source, e.at(op.name), channels),), ("copy_rows",))


def _run(x: str, y: str, count: int) -> str:
    return _copy(x, count, y, count, count, 1)


def _history(e: Emitter, op: History, name: str) -> Calls:
    _, steps, channels = e.shape(op.inputs[0])
    old, new = op.steps * channels, steps * channels
    statements = (
        _run(e.state(op), e.at(op.name), old),
        _run(e.at(op.inputs[0]), e.at(op.name, old), new),
        _run(e.at(op.name, new), e.state(op), old),
    )
    return Calls((), statements, ("copy_rows",), *_filled(e, op, e.zero(op.name)))


def _running(e: Emitter, op: Running, name: str) -> Calls:
    _, steps, channels = e.shape(op.inputs[0])
    function = f"running_{op.function}"
    call = f"NAS({function})(&{name}, {e.at(op.inputs[0])}, {e.at(op.name)}, {e.state(op)});"
    return Calls(
        (f"static const nas_running {name} = {{{steps}, {channels}, {op.frames * steps}}};",),
        (call,),
        (function,),
        *_filled(e, op, 0 if op.function == "average" else -128),
    )


ROWS: dict[type[Op], Callable[[Emitter, Any, str], Calls]] = {
    Conv2d: _conv,
    DepthwiseConv2d: _depthwise,
    Pool: _pool,
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Table: _table,
    Pad: _pad,
    Reshape: _reshape,
    Attention: _attention,
    SelectiveScan: _scan,
    Positions: _positions,
    LastStep: _last_step,
    History: _history,
    Running: _running,
}
