"""The search: ask, price, train, tell, until time or trials are used up.

The parent process owns the study and trains nothing; worker processes train and never see it. A
trial is drawn, priced and, if it cannot fit, refused before any training; an architecture that was
trained before takes its score over; a training without hope of the front is left halfway.
"""

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nas.hardware.budget import price
from nas.interrupts import no_interrupt
from nas.progress import Progress
from nas.run_folder import Status, TrialRecord, summarise, write_atomic, write_trials
from nas.search.clock import Clock, Reserve
from nas.search.early_stopping import hoped_for, hurdle
from nas.search.pending import Pending, has_ended
from nas.search.rules import Rules, training_seed
from nas.search.standing import Board
from nas.search.study import Study
from nas.space import architecture_id
from nas.training.workers import MOST_DEATHS, Pool, Training, train

if TYPE_CHECKING:
    from nas.training.evaluate import Trained

Fate: TypeAlias = Literal["infeasible", "known", "twin", "new"]  # of a trial that was drawn

ASKS_AT_ONCE = 8  # proposals between two looks at what the workers have finished
WRITE_EVERY = 10  # trainings after which trials.csv is brought up to date; study.db always is
EXPLORE_EVERY = 5  # of proposals in a row without a training, each fifth is drawn at random
MOST_IDLE_ASKS = 400  # proposals in a row that fit and are known: the space is used up
MOST_REFUSED = 4000  # proposals, since the last training, that do not fit: hardly any seems to


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
        self.pending: dict[Future[Any], Pending] = {}
        self.twins: list[Pending] = []  # drawn while an equal architecture is being trained
        self.trials: int | None = None
        self.idle_asks = self.refused = 0  # proposals since the last training; over a budget
        self.deaths = 0
        self.board = Board(rules, clock, progress)
        self.reserve = Reserve(rules, clock)

    @property
    def trained(self) -> list[TrialRecord]:
        """Records with a score of their own, in order."""
        return [record for record in self.study.records if record.status == "trained"]

    def go(self, trials: int | None) -> None:
        """Runs until so many trainings have ended in all, or the finals need the time."""
        self.trials = trials
        with self.study.guarded():
            self._recover()
            self.board.show(self.study.records, exactly=True)
            try:
                self._loop()
                if reason := self._used_up():
                    self.progress.say(f"search: it ends here, with {reason}")
            finally:
                with no_interrupt():
                    self._close()

    def _recover(self) -> None:
        """Brings the study, and trials.csv, up to date with what a killed session left."""
        told, queued = self.study.recover(self._holds, self._values, self.run / "trained")
        self.known = {r.id: r for r in self.study.records if r.status != "duplicate"}
        write_trials(self.run, self.study.records)
        if told or queued:
            self.progress.say(
                f"the last session was stopped: kept {told} that had just finished, queued"
                f" {queued} that were under way"
            )

    def _loop(self) -> None:
        while self.pending or not self._enough() or self._waits():
            if self._time_is_up():
                break
            proposed = True
            while len(self.pending) < self._room() and not self._enough():
                proposed = self._propose()
                if not proposed:
                    break  # what has finished in the meantime comes first
            self._collect(1.0 if proposed else 0.05)
        self._drain()

    def _close(self) -> None:
        """Stores what has just finished; what is under way goes back into the queue.

        A failure keeps nothing else from being tried; what is registered last is done first.
        """
        with ExitStack() as tasks:
            tasks.callback(self.study.close)
            tasks.callback(self.board.show, self.study.records, exactly=True)
            tasks.callback(write_trials, self.run, self.study.records)
            tasks.callback(self.study.patiently, self.study.collect_abandoned)
            tasks.callback(self._forget_twins)
            tasks.callback(self._put_back, [p for f, p in self.pending.items() if not has_ended(f)])
            for future, pending in self.pending.items():
                if has_ended(future):
                    tasks.callback(self._store, pending, future.result())

    def _forget_twins(self) -> None:
        for twin in self.twins:
            self.study.patiently(partial(self.study.forget, twin.trial))

    def _enough(self) -> bool:
        """Whether no further training should begin."""
        if self._used_up() or self.deaths > MOST_DEATHS or self._time_is_up():
            return True
        begun = len(self.pending) + len(self.study.elsewhere)
        return self.trials is not None and self._ended() + begun >= self.trials

    def _ended(self) -> int:
        """Trainings that count as one of `trials`."""
        return sum(record.status in ("trained", "stopped") for record in self.study.records)

    def _used_up(self) -> str:
        """Why nothing new is proposed any more; empty while there is hope."""
        known = self.idle_asks - self.refused
        if known < MOST_IDLE_ASKS and self.refused < MOST_REFUSED:
            return ""
        return f"nothing new in the last {self.idle_asks} proposals ({self.refused} over a budget)"

    def _waits(self) -> bool:
        """Whether the last of `trials` are being trained by other runs, and may yet fail."""
        lacking = self.trials is not None and self._ended() < self.trials
        return lacking and len(self.study.elsewhere) > 0

    def _time_is_up(self) -> bool:
        """Whether what is left of the time belongs to the finals and the export."""
        return self._left_s() < 0

    def _room(self) -> int:
        """Trainings that may be under way.

        One of them waits for a process, so that none is idle; not where it may not have begun by
        the time that belongs to the finals, as a pool begins whatever it has once been given.
        """
        return self.pool.count + (self._left_s() > self.reserve.longest_s)

    def _left_s(self) -> float:
        """Seconds left for the search."""
        return self.clock.left_s() - self.reserve.look(self.trained, self._trainers())

    def _trainers(self) -> int:
        """Processes that the final trainings are dealt out to, those of other runs included.

        Each run claims one network more than it trains at a time.
        """
        count = self.pool.count
        return count + len(self.study.elsewhere) * count // (count + 1)

    def _drain(self) -> None:
        """Waits for what is running; what time runs out for keeps nobody waiting."""
        while self.pending and self.clock.left_s() > 0:
            self._collect()
        if self.pending:
            self.pool.replace()

    def _propose(self) -> bool:
        """Draws a few trials until one has to be trained; whether one was handed to a worker.

        A trial whose twin is being trained waits for its score: told as failed it would teach the
        sampler nothing, and a sampler that has converged would draw it again and again.
        """
        for _ in range(ASKS_AT_ONCE):
            drawn = self.study.patiently(self._draw)
            if drawn is None:
                return False
            pending, fate = drawn
            known = self.known.get(pending.id)
            if fate == "infeasible":
                self.refused += 1
                refusal = self.rules.budget.refusal(pending.priced.cost)
                self._tell(pending, "infeasible", reason=refusal)
            elif fate == "twin":
                self.twins.append(pending)
            elif known is not None:
                self._tell_again(pending, known)
            else:
                self._submit(pending)
                self.idle_asks = self.refused = 0
                return True
            self.idle_asks += 1
        return False

    def _draw(self) -> tuple[Pending, Fate] | None:
        """A trial, and what becomes of it; None if no further training should begin."""
        trial = self.study.ask(explore=self.idle_asks % EXPLORE_EVERY == EXPLORE_EVERY - 1)
        try:
            architecture = self.rules.space.sample(trial, self.rules.problem)
            priced = price(architecture.lower(), self.rules.profile)
            pending = Pending(trial, architecture_id(architecture), architecture, priced)
            if max(self.rules.budget.excess(priced.cost).values()) > 0:
                return pending, "infeasible"
            with self.study.turn():
                fate = self._decide(pending)
            if fate is None:
                self.study.put_back(trial)
        except BaseException:
            self.study.abandon(trial)
            raise
        return None if fate is None else (pending, fate)

    def _decide(self, pending: Pending) -> Fate | None:
        """What becomes of a network that fits: one to be trained is claimed in this run's turn.

        None if other runs have meanwhile begun the last that is wanted.
        """
        self._learn()
        if pending.id in self.known:
            return "known"
        ours = any(other.id == pending.id for other in self.pending.values())
        if ours or pending.id in self.study.elsewhere:
            return "twin"
        if self._enough():
            return None
        self.study.claim(pending.trial, pending.id)
        return "new"

    def _learn(self) -> None:
        """Takes over what other runs have ended since the last look."""
        for record in self.study.refresh():
            if record.status != "duplicate":
                self.known[record.id] = record
                self._tell_twins(record)
        ours = {pending.id for pending in self.pending.values()}
        for twin in [t for t in self.twins if t.id not in self.study.elsewhere | ours]:
            self.study.put_back(twin.trial)  # the run that trained its equal has died
            self.twins.remove(twin)

    def _tell_twins(self, record: TrialRecord) -> None:
        """What was drawn again while a network was trained takes over its score."""
        for twin in [twin for twin in self.twins if twin.id == record.id]:
            self.twins.remove(twin)
            self._tell_again(twin, record)

    def _tell_again(self, pending: Pending, known: TrialRecord) -> None:
        """A trial of an architecture whose training has ended; a failed one would fail again."""
        status: Status = "failed" if known.status == "failed" else "duplicate"
        self._tell(pending, status, known.val_score, known.halfway_score, reason=known.reason)

    def _submit(self, pending: Pending) -> None:
        rules = self.rules
        cost = summarise(pending.priced.graph, pending.priced.cost)
        pending.hurdle = hurdle(rules, cost, self.study.records)
        job = Training(
            pending.priced.graph,
            rules.metric,
            rules.teacher,
            final=False,
            seed=training_seed(rules.seed, pending.id, 0),
            features=rules.distil == "features",
            hurdle=pending.hurdle,
        )
        try:
            future = self.pool.submit(train, job)
        except BrokenProcessPool:  # a worker died since the last look
            self._revive([pending])
        else:
            self.pending[future] = pending

    def _collect(self, timeout: float = 1.0) -> None:
        """Waits for a training and stores what has finished."""
        if not self.pending:
            time.sleep(timeout)  # for what other runs are training
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
                    self._tell(pending, "failed", reason=str(error))
                else:
                    self._store(pending, trained)
                    if len(self.trained) % WRITE_EVERY == 0:
                        write_trials(self.run, self.study.records)
        if lost:
            self._revive(lost)
        self.study.patiently(self._learn)
        self.board.show(self.study.records)

    def _store(self, pending: Pending, trained: "Trained") -> None:
        """A training that has ended; what was drawn twice meanwhile takes over its score."""
        score, halfway, reason = trained.val_score, trained.halfway_score, ""
        if score is None:
            reason = f"halfway at {halfway:.4f}, below {pending.hurdle:.4f}: no hope of the front"
        status: Status = "stopped" if score is None else "trained"
        self._tell(pending, status, score, halfway, trained.train_s, reason, trained.model)
        if pending.id in self.known:
            self._tell_twins(self.known[pending.id])

    def _revive(self, lost: Sequence[Pending]) -> None:
        """A worker was killed: a new pool, and everything that was under way once more.

        After too many deaths the search ends, so that what it has found still becomes a front.
        """
        self.deaths += 1
        again = list(lost)
        for future, pending in list(self.pending.items()):
            with no_interrupt():
                del self.pending[future]
                if has_ended(future):
                    self._store(pending, future.result())
                else:
                    again.append(pending)
        self.pool.replace()
        if self.deaths <= MOST_DEATHS:
            for pending in again:
                self._submit(pending)
            return
        self._put_back(again)
        self.progress.say(
            f"search: {self.deaths} worker processes were killed, probably for memory; it ends"
            " here: use fewer --workers and --resume to go on"
        )

    def _tell(
        self,
        pending: Pending,
        status: Status,
        score: float | None = None,
        halfway: float | None = None,
        train_s: float = 0.0,
        reason: str = "",
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
            halfway,
        )
        excess = self.rules.budget.excess(priced.cost)
        write = None if model is None else partial(self._write, record, model)
        if not self.study.finish(pending.trial, record, excess, self._values(record), write):
            self.progress.say(f"trial {record.number}: another run had ended it; not counted")
        elif status != "duplicate":
            self.known[pending.id] = record

    def _write(self, record: TrialRecord, model: bytes) -> Path:
        write_atomic(self._model_file(record), model)
        return self._model_file(record)

    def _values(self, record: TrialRecord) -> dict[str, float]:
        """What a trial is told: of one that was left, the score that was hoped for."""
        score = record.val_score
        if score is None and record.halfway_score is not None:
            score = hoped_for(record.halfway_score, self.study.records)
        values = self.rules.values(record.cost, score)
        return {name: values[name] for name in self.rules.objectives}

    def _model_file(self, record: TrialRecord) -> Path:
        return self.run / "trained" / f"{record.id}.npz"

    def _holds(self, record: TrialRecord) -> bool:
        return record.status != "trained" or self._model_file(record).exists()

    def _put_back(self, unfinished: Sequence[Pending]) -> None:
        for pending in unfinished:
            self.study.patiently(partial(self.study.put_back, pending.trial))
