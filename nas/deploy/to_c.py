"""The header and the source of a trained model: constants and one kernel call an operator.

The arena's layout is that of the memory plan and workspace which were scored. Identifiers carry a
prefix, so that several models link into one firmware.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.deploy.c_text import comment, decimal, identifiers
from nas.deploy.calls import Emitter, calls_of
from nas.hardware.program import Program
from nas.network.graph import Input
from nas.network.integer import IntegerModel, Scale
from nas.network.ops import size


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How an input's real values become its integers: round((x - mean) / std / scale).

    One value a channel each.
    """

    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True, slots=True)
class CSource:
    """The two files, and the kernels that the source calls, without prefix."""

    header: str
    source: str
    functions: frozenset[str]


def to_c(
    model: IntegerModel,
    program: Program,
    normalisation: Mapping[str, Normalisation],
    prefix: str = "model",
    title: str = "A generated model.",
) -> CSource:
    """The C of a model; `normalisation` by input gives those inputs a function for real values.

    Raises:
        GraphError: numbers that the kernels do not hold (`packing.channels`).
        UnsupportedOp: an operator that the C writer does not know.
    """
    emitter = Emitter(model, program)
    names = identifiers(op.name for op in program.ops)
    calls = [  # the numbers keep `x_weights`, an operator, apart from the weights of `x`
        calls_of(emitter, op, f"op{step}_{names[op.name]}")
        for step, op in enumerate(program.ops, 1)
    ]
    lines = [f'#include "{prefix}.h"', "", '#include "kernels/kernels.h"', *_planes(program)]
    for call in calls:
        lines += [text for constant in call.constants for text in ("", constant)]
    lines += ["", *_stopping(prefix), f"void {prefix}_run(void *arena) {{"]
    lines += ["    int8_t *const a = arena;", "    (void)a;"]
    for step, (op, call) in enumerate(zip(program.ops, calls, strict=True), 1):
        lines += ["", f"    /* {comment(op.name)} */"]
        lines += [f"    {statement}" for statement in call.statements]
        lines += [f"    STOP_AFTER({step}u);"]
    lines += ["}", *_dequantise(prefix)]
    inputs = identifiers(source.name for source in model.graph.inputs)
    for source in model.graph.inputs:
        if source.name in normalisation:
            lines += _quantise(prefix, inputs[source.name], normalisation[source.name])
    functions = frozenset(name for call in calls for name in call.functions)
    header = _header(model, program, normalisation, prefix, title)
    return CSource(header, "\n".join([*lines, ""]), functions)


def _planes(program: Program) -> list[str]:
    """Declarations of the assembly that depthwise convolutions bring for their own sizes."""
    names = sorted({k.plane.name for k in program.kernels.values() if k.plane is not None})
    if not names:
        return []
    declared = ", ".join(f"NAS({name})" for name in names)
    return ['#include "kernels/depthwise.h"', "", f"nas_plane {declared};"]


def _stopping(prefix: str) -> list[str]:
    """Lets a test stop after any operator; nothing of it is in an ordinary build."""
    upper = prefix.upper()
    return [
        f"#ifdef {upper}_STEPS /* for finding the operator at which two runs part */",
        f"extern volatile uint32_t {prefix}_steps;",
        f"volatile uint32_t {prefix}_steps;",
        f"#define STOP_AFTER(step) if ({prefix}_steps == (step)) return",
        "#else",
        "#define STOP_AFTER(step) (void)0",
        "#endif",
        "",
    ]


def _header(
    model: IntegerModel,
    program: Program,
    normalisation: Mapping[str, Normalisation],
    prefix: str,
    title: str,
) -> str:
    upper, graph = prefix.upper(), model.graph
    arena, activations = program.memory_bytes, program.plan.arena_bytes
    names = identifiers(source.name for source in graph.inputs)
    lines = [
        f"/* {comment(title)}",
        " *",
        f" * Put int8 values at {prefix}_input_<name>(arena), call {prefix}_run(arena), read the",
        f" * logits at {prefix}_output(arena): the largest is the class. A run overwrites inputs.",
        " */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "#include <stdint.h>",
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"/* What the caller gives, aligned to 4 bytes: {activations} of activations, the rest for",
        " * the kernels to work in. */",
        f"#define {upper}_ARENA_BYTES {arena}u",
        "",
        "/* One inference; the arena holds the inputs before and the output after it. */",
        f"void {prefix}_run(void *arena);",
        *_tensor(prefix, "output", graph.shapes[graph.output], program, graph.output, model),
        f"static inline const int8_t *{prefix}_output(const void *arena) {{",
        f"    return (const int8_t *)arena + {upper}_OUTPUT_OFFSET;",
        "}",
        "",
        "/* The logits as real numbers. */",
        f"void {prefix}_dequantise(const void *arena, float logits[{upper}_OUTPUT_SIZE]);",
    ]
    for source in graph.inputs:
        name = names[source.name]
        lines += _input(prefix, name, source, program, model, source.name in normalisation)
    lines += ["", "#ifdef __cplusplus", "}", "#endif"]
    return "\n".join([*lines, "", "#endif", ""])


def _tensor(
    prefix: str,
    role: str,
    shape: Sequence[int],
    program: Program,
    tensor: str,
    model: IntegerModel,
) -> list[str]:
    upper, scale = f"{prefix}_{role}".upper(), model.scales[tensor]
    return [
        "",
        f"/* {comment(tensor)}: {' x '.join(map(str, shape))}; {_meaning(scale)}. */",
        f"#define {upper}_SIZE {size(tuple(shape))}u",
        f"#define {upper}_OFFSET {program.plan.offsets[tensor]}u",
        f"#define {upper}_SCALE {decimal(scale.scale)}",
        f"#define {upper}_ZERO_POINT ({scale.zero_point})",
    ]


def _meaning(scale: Scale) -> str:
    return f"real = (int8 - ({scale.zero_point})) * {decimal(scale.scale)}"


def _input(
    prefix: str,
    name: str,
    source: Input,
    program: Program,
    model: IntegerModel,
    normalised: bool,
) -> list[str]:
    upper = f"{prefix}_input_{name}".upper()
    lines = [
        *_tensor(prefix, f"input_{name}", source.shape, program, source.name, model),
        f"static inline int8_t *{prefix}_input_{name}(void *arena) {{",
        f"    return (int8_t *)arena + {upper}_OFFSET;",
        "}",
    ]
    if normalised:
        lines += [
            "",
            "/* Normalises real values by the training data's mean and deviation; quantises. */",
            f"void {prefix}_quantise_{name}(void *arena, const float values[{upper}_SIZE]);",
        ]
    return lines


def _dequantise(prefix: str) -> list[str]:
    upper = f"{prefix}_output".upper()
    return [
        "",
        f"void {prefix}_dequantise(const void *arena, float logits[{upper}_SIZE]) {{",
        f"    const int8_t *output = {prefix}_output(arena);",
        f"    for (uint32_t i = 0; i < {upper}_SIZE; i++) {{",
        f"        logits[i] = (float)(output[i] - {upper}_ZERO_POINT) * {upper}_SCALE;",
        "    }",
        "}",
    ]


def _quantise(prefix: str, name: str, held: Normalisation) -> list[str]:
    """Rounds half to even: adding 1.5 * 2^23 leaves a float32 no fraction."""
    upper, count = f"{prefix}_input_{name}".upper(), len(held.mean)
    return [
        "",
        f"void {prefix}_quantise_{name}(void *arena, const float values[{upper}_SIZE]) {{",
        f"    static const float mean[{count}] = {{{', '.join(map(decimal, held.mean))}}};",
        f"    static const float std[{count}] = {{{', '.join(map(decimal, held.std))}}};",
        f"    int8_t *input = {prefix}_input_{name}(arena);",
        f"    for (uint32_t i = 0; i < {upper}_SIZE; i++) {{",
        f"        const float real = (values[i] - mean[i % {count}u]) / std[i % {count}u];",
        f"        float q = real / {upper}_SCALE;",
        "        q = q > 512.0f ? 512.0f : q > -512.0f ? q : -512.0f; /* which NaN becomes, too */",
        "        const volatile float rounded = q + 12582912.0f;",
        f"        q = rounded - 12582912.0f + (float){upper}_ZERO_POINT;",
        "        input[i] = (int8_t)(q > 127.0f ? 127.0f : q < -128.0f ? -128.0f : q);",
        "    }",
        "}",
    ]
