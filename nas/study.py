"""The Optuna study behind a search: samplers by name, constraints, and what each trial left.

Traps of Optuna 5 that this file is written around: a trial whose constraint was never set counts as
feasible, so constraints are set before anything is told; a second value for the same constraint is
ignored; pruners refuse several objectives; resuming with the seed of the first session replays its
candidates, so a session's seed also depends on the number of trials it finds; a killed process
leaves its trial running for ever, so trials found running are failed on opening.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from nas.errors import RunError, UsageError
from nas.run_folder import TrialRecord
from nas.space import Genes

STUDY_NAME = "nas"
RECORD = "record"  # the one user attribute of a trial: its TrialRecord as JSON

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=16),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "nsga3": lambda seed: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}
"""Samplers by name. Every one proposes behind the same filter, so `random` is random search that
never trains what cannot fit: the baseline that others have to beat."""


class Study:
    """A study on disk, written by one process."""

    def __init__(self, study: optuna.Study, objectives: tuple[str, ...]) -> None:
        self._study, self._objectives = study, objectives
        self._sampler: BaseSampler = study.sampler
        self._random = optuna.samplers.RandomSampler(seed=len(study.get_trials(deepcopy=False)))
        self.records: list[TrialRecord] = []

    def ask(self, explore: bool = False) -> Trial:
        """The next trial; its genes are drawn by the search space, at random with `explore`."""
        self._study.sampler = self._random if explore else self._sampler
        return self._study.ask()

    def begin_with(self, starts: Sequence[Genes]) -> None:
        """Queues trials of given genes; they are asked for before the sampler draws any."""
        for genes in starts:
            self._study.enqueue_trial(dict(genes))

    def tell(
        self,
        trial: Trial,
        record: TrialRecord,
        values: Mapping[str, float],
        constraints: Mapping[str, float],
    ) -> None:
        """Stores a finished trial: constraints first (0 or less is feasible), then its values.

        An infeasible trial is complete too, with its real costs and an error of 1: samplers learn
        from the constraint, and a failed or infinite one would starve or upset some of them.

        Args:
            values: objective -> value, all finite.
        """
        for name, value in constraints.items():
            trial.set_constraint(name, value)
        trial.set_user_attr(RECORD, json.dumps(record.to_json()))
        if record.status == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, [values[name] for name in self._objectives])
        self.records.append(record)

    def forget(self, trial: Trial) -> None:
        """Ends a trial that was asked for and not evaluated."""
        self._study.tell(trial, state=TrialState.FAIL)


def default_storage(run: Path) -> str:
    """SQLite in the run folder."""
    return f"sqlite:///{run.absolute() / 'study.db'}"


def open_study(
    storage: str, objectives: tuple[str, ...], sampler: str, seed: int, resume: bool
) -> Study:
    """Creates the study, or opens it with the records of its finished trials.

    Raises:
        RunError: the study cannot be read, exists without `resume`, or has other objectives.
        UsageError: no such sampler.
    """
    if sampler not in SAMPLERS:
        raise UsageError(f"--sampler {sampler!r}: not one of {', '.join(SAMPLERS)}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            directions=["minimize"] * len(objectives),
            load_if_exists=resume,
        )
        trials = study.get_trials(deepcopy=False)
    except optuna.exceptions.DuplicatedStudyError:
        raise RunError(f"{storage}: holds a study already; add --resume to go on with it") from None
    except Exception as error:
        raise RunError(
            f"{storage}: the study cannot be opened ({str(error).splitlines()[0]}); restore it or"
            " start a new run with another --out"
        ) from None
    names = study.metric_names
    if names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
    elif tuple(names) != objectives:
        raise RunError(
            f"{storage}: its objectives are {', '.join(names)}; resume with the same --objectives"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = SAMPLERS[sampler](session_seed(seed, len(trials)))
    opened = Study(study, objectives)
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
        elif RECORD in trial.user_attrs:
            opened.records.append(TrialRecord.from_json(json.loads(trial.user_attrs[RECORD])))
    return opened


def session_seed(seed: int, trials: int) -> int:
    """A seed that differs between the sessions of one run."""
    digest = hashlib.sha256(f"{seed} {trials}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
