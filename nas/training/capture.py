"""A training step on a CUDA device, recorded once and then started as a whole.

A small student's step is hundreds of operations that take less time than starting them. A CUDA
graph starts all of them at once. It repeats what it has seen: the same addresses, the same numbers
where Python gave them. So all that changes from step to step (rows, learning rate) must lie in
tensors, and whatever else changes needs a new recording.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # copies and rows of a batch -> its loss
WARM_UP = 3  # steps made one operation at a time first, in which libraries choose and allocate


class CapturedStep:
    """`step`, which trains, as a CUDA graph from its fourth call on.

    The first calls train, too; the loss that is returned is overwritten by the next call.
    """

    def __init__(self, step: Step) -> None:
        self._step, self._made = step, 0
        self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, which: Tensor, rows: Tensor) -> Tensor:
        """One step on a batch: (batch,) copies and (batch,) rows."""
        if self._made < WARM_UP:
            self._made += 1
            return self._aside(which, rows)
        if self._graph is None:
            self._which, self._rows = which.clone(), rows.clone()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):  # records and does nothing
                self._loss = self._step(self._which, self._rows)
        self._which.copy_(which)
        self._rows.copy_(rows)
        self._graph.replay()
        return self._loss

    def _aside(self, which: Tensor, rows: Tensor) -> Tensor:
        """On a stream of its own, as recording is: what a library prepares is prepared for it."""
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            loss = self._step(which, rows)
        torch.cuda.current_stream().wait_stream(self._side)
        return loss


def captured(step: Step, device: torch.device) -> Step:
    """`step` in the fastest way that a device has."""
    return CapturedStep(step) if device.type == "cuda" else step
