"""The search space: every draw is a network, read back from its JSON, under one id."""

import itertools
import json
import random
from typing import Any

import optuna
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
)

from nas.errors import SpaceError
from nas.hardware.budget import price
from nas.hardware.profile import load_profile
from nas.network.graph import Graph
from nas.network.ops import Add, Conv2d, DepthwiseConv2d, Mul, Pool
from nas.space import Architecture, FixedTrial, Problem, architecture_id
from search_spaces import SPACES, multimodal
from search_spaces.families import CONV_STARTS as STARTS

SPACE = SPACES["conv"]
DEVICE = load_profile("cortex-m4-64k")


def sample(task: Problem, seed: int, fixed: dict[str, Any] | None = None) -> Architecture:
    return SPACE.sample(Draw(seed, fixed), task)


def reread(architecture: Architecture) -> Architecture:
    return SPACE.parse(json.loads(json.dumps(architecture.to_json())))


def test_every_draw_is_a_network() -> None:
    rng = random.Random(0)
    tasks = [*EXTREMES * 3, *(random_problem(rng) for _ in range(150))]
    for first, task in enumerate(tasks):
        for draw in range(10 * first, 10 * first + 4):
            architecture = sample(task, draw)
            graph = architecture.lower()
            assert graph.shapes[graph.output] == (task.classes,)
            shapes = {sensor.name: sensor.shape for sensor in task.sensors}
            names = [source.name for source in graph.inputs]
            assert names == [name for name in shapes if name in names]
            assert all(source.shape == shapes[source.name] for source in graph.inputs)
            assert all(graph.consumers[name] for name in graph.shapes if name != graph.output)
            assert price(graph, DEVICE).cost.cycles > 0
            copy = reread(architecture)
            assert copy == architecture and hash(copy) == hash(architecture)
            assert copy.lower().hash == graph.hash
            assert SPACE.parse(architecture.to_json()) == architecture
            assert architecture_id(copy) == architecture_id(architecture)


def test_ids_do_not_change_between_versions() -> None:
    ids = [architecture_id(sample(MIXED, seed)) for seed in range(3)]
    ids += [architecture_id(sample(DATA_SETS["rfid"], seed)) for seed in range(3)]
    starts = SPACE.starts(DATA_SETS["indoor"])
    ids += [architecture_id(SPACE.sample(FixedTrial(s), DATA_SETS["indoor"])) for s in starts[:2]]
    assert ids == [
        *("c4e25d2335c12", "cec17e6fbe956", "c2f7fbb505a8d"),
        *("c0da350331323", "c3e88429bdc8a", "c36796ec64c57"),
        *("c0edda42e0c94", "c8b3cef43b711"),
    ]


@pytest.mark.parametrize("task", [MIXED, *EXTREMES])
def test_parameters_do_not_depend_on_draws(task: Problem) -> None:
    draws = [Draw(seed) for seed in range(30)]
    for draw in draws:
        SPACE.sample(draw, task)
    first = list(draws[0].choices.items())
    assert all(list(draw.choices.items()) == first for draw in draws)


def graphs(task: Problem, count: int, **fixed: Any) -> list[Graph]:
    return [sample(task, seed, fixed).lower() for seed in range(count)]


def test_every_choice_occurs() -> None:
    documents = [sample(MIXED, seed).to_json() for seed in range(250)]
    branches = [branch for document in documents for branch in document["branches"]]
    convs = [branch for branch in branches if branch["branch"] == "conv"]
    layers = [layer for branch in convs for layer in branch["layers"]]

    def seen(parts: list[dict[str, Any]], key: str) -> set[Any]:
        return {part[key] for part in parts}

    bits = {0, 2, 4, 8}
    assert seen(documents, "fusion") == {"none", "concat", "add", "gate"}
    assert seen(branches, "branch") == {"conv", "vector"}
    assert seen(convs, "readout") == {"mean", "max", "grid"}
    assert seen(convs, "downsample") == {"stride", "average", "max"}
    assert seen(convs, "kernel") == {3, 5, 7}
    assert seen(convs, "decimation") == {1, 2, 4}
    assert seen(layers, "halve") == {True, False}
    assert seen(layers, "depthwise_bits") == bits
    assert seen(layers, "weight_bits") == bits - {0}
    assert seen(convs, "embedding_bits") == seen(documents, "gate_bits") == bits
    assert seen(documents, "hidden_bits") == bits
    assert seen(documents, "output_bits") == bits - {0}
    assert {len(branch["layers"]) for branch in convs} == {1, 2, 3, 4}
    used = {tuple(branch["sensor"] for branch in d["branches"]) for d in documents}
    assert len(used) == 7  # every set of sensors but the empty one
    ops = [op for graph in graphs(MIXED, 60) for op in graph.ops]
    for kind in (Conv2d, DepthwiseConv2d):
        assert {op.weight_bits for op in ops if isinstance(op, kind)} == bits - {0}
    assert {op.function for op in ops if isinstance(op, Pool)} == {"average", "max"}


def test_sensors_that_are_off_are_not_in_the_graph() -> None:
    for on in itertools.product((0, 1), repeat=3):
        genes = {f"{name}.on": value for name, value in zip("abc", on, strict=True)}
        expected = [name for name, value in zip("abc", on, strict=True) if value] or ["a", "b", "c"]
        for graph in graphs(MIXED, 3, **genes):
            assert [source.name for source in graph.inputs] == expected
            assert {op.name.partition("_")[0] for op in graph.ops} <= {
                *expected,
                "fusion",
                "head",
                "logits",
            }


def test_fusions() -> None:
    everything = {f"{name}.on": 1 for name in "abc"}
    for fusion, kinds in (("concat", set()), ("add", {Add}), ("gate", {Mul})):
        for graph in graphs(MIXED, 5, fusion=fusion, **everything):
            assert {type(op) for op in graph.ops} & {Add, Mul} == kinds


ALONE = {"a.on": 0, "b.on": 1, "c.on": 0}
TOGETHER = {"a.on": 1, "b.on": 1, "c.on": 1}
SHORT = problem(series("a", 8, 2), series("b", 8, 2))
ONE_STEP = problem(series("a", 1, 3), image("b", 1, 1, 2))


@pytest.mark.parametrize(
    ("task", "fixed", "masked"),
    [
        (MIXED, ALONE, ["fusion", "fusion.width", "fusion.gate_bits"]),
        (MIXED, ALONE, ["a.depth", "a.bits.0", "a.kernel", "a.readout", "c.units.0", "c.depth"]),
        (MIXED, {"fusion": "concat"}, ["fusion.width", "fusion.gate_bits"]),
        (MIXED, {"fusion": "gate"}, ["fusion.width"]),
        (MIXED, TOGETHER | {"fusion": "add"}, ["a.embedding", "b.embedding", "fusion.gate_bits"]),
        (MIXED, TOGETHER | {"fusion": "add", "c.depth": 1}, ["c.units.0"]),
        (MIXED, TOGETHER | {"fusion": "add", "c.depth": 2}, ["c.units.1"]),
        (MIXED, TOGETHER | {"fusion": "gate", "a.embedding": 0}, ["a.embedding_bits"]),
        (MIXED, {"a.depth": 1}, ["a.growth", "a.bits.1", "a.convolution", "a.depthwise_bits.1"]),
        (MIXED, {"a.convolution": "dense"}, [f"a.depthwise_bits.{i}" for i in (1, 2, 3)]),
        (SHORT, {"a.halvings": 0}, ["a.downsample"]),
        (MIXED, {"c.depth": 1}, ["c.units.1", "c.bits.1"]),
        (MIXED, {"head.hidden": 0}, ["head.hidden_bits"]),
        (ONE_STEP, {}, ["a.decimation", "a.kernel", "a.halvings", "a.downsample", "a.readout"]),
        (ONE_STEP, {}, ["b.decimation", "b.kernel", "b.halvings", "b.downsample", "b.readout"]),
    ],
)
def test_genes_without_effect_leave_the_architecture_alone(
    task: Problem, fixed: dict[str, Any], masked: list[str]
) -> None:
    for seed, gene in itertools.product(range(4), masked):
        draw = Draw(seed, fixed)
        architecture = SPACE.sample(draw, task)
        for value in draw.choices[gene]:
            assert sample(task, seed, fixed | {gene: value}) == architecture, (gene, value)


def test_equal_networks_have_equal_ids() -> None:
    rng = random.Random(2)
    tasks = [*EXTREMES, *(random_problem(rng) for _ in range(15))]
    for seed, task in enumerate(tasks):
        draw = Draw(seed)
        architecture = SPACE.sample(draw, task)
        graph = architecture.lower()
        for gene in rng.sample(sorted(draw.choices), min(15, len(draw.choices))):
            other = sample(task, seed, {gene: rng.choice(draw.choices[gene])})
            assert (other == architecture) is (other.lower().hash == graph.hash), gene


def mixed_document() -> dict[str, Any]:
    """An architecture with a branch of each kind, as a file holds it."""
    return json.loads(json.dumps(sample(MIXED, 0, TOGETHER | {"fusion": "gate"}).to_json()))


def test_missing_and_unknown_keys() -> None:
    def parts(document: dict[str, Any]) -> list[dict[str, Any]]:
        branches = document["branches"]
        return [document, *branches, branches[0]["layers"][0], branches[2]["layers"][0]]

    for i, part in enumerate(parts(mixed_document())):
        for key in [*part, None]:
            document = mixed_document()
            if key is None:
                parts(document)[i]["more"] = 1
            else:
                del parts(document)[i][key]
            with pytest.raises(SpaceError, match=f"not an architecture.*{key or 'more'}"):
                SPACE.parse(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "mamba"}, "space 'mamba' is not one of conv"),
        ({"fusion": "attention"}, "fusion 'attention' is not one of concat, add, gate"),
        ({"fusion": "none"}, "fusion 'none' is not one of concat, add, gate"),
        ({"branches": []}, "an architecture has at least one branch"),
        ({"branches": ["a", "b"]}, "not an architecture of the space 'conv'"),
        ({"branches": 3}, "not an architecture of the space 'conv'"),
    ],
)
def test_another_document(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SPACE.parse(mixed_document() | change)


@pytest.mark.parametrize("key", ["branch", "downsample", "readout"])
def test_unknown_word_in_a_branch(key: str) -> None:
    document = mixed_document()
    document["branches"][0][key] = "other"
    with pytest.raises(SpaceError, match=f"{key} 'other' is not one of"):
        SPACE.parse(document)


def test_one_branch_needs_no_fusion() -> None:
    document = sample(MIXED, 0, ALONE).to_json()
    with pytest.raises(SpaceError, match="fusion 'concat' is not one of none"):
        SPACE.parse(document | {"fusion": "concat"})
    with pytest.raises(SpaceError, match="not an architecture"):
        SPACE.parse(json.loads("[]"))


def test_optuna_replays_a_trial() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distributions = set()
    for _ in range(15):
        trial = study.ask()
        architecture = SPACE.sample(trial, MIXED)
        replayed = SPACE.sample(optuna.trial.FixedTrial(trial.params), MIXED)
        assert replayed == architecture
        assert architecture_id(replayed) == architecture_id(architecture)
        distributions.add(str(sorted(trial.distributions.items())))
    assert len(distributions) == 1


def test_the_shipped_spaces() -> None:
    assert all(name == space.name and space.summary for name, space in SPACES.items())
    assert isinstance(sample(MIXED, 0), multimodal.MultimodalStudent)


# ---------------------------------------------------------------- where a search begins


def start_architectures(task: Problem) -> list[Any]:
    return [SPACE.sample(FixedTrial(genes), task) for genes in SPACE.starts(task)]


@pytest.mark.parametrize("task", [MIXED, *EXTREMES])
def test_starts_are_different_networks_of_the_space(task: Problem) -> None:
    found = start_architectures(task)
    assert len({architecture_id(a) for a in found}) >= min(len(found), 3)
    for architecture in found:
        assert SPACE.parse(architecture.to_json()) == architecture
        assert architecture.lower().shapes


def test_starts_use_all_sensors_then_all_but_each_one_then_each_alone() -> None:
    used = [{b.sensor for b in a.branches} for a in start_architectures(MIXED)]
    assert used[: len(STARTS)] == [{"a", "b", "c"}] * len(STARTS)
    pairs, alone = [{"b", "c"}, {"a", "c"}, {"a", "b"}], [{"a"}, {"b"}, {"c"}]
    assert used[len(STARTS) :] == pairs + alone
    for count in (1, 2):
        fewer = SPACE.starts(Problem(MIXED.sensors[:count], MIXED.classes))
        assert len(fewer) == len(STARTS) + {1: 0, 2: 2}[count]


def test_starts_halve_a_map_down_to_a_few_positions() -> None:
    task = problem(image("i", 32, 28, 1), series("s", 16, 4), series("t", 500, 2))
    for architecture in start_architectures(task)[: len(STARTS)]:
        graph = architecture.lower()
        readouts = [op for op in graph.ops if op.name.endswith("_readout")]
        expected = {
            "i_readout": (2, 1) if any("i_pool" in op.name for op in graph.ops) else (2, 2),
            "s_readout": (1, 4),
            "t_readout": (1, 7) if any("t_pool" in op.name for op in graph.ops) else (1, 8),
        }
        if architecture.branches[0].readout == "grid":  # small maps are flattened as they are
            assert {op.name for op in readouts} == {"t_readout"}
            expected = {"t_readout": expected["t_readout"]}
        assert {op.name: graph.input_shapes(op)[0][:2] for op in readouts} == expected


def test_a_fixed_trial_takes_only_what_the_space_offers() -> None:
    genes = SPACE.starts(MIXED)[0]
    for name, value in (("a.width", 99), ("fusion", "sum"), ("head.hidden", "8")):
        with pytest.raises(SpaceError, match=f"gene {name} is {value!r}"):
            SPACE.sample(FixedTrial({**genes, name: value}), MIXED)
    with pytest.raises(SpaceError, match=r"gene b\.on is None"):
        SPACE.sample(FixedTrial({k: v for k, v in genes.items() if k != "b.on"}), MIXED)
