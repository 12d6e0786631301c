"""The sampler that knows costs exactly: only accuracy has a model.

RAM, Flash and time of a network are known before it is trained, so a pool of networks that fit is
kept, priced, and the next trial is the one whose training is expected to enlarge the hypervolume
the most, given a Gaussian process of the error (`surrogate`, `improvement`). The pool grows with
every trial by random networks and by children of the front: crossovers and mutations. A share of
the trials is drawn at random, since a model that is wrong about a region would never look there.
Noise between seeds is part of the model: what counts as reached is the posterior mean at the
trained networks, not the luckiest score. What other workers are training counts as seen. Of more
than `MOST_MODELLED` networks the model keeps those near the front: evolution proposes, it decides.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from nas.hardware.budget import price
from nas.run_folder import CostSummary, summarise
from nas.search.features import Encoder, Floats, cost_features
from nas.search.genes import choices_of, draw_gene, draw_genes
from nas.search.improvement import cost_points, expected_improvement, least_errors
from nas.search.rules import OBJECTIVES, Rules
from nas.search.surrogate import ERROR_FLOOR, START, Points, Surrogate
from nas.search.trial_record import record_of
from nas.space import FixedTrial, Genes, RandomTrial, architecture_id

EXAMPLES = 400  # random architectures that show what values occur
RANDOM_FIRST = 10  # networks trained before the model is asked
RANDOM_EVERY = 8  # of the trials after that, one in so many is random
POOL = 400  # candidates that are kept priced
GROW = 10  # candidates that are drawn with every trial,
FIRST_GROW = 200  # and before the model is asked for the first time
CHILD_SHARE = 0.8  # of these that descend from the front
MOST_TRIED = 400  # draws after which a trial is left to chance: nothing new seems to fit
MOST_MODELLED = 400  # networks that the model sees; of more it keeps
NEAREST = 240  # those nearest to the front
REMOTE = 60  # and some of the others
MUTATIONS = 4.0  # genes drawn anew in a child, on average; many have no effect on the network
AXES = {name: place for place, name in enumerate(OBJECTIVES) if name != "error"}


@dataclass(frozen=True)
class Candidate:
    """A network whose costs are known.

    Attributes:
        point, cost_point: what a `Surrogate` sees of it.
        shares: of the limits that its costs take, one an objective beside the error.
        child: whether it descends from the front.
        error: 1 - validation score, or what was hoped for of one that was left halfway; None before
            its training has ended.
    """

    id: str
    genes: Genes
    point: Floats
    cost_point: Floats
    shares: Floats
    child: bool = False
    error: float | None = None


class ExactCostSampler(BaseSampler):
    """See the module.

    Args:
        rules: space, problem, device, budget and objectives.
        seed: of this session.
    """

    def __init__(self, rules: Rules, seed: int) -> None:
        self._rules = rules
        self._random, self._blind = random.Random(seed), RandomSampler(seed=seed)
        self._choices = choices_of(rules.space, rules.problem)
        self._axes = [AXES[name] for name in rules.objectives if name in AXES]
        self._boxes = cost_points(len(self._axes))
        self._pool: dict[str, Candidate] = {}
        self._ended: set[int] = set()  # numbers of trials that were read
        self._trained: dict[str, Candidate] = {}
        self._front: list[Candidate] = []  # of these, what none beats in costs and error
        self._seen: list[Candidate] = []  # of these, what the model sees
        self._place, self._fitted, self._asked = START, 0, 0

    @cached_property
    def _encoder(self) -> Encoder:
        space, problem = self._rules.space, self._rules.problem
        draws = (space.sample(RandomTrial(self._random), problem) for _ in range(EXAMPLES))
        return Encoder([architecture.to_json() for architecture in draws])

    def reseed_rng(self) -> None:
        """For Optuna's threads, which share a sampler."""
        self._random.seed()
        self._blind.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every gene: their names and choices are those of any trial."""
        return dict(self._choices)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Of a gene that `sample_relative` has left open: at random."""
        return self._blind.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The genes of the next network; none where a trial's genes are given, or none is left."""
        if "fixed_params" in trial.system_attrs:
            return {}
        running = self._look(study)
        self._asked += 1
        self._grow(running.keys())
        if not self._pool:
            return {}
        return dict(self._pool.pop(self._choose(list(running.values()))).genes)

    def _look(self, study: Study) -> dict[str, Candidate]:
        """Reads the trials that have ended since the last look; returns what is in training."""
        running: dict[str, Candidate] = {}
        states = (TrialState.COMPLETE, TrialState.RUNNING)
        for trial in study.get_trials(deepcopy=False, states=states):
            if trial.number in self._ended or trial.params.keys() != self._choices.keys():
                continue
            if trial.state == TrialState.RUNNING:
                candidate = self._candidate(trial.params)
                if candidate is not None:
                    running[candidate.id] = candidate
                continue
            self._ended.add(trial.number)
            candidate = self._read(trial)
            if candidate is not None and candidate.id not in self._trained:
                self._admit(candidate)
        return {name: c for name, c in running.items() if name not in self._trained}

    def _admit(self, candidate: Candidate) -> None:
        """A network that was trained."""
        self._pool.pop(candidate.id, None)
        self._trained[candidate.id] = candidate
        self._seen.append(candidate)
        if not any(_beats(other, candidate) for other in self._front):
            kept = [other for other in self._front if not _beats(candidate, other)]
            self._front = [*kept, candidate]
        if len(self._seen) > MOST_MODELLED:
            self._forget()

    def _forget(self) -> None:
        """Leaves the model what is nearest to the best at its own costs, and some of the rest."""
        errors = np.log(np.array([candidate.error for candidate in self._seen]) + ERROR_FLOOR)
        shares = np.array([candidate.shares for candidate in self._seen])
        affordable = (shares[None] <= shares[:, None]).all(2)
        gaps = errors - np.where(affordable, errors, np.inf).min(1)
        order = [self._seen[i] for i in np.argsort(gaps, kind="stable")]
        self._seen = order[:NEAREST] + self._random.sample(order[NEAREST:], REMOTE)
        self._fitted = min(self._fitted, len(self._seen) // 2)  # the next fit is anew

    def _read(self, trial: FrozenTrial) -> Candidate | None:
        """The network of a trial that trained one, if only halfway."""
        record = record_of(trial.user_attrs)
        if record is None or record.status not in ("trained", "stopped"):
            return None
        known = self._described(record.id, trial.params, record.architecture, record.cost)
        return replace(known, error=trial.values[self._rules.objectives.index("error")])

    def _candidate(self, genes: Genes, child: bool = False) -> Candidate | None:
        """The network of some genes; None where it does not fit."""
        architecture = self._rules.space.sample(FixedTrial(genes), self._rules.problem)
        priced = price(architecture.lower(), self._rules.profile)
        if self._rules.budget.refusal(priced.cost):
            return None
        cost = summarise(priced.graph, priced.cost)
        identity = architecture_id(architecture)
        known = self._described(identity, genes, architecture.to_json(), cost)
        return replace(known, child=child)

    def _described(
        self, identity: str, genes: Genes, document: Mapping[str, Any], cost: CostSummary
    ) -> Candidate:
        shares = np.array(self._rules.normalised(cost, 0.0))[self._axes]
        return Candidate(identity, genes, self._encoder(document), cost_features(cost), shares)

    def _grow(self, running: Collection[str]) -> None:
        """Adds a few candidates, children of the front and random ones; the oldest leave."""
        for identity in running:
            self._pool.pop(identity, None)
        first = self._fitted == 0 and len(self._trained) >= RANDOM_FIRST
        wanted = FIRST_GROW if first else GROW
        for tried in range(MOST_TRIED):
            if tried >= wanted and self._pool:
                break
            candidate = self._fresh(running, child=self._random.random() < CHILD_SHARE)
            if candidate is not None:
                self._pool.setdefault(candidate.id, candidate)
        while len(self._pool) > POOL:
            del self._pool[next(iter(self._pool))]

    def _fresh(self, running: Collection[str], child: bool) -> Candidate | None:
        """A network that was just drawn; None where it does not fit, or is known."""
        child = child and len(self._front) > 0
        genes = self._offspring() if child else draw_genes(self._random, self._choices)
        candidate = self._candidate(genes, child)
        if candidate is None or candidate.id in self._trained or candidate.id in running:
            return None
        return candidate

    def _offspring(self) -> Genes:
        """Genes of two of the front, or of one twice, some of them drawn anew."""
        pair = self._random.choice(self._front), self._random.choice(self._front)
        share = MUTATIONS / len(self._choices)
        return {
            name: draw_gene(self._random, choices)
            if self._random.random() < share
            else self._random.choice(pair).genes[name]
            for name, choices in self._choices.items()
        }

    def _choose(self, running: Sequence[Candidate]) -> str:
        """The id of the candidate to be trained next."""
        pool = list(self._pool.values())
        if len(self._trained) < RANDOM_FIRST or self._asked % RANDOM_EVERY == 0:
            pool = [candidate for candidate in pool if not candidate.child] or pool
            return self._random.choice(pool).id
        model = self._model()
        if running:
            model.believe(_points(running))
        return self._most_promising(model, pool, running)

    def _most_promising(
        self, model: Surrogate, pool: Sequence[Candidate], running: Sequence[Candidate]
    ) -> str:
        """The id of the candidate that is expected to enlarge the hypervolume the most.

        Args:
            model: of the error, with what is `running` believed.
        """
        known = list({c.id: c for c in (*self._seen, *self._front, *running)}.values())
        errors = np.maximum(np.exp(model.predict(_points(known))[0]) - ERROR_FLOOR, 0.0)
        best = least_errors(self._boxes, np.array([c.shares for c in known]), errors)
        gains = expected_improvement(
            self._boxes, best, np.array([c.shares for c in pool]), *model.predict(_points(pool))
        )
        return pool[int(gains.argmax())].id

    def _model(self) -> Surrogate:
        """Of the error; its hyperparameters are looked for anew when a tenth more is known."""
        anew = len(self._seen) >= 1.1 * self._fitted
        errors = np.array([candidate.error for candidate in self._seen])
        model = Surrogate(_points(self._seen), errors, self._place, anew)
        if anew:
            self._place, self._fitted = model.place, len(self._seen)
        return model


def _points(candidates: Sequence[Candidate]) -> Points:
    return Points(
        np.array([c.point for c in candidates]), np.array([c.cost_point for c in candidates])
    )


def _beats(one: Candidate, other: Candidate) -> bool:
    """Whether `one` is nowhere worse in costs and error."""
    assert one.error is not None and other.error is not None
    return one.error <= other.error and bool((one.shares <= other.shares).all())
