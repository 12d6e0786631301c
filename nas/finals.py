"""The end of a search: members of the front are trained again, for longer and with more seeds.

A search's scores are noisy and its best ones are flattered by having been chosen. The front that is
exported is taken from trainings of `FINAL_FACTOR` times the search's steps, two for the best few,
then one for every other member and a second one for as many as time allows. The better of the two
on validation ships, and the interval counts the spread between seeds. A member that time did not
reach keeps its training of the search, which the column `steps` of the front shows.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from nas.progress import Progress, clock
from nas.recipe import FINAL_FACTOR
from nas.rules import Rules, front_of, scored, training_seed
from nas.run_folder import TrialRecord, read_json, write_atomic, write_json
from nas.workers import MOST_DEATHS, Pool, Training, no_interrupt, train

SEEDS = 2
BEST = 4  # members that are trained twice before the rest is trained once
LEDGER = "finals.json"  # trained/finals.json: "<id> <repetition>" -> val_score
_Job: TypeAlias = tuple[TrialRecord, int]  # a final training: the member and the repetition


@dataclass(frozen=True)
class Finalist:
    """A front member and its final trainings: val_score by repetition, 1 and up."""

    record: TrialRecord
    scores: dict[int, float]

    @property
    def best(self) -> int:
        """The repetition that ships; 0 is the search's own training."""
        return max(self.scores, key=lambda r: (self.scores[r], -r)) if self.scores else 0

    @property
    def val_scores(self) -> list[float]:
        """Of all final trainings, the shipped one first; the search's own where there is none."""
        if not self.scores:
            assert self.record.val_score is not None
            return [self.record.val_score]
        rest = [score for r, score in sorted(self.scores.items()) if r != self.best]
        return [self.scores[self.best], *rest]

    @property
    def length(self) -> int:
        """Steps of its training as a multiple of the search's."""
        return FINAL_FACTOR if self.scores else 1


def choose_finalists(rules: Rules, trained: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The front of the search, best score first."""
    entries = scored(trained)
    chosen = [trained[i] for i in front_of(rules, entries)]
    return sorted(chosen, key=lambda r: -(r.val_score or 0.0))


def train_finals(
    rules: Rules,
    records: Sequence[TrialRecord],
    pool: Pool,
    run: Path,
    left_s: Callable[[], float],
    progress: Progress,
) -> list[Finalist]:
    """Final trainings while time is left, in the order of `_order`.

    What an earlier session finished is taken over.
    """
    ledger = _Ledger(run / "trained")
    jobs = [job for job in _order(records) if not ledger.holds(job[0].id, job[1])]
    running: dict[Future[Any], _Job] = {}
    total, slowest, deaths = len(jobs), 0.0, 0
    while jobs or running:
        lost: list[_Job] = []
        # A training that cannot end in time is not begun.
        while jobs and not lost and len(running) <= pool.count and left_s() > slowest:
            job = jobs.pop(0)
            try:
                running[pool.submit(train, _training(rules, *job))] = job
            except BrokenProcessPool:  # a worker died since the last look
                lost.append(job)
        if not running and not lost:
            break
        finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in finished:
            with no_interrupt():  # a result that left `running` must reach the disk
                job = running.pop(future)
                try:
                    result = future.result()
                except FloatingPointError:
                    continue  # diverged: the member keeps what it has
                except (BrokenProcessPool, CancelledError):
                    lost.append(job)
                else:
                    slowest = max(slowest, result.train_s)
                    ledger.add(job, result.model, result.val_score)
        if lost:
            deaths += 1
            jobs[:0] = [*lost, *running.values()]
            running.clear()
            pool.replace()
        if deaths > MOST_DEATHS:
            progress.say(
                f"final trainings: {deaths} worker processes were killed, probably for memory; the"
                f" last {len(jobs)} are left out: use fewer --workers and --resume to make them"
            )
            break
        if left_s() <= 0:
            break
        _show(progress, total, total - len(jobs) - len(running), left_s())
    return [Finalist(record, ledger.scores(record.id)) for record in records]


def _order(records: Sequence[TrialRecord]) -> list[_Job]:
    """First trainings of all but for the best few, whose second seed does not come last.

    The best are what is picked most, and intervals need the spread between some seeds.
    """
    once = [(record, 1) for record in records]
    again = [(record, r) for r in range(2, SEEDS + 1) for record in records]
    return [*once[:BEST], *again[:BEST], *once[BEST:], *again[BEST:]]


def _show(progress: Progress, total: int, done: int, left_s: float) -> None:
    progress.status(
        f"final trainings  {done} of {total}"
        + (f"  {clock(left_s)} left for them" if left_s < float("inf") else "")
    )


def _training(rules: Rules, record: TrialRecord, repetition: int) -> Training:
    graph = rules.space.parse(record.architecture).lower()
    seed = training_seed(rules.seed, record.id, repetition)
    return Training(graph, rules.metric, rules.teacher, final=True, seed=seed)


def shipped_file(run: Path, finalist: Finalist) -> Path:
    """The file of the repetition that ships."""
    return _model_file(run / "trained", finalist.record.id, finalist.best)


def _model_file(folder: Path, identity: str, repetition: int) -> Path:
    return folder / (f"{identity}.{repetition}.npz" if repetition else f"{identity}.npz")


class _Ledger:
    """Scores of the final trainings; one counts once its model is on disk, which comes second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / LEDGER
        self._scores: dict[str, float] = read_json(self._file) if self._file.exists() else {}

    def holds(self, identity: str, repetition: int) -> bool:
        known = f"{identity} {repetition}" in self._scores
        return known and _model_file(self._folder, identity, repetition).exists()

    def add(self, job: _Job, model: bytes, val_score: float) -> None:
        record, repetition = job
        self._scores[f"{record.id} {repetition}"] = val_score
        write_json(self._file, self._scores)
        write_atomic(_model_file(self._folder, record.id, repetition), model)

    def scores(self, identity: str) -> dict[int, float]:
        return {
            r: self._scores[f"{identity} {r}"]
            for r in range(1, SEEDS + 1)
            if self.holds(identity, r)
        }
