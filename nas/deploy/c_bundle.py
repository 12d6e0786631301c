"""The folder `c/` of a candidate: source, kernels, a self-test, build files and how to use them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from nas.deploy.c_text import check_prefix, identifiers
from nas.deploy.kernel_files import files_of
from nas.deploy.to_c import Normalisation, to_c
from nas.hardware.program import Program
from nas.hardware.workspace import check_workspace
from nas.network import reference
from nas.network.integer import IntegerModel
from nas.network.numerics import Int8
from nas.network.streaming import Stepping, run_steps

TEST_VECTORS = 2
TEMPLATES = ("main.c", "Makefile", "CMakeLists.txt", "README.md")
STEPWISE = {"main.c": "main_step.c", "README.md": "README_step.md"}  # other templates for steps


@dataclass(frozen=True, slots=True)
class Description:
    """What the bundle's readers are told, and how real values become inputs."""

    title: str
    classes: Sequence[str]
    normalisation: Mapping[str, Normalisation]


def c_bundle(
    model: IntegerModel,
    program: Program,
    inputs: Mapping[str, Int8],
    about: Description,
    prefix: str = "model",
    vectors: int = TEST_VECTORS,
    made: Stepping | None = None,
) -> dict[str, str]:
    """Path inside c/ -> text of every file.

    Args:
        inputs: (n, height, width, channels) by modality; the first `vectors` are recorded. Whole
            windows, also of a model that runs step by step.
        made: for such a model, how it does.

    Raises:
        RunError: a prefix that is no C identifier.
        GraphError: numbers that the kernels do not hold.
        PlanError: working memory that would overwrite a tensor.
    """
    check_prefix(prefix)
    scratch = {name: kernel.scratch_bytes for name, kernel in program.kernels.items()}
    check_workspace(program.graph, program.plan, scratch, program.workspace)
    c = to_c(model, program, about.normalisation, prefix, about.title, made)
    names = identifiers(source.name for source in model.graph.inputs)
    values = {
        "PREFIX": prefix,
        "UPPER": prefix.upper(),
        "TITLE": about.title,
        "ARENA": f"{c.memory_bytes:,}",
        "CLASSES": ", ".join(about.classes),
        "COPIES": "\n".join(_copy(prefix, *name, made) for name in names.items()),
        "EXAMPLE": "\n".join(_example(prefix, source, c.memory, about) for source in names.items()),
    }
    others = STEPWISE if made is not None else {}
    files = {name: _filled(others.get(name, name), values) for name in TEMPLATES}
    taken = {name: inputs[name][:vectors] for name in names}
    expected = reference.run(model, taken) if made is None else run_steps(model, made, taken)
    files |= {
        f"{prefix}.h": c.header,
        f"{prefix}.c": c.source,
        "test_vectors.h": _vectors(taken, names, expected),
    }
    planes = [k.plane for k in program.kernels.values() if k.plane is not None]
    kernels = {"names.h": _names(prefix)}  # written first, so that a torn bundle is known as one
    kernels |= files_of(c.functions, [plane.text for plane in planes])
    kernels |= {f"{plane.name}.S": plane.text for plane in planes}
    return {f"kernels/{name}": text for name, text in kernels.items()} | files


def _filled(name: str, values: Mapping[str, str]) -> str:
    text = (resources.files("nas") / "deploy" / "templates" / name).read_text()
    return re.sub("@([A-Z]+)@", lambda match: values[match[1]], text)


def _copy(prefix: str, name: str, identifier: str, made: Stepping | None) -> str:
    place = f"{prefix}_input_{identifier}"
    size, vectors = f"{place.upper()}_SIZE", f"vectors_{identifier}[n]"
    if made is None:
        return f"        copy({place}(arena), {vectors}, {size});"
    moved = f" + step * {size}" if name in made.series else ""
    return f"            copy({place}(state), {vectors}{moved}, {size});"


def _names(prefix: str) -> str:
    return (
        "/* The prefix of this model's functions and kernels. */\n"
        "#ifndef NAS_NAMES_H\n#define NAS_NAMES_H\n\n"
        f"#define NAS(name) {prefix}_##name\n\n#endif\n"
    )


def _example(prefix: str, names: tuple[str, str], memory: str, about: Description) -> str:
    name, identifier = names
    if name in about.normalisation:
        call = f"{prefix}_quantise_{identifier}({memory}, {identifier});"
        return f"{call} /* float {identifier}[] */"
    return f"/* write int8 values to {prefix}_input_{identifier}({memory}) */"


def _vectors(taken: Mapping[str, Int8], names: Mapping[str, str], expected: Int8) -> str:
    count = len(expected)
    arrays = [("expected", expected)]
    arrays += [(f"vectors_{identifier}", taken[name]) for name, identifier in names.items()]
    lines = [
        "/* Recorded inputs and the outputs that they must give. */",
        "#include <stdint.h>",
        "",
        f"#define TEST_VECTORS {count}",
    ]
    for name, values in arrays:
        rows = values.reshape(count, -1)
        lines += ["", f"static const int8_t {name}[TEST_VECTORS][{rows.shape[1]}] = {{"]
        lines += [f"    {{{_row(row)}}}," for row in rows]
        lines += ["};"]
    return "\n".join([*lines, ""])


def _row(row: Int8) -> str:
    texts = [str(v) for v in np.asarray(row).tolist()]
    lines = [", ".join(texts[i : i + 20]) for i in range(0, len(texts), 20)]
    return ",\n     ".join(lines)
