"""A trial that was not evaluated: its genes, queued anew."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial


def given_genes(trial: "Trial | FrozenTrial") -> dict[str, Any]:
    """The genes with which a trial was queued; none where a sampler draws them."""
    if isinstance(trial, Trial):
        return dict(trial._fixed_params)
    return dict(trial.system_attrs.get("fixed_params", {}))


def genes_of(trial: "Trial | FrozenTrial") -> dict[str, Any]:
    """Also those of a queued trial that was stopped before all of them were asked for."""
    return given_genes(trial) | trial.params


def requeue(study: optuna.Study, trial: "Trial | FrozenTrial") -> None:
    """Queues a trial's parameters anew; its constraints are set when they are asked for."""
    if genes := genes_of(trial):
        study.enqueue_trial(genes)
