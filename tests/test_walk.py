"""Down the memory levels: who teaches whom, and what a run says of it."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_end_to_end import World
from test_search import FRONT, FakePool, final_score, rules, units

from nas.hardware.profile import Profile, load_profile
from nas.progress import Progress
from nas.run_folder import TrialRecord, read_front, read_json
from nas.search.clock import reserved_s
from nas.search.finals import Finalist, train_finals
from nas.search.ledger import LEDGER, Ledger
from nas.search.rules import Rules
from nas.search.walk import STANDING, Walk, descend, level_name, level_of, winners
from nas.training.evaluate import Trained
from nas.training.recipe import FINAL_FACTOR, FINAL_SEEDS
from nas.training.workers import MOST_DEATHS, Training, hand_down, train, train_several

TEACHER = Path("teacher.npz")
Answer = Callable[[Training], Trained]


def footprint(record: TrialRecord) -> int:
    return record.cost.ram_bytes + record.cost.weight_bytes


def stairs() -> Profile:
    """FRONT[0], [1] lie in `close`, [2], [3] in `near`, [4], [5] in the Flash."""
    whole = load_profile("cortex-m4-32k")
    sizes = (footprint(FRONT[1]), footprint(FRONT[3]))
    return replace(whole, level_names=("close", "near"), level_bytes=sizes)


def walking() -> Rules:
    return replace(rules(), profile=stairs(), teacher=TEACHER, distil="walk")


class WalkPool(FakePool):
    """Also answers what is asked of a trained model; notes each job and what teaches it."""

    def __init__(self, answer: Answer = final_score) -> None:
        super().__init__(answer)
        self.log: list[tuple[int | str, str]] = []

    def submit(self, function: Any, job: Any) -> "Future[Any]":
        if function is hand_down:
            self.log.append(("asked", job.name))
            future: Future[Any] = Future()
            future.set_result(f"lessons of {job.name}".encode())
            return future
        jobs = job if function is train_several else [job]
        assert function in (train, train_several)
        self.log += [(units(each), each.teacher.name) for each in jobs]
        return super().submit(function, job)


def walked(
    pool: FakePool, run: Path, left_s: float = float("inf"), given: Rules | None = None
) -> Walk:
    chosen = given or walking()
    return descend(chosen, FRONT, pool, run, lambda: left_s, Progress(quiet=True))  # type: ignore[arg-type]


def test_a_level_holds_ram_and_weights() -> None:
    profile = stairs()
    assert [level_of(profile, record.cost) for record in FRONT] == [0, 0, 1, 1, 2, 2]
    assert [level_name(profile, level) for level in range(3)] == ["close", "near", "Flash"]
    cost = FRONT[1].cost
    for name in ("ram_bytes", "weight_bytes"):
        assert level_of(profile, replace(cost, **{name: getattr(cost, name) + 1})) == 1  # type: ignore[arg-type]


def test_no_level_is_larger_than_what_the_application_leaves() -> None:
    profile = load_profile("cortex-m4-64k")
    cost = replace(FRONT[0].cost, weight_bytes=0)
    sizes = (16_384, 16_385, profile.ram_budget_bytes, profile.ram_budget_bytes + 1)
    assert [level_of(profile, replace(cost, ram_bytes=size)) for size in sizes] == [0, 1, 1, 2]


def test_winners_from_the_top_without_the_lowest() -> None:
    assert winners(walking(), FRONT) == [(2, FRONT[5]), (1, FRONT[3])]
    assert winners(walking(), [FRONT[0], FRONT[4]]) == [(2, FRONT[4])], "an empty level is skipped"
    assert winners(walking(), FRONT[:2]) == [] == winners(walking(), [])
    twin = replace(FRONT[5], number=9)
    assert winners(walking(), [FRONT[0], FRONT[5], twin])[0][1] is FRONT[5], "the first of equals"


def test_each_winner_is_taught_from_above_and_teaches_below(tmp_path: Path) -> None:
    pool = WalkPool()
    walk = walked(pool, tmp_path)
    top, middle = FRONT[5], FRONT[3]
    assert pool.log == [
        (units_of(top), "teacher.npz"),
        ("asked", f"{top.id}.1.npz"),
        (units_of(middle), f"lessons-{top.id}.npz"),
        ("asked", f"{middle.id}.1.npz"),
    ]
    assert all(job.final and not job.features for job in pool.jobs)
    given, by = walking(), [f"lessons-{r.id}.npz" for r in (middle, middle, top, top)]
    named = [walk.teacher_of(given, record.cost) for record in FRONT]
    assert [file.name for file, _ in named if file] == [*by, "teacher.npz", "teacher.npz"]
    assert [name for _, name in named] == [middle.id] * 2 + [top.id] * 2 + ["teacher"] * 2
    assert walk.steps[0].file.read_bytes() == f"lessons of {top.id}.1.npz".encode()
    said = walk.to_json(stairs())
    assert [(step["level"], step["candidate"], step["taught_by"]) for step in said] == [
        ("Flash", top.id, "teacher"),
        ("near", middle.id, top.id),
    ]
    assert said[1]["val_score"] == Ledger(tmp_path).scores(middle.id)[1]


def units_of(record: TrialRecord) -> int:
    return int(record.architecture["units"])


def test_without_a_walk_the_teacher_teaches_all() -> None:
    given = walking()
    assert {STANDING.teacher_of(given, r.cost) for r in FRONT} == {(TEACHER, "teacher")}
    assert STANDING.teacher_of(rules(), FRONT[0].cost) == (None, "none")


def finals(pool: FakePool, run: Path, walk: Walk) -> list[Finalist]:
    return train_finals(
        walking(),
        FRONT,
        pool,  # type: ignore[arg-type]
        run,
        lambda: float("inf"),
        Progress(quiet=True),
        walk,
    )


def test_finals_follow_the_walk_and_remember_it(tmp_path: Path) -> None:
    walk, pool = walked(WalkPool(), tmp_path), WalkPool()
    finalists = finals(pool, tmp_path, walk)
    expected = {units_of(r): walk.teacher_of(walking(), r.cost) for r in FRONT}
    assert {job.graph.shapes["o"][2]: job.teacher for job in pool.jobs} == {
        u: file for u, (file, _) in expected.items()
    }
    assert len(pool.jobs) == len(FRONT) * FINAL_SEEDS - 2, "the winners had their first"
    for finalist in finalists:
        _, name = expected[units_of(finalist.record)]
        assert finalist.teachers == dict.fromkeys(range(1, FINAL_SEEDS + 1), name)
    entries = json.loads((tmp_path / "trained" / LEDGER).read_text())
    assert entries[f"{FRONT[0].id} 1"]["taught_by"] == FRONT[3].id


def test_a_walk_of_an_earlier_session_is_taken_over(tmp_path: Path) -> None:
    first, again = walked(WalkPool(), tmp_path), WalkPool()
    assert walked(again, tmp_path, left_s=0.0) == first and again.log == []
    first.steps[1].file.unlink()
    assert walked(again, tmp_path) == first
    assert again.log == [("asked", f"{FRONT[3].id}.1.npz")]


def test_a_teacher_that_was_trained_again_is_asked_again(tmp_path: Path) -> None:
    first = walked(WalkPool(), tmp_path)
    (tmp_path / "trained" / f"{FRONT[5].id}.1.npz").unlink()
    first.steps[0].file.write_bytes(b"of the lost one")
    assert walked(WalkPool(), tmp_path).steps[0].file.read_bytes() != b"of the lost one"


def test_without_time_the_walk_ends_above(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = FINAL_FACTOR * FRONT[5].train_s
    assert walked(WalkPool(), tmp_path, left_s=seconds - 0.1).steps == ()
    assert "walk: no time left for a teacher from Flash; it ends above" in capsys.readouterr().out
    assert len(walked(WalkPool(), tmp_path, left_s=seconds).steps) == 2


def test_one_level_alone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = replace(walking(), profile=load_profile("cortex-m4-32k"))
    pool = WalkPool()
    assert walked(pool, tmp_path, given=given).steps == () and pool.log == []
    assert "walk: all candidates lie in one level; the teacher teaches all" in (
        capsys.readouterr().out
    )


def test_a_winner_that_diverges_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(job: Training) -> Trained:
        if units(job) == units_of(FRONT[5]):
            raise FloatingPointError("diverged")
        return final_score(job)

    pool = WalkPool(answer)
    assert [step.taught_by for step in walked(pool, tmp_path).steps] == ["teacher"]
    assert f"the winner of Flash, {FRONT[5].id}, could not be trained" in capsys.readouterr().out


@pytest.mark.parametrize("deaths", (1, 1000))
def test_a_killed_worker_is_replaced_but_not_for_ever(deaths: int, tmp_path: Path) -> None:
    died: list[int] = []

    def answer(job: Training) -> Trained:
        if len(died) < deaths:
            died.append(1)
            raise BrokenProcessPool
        return final_score(job)

    pool = WalkPool(answer)
    steps = walked(pool, tmp_path).steps
    assert (len(steps), pool.replaced) == ((2, 1) if deaths == 1 else (0, 2 * MOST_DEATHS))


def test_a_walk_reserves_time() -> None:
    walk, plain = walking(), replace(walking(), distil="logits")
    more = reserved_s(walk, FRONT, 2, 9000.0) - reserved_s(plain, FRONT, 2, 9000.0)  # type: ignore[arg-type]
    assert more == pytest.approx(2 * FINAL_FACTOR * 10.0)


# ---------------------------------------------------------------- a whole run


def test_a_run_that_walks_says_who_taught_whom(tmp_path: Path) -> None:
    world = World(tmp_path)
    device = tmp_path / "steps.toml"
    shipped = Path("hardware_profiles/cortex-m4-32k.toml").read_text()
    names, sizes = "1 RAM block", "8_192, 16_384, 32_768"
    assert f'"{names}", "2 RAM blocks", "4 RAM blocks"' in shipped and sizes in shipped
    device.write_text(
        shipped.replace(f'["{names}", ', '["bank", "1 RAM block", ').replace(
            sizes, f"5_120, {sizes}"
        )
    )
    arguments = ("--data", world.data, "--distil", "walk", "--validation", "split")
    run = tmp_path / "run"
    world.search(*arguments, "--device", device, "--trials", 5, "--no-verify", "--out", run)
    manifest = read_json(run / "run.json")
    assert manifest["distil"] == "walk" and manifest["walk"]
    taught = {}
    for row in read_front(run):
        document = read_json(run / "candidates" / row["id"] / "architecture.json")
        taught[row["id"]] = document["training"]["taught_by"]
    teachers = {step["candidate"] for step in manifest["walk"]}
    assert set(taught.values()) <= teachers | {"teacher"}
    assert set(taught.values()) & teachers
    page = (run / "report.html").read_text()
    assert "level by level of the memory" in page
