"""How a run joins a study on a server: what all must agree on, and the one teacher that all have.

Whoever comes first says what the study is about; who comes later with other data, another device,
another version of this project or other options is refused with the reason.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import RunError
from nas.manifest import SAME_ON_RESUME, shown_storage
from nas.search.requeue import requeue
from nas.search.shared import Shared
from nas.search.storage import identify, open_server, reason_of
from nas.search.study import create_study
from nas.training.teacher import Teacher

ABOUT, TEACHER = "about", "teacher"  # attributes of the study
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("*.py", "*.c", "*.h", "*.toml")
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Meeting:
    """A study on a server that this run takes part in."""

    shared: Shared
    study: optuna.Study

    def teacher(self, run: Path, make: Callable[[], Teacher], wait: Callable[[], None]) -> Teacher:
        """The study's teacher: made by the first run that asks, fetched by all others.

        Args:
            wait: is called every second while another run makes it.

        Raises:
            RunError: what another run has left cannot be fetched.
        """
        mine: list[tuple[Teacher, str]] = []  # what this run has made, and its name in the store

        def attempt() -> str:
            with self.shared.turn(TEACHER, wait):
                if TEACHER not in self.study.user_attrs:
                    if not mine:
                        made = make()
                        mine.append((made, self.shared.upload(made.file, self.study)))
                    made, name = mine[0]
                    if TEACHER not in self.study.user_attrs:  # the turn may have been lost since
                        document = json.dumps(made.to_json() | {"file": name})
                        self.study.set_user_attr(TEACHER, document)
            known: str = self.study.user_attrs[TEACHER]
            return known

        document = json.loads(self.shared.patiently(attempt))
        for made, name in mine:
            if name == document["file"]:
                return made
        file = run / "trained" / f"teacher-{document['file']}.npz"
        if not file.exists():
            self.shared.download(document["file"], file)
        return Teacher(**document | {"file": file})


def meet(
    storage: str,
    artifacts: str,
    manifest: Mapping[str, Any],
    objectives: int,
    say: Callable[[str], None],
    show: Callable[[str], None] = lambda _: None,
) -> Meeting:
    """Joins the study on a server, or begins it.

    Args:
        artifacts: a folder or s3://BUCKET.
        manifest: run.json of this run.
        objectives: how many there are.
        say, show: see `Shared`.

    Raises:
        RunError: the server cannot be reached, or its study is of another search.
    """
    place = shown_storage(storage)
    try:
        shared = Shared(open_server(storage, requeue), artifacts, say, show)
        meeting = Meeting(shared, create_study(shared.storage, objectives, True))
        theirs = _agree(meeting, ours := about(manifest))
    except (OptunaError, SQLAlchemyError) as error:
        raise RunError(
            f"{place}: the database cannot be used ({reason_of(error)}); start it, or make the"
            " database with createdb, and try again"
        ) from None
    for key, value in ours.items():
        if theirs.get(key) != value:
            shared.close()
            raise RunError(
                f"{place}: {key} is {_short(theirs.get(key))} in the study and {_short(value)} on"
                " this machine; start every machine with the same data, options and version, or"
                " name a new database"
            )
    return meeting


def _agree(meeting: Meeting, ours: dict[str, Any]) -> dict[str, Any]:
    """What the study is about; what this run says, if it is the first."""
    with meeting.shared.turn(ABOUT):
        known = meeting.study.user_attrs.get(ABOUT)
        if known is None:
            identify(meeting.study)
            meeting.study.set_user_attr(ABOUT, json.dumps(ours))
            return ours
    theirs: dict[str, Any] = json.loads(known)
    return theirs


def about(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What every run of a study has in common; of files their hashes.

    The storage is left out: each machine may reach it by a name of its own.
    """
    keys = [key for key in SAME_ON_RESUME if key != "storage"]
    held = {key: manifest[key] for key in keys} | {"modalities": manifest["data"]["modalities"]}
    plain = {k: v["hash"] if isinstance(v, dict) else v for k, v in held.items()}
    document: dict[str, Any] = json.loads(json.dumps(plain | {"version": sources_hash()}))
    return document


def sources_hash() -> str:
    """Of this project's own files: two versions may draw, train and price otherwise."""
    digest = hashlib.sha256()
    for folder in ("nas", "search_spaces"):
        files = {file for pattern in SOURCES for file in (ROOT / folder).rglob(pattern)}
        for file in sorted(files):
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
