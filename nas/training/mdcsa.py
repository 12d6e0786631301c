"""A float teacher for time series: dual-convolutional self-attention and cross-modal gates.

The structure is that of MDCSA (arXiv 2308.02419, from its authors' code), and with two series it
has its parameters to the last one but for the head:

    series -> linear embedding * sqrt(H) + sinusoidal positions
    for each kernel k of 1, 4, 7, side by side:
        each series: q, k = tanh(causal convolutions); x = LayerNorm(x + softmax(q k' / sqrt(H)) x)
        gate: ELU(sum of a linear layer of each) -> 4H -> GLU -> LayerNorm(+ residual)
    the three outputs interleaved in time -> self-attention -> convolution of stride 3 -> LayerNorm

What we chose where the paper has two series, a label each time step and much data:

* Any sensors. Of two series one is the published gate's residual; here it is the mean of all. A
  feature vector, and an image after a few convolutions, is a static context: it enters every gate
  at every step and, worth .016 on validation where vectors say most, the head itself.
* Long series are embedded in patches of readings, `MOST_TOKENS` at most; series of other lengths
  are brought to the longest one's.
* One label a window: no CRF over the steps, no second head for one of the rooms. The classes are
  read from mean and last step, as some labels are those of a window's end.
* A width of 32 instead of 256 (`HIDDEN`), for thousands of windows instead of tens of thousands.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.space import Problem, Sensor

HIDDEN = 32
KERNELS = (1, 4, 7)
MOST_TOKENS = 25  # steps of a published window
GATE_DROPOUT = 0.15
VECTOR_UNITS = 96
IMAGE_CHANNELS = (12, 18, 27, 40)
IMAGE_CELLS = 2  # an axis, of what an image's convolutions leave


class DualAttention(nn.Module):
    """The network.

    Args:
        problem: at least one sensor is a series.
        hidden: width H of every token, even.
        dropout: probability on the features that the classes are read from.

    Attributes:
        features: those of the last forward pass, (batch, width), before dropout.
    """

    features: Tensor

    def __init__(self, problem: Problem, hidden: int = HIDDEN, dropout: float = 0.0) -> None:
        super().__init__()
        self.inputs = tuple(sensor.name for sensor in problem.sensors)
        self.series = tuple(s.name for s in problem.sensors if s.kind == "series")
        self.static = tuple(name for name in self.inputs if name not in self.series)
        self.embeddings = nn.ModuleDict({s.name: _embedding(s, hidden) for s in problem.sensors})
        self.branches = nn.ModuleList(
            _Branch(self.inputs, self.series, kernel, hidden) for kernel in KERNELS
        )
        self.merge = nn.Conv1d(hidden, hidden, len(KERNELS), len(KERNELS))
        self.norm = nn.LayerNorm(hidden)
        self.dropout = dropout
        self.head = nn.Linear((2 + len(self.static)) * hidden, problem.classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """inputs: modality -> (batch, channels, height, width); returns (batch, classes)."""
        held = {name: self.embeddings[name](inputs[name]) for name in self.inputs}
        steps = max(held[name].shape[1] for name in self.series)
        for name in self.series:
            held[name] = _with_positions(_to_length(held[name], steps))
        parts = [branch(held) for branch in self.branches]
        tokens = torch.stack(parts, 2).flatten(1, 2)  # (batch, 3 * steps, hidden), by time
        tokens = _attend(tokens, tokens, tokens)
        x = self.norm(self.merge(tokens.transpose(1, 2)).transpose(1, 2))
        features = torch.cat([x.mean(1), x[:, -1], *(held[s][:, 0] for s in self.static)], 1)
        self.features = features
        logits: Tensor = self.head(F.dropout(features, self.dropout, self.training))
        return logits


class _Branch(nn.Module):
    """Self-attention in each series behind causal convolutions of one kernel, then the gate."""

    def __init__(
        self, names: tuple[str, ...], series: tuple[str, ...], kernel: int, hidden: int
    ) -> None:
        super().__init__()
        self.series, self.kernel = series, kernel
        self.queries = nn.ModuleDict({s: nn.Conv1d(hidden, hidden, kernel) for s in series})
        self.keys = nn.ModuleDict({s: nn.Conv1d(hidden, hidden, kernel) for s in series})
        self.norms = nn.ModuleDict({s: nn.LayerNorm(hidden) for s in series})
        inner = 4 * hidden
        self.ins = nn.ModuleDict(
            {name: nn.Linear(hidden, inner, bias=i == 0) for i, name in enumerate(names)}
        )
        self.inner = nn.Linear(inner, inner)
        self.gate = nn.Linear(inner, 2 * hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, held: Mapping[str, Tensor]) -> Tensor:
        """held: modality -> (batch, steps or 1, hidden); returns (batch, steps, hidden)."""
        values = dict(held)
        for name in self.series:
            x = held[name]
            past = F.pad(x.transpose(1, 2), (self.kernel - 1, 0))
            query = torch.tanh(self.queries[name](past)).transpose(1, 2)
            key = torch.tanh(self.keys[name](past)).transpose(1, 2)
            values[name] = self.norms[name](x + _attend(query, key, x))
        first, *others = (layer(values[name]) for name, layer in self.ins.items())
        mixed = F.elu(sum(others, first))
        mixed = F.dropout(self.inner(mixed), GATE_DROPOUT, self.training)
        series = sum((values[name] for name in self.series[1:]), values[self.series[0]])
        residual = sum((v for k, v in values.items() if k not in self.series), series)
        gated: Tensor = self.norm(residual / len(values) + F.glu(self.gate(mixed), -1))
        return gated


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot products, one head: (batch, steps, hidden) each."""
    weights = (query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(-1)
    return weights @ value


def _with_positions(x: Tensor) -> Tensor:
    """x (batch, steps, hidden) * sqrt(hidden) + sines and cosines of 1 to 1 / 10,000 a step."""
    steps, hidden = x.shape[1:]
    even = torch.arange(0, hidden, 2, device=x.device)
    rate = torch.exp(even * (-math.log(10_000.0) / hidden))
    angle = torch.arange(steps, device=x.device)[:, None] * rate
    return x * math.sqrt(hidden) + torch.stack([angle.sin(), angle.cos()], 2).flatten(1)


def _to_length(x: Tensor, steps: int) -> Tensor:
    """(batch, any, hidden) averaged or repeated to `steps`."""
    if x.shape[1] == steps:
        return x
    return F.adaptive_avg_pool1d(x.transpose(1, 2), steps).transpose(1, 2)


def _embedding(sensor: Sensor, hidden: int) -> nn.Module:
    """(batch, channels, height, width) -> (batch, tokens, hidden); one token but of a series."""
    height, width, channels = sensor.shape
    if sensor.kind == "series":
        patch = -(-width // MOST_TOKENS)
        convolution = nn.Conv1d(channels, hidden, patch, patch)
        return nn.Sequential(nn.Flatten(2), convolution, _Transpose())
    if sensor.kind == "vector":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels, VECTOR_UNITS),
            nn.BatchNorm1d(VECTOR_UNITS),
            nn.ReLU(),
            nn.Linear(VECTOR_UNITS, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Unflatten(1, (1, hidden)),
        )
    layers: list[nn.Module] = []
    for out in IMAGE_CHANNELS:
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
        window = (2 if height > IMAGE_CELLS else 1, 2 if width > IMAGE_CELLS else 1)
        layers.append(nn.AvgPool2d(window))
        height, width, channels = height // window[0], width // window[1], out
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(IMAGE_CELLS),
        nn.Flatten(),
        nn.Linear(channels * IMAGE_CELLS**2, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Unflatten(1, (1, hidden)),
    )


class _Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)
