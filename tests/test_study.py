"""The study on disk: constraints, samplers, resuming, and what is refused."""

import gc
import resource
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest
from made_up_rules import rules_for
from optuna import distributions
from optuna.trial import FrozenTrial, TrialState

from nas.cli import SAMPLERS as OFFERED
from nas.errors import RunError, UsageError
from nas.run_folder import CostSummary, Status, TrialRecord
from nas.search import storage, study
from nas.search.exact_cost import ExactCostSampler
from nas.search.samplers import SAMPLERS, sampler_of
from nas.search.study import Study, default_storage, open_study, session_seed

OBJECTIVES = ("error", "ram")
VALUES = {"error": 0.25, "ram": 1000.0, "flash": 1.0}
RULES = rules_for(*OBJECTIVES, ram_bytes=30_000, flash_bytes=100_000)
COST = CostSummary(1, 2, 3, 4, 0.1, 0.2, "8/2", "a+b")


def opened(
    folder: Path,
    objectives: tuple[str, ...] = OBJECTIVES,
    sampler: str = "random",
    resume: bool = False,
) -> Study:
    return open_study(default_storage(folder), objectives, sampler_of(sampler, RULES), 0, resume)


def record(number: int, status: Status = "trained") -> TrialRecord:
    score = 0.75 if status == "trained" else None
    return TrialRecord(number, f"c{number:012x}", status, score, COST, 1.0, 2.0, "", {"k": [1]})


def finish(held: Study, status: Status = "trained", excess: float = -0.5) -> TrialRecord:
    trial = held.ask()
    trial.suggest_int("gene", 0, 10**6)
    done = record(trial.number, status)
    held.note(trial, done, {"ram": excess, "flash": -0.1})
    held.tell(trial, done, VALUES)
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a study with one trial."""
    folder = tmp_path_factory.mktemp("made")
    held = opened(folder)
    finish(held)
    held.close()
    assert [file.name for file in folder.iterdir()] == ["study.db"]
    return (folder / "study.db").read_bytes()


def stored(folder: Path) -> list[FrozenTrial]:
    """The trials as another program sees them."""
    loaded = optuna.load_study(study_name=study.STUDY_NAME, storage=default_storage(folder))
    return loaded.get_trials()


CLASSES = {
    "exact": ExactCostSampler,
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "nsga3": optuna.samplers.NSGAIIISampler,
    "gp": optuna.samplers.GPSampler,
    "random": optuna.samplers.RandomSampler,
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_by_name(name: str) -> None:
    held = open_study("sqlite://", OBJECTIVES, sampler_of(name, RULES), 0, False)
    assert type(held._study.sampler) is CLASSES[name]
    finish(held)
    finish(held)
    assert len(held.records) == 2


def test_the_command_line_offers_every_sampler() -> None:
    assert set(OFFERED) == set(SAMPLERS)


def test_a_trial_waits_for_no_disk(tmp_path: Path) -> None:
    """A trial of fifty genes is as many commits; what is not yet in the file is in its log."""
    held = opened(tmp_path)
    finish(held)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"study.db", "study.db-wal", "study.db-shm"}
    with held._study._storage._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
    held.close()
    assert {file.name for file in tmp_path.iterdir()} == {"study.db"}
    assert len(stored(tmp_path)) == 1
    finish(held)  # opens it again
    assert len(stored(tmp_path)) == 2


def test_unknown_sampler(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sampler 'best': not one of exact, tpe"):
        opened(tmp_path, sampler="best")
    assert not list(tmp_path.iterdir())


def test_what_a_trial_leaves(tmp_path: Path) -> None:
    held = opened(tmp_path)
    trained, refused, failed = (
        finish(held, "trained"),
        finish(held, "infeasible", excess=1.5),
        finish(held, "failed"),
    )
    assert held.records == [trained, refused, failed]
    trials = stored(tmp_path)
    assert [t.state for t in trials] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    # A refused trial has values too: samplers learn from its constraint.
    assert [t.values for t in trials] == [[0.25, 1000.0], [0.25, 1000.0], None]
    assert [t.constraints for t in trials] == [
        {"ram": -0.5, "flash": -0.1},
        {"ram": 1.5, "flash": -0.1},
        {"ram": -0.5, "flash": -0.1},
    ]


def test_a_sampler_prefers_what_is_feasible(tmp_path: Path) -> None:
    held = opened(tmp_path)
    finish(held, "infeasible", excess=1.0)
    finish(held, "trained")
    best = optuna.load_study(
        study_name=study.STUDY_NAME, storage=default_storage(tmp_path)
    ).best_trials
    assert [trial.number for trial in best] == [1]


def recovered(folder: Path, holds: bool = True) -> tuple[Study, tuple[int, int]]:
    again = opened(folder, resume=True)
    return again, again.recover(lambda _: holds, lambda _: VALUES, folder)


def test_resuming_returns_the_records_and_queues_what_ran(tmp_path: Path) -> None:
    held = opened(tmp_path)
    done = [finish(held), finish(held, "infeasible", 1.0), finish(held, "failed")]
    killed = held.ask()
    killed.set_constraint("ram", 0.25)
    gene = killed.suggest_int("gene", 0, 10**6)
    held.ask()  # killed before its first gene: nothing to try again
    assert [t.state for t in stored(tmp_path)][3:] == [TrialState.RUNNING] * 2
    again, counts = recovered(tmp_path)
    assert again.records == done and counts == (0, 1)
    states = [t.state for t in stored(tmp_path)][3:]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.WAITING]
    assert recovered(tmp_path)[1] == (0, 0)
    trial = again.ask()
    assert trial.number == 5 and trial.suggest_int("gene", 0, 10**6) == gene
    again.note(trial, record(5), {"ram": -0.5})
    again.tell(trial, record(5), VALUES)
    assert stored(tmp_path)[5].constraints == {"ram": -0.5}, "not those of the killed trial"
    assert len(opened(tmp_path, resume=True).records) == 4


@pytest.mark.parametrize("status", ("trained", "infeasible", "duplicate", "failed"))
def test_a_trial_that_was_noted_and_not_told(status: Status, tmp_path: Path) -> None:
    held = opened(tmp_path)
    trial = held.ask()
    trial.suggest_int("gene", 0, 10**6)
    held.note(trial, record(0, status), {"ram": -0.5})
    again, counts = recovered(tmp_path)
    assert counts == (1, 0) and again.records == [record(0, status)]
    expected = TrialState.FAIL if status == "failed" else TrialState.COMPLETE
    assert [t.state for t in stored(tmp_path)] == [expected]
    assert opened(tmp_path, resume=True).records == [record(0, status)]


def test_a_training_without_its_model_is_no_record(tmp_path: Path) -> None:
    held = opened(tmp_path)
    trial = held.ask()
    trial.suggest_int("gene", 0, 10**6)
    held.note(trial, record(0), {"ram": -0.5})
    again, counts = recovered(tmp_path, holds=False)
    assert counts == (0, 1) and again.records == []
    assert opened(tmp_path, resume=True).records == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    held = opened(tmp_path)
    done = finish(held)
    size = (tmp_path / "study.db").stat().st_size
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(RunError, match="the study cannot be written") as error, held.guarded():
            for _ in range(1000):
                finish(held)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    text = str(error.value)
    assert "study.db" in text and "disk" in text and "free space" in text and "\n" not in text
    again, _ = recovered(tmp_path)
    assert again.records[0] == done and again.records == held.records
    finish(again)


def test_two_sessions_on_one_study_are_one_line(tmp_path: Path) -> None:
    held = opened(tmp_path)
    trial = held.ask()
    recovered(tmp_path)  # another session takes our trial for a killed one
    with pytest.raises(RunError, match="for one session at a time"), held.guarded():
        held.put_back(trial)
        held.note(trial, record(0), {"ram": 0.0})


def test_an_existing_study_needs_resume(made: bytes, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(made)
    with pytest.raises(RunError, match="holds a study already; add --resume"):
        opened(tmp_path)


@pytest.mark.parametrize("others", (("error", "ram", "flash"), ("ram", "error"), ("error",)))
def test_other_objectives_are_refused(others: tuple[str, ...], made: bytes, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(made)
    with pytest.raises(RunError, match="its objectives are error, ram; resume with the same"):
        opened(tmp_path, objectives=others, resume=True)


def test_sessions_of_one_run_draw_different_trials(tmp_path: Path) -> None:
    assert session_seed(0, 0) == session_seed(0, 0) < 2**32
    assert len({session_seed(seed, trials) for seed in range(4) for trials in range(25)}) == 100
    genes = []
    for session in range(2):
        held = opened(tmp_path, resume=session > 0)
        for _ in range(2):
            finish(held)
        genes.append([t.params["gene"] for t in stored(tmp_path)][-2:])
    assert genes[0] != genes[1]


def test_equal_seeds_draw_equal_trials(tmp_path: Path) -> None:
    genes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        held = opened(tmp_path / name)
        for _ in range(2):
            finish(held)
        genes.append([t.params["gene"] for t in stored(tmp_path / name)])
    assert genes[0] == genes[1]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda data: data[: len(data) // 2],
    "a page": lambda data: data[:4096],
    "100 bytes": lambda data: data[:100],
    "other bytes": lambda data: b"nothing like it" * 500,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_torn_study_is_one_line(damage: str, made: bytes, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(made)
    assert len(opened(tmp_path, resume=True).records) == 1
    (tmp_path / "study.db").write_bytes(DAMAGE[damage](made))
    with pytest.raises(RunError, match="the study cannot be opened") as error:
        opened(tmp_path, resume=True)
    text = str(error.value)
    assert "study.db" in text and "\n" not in text and text.endswith("with another --out")


def test_a_storage_that_is_no_storage() -> None:
    with pytest.raises(RunError, match="the study cannot be opened") as error:
        open_study("nowhere://x", OBJECTIVES, sampler_of("random", RULES), 0, False)
    assert str(error.value).startswith("nowhere://x: ")


def test_starts_are_asked_for_first_and_once(tmp_path: Path) -> None:
    held = opened(tmp_path)
    held.begin_with([{"gene": 3, "kind": "b"}, {"gene": 4, "kind": "a"}])
    drawn = []
    for _ in range(4):
        trial = held.ask()
        drawn.append((trial.suggest_int("gene", 0, 10**6), trial.suggest_categorical("kind", "ab")))
        held.note(trial, record(trial.number), {"ram": -0.5})
        held.tell(trial, record(trial.number), VALUES)
    assert drawn[:2] == [(3, "b"), (4, "a")]
    assert all(gene > 4 for gene, _ in drawn[2:])
    held.begin_with([{"gene": 3, "kind": "b"}])  # by a resumed session
    assert held.ask().suggest_int("gene", 0, 10**6) > 4


def test_starts_that_a_kill_kept_from_the_queue_are_queued_later(tmp_path: Path) -> None:
    held, starts = opened(tmp_path), [{"gene": gene, "kind": "b"} for gene in range(3)]
    held.begin_with(starts[:2])
    assert held.ask().suggest_int("gene", 0, 10**6) == 0
    held.begin_with(starts)
    assert [held.ask().suggest_int("gene", 0, 10**6) for _ in starts[1:]] == [1, 2]


@pytest.mark.parametrize("asked", (0, 1))
@pytest.mark.parametrize("killed", (False, True))
def test_a_queued_trial_that_is_stopped_while_drawn_comes_again_whole(
    killed: bool, asked: int, tmp_path: Path
) -> None:
    held, genes = opened(tmp_path), {"gene": 3, "kind": "b"}
    held.begin_with([genes])
    trial = held.ask()
    for _ in range(asked):
        trial.suggest_int("gene", 0, 10**6)
    if killed:
        held, counts = recovered(tmp_path)
        assert counts == (0, 1)
    else:
        held.put_back(trial)
    again = held.ask()
    drawn = again.suggest_int("gene", 0, 10**6), again.suggest_categorical("kind", "ab")
    assert drawn == tuple(genes.values())


def test_reading_much_leaves_no_trace(made: bytes, tmp_path: Path) -> None:
    before = distributions.json_to_distribution
    for content in (made, b"torn"):
        (tmp_path / "study.db").write_bytes(content)
        with pytest.raises(RunError) if content == b"torn" else nullcontext():
            assert opened(tmp_path, resume=True).records
        assert gc.isenabled() and distributions.json_to_distribution is before


def test_a_study_is_read_in_bulk_as_optuna_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = default_storage(tmp_path)
    for name in (study.STUDY_NAME, "other"):
        held = optuna.create_study(storage=url, study_name=name)
        held.enqueue_trial({"x": 1.5}, user_attrs={"note": ["a", 1]})
        for place in range(6):
            trial = held.ask()
            trial.suggest_float("x", 0.1, 9.0, log=True)
            trial.suggest_categorical("kind", (None, "b", 2, False))
            trial.suggest_int("n", 2, 8, step=2)
            trial.report(0.5, place)
            trial.set_constraint("ram", place - 2.5)
            if place < 3:
                held.tell(trial, (0.25, float("inf"), -float("inf"))[place])
            elif place < 5:
                held.tell(trial, state=(TrialState.FAIL, TrialState.PRUNED)[place - 3])
        held.enqueue_trial({"x": 2.0})
    loaded = optuna.load_study(study_name=study.STUDY_NAME, storage=url)
    expected = loaded.get_trials()
    assert {trial.state for trial in expected} == set(TrialState)
    backend = storage.open_file(url)
    read = optuna.load_study(study_name=study.STUDY_NAME, storage=backend)
    with monkeypatch.context() as patched:
        patched.delattr(optuna.storages.RDBStorage, "_get_trials")
        trials = read.get_trials()
    assert [vars(trial) for trial in trials] == [vars(trial) for trial in expected]
    loaded.tell(5, 0.5)  # what runs is looked at again, by its number
    assert read.get_trials() == loaded.get_trials()
    backend.engine.dispose()
