"""The final trainings that a run has finished: scores and teachers in a file, models beside it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from nas.run_folder import TrialRecord, read_json, write_atomic, write_json
from nas.search.rules import Rules, training_seed
from nas.training.recipe import FINAL_SEEDS
from nas.training.workers import Training

LEDGER = "finals.json"  # trained/finals.json: "<id> <repetition>" -> val_score, taught_by
Job: TypeAlias = tuple[TrialRecord, int]  # a final training: the member and the repetition
Place: TypeAlias = tuple[str, int]  # the same, by the member's id
T = TypeVar("T")


class Ledger:
    """One entry a final training; it counts once its model is on disk, which comes second.

    Attributes:
        elsewhere: what other runs are training; none here, see `shared_ledger`.
    """

    elsewhere: frozenset[Place] = frozenset()

    def __init__(self, run: Path) -> None:
        self._folder = run / "trained"
        self._file = self._folder / LEDGER
        self._entries: dict[str, Any] = read_json(self._file) if self._file.exists() else {}

    def holds(self, identity: str, repetition: int) -> bool:
        """Whether this training is finished."""
        known = f"{identity} {repetition}" in self._entries
        return known and model_file(self._folder, identity, repetition).exists()

    def add(self, job: Job, model: bytes, val_score: float, taught_by: str) -> None:
        """A training that has just ended; RunError when the disk refuses."""
        record, repetition = job
        entry = {"val_score": val_score, "taught_by": taught_by}
        self._entries[f"{record.id} {repetition}"] = entry
        write_json(self._file, self._entries)
        write_atomic(model_file(self._folder, record.id, repetition), model)

    def scores(self, identity: str) -> dict[int, float]:
        """Repetition -> validation score."""
        return {r: entry["val_score"] for r, entry in self._of(identity).items()}

    def teachers(self, identity: str) -> dict[int, str]:
        """Repetition -> what taught it: `teacher`, `none`, or the id of a candidate."""
        return {r: entry["taught_by"] for r, entry in self._of(identity).items()}

    def turn(self) -> AbstractContextManager[None]:
        """Within it no other run claims."""
        return nullcontext()

    def patiently(self, action: Callable[[], T]) -> T:
        """Does what needs other runs' entries."""
        return action()

    def refresh(self) -> bool:
        """Takes over what other runs have finished; whether there was anything."""
        return False

    def claim(self, job: Job) -> None:
        """Says within a turn what this run is about to train,"""

    def drop(self, job: Job) -> None:
        """or that it is not, after all."""

    def withdraw(self, job: Job) -> None:
        """Takes a claim back whose turn was lost, without asking the server."""

    def fetch(self, identity: str, repetition: int) -> None:
        """Gets the model of another run's training."""

    def _of(self, identity: str) -> dict[int, Any]:
        return {
            r: self._entries[f"{identity} {r}"]
            for r in range(1, FINAL_SEEDS + 1)
            if self.holds(identity, r)
        }


def model_file(folder: Path, identity: str, repetition: int) -> Path:
    """The file of a training; repetition 0 is the search's own."""
    return folder / (f"{identity}.{repetition}.npz" if repetition else f"{identity}.npz")


def final_training(rules: Rules, job: Job, teacher: Path | None) -> Training:
    """The job of a final training."""
    record, repetition = job
    graph = rules.space.parse(record.architecture).lower()
    seed = training_seed(rules.seed, record.id, repetition)
    return Training(graph, rules.metric, teacher, True, seed, rules.distil == "features")
