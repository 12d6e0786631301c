"""A trial whose training is under way."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.hardware.budget import Priced
from nas.space import Architecture

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass
class Pending:
    """See the module.

    Attributes:
        hurdle: see `early_stopping`.
    """

    trial: "Trial"
    id: str
    architecture: Architecture
    priced: Priced
    hurdle: float | None = None


def has_ended(future: "Future[Any]") -> bool:
    """Whether a training has a result: it was not cancelled, and nothing was raised."""
    return future.done() and not future.cancelled() and future.exception() is None
