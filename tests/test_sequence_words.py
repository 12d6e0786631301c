"""Words and pictures of networks with attention, scans and residual blocks."""

import itertools
import random
import re
from typing import get_args

import pytest
from sequence_graphs import FAMILIES as GRAPH_FAMILIES
from sequence_graphs import Family, random_sequence
from space_problems import DATA_SETS, MIXED, Draw

from nas.network.graph import Graph, Input
from nas.network.ops import Add, Attention, Conv2d, Op, Pool, Reshape, SelectiveScan
from nas.network.streaming import stepping
from nas.report.blocks import residual_blocks
from nas.report.drawing import BOX, flow_svg
from nas.report.format import shape
from nas.report.words import TITLES, architecture_words, phrase, title
from nas.space import FixedTrial
from search_spaces import SPACES


def start(space: str, data: str) -> Graph:
    genes = SPACES[space].starts(DATA_SETS[data])[0]
    return SPACES[space].sample(FixedTrial(genes), DATA_SETS[data]).lower()


def test_every_operator_has_words() -> None:
    assert set(TITLES) == set(get_args(Op))
    for seed in range(8):
        graph = stepping(random_sequence(random.Random(seed), "mamba")).graph
        assert all(phrase(op, graph) for op in graph.ops)


def test_a_transformer_in_words() -> None:
    words = dict(architecture_words(start("transformer", "rfid")))
    assert words[f"accel ({shape((1, 16, 4))})"] == (
        "conv 3, to 8 channels (8 bit); positions, learned; self-attention of 2 heads around a"
        " residual (4 bit); feed-forward over 16 channels around a residual (4 bit); last step"
    )


def test_a_mamba_network_in_words() -> None:
    words = dict(architecture_words(start("mamba", "indoor")))
    assert words[f"imu ({shape((1, 64, 6))})"] == (
        "causal conv 5, step 2, to 16 channels (8 bit); Mamba block of 16 channels with 4 states"
        " each (8 and 4 bit); last step"
    )
    assert (
        words[f"wifi ({shape((1, 1, 96))})"] == "dense, 64 units (4 bit); dense, 24 units (4 bit)"
    )


def test_attention_between_sensors_in_words() -> None:
    fixed = {"a.on": 1, "b.on": 1, "c.on": 1, "fusion": "attention", "fusion.width": 0}
    drawn = Draw(0, {**fixed, "fusion.heads": 0, "fusion.attention_bits": 0})
    words = dict(architecture_words(SPACES["all"].sample(drawn, MIXED).lower()))
    assert words["Fusion and head"].startswith(
        f"concatenate 3; reshape to {shape((1, 3, 8))}; self-attention of 1 head around a residual"
        " (2 bit); flatten; dense"
    )


def test_titles_say_what_a_linear_layer_makes() -> None:
    graph = start("mamba", "rfid")
    titles = {op.name: title(op, graph) for op in graph.ops}
    assert titles["accel_block0_step"] == "Linear, step sizes"
    assert titles["accel_block0_write"] == "Linear, state in"
    assert titles["accel_block0_read"] == "Linear, state out"
    assert titles["accel_block0_gate"] == "Linear, gate"
    assert titles["accel_block0_out"] == "Linear, each step"
    assert titles["accel_block0_scan"] == "Scan, 4 states"
    graph = start("transformer", "rfid")
    titles = {op.name: title(op, graph) for op in graph.ops}
    made = [titles[f"accel_block0_{part}"] for part in ("query", "key", "value")]
    assert made == ["Linear, queries", "Linear, keys", "Linear, values"]
    assert titles["accel_block0_attention"] == "Attention, 2 heads"


@pytest.mark.parametrize("family", GRAPH_FAMILIES)
def test_every_residual_of_random_networks_is_a_block(family: Family) -> None:
    for seed in range(10):
        graph = random_sequence(random.Random(seed), family)
        sums = {op.name for op in graph.ops if isinstance(op, Add)}
        blocks = residual_blocks(graph)
        assert set(blocks) == sums
        scans = sum(isinstance(op, SelectiveScan) for op in graph.ops)
        heads = sum(isinstance(op, Attention) for op in graph.ops)
        kinds = [block.kind for block in blocks.values()]
        assert (kinds.count("mamba"), kinds.count("attention")) == (scans, heads)
        assert kinds.count("feed-forward") == heads


def test_a_sum_of_sensors_is_no_block() -> None:
    def conv(name: str, source: str) -> Conv2d:
        return Conv2d(name, (source,), 4, (1, 1), (1, 1), "valid", 8, False)

    inputs = (Input("x", (1, 8, 4)), Input("y", (1, 8, 4)))
    ops = (
        conv("a", "x"),
        conv("b", "y"),
        Add("both", ("a", "b"), False),
        conv("c", "both"),
        Add("with_early", ("c", "a"), False),  # b leads there too
        Add("inside", ("with_early", "both"), False),
        Pool("mean", ("inside",), "average", (1, 8), (1, 8)),
        Reshape("logits", ("mean",), (4,)),
    )
    assert residual_blocks(Graph(inputs, ops, "logits")) == {}


@pytest.mark.parametrize(("space", "data"), [("mamba", "rfid"), ("transformer", "indoor")])
def test_boxes_do_not_overlap_and_lanes_do_not_mix(space: str, data: str) -> None:
    graph = start(space, data)
    drawing = flow_svg(graph)
    boxes = re.findall(r'<title>(\w+)[^<]*</title><rect x="([\d.]+)" y="([\d.]+)"', drawing)
    assert len(boxes) == len(graph.shapes)
    rows: dict[str, list[float]] = {}
    for _, x, y in boxes:
        rows.setdefault(y, []).append(float(x))
    for row in rows.values():
        assert all(b - a >= BOX for a, b in itertools.pairwise(sorted(row)))
    names = [source.name for source in graph.inputs]
    for left, right in itertools.pairwise(names):
        most = max(float(x) for name, x, _ in boxes if name.startswith(f"{left}_"))
        least = min(float(x) for name, x, _ in boxes if name.startswith(f"{right}_"))
        assert most < least
