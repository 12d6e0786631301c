"""What the command line refuses: one line, a status that is not 0, and nothing left behind."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas import cli, run
from nas.cli import main, search_main
from nas.run_folder import locked
from nas.threads import VARIABLES

Arrays = dict[str, np.ndarray]
ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "hardware_profiles"


class Refusal:
    """The one line on stderr and the exit status of a command that must fail."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def of(self, *arguments: object, verb: Callable[..., int] = search_main) -> str:
        status = verb([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        assert status == 1 and captured.out == ""
        assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
        assert captured.err.endswith("\n") and "Traceback" not in captured.err
        return captured.err


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refusal:
    def no_workers(*_: object) -> None:
        raise AssertionError("must fail before workers start")

    monkeypatch.setattr(run, "pool", no_workers)
    return Refusal(capsys)


@pytest.fixture
def good(tmp_path: Path, toy_arrays: Arrays) -> Path:
    np.savez(tmp_path / "good.npz", **toy_arrays)
    return tmp_path / "good.npz"


# ---------------------------------------------------------------- bad data


def put(key: str, value: Callable[[Arrays], Any]) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.update({key: value(arrays)})


def without_modalities(arrays: Arrays) -> None:
    for key in [key for key in arrays if key.startswith(("modality", "scale", "offset"))]:
        del arrays[key]


def poked(arrays: Arrays, value: float) -> np.ndarray:
    stats = arrays["modality_stats"].copy()
    stats[17, 2] = value
    return stats


def relabelled(arrays: Arrays) -> None:
    arrays["y"] = arrays["y"] + 1
    del arrays["class_names"]


# what is wrong -> how the arrays are harmed, what the line must name
BAD_ARRAYS: dict[str, tuple[Callable[[Arrays], object], tuple[str, ...]]] = {
    "pickled objects": (
        put("modality_stats", lambda a: a["modality_stats"].astype(object)),
        ("'modality_stats' holds pickled objects", "never loaded", "save it as"),
    ),
    "no modality": (
        without_modalities,
        ("no modality among the keys y, split, group, class_names, note", "modality_NAME"),
    ),
    "empty": (
        lambda a: [a.update({key: value[:0] for key, value in a.items() if value.ndim})],
        ("y is empty", "needs samples"),
    ),
    "no features": (
        put("modality_stats", lambda a: a["modality_stats"][:, :0]),
        ("modality_stats has shape (60, 0)", "no axis may have size 0"),
    ),
    "NaN": (
        put("modality_stats", lambda a: poked(a, np.nan)),
        ("modality_stats has 1 NaN or infinite values", "row 17", "must be finite", "drop"),
    ),
    "Inf": (
        put("modality_stats", lambda a: poked(a, np.inf)),
        ("modality_stats has 1 NaN or infinite values", "row 17", "must be finite", "drop"),
    ),
    "class not trained": (
        lambda a: [a.pop("group"), a["split"].__setitem__(a["y"] == 1, 2)],
        ("class 1 ('walk') has no training rows", "must occur in training", "move"),
    ),
    "one class": (
        put("y", lambda a: a["y"] * 0),
        ("y has only the label 0", "needs two classes", "add one"),
    ),
    "labels from 1": (
        relabelled,
        ("y has no label 0 but a label 3", "0..K-1 without gaps", "renumber"),
    ),
    "real labels": (
        put("y", lambda a: a["y"] + 0.5),
        ("y has type float64", "integer classes 0..K-1", "convert"),
    ),
    "negative label": (
        lambda a: a["y"].__setitem__(7, -3),
        ("y has label -3", "row 7", "0..K-1", "drop or renumber"),
    ),
    "text labels": (
        put("y", lambda a: a["y"].astype(str)),
        ("y has type <U6", "integer classes 0..K-1", "convert"),
    ),
    "lengths": (
        put("modality_accel", lambda a: a["modality_accel"][:59]),
        ("modality_accel has 59 rows and y has 60", "one row for each sample"),
    ),
    "shared group": (
        lambda a: a["split"].__setitem__(0, 2),
        ("group 0 occurs in train and test", "must not share a group", "move it"),
    ),
    "text modality": (
        put("modality_stats", lambda a: a["modality_stats"].astype(str)),
        ("modality_stats has type <U32", "integers or floats", "convert"),
    ),
    "five dimensions": (
        put("modality_view", lambda a: a["modality_view"][..., None]),
        ("modality_view has shape (60, 6, 5, 1, 1)", "(N, H, W, C)", "reshape"),
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(case: str, refusal: Refusal, tmp_path: Path, toy_arrays: Arrays) -> None:
    harm, named = BAD_ARRAYS[case]
    harm(toy_arrays)
    path, out = tmp_path / "harmed.npz", tmp_path / "out"
    np.savez(path, **toy_arrays)
    line = refusal.of("--data", path, "--trials", 2, "--out", out)
    assert line.startswith(f"error: {path}: ")
    assert [text for text in named if text not in line] == []
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "content", "named"),
    (
        ("missing.npz", None, "no such file; check the path"),
        ("folder.npz", "", "is a directory; give the .npz file itself"),
        ("text.npz", b"a,b,c\n1,2,3\n", "is not an .npz archive"),
        ("torn.npz", b"PK\x03\x04torn", "is not an .npz archive"),
        ("empty.npz", b"", "is not an .npz archive"),
    ),
)
def test_bad_files(
    name: str, content: bytes | str | None, named: str, refusal: Refusal, tmp_path: Path
) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
    line = refusal.of("--data", path, "--trials", 2, "--out", out)
    assert line.startswith(f"error: {path}: ") and named in line
    assert not out.exists()


def test_a_single_array_is_no_data_file(refusal: Refusal, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    line = refusal.of("--data", tmp_path / "one.npy", "--trials", 2, "--out", tmp_path / "out")
    assert "one.npy: is a single array (.npy), not an .npz archive" in line
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- devices and budgets


def test_an_unknown_device(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    line = refusal.of(
        "--data", good, "--trials", 2, "--device", "cortex-m4-65k", "--out", tmp_path / "out"
    )
    assert "device 'cortex-m4-65k': no profile has this name" in line
    assert "did you mean 'cortex-m4-64k'?" in line
    assert not (tmp_path / "out").exists()


def test_a_bad_profile_names_every_problem(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    text = (PROFILES / "cortex-m4-32k.toml").read_text()
    for old, new in (
        ("clock_hz = 64_000_000\n", ""),
        ("ram_bytes = 32_768\n", 'ram_bytes = "32 KB"\n'),
        ("flash_wait_states = 2\n", "flash_wait_states = 2\nflash_wait_cycles = 2\n"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    line = refusal.of("--data", good, "--trials", 2, "--device", path, "--out", tmp_path / "out")
    for problem in (
        f"{path}: clock.clock_hz: missing key",
        f"{path}: memory.ram_bytes: must be a whole number greater than 0, not '32 KB'",
        f"{path}: flash.flash_wait_cycles: unknown key, did you mean 'flash_wait_states'?",
    ):
        assert problem in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("limits", "named"),
    (
        (["--max-weight-bytes", 20], r"weights \d+ of 20 bytes"),
        (["--max-latency-ms", 1e-6], r"latency \S+ of 1e-06 ms"),
    ),
)
def test_a_budget_that_nothing_meets(
    limits: list[object], named: str, refusal: Refusal, good: Path, tmp_path: Path
) -> None:
    line = refusal.of("--data", good, "--trials", 2, *limits, "--out", tmp_path / "out")
    assert "no network of the space 'conv' fits the budget; the smallest of" in line
    assert re.search(named, line) and "looser limits" in line
    assert not (tmp_path / "out").exists()


def test_a_device_too_small_for_the_data(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    text = (PROFILES / "cortex-m4-32k.toml").read_text().replace("= 32_768", "= 4_100")
    text = re.sub(
        r"level_names = .*\nlevel_bytes = .*", 'level_names = ["SRAM"]\nlevel_bytes = [4_100]', text
    )
    (tmp_path / "tiny.toml").write_text(text)
    line = refusal.of(
        "--data", good, "--trials", 2, "--device", tmp_path / "tiny.toml", "--out", tmp_path / "out"
    )
    assert "cortex-m4-32k: no network of the space 'conv' fits the budget" in line
    assert " of 4 bytes" in line
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- options

DATA = object()  # stands for the good file
BAD_OPTIONS: dict[str, tuple[list[object], str]] = {
    "no end": (["--data", DATA], "no end given; add --minutes, --hours or --trials"),
    "no end of a task": (["--task", "watch"], "no end given; add --minutes"),
    "unknown task": (
        ["--task", "wach", "--trials", 2],
        "no task 'wach' (did you mean watch?); the tasks are watch",
    ),
    "task without its data": (
        ["--task", "covid-audio", "--trials", 2],
        "task covid-audio: its data are not part of this project; get Coswara, https://github.com/"
        "iiscleap/Coswara-Data (CC BY 4.0; 65 hours of sound, about 20 GB unpacked), and give",
    ),
    "task with data of its own": (
        ["--task", "watch", "--data", DATA, "--trials", 2],
        "task watch: brings its own data; leave out --data ",
    ),
    "task with other sensors": (
        ["--task", "covid-audio", "--data", DATA, "--trials", 2],
        "good.npz: none of cough, speech, breath, which task covid-audio uses; the modalities are"
        " accel, view, stats: choose with --modalities",
    ),
    "unknown task with data": (
        ["--task", "covid", "--data", DATA, "--trials", 2],
        "no task 'covid' (did you mean covid-audio?)",
    ),
    "unknown space": (
        ["--data", DATA, "--trials", 2, "--space", "mlp"],
        "--space 'mlp': not one of conv",
    ),
    "unknown objective": (
        ["--data", DATA, "--trials", 2, "--objectives", "error,power"],
        "--objectives error,power: must be different ones of error,ram,flash,latency",
    ),
    "objectives without error": (
        ["--data", DATA, "--trials", 2, "--objectives", "ram"],
        "--objectives ram: must be different ones of error,ram,flash,latency, with error",
    ),
    "objective twice": (
        ["--data", DATA, "--trials", 2, "--objectives", "error,ram,ram"],
        "--objectives error,ram,ram: must be different ones",
    ),
    "teacher that is not used": (
        ["--data", DATA, "--trials", 2, "--teacher", "t.onnx", "--no-distil"],
        "--teacher with --no-distil: a teacher that is not used; leave one out",
    ),
    "distilled and not": (
        ["--data", DATA, "--trials", 2, "--distil", "walk", "--no-distil"],
        "--distil walk with --no-distil: leave one out",
    ),
    "features of a model that has none": (
        ["--data", DATA, "--trials", 2, "--teacher", "t.onnx", "--distil", "features"],
        "an ONNX model gives answers and no features; use --distil logits",
    ),
    "a walk that would see what judges": (
        ["--data", DATA, "--trials", 2, "--distil", "walk", "--validation", "cross"],
        "--distil walk: rows are judged crosswise, and an intermediate teacher has seen all of them"
        "; use --validation split or --distil logits",
    ),
    "missing teacher": (
        ["--data", DATA, "--trials", 2, "--teacher", "none/t.onnx"],
        "--teacher none/t.onnx: No such file or directory; give conv, attention, both or an .onnx",
    ),
    "unknown modality": (
        ["--data", DATA, "--trials", 2, "--modalities", "accel,gyro"],
        "no modality 'gyro'; the modalities are accel, view, stats",
    ),
    "modality twice": (
        ["--data", DATA, "--trials", 2, "--modalities", "accel,accel"],
        "at least one is needed and each only once",
    ),
    "no modalities": (
        ["--data", DATA, "--trials", 2, "--modalities", ""],
        "no modality ''; the modalities are accel, view, stats",
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(case: str, refusal: Refusal, good: Path, tmp_path: Path) -> None:
    arguments, named = BAD_OPTIONS[case]
    given = [good if argument is DATA else argument for argument in arguments]
    assert named in refusal.of(*given, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resume_needs_a_folder_with_a_run(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    arguments = ("--data", good, "--trials", 2, "--resume")
    assert "--resume: name the run folder with --out" in refusal.of(*arguments)
    line = refusal.of(*arguments, "--out", tmp_path / "out")
    assert f"{tmp_path / 'out'}: no run.json, so nothing to resume" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    (
        (["--sampler", "best"], "argument --sampler: invalid choice: 'best'"),
        (["--metric", "auc"], "argument --metric: invalid choice: 'auc'"),
        (["--trials", "0"], "argument --trials: 0 must be 1 or more"),
        (["--minutes", "-1"], "argument --minutes: -1 must be a number above 0"),
        (["--minutes", "nan"], "argument --minutes: nan must be a number above 0"),
        (["--minutes", "1", "--hours", "1"], "argument --hours: not allowed with argument --min"),
        (["--budget", "3"], "unrecognized arguments: --budget 3"),
    ),
)
def test_options_that_do_not_parse(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        search_main(arguments)
    assert stop.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("module", ("onnxruntime", "ai_edge_litert", "tflite_micro"))
def test_a_missing_runtime_is_told_before_the_first_trial(
    module: str,
    refusal: Refusal,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == module else original(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(run, "tflm_has_wheels", lambda: True)
    arguments = ("--data", good, "--trials", 2, "--max-weight-bytes", 20, "--out", tmp_path / "out")
    line = refusal.of(*arguments)
    assert f"error: {module.replace('_', '-')}: not installed" in line.replace("_", "-")
    assert "pip install" in line and "--no-verify" in line
    # Without verification, and where there are no wheels, the next check is reached.
    assert "fits the budget" in refusal.of(*arguments, "--no-verify")
    if module == "tflite_micro":
        monkeypatch.setattr(run, "tflm_has_wheels", lambda: False)
        assert "fits the budget" in refusal.of(*arguments)


# ---------------------------------------------------------------- the run folder


def test_a_folder_that_holds_a_run(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text("{}\n")
    line = refusal.of("--data", good, "--trials", 2, "--out", out)
    assert f"{out}: holds a run already; add --resume" in line
    assert (out / "run.json").read_text() == "{}\n"


def test_a_folder_with_another_writer(refusal: Refusal, good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locked(out):
        line = refusal.of("--data", good, "--trials", 2, "--out", out)
    assert f"{out}: another run is writing here" in line
    assert [file.name for file in out.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made(refusal: Refusal, good: Path) -> None:
    line = refusal.of("--data", good, "--trials", 2, "--out", good / "out")
    assert f"{good / 'out'}: cannot be used as a run folder (" in line


@pytest.mark.parametrize("verb", ("report", "verify"))
def test_verbs_on_a_folder_with_a_writer(verb: str, refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}\n")
    with locked(tmp_path):
        line = refusal.of(verb, tmp_path, verb=main)
    assert f"{tmp_path}: another run is writing here; wait for it" in line
    assert "another run" not in refusal.of(verb, tmp_path, verb=main)


@pytest.mark.parametrize("verb", ("report", "verify"))
def test_verbs_on_a_folder_without_a_run(verb: str, refusal: Refusal, tmp_path: Path) -> None:
    line = refusal.of(verb, tmp_path / "none", verb=main)
    assert str(tmp_path / "none") in line
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("content", "named"),
    (
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "not a JSON object"),
        ("{}", "no key 'space'; give the architecture.json of a candidate"),
        ('{"space": "mlp"}', "--space 'mlp': not one of conv"),
        ('{"space": "conv"}', "not an architecture of the space 'conv': 'branches'"),
        ('{"space": "conv", "branches": [{}]}', "not an architecture of the space 'conv'"),
    ),
)
def test_estimate_of_no_architecture(
    content: str | None, named: str, refusal: Refusal, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert named in refusal.of("estimate", path, "--device", "cortex-m4-32k", verb=main)


# ---------------------------------------------------------------- what works without a run


@pytest.mark.parametrize(
    ("verb", "named"),
    (
        ("tasks", ("watch", "shoulder exercises", "covid-audio", "CC BY 4.0", "figshare")),
        ("devices", ("cortex-m4-32k", "cortex-m4-64k", "stm32g431kb", "28,672")),
        ("spaces", ("conv", "a branch per sensor", "transformer", "mamba", "all", "attention")),
    ),
)
def test_lists(verb: str, named: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 0
    captured = capsys.readouterr()
    assert [text for text in named if text not in captured.out] == [] and captured.err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("nas 0.")


def test_ctrl_c_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_search", interrupted)
    assert search_main([]) == 130
    line = capsys.readouterr().err
    assert "--resume" in line and line.count("\n") == 1


def test_help_answers_at_once() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "run_search.py", "--help"], cwd=ROOT, capture_output=True, check=True
        )
        times.append(time.perf_counter() - began)
    assert b"--objectives" in done.stdout and min(times) < 0.5


def test_a_search_has_one_thread_a_process(tmp_path: Path) -> None:
    """Set before numpy is imported: later its operators would not hear of it."""
    script = (
        "import os, sys; from nas.cli import main; print('numpy' in sys.modules);"
        "main(['search', '--data', 'nowhere.npz', '--trials', '1']);"
        "print(os.environ['OPENBLAS_NUM_THREADS'])"
    )
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "False\n1\n"
