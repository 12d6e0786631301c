"""Samplers by name.

Every one proposes behind the same filter, so `random` is random search that never trains what
cannot fit: the baseline that others have to beat.
"""

from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from nas.errors import UsageError
from nas.search.exact_cost import ExactCostSampler
from nas.search.rules import Rules

SAMPLERS: dict[str, Callable[[Rules, int], BaseSampler]] = {
    "exact": ExactCostSampler,
    "tpe": lambda rules, seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=16),
    "nsga2": lambda rules, seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "nsga3": lambda rules, seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
    "gp": lambda rules, seed: optuna.samplers.GPSampler(seed=seed),
    "random": lambda rules, seed: optuna.samplers.RandomSampler(seed=seed),
}


def sampler_of(name: str, rules: Rules) -> Callable[[int], BaseSampler]:
    """What makes the sampler of that name from a seed.

    Raises:
        UsageError: no such sampler.
    """
    if name not in SAMPLERS:
        raise UsageError(f"--sampler {name!r}: not one of {', '.join(SAMPLERS)}")
    make = SAMPLERS[name]
    return lambda seed: make(rules, seed)
