"""The time of a run: how long it has taken, and what of the rest belongs to its end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from nas.run_folder import TrialRecord
from nas.search.rules import MOST_EXPORTED, Rules, nondominated, scored
from nas.search.walk import winners
from nas.training.recipe import FINAL_FACTOR, FINAL_SEEDS
from nas.training.validation import FOLDS

MOST_FINALS = 0.5  # share of a run's time that final trainings may take,
WELCOME_FINALS = 0.33  # and up to which further seeds are planned for
EXPORT_S = 15.0  # start of the verifying processes, report
EXPORT_S_PER_MEMBER = 4.0  # runtimes on this machine, compiler, emulated chip
UNVERIFIED_EXPORT_S = 4.0  # report
UNVERIFIED_EXPORT_S_PER_MEMBER = 0.25  # one after the other


@dataclass
class Clock:
    """Wall-clock of a run: when it began, when it must be done, and time of earlier sessions.

    Attributes:
        verifies: whether its candidates are verified at the end.
    """

    deadline_s: float | None
    earlier_s: float = 0.0
    began_s: float = field(default_factory=time.monotonic)
    verifies: bool = True

    def elapsed_s(self) -> float:
        """Seconds of the run, earlier sessions included."""
        return self.earlier_s + time.monotonic() - self.began_s

    def left_s(self) -> float:
        """Seconds until the deadline; infinite without one."""
        if self.deadline_s is None:
            return float("inf")
        return self.deadline_s - (time.monotonic() - self.began_s)


def export_s(members: int, workers: int, verifies: bool) -> float:
    """Seconds for export, verification and report of so many members of a front."""
    if verifies:
        return EXPORT_S + EXPORT_S_PER_MEMBER * members / workers
    return UNVERIFIED_EXPORT_S + UNVERIFIED_EXPORT_S_PER_MEMBER * members


class Reserve:
    """What of a search's time belongs to the end of its run, made anew with each training.

    Attributes:
        longest_s: of the trainings so far.
    """

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules, self._clock = rules, clock
        self._seen, self._seconds, self.longest_s = -1, 0.0, 0.0

    def look(self, trained: Sequence[TrialRecord], workers: int) -> float:
        """Seconds; none without a deadline."""
        deadline_s = self._clock.deadline_s
        if deadline_s is not None and self._seen != len(trained):
            self._seen = len(trained)
            verifies = self._clock.verifies
            self._seconds = reserved_s(self._rules, trained, workers, deadline_s, verifies)
            self.longest_s = max((record.train_s for record in trained), default=0.0)
        return self._seconds


def reserved_s(
    rules: Rules,
    trained: Sequence[TrialRecord],
    workers: int,
    total_s: float,
    verifies: bool = True,
) -> float:
    """Seconds to keep for the end: final trainings of today's front, export, verification, report.

    A first final training of every member may take up to half of the time, more of them up to a
    third.
    """
    entries = scored(trained)
    seconds = [trained[i].train_s for i in nondominated(rules, entries)]
    if not seconds:
        return export_s(0, workers, verifies)
    members = min(len(seconds), MOST_EXPORTED)
    mean_s = sum(seconds) / len(seconds)
    factor = FINAL_FACTOR * (FOLDS / (FOLDS - 1) if rules.crosswise else 1.0)  # the one on all rows
    once = factor * 1.1 * (members * mean_s / workers + max(seconds))
    more = min((FINAL_SEEDS - 1) * once, max(0.0, total_s * WELCOME_FINALS - once))
    # The winners of levels are trained one after the other, each by the one above it.
    levels = len(winners(rules, trained)) if rules.distil == "walk" else 0
    walk = levels * FINAL_FACTOR * max(seconds)
    finals: float = min(walk + once + more, total_s * MOST_FINALS)
    return finals + export_s(members, workers, verifies)
