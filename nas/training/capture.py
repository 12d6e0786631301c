"""A training step on a CUDA device, recorded once and then started as a whole.

A small student's step is hundreds of operations that take less time than starting them. A CUDA
graph starts all of them at once. It repeats what it has seen: the same addresses, the same numbers
where Python gave them. So all that changes from step to step (rows, learning rate) must lie in
tensors, and whatever else changes needs a new recording.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nas.errors import RunError

Step: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # copies and rows of a batch -> its loss
WARM_UP = 3  # steps made one operation at a time first, in which libraries choose and allocate


class CapturedStep:
    """`step`, which trains, as a CUDA graph from its fourth call on.

    The first calls train, too; the loss that is returned is overwritten by the next call.
    """

    def __init__(self, step: Step) -> None:
        self._step, self._made = step, 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, which: Tensor, rows: Tensor) -> Tensor:
        """One step on a batch: (batch,) copies and (batch,) rows."""
        if self._made < WARM_UP:
            self._made += 1
            return self._aside(which, rows)
        if self._graph is None:
            self._which, self._rows = which.clone(), rows.clone()
            self._graph, self._loss = self._recorded()
        self._which.copy_(which)
        self._rows.copy_(rows)
        self._graph.replay()
        return self._loss

    def _aside(self, which: Tensor, rows: Tensor) -> Tensor:
        """On the stream of the recording: what a library prepares is prepared for that."""
        _side().wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(_side()):
            loss = self._step(which, rows)
        torch.cuda.current_stream().wait_stream(_side())
        return loss

    def _recorded(self) -> tuple["torch.cuda.CUDAGraph", Tensor]:
        """A recording, which has not been made a step yet, and where its loss will lie."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=_side()):
                return graph, self._step(self._which, self._rows)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            what = str(error.__context__ or error).splitlines()[0]
            raise RunError(
                f"--train-on cuda: this device cannot record a training step ({what}); go on with"
                " --train-on cpu and --resume"
            ) from error


@functools.cache
def _side() -> Any:
    """One stream a process, as libraries keep their memory for each stream that they have seen."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def captured(step: Step, device: torch.device) -> Step:
    """`step` in the fastest way that a device has."""
    return CapturedStep(step) if device.type == "cuda" else step
