"""The genes of a space: what each may be, and draws of them, without a trial."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from optuna.distributions import CategoricalDistribution, IntDistribution

from nas.space import Genes, Problem, Space

Choices: TypeAlias = Mapping[str, IntDistribution | CategoricalDistribution]


class _Noting:
    """A trial of first choices that notes what every gene may be."""

    def __init__(self) -> None:
        self.choices: dict[str, IntDistribution | CategoricalDistribution] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        self.choices[name] = IntDistribution(low, high)
        return low

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        self.choices[name] = CategoricalDistribution(choices)
        return choices[0]


def choices_of(space: Space, problem: Problem) -> Choices:
    """Every gene of a space, whose names and choices are those of any trial."""
    noting = _Noting()
    space.sample(noting, problem)
    return noting.choices


def draw_gene(rng: random.Random, choices: IntDistribution | CategoricalDistribution) -> int | str:
    """One gene, each value as likely as any other."""
    if isinstance(choices, CategoricalDistribution):
        return str(rng.choice(choices.choices))
    return rng.randint(choices.low, choices.high)


def draw_genes(rng: random.Random, choices: Choices) -> Genes:
    """All genes of a network."""
    return {name: draw_gene(rng, each) for name, each in choices.items()}
