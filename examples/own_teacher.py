"""A teacher of your own as an ONNX file, for `--teacher`.

    python examples/own_teacher.py my_sensors.npz teacher.onnx
    python run_search.py --data my_sensors.npz --teacher teacher.onnx --minutes 10

Any network will do, of any size and from any framework, if its ONNX file has

- inputs named after modalities of the data (not all need be used), float32 real values
  (stored * scale + offset) in the data's layout with a batch axis in front: (n, T, C), (n, H, W, C)
  or (n, F)
- one output, (n, classes) logits or probabilities

The search asks it about augmented copies of the training rows, so it should be trained with some
noise, and normalise inside the network, as this one does. It must not be trained on validation or
test rows: students are chosen by the first and reported on the second.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.data.named_tasks import TASKS, load_named_task
from nas.data.task import Modality, Task, load_task

FEATURES, BATCH = 32, 64
NOISE = 0.1  # of a channel's standard deviation


class Branch(nn.Module):
    """One modality, normalised, to `FEATURES` features; images by 2-D, series by 1-D kernels."""

    mean: Tensor
    std: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(modality.mean.copy()))
        self.register_buffer("std", torch.from_numpy(modality.std.copy()))
        layers: list[nn.Module] = []
        channels = modality.channels
        if modality.kind == "vector":
            layers += [nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, FEATURES), nn.ReLU()]
        else:
            image = modality.kind == "image"
            convolution = nn.Conv2d if image else nn.Conv1d
            for width in (16, 32, FEATURES):
                layers += [convolution(channels, width, 5, stride=2, padding=2), nn.ReLU()]
                channels = width
            layers += [nn.AdaptiveAvgPool2d(1) if image else nn.AdaptiveAvgPool1d(1), nn.Flatten()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., C) real values to (n, FEATURES)."""
        x = (x - self.mean) / self.std
        if self.training:
            x = x + NOISE * torch.randn_like(x)
        order = {2: (0, 1), 3: (0, 2, 1), 4: (0, 3, 1, 2)}[x.ndim]  # channels first
        features: Tensor = self.layers(x.permute(order))
        return features


class Teacher(nn.Module):
    """A branch for each modality and a classifier."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Branch(modality) for modality in task.modalities)
        width = FEATURES * len(self.branches)
        self.head = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, task.classes)
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits (n, classes)."""
        features = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        logits: Tensor = self.head(torch.cat(features, 1))
        return logits


def tensors(task: Task, rows: np.ndarray) -> list[Tensor]:
    """Real values of some rows, one tensor a modality."""
    return [torch.from_numpy(m.real(rows).astype(np.float32)) for m in task.modalities]


def train(task: Task, epochs: int) -> Teacher:
    """Trains on the training split and says the accuracy on validation."""
    torch.manual_seed(0)
    net = Teacher(task)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    rows = task.rows("train")
    inputs, labels = tensors(task, rows), torch.from_numpy(task.y[rows])
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(BATCH):
            loss = nn.functional.cross_entropy(
                net(*(x[batch] for x in inputs)), labels[batch], label_smoothing=0.05
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    net.eval()
    with torch.no_grad():
        predicted = net(*tensors(task, task.rows("val"))).argmax(1).numpy()
    accuracy = float((predicted == task.y[task.rows("val")]).mean())
    print(f"accuracy on validation: {accuracy:.4f}")
    return net


def export(net: Teacher, task: Task, path: Path) -> None:
    """Writes the ONNX file; the batch axis is free."""
    names = list(task.names)
    with warnings.catch_warnings():
        # The newer exporter needs the package onnxscript; with it, leave dynamo=False out.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net,
            tuple(tensors(task, task.rows("val")[:2])),
            str(path),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "n"} for name in (*names, "logits")},
            dynamo=False,
        )
    print(f"wrote {path}: inputs {', '.join(names)}, {task.classes} classes")


def main() -> None:
    """Trains and exports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="data file, .npz, or the name of a task")
    parser.add_argument("out", type=Path, metavar="OUT.onnx")
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="(%(default)s)")
    chosen = parser.parse_args()
    task = load_named_task(chosen.data) if chosen.data in TASKS else load_task(chosen.data)
    export(train(task, chosen.epochs), task, chosen.out)


if __name__ == "__main__":
    main()
