"""The end of a search: members of the front are trained again, for longer and with more seeds.

A search's best scores are flattered by having been chosen: on a small validation split the first
of a hundred is mostly luck (the winner's curse). So a score of the search only admits a candidate
to a race. Whoever is on the front is trained again, `FINAL_FACTOR` times as long, and from then on
the mean of these trainings stands for it, without the score that got it there; when a lucky one
falls, those that it hid come up and are trained in turn. The loser's curse is the other side: an
unlucky candidate is hidden by one that is no better, the more so as final trainings are longer and
raise the scores of those who have had one. How much they raise them, and how differently, is known
from these; whoever would be on the front with that much more has one final training, too. The best
few go first; what a candidate has left after its first is trained as one network where that is
faster, and on a CUDA device, where a step has room for others, all of it is. Of a candidate's
trainings the one nearest to their mean ships, not the luckiest, and the interval counts the spread
between seeds. A member that time did not reach keeps its training of the search, which the column
`steps` of the front shows.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from nas.interrupts import no_interrupt
from nas.progress import Progress, clock
from nas.run_folder import TrialRecord
from nas.search.ledger import Job, Ledger, Place, final_training, model_file
from nas.search.pending import has_ended
from nas.search.rules import Rules, front_of, undominated
from nas.search.walk import STANDING, Walk
from nas.training.packable import packable
from nas.training.recipe import FINAL_FACTOR, FINAL_SEEDS
from nas.training.workers import MOST_DEATHS, Pool, Training, train_several

BEST = 4  # members of the front that are a training ahead of the rest
FEW_GAINS = 3  # candidates whose final trainings tell what one adds


@dataclass(frozen=True)
class Finalist:
    """A front member and its final trainings by repetition, 1 and up: val_score, what taught it."""

    record: TrialRecord
    scores: dict[int, float]
    teachers: dict[int, str] = field(default_factory=dict)

    @property
    def estimate(self) -> float:
        """The mean of its final trainings, or without any the score of the search."""
        if self.scores:
            return sum(self.scores.values()) / len(self.scores)
        assert self.record.val_score is not None
        return self.record.val_score

    @property
    def shipped(self) -> int:
        """The repetition nearest to the mean, the earliest of equals; 0 is the search's own."""
        return min(
            self.scores,
            key=lambda r: (round(abs(self.scores[r] - self.estimate), 12), r),
            default=0,
        )

    @property
    def val_scores(self) -> list[float]:
        """Of all final trainings, the shipped one first; the search's own where there is none."""
        if not self.scores:
            return [self.estimate]
        rest = [score for r, score in sorted(self.scores.items()) if r != self.shipped]
        return [self.scores[self.shipped], *rest]

    @property
    def length(self) -> int:
        """Steps of its training as a multiple of the search's."""
        return FINAL_FACTOR if self.scores else 1


def train_finals(
    rules: Rules,
    trained: Sequence[TrialRecord],
    pool: Pool,
    run: Path,
    left_s: Callable[[], float],
    progress: Progress,
    walk: Walk = STANDING,
    ledger: Ledger | None = None,
) -> list[Finalist]:
    """Final trainings while time is left and a member of the front has less than `FINAL_SEEDS`.

    What an earlier session finished is taken over, and what other runs finish meanwhile.

    Args:
        trained: every network that the search trained.
        walk: which of them teach others.
        ledger: where other runs look, too; one of this run alone otherwise.

    Returns:
        The front by estimates, the best first.
    """
    race = _Race(rules, trained, ledger or Ledger(run), walk)
    running: dict[Future[Any], list[Job]] = {}
    try:
        _train(race, running, pool, left_s, progress)
    except BaseException:  # Ctrl-C, or a server that stays away: what has ended must reach the disk
        _store(race, running, [future for future in running if has_ended(future)])
        raise
    if running:
        pool.replace()  # what comes next must not wait for trainings that nobody wants any more
    _drop(race, running)
    race.look(0.0)  # also where no time was left to begin one
    return race.front


def _train(
    race: "_Race",
    running: dict[Future[Any], list[Job]],
    pool: Pool,
    left_s: Callable[[], float],
    progress: Progress,
) -> None:
    """Trains until nothing is left to train, or no time; what is `running` then is not awaited."""
    slowest, deaths = 0.0, 0
    while True:
        broken = False
        # A training that cannot end in time is not begun.
        while len(running) <= pool.count and not broken:
            waits = len(running) == pool.count  # for one of the others to end
            if left_s() <= slowest * (1 + waits):
                break
            jobs = race.claim([job for some in running.values() for job in some])
            if not jobs:
                break
            try:
                running[pool.submit(train_several, race.trainings(jobs))] = jobs
            except BrokenProcessPool:  # a worker died since the last look
                race.drop(jobs)
                broken = True
        if not running and not broken:
            if not race.ledger.elsewhere or left_s() <= 0:
                break
            race.look(1.0)  # what other runs have begun may bring up further members
        finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
        seconds, died = _store(race, running, finished)
        slowest, broken = max(slowest, seconds), broken or died
        if broken:
            deaths += 1
            _store(race, running, [future for future in running if has_ended(future)])
            _drop(race, running)
            pool.replace()
        if deaths > MOST_DEATHS:
            progress.say(
                f"final trainings: {deaths} worker processes were killed, probably for memory; the"
                " rest is left out: use fewer --workers and --resume to make them"
            )
            break
        if left_s() <= 0:
            break
        _show(progress, race.front, left_s())


def _drop(race: "_Race", running: dict[Future[Any], list[Job]]) -> None:
    for jobs in running.values():
        race.drop(jobs)
    running.clear()


def _store(
    race: "_Race", running: dict[Future[Any], list[Job]], finished: Iterable[Future[Any]]
) -> tuple[float, bool]:
    """Stores what has finished; seconds of the slowest, and whether a worker died."""
    slowest, died = 0.0, False
    # A result that left `running` must reach the disk, also where another one cannot be told.
    with no_interrupt(), ExitStack() as tasks:
        for future in finished:
            jobs = running.pop(future)
            try:
                results = future.result()
            except (BrokenProcessPool, CancelledError):
                tasks.callback(race.drop, jobs)
                died = True
                continue
            made = [result for result in results if not isinstance(result, FloatingPointError)]
            slowest = max(slowest, sum(result.train_s for result in made))
            for job, result in zip(jobs, results, strict=True):
                if isinstance(result, FloatingPointError):  # diverged, and would again
                    race.given_up.append(job)
                    tasks.callback(race.drop, [job])
                else:
                    tasks.callback(race.store, job, result.model, result.val_score)
    return slowest, died


def _show(progress: Progress, front: Sequence[Finalist], left_s: float) -> None:
    ready = sum(len(member.scores) for member in front)
    progress.status(
        f"final trainings  {ready} of {FINAL_SEEDS * len(front)} of today's front"
        + (f"  {clock(left_s)} left for them" if left_s < float("inf") else "")
    )


class _Race:
    """Who is on the front by what is known so far, and whose turn it is.

    Made anew with each score only, as it takes seconds where hundreds of networks do not dominate
    each other.

    Attributes:
        front: by estimates, the best first.
        hidden: whom a final training may bring onto it, and the score that is hoped for.
    """

    def __init__(
        self, rules: Rules, trained: Sequence[TrialRecord], ledger: Ledger, walk: Walk
    ) -> None:
        self.rules, self.trained, self.ledger, self.walk = rules, trained, ledger, walk
        self.given_up: list[Job] = []
        self.front: list[Finalist] = []
        self.hidden: list[tuple[Finalist, float]] = []
        self._rank()

    def store(self, job: Job, model: bytes, val_score: float) -> None:
        """A final training that has ended."""
        _, taught_by = self.walk.teacher_of(self.rules, job[0].cost)
        self.ledger.add(job, model, val_score, taught_by)
        self._rank()

    def _rank(self) -> None:
        ledger = self.ledger
        every = [Finalist(r, ledger.scores(r.id), ledger.teachers(r.id)) for r in self.trained]
        entries = [(f.record.cost, f.estimate) for f in every]
        members = front_of(self.rules, entries)
        self.front = [every[i] for i in members]
        self.front.sort(key=lambda f: (-f.estimate, f.record.number))
        gains = [f.estimate - (f.record.val_score or 0.0) for f in every if f.scores]
        if len(gains) < FEW_GAINS:
            return
        hope = fmean(gains) + pstdev(gains)
        untried = [f for i, f in enumerate(every) if not f.scores and i not in members]
        hoped = [(f.record.cost, f.estimate + hope) for f in untried]
        admitted = undominated(self.rules, hoped, [entries[i] for i in members])
        self.hidden = [(untried[i], hoped[i][1]) for i in np.flatnonzero(admitted)]

    def trainings(self, jobs: Iterable[Job]) -> list[Training]:
        """What a worker needs for the final trainings of one candidate."""
        rules = self.rules
        return [final_training(rules, j, self.walk.teacher_of(rules, j[0].cost)[0]) for j in jobs]

    def drop(self, jobs: Iterable[Job]) -> None:
        """Says that some final trainings are not made, after all."""
        for job in jobs:
            self.ledger.drop(job)

    def claim(self, running: Collection[Job]) -> list[Job]:
        """The next final trainings, which no other run makes, to be trained as one."""

        def choose() -> list[Job]:
            jobs: list[Job] = []
            try:
                with self.ledger.turn():
                    self._learn()
                    jobs = self._together(running)
                    for job in jobs:
                        self.ledger.claim(job)
            except BaseException:  # the turn was lost, and with it the claims
                for job in jobs:
                    self.ledger.withdraw(job)
                raise
            return jobs

        return self.ledger.patiently(choose)

    def _together(self, running: Collection[Job]) -> list[Job]:
        """The next final training; with a candidate's second the rest of it, if that is faster."""
        job = self.next(running)
        if job is None:
            return []
        record, repetition = job
        rules = self.rules
        if rules.distil == "features" or (repetition == 1 and rules.train_on == "cpu"):
            return [job]
        graph = rules.space.parse(record.architecture).lower()
        if not packable(graph, rules.train_on):
            return [job]
        left = _left(record.id, self.ledger.scores(record.id), self._begun(running))
        return [(record, other) for other in left]

    def look(self, wait_s: float) -> None:
        """Takes over what other runs have finished by then."""
        time.sleep(wait_s)
        self.ledger.patiently(self._learn)

    def _learn(self) -> None:
        if self.ledger.refresh():
            self._rank()

    def next(self, running: Collection[Job]) -> Job | None:
        """The next final training, or None when every member has had its share.

        Whoever has the fewest comes first, the best members one training ahead of the rest; the
        hidden have one, in the order of what is hoped for.
        """
        begun = self._begun(running)
        turns = []
        for rank, member in enumerate(self.front):
            left = _left(member.record.id, member.scores, begun)
            if left:
                turn = FINAL_SEEDS - len(left) - (rank < BEST)
                turns.append((turn, -member.estimate, member.record, left[0]))
        for member, hoped in self.hidden:
            if all(identity != member.record.id for identity, _ in begun):
                turns.append((0, -hoped, member.record, 1))
        if not turns:
            return None
        return min(turns, key=lambda turn: (*turn[:2], turn[2].number))[2:]

    def _begun(self, running: Collection[Job]) -> list[Place]:
        ours = [(record.id, repetition) for record, repetition in (*running, *self.given_up)]
        return [*ours, *self.ledger.elsewhere]


def _left(identity: str, finished: Collection[int], begun: Iterable[Place]) -> list[int]:
    """Repetitions of a candidate that nobody has begun."""
    taken = {repetition for other, repetition in begun if other == identity} | set(finished)
    return [r for r in range(1, FINAL_SEEDS + 1) if r not in taken]


def shipped_file(run: Path, finalist: Finalist) -> Path:
    """The file of the training that ships."""
    return model_file(run / "trained", finalist.record.id, finalist.shipped)
