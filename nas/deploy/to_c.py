"""The header and the source of a trained model: constants and one kernel call an operator.

The arena's layout is that of the memory plan and workspace which were scored. Identifiers carry a
prefix, so that several models link into one firmware.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.deploy.c_text import comment, decimal, identifiers
from nas.deploy.calls import Calls, Emitter, calls_of
from nas.deploy.to_step_c import HeaderText, step_functions, step_text
from nas.hardware.program import Program
from nas.network.graph import Input
from nas.network.integer import IntegerModel, Scale
from nas.network.ops import size
from nas.network.streaming import Stepping


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How an input's real values become its integers: round((x - mean) / std / scale).

    One value a channel each.
    """

    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True, slots=True)
class CSource:
    """The two files, and what they need.

    Attributes:
        functions: the kernels that the source calls, without prefix.
        memory: what the caller's memory is called, of `memory_bytes`.
    """

    header: str
    source: str
    functions: frozenset[str]
    memory: str
    memory_bytes: int


def to_c(
    model: IntegerModel,
    program: Program,
    normalisation: Mapping[str, Normalisation],
    prefix: str = "model",
    title: str = "A generated model.",
    made: Stepping | None = None,
) -> CSource:
    """The C of a model; `normalisation` by input gives those inputs a function for real values.

    Args:
        made: where the model is one that runs step by step, how.

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
    if made is None:
        use = _run_text(prefix, program)
        lines += _run_function(prefix, program, calls)
    else:
        use = step_text(prefix, program, made)
        lines += step_functions(prefix, program, calls, made)
    lines += _dequantise(prefix, use.memory)
    inputs = identifiers(source.name for source in model.graph.inputs)
    for source in model.graph.inputs:
        if source.name in normalisation:
            lines += _quantise(prefix, inputs[source.name], normalisation[source.name], use.memory)
    functions = {name for call in calls for name in call.functions}
    functions |= {name for call in calls for name in call.reset_functions}
    header = _header(model, program, normalisation, prefix, title, use)
    text = "\n".join([*lines, ""])
    return CSource(header, text, frozenset(functions), use.memory, use.memory_bytes)


def _run_function(prefix: str, program: Program, calls: Sequence[Calls]) -> list[str]:
    lines = ["", *_stopping(prefix), f"void {prefix}_run(void *arena) {{"]
    lines += ["    int8_t *const a = arena;", "    (void)a;"]
    for step, (op, call) in enumerate(zip(program.ops, calls, strict=True), 1):
        lines += ["", f"    /* {comment(op.name)} */"]
        lines += [f"    {statement}" for statement in call.statements]
        lines += [f"    STOP_AFTER({step}u);"]
    return [*lines, "}"]


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
    use: HeaderText,
) -> str:
    upper, graph, memory = prefix.upper(), model.graph, use.memory
    names = identifiers(source.name for source in graph.inputs)
    lines = [
        f"/* {comment(title)}",
        *use.summary,
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
        *use.declarations,
        *_tensor(prefix, "output", graph.shapes[graph.output], program, graph.output, model),
        f"static inline const int8_t *{prefix}_output(const void *{memory}) {{",
        f"    return (const int8_t *){memory} + {upper}_OUTPUT_OFFSET;",
        "}",
        "",
        "/* The logits as real numbers. */",
        f"void {prefix}_dequantise(const void *{memory}, float logits[{upper}_OUTPUT_SIZE]);",
    ]
    for source in graph.inputs:
        name, normalised = names[source.name], source.name in normalisation
        lines += _input(prefix, name, source, program, model, normalised, memory)
    lines += ["", "#ifdef __cplusplus", "}", "#endif"]
    return "\n".join([*lines, "", "#endif", ""])


def _run_text(prefix: str, program: Program) -> HeaderText:
    upper, activations = prefix.upper(), program.plan.arena_bytes
    return HeaderText(
        "arena",
        program.memory_bytes,
        [
            " *",
            f" * Put int8 values at {prefix}_input_<name>(arena), call {prefix}_run(arena), read",
            f" * the logits at {prefix}_output(arena): the largest is the class. A run overwrites",
            " * the inputs.",
        ],
        [
            f"/* What the caller gives, aligned to 4 bytes: {activations} of activations, the rest",
            " * for the kernels to work in. */",
            f"#define {upper}_ARENA_BYTES {program.workspace.bytes}u",
            "",
            "/* One inference; the arena holds the inputs before and the output after it. */",
            f"void {prefix}_run(void *arena);",
        ],
    )


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
    memory: str,
) -> list[str]:
    upper = f"{prefix}_input_{name}".upper()
    lines = [
        *_tensor(prefix, f"input_{name}", source.shape, program, source.name, model),
        f"static inline int8_t *{prefix}_input_{name}(void *{memory}) {{",
        f"    return (int8_t *){memory} + {upper}_OFFSET;",
        "}",
    ]
    if normalised:
        lines += [
            "",
            "/* Normalises real values by the training data's mean and deviation; quantises. */",
            f"void {prefix}_quantise_{name}(void *{memory}, const float values[{upper}_SIZE]);",
        ]
    return lines


def _dequantise(prefix: str, memory: str) -> list[str]:
    upper = f"{prefix}_output".upper()
    return [
        "",
        f"void {prefix}_dequantise(const void *{memory}, float logits[{upper}_SIZE]) {{",
        f"    const int8_t *output = {prefix}_output({memory});",
        f"    for (uint32_t i = 0; i < {upper}_SIZE; i++) {{",
        f"        logits[i] = (float)(output[i] - {upper}_ZERO_POINT) * {upper}_SCALE;",
        "    }",
        "}",
    ]


def _quantise(prefix: str, name: str, held: Normalisation, memory: str) -> list[str]:
    """Rounds half to even: adding 1.5 * 2^23 leaves a float32 no fraction."""
    upper, count = f"{prefix}_input_{name}".upper(), len(held.mean)
    return [
        "",
        f"void {prefix}_quantise_{name}(void *{memory}, const float values[{upper}_SIZE]) {{",
        f"    static const float mean[{count}] = {{{', '.join(map(decimal, held.mean))}}};",
        f"    static const float std[{count}] = {{{', '.join(map(decimal, held.std))}}};",
        f"    int8_t *input = {prefix}_input_{name}({memory});",
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
