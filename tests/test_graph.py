"""The graph: what it refuses, its JSON and hash, who reads what, who shares a scale."""

import json
import random
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from random_graphs import random_graph, random_multimodal

from nas.errors import GraphError
from nas.network.graph import Graph, Input, spec_of
from nas.network.op_rules import OPS
from nas.network.ops import (
    STREAMING,
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
)

X, Y = Input("x", (4, 6, 2)), Input("y", (4, 6, 2))


def table(name: str, source: str) -> Table:
    return Table(name, (source,), "tanh")


# One operator of each kind, in one line from x and y to the output.
EVERY = Graph(
    (X, Y),
    (
        Add("a", ("x", "y"), True),
        Conv2d("c", ("a",), 3, (3, 2), (1, 2), "same", 4, True),
        DepthwiseConv2d("d", ("c",), (2, 2), (1, 1), "same", 2, False),
        Pool("p", ("d",), "max", (2, 1), (2, 1)),
        Table("t", ("p",), "tanh"),
        Mul("m", ("p", "t")),
        Concat("k", ("m", "t")),
        Pad("z", ("k",), (0, 1, 1, 0)),
        Reshape("r", ("z",), (72,)),
    ),
    "r",
)


SERIES = {Attention, SelectiveScan, Positions, LastStep, *STREAMING}


@pytest.mark.parametrize(
    ("inputs", "ops", "output", "message"),
    [
        ((X, X), (), "x", r"input 'x' of shape \(4, 6, 2\): names must differ"),
        ((Input("x", (4, 6)),), (), "x", r"input 'x' of shape \(4, 6\).*height, width, channels"),
        ((Input("x", (4, 0, 2)),), (), "x", r"input 'x' of shape \(4, 0, 2\)"),
        ((X,), (), "q", "output 'q': no operator makes it"),
        ((), (), "x", "output 'x': no operator makes it"),
        ((X,), (table("t", "q"),), "t", "t: reads 'q' before it is made; .* executable order"),
        ((X,), (table("b", "a"), table("a", "x")), "b", "b: reads 'a' before it is made"),
        ((X,), (table("t", "t"),), "t", "t: reads 't' before it is made"),
        ((X,), (table("t", "x"), table("t", "x")), "t", "t: is defined twice"),
        ((X,), (table("x", "x"),), "x", "x: is defined twice"),
        ((X,), (Table("t", ("x", "x"), "tanh"),), "t", "t: 2 inputs, takes 1 to 1"),
        ((X,), (Add("t", ("x",), True),), "t", "t: 1 inputs, takes 2 to 2"),
        ((X,), (Concat("t", ("x",) * 17),), "t", "t: 17 inputs, takes 2 to 16"),
        ((X,), (Mul("t", ()),), "t", "t: 0 inputs, takes 2 to 2"),
        ((X,), (Reshape("t", ("x",), (5,)),), "t", "t: .* has other elements"),
    ],
)
def test_refused(inputs: tuple[Input, ...], ops: tuple[Op, ...], output: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph(inputs, ops, output)


def test_unknown_kind_of_operator() -> None:
    @dataclass(frozen=True)
    class Softmax:
        name: str
        inputs: tuple[str, ...]

    stranger: Any = Softmax("s", ("x",))
    for made in (lambda: spec_of(stranger), lambda: Graph((X,), (stranger,), "s")):
        with pytest.raises(GraphError, match="Softmax: no such operator"):
            made()


def test_shapes_in_order_of_definition() -> None:
    assert list(EVERY.shapes) == ["x", "y", *(op.name for op in EVERY.ops)]
    assert {type(op) for op in EVERY.ops} == set(OPS) - SERIES
    by_hand = {"a": (4, 6, 2), "c": (4, 3, 3), "p": (2, 3, 3), "k": (2, 3, 6), "z": (3, 4, 6)}
    assert by_hand.items() <= EVERY.shapes.items()
    assert EVERY.input_shapes(EVERY.ops[6]) == [(2, 3, 3), (2, 3, 3)]


def test_json_is_an_identity() -> None:
    rng = random.Random(0)
    for graph in [EVERY, *(random_graph(rng) for _ in range(40)), random_multimodal(rng)]:
        copy = Graph.from_json(json.loads(json.dumps(graph.to_json())))
        assert copy == graph and copy.hash == graph.hash and copy.shapes == graph.shapes


def changed(**change: Any) -> dict[str, Any]:
    """The JSON of EVERY with another first operator."""
    document = EVERY.to_json()
    document["ops"][0] = {k: v for k, v in (document["ops"][0] | change).items() if v is not ...}
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(op="Softmax"), "operator 'Softmax' is not one of Add, Attention, Concat"),
        (changed(op=...), "not a graph: 'op'; write it with Graph.to_json"),
        (changed(bias=True), "not a graph: .*unexpected keyword argument 'bias'"),
        (changed(relu=...), "not a graph: .*missing 1 required .*'relu'"),
        (changed(inputs=["x", "q"]), "a: reads 'q' before it is made"),
        ({"inputs": [], "ops": []}, "not a graph: 'output'"),
        ({"inputs": [{"name": "x"}], "ops": [], "output": "x"}, "not a graph: 'shape'"),
        ({"inputs": None, "ops": [], "output": "x"}, "not a graph: .*not iterable"),
        ([], "not a graph"),
    ],
)
def test_not_a_graph(document: Any, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph.from_json(document)


def test_hash_does_not_change_between_versions() -> None:
    small = Graph((Input("x", (1, 1, 3)),), (table("t", "x"),), "t")
    assert small.hash == "d71267859e740a0d720ed4585f41be949b174d8e72b3af43d06cf59da8e14ebe"


# Operators on x and y, with another legal value of every field.
VARIANTS: list[tuple[Op, dict[str, Any]]] = [
    (
        Conv2d("o", ("x",), 3, (3, 2), (1, 2), "same", 4, True),
        {
            "inputs": ("y",),
            "channels": 4,
            "kernel": (2, 3),
            "stride": (2, 1),
            "padding": "valid",
            "weight_bits": 8,
            "relu": False,
        },
    ),
    (
        DepthwiseConv2d("o", ("x",), (3, 2), (1, 2), "same", 4, True),
        {
            "inputs": ("y",),
            "kernel": (2, 3),
            "stride": (2, 1),
            "padding": "valid",
            "weight_bits": 2,
            "relu": False,
        },
    ),
    (
        Pool("o", ("x",), "max", (2, 1), (2, 1)),
        {"inputs": ("y",), "function": "average", "kernel": (1, 2), "stride": (1, 2)},
    ),
    (Add("o", ("x", "y"), True), {"inputs": ("y", "x"), "relu": False}),
    (Mul("o", ("x", "y")), {"inputs": ("x", "x")}),
    (Concat("o", ("x", "y")), {"inputs": ("x", "y", "y")}),
    (table("o", "x"), {"inputs": ("y",), "function": "sigmoid"}),
    (Pad("o", ("x",), (0, 1, 1, 0)), {"inputs": ("y",), "padding": (1, 0, 1, 0)}),
    (Reshape("o", ("x",), (48,)), {"inputs": ("y",), "shape": (6, 8)}),
    (Attention("o", ("s", "s", "t"), 1), {"inputs": ("t", "s", "s"), "heads": 2}),
    (SelectiveScan("o", ("s", "s", "t", "t", "s"), False), {"inputs": ("t",) * 5, "carry": True}),
    (Positions("o", ("s",), "learned"), {"inputs": ("t",), "kind": "sinusoidal"}),
    (LastStep("o", ("s",)), {"inputs": ("t",)}),
    (History("o", ("s",), 2), {"inputs": ("t",), "steps": 3}),
    (Running("o", ("s",), "max", 3), {"inputs": ("t",), "function": "average", "frames": 2}),
]
SOURCES = (X, Y, Input("s", (1, 6, 4)), Input("t", (1, 6, 4)))


@pytest.mark.parametrize(("op", "other"), VARIANTS, ids=[type(op).__name__ for op, _ in VARIANTS])
def test_hash_sees_every_field(op: Op, other: dict[str, Any]) -> None:
    assert {f.name for f in fields(op)} == {*other, "name"}
    graphs = [Graph(SOURCES, (op,), "o")]
    graphs += [Graph(SOURCES, (replace(op, **{k: v}),), "o") for k, v in other.items()]
    graphs.append(Graph(SOURCES, (replace(op, name="q"),), "q"))
    assert len({graph.hash for graph in graphs}) == len(graphs)


def test_hash_sees_inputs_and_output() -> None:
    op = table("t", "x")
    others = [((X,), "t"), ((X,), "x"), ((X, Y), "t"), ((Y, X), "t")]
    others.append(((Input("x", (6, 4, 2)),), "t"))
    assert len({Graph(inputs, (op,), output).hash for inputs, output in others}) == 5
    assert {type(op) for op, _ in VARIANTS} == set(OPS)


def test_consumers() -> None:
    assert {name: [op.name for op in ops] for name, ops in EVERY.consumers.items()} == {
        "x": ["a"],
        "y": ["a"],
        "a": ["c"],
        "c": ["d"],
        "d": ["p"],
        "p": ["t", "m"],
        "t": ["m", "k"],
        "m": ["k"],
        "k": ["z"],
        "z": ["r"],
        "r": [],
    }
    square = Graph((X,), (Mul("m", ("x", "x")),), "m")
    assert square.consumers["x"] == (square.ops[0], square.ops[0])


def test_scale_groups_by_hand() -> None:
    parts: dict[str, set[str]] = {}
    for name, group in EVERY.scale_groups.items():
        parts.setdefault(group, set()).add(name)
    assert sorted(map(sorted, parts.values())) == [
        ["a"],
        ["c"],
        ["d", "p"],
        ["k", "m", "r", "t", "z"],
        ["x"],
        ["y"],
    ]


def test_scale_groups_are_the_connected_parts() -> None:
    rng = random.Random(1)
    for _ in range(60):
        graph = random_graph(rng, 10)
        groups = graph.scale_groups
        near: dict[str, set[str]] = {name: {name} for name in graph.shapes}
        for op in graph.ops:
            if OPS[type(op)].keeps_scale:
                for a in (*op.inputs, op.name):
                    near[a] |= {*op.inputs, op.name}
        for name in graph.shapes:
            part, grown = {name}, near[name]
            while grown != part:
                part, grown = grown, set().union(*(near[n] for n in grown))
            assert part == {n for n in groups if groups[n] == groups[name]}
            assert groups[name] in part
