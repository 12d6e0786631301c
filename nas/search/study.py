"""The Optuna study behind a search: samplers by name, constraints, and what each trial left.

Traps of Optuna 5 that this file is written around: a trial whose constraint was never set counts as
feasible, so constraints are set before anything is told; a second value for the same constraint is
ignored; pruners refuse several objectives; resuming with the seed of the first session replays its
candidates, so a session's seed also depends on the number of trials it finds; a killed process
leaves its trial running for ever, and Optuna's own retry keeps the old constraints, so `recover`
ends such trials and queues their parameters anew.

A trial is stored in this order: constraints and record, the model's file, its values. A training
counts as finished from the moment its model's file is there: what a kill left between the file and
the values is told on opening, what it left before the file is trained again.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import RunError
from nas.manifest import shown_storage
from nas.run_folder import TrialRecord
from nas.search.trial_record import RECORD, record_of
from nas.space import Genes

STUDY_NAME = "nas"
SQLITE_FILE = "sqlite:///"


class Study:
    """A study on disk, written by one process."""

    def __init__(
        self,
        study: optuna.Study,
        objectives: tuple[str, ...],
        place: str = "study",
        engine: Engine | None = None,
    ) -> None:
        self._study, self._objectives, self.place = study, objectives, place
        self._engine = engine  # of a file
        self._sampler: BaseSampler = study.sampler
        self._random = optuna.samplers.RandomSampler(seed=len(study.get_trials(deepcopy=False)))
        self.records: list[TrialRecord] = []

    def ask(self, explore: bool = False) -> Trial:
        """The next trial; its genes are drawn by the search space, at random with `explore`."""
        self._study.sampler = self._random if explore else self._sampler
        return self._study.ask()

    def begin_with(self, starts: Sequence[Genes]) -> None:
        """Queues trials of given genes, in a new study only; they are asked for first."""
        if not self._study.get_trials(deepcopy=False):
            for genes in starts:
                self._study.enqueue_trial(dict(genes))

    def note(self, trial: Trial, record: TrialRecord, constraints: Mapping[str, float]) -> None:
        """Stores what was found out of a trial, before its model is written and it is told.

        Args:
            constraints: name -> value, feasible at 0 or less.
        """
        for name, value in constraints.items():
            trial.set_constraint(name, value)
        trial.set_user_attr(RECORD, json.dumps(record.to_json()))

    def tell(self, trial: "Trial | int", record: TrialRecord, values: Mapping[str, float]) -> None:
        """Ends a trial that was noted.

        An infeasible trial is complete too, with its real costs and an error of 1: samplers learn
        from the constraint, and a failed or infinite one would starve or upset some of them.

        Args:
            values: objective -> value, all finite.
        """
        if record.status == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, [values[name] for name in self._objectives])
        self.records.append(record)

    def forget(self, trial: Trial) -> None:
        """Ends a trial that was asked for and not evaluated."""
        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def put_back(self, trial: "Trial | FrozenTrial") -> None:
        """Ends a trial that was not evaluated; a new one with its parameters is asked next."""
        if trial.params:
            self._study.enqueue_trial(trial.params)
        self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def recover(
        self,
        holds: Callable[[TrialRecord], bool],
        values: Callable[[TrialRecord], Mapping[str, float]],
    ) -> tuple[int, int]:
        """Ends the trials that a killed session left running.

        Args:
            holds: whether all is on disk that a noted trial's record promises.
            values: objective -> value of a record.

        Returns:
            How many were told because they had finished, and how many are queued again.
        """
        told = queued = 0
        running = (TrialState.RUNNING,)
        for trial in self._study.get_trials(deepcopy=False, states=running):
            record = record_of(trial.user_attrs)
            if record is not None and holds(record):
                self.tell(trial.number, record, values(record))
                told += 1
            else:
                self.put_back(trial)
                queued += bool(trial.params)
        return told, queued

    def close(self) -> None:
        """Brings all into the one file that a person may copy; records stay, trials do not."""
        if self._engine is not None:
            # What a full disk keeps from the file stays in the log beside it.
            with suppress(SQLAlchemyError), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
            self._engine.dispose()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns what the storage refuses into one line.

        Raises:
            RunError: a full disk, a lost connection, or another session that told our trials.
        """
        try:
            yield
        except StorageInternalError as error:
            raise RunError(
                f"{self.place}: the study cannot be written ({_reason(error)}); mend that (free"
                " space, close other programs that use it) and go on with --resume"
            ) from None
        except UpdateFinishedTrialError as error:
            raise RunError(
                f"{self.place}: another session ended a trial of this one ({_reason(error)}); a"
                " study is for one session at a time"
            ) from None


def _record(trial: FrozenTrial) -> TrialRecord | None:
    text = trial.user_attrs.get(RECORD)
    return None if text is None else TrialRecord.from_json(json.loads(text))


def _reason(error: Exception) -> str:
    """The database's own words, which Optuna wraps in general ones."""
    return str(error.__cause__ or error).splitlines()[0].removeprefix("(sqlite3.OperationalError) ")


def default_storage(run: Path) -> str:
    """SQLite in the run folder."""
    return f"{SQLITE_FILE}{run.absolute() / 'study.db'}"


def _log_ahead(connection: Any, _: Any) -> None:
    """Lets SQLite wait for the disk at checkpoints only.

    A trial of fifty genes is as many commits, and the wait at each of them is a second a trial. A
    killed process loses nothing by that, a power cut the last moments; neither breaks the file.
    """
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def open_study(
    storage: str,
    objectives: tuple[str, ...],
    sampler: Callable[[int], BaseSampler],
    seed: int,
    resume: bool,
) -> Study:
    """Creates the study, or opens it with the records of its finished trials.

    `recover` ends what a killed session left.

    Args:
        sampler: makes one from the seed of this session.

    Raises:
        RunError: the study cannot be read, exists without `resume`, or has other objectives.
    """
    place = shown_storage(storage).removeprefix(SQLITE_FILE)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        held = optuna.storages.RDBStorage(storage)
        engine = held.engine if storage.startswith(SQLITE_FILE) else None
        if engine is not None:
            event.listen(engine, "connect", _log_ahead)
            engine.dispose()  # of the connections that were made before
        study = optuna.create_study(
            storage=held,
            study_name=STUDY_NAME,
            directions=["minimize"] * len(objectives),
            load_if_exists=resume,
        )
        trials = study.get_trials(deepcopy=False)
    except optuna.exceptions.DuplicatedStudyError:
        raise RunError(f"{place}: holds a study already; add --resume to go on with it") from None
    except Exception as error:
        raise RunError(
            f"{place}: the study cannot be opened ({_reason(error)}); restore it or"
            " start a new run with another --out"
        ) from None
    names = study.metric_names
    if names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
    elif tuple(names) != objectives:
        raise RunError(
            f"{place}: its objectives are {', '.join(names)}; resume with the same --objectives"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = sampler(session_seed(seed, len(trials)))
    opened = Study(study, objectives, place, engine)
    for trial in trials:
        record = record_of(trial.user_attrs)
        # A trial that was put back may hold the record of a training whose model was never written.
        failed = trial.state == TrialState.FAIL and record is not None and record.status == "failed"
        if record is not None and (trial.state == TrialState.COMPLETE or failed):
            opened.records.append(record)
    return opened


def session_seed(seed: int, trials: int) -> int:
    """A seed that differs between the sessions of one run."""
    digest = hashlib.sha256(f"{seed} {trials}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
