"""The database behind a study: a file of one run, or a PostgreSQL server that several share."""

import gc
import time
import uuid
import warnings
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import optuna
from optuna import distributions
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Row, event, make_url, select
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError

from nas.errors import ToolMissing, UsageError

SQLITE_FILE = "sqlite:///"
SERVER = "postgresql://"
IDENTITY = "identity"  # study attribute
HEARTBEAT_S = 15  # between two signs of life of a trial on a server,
GRACE_S = 60  # and without one for so long it is taken for dead

# A machine that lost its power must not hold a lock for the two hours of TCP's default, nor a
# server that did so let a run wait as long. The options are the server's side, the rest is ours.
CONNECTION = {
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds, and well below the grace
}

Requeue = Callable[[optuna.Study, FrozenTrial], None]


_PARTS: dict[str, Any] = {  # of a trial, as Optuna calls them
    "params": models.TrialParamModel,
    "values": models.TrialValueModel,
    "user_attributes": models.TrialUserAttributeModel,
    "system_attributes": models.TrialSystemAttributeModel,
    "intermediate_values": models.TrialIntermediateValueModel,
}


class _StoredTrial:
    """Stands for Optuna's mapped object of a trial where a `FrozenTrial` is built from it."""

    datetime_start = models.TrialModel.datetime_start
    datetime_complete = models.TrialModel.datetime_complete

    def __init__(self, row: Row[Any]) -> None:
        self.trial_id, self.number, self.state = row.trial_id, row.number, row.state
        self._datetime_start_utc = row.datetime_start
        self._datetime_complete_utc = row.datetime_complete
        for name in _PARTS:
            setattr(self, name, [])


class Storage(RDBStorage):
    """Reads a whole study as plain rows, in two fifths of the time of Optuna's mapped objects."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        if states is not None or trial_id_greater_than > -1:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        own = models.TrialModel.__table__
        of_study = own.c.study_id == study_id
        with self.engine.connect() as connection:
            # Before what belongs to them: of a trial that has ended by then all is there.
            rows = connection.execute(select(own).where(of_study).order_by(own.c.trial_id))
            trials: dict[int, Any] = {row.trial_id: _StoredTrial(row) for row in rows}
            for name, model in _PARTS.items():
                part = model.__table__
                joined = select(part).join(own, own.c.trial_id == part.c.trial_id)
                for row in connection.execute(joined.where(of_study)):
                    if row.trial_id in trials:  # it may have begun since
                        getattr(trials[row.trial_id], name).append(row)
        return [self._build_frozen_trial_from_trial_model(trial) for trial in trials.values()]


def open_file(url: str) -> RDBStorage:
    """A storage for one writer."""
    held = Storage(url)
    if url.startswith(SQLITE_FILE):
        event.listen(held.engine, "connect", _log_ahead)
        held.engine.dispose()  # of the connections that were made before
    return held


def check_url(url: str) -> None:
    """UsageError where a server's URL names another driver, or cannot be read."""
    if not url.startswith((SERVER, "postgresql+psycopg:")):
        raise UsageError(f"--storage {url.partition('//')[0]}//…: write {SERVER}…, of any driver")
    try:
        make_url(url)
    except (ArgumentError, ValueError) as error:  # whose text may hold a password
        what = "the port is no number" if isinstance(error, ValueError) else "this is no URL"
        raise UsageError(
            f"--storage {SERVER}…: {what}; give {SERVER}USER@HOST:PORT/DATABASE"
        ) from None


def open_server(url: str, requeue: Requeue) -> RDBStorage:
    """A storage for many writers, with heartbeats by the server's own clock.

    Args:
        requeue: is told of every trial that was taken for dead.

    Raises:
        ToolMissing: the driver is not installed.
        UsageError: see `check_url`.
    """
    check_url(url)
    url = url.replace(SERVER, "postgresql+psycopg://", 1)
    for _ in range(2):
        with suppress(IntegrityError, ProgrammingError):  # another run makes the same tables now
            return _connected(url, requeue)
        time.sleep(1.0)
    return _connected(url, requeue)


def _connected(url: str, requeue: Requeue) -> RDBStorage:
    try:
        with unwarned():  # heartbeats
            return Storage(
                url,
                # A connection that a restarted server has closed is noticed before it is used.
                engine_kwargs={"pool_pre_ping": True, "connect_args": CONNECTION},
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=requeue,
            )
    except ImportError:
        raise ToolMissing(
            "psycopg: not installed, and needed for --storage postgresql://…; pip install"
            " 'mcu-nas[postgresql]'"
        ) from None


def identify(study: optuna.Study, make: bool = True) -> str:
    """What tells a study from any other in its place; made once, on a server within a turn."""
    if make and IDENTITY not in study.user_attrs:
        study.set_user_attr(IDENTITY, uuid.uuid4().hex)
    return str(study.user_attrs.get(IDENTITY, ""))


@contextmanager
def reading_much() -> Iterator[None]:
    """Makes Optuna read thousands of trials in a third of the time.

    Every gene of every trial is stored with the JSON of its choices; equal ones become one object
    here. Python's garbage collector would look through all that was read so far, again and again.
    """
    read = distributions.json_to_distribution
    distributions.json_to_distribution = cache(read)
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
        distributions.json_to_distribution = read


def reason_of(error: Exception) -> str:
    """The database's own words, which Optuna wraps in general ones."""
    said = str(error.__cause__ or error).splitlines()[0]
    for driver in ("sqlite3", "psycopg"):
        said = said.removeprefix(f"({driver}.OperationalError) ")
    return said


@contextmanager
def unwarned() -> Iterator[None]:
    """Without Optuna's warnings of what it may yet change, and of what is done here on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # they are ours
        warnings.filterwarnings("ignore", "The constraint value is ignored")  # noted twice
        yield


def _log_ahead(connection: Any, _: Any) -> None:
    """Lets SQLite wait for the disk at checkpoints only.

    A trial of fifty genes is as many commits, and the wait at each of them is a second a trial. A
    killed process loses nothing by that, a power cut the last moments; neither breaks the file.
    """
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
