"""Down the memory hierarchy: the winner of one level teaches the candidates of the next lower one.

After TinyM2Net-V3 (Rashid and Mohsenin 2024), which pushes a student towards lower levels of the
memory hierarchy. A candidate lies in the smallest level of the profile that holds all that it
touches, its RAM and its weights; what needs more than the RAM lies in the level `Flash`. Which
level holds a network says what could live there: the generated C leaves the weights in the Flash.

Between search and final trainings, from the top: of each level that has candidates the best one by
the search's score is trained as a final, and its integers answer the whole bank. From then on it
teaches the next lower level in the place of the run's teacher, which teaches the top.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nas.errors import UsageError
from nas.hardware.profile import Profile
from nas.progress import Progress
from nas.run_folder import CostSummary, TrialRecord, write_atomic
from nas.search.ledger import Ledger, final_training, model_file
from nas.search.rules import Rules
from nas.training.recipe import FINAL_FACTOR
from nas.training.validation import Judging
from nas.training.workers import MOST_DEATHS, Pool, hand_down, train

BEHIND = "Flash"  # the level behind the last one of a profile


@dataclass(frozen=True)
class Step:
    """A level's winner, which teaches the next lower level.

    Attributes:
        level: index, from the smallest.
        file: its answers.
        val_score: of the final training that teaches.
        taught_by: what taught it, as in `Ledger.teachers`.
    """

    level: int
    id: str
    file: Path
    val_score: float
    taught_by: str


@dataclass(frozen=True)
class Walk:
    """The steps that were made, from the top down."""

    steps: tuple[Step, ...] = ()

    def teacher_of(self, rules: Rules, cost: CostSummary) -> tuple[Path | None, str]:
        """The file of answers that teaches a candidate of this cost, and its name."""
        level = level_of(rules.profile, cost)
        above = [step for step in self.steps if step.level > level]
        return (above[-1].file, above[-1].id) if above else (rules.teacher, rules.teacher_name)

    def to_json(self, profile: Profile) -> list[dict[str, Any]]:
        """What run.json says of it: one entry a step."""
        return [
            {
                "level": level_name(profile, step.level),
                "candidate": step.id,
                "val_score": step.val_score,
                "taught_by": step.taught_by,
            }
            for step in self.steps
        ]


STANDING = Walk()  # without a step: the run's teacher teaches every level


def check_walk(judged: Judging) -> None:
    """Raises UsageError where an intermediate teacher would have seen the rows that judge."""
    if judged.fold is not None:
        raise UsageError(
            "--distil walk: rows are judged crosswise, and an intermediate teacher has seen all of"
            " them; use --validation split or --distil logits"
        )


def level_of(profile: Profile, cost: CostSummary) -> int:
    """Index of the smallest level that holds RAM and weights; one beyond the last for `Flash`.

    No level is larger than what the application leaves of the RAM.
    """
    footprint = cost.ram_bytes + cost.weight_bytes
    sizes = [min(size, profile.ram_budget_bytes) for size in profile.level_bytes]
    return next((i for i, size in enumerate(sizes) if footprint <= size), len(sizes))


def level_name(profile: Profile, level: int) -> str:
    """The level's name, as the profile or this module gives it."""
    return (*profile.level_names, BEHIND)[level]


def winners(rules: Rules, trained: Sequence[TrialRecord]) -> list[tuple[int, TrialRecord]]:
    """(level, its best by the search's score) from the top, without the lowest, which teaches none.

    The earliest of equals.
    """
    best: dict[int, TrialRecord] = {}
    for record in trained:
        level = level_of(rules.profile, record.cost)
        held = best.get(level)
        if held is None or (record.val_score or 0.0) > (held.val_score or 0.0):
            best[level] = record
    return [(level, best[level]) for level in sorted(best, reverse=True)][:-1]


def descend(
    rules: Rules,
    trained: Sequence[TrialRecord],
    pool: Pool,
    run: Path,
    left_s: Callable[[], float],
    progress: Progress,
) -> Walk:
    """Walks down all levels, or as far as time goes, which is then said.

    What an earlier session finished is taken over.
    """
    ledger, walk = Ledger(run), STANDING
    best = winners(rules, trained)
    for level, winner in best:
        name = level_name(rules.profile, level)
        if not ledger.holds(winner.id, 1) and left_s() < FINAL_FACTOR * winner.train_s:
            progress.say(f"walk: no time left for a teacher from {name}; it ends above")
            break
        what = f"walk  training the winner of {name}, {winner.id}"
        step = _step(rules, level, winner, walk, ledger, pool, run, partial(progress.status, what))
        if step is None:
            progress.say(f"walk: the winner of {name}, {winner.id}, could not be trained; left out")
            continue
        walk = Walk((*walk.steps, step))
    if not best:
        progress.say("walk: all candidates lie in one level; the teacher teaches all")
    for step in walk.steps:
        name = level_name(rules.profile, step.level)
        progress.say(f"walk: {step.id} of {name} ({step.val_score:.4f}) teaches what is smaller")
    return walk


def _step(
    rules: Rules,
    level: int,
    winner: TrialRecord,
    walk: Walk,
    ledger: Ledger,
    pool: Pool,
    run: Path,
    show: Callable[[], None],
) -> Step | None:
    """Trains a winner and asks it everything; None if it diverges or workers keep dying.

    Args:
        show: is called every second meanwhile.
    """
    teacher, name = walk.teacher_of(rules, winner.cost)
    lessons = run / "trained" / f"lessons-{winner.id}.npz"
    for _ in range(MOST_DEATHS):
        try:
            if not ledger.holds(winner.id, 1):
                job = final_training(rules, (winner, 1), teacher)
                result = _awaited(pool.submit(train, job), show)
                ledger.add((winner, 1), result.model, result.val_score, name)
                lessons.unlink(missing_ok=True)  # those of another training
            if not lessons.exists():
                model = model_file(run / "trained", winner.id, 1)
                write_atomic(lessons, _awaited(pool.submit(hand_down, model), show))
        except FloatingPointError:
            return None
        except BrokenProcessPool:
            pool.replace()
        else:
            taught_by = ledger.teachers(winner.id)[1]
            return Step(level, winner.id, lessons, ledger.scores(winner.id)[1], taught_by)
    return None


def _awaited(future: "Future[Any]", show: Callable[[], None]) -> Any:
    """The result of a job."""
    while not future.done():
        show()
        wait([future], timeout=1.0)
    return future.result()
