"""`Graph`: the one model that every part of the project reads.

A graph is a tuple of operators in an executable order, in single assignment: a tensor is named
after the operator (or the input) that makes it. It holds no weights and no scales; trained numbers
live in `integer.IntegerModel` beside it. `Graph` checks itself when it is made, so a graph that
exists is legal, and its hash is that of its canonical JSON.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from nas.errors import GraphError
from nas.network.op_rules import OPS, OpSpec
from nas.network.ops import Op, Shape


@dataclass(frozen=True, slots=True)
class Input:
    """One sensor: the modality's name and its (height, width, channels)."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Graph:
    """Operators in executable order, from named inputs to one output.

    Raises:
        GraphError: a name used twice, an unknown tensor, an operator that does not fit.
    """

    inputs: tuple[Input, ...]
    ops: tuple[Op, ...]
    output: str

    def __post_init__(self) -> None:
        if self.output not in self.shapes:
            raise GraphError(f"output {self.output!r}: no operator makes it")

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every tensor by name, in order of definition."""
        shapes: dict[str, Shape] = {}
        for source in self.inputs:
            if source.name in shapes or len(source.shape) != 3 or min(source.shape) < 1:
                raise GraphError(
                    f"input {source.name!r} of shape {source.shape}: names must differ and shapes"
                    " be (height, width, channels)"
                )
            shapes[source.name] = source.shape
        for op in self.ops:
            spec = spec_of(op)
            low, high = spec.inputs
            if not low <= len(op.inputs) <= high:
                raise GraphError(f"{op.name}: {len(op.inputs)} inputs, takes {low} to {high}")
            missing = [name for name in op.inputs if name not in shapes]
            if missing or op.name in shapes:
                what = f"reads {missing[0]!r} before it is made" if missing else "is defined twice"
                raise GraphError(f"{op.name}: {what}; operators stand in executable order")
            shapes[op.name] = spec.shape(op, [shapes[name] for name in op.inputs])
        return shapes

    @cached_property
    def consumers(self) -> dict[str, tuple[Op, ...]]:
        """The operators that read each tensor."""
        readers: dict[str, list[Op]] = {name: [] for name in self.shapes}
        for op in self.ops:
            for name in op.inputs:
                readers[name].append(op)
        return {name: tuple(ops) for name, ops in readers.items()}

    def input_shapes(self, op: Op) -> list[Shape]:
        """Shapes of what `op` reads."""
        return [self.shapes[name] for name in op.inputs]

    def macs(self, op: Op) -> int:
        """Multiply-accumulates of `op` in one inference."""
        return OPS[type(op)].macs(op, self.input_shapes(op), self.shapes[op.name])

    def weight_shape(self, op: Op) -> Shape | None:
        """Shape of the weights of `op`, or None if it has none."""
        return OPS[type(op)].weight_shape(op, self.input_shapes(op))

    def state_bytes(self, op: Op) -> int:
        """What `op` keeps from one run to the next."""
        return OPS[type(op)].state_bytes(op, self.input_shapes(op), self.shapes[op.name])

    @cached_property
    def scale_groups(self) -> dict[str, str]:
        """Tensor -> the first of those that must share its scale and zero point."""
        parent = {name: name for name in self.shapes}

        def root(name: str) -> str:
            while parent[name] != name:
                name = parent[name]
            return name

        for op in self.ops:
            if OPS[type(op)].keeps_scale:
                roots = [root(name) for name in (*op.inputs, op.name)]
                for other in roots[1:]:
                    if other != roots[0]:
                        parent[other] = roots[0]
        return {name: root(name) for name in self.shapes}

    @cached_property
    def internal_scales(self) -> tuple[str, ...]:
        """Names of what operators requantise to in between: `operator/quantity`."""
        return tuple(f"{op.name}/{part}" for op in self.ops for part in OPS[type(op)].internal)

    @cached_property
    def symmetric(self) -> frozenset[str]:
        """Scale groups whose zero point must be 0, for the sake of an operator that reads them."""
        readers = [op for op in self.ops if OPS[type(op)].symmetric]
        return frozenset(self.scale_groups[name] for op in readers for name in op.inputs)

    def to_json(self) -> dict[str, Any]:
        """Plain data; `Graph.from_json` is its inverse."""
        return {
            "inputs": [{"name": i.name, "shape": list(i.shape)} for i in self.inputs],
            "ops": [_op_to_json(op) for op in self.ops],
            "output": self.output,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Graph":
        """Raises GraphError for an unknown operator or key."""
        try:
            inputs = tuple(Input(i["name"], tuple(i["shape"])) for i in document["inputs"])
            return Graph(inputs, tuple(map(_op_from_json, document["ops"])), document["output"])
        except (KeyError, TypeError) as error:
            raise GraphError(f"not a graph: {error}; write it with Graph.to_json") from error

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def spec_of(op: Op) -> OpSpec:
    """The row of `op`; GraphError for an operator that has none."""
    try:
        return OPS[type(op)]
    except KeyError:
        raise GraphError(f"{type(op).__name__}: no such operator") from None


def _op_to_json(op: Op) -> dict[str, Any]:
    values = {f.name: getattr(op, f.name) for f in fields(op)}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
    return {"op": type(op).__name__, **plain}


def _op_from_json(document: Mapping[str, Any]) -> Op:
    kinds = {kind.__name__: kind for kind in OPS}
    kind = document["op"]
    if kind not in kinds:
        raise GraphError(f"operator {kind!r} is not one of {', '.join(sorted(kinds))}")
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in document.items() if k != "op"
    }
    return kinds[kind](**values)
