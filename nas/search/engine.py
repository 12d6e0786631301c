"""The search: ask, price, train, tell, until time or trials are used up.

The parent process owns the study and trains nothing; worker processes train and never see it. A
trial is drawn, priced and, if it cannot fit, refused before any training; an architecture that was
trained before takes its score over.
"""

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.hardware.budget import Priced, price
from nas.progress import Progress
from nas.run_folder import TrialRecord, summarise, write_atomic, write_trials
from nas.search.rules import (
    MOST_EXPORTED,
    Rules,
    front_hypervolume,
    nondominated,
    scored,
    training_seed,
)
from nas.search.standing import Standing, standing_of
from nas.search.study import Study
from nas.search.walk import winners
from nas.space import Architecture, architecture_id
from nas.training.recipe import FINAL_FACTOR, FINAL_SEEDS
from nas.training.validation import FOLDS
from nas.training.workers import MOST_DEATHS, Pool, Training, no_interrupt, train

if TYPE_CHECKING:
    from optuna.trial import Trial

    from nas.training.evaluate import Trained

ASKS_AT_ONCE = 8  # proposals between two looks at what the workers have finished
WRITE_EVERY = 10  # trainings after which trials.csv is brought up to date; study.db always is
HYPERVOLUME_EVERY = 5  # trainings between two times that the line's hypervolume is made anew
EXPLORE_EVERY = 5  # of proposals in a row without a training, each fifth is drawn at random
MOST_IDLE_ASKS = 400  # proposals in a row without a training: the space is used up
MOST_FINALS = 0.5  # share of a run's time that final trainings may take,
WELCOME_FINALS = 0.33  # and up to which further seeds are planned for
EXPORT_S = 15.0  # start of the verifying processes, report
EXPORT_S_PER_MEMBER = 4.0  # runtimes on this machine, compiler, emulated chip


@dataclass
class Clock:
    """Wall-clock of a run: when it began, when it must be done, and time of earlier sessions."""

    deadline_s: float | None
    earlier_s: float = 0.0
    began_s: float = field(default_factory=time.monotonic)

    def elapsed_s(self) -> float:
        """Seconds of the run, earlier sessions included."""
        return self.earlier_s + time.monotonic() - self.began_s

    def left_s(self) -> float:
        """Seconds until the deadline; infinite without one."""
        if self.deadline_s is None:
            return float("inf")
        return self.deadline_s - (time.monotonic() - self.began_s)


@dataclass
class _Pending:
    """A trial whose training is under way."""

    trial: "Trial"
    id: str
    architecture: Architecture
    priced: Priced


class Search:
    """One session of a search."""

    def __init__(
        self,
        rules: Rules,
        study: Study,
        pool: Pool,
        run: Path,
        clock: Clock,
        progress: Progress,
    ) -> None:
        self.rules, self.study, self.pool, self.run = rules, study, pool, run
        self.clock, self.progress = clock, progress
        self.known: dict[str, TrialRecord] = {}
        self.pending: dict[Future[Any], _Pending] = {}
        self.twins: list[_Pending] = []  # drawn while an equal architecture is being trained
        self.idle_asks = 0
        self.deaths = 0
        self._shown: Standing | None = None
        self._shown_size = -1  # records that it counts
        self._hypervolume = 0.0
        self._reserved: tuple[int, float] = (-1, 0.0)

    @property
    def trained(self) -> list[TrialRecord]:
        """Records with a score of their own, in order."""
        return [record for record in self.study.records if record.status == "trained"]

    def go(self, trials: int | None) -> None:
        """Runs until `trials` architectures are trained in all, or the finals need the time."""
        with self.study.guarded():
            self._recover()
            try:
                self._loop(trials)
            finally:
                with no_interrupt():
                    self._close()
                    self.study.close()

    def _recover(self) -> None:
        """Brings the study, and trials.csv, up to date with what a killed session left."""
        told, queued = self.study.recover(self._holds, self._values)
        self.known = {r.id: r for r in self.study.records if r.status != "duplicate"}
        write_trials(self.run, self.study.records)
        if told or queued:
            self.progress.say(
                f"the last session was stopped: kept {told} that had just finished, queued"
                f" {queued} that were under way"
            )

    def _loop(self, trials: int | None) -> None:
        while self.pending or not self._enough(trials):
            if self._time_is_up():
                break
            proposed = True
            while len(self.pending) <= self.pool.count and not self._enough(trials):
                proposed = self._propose()
                if not proposed:
                    break  # what has finished in the meantime comes first
            self._collect(1.0 if proposed else 0.05)
        self._drain()

    def _close(self) -> None:
        """Stores what has just finished; what is under way goes back into the queue."""
        for future, pending in self.pending.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._store(pending, future.result())
            else:
                self.study.put_back(pending.trial)
        for twin in self.twins:
            self.study.forget(twin.trial)
        write_trials(self.run, self.study.records)

    def _enough(self, trials: int | None) -> bool:
        """Whether no further training should begin."""
        if self.idle_asks >= MOST_IDLE_ASKS or self.deaths > MOST_DEATHS:
            return True
        if trials is not None and len(self.trained) + len(self.pending) >= trials:
            return True
        return self._time_is_up()

    def _time_is_up(self) -> bool:
        """Whether what is left of the time belongs to the finals and the export."""
        if self.clock.deadline_s is None:
            return False
        trained = self.trained
        if self._reserved[0] != len(trained):
            seconds = reserved_s(self.rules, trained, self.pool.count, self.clock.deadline_s)
            self._reserved = (len(trained), seconds)
        return self.clock.left_s() < self._reserved[1]

    def _drain(self) -> None:
        """Waits for what is running, which keeps its process busy anyway; drops what is queued."""
        for future, pending in list(self.pending.items()):
            if future.cancel():
                del self.pending[future]
                self.study.put_back(pending.trial)
        while self.pending and self.clock.left_s() > 0:
            self._collect()

    def _propose(self) -> bool:
        """Draws a few trials until one has to be trained; whether one was handed to a worker.

        A trial whose twin is being trained waits for its score: told as failed it would teach the
        sampler nothing, and a sampler that has converged would draw it again and again.
        """
        for _ in range(ASKS_AT_ONCE):
            trial = self.study.ask(explore=self.idle_asks % EXPLORE_EVERY == EXPLORE_EVERY - 1)
            architecture = self.rules.space.sample(trial, self.rules.problem)
            identity = architecture_id(architecture)
            priced = price(architecture.lower(), self.rules.profile)
            excess = self.rules.budget.excess(priced.cost)
            pending = _Pending(trial, identity, architecture, priced)
            known = self.known.get(identity)
            if max(excess.values()) > 0:
                self._tell(pending, "infeasible", None, 0.0, self.rules.budget.refusal(priced.cost))
            elif known is not None and known.status == "failed":  # it would fail again
                self._tell(pending, "failed", None, 0.0, known.reason)
            elif known is not None:
                self._tell(pending, "duplicate", known.val_score, 0.0, "")
            elif any(other.id == identity for other in self.pending.values()):
                self.twins.append(pending)
            else:
                self._submit(pending)
                self.idle_asks = 0
                return True
            self.idle_asks += 1
        return False

    def _submit(self, pending: _Pending) -> None:
        rules = self.rules
        job = Training(
            pending.priced.graph,
            rules.metric,
            rules.teacher,
            final=False,
            seed=training_seed(rules.seed, pending.id, 0),
            features=rules.distil == "features",
        )
        try:
            future = self.pool.submit(train, job)
        except BrokenProcessPool:  # a worker died since the last look
            self._revive([pending])
        else:
            self.pending[future] = pending

    def _collect(self, timeout: float = 1.0) -> None:
        """Waits for a training and stores what has finished."""
        done, _ = wait(self.pending, timeout=timeout, return_when=FIRST_COMPLETED)
        lost = []
        for future in done:
            with no_interrupt():  # a result that left `pending` must reach the disk
                pending = self.pending.pop(future)
                try:
                    trained = future.result()
                except (BrokenProcessPool, CancelledError):
                    lost.append(pending)
                except FloatingPointError as error:
                    self._tell(pending, "failed", None, 0.0, str(error))
                else:
                    self._store(pending, trained)
                    if len(self.trained) % WRITE_EVERY == 0:
                        write_trials(self.run, self.study.records)
        if lost:
            self._revive(lost)
        self._show()

    def _store(self, pending: _Pending, trained: "Trained") -> None:
        """A finished training; what was drawn twice meanwhile takes over its score."""
        score = trained.val_score
        self._tell(pending, "trained", score, trained.train_s, "", trained.model)
        for twin in [twin for twin in self.twins if twin.id == pending.id]:
            self.twins.remove(twin)
            self._tell(twin, "duplicate", score, 0.0, "")

    def _revive(self, lost: Sequence[_Pending]) -> None:
        """A worker was killed: a new pool, and everything that was under way once more.

        After too many deaths the search ends, so that what it has found still becomes a front.
        """
        self.deaths += 1
        again = [*lost, *self.pending.values()]
        self.pending.clear()
        self.pool.replace()
        if self.deaths <= MOST_DEATHS:
            for pending in again:
                self._submit(pending)
            return
        for pending in again:
            self.study.put_back(pending.trial)
        self.progress.say(
            f"search: {self.deaths} worker processes were killed, probably for memory; it ends"
            " here: use fewer --workers and --resume to go on"
        )

    def _tell(
        self,
        pending: _Pending,
        status: Any,
        score: float | None,
        train_s: float,
        reason: str,
        model: bytes | None = None,
    ) -> None:
        priced = pending.priced
        record = TrialRecord(
            pending.trial.number,
            pending.id,
            status,
            score,
            summarise(priced.graph, priced.cost),
            train_s,
            self.clock.elapsed_s(),
            reason,
            pending.architecture.to_json(),
        )
        self.study.note(pending.trial, record, self.rules.budget.excess(priced.cost))
        if model is not None:
            write_atomic(self._model_file(record), model)
        self.study.tell(pending.trial, record, self._values(record))
        if status != "duplicate":
            self.known[pending.id] = record

    def _values(self, record: TrialRecord) -> dict[str, float]:
        values = self.rules.values(record.cost, record.val_score)
        return {name: values[name] for name in self.rules.objectives}

    def _model_file(self, record: TrialRecord) -> Path:
        return self.run / "trained" / f"{record.id}.npz"

    def _holds(self, record: TrialRecord) -> bool:
        return record.status != "trained" or self._model_file(record).exists()

    def _show(self) -> None:
        times = self.clock.elapsed_s(), self.clock.left_s()
        records = self.study.records
        if self._shown is None or len(records) != self._shown_size:
            self._shown_size = len(records)
            trained = self.trained
            due = len(trained) % HYPERVOLUME_EVERY == 1
            if self._shown is None or (due and len(trained) != self._shown.trained):
                self._hypervolume = front_hypervolume(self.rules, scored(trained))
            self._shown = standing_of(self.rules, records, self._hypervolume)
        self.progress.figures({"search": self._shown.to_json(*times)})
        self.progress.status(self._shown.line(*times))


def reserved_s(rules: Rules, trained: Sequence[TrialRecord], workers: int, total_s: float) -> float:
    """Seconds to keep for the end: final trainings of today's front, export, verification, report.

    A first final training of every member may take up to half of the time, more of them up to a
    third.
    """
    entries = scored(trained)
    seconds = [trained[i].train_s for i in nondominated(rules, entries)]
    if not seconds:
        return EXPORT_S
    members = min(len(seconds), MOST_EXPORTED)
    mean_s = sum(seconds) / len(seconds)
    factor = FINAL_FACTOR * (FOLDS / (FOLDS - 1) if rules.crosswise else 1.0)  # the one on all rows
    once = factor * 1.1 * (members * mean_s / workers + max(seconds))
    more = min((FINAL_SEEDS - 1) * once, max(0.0, total_s * WELCOME_FINALS - once))
    # The winners of levels are trained one after the other, each by the one above it.
    levels = len(winners(rules, trained)) if rules.distil == "walk" else 0
    walk = levels * FINAL_FACTOR * max(seconds)
    finals: float = min(walk + once + more, total_s * MOST_FINALS)
    return finals + EXPORT_S + EXPORT_S_PER_MEMBER * members / workers
