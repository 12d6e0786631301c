"""The attention teacher: the published structure, any sensors, and what may not look ahead."""

import math

import pytest
import torch
from torch import nn

from nas.space import Problem, Sensor
from nas.training import mdcsa
from nas.training.loop import TrainingSet, predict, train
from nas.training.mdcsa import DualAttention
from nas.training.recipe import Recipe

torch.set_num_threads(1)

A, B = Sensor("a", "series", (1, 25, 20)), Sensor("b", "series", (1, 25, 6))
LONG = Sensor("c", "series", (1, 100, 3))
SHORT = Sensor("d", "series", (1, 1, 1))
LEVELS, VIEW = Sensor("v", "vector", (1, 1, 30)), Sensor("i", "image", (28, 20, 3))
DOT = Sensor("j", "image", (1, 1, 1))


def inputs(sensors: tuple[Sensor, ...], rows: int = 4) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return {s.name: torch.randn(rows, s.shape[2], *s.shape[:2], generator=made) for s in sensors}


def test_the_published_number_of_parameters() -> None:
    """9,658,935 at a width of 256 with 20 + 6 channels and 6 rooms: facts of the paper's code."""
    net = DualAttention(Problem((A, B), 6), hidden=256)
    without = 6 * 6 + 2 * 6 + (256 + 1)  # the CRF's, and the second head's
    twice_as_many_features = 6 * 256
    count = sum(p.numel() for p in net.parameters())
    assert count == 9_658_935 - without + twice_as_many_features


@pytest.mark.parametrize(
    "sensors",
    (
        (A,),
        (LONG, SHORT),
        (A, B),
        (A, LEVELS),
        (VIEW, A),
        (LONG, A, DOT),
        (LEVELS, VIEW, A),
        (LEVELS, LONG, VIEW, B),
        (A, B, LONG, SHORT),
    ),
)
def test_any_sensors(sensors: tuple[Sensor, ...]) -> None:
    torch.manual_seed(0)
    net = DualAttention(Problem(sensors, 5), hidden=8)
    logits = net(inputs(sensors))
    assert logits.shape == (4, 5) and torch.isfinite(logits).all()
    logits.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval()
    before = net(inputs(sensors))
    torch.testing.assert_close(net(inputs(sensors)), before)
    for sensor in sensors:  # each has a say
        changed = inputs(sensors)
        changed[sensor.name] = changed[sensor.name] + 1.0
        assert (net(changed) - before).abs().max() > 1e-4, sensor


def test_long_series_become_patches() -> None:
    net = DualAttention(Problem((LONG, A), 2), hidden=8)
    lengths = [net.embeddings[name](inputs((LONG, A))[name]).shape[1] for name in ("c", "a")]
    assert lengths == [25, 25] and max(lengths) <= mdcsa.MOST_TOKENS
    x = torch.arange(4.0).view(1, 4, 1)
    assert mdcsa._to_length(x, 2).flatten().tolist() == [0.5, 2.5]
    assert mdcsa._to_length(x[:, :1] + 3, 3).flatten().tolist() == [3.0, 3.0, 3.0]


def test_positions_by_hand() -> None:
    made = mdcsa._with_positions(torch.ones(1, 3, 4))[0, 2]
    slow = 2 / 100.0
    expected = [2 + f for f in (math.sin(2), math.cos(2), math.sin(slow), math.cos(slow))]
    torch.testing.assert_close(made, torch.tensor(expected))


def test_attention_by_hand() -> None:
    query = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]])
    key, value = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0], [3.0]]])
    first = math.exp(2 / math.sqrt(2))
    expected = [(first + 3) / (first + 1), 2.0]
    made = mdcsa._attend(query, key, value).flatten()
    torch.testing.assert_close(made, torch.tensor(expected))


@pytest.mark.parametrize("kernel", mdcsa.KERNELS)
def test_queries_and_keys_do_not_look_ahead(kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        seen.append(torch.cat([query, key], 2))
        return value

    monkeypatch.setattr(mdcsa, "_attend", attend)
    torch.manual_seed(0)
    branch = mdcsa._Branch(("a",), ("a",), kernel, 4).eval()
    x = torch.randn(1, 12, 4)
    branch({"a": x})
    x[:, 8] += 1.0
    branch({"a": x})
    changed = (seen[0] - seen[1]).abs().amax((0, 2)) > 1e-6
    expected = torch.zeros(12, dtype=torch.bool)
    expected[8 : 8 + kernel] = True
    assert changed.tolist() == expected.tolist()


def test_a_closed_gate_leaves_the_mean_of_the_sensors() -> None:
    torch.manual_seed(0)
    branch = mdcsa._Branch(("a", "v"), ("a",), 4, 8).eval()
    nn.init.zeros_(branch.gate.weight)
    nn.init.constant_(branch.gate.bias, 0.0)
    x, context = torch.randn(2, 5, 8), torch.randn(2, 1, 8)
    made = branch({"a": x, "v": context})
    past = nn.functional.pad(x.transpose(1, 2), (3, 0))
    query, key = (
        torch.tanh(layer["a"](past)).transpose(1, 2) for layer in (branch.queries, branch.keys)
    )
    attended = nn.functional.layer_norm(x + mdcsa._attend(query, key, x), (8,))
    torch.testing.assert_close(made, nn.functional.layer_norm((attended + context) / 2, (8,)))


def test_the_head_sees_what_has_no_time() -> None:
    torch.manual_seed(0)
    net = DualAttention(Problem((A, LEVELS), 3), hidden=8).eval()
    with torch.no_grad():
        net.head.weight[:, :16] = 0.0  # mean and last step
    held = inputs((A, LEVELS))
    changed = held | {"v": held["v"] + 1.0}
    assert (net(held) - net(changed)).abs().max() > 1e-4
    torch.testing.assert_close(net(held), net(held | {"a": held["a"] + 1.0}))


def test_branches_are_interleaved_in_time() -> None:
    """The merge of a step takes that step of each branch."""
    net = DualAttention(Problem((A,), 2), hidden=4).eval()
    seen: list[torch.Tensor] = []
    outputs = [torch.full((1, 25, 4), float(k)) + torch.arange(25.0)[:, None] for k in range(3)]
    for branch, output in zip(net.branches, outputs, strict=True):
        branch.forward = lambda held, output=output: output  # type: ignore[method-assign]
    net.merge.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    original = mdcsa._attend
    mdcsa._attend = lambda query, key, value: value
    try:
        net(inputs((A,), 1))
    finally:
        mdcsa._attend = original
    assert seen[0].shape == (1, 4, 75)
    assert seen[0][0, 0, :6].tolist() == [0.0, 1.0, 2.0, 1.0, 2.0, 3.0]


def test_dropout_is_of_training_only() -> None:
    torch.manual_seed(0)
    sensors = (A, LEVELS)
    net = DualAttention(Problem(sensors, 3), hidden=8, dropout=0.5)
    held = inputs(sensors)
    assert (net(held) != net(held)).any()
    net.eval()
    torch.testing.assert_close(net(held), net(held))


def data(rows: int = 60) -> TrainingSet:
    """Class 0 against the rest shows in the series, the rest only in the vector."""
    made = torch.Generator().manual_seed(1)
    labels = torch.arange(rows) % 3
    waves = torch.randn(2, rows, 2, 1, 8, generator=made) * 10
    waves += 40 * (labels == 0)[None, :, None, None, None]
    levels = torch.randn(2, rows, 3, 1, 1, generator=made) * 10
    levels += 40 * (labels == 1)[None, :, None, None, None]
    held = {"a": waves.clamp(-128, 127).to(torch.int8), "v": levels.clamp(-128, 127).to(torch.int8)}
    return TrainingSet(held, {"a": 0.03, "v": 0.03}, labels, 3)


def trained(seed: int) -> DualAttention:
    sensors = (Sensor("a", "series", (1, 8, 2)), Sensor("v", "vector", (1, 1, 3)))
    torch.manual_seed(seed)
    net = DualAttention(Problem(sensors, 3), hidden=8, dropout=0.3)
    train(net, data(), Recipe(steps=60, batch_size=20, peak_rate=5e-3), seed)
    return net


def test_it_learns_from_both_sensors_and_repeats_itself() -> None:
    held = data()
    clean = {name: copies[0] for name, copies in held.inputs.items()}
    nets: list[nn.Module] = [trained(1), trained(1), trained(2)]
    first, again, other = (predict(net, clean, held.scales) for net in nets)  # type: ignore[arg-type]
    assert (first.argmax(1) == held.labels).float().mean() > 0.95
    assert torch.equal(first, again) and not torch.equal(first, other)
