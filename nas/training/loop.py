"""The training loop that teachers and students share: tensors in memory, no data loader."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas.network.numerics import Int8
from nas.training.capture import Step, captured
from nas.training.hints import HintLoss
from nas.training.low_bits import least_bits
from nas.training.mdcsa import DualAttention
from nas.training.recipe import HALFWAY, Recipe
from nas.training.student import Student

Network: TypeAlias = Student | DualAttention
Rows: TypeAlias = NDArray[np.int64]
Batch: TypeAlias = tuple[Rows, Rows]  # copies and rows, (batch,) each
Phase: TypeAlias = tuple[bool, int]


@dataclass(frozen=True)
class TrainingSet:
    """The bank as tensors.

    Attributes:
        inputs: modality -> (copies, n, channels, height, width) int8.
        scales: modality -> scale of those integers.
        labels: (n,) int64.
        classes: number of classes.
        teacher: (copies, n, classes) log-probabilities of a teacher, or None.
        features: (copies, n, width) of that teacher, or None.
    """

    inputs: Mapping[str, Tensor]
    scales: Mapping[str, float]
    labels: Tensor
    classes: int
    teacher: Tensor | None = None
    features: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where it lies, and what it trains is trained."""
        return self.labels.device

    def to(self, device: torch.device) -> "TrainingSet":
        """The same on a device."""
        return TrainingSet(
            {name: x.to(device) for name, x in self.inputs.items()},
            self.scales,
            self.labels.to(device),
            self.classes,
            None if self.teacher is None else self.teacher.to(device),
            None if self.features is None else self.features.to(device),
        )

    def subset(self, rows: NDArray[np.bool_], names: Iterable[str] | None = None) -> "TrainingSet":
        """The rows of a mask (n,) in every copy, of some modalities or of all."""
        mask = torch.from_numpy(rows).to(self.device)
        return TrainingSet(
            {name: self.inputs[name][:, mask] for name in names or self.inputs},
            self.scales,
            self.labels[mask],
            self.classes,
            None if self.teacher is None else self.teacher[:, mask],
            None if self.features is None else self.features[:, mask],
        )


def training_set(
    bank: Mapping[str, Int8],
    scales: Mapping[str, float],
    labels: NDArray[np.int64],
    classes: int,
    teacher: NDArray[np.float32] | None,
) -> TrainingSet:
    """Tensors from `augment.make_bank` (copies, n, height, width, channels)."""
    return TrainingSet(
        {k: torch.from_numpy(v).permute(0, 1, 4, 2, 3) for k, v in bank.items()},
        scales,
        torch.from_numpy(labels),
        classes,
        None if teacher is None else torch.from_numpy(teacher),
    )


def train(
    net: Network,
    data: TrainingSet,
    recipe: Recipe,
    seed: int | Sequence[int],
    goes_on: Callable[[Network], bool] | None = None,
) -> bool:
    """Trains `net` in place, on the modalities that its graph uses and the device of the data.

    Args:
        seed: of the order of the rows; those of a pack's members, each with an order of its own.
        goes_on: is asked once, after `HALFWAY` of the steps, whether the rest shall be made; it
            may evaluate the network.

    Returns:
        Whether all steps were made.

    Raises:
        FloatingPointError: the loss is no longer finite; a pack's, if that of any member is not.
    """
    seeds = [seed] if isinstance(seed, int) else seed
    torch.manual_seed(seeds[0])  # dropout
    net.train()
    hint = _hint(net, data, recipe)
    optimiser = _optimiser(net, recipe)
    if hint is not None and hint.map is not None:
        optimiser.add_param_group({"params": list(hint.parameters()), "weight_decay": 0.0})
    learn = _learner(net, data, recipe, hint, optimiser, len(seeds))
    copies, n = next(iter(data.inputs.values())).shape[:2]
    drawn = [list(_batches(s, copies, n, recipe)) for s in seeds]
    which, rows = (_on(data.device, drawn, part) for part in (0, 1))
    halfway = round(recipe.steps * HALFWAY)
    phase: Phase | None = None
    for step in range(recipe.steps):
        if phase != (now := _phase(net, recipe, step)):
            phase = now
            _enter(net, phase)
            make_step = captured(learn, data.device)
        _set_rate(
            optimiser, recipe.peak_rate * _one_cycle(step / recipe.steps, recipe.warmup_share)
        )
        loss = make_step(which[step], rows[step])
        if goes_on is not None and step + 1 == halfway:
            _require_finite(loss, halfway)
            if not goes_on(net):
                return False
            net.train()
    _require_finite(loss, recipe.steps)
    net.eval()
    return True


def _learner(
    net: Network,
    data: TrainingSet,
    recipe: Recipe,
    hint: HintLoss | None,
    optimiser: torch.optim.Optimizer,
    members: int,
) -> Step:
    """A step of a training but for its rate."""
    weights = _class_weights(data) if recipe.class_weighting else None

    def learn(which: Tensor, rows: Tensor) -> Tensor:
        loss = _loss(net, data, recipe, weights, which, rows, members)
        if hint is not None and data.features is not None:
            loss = loss + recipe.hint_weight * hint(net.features, data.features[which, rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        # The last hold on a step's autograd graph: what a recording needs is made anew in it.
        net.features = net.features.detach()
        return loss.detach()

    return learn


def _phase(net: Network, recipe: Recipe, step: int) -> Phase:
    """(whether statistics and ranges are frozen, least bits of the weights) at a step."""
    if not isinstance(net, Student) or not net.quantised:
        return False, 2
    frozen = step >= round(recipe.steps * (1 - recipe.frozen_share))
    least = least_bits(step / recipe.steps, recipe.gradual_share) if recipe.gradual_share else 2
    return frozen, least


def _enter(net: Network, phase: Phase) -> None:
    if isinstance(net, Student):
        frozen, least = phase
        net.hold_bits(least)
        if frozen:
            net.freeze()


def _batches(seed: int, copies: int, n: int, recipe: Recipe) -> Iterator[Batch]:
    """(copies, rows) of every step, (batch,) each: all rows in turn, each of some copy."""
    rng = np.random.default_rng(seed)
    order, position = rng.permutation(n), 0
    batch_size = min(recipe.batch_size, n)
    for _ in range(recipe.steps):
        if position + batch_size > n:
            order, position = rng.permutation(n), 0
        rows = order[position : position + batch_size]
        position += batch_size
        yield rng.integers(0, copies, batch_size), rows


def _on(device: torch.device, drawn: Sequence[Sequence[Batch]], part: int) -> Tensor:
    """(steps, members x batch): copies or rows of every step, which are sent once."""
    members = [np.stack([batch[part] for batch in batches]) for batches in drawn]
    return torch.from_numpy(np.concatenate(members, 1)).to(device)


def _require_finite(loss: Tensor, step: int) -> None:
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"training diverged: loss {loss.item()} at step {step}")


def _hint(net: Network, data: TrainingSet, recipe: Recipe) -> HintLoss | None:
    """Raises ValueError where a hint is asked for and there are no features to take it from."""
    if recipe.hint == "none" or not isinstance(net, Student):
        return None
    if data.features is None:
        raise ValueError(f"a hint by {recipe.hint} needs a teacher's features")
    width = net.graph.shapes[net.feature_tensor][-1]
    return HintLoss(recipe.hint, width, data.features).to(data.device)


def _loss(
    net: Network,
    data: TrainingSet,
    recipe: Recipe,
    weights: Tensor | None,
    which: Tensor,
    rows: Tensor,
    members: int = 1,
) -> Tensor:
    """The sum of the members' losses."""
    batch = {
        name: data.inputs[name][which, rows].float().mul_(data.scales[name]) for name in net.inputs
    }
    logits, labels = net(batch), data.labels[rows]
    parts = [(logits, labels)]
    if weights is not None:  # rows count by the weights of their own member's batch
        parts = list(zip(logits.chunk(members), labels.chunk(members), strict=True))
    losses = [_cross_entropy(x, y, weights, recipe.label_smoothing) for x, y in parts]
    loss = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
    if data.teacher is None or recipe.distil_weight == 0:
        return members * loss
    t = recipe.temperature
    divergence = F.kl_div(
        F.log_softmax(logits / t, 1),
        F.log_softmax(data.teacher[which, rows] / t, 1),
        reduction="batchmean",
        log_target=True,
    )
    loss = (1 - recipe.distil_weight) * loss + recipe.distil_weight * t * t * divergence
    return members * loss


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, share: float) -> Tensor:
    """That of `share` smoothed labels.

    With weights torch's own asks which labels count, which no recording can.
    """
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=share)
    log_probabilities = F.log_softmax(logits, 1)
    loss = F.nll_loss(log_probabilities, labels, weight=weights)
    if not share:
        return loss
    spread = -(log_probabilities * weights).sum(1).sum() / weights.gather(0, labels).sum()
    return (1 - share) * loss + spread * (share / logits.shape[1])


def _optimiser(net: Network, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [p for p in net.parameters() if p.requires_grad]
    device = parameters[0].device
    repeated = device.type == "cuda"  # a recorded step finds its rate and its number in tensors
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=torch.tensor(recipe.peak_rate, device=device) if repeated else recipe.peak_rate,
        fused=True,
        capturable=repeated,
    )


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _class_weights(data: TrainingSet) -> Tensor:
    counts = torch.bincount(data.labels, minlength=data.classes).float()
    return len(data.labels) / (data.classes * counts)


def _one_cycle(progress: float, warmup: float) -> float:
    """Share of the peak rate: cosine up from 4 % during the warm-up, cosine down to 0.1 %."""
    if progress < warmup:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * progress / warmup))
    return max(1e-3, 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))))


def predict(
    net: Network, inputs: Mapping[str, Tensor], scales: Mapping[str, float], batch_size: int = 512
) -> Tensor:
    """(n, classes) logits for int8 inputs: modality -> (n, channels, height, width)."""
    return answers(net, inputs, scales, batch_size)[0]


@torch.no_grad()
def answers(
    net: Network, inputs: Mapping[str, Tensor], scales: Mapping[str, float], batch_size: int = 512
) -> tuple[Tensor, Tensor]:
    """(n, classes) logits and (n, width) features, the mean over positions of a map's.

    The inputs may lie elsewhere than the network; what is returned lies on the CPU.
    """
    net.eval()
    device = next(net.parameters()).device
    n = len(next(iter(inputs.values())))
    logits, features = [], []
    for start in range(0, n, batch_size):
        batch = {
            name: inputs[name][start : start + batch_size].to(device).float().mul_(scales[name])
            for name in net.inputs
        }
        logits.append(net(batch).cpu())
        held = net.features.flatten(2).mean(2) if net.features.ndim > 2 else net.features
        features.append(held.cpu())
    return torch.cat(logits), torch.cat(features)
