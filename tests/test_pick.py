"""nas pick on small synthetic run folders: what it prints, copies and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_up_run import made_up_verdict
from test_choose import row

from nas import tables
from nas.choosing.battery import cells
from nas.choosing.choose import KNEE, FrontRow
from nas.cli import main
from nas.hardware.profile import load_profile
from nas.run_folder import FRONT_COLUMNS, write_front, write_json

BIG = row("c1aaaaaaaaaaa", 0.95, 4.0, error=0.01)
KNEE_ROW = row("c2bbbbbbbbbbb", 0.948, 2.0, error=0.01, weight_bits=(4, 4))
TINY = row("c2ccccccccccc", 0.70, 1.0, error=0.01, modalities=("accel",))
ROWS = [BIG, KNEE_ROW, TINY]
INPUTS = {
    "accel": {"kind": "series", "shape": [16, 4], "stored_bytes": 2},
    "rssi": {"kind": "series", "shape": [10, 10], "stored_bytes": 1},
}


def write_run(
    run: Path, rows: list[FrontRow], inputs: dict[str, Any], emulated: bool = True
) -> Path:
    columns = []
    for each in rows:
        plain: dict[str, Any] = dict.fromkeys(FRONT_COLUMNS, "")
        plain |= {name: getattr(each, name) for name in FrontRow.__slots__}
        plain["weight_bits"] = "/".join(map(str, each.weight_bits))
        plain["modalities"] = "+".join(each.modalities)
        columns.append(plain)
        used = {name: rule for name, rule in inputs.items() if name in each.modalities}
        write_json(run / "candidates" / each.id / "architecture.json", {"inputs": used})
        (run / "candidates" / each.id / "model.tflite").write_bytes(each.id.encode())
        if emulated:
            sizes = each.ram_bytes, each.flash_bytes, round(64_000 * each.latency_ms)
            write_json(
                run / "candidates" / each.id / "verdict.json",
                made_up_verdict(each.id, *sizes).to_json(),
            )
    write_front(run, columns)
    manifest = {
        "data": {"name": "wrist", "modalities": ["accel", "rssi", "gyro"]},
        "profile": load_profile("cortex-m4-32k").to_dict(),
        "budgets": {"ram_bytes": 20_000, "flash_bytes": 100_000},
    }
    write_json(run / "run.json", manifest)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", ROWS, INPUTS)


class Picks:
    """Runs `nas pick` and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object, status: int = 0) -> str:
        assert main(["pick", *map(str, arguments)]) == status
        captured = self._capsys.readouterr()
        if status:
            assert captured.out == "" and captured.err.count("\n") == 1
            return captured.err
        assert captured.err == ""
        return captured.out


@pytest.fixture
def picks(capsys: pytest.CaptureFixture[str]) -> Picks:
    return Picks(capsys)


def line_of(text: str, begin: str) -> str:
    """The line that begins so, its words one space apart."""
    (line,) = [line for line in text.splitlines() if " ".join(line.split()).startswith(begin)]
    return " ".join(line.split())


def test_the_knee_is_picked_and_explained(run: Path, picks: Picks) -> None:
    text = picks(run)
    assert text.startswith("wrist on cortex-m4-32k: 3 candidates\n")
    assert line_of(text, "* c2b").endswith(
        "0.948 (0.93-0.96) 1,000 2,000 8,000 2.00 20 accel+rssi 4/4"
    )
    assert " ".join(KNEE.split()) in " ".join(text.split())
    assert "c2bbbbbbbbbbb, the knee" in text and ">" not in text
    assert line_of(text, "RAM 2") == "RAM 2,000 bytes, 10 % of 20,000 (measured)"
    assert line_of(text, "Flash 8") == "Flash 8,000 bytes, 8 % of 100,000 (measured)"
    assert line_of(text, "latency") == (
        "latency 2 ms (modelled; 1.8 to 2.2 with the cycle model's 10 %)"
    )
    assert "\nRAM and Flash measured on the emulated chip; ms modelled there, +-10 %\n" in text
    assert "~" not in text and "predicted" not in text
    assert "2 ms x 3.7 mA x 3 V = 22.2 uJ (modelled, the core alone)" in text
    assert "1 byte (the class) instead of 228 (the raw window): 1/228" in text
    assert f"folder:  {run / 'candidates' / KNEE_ROW.id}" in text
    assert f"copy it: nas pick {run} {KNEE_ROW.id} --out FOLDER" in text
    assert "current" not in text


def test_what_was_not_run_is_predicted(tmp_path: Path, picks: Picks) -> None:
    run = write_run(tmp_path / "run", ROWS, INPUTS, emulated=False)
    text = picks(run, "--every-s", 1)
    assert line_of(text, "* c2b").endswith(" 1,000 ~2,000 ~8,000 ~2.00 ~20 accel+rssi 4/4")
    assert "\n~ RAM, Flash, ms are predicted; nas verify measures them\n" in text
    assert line_of(text, "RAM 2") == "RAM 2,000 bytes, 10 % of 20,000 (predicted)"
    assert line_of(text, "latency") == "latency 2 ms (predicted)."
    assert "22.2 uJ (predicted, the core alone)" in text and "Latency is predicted" in text
    assert "measured" not in text and "modelled" not in text


def test_a_prediction_beside_verdicts_has_their_error(run: Path, picks: Picks) -> None:
    (run / "candidates" / BIG.id / "verdict.json").unlink()
    text = picks(run, "c1")
    words = " ".join(text.split())
    assert "4,000 bytes, 20 % of 20,000 (predicted)" in words
    assert "On the 2 candidates of this run that ran on the emulated chip, predictions" in words
    assert "6.6 % at most, Flash by 1.9 % in the mean and 2.5 % at most, cycles" in words
    assert "cycles by 5.0 % in the mean and 5.0 % at most" in words
    assert line_of(text, "> c1aaaaaaaaaaa 0").count("~") == 4 and "~" not in line_of(text, "* c2b")
    assert "ms modelled there, +-10 %; ~ predicted, not run" in words


@pytest.mark.parametrize(
    "change", [{"measured_ram_bytes": None}, {"predicted_cycles": 0}, {"difference": {"a": 1}}]
)
def test_a_torn_verdict_is_an_error(run: Path, picks: Picks, change: dict[str, Any]) -> None:
    path = run / "candidates" / BIG.id / "verdict.json"
    document = json.loads(path.read_text())
    write_json(path, document | change)
    assert "verdict.json: " in picks(run, status=1)
    write_json(path, {"id": BIG.id})
    assert "nas verify writes it again" in picks(run, status=1)


def test_every_candidate_of_the_front_is_shown(tmp_path: Path, picks: Picks) -> None:
    rows = [row(f"c{i:012}", 0.5 + i / 100, 1.0 + i / 10) for i in range(40)]
    text = picks(write_run(tmp_path / "run", rows, INPUTS))
    assert all(each.id in text for each in rows)


def test_a_candidate_is_picked_by_the_beginning_of_its_id(run: Path, picks: Picks) -> None:
    text = picks(run, "c1")
    assert line_of(text, "> c1aaaaaaaaaaa 0.950") and line_of(text, "* c2b")
    assert "\n> c1aaaaaaaaaaa\n" in text and "the knee\n" not in text
    assert "more than one id begins so; take one of c2bbbbbbbbbbb, c2ccccccccccc" in picks(
        run, "c2", status=1
    )
    assert "no candidate's id begins so; take one of c1a" in picks(run, "x", status=1)
    assert "breaks the limits" in picks(run, "c1", "--max-ram-bytes", 2000, status=1)


def test_limits_of_the_command_line(run: Path, picks: Picks) -> None:
    for options, left in (
        (("--min-score", 0.9), (BIG, KNEE_ROW)),
        (("--max-ram-bytes", 2000), (KNEE_ROW, TINY)),
        (("--max-flash-bytes", 4000), (TINY,)),
        (("--max-latency-ms", 2), (KNEE_ROW, TINY)),
        (("--max-weight-bytes", 999), (TINY,)),
        (("--max-bits", 4), (KNEE_ROW,)),
        (("--sensors", "rssi,accel"), (BIG, KNEE_ROW)),
        (("--without", "rssi"), (TINY,)),
    ):
        text = picks(run, *options)
        assert f"3 candidates, {len(left)} within the limits" in text
        assert [each.id in text for each in ROWS] == [each in left for each in ROWS]
    assert "--sensors mic: no such sensor; it has accel, rssi, gyro" in picks(
        run, "--sensors", "mic", status=1
    )
    assert "nearest, c2ccccccccccc, has 1,000 bytes of RAM" in picks(
        run, "--max-ram-bytes", 9, status=1
    )


@pytest.mark.parametrize("option", [("--min-score", "95"), ("--max-bits", "3"), ("--less", "-1")])
def test_values_that_make_no_sense(run: Path, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        main(["pick", str(run), *option])


def test_the_ladder(run: Path, picks: Picks) -> None:
    text = picks(run, BIG.id)
    assert "What less Flash costs (--by ram, latency or weights: of those)" in text
    assert line_of(text, "c2bbbbbbbbbbb 8") == "c2bbbbbbbbbbb 8,000 8,000 -0.002 within the noise"
    assert line_of(text, "c2ccccccccccc 4,").endswith("4,000 12,000 -0.250 more than the noise")
    text = picks(run, BIG.id, "--by", "latency", "--less", 2.5)
    assert "What 2.500 ms less latency costs" in text
    assert line_of(text, "c2ccccccccccc 1.000").endswith("1.000 3.000 -0.250 more than the noise")
    assert "None of these needs less Flash." in picks(run, TINY.id)
    assert "within the limits saves is 12000" in picks(run, BIG.id, "--less", 12001, status=1)


def test_battery_and_radio_with_their_assumptions(run: Path, picks: Picks) -> None:
    words = " ".join(picks(run, "--every-s", 4, "--cell", "CR2032").split())
    for part in (
        "One inference every 4 s from CR2032",
        "0.050 % x 3.7 mA active + 99.950 % x 2.2 uA asleep = 4.05 uA in the mean",
        "54 % of it is sleep",
        "1,815 days (5.0 years) = 235 mAh x 80 % / (4.05 uA + 0.27 uA self-discharge)",
        "Latency is modelled; the currents are those of profile cortex-m4-32k",
        "Not counted: sensors",
        "Energizer CR2032 data sheet",
        "Assumed: 80 % of the capacity can be used, and 1 % a year",
        "its voltage does not enter",
        "stated at 0.19 mA and the part draws 3.7 mA",
        "radio 21,600 bytes a day instead of 4,924,800 - Latency",
        "windows as if they did not overlap",
    ):
        assert part in words
    words = " ".join(picks(run, "--every-s", 4).split())
    assert "4.05 uA in the mean" in words and "life" not in words
    words = " ".join(picks(run, "--every-s", 3600, "--cell", "2xAA").split())
    assert "life its shelf life of 10 years; the charge would do for" in words
    assert "capacity is stated at" not in words  # 3.7 mA are less than the 25 of its data sheet


def test_intervals_without_a_repetition_say_so(run: Path, picks: Picks) -> None:
    lacking = "90 % intervals of the finite sample alone, as no network had two final trainings"
    assert lacking in " ".join(picks(run).split())
    manifest = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", manifest | {"seed_deviation": 0.01})
    words = " ".join(picks(run).split())
    assert "of the finite sample" not in words and " on validation (" in words
    write_json(run / "run.json", manifest | {"validation": "cross"})
    assert "on training and validation, crosswise (" in " ".join(picks(run).split())


def test_what_a_battery_cannot_be_asked(run: Path, picks: Picks) -> None:
    assert "--cell without --every-s" in picks(run, "--cell", "CR2032", status=1)
    assert "takes 0.002 s, so it cannot run that often" in picks(run, "--every-s", 0.001, status=1)
    assert "no such cell" in picks(run, "--every-s", 1, "--cell", "brick", status=1)
    manifest = json.loads((run / "run.json").read_text())
    del manifest["profile"]["sleep_current_a"]
    write_json(run / "run.json", manifest)
    assert "sleep_current_a is missing" in picks(run, status=1)


def test_old_runs_say_that_stored_widths_are_unknown(tmp_path: Path, picks: Picks) -> None:
    old = {name: {"shape": rule["shape"]} for name, rule in INPUTS.items()}
    text = picks(write_run(tmp_path / "old", ROWS, old), "--every-s", 1)
    assert "radio     not known" in text and "a day" not in text


# ---------------------------------------------------------------- copying


def test_a_folder_is_copied(run: Path, picks: Picks, tmp_path: Path) -> None:
    out = tmp_path / "some" / "where"
    text = picks(run, "c1", "--out", out)
    assert f"copied:  {out}" in text and "copy it" not in text
    assert {file.name for file in out.iterdir()} == {
        *("architecture.json", "model.tflite", "verdict.json")
    }
    assert (out / "model.tflite").read_text() == BIG.id
    assert [file.name for file in out.parent.iterdir()] == ["where"]
    (tmp_path / "empty").mkdir()
    picks(run, "--out", tmp_path / "empty")
    assert (tmp_path / "empty" / "model.tflite").read_text() == KNEE_ROW.id


def test_nothing_is_overwritten(run: Path, picks: Picks, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    for out in (tmp_path / "full", tmp_path / "full" / "mine"):
        assert "exists and is not an empty folder; name another" in picks(
            run, "--out", out, status=1
        )
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"]
    assert "cannot be written" in picks(run, "--out", tmp_path / "full" / "mine" / "x", status=1)


def test_a_copy_that_fails_leaves_nothing(
    run: Path, picks: Picks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left" in picks(run, "--out", tmp_path / "out", status=1)
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_folders_that_are_no_runs(tmp_path: Path, run: Path, picks: Picks) -> None:
    assert "is this the folder of a run?" in picks(tmp_path, status=1)
    write_json(run / "run.json", {"data": {}})
    assert "no 'profile'" in picks(run, status=1)
    (run / "front.csv").unlink()
    write_run(tmp_path / "other", ROWS, INPUTS)
    (tmp_path / "other" / "front.csv").unlink()
    assert "finish the run with --resume" in picks(tmp_path / "other", status=1)


# ---------------------------------------------------------------- the terminal


@pytest.mark.parametrize("width", [80, 92, 100, 125, 160])
def test_every_line_fits_the_terminal(
    run: Path, picks: Picks, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    console = tables.Console(highlight=False, width=width)
    monkeypatch.setattr(tables, "_console", lambda: console)
    text = picks(run, "c1", "--every-s", 1, "--cell", "2xAAA")
    head, tail = text.split("folder: ")
    assert max(map(len, head.splitlines())) <= width
    assert str(run) in tail
    row_line = line_of(text, "> c1aaaaaaaaaaa 0")
    assert ("8/4/4" in row_line) == (width >= 125)
    assert "accel+rssi" in row_line and "4,000" in row_line


def test_help_names_every_cell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pick", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert f"{', '.join(cells())}, or its mAh" in words
