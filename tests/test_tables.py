"""Tables for the terminal: which figures they call measured, modelled or predicted."""

from pathlib import Path

import pytest
from made_up_run import PROFILE, student, verdict, write_run

from nas import tables
from nas.calibration.fit import Fit
from nas.calibration.table import CoreTable
from nas.hardware.budget import Budget, price
from nas.run_folder import read_front, write_front


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that shows every column."""
    console = tables.Console(highlight=False, width=250)
    monkeypatch.setattr(tables, "_console", lambda: console)


def words(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that were printed, their words one space apart."""
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_front_after_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", candidates=4)  # the first and the last were not run
    tables.print_front(run)
    lines = words(capsys)
    for number, row in enumerate(read_front(run)):
        (line,) = [line for line in lines if line.startswith(row["id"])]
        sign = "" if number in (1, 2) else "~"
        ram, flash = int(row["ram_bytes"]), int(row["flash_bytes"])
        assert f" {sign}{ram:,} {sign}{flash:,} {sign}{float(row['latency_ms']):.2f} " in line
        assert (ram == verdict(number).measured_ram_bytes) is (not sign)
        assert line.count("~") == 3 * len(sign)
    assert "4 candidates; scores with 90 % intervals" in lines
    kinds = "RAM and Flash measured on the emulated chip; ms modelled there, +-10 %"
    assert f"{kinds}; ~ predicted, not run" in lines
    (told,) = [line for line in lines if line.startswith("On the 2 candidates of this run that")]
    assert told.endswith("cycles by 5.0 % in the mean and 5.0 % at most.")


def test_a_front_with_a_stepwise_form_shows_its_ram(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", candidates=2)
    tables.print_front(run)
    assert "stepwise B" not in capsys.readouterr().out
    first, second = read_front(run)
    write_front(run, [first | {"streamed_ram_bytes": "1008.0"}, second])
    tables.print_front(run)
    lines = words(capsys)
    assert any("Flash B stepwise B ms" in line for line in lines)
    (line,) = [line for line in lines if line.startswith(first["id"])]
    assert " ~1,008 ~" in line
    (line,) = [line for line in lines if line.startswith(second["id"])]
    assert " - ~" in line


def test_a_front_that_was_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_front(write_run(tmp_path / "run", candidates=1))
    lines = words(capsys)
    assert "~ RAM, Flash, ms are predicted; nas verify measures them" in lines
    assert not [line for line in lines if "measured" in line or line.startswith("On the")]


def test_all_that_were_run_need_no_sign() -> None:
    assert tables.kinds_text(3, 3).endswith("+-10 %")


def test_an_estimate_is_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    priced = price(student(0).lower(), PROFILE)
    tables.print_cost(priced, PROFILE, Budget(20_000, 100_000, None, None))
    lines = words(capsys)
    kinds = {line.split()[0]: line for line in lines if line.split()[:1]}
    assert kinds["RAM"].endswith("B predicted, of 20,000")
    assert kinds["Flash"].endswith("B predicted, of 100,000")
    assert kinds["latency"].endswith("ms predicted")
    assert kinds["energy"].endswith("uJ predicted, core only")
    assert kinds["arena"].endswith("B exact") and kinds["weights"].endswith("B exact")


def test_what_a_calibration_found(capsys: pytest.CaptureFixture[str]) -> None:
    fit = Fit({"call": 9.0}, {}, (0.0, 0.0), 1234, 0.0121, 0.0428)
    rows = {"kernels": {"conv_8": {"stack_bytes": 352}}}
    tables.print_calibration({"fpu": CoreTable(rows, {"conv_8": fit})})
    assert "fpu conv_8 1,234 1.2% 4.3% 352" in words(capsys)
