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

On a server many runs write one study. What `Shared` then adds is asked for at each place where it
matters; without it every such method does nothing. A model's file comes first there, see
`delivery`.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import RunError
from nas.manifest import shown_storage
from nas.run_folder import TrialRecord
from nas.search.delivery import ARTIFACT, Delivery, begun
from nas.search.requeue import genes_of, given_genes, requeue
from nas.search.shared import Shared
from nas.search.storage import SQLITE_FILE, identify, open_file, reading_much, reason_of, unwarned
from nas.search.trial_record import RECORD, record_of
from nas.space import Genes

STUDY_NAME = "nas"
CLAIM = "claim"  # trial attribute: the architecture that a run trains under this trial

T = TypeVar("T")


class Study:
    """A study on disk that one process writes, or on a server for many.

    Args:
        seed: of what is drawn at random beside the sampler.

    Attributes:
        records: of the trials that have ended, in the order in which this run learnt of them.
        elsewhere: ids of the architectures that other runs are training.
        identity: of the study, and of no other one.
    """

    def __init__(
        self,
        study: optuna.Study,
        objectives: tuple[str, ...],
        place: str = "study",
        engine: Engine | None = None,
        shared: Shared | None = None,
        seed: int = 0,
    ) -> None:
        self._study, self._objectives, self.place = study, objectives, place
        self.identity = identify(study, make=shared is None)  # else `meet` has made it
        self._engine, self.shared = engine, shared  # the engine is that of a file
        self._sampler: BaseSampler = study.sampler
        trials = study.get_trials(deepcopy=False)
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self.records: list[TrialRecord] = []
        self.elsewhere: set[str] = set()
        self._read: set[int] = set()  # numbers of ended trials
        self._artifacts: dict[str, str] = {}
        self._abandoned: list[Trial] = []
        if shared is not None:
            shared.watch(study)
        self._learn(trials)

    def ask(self, explore: bool = False) -> Trial:
        """The next trial; its genes are drawn by the search space, at random with `explore`."""
        self._study.sampler = self._random if explore else self._sampler
        with unwarned():
            trial = self._study.ask()
        if self.shared is not None:
            try:
                self.shared.lease(trial)
            except BaseException:
                self.abandon(trial)
                raise
        return trial

    def begin_with(self, starts: Sequence[Genes]) -> None:
        """Queues trials of given genes, once in a study; they are asked for first."""

        def queue() -> None:
            with self.turn():
                queued = [given_genes(t) for t in self._study.get_trials(deepcopy=False)]
                for genes in starts:
                    if dict(genes) not in queued:
                        self._study.enqueue_trial(dict(genes))

        self.patiently(queue)

    def turn(self) -> AbstractContextManager[None]:
        """Within it no other run asks: of one architecture only one of them makes a claim."""
        return nullcontext() if self.shared is None else self.shared.turn("ask")

    def patiently(self, action: Callable[[], T]) -> T:
        """Does what needs the storage; waits for a server that is away and does it again."""
        return action() if self.shared is None else self.shared.patiently(action)

    def refresh(self) -> list[TrialRecord]:
        """What other runs have ended since; also ends what dead ones have left."""
        if self.shared is None:
            return []
        self.collect_abandoned()
        self.shared.sweep()
        return self._learn(self._study.get_trials(deepcopy=False))

    def _learn(self, trials: Sequence[FrozenTrial]) -> list[TrialRecord]:
        """Takes over the trials that have ended; all of them, or none where the server is lost."""
        ended = [t for t in trials if t.state.is_finished() and t.number not in self._read]
        running = [t for t in trials if t.state == TrialState.RUNNING]
        others = [] if self.shared is None else self.shared.others(running)
        self.elsewhere = {t.user_attrs[CLAIM] for t in others if CLAIM in t.user_attrs}
        fresh = []
        for trial in ended:
            self._read.add(trial.number)
            record = _ended(trial)
            if record is not None:
                fresh.append(record)
                if ARTIFACT in trial.user_attrs:
                    self._artifacts[record.id] = trial.user_attrs[ARTIFACT]
        self.records += fresh
        return fresh

    def claim(self, trial: Trial, identity: str) -> None:
        """Says within a turn what this run is about to train."""
        if self.shared is not None:
            trial.set_user_attr(CLAIM, identity)

    def abandon(self, trial: Trial) -> None:
        """Leaves a trial for now: the server is gone, or its drawing was interrupted."""
        if self.shared is not None:
            self.shared.release(trial)
            self._abandoned.append(trial)

    def collect_abandoned(self) -> None:
        """Puts back what was left, now that the server answers."""
        while self._abandoned:
            self.put_back(self._abandoned[-1])
            self._abandoned.pop()

    def fetch(self, identity: str, file: Path) -> None:
        """Gets the model of another run's training; nothing if it is here."""
        if self.shared is not None and not file.exists():
            self.shared.download(self._artifacts[identity], file)

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
        # Told twice is told once: the server may have been lost between doing it and saying so.
        again = self.shared is not None
        if record.status == "failed":
            self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=again)
        else:
            told = [values[name] for name in self._objectives]
            self._study.tell(trial, told, skip_if_finished=again)
        self._done(trial)
        self.records.append(record)

    def finish(
        self,
        trial: Trial,
        record: TrialRecord,
        constraints: Mapping[str, float],
        values: Mapping[str, float],
        write: Callable[[], Path] | None = None,
    ) -> bool:
        """`note`, the model, `tell`; whether the trial was still this run's to end.

        Args:
            write: puts the trained model into the run folder.
        """

        if self.shared is not None and write is not None:
            noted = {RECORD: json.dumps(record.to_json())}
            told = [values[name] for name in self._objectives]
            which = STUDY_NAME, trial.number, begun(trial)
            given = Delivery(write(), *which, noted, told, constraints)
            if not self.shared.deliver(trial, given):
                return False
            self._done(trial)
            self.records.append(record)
            return True

        def store() -> None:
            self.note(trial, record, constraints)
            if write is not None:
                write()
            self.tell(trial, record, values)

        try:
            with unwarned():
                self.patiently(store)
        except UpdateFinishedTrialError:  # another run took it for dead and has queued it anew
            if self.shared is None:
                raise
            self.shared.release(trial)
            return False
        return True

    def forget(self, trial: Trial) -> None:
        """Ends a trial that was asked for and not evaluated."""
        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        self._done(trial)

    def put_back(self, trial: "Trial | FrozenTrial") -> None:
        """Ends a trial that was not evaluated; a new one with its parameters is asked next."""
        requeue(self._study, trial)
        self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        self._done(trial)

    def _done(self, trial: "Trial | FrozenTrial | int") -> None:
        number = trial if isinstance(trial, int) else trial.number
        self._read.add(number)
        if self.shared is not None and not isinstance(trial, int):
            self.shared.release(trial)

    def recover(
        self,
        holds: Callable[[TrialRecord], bool],
        values: Callable[[TrialRecord], Mapping[str, float]],
        models: Path,
    ) -> tuple[int, int]:
        """Ends the trials that a killed session left running.

        Args:
            holds: whether all is on disk that a noted trial's record promises.
            values: objective -> value of a record.
            models: folder of the models that were trained.

        Returns:
            How many were told because they had finished, and how many are queued again.
        """
        told = queued = 0
        if self.shared is not None:  # whose are the others? `refresh` ends those of the dead
            self._study.sampler = self._random
            told = self.patiently(partial(self.shared.deliver_kept, self._study, models))
            self.patiently(lambda: self._learn(self._study.get_trials(deepcopy=False)))
            return told, queued
        running = (TrialState.RUNNING,)
        for trial in self._study.get_trials(deepcopy=False, states=running):
            record = record_of(trial.user_attrs)
            if record is not None and holds(record):
                self.tell(trial.number, record, values(record))
                told += 1
            else:
                self.put_back(trial)
                queued += bool(genes_of(trial))
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
        except (StorageInternalError, SQLAlchemyError) as error:
            raise RunError(
                f"{self.place}: the study cannot be written ({reason_of(error)}); mend that (free"
                " space, close other programs that use it) and go on with --resume"
            ) from None
        except UpdateFinishedTrialError as error:
            raise RunError(
                f"{self.place}: another session ended a trial of this one ({reason_of(error)}); a"
                " study is for one session at a time"
            ) from None


def _ended(trial: FrozenTrial) -> TrialRecord | None:
    """The record of an ended trial that counts.

    One that was put back may hold that of a training whose model was never written.
    """
    record = record_of(trial.user_attrs)
    failed = trial.state == TrialState.FAIL and record is not None and record.status == "failed"
    return record if trial.state == TrialState.COMPLETE or failed else None


def default_storage(run: Path) -> str:
    """SQLite in the run folder."""
    return f"{SQLITE_FILE}{run.absolute() / 'study.db'}"


def open_study(
    storage: str,
    objectives: tuple[str, ...],
    sampler: Callable[[int], BaseSampler],
    seed: int,
    resume: bool,
    shared: Shared | None = None,
) -> Study:
    """Creates the study, or opens it with the records of its finished trials.

    `recover` ends what a killed session left.

    Args:
        sampler: makes one from the seed of this session.
        shared: the server that `storage` names; any run may join its study.

    Raises:
        RunError: the study cannot be read, exists without `resume`, or has other objectives.
    """
    place = shown_storage(storage).removeprefix(SQLITE_FILE)
    try:
        held = open_file(storage) if shared is None else shared.storage
        study = create_study(held, len(objectives), resume or shared is not None)
        with reading_much():
            trials = study.get_trials(deepcopy=False)
    except optuna.exceptions.DuplicatedStudyError:
        raise RunError(f"{place}: holds a study already; add --resume to go on with it") from None
    except Exception as error:
        mend = "restore it or start a new run with another --out"
        if shared is not None:
            mend = "start the database and try again"
        what = f"{place}: the study cannot be opened ({reason_of(error)})"
        raise RunError(f"{what}; {mend}") from None
    names = study.metric_names
    with unwarned():
        if names is None:
            study.set_metric_names(list(objectives))
        elif tuple(names) != objectives:
            raise RunError(
                f"{place}: its objectives are {', '.join(names)}; resume with the same --objectives"
            )
        # Runs that begin together must not draw the same networks.
        drawn = session_seed(seed, len(trials)) if shared is None else uuid.uuid4().int % 2**32
        study.sampler = sampler(drawn)
    engine = held.engine if storage.startswith(SQLITE_FILE) else None
    return Study(study, objectives, place, engine, shared, drawn)


def create_study(storage: RDBStorage, objectives: int, load: bool) -> optuna.Study:
    """Optuna's study in a storage; with `load` also one that is there.

    Raises:
        DuplicatedStudyError: there is one, without `load`.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        storage=storage,
        study_name=STUDY_NAME,
        directions=["minimize"] * objectives,
        load_if_exists=load,
    )


def session_seed(seed: int, trials: int) -> int:
    """A seed that differs between the sessions of one run."""
    digest = hashlib.sha256(f"{seed} {trials}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
