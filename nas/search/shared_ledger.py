"""Final trainings that many runs share out: each is a trial of a second study on their server."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.run_folder import write_atomic
from nas.search.delivery import ARTIFACT, Delivery, begun
from nas.search.ledger import Job, Ledger, Place, T, model_file
from nas.search.shared import Shared
from nas.search.storage import unwarned

FINALS_NAME = "nas finals"
JOB, TAUGHT_BY = "job", "taught_by"  # attributes of its trials


class SharedLedger(Ledger):
    """See `Ledger` and the module."""

    def __init__(self, run: Path, shared: Shared) -> None:
        super().__init__(run)
        self._shared, self._entries = shared, {}
        self._study = shared.patiently(
            lambda: optuna.create_study(
                storage=shared.storage,
                study_name=FINALS_NAME,
                direction="maximize",
                load_if_exists=True,
            )
        )
        shared.watch(self._study)
        shared.patiently(partial(shared.deliver_kept, self._study, self._folder))
        self._claims: dict[Place, Trial] = {}
        self._read: set[int] = set()

    def holds(self, identity: str, repetition: int) -> bool:
        """Whether this training is finished, here or elsewhere."""
        return f"{identity} {repetition}" in self._entries

    def turn(self) -> AbstractContextManager[None]:
        """Within it no other run claims."""
        return self._shared.turn("finals")

    def patiently(self, action: Callable[[], T]) -> T:
        """Waits for a server that is away."""
        return self._shared.patiently(action)

    def refresh(self) -> bool:
        """Takes over what other runs have finished; whether there was anything."""
        self._shared.sweep()
        trials, before = self._study.get_trials(deepcopy=False), len(self._entries)
        running = (trial for trial in trials if trial.state == TrialState.RUNNING)
        others = self._shared.others(running)
        self.elsewhere = frozenset(_place(t) for t in others if JOB in t.user_attrs)
        for trial in trials:
            if trial.state == TrialState.COMPLETE and trial.number not in self._read:
                self._read.add(trial.number)
                self._enter(trial)
        return len(self._entries) > before

    def _enter(self, trial: FrozenTrial) -> None:
        identity, repetition = _place(trial)
        entry = {key: trial.user_attrs[key] for key in (TAUGHT_BY, ARTIFACT)}
        self._entries[f"{identity} {repetition}"] = entry | {"val_score": trial.value}

    def claim(self, job: Job) -> None:
        """Says within a turn what this run is about to train,"""
        with unwarned():
            trial = self._study.ask()
        try:
            self._shared.lease(trial)
            trial.set_user_attr(JOB, [job[0].id, job[1]])
        except BaseException:
            self._shared.release(trial)
            raise
        self._claims[job[0].id, job[1]] = trial

    def drop(self, job: Job) -> None:
        """or that it is not, after all."""
        trial = self._claims.pop((job[0].id, job[1]))
        self._shared.release(trial)
        self.patiently(
            lambda: self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        )

    def withdraw(self, job: Job) -> None:
        """Ends the claim's signs of life, so that any run ends it after the grace."""
        trial = self._claims.pop((job[0].id, job[1]), None)
        if trial is not None:
            self._shared.release(trial)

    def add(self, job: Job, model: bytes, val_score: float, taught_by: str) -> None:
        """A training that has just ended; RunError when the disk or the store refuses."""
        record, repetition = job
        trial = self._claims.pop((record.id, repetition))
        file = model_file(self._folder, record.id, repetition)
        write_atomic(file, model)
        which = FINALS_NAME, trial.number, begun(trial)
        given = Delivery(file, *which, {TAUGHT_BY: taught_by}, [val_score], {})
        self._shared.deliver(trial, given)
        self.patiently(self.refresh)

    def fetch(self, identity: str, repetition: int) -> None:
        """Gets the model of another run's training; nothing if it is here."""
        file = model_file(self._folder, identity, repetition)
        if not file.exists():
            self._shared.download(self._entries[f"{identity} {repetition}"][ARTIFACT], file)


def _place(trial: FrozenTrial) -> Place:
    identity, repetition = trial.user_attrs[JOB]
    return str(identity), int(repetition)
