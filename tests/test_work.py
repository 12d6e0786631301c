"""What kernels have to do, counted another way: every output once, strips within their memory."""

import itertools
import random

import pytest

from nas.hardware.depthwise_work import depthwise_quantities
from nas.hardware.gathering import TILE, gathering
from nas.hardware.memory import plan_memory
from nas.hardware.program import program_of
from nas.hardware.work import work_of
from nas.network.graph import Graph, Input
from nas.network.ops import (
    Attention,
    Concat,
    Conv2d,
    Padding,
    Pool,
    SelectiveScan,
    window_padding,
)
from nas.packing.pack_depthwise import STRIP_BYTES, scratch_bytes


def gathered(op: Conv2d, shape: tuple[int, int, int]) -> tuple[dict[str, float], int]:
    graph = Graph((Input("x", shape),), (op,), "o")
    padding = window_padding(op, shape)
    pad = (padding[0][0], padding[1][0])
    out = graph.shapes["o"]
    return dict(gathering(shape, out, op.kernel, op.stride, pad)), out[0] * out[1]


@pytest.mark.parametrize("seed", range(200))
def test_every_window_is_gathered_once(seed: int) -> None:
    rng = random.Random(seed)
    shape = (rng.randint(1, 20), rng.randint(1, 40), rng.choice((1, 3, 8, 30)))
    kernel = (rng.randint(1, min(5, shape[0])), rng.randint(1, min(5, shape[1])))
    stride = (rng.randint(1, 2), rng.randint(1, 2))
    padding: Padding = rng.choice(("same", "valid"))
    op = Conv2d("o", ("x",), 4, kernel, stride, padding, 8, False)
    counts, pixels = gathered(op, shape)
    if pixels < TILE:
        return
    assert TILE * (counts["whole"] + counts["edge"]) + counts["one"] == pixels
    assert counts["whole_row"] == counts["whole"] * kernel[0]
    assert counts["one_row"] == counts["one"] * kernel[0] >= counts["one_edge"]
    assert min(counts.values()) >= 0
    # Of windows that no padding touches none is at an edge.
    if padding == "valid":
        assert counts["edge"] == counts["one_edge"] == 0


def test_gathering_by_hand() -> None:
    # 5 x 6 outputs of a padded map too wide for copies: a row has one tile and two windows alone.
    op = Conv2d("o", ("x",), 4, (3, 3), (1, 1), "same", 8, False)
    counts, _ = gathered(op, (5, 6, 40))
    assert counts["copied"] == 0
    assert counts["whole"] + counts["edge"] == 5 and counts["one"] == 10
    # A small padded map is copied whole, and then has no edge at all.
    counts, _ = gathered(op, (4, 4, 2))
    assert (counts["copied"], counts["whole"], counts["edge"], counts["one"]) == (1, 4, 0, 0)
    # A 1x1 convolution sees one long row.
    op = Conv2d("o", ("x",), 4, (1, 1), (1, 1), "valid", 8, False)
    counts, _ = gathered(op, (5, 5, 8))
    assert (counts["whole"], counts["one"]) == (6, 1)


@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride"),
    list(itertools.product((1, 4, 9, 32), (5, 33), (1, 3, 5), (1, 2))),
)
def test_strips_stay_within_scratch(height: int, width: int, kernel: int, stride: int) -> None:
    kernel = min(kernel, height)
    out = (-(-height // stride), -(-width // stride), 8)
    pad = (kernel // 2, 1)
    counts = depthwise_quantities(
        "shaped", (height, width, 8), out, (kernel, 3), (stride, stride), pad
    )
    rows = counts["prepared_row"]
    row_bytes = 16 * (((out[1] + 3) // 4 * 4 - 1) * stride // 2 + 2)
    held = scratch_bytes((kernel, 3), (stride, stride), out[0], out[1])
    assert rows * row_bytes + 4 * (16 + 16 * kernel) == held
    assert rows * row_bytes <= max(STRIP_BYTES, ((3 - 1) * stride + kernel) * row_bytes)
    assert counts["plane_row"] == 8 * out[0]


def test_calls_of_an_operator() -> None:
    shapes = (Input("x", (4, 4, 3)), Input("y", (4, 4, 5)))
    graph = Graph(shapes, (Concat("o", ("x", "y")),), "o")
    program = program_of(graph, plan_memory(graph), 0)
    calls = work_of(graph.ops[0], program)
    assert [call.function for call in calls] == ["copy_rows", "copy_rows"]
    assert [call.quantities["row"] for call in calls] == [16, 16]
    pool = Pool("o", ("x",), "max", (2, 2), (2, 2))
    graph = Graph((Input("x", (4, 4, 6)),), (pool,), "o")
    (call,) = work_of(pool, program_of(graph, plan_memory(graph), 0))
    assert (call.quantities["window"], call.quantities["tap_four"]) == (4, 16)
    assert call.quantities["tap_rest"] == 32


def test_a_relu_that_shares_its_scale_is_cut_by_a_call_of_its_own() -> None:
    ops = (
        Conv2d("a", ("x",), 3, (1, 1), (1, 1), "valid", 8, True),
        Concat("o", ("x", "a")),
    )
    graph = Graph((Input("x", (4, 4, 3)),), ops, "o")
    program = program_of(graph, plan_memory(graph), 0)
    assert [c.function for c in work_of(ops[0], program)] == ["conv_8", "clip"]
    alone = Graph((Input("x", (4, 4, 3)),), ops[:1], "a")
    program = program_of(alone, plan_memory(alone), 0)
    assert [c.function for c in work_of(ops[0], program)] == ["conv_8"]


def test_loops_of_attention_and_scans() -> None:
    three = tuple(Input(name, (1, n, 12)) for name, n in (("q", 3), ("k", 10), ("v", 10)))
    op = Attention("o", ("q", "k", "v"), 2)
    graph = Graph(three, (op,), "o")
    (call,) = work_of(op, program_of(graph, plan_memory(graph), 0))
    held = {name: value for name, value in call.quantities.items() if value}
    assert held == {
        "query": 3,
        "row": 6,
        "row_word": 12,  # 6 channels of a head: two words
        "tail": 6,
        "tail_word": 12,
        "four": 18,
        "four_word": 36,
        "unaligned": 36,
    }
    wide, narrow = (1, 7, 20), (1, 7, 5)
    shapes = {"u": wide, "dt": wide, "b": narrow, "c": narrow, "z": wide}
    scan = SelectiveScan("o", tuple(shapes), False)
    graph = Graph(tuple(Input(*each) for each in shapes.items()), (scan,), "o")
    program = program_of(graph, plan_memory(graph), 0)
    (call,) = work_of(scan, program)
    assert call.quantities == {
        "block": 2,  # 16 channels and 4
        "step": 14,
        "widened": 70,
        "cleared": 100,
        "value": 140,
        "pair": 280,
        "single": 140,
    }
    assert program.kernels["o"].scratch_bytes == 8 * 3 + 2 * 5 * 16
