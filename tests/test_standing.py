"""How a run stands: the figures, the file that a run keeps, and what `nas status` makes of it."""

import datetime
import fcntl
import json
import threading
from pathlib import Path

import pytest
from made_up_rules import rules_for

from nas import progress as progress_module
from nas.cli import main
from nas.errors import RunError
from nas.progress import PROGRESS_FILE, Progress
from nas.run_folder import (
    FRONT_COLUMNS,
    CostSummary,
    Status,
    TrialRecord,
    locked,
    write_front,
    write_json,
)
from nas.search.clock import Clock
from nas.search.rules import OBJECTIVES
from nas.search.standing import Board, describe_run, standing_of

NOW = datetime.datetime(2026, 11, 22, 3, 0, tzinfo=datetime.UTC)


def record(number: int, score: float | None, ram: int, status: Status = "trained") -> TrialRecord:
    cost = CostSummary(ram, 100, ram, 9000 - ram, 2.5, 1.0, "8", "a")
    return TrialRecord(number, f"c{number}", status, score, cost, 1.0, 2.0, "", {})


RECORDS = [
    record(0, 0.9, 700),
    record(1, 0.8, 500),
    record(2, None, 10, "infeasible"),
    record(3, 0.9, 10, "duplicate"),
    record(4, None, 10, "failed"),
    record(5, None, 10, "stopped"),
]


def test_figures_by_hand() -> None:
    standing = standing_of(rules_for(*OBJECTIVES), RECORDS, 0.5)
    assert standing.line(1800.0, 600.0) == (
        "search  10:00 left  2 trained, 4 an hour  1 stopped  1 refused  1 duplicates"
        "  hypervolume 0.5000  best accuracy 0.9000, 500 B of RAM, 8,300 B of Flash, 2.5 ms"
        "  30:00 gone"
    )
    assert standing.lines(1800.0, None) == [
        "trained      2, 4 an hour",
        "stopped      1 halfway, without hope of the front",
        "not trained  1 refused by their costs, 1 duplicates, 1 failed",
        "hypervolume  0.5000",
        "best         accuracy 0.9000 (c0), 500 B of RAM (c1), 8,300 B of Flash (c0), 2.5 ms (c0)",
        "searched     30:00, no end set",
    ]


def test_before_the_first_training() -> None:
    standing = standing_of(rules_for("error", "ram"), [], 0.0)
    assert "  best -  " in standing.line(1.0, float("inf")) and "left" not in standing.line(
        1, 1e400
    )
    assert "best         none yet" in standing.lines(1.0, 60.0)


def kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run leaves that has trained two networks."""
    monkeypatch.setattr(progress_module, "KEEP_EVERY_S", 0.0)
    progress = Progress(quiet=True, run=run)
    standing = standing_of(rules_for(*OBJECTIVES), RECORDS, 0.5)
    progress.figures({"search": standing.to_json(1800.0, 600.0)})
    progress.status("final trainings  3 of 9")


def test_a_run_is_looked_at_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    with locked(run):
        assert describe_run(run, NOW) == [f"{run}: running, nothing to tell yet"]
        kept(run, monkeypatch)
        document = json.loads((run / PROGRESS_FILE).read_text())
        write_json(run / PROGRESS_FILE, document | {"at": "2026-11-22T02:59:57+00:00"})
        lines = describe_run(run, NOW)
        assert lines[:2] == [
            f"{run}: running, seen 0:03 ago",
            "now          final trainings  3 of 9",
        ]
        assert "trained      2, 4 an hour" in lines
        late = describe_run(run, NOW + datetime.timedelta(minutes=5))[0]
        assert late.endswith("5:03 ago; that is long: look at its terminal")
        back = describe_run(run, NOW - datetime.timedelta(hours=1))[0]
        assert back.endswith("seen 0:00 ago"), "a clock was set back"
    first, *rest = describe_run(run, NOW)
    assert first == f"{run}: stopped 0:03 ago; --out {run} --resume goes on"
    assert not any(line.startswith("now") for line in rest)
    write_json(run / "run.json", {"ended": None})
    assert "stopped" in describe_run(run, NOW)[0]
    write_json(run / "run.json", {"ended": "2026-11-22T02:59:59+00:00"})
    assert describe_run(run, NOW)[0] == f"{run}: finished; nas pick {run}"
    write_front(run, [dict.fromkeys(FRONT_COLUMNS, "0")] * 3)
    write_json(run / "run.json", {"ended": "2026-11-22T02:59:59+00:00", "hypervolume": 0.25})
    lines = describe_run(run, NOW)[1:4]
    assert lines[:2] == [
        "front        3 networks, hypervolume 0.2500",
        "the search, before its final trainings:",
    ]
    assert lines[2].startswith("trained ")


def boarded(run: Path) -> Board:
    given = rules_for(*OBJECTIVES, flash_bytes=20_000)
    return Board(given, Clock(600.0), Progress(quiet=True, run=run))


def test_the_figures_of_the_last_session_stay_until_there_are_new_ones(tmp_path: Path) -> None:
    with locked(tmp_path):
        boarded(tmp_path).show(RECORDS[:1], exactly=True)
        Progress(quiet=True, run=tmp_path).status("teacher  1 of 5 members trained")
        lines = describe_run(tmp_path, NOW)
        assert "now          teacher  1 of 5 members trained" in lines
        assert "trained      1, 3600 an hour" in lines
        (tmp_path / PROGRESS_FILE).write_text("{")
        Progress(quiet=True, run=tmp_path).status("teacher  1 of 5 members trained")
        assert len(describe_run(tmp_path, NOW)) == 2, "what is torn is made anew"


def test_the_first_trainings_show_at_once(tmp_path: Path) -> None:
    board, shown = boarded(tmp_path), []
    board.show([], exactly=True)
    for count in (1, len(RECORDS)):
        board.show(RECORDS[:count])
        assert board.shown is not None
        shown.append((board.shown.trained, board.shown.hypervolume))
    assert [trained for trained, _ in shown] == [1, 2] and 0 < shown[0][1] < shown[1][1]


def test_at_its_end_a_search_shows_its_last_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.search.standing.FEW", 0)
    board = boarded(tmp_path)
    board.show(RECORDS[:1])
    board.show(RECORDS)
    first = board.shown
    assert first is not None and first.trained == 2
    board.show(RECORDS, exactly=True)
    assert board.shown is not None and board.shown.hypervolume > first.hypervolume > 0
    held = json.loads((tmp_path / PROGRESS_FILE).read_text())["search"]
    assert held["trained"] == 2 and held["hypervolume"] == board.shown.hypervolume


def test_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path):
        kept(tmp_path, monkeypatch)
        assert main(["status", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "running, seen 0:0" in out and "hypervolume  0.5000" in out
    assert main(["status", str(tmp_path / "nothing")]) == 1
    assert "not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", ({"at": "yesterday"}, {"search": {"trained": 1}}, {"line": None})
)
def test_what_another_version_wrote_is_refused(
    change: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(tmp_path):
        kept(tmp_path, monkeypatch)
    document = json.loads((tmp_path / PROGRESS_FILE).read_text()) | change
    held = {key: value for key, value in document.items() if value is not None}
    write_json(tmp_path / PROGRESS_FILE, held)
    with pytest.raises(RunError, match=r"progress\.json: .*; written by another version"):
        describe_run(tmp_path, NOW)


def test_figures_of_a_session_of_another_version_hide_no_run(tmp_path: Path) -> None:
    with locked(tmp_path):
        progress = Progress(quiet=True, run=tmp_path)
        progress.figures({"search": {"trained": 1}})
        progress.status("teacher  1 of 5 members trained")
        assert describe_run(tmp_path, NOW)[1:] == ["now          teacher  1 of 5 members trained"]


def test_a_full_disk_does_not_end_a_run_for_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RunError("disk full")

    monkeypatch.setattr(progress_module, "write_json", full)
    kept(tmp_path, monkeypatch)
    assert not (tmp_path / PROGRESS_FILE).exists()


def test_a_look_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    """Whoever looks holds the lock for a moment; a start waits that long."""
    with locked(tmp_path):
        pass
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.03, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with locked(tmp_path):
            pass
