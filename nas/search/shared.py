"""One run's side of a study on a server: whose turn it is, signs of life, files for the others.

Runs know nothing of each other but what the server tells. A turn is a lock of the server's, which
ends with the connection that holds it. A trial in work is leased: while its run lives, its
heartbeat is renewed; when that stops, any other run ends the trial and queues its parameters anew.
Whatever needs the server waits for it while it is away, and until a grace after nobody is taken for
dead. Files travel through an artifact store of Optuna's.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

import optuna
from optuna.artifacts import (
    Backoff,
    Boto3ArtifactStore,
    FileSystemArtifactStore,
    upload_artifact,
)
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import text
from sqlalchemy.exc import (
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    SQLAlchemyError,
)

from nas.errors import RunError, ToolMissing
from nas.interrupts import is_interrupted
from nas.progress import clock
from nas.run_folder import write_atomic
from nas.search.delivery import ARTIFACT, Delivery, begun, kept_deliveries
from nas.search.storage import reason_of, unwarned

MINUTES = 10  # for which a server may be away
PATIENCE_S = 60.0 * MINUTES
INTERRUPTED = "the database is away ({}) and waiting for it was interrupted"
RETRY_S = 2.0
SWEEP_S = 10.0  # between two looks for runs that have died
S3 = "s3://"

Store = Backoff | FileSystemArtifactStore
T = TypeVar("T")


class Shared:
    """See the module.

    Args:
        storage: with heartbeats and a grace, as `open_server` makes it.
        place: the artifact store, a folder or s3://BUCKET.
        say: tells a line to whoever watches.
        show: does so of what is so now.
    """

    def __init__(
        self,
        storage: RDBStorage,
        place: str,
        say: Callable[[str], None],
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        assert storage.heartbeat_interval is not None and storage.grace_period is not None
        self.storage = storage
        self._heartbeat_s, self._grace_s = storage.heartbeat_interval, storage.grace_period
        self._place, self._store = place, open_store(place)
        self._say, self._show = say, show
        self._studies: list[optuna.Study] = []
        self._leased: dict[int, None] = {}
        self._greeted: set[int] = set()
        self._well_since = self._swept = time.monotonic()
        self._gave_up = ""  # why a server is not waited for a second time, at a run's end
        self._closed = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Ends the signs of life and the connections."""
        self._closed.set()
        self.storage.engine.dispose()

    @contextmanager
    def turn(self, name: str, show: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the lock of that name for one run at a time.

        Args:
            show: is called every second while another run has it.

        Raises:
            SQLAlchemyError: the server was lost meanwhile, and the lock with it, so that another
                run may have had the same turn: what was done in it must be withdrawn.
        """
        key = {"key": _lock_key(name)}
        with self.storage.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            if show is None:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
            else:
                lock_if_free = text("SELECT pg_try_advisory_lock(:key)")
                while not connection.execute(lock_if_free, key).scalar():
                    show()
                    time.sleep(1.0)
            unlock = text("SELECT pg_advisory_unlock(:key)")
            try:
                yield
            except BaseException:
                with suppress(SQLAlchemyError):
                    connection.execute(unlock, key)
                raise
            connection.execute(unlock, key)

    def patiently(self, action: Callable[[], T]) -> T:
        """Does what needs the server, and again where the server was lost over it.

        Raises:
            RunError: it stays away for longer than `PATIENCE_S`, or Ctrl-C is held back.
            StorageInternalError, SQLAlchemyError: it refuses.
        """
        lost_s: float | None = None
        reason = ""
        while True:
            began_s = time.monotonic()
            try:
                if lost_s is not None:
                    time.sleep(RETRY_S)
                done = action()
            except KeyboardInterrupt:
                if lost_s is not None:
                    self._gave_up = INTERRUPTED.format(reason)
                raise
            except (StorageInternalError, SQLAlchemyError) as error:
                with suppress(SQLAlchemyError):
                    self.storage.remove_session()  # which may hang in a transaction that is gone
                if not _is_lost(error):
                    raise
                reason = reason_of(error)
            else:
                if lost_s is not None:
                    self._say("the database answers again")
                self._gave_up = ""
                self._took(began_s)
                return done
            self._well_since = time.monotonic()
            if lost_s is not None and self._well_since - lost_s > PATIENCE_S:
                self._gave_up = f"the database was away for {MINUTES} minutes ({reason})"
            elif is_interrupted():
                self._gave_up = INTERRUPTED.format(reason)
            if self._gave_up:
                raise RunError(f"{self._gave_up}; start it and go on with --resume")
            if lost_s is None:
                self._say(f"the database does not answer; waiting for it, up to {MINUTES} minutes")
                lost_s = self._well_since
            gone = clock(self._well_since - lost_s)
            self._show(f"waiting for the database, {gone} of up to {MINUTES}:00")

    def _took(self, began_s: float) -> None:
        """After a stall that ended well the others' signs of life are as old as it was long."""
        now = time.monotonic()
        if now - began_s > self._heartbeat_s:
            self._well_since = now

    def lease(self, trial: Trial) -> None:
        """Signs of life for a trial from now on."""
        self.storage.record_heartbeat(trial._trial_id)
        self._leased[trial._trial_id] = None

    def release(self, trial: Trial | FrozenTrial) -> None:
        """No more signs of life: the trial has ended, or others may have it after the grace."""
        self._leased.pop(trial._trial_id, None)

    def others(self, running: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Those that other runs have leased.

        A run that was killed between a trial's birth and its first sign of life leaves it without
        any, and what never had one never counts as dead: such a trial is given one here.
        """
        found = [trial for trial in running if trial._trial_id not in self._leased]
        unseen = {trial._trial_id for trial in found} - self._greeted
        if unseen:
            for trial_id in unseen - self._alive(unseen):
                self.storage.record_heartbeat(trial_id)
            self._greeted |= unseen
        return found

    def _alive(self, trials: Iterable[int]) -> set[int]:
        """Of some trials those that ever gave a sign of life."""
        statement = text("SELECT trial_id FROM trial_heartbeats WHERE trial_id = ANY(:trials)")
        with self.storage.engine.connect() as connection:
            rows = connection.execute(statement, {"trials": list(trials)})
            return {int(row[0]) for row in rows}

    def watch(self, study: optuna.Study) -> None:
        """Has this study swept, too."""
        self._studies.append(study)

    def sweep(self) -> None:
        """Ends the trials of runs that have died; not while all may only have lost the server."""
        now = time.monotonic()
        if now - self._well_since < self._grace_s or now - self._swept < SWEEP_S:
            return
        self._swept = now
        with unwarned(), self.storage.engine.begin() as connection:
            if connection.execute(_TRY_SWEEP).scalar():  # else another run sweeps for all
                for study in self._studies:
                    self._end_dead(study)

    def _end_dead(self, study: optuna.Study) -> None:
        """Queues first and ends then: who dies in between leaves the trial to the next that looks.

        Optuna's own `fail_stale_trials` ends them all before it says so of any.
        """
        requeue = self.storage.get_heartbeat_stale_trial_callback()
        assert requeue is not None
        for trial_id in self.storage._get_stale_trial_ids(study._study_id):
            if trial_id in self._leased:  # this machine slept; the next sign of life is under way
                continue
            trial = self.storage.get_trial(trial_id)
            if not trial.state.is_finished():
                requeue(study, trial)
                with suppress(UpdateFinishedTrialError):  # its run was only late
                    self.storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def deliver(self, trial: Trial, given: Delivery) -> bool:
        """Tells a trial of its training; whether it was still this run's to end.

        If not, another run makes the training, or has made it, and the model here goes.

        Raises:
            RunError: the disk or the artifact store refuses, or the server stays away.
        """
        given.keep()
        with unwarned():
            told = self.patiently(partial(self._tell, trial, given))
        if not told:
            given.model.unlink(missing_ok=True)
        given.forget()
        self.release(trial)
        return told

    def _tell(self, trial: Trial, given: Delivery) -> bool:
        with suppress(UpdateFinishedTrialError):
            for name, value in given.constraints.items():
                trial.set_constraint(name, value)
            for key, attribute in given.attributes.items():
                trial.set_user_attr(key, attribute)
            trial.set_user_attr(ARTIFACT, self.upload(given.model, trial))
            trial.study.tell(trial.number, given.values, skip_if_finished=True)
        # Other runs only fail it. A server that was lost over it may have been told all the same.
        return self.storage.get_trial(trial._trial_id).state == TrialState.COMPLETE

    def deliver_kept(self, study: optuna.Study, folder: Path) -> int:
        """Tells what earlier sessions of a run could not; how many were still its own."""
        trials = {(t.number, begun(t)): t for t in study.get_trials(deepcopy=False)}
        told = 0
        for given in kept_deliveries(folder, study.study_name):
            trial = trials.get((given.trial, given.begun))
            if trial is None:
                given.forget()
            else:
                told += self.deliver(Trial(study, trial._trial_id), given)
        return told

    def upload(self, file: Path, owner: Trial | optuna.Study) -> str:
        """Puts a file where the others find it by the name that is returned.

        Raises:
            RunError: the store refuses.
        """
        try:
            return upload_artifact(
                artifact_store=self._store, file_path=str(file), study_or_trial=owner
            )
        except (StorageInternalError, UpdateFinishedTrialError):
            raise  # of the study, which notes the file's name before the store has it
        except Exception as error:  # a folder's OSError or whatever a bucket raises
            raise self._refused(error) from None

    def download(self, name: str, file: Path) -> None:
        """Fetches what a run has uploaded.

        Raises:
            RunError: it is not there, or cannot be kept.
        """
        try:
            with self._store.open_reader(name) as reader:
                content = reader.read()
        except ArtifactNotFound:
            raise RunError(
                f"{self._place}: holds no {name}, which another run left for {file.name}; give"
                " every machine the same --artifacts"
            ) from None
        except Exception as error:
            raise self._refused(error) from None
        write_atomic(file, content)

    def _refused(self, error: Exception) -> RunError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return RunError(
            f"{self._place}: the artifact store refuses ({reason}); mend that (space, rights,"
            " credentials) and go on with --resume"
        )

    def _beat(self) -> None:
        while not self._closed.wait(self._heartbeat_s):
            for trial_id in list(self._leased):
                began_s = time.monotonic()
                try:
                    self.storage.record_heartbeat(trial_id)
                    self._took(began_s)
                except (StorageInternalError, SQLAlchemyError):
                    self._well_since = time.monotonic()
                    break


def _lock_key(name: str) -> int:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


# Free again with the end of its transaction.
_TRY_SWEEP = text(f"SELECT pg_try_advisory_xact_lock({_lock_key('sweep')})")


def open_store(place: str) -> Store:
    """The artifact store of `--artifacts`.

    Raises:
        RunError: the folder cannot be made, or the bucket not be reached.
        ToolMissing: a bucket is named and boto3 is not installed.
    """
    if place.startswith(S3):
        return _open_bucket(place)
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=place, prefix=".writable-"):
            pass  # a folder that may only be read would say so after the first training
    except OSError as error:
        raise RunError(
            f"--artifacts {place}: {error.strerror}; give a folder that every machine can write"
        ) from None
    return FileSystemArtifactStore(place)


def _open_bucket(place: str) -> Backoff:
    """What fails there is tried again for half a minute."""
    bucket = place.removeprefix(S3).strip("/")
    # Optuna would print a traceback at each attempt; the last failure is told, in one line.
    logging.getLogger(Backoff.__module__).setLevel(logging.CRITICAL)
    try:
        with unwarned():
            store = Boto3ArtifactStore(bucket)
        store.client.head_bucket(Bucket=bucket)
    except ImportError:
        raise ToolMissing(
            "boto3: not installed, and needed for --artifacts s3://…; pip install 'mcu-nas[s3]'"
        ) from None
    except Exception as error:  # of botocore, which is not installed everywhere
        raise RunError(
            f"--artifacts {place}: the bucket does not answer ({error}); make it, or mend its name,"
            " the credentials or AWS_ENDPOINT_URL"
        ) from None
    return Backoff(store)


def _is_lost(error: Exception) -> bool:
    """Whether the server was the reason, and not what was asked of it."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, OperationalError | InterfaceError | PendingRollbackError)
