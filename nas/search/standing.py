"""How a search stands: for the line in the terminal, and for `nas status` from another one.

A run keeps `progress.json` while it goes on: the line of now, when that was, and these figures.
"""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.errors import RunError
from nas.progress import PROGRESS_FILE, Progress, clock
from nas.run_folder import TrialRecord, is_locked, read_front, read_json
from nas.search.clock import Clock
from nas.search.rules import Rules, front_hypervolume, scored

UNITS = {"ram": "B of RAM", "flash": "B of Flash"}
STALE_S = 120.0  # a run that is alive says something within so many seconds
HYPERVOLUME_EVERY = 5  # trainings between two times that the line's hypervolume is made anew,
FEW = 100  # which takes no time worth sparing before so many


@dataclass(frozen=True, slots=True)
class Standing:
    """Figures of a search.

    Attributes:
        best: objective -> the least value among trained networks, and whose it is.
        stopped: trainings that were left halfway.
    """

    metric: str
    trained: int
    refused: int
    duplicates: int
    failed: int
    hypervolume: float
    best: Mapping[str, tuple[float, str]]
    stopped: int = 0

    def to_json(self, elapsed_s: float, left_s: float) -> dict[str, Any]:
        """What `describe_run` reads; `left_s` is infinite without a deadline."""
        left = None if left_s == float("inf") else left_s
        return {**asdict(self), "elapsed_s": elapsed_s, "left_s": left}

    def line(self, elapsed_s: float, left_s: float) -> str:
        """All of it in a line, what one looks for most first."""
        left = f"  {clock(left_s)} left" if left_s < float("inf") else ""
        return (
            f"search{left}  {self.trained} trained, {self._per_hour(elapsed_s):.0f} an hour"
            f"  {self.stopped} stopped  {self.refused} refused  {self.duplicates} duplicates"
            f"  hypervolume {self.hypervolume:.4f}  best {self._best() or '-'}"
            f"  {clock(elapsed_s)} gone"
        )

    def lines(self, elapsed_s: float, left_s: float | None) -> list[str]:
        """The same for people who ask."""
        left = "no end set" if left_s is None else f"{clock(left_s)} left then"
        return [
            f"trained      {self.trained}, {self._per_hour(elapsed_s):.0f} an hour",
            f"stopped      {self.stopped} halfway, without hope of the front",
            f"not trained  {self.refused} refused by their costs, {self.duplicates} duplicates,"
            f" {self.failed} failed",
            f"hypervolume  {self.hypervolume:.4f}",
            f"best         {self._best(ids=True) or 'none yet'}",
            f"searched     {clock(elapsed_s)}, {left}",
        ]

    def _per_hour(self, elapsed_s: float) -> float:
        return 3600 * self.trained / max(elapsed_s, 1.0)

    def _best(self, ids: bool = False) -> str:
        words = []
        for name, (value, identity) in self.best.items():
            if name == "error":
                word = f"{self.metric} {1 - value:.4f}"
            elif name == "latency":
                word = f"{value:.3g} ms"
            else:
                word = f"{value:,.0f} {UNITS[name]}"
            words.append(f"{word} ({identity})" if ids else word)
        return ", ".join(words)


def standing_of(rules: Rules, records: Sequence[TrialRecord], hypervolume: float) -> Standing:
    """Figures of the records so far."""
    count = Counter(record.status for record in records)
    best: dict[str, tuple[float, str]] = {}
    for record in records:
        if record.status == "trained":
            values = rules.values(record.cost, record.val_score)
            for name in rules.objectives:
                best[name] = min(best.get(name, (float("inf"), "")), (values[name], record.id))
    return Standing(
        rules.metric,
        count["trained"],
        count["infeasible"],
        count["duplicate"],
        count["failed"],
        hypervolume,
        best,
        count["stopped"],
    )


class Board:
    """What a search shows of itself, made anew when trials have ended.

    Attributes:
        shown: the figures of the last look.
    """

    def __init__(self, rules: Rules, clock: Clock, progress: Progress) -> None:
        self._rules, self._clock, self._progress = rules, clock, progress
        self.shown: Standing | None = None
        self._size = -1  # records that it counts
        self._hypervolume, self._measured = 0.0, -HYPERVOLUME_EVERY  # after so many trainings

    def show(self, records: Sequence[TrialRecord], exactly: bool = False) -> None:
        """Shows and keeps the figures; `exactly` at once, the hypervolume of the last included."""
        if exactly or len(records) != self._size:
            self._size = len(records)
            trained = [record for record in records if record.status == "trained"]
            due = self._measured + (1 if len(trained) <= FEW else HYPERVOLUME_EVERY)
            if exactly or len(trained) >= due:
                self._hypervolume = front_hypervolume(self._rules, scored(trained))
                self._measured = len(trained)
            self.shown = standing_of(self._rules, records, self._hypervolume)
        assert self.shown is not None
        times = self._clock.elapsed_s(), self._clock.left_s()
        self._progress.figures({"search": self.shown.to_json(*times)})
        self._progress.status(self.shown.line(*times), at_once=exactly)


def describe_run(run: Path, now: datetime.datetime) -> list[str]:
    """How a run stands, in lines.

    Raises:
        RunError: the folder is not that of a run.
    """
    alive = is_locked(run)
    if not (run / PROGRESS_FILE).exists():
        return [f"{run}: " + ("running, nothing to tell yet" if alive else "holds no progress")]
    document = read_json(run / PROGRESS_FILE)
    try:
        at = datetime.datetime.fromisoformat(document["at"])
        line, told = document["line"], _told(dict(document.get("search", {})), alive)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run / PROGRESS_FILE}: {error}; written by another version") from None
    age_s = max(0.0, (now - at).total_seconds())  # a clock may have been set back
    if alive:
        late = "; that is long: look at its terminal" if age_s > STALE_S else ""
        state = f"running, seen {clock(age_s)} ago{late}"
        return [f"{run}: {state}", f"now          {line}", *told]
    manifest = _manifest(run)
    if manifest.get("ended") is None:
        state = f"stopped {clock(age_s)} ago; --out {run} --resume goes on"
        return [f"{run}: {state}", *told]
    return [f"{run}: finished; nas pick {run}", *_front(run, manifest), *told]


def _front(run: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What a finished run has delivered."""
    with suppress(RunError, KeyError, TypeError):
        volume, members = manifest["hypervolume"], len(read_front(run))
        front = f"front        {members} networks, hypervolume {volume:.4f}"
        return [front, "the search, before its final trainings:"]
    return []


def _told(figures: dict[str, Any], alive: bool) -> list[str]:
    if not figures:
        return []
    times = figures.pop("elapsed_s", 0.0), figures.pop("left_s", None)
    try:
        return Standing(**figures).lines(*times)
    except TypeError:
        if alive:  # until it has its own they are an earlier session's, of another version
            return []
        raise


def _manifest(run: Path) -> dict[str, Any]:
    """run.json; empty before there is one."""
    try:
        return read_json(run / "run.json")
    except RunError:
        return {}
