"""run.json: what a run was asked to do, and which folders can be gone on with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_end_to_end import write_data

from nas.data.task import load_task
from nas.errors import RunError
from nas.hardware.budget import Budget
from nas.hardware.profile import load_profile
from nas.manifest import Options, open_manifest, shown_storage
from nas.run_folder import write_json
from nas.space import problem_of
from nas.training.teaching import choose_teacher
from nas.training.validation import judging
from search_spaces import SPACES


@pytest.fixture
def options(tmp_path: Path) -> Options:
    data = write_data(tmp_path / "toy.npz")
    return Options(
        task=None,
        data=str(data),
        modalities=None,
        device="cortex-m4-32k",
        space=SPACES["conv"],
        teacher=None,
        trials=4,
        budget_s=None,
        objectives=("error", "ram"),
        metric="accuracy",
        max_latency_ms=None,
        max_weight_bytes=None,
        sampler="tpe",
        distil="logits",
        validation=None,
        verify=True,
        cc=None,
        workers=2,
        storage=None,
        out=tmp_path / "run",
        seed=1,
        resume=False,
        quiet=True,
    )


def manifest(options: Options) -> dict[str, Any]:
    assert options.data is not None
    budget = Budget(1000, 1000, options.max_latency_ms, options.max_weight_bytes)
    task, profile = load_task(options.data, options.modalities), load_profile(options.device)
    chosen = choose_teacher(options.teacher, problem_of(task))
    return open_manifest(options, task, judging(task, options.validation), profile, budget, chosen)


def begun(options: Options) -> Options:
    """The options that go on with a run that these began."""
    write_json(options.out / "run.json", manifest(options) | {"ended": "now", "elapsed_s": 5.0})
    (options.out / "study.db").touch()
    return replace(options, resume=True)


def test_a_resumed_run_keeps_its_history_and_says_how_it_is_run_now(options: Options) -> None:
    held = manifest(replace(begun(options), workers=7, sampler="random"))
    assert (held["workers"], held["sampler"], held["ended"]) == (7, "random", None)
    assert held["elapsed_s"] == 5.0 and held["seed"] == 1


def test_a_data_file_may_move(options: Options, tmp_path: Path) -> None:
    again = begun(options)
    moved = Path(str(again.data)).rename(tmp_path / "moved.npz")
    assert manifest(replace(again, data=str(moved)))["data"]["path"] == str(moved.resolve())


CHANGES: dict[str, Callable[[Options], Options]] = {
    "space is 'other' and was 'conv'": lambda o: replace(o, space=replace(o.space, name="other")),
    "objectives is ['error'] and was ['error', 'ram']": lambda o: replace(o, objectives=("error",)),
    "metric is 'macro_f1' and was 'accuracy'": lambda o: replace(o, metric="macro_f1"),
    "seed is 2 and was 1": lambda o: replace(o, seed=2),
    "modalities is ['wave'] and was ['wave', 'level']": lambda o: replace(o, modalities=("wave",)),
    "the content of profile cortex-m4-64k has hash": lambda o: replace(o, device="cortex-m4-64k"),
    "teacher_kind is 'both' and was 'conv'": lambda o: replace(o, teacher="both"),
    "distil is None and was 'logits'": lambda o: replace(o, distil=None),
    "limits is [None, 7] and was [None, None]": lambda o: replace(o, max_weight_bytes=7),
    "storage is 'postgresql://u:***@h/d' and was None": lambda o: replace(
        o, storage="postgresql://u:secret@h/d"
    ),
}


@pytest.mark.parametrize("named", CHANGES)
def test_another_run_is_refused(named: str, options: Options) -> None:
    with pytest.raises(RunError) as error:
        manifest(CHANGES[named](begun(options)))
    assert named in str(error.value) and "another --out" in str(error.value)


def test_trials_of_another_cost_table_are_not_gone_on_with(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = begun(options)
    monkeypatch.setattr("nas.manifest.table_hash", lambda: "123")
    with pytest.raises(RunError, match=r"cost_table is '123' and was '[0-9a-f]{12}' when the run"):
        manifest(again)


def test_a_study_without_run_json(options: Options) -> None:
    options.out.mkdir()
    (options.out / "study.db").touch()
    with pytest.raises(RunError, match=r"holds a study without run\.json; choose another"):
        manifest(options)
    # Killed between the two: nothing was asked yet, and --resume begins.
    assert manifest(replace(options, resume=True))["ended"] is None


def test_a_run_without_its_study(options: Options) -> None:
    again = begun(options)
    (options.out / "study.db").unlink()
    with pytest.raises(RunError, match=r"study\.db: missing, so nothing to resume"):
        manifest(again)


@pytest.mark.parametrize(
    ("url", "shown"),
    (
        ("sqlite:////data/run/study.db", "sqlite:////data/run/study.db"),
        ("postgresql://anna:p4ss:w/rd@host:5432/nas", "postgresql://anna:***@host:5432/nas"),
        ("postgresql+psycopg://anna@host:5432/nas", "postgresql+psycopg://anna@host:5432/nas"),
    ),
)
def test_no_password_is_kept(url: str, shown: str) -> None:
    assert shown_storage(url) == shown
