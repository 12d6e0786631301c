"""The spaces with attention and scans: legal graphs, one id a network, series that stream."""

import itertools
import json
import random
from typing import Any

import pytest
from space_problems import (
    DATA_SETS,
    EXTREMES,
    MIXED,
    Draw,
    image,
    problem,
    random_problem,
    series,
    vector,
)

from nas.errors import SpaceError
from nas.hardware.memory import check_plan, plan_memory
from nas.network.ops import (
    Add,
    Attention,
    Conv2d,
    DepthwiseConv2d,
    LastStep,
    Pool,
    Positions,
    Reshape,
    SelectiveScan,
    Table,
)
from nas.network.streaming import NotCausal, stepping
from nas.search.own_space import check_space
from nas.space import Architecture, FixedTrial, Problem, architecture_id
from search_spaces import SPACES
from search_spaces.families import FAMILIES
from search_spaces.mamba import MambaBranch
from search_spaces.transformer import TransformerBranch, patch_of

NEW = ("transformer", "mamba", "all")
KINDS = {
    "transformer": {"transformer", "vector"},
    "mamba": {"mamba", "vector"},
    "all": {"conv", "causal", "transformer", "mamba", "vector"},
}
TOGETHER = {"a.on": 1, "b.on": 1, "c.on": 1}


def sample(
    space: str, task: Problem, seed: int, fixed: dict[str, Any] | None = None
) -> Architecture:
    return SPACES[space].sample(Draw(seed, fixed), task)


def branches(architecture: Architecture) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = architecture.to_json()["branches"]
    return found


# ---------------------------------------------------------------- every draw


@pytest.mark.parametrize("space", NEW)
def test_every_draw_is_a_network(space: str) -> None:
    rng = random.Random(3)
    tasks = [*DATA_SETS.values(), *EXTREMES, *(random_problem(rng) for _ in range(25))]
    for seed, task in enumerate(tasks):
        for draw in (2 * seed, 2 * seed + 1):
            architecture = sample(space, task, draw)
            graph = architecture.lower()
            assert graph.shapes[graph.output] == (task.classes,)
            shapes = {sensor.name: sensor.shape for sensor in task.sensors}
            assert all(source.shape == shapes[source.name] for source in graph.inputs)
            assert all(graph.consumers[name] for name in graph.shapes if name != graph.output)
            copy = SPACES[space].parse(json.loads(json.dumps(architecture.to_json())))
            assert copy == architecture and hash(copy) == hash(architecture)
            assert copy.lower() == graph


@pytest.mark.parametrize("data", DATA_SETS)
@pytest.mark.parametrize("space", NEW)
def test_draws_and_starts_have_a_memory_plan(space: str, data: str) -> None:
    task = DATA_SETS[data]
    first, last = SPACES[space].starts(task)[0], SPACES[space].starts(task)[-1]
    found = [SPACES[space].sample(FixedTrial(genes), task) for genes in (first, last)]
    for architecture in (*found, sample(space, task, 0)):
        graph = architecture.lower()
        plan = plan_memory(graph)
        check_plan(graph, plan)
        assert 0 < plan.arena_bytes < 48 * 1024


@pytest.mark.parametrize("space", NEW)
def test_parameters_do_not_depend_on_draws(space: str) -> None:
    for task in (MIXED, *EXTREMES):
        draws = [Draw(seed) for seed in range(10)]
        for draw in draws:
            SPACES[space].sample(draw, task)
        first = list(draws[0].choices.items())
        assert all(list(draw.choices.items()) == first for draw in draws)


@pytest.mark.parametrize("space", NEW)
def test_the_check_of_own_spaces_passes(space: str) -> None:
    for task in (MIXED, EXTREMES[2], EXTREMES[3]):
        check_space(SPACES[space], task)


IDS = {
    "transformer": ["cc4999740f0bd", "c533fd66d1aa1", "c26ecaa03cde2"],
    "mamba": ["cedf7af767ec2", "ca424bff090f5", "c1356f89303c1"],
    "all": ["c49d0a1e0803d", "cb90845203a28", "cc6b000a8c157"],
}


@pytest.mark.parametrize("space", NEW)
def test_ids_do_not_change_between_versions(space: str) -> None:
    start = SPACES[space].starts(DATA_SETS["indoor"])[0]
    found = [sample(space, MIXED, 0), sample(space, MIXED, 1)]
    found.append(SPACES[space].sample(FixedTrial(start), DATA_SETS["indoor"]))
    assert [architecture_id(architecture) for architecture in found] == IDS[space]


@pytest.mark.parametrize("space", NEW)
def test_equal_networks_have_equal_ids(space: str) -> None:
    rng = random.Random(2)
    tasks = [MIXED, *EXTREMES, *(random_problem(rng) for _ in range(6))]
    for seed, task in enumerate(tasks):
        draw = Draw(seed)
        architecture = SPACES[space].sample(draw, task)
        graph = architecture.lower()
        for gene in rng.sample(sorted(draw.choices), min(25, len(draw.choices))):
            other = sample(space, task, seed, {gene: rng.choice(draw.choices[gene])})
            assert (other == architecture) is (other.lower().hash == graph.hash), gene


@pytest.mark.parametrize("space", NEW)
def test_every_choice_occurs(space: str) -> None:
    architectures = [sample(space, MIXED, seed) for seed in range(220)]
    found = [branch for architecture in architectures for branch in branches(architecture)]
    fusions = {architecture.to_json()["fusion"] for architecture in architectures}
    assert fusions == {"none", "concat", "add", "gate", "attention"}
    assert {branch["branch"] for branch in found} == KINDS[space]

    def seen(kind: str, key: str) -> set[Any]:
        return {branch[key] for branch in found if branch["branch"] == kind}

    bits = {2, 4, 8}
    if "transformer" in KINDS[space]:
        assert seen("transformer", "stem") == {"patch", "conv"}
        assert seen("transformer", "positions") == {"none", "learned", "sinusoidal"}
        assert seen("transformer", "depth") == {1, 2, 3}
        assert seen("transformer", "heads") == {1, 2, 4}
        assert seen("transformer", "ratio") == {1, 2, 3}
        for key in ("stem_bits", "attention_bits", "feed_forward_bits"):
            assert seen("transformer", key) == bits
        assert seen("transformer", "readout") == {"mean", "last"}
    if "mamba" in KINDS[space]:
        assert seen("mamba", "stride") == {1, 2, 3, 4, 5}
        assert seen("mamba", "states") == {2, 4, 8}
        assert seen("mamba", "expansion") == {1, 2}
        assert seen("mamba", "filter") == {2, 3, 4}
        assert seen("mamba", "rank") == {1, 2, 4}
        assert seen("mamba", "bits") == seen("mamba", "stem_bits") == bits
        assert seen("mamba", "readout") == {"mean", "last"}
    if "causal" in KINDS[space]:
        assert seen("causal", "readout") == {"mean", "max"}


PREFIX = {"transformer": "a", "mamba": "a", "all": "a.transformer"}


@pytest.mark.parametrize(
    ("space", "task", "fixed", "masked"),
    [
        *(
            (space, MIXED, fixed, masked)
            for space in NEW
            for fixed, masked in (
                ({"a.on": 1, "b.on": 0, "c.on": 0}, ["fusion.heads", "fusion.attention_bits"]),
                ({"fusion": "add"}, ["fusion.heads", "fusion.attention_bits"]),
                ({"fusion": "attention"}, ["fusion.gate_bits"]),
            )
        ),
        ("transformer", MIXED, {"fusion": "gate"}, ["a.embedding_bits", "fusion.width"]),
        (
            "transformer",
            MIXED,
            {"fusion": "add", "fusion.width": 0, "a.width": 0},
            ["a.embedding_bits"],
        ),
        ("mamba", MIXED, {"fusion": "add", "fusion.width": 1, "a.width": 1}, ["a.embedding_bits"]),
        ("transformer", EXTREMES[0], {}, ["a.decimation", "a.tokens", "a.stem", "a.readout"]),
        (
            "mamba",
            EXTREMES[0],
            {},
            ["a.decimation", "a.stride", "a.kernel", "a.filter", "a.readout"],
        ),
        ("all", MIXED, {"a.kind": "mamba"}, ["a.conv.width", "a.transformer.depth"]),
        ("all", MIXED, {"a.kind": "conv"}, ["a.mamba.width", "a.transformer.heads"]),
        ("all", MIXED, {"a.kind": "conv", "a.conv.readout": "grid"}, ["a.conv.causal"]),
        ("all", EXTREMES[0], {"a.kind": "conv"}, ["a.conv.causal", "a.conv.kernel"]),
        ("all", MIXED, {"a.on": 0, "b.on": 1}, ["a.kind", "a.mamba.width", "a.conv.causal"]),
    ],
)
def test_genes_without_effect_leave_the_architecture_alone(
    space: str, task: Problem, fixed: dict[str, Any], masked: list[str]
) -> None:
    for seed, gene in itertools.product(range(4), masked):
        draw = Draw(seed, fixed)
        architecture = SPACES[space].sample(draw, task)
        for value in draw.choices[gene]:
            assert sample(space, task, seed, fixed | {gene: value}) == architecture, (gene, value)


# ---------------------------------------------------------------- files


def document_of(space: str) -> dict[str, Any]:
    """An architecture with attention between three sensors, as a file holds it."""
    fixed = {**TOGETHER, "fusion": "attention", "a.kind": "conv"}
    return json.loads(json.dumps(sample(space, MIXED, 0, fixed).to_json()))


@pytest.mark.parametrize("space", NEW)
def test_missing_and_unknown_keys(space: str) -> None:
    def parts(document: dict[str, Any]) -> list[dict[str, Any]]:
        return [document, document["attention"], *document["branches"]]

    for i, part in enumerate(parts(document_of(space))):
        for key in [*part, None]:
            document = document_of(space)
            if key is None:
                parts(document)[i]["more"] = 1
            else:
                del parts(document)[i][key]
            message = f"not an architecture of the space '{space}'.*{key or 'more'}"
            with pytest.raises(SpaceError, match=message):
                SPACES[space].parse(document)


@pytest.mark.parametrize(
    ("space", "at", "key", "value", "message"),
    [
        ("mamba", None, "space", "conv", "space 'conv' is not one of mamba"),
        ("all", None, "fusion", "concat", "not an architecture of the space 'all'.*attention"),
        ("all", None, "attention", None, "not an architecture of the space 'all'"),
        ("mamba", 0, "branch", "transformer", "branch 'transformer' is not one of mamba, vector"),
        ("mamba", 0, "readout", "grid", "readout 'grid' is not one of mean, last"),
        ("transformer", 1, "stem", "pool", "stem 'pool' is not one of patch, conv"),
        ("transformer", 1, "positions", "rotary", "positions 'rotary' is not one of none, learned"),
        ("all", 0, "causal", True, "not an architecture of the space 'all'.*causal"),
        ("all", 0, "downsample", "sum", "downsample 'sum' is not one of stride, average, max"),
    ],
)
def test_another_document(space: str, at: int | None, key: str, value: Any, message: str) -> None:
    document = document_of(space)
    part = document if at is None else document["branches"][at]
    part[key] = value
    with pytest.raises(SpaceError, match=message):
        SPACES[space].parse(document)


def test_spaces_do_not_read_each_others_files() -> None:
    for one, other in itertools.permutations(SPACES, 2):
        with pytest.raises(SpaceError, match=f"space '{one}' is not one of {other}"):
            SPACES[other].parse(sample(one, MIXED, 0).to_json())


# ---------------------------------------------------------------- networks


def test_a_transformer_has_at_most_64_tokens() -> None:
    rng = random.Random(7)
    tasks = [*DATA_SETS.values(), *EXTREMES, *(random_problem(rng) for _ in range(40))]
    for seed, task in enumerate(tasks):
        graph = sample("transformer", task, seed).lower()
        lengths = [graph.shapes[op.name][1] for op in graph.ops if isinstance(op, Attention)]
        assert max(lengths, default=1) <= 64
        assert all(graph.shapes[op.name][1] <= 64 for op in graph.ops if isinstance(op, Positions))


@pytest.mark.parametrize(
    ("shape", "tokens", "patch"),
    [((1, 64, 3), 16, 4), ((1, 100, 3), 64, 2), ((1, 7, 1), 8, 1), ((32, 32, 1), 64, 4),
     ((64, 40, 1), 64, 7), ((28, 28, 1), 16, 7), ((1, 1, 1), 8, 1), ((1, 65, 1), 64, 2)],
)  # fmt: skip
def test_patches(shape: tuple[int, int, int], tokens: int, patch: int) -> None:
    assert patch_of(shape, tokens) == patch


def test_a_transformer_block_by_its_operators() -> None:
    branch = TransformerBranch(
        "s", (1, 64, 3), 1, "conv", 4, "learned", 8, 1, 2, 2, "last", 8, 4, 2, 12, 8
    )
    ops: list[Any] = []
    assert branch.lower(ops) == ("s_embedding", 12)
    embed = ops[0]
    assert (embed.kernel, embed.stride, embed.padding, embed.weight_bits, embed.relu) == (
        (1, 7),
        (1, 4),
        "same",
        8,
        True,
    )
    assert [type(op) for op in ops] == [
        *(Conv2d, Positions, Conv2d, Conv2d, Conv2d, Attention, Conv2d, Add),
        *(Conv2d, Conv2d, Add, LastStep, Conv2d),
    ]
    assert [op.weight_bits for op in ops if isinstance(op, Conv2d)] == [8, 4, 4, 4, 4, 2, 2, 8]
    assert [op.channels for op in ops if isinstance(op, Conv2d)] == [8, 8, 8, 8, 8, 16, 8, 12]
    # Only the inner feed-forward layer and what ends or begins a branch may clip at zero.
    assert [op.relu for op in ops if isinstance(op, Conv2d)] == [
        *(True, False, False, False, False, True, False, True)
    ]


def test_a_mamba_block_by_its_operators() -> None:
    branch = MambaBranch("s", (1, 64, 3), 2, 2, 5, 8, 1, 4, 2, 3, 1, "mean", 8, 2, 0, 0)
    ops: list[Any] = []
    assert branch.lower(ops) == ("s_readout", 8)
    scan = next(op for op in ops if isinstance(op, SelectiveScan))
    made = {op.name: op for op in ops}
    u, dt, b, c, z = (made[name] for name in scan.inputs)
    assert [(t.function, type(t)) for t in (u, b, c, z)] == [
        ("silu", Table),
        ("tanh", Table),
        ("tanh", Table),
        ("silu", Table),
    ]
    assert isinstance(made[u.inputs[0]], DepthwiseConv2d)
    assert made[u.inputs[0]].padding == "causal" and made[u.inputs[0]].weight_bits == 8
    assert (dt.channels, dt.weight_bits, made[dt.inputs[0]].channels) == (16, 8, 1)
    assert made[b.inputs[0]].channels == made[c.inputs[0]].channels == 4
    assert made[z.inputs[0]].weight_bits == 2 and not scan.carry
    assert not any(op.relu for op in ops if isinstance(op, Conv2d | DepthwiseConv2d | Add))


def test_attention_between_sensors_has_a_token_each() -> None:
    for space, seed in itertools.product(NEW, range(6)):
        fixed = {**TOGETHER, "fusion": "attention"}
        graph = sample(space, MIXED, seed, fixed).lower()
        attended = next(op for op in graph.ops if op.name == "fusion_attention")
        assert isinstance(attended, Attention)
        tokens, width = graph.shapes["fusion_tokens"][1:]
        assert tokens == 3 and graph.shapes["fusion_concat"] == (1, 1, 3 * width)
        assert graph.shapes["fusion_vector"] == (1, 1, 3 * width)
        alone = sample(space, MIXED, seed, {**fixed, "b.on": 0, "c.on": 0})
        assert alone.to_json()["fusion"] == "none"


def test_an_image_is_read_row_by_row() -> None:
    task = problem(image("i", 20, 12, 3))
    graph = sample("mamba", task, 0, {"i.decimation": 0}).lower()
    rows = next(op for op in graph.ops if isinstance(op, Reshape))
    assert rows.inputs == ("i",) and rows.shape == (1, 20, 36)


# ---------------------------------------------------------------- step by step


LENGTHS = (2, 3, 7, 8, 16, 30, 50, 60, 64, 75, 100, 125, 127, 128, 500)


@pytest.mark.parametrize("steps", LENGTHS)
def test_mamba_networks_of_series_run_step_by_step(steps: int) -> None:
    task = problem(series("a", steps, 3), series("b", steps, 1), vector("c", 5))
    for seed in range(8):
        architecture = sample("mamba", task, seed, {"a.on": 1})
        made = stepping(architecture.lower())
        assert made.frame_steps * made.frames == steps
        held = [b for b in branches(architecture) if b["branch"] == "mamba"]
        for branch in held:
            assert steps % (branch["decimation"] * branch["stride"]) == 0
        assert (
            made.frames == steps // max(b["decimation"] * b["stride"] for b in held)
            or len(held) > 1
        )
        for sensor in made.graph.inputs:
            assert sensor.shape[1] == (made.frame_steps if sensor.name != "c" else 1)


def test_causal_convolutions_run_step_by_step() -> None:
    task = problem(series("a", 64, 3), vector("c", 5))
    seen = set()
    for seed in range(150):
        architecture = sample("all", task, seed, {"a.on": 1, "a.kind": "conv"})
        branch = branches(architecture)[0]
        if branch["branch"] == "causal":
            made = stepping(architecture.lower())
            assert made.frames > 1
            seen.add((branch["downsample"], branch["readout"]))
        elif max(layer["halve"] for layer in branch["layers"]) is False:
            with pytest.raises(NotCausal):
                stepping(architecture.lower())
    assert len(seen) == 6


def test_transformers_say_why_they_do_not() -> None:
    said = set()
    for seed in range(12):
        with pytest.raises(NotCausal) as caught:
            stepping(sample("transformer", DATA_SETS["uci"], seed).lower())
        said.add(str(caught.value).split(": ")[1])
    assert said == {
        "Attention needs the whole window",
        "Positions needs the whole window",
        "a convolution with padding 'same' looks ahead",
    }


# ---------------------------------------------------------------- where a search begins


@pytest.mark.parametrize("space", NEW)
@pytest.mark.parametrize("task", [MIXED, *EXTREMES, *DATA_SETS.values()])
def test_starts_are_different_networks_of_the_space(space: str, task: Problem) -> None:
    found = [SPACES[space].sample(FixedTrial(genes), task) for genes in SPACES[space].starts(task)]
    assert len({architecture_id(a) for a in found}) >= 3
    names = [sensor.name for sensor in task.sensors]
    own = len(FAMILIES[space].starts)
    assert all([b["sensor"] for b in branches(a)] == names for a in found[:own])
    if len(names) > 2:
        assert [[b["sensor"] for b in branches(a)] for a in found[-len(names) :]] == [
            [name] for name in names
        ]


@pytest.mark.parametrize("space", NEW)
def test_starts_fit_the_known_best(space: str) -> None:
    """One block at 4 bits, stem and output at 8, the smallest network that is enough first."""
    task = DATA_SETS["rfid"]
    first = SPACES[space].sample(FixedTrial(SPACES[space].starts(task)[0]), task)
    if space == "all":
        kinds = [
            branches(SPACES[space].sample(FixedTrial(genes), task))[0]["branch"]
            for genes in SPACES[space].starts(task)[:3]
        ]
        assert kinds == ["conv", "transformer", "mamba"]
        return
    document = branches(first)[0]
    assert document["depth"] == 1 and document["readout"] == "last"
    assert document["width"] == {"transformer": 8, "mamba": 16}[space]
    assert document["stem_bits"] == first.to_json()["output_bits"] == 8


def test_an_image_keeps_its_convolutions_beside_a_series() -> None:
    starts = SPACES["all"].starts(MIXED)
    kinds = [
        {b["sensor"]: b["branch"] for b in branches(SPACES["all"].sample(FixedTrial(g), MIXED))}
        for g in starts[:3]
    ]
    assert [held["a"] for held in kinds] == ["conv", "transformer", "mamba"]
    assert [held["b"] for held in kinds] == ["conv"] * 3
    alone = problem(image("b", 24, 20, 1))
    genes = SPACES["all"].starts(alone)[1]
    assert branches(SPACES["all"].sample(FixedTrial(genes), alone))[0]["branch"] == "transformer"


def test_no_pool_of_a_single_step() -> None:
    for space, seed in itertools.product(NEW, range(10)):
        graph = sample(space, EXTREMES[0], seed).lower()
        assert not any(isinstance(op, Pool | LastStep) for op in graph.ops)
