"""The brief of a candidate: its snippets run as pasted, its numbers are those of the run folder."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_choose import row

from nas.choosing.brief import brief, write_briefs
from nas.choosing.choose import FrontRow
from nas.data.task import Task, make_task
from nas.export.bundle import Candidate, write_candidate
from nas.export.runtimes import run_litert
from nas.hardware.budget import price
from nas.hardware.profile import load_profile
from nas.network.graph import Graph, Input
from nas.network.ops import Add, Conv2d, Pool, Reshape
from nas.network.random_model import with_random_numbers
from nas.run_folder import FRONT_COLUMNS, read_json, write_front, write_json
from nas.training.scoring import classify_split

PROFILE = load_profile("cortex-m4-32k")
MANIFEST: dict[str, Any] = {
    "data": {"name": "toys", "rows": {"train": 36, "val": 12, "test": 12}},
    "profile": PROFILE.to_dict(),
    "budgets": {"ram_bytes": 4_000, "flash_bytes": 40_000},
}
PROOF: dict[str, Any] = {
    "inputs": 256,
    "runtimes": [
        {"runtime": "TFLM, x", "compared": 768, "differing": 0, "argmax_agreement": 1.0},
        {"runtime": "QDQ", "compared": 1768, "differing": 9, "argmax_agreement": 0.99609375},
        {"runtime": "gone", "compared": 0, "differing": 0, "argmax_agreement": 0.0},
    ],
}
ID = "c0123456789ab"


def network() -> Graph:
    """A network on all three kinds of input: means over positions, then dense layers."""

    def dense(name: str, source: str, channels: int) -> Conv2d:
        return Conv2d(name, (source,), channels, (1, 1), (1, 1), "valid", 8, False)

    return Graph(
        (Input("accel", (1, 8, 3)), Input("view", (6, 5, 1)), Input("stats", (1, 1, 4))),
        (
            Reshape("flat", ("accel",), (1, 1, 24)),
            dense("a", "flat", 6),
            Pool("mean", ("view",), "average", (6, 5), (6, 5)),
            dense("v", "mean", 6),
            dense("s", "stats", 6),
            Add("av", ("a", "v"), False),
            Add("avs", ("av", "s"), False),
            dense("out", "avs", 3),
            Reshape("logits", ("out",), (3,)),
        ),
        "logits",
    )


class World:
    """A task, a model of it with random numbers, and the candidate's folder in a run."""

    def __init__(self, run: Path, arrays: dict[str, Any]) -> None:
        self.run, self.folder = run, run / "candidates" / ID
        self.task: Task = make_task(arrays, "toys")
        self.model = with_random_numbers(network(), np.random.default_rng(3))
        priced = price(self.model.graph, PROFILE)
        predicted = classify_split(self.task, self.model, "test")
        document = {"space": "conv"}
        write_candidate(
            run,
            Candidate(
                *(ID, document, self.model, priced.plan, priced.cost, [0.5], 36, 9),
                *(predicted, {}),
            ),
            self.task,
        )
        self.about = read_json(self.folder / "architecture.json")
        scores = {"val_low": 0.71, "val_high": 0.78, "test_score": 0.7, "test_low": 0.66}
        scores |= {"test_high": 0.74}
        names = tuple(self.task.names)
        self.row: FrontRow = row(ID, 0.75, 1.0, ram_bytes=1234, modalities=names, **scores)
        self.text = brief(self.row, self.about, MANIFEST, PROOF)

    def snippet(self, language: str) -> str:
        (found,) = re.findall(rf"```{language}\n(.*?)```", self.text, re.DOTALL)
        return str(found)


@pytest.fixture
def world(tmp_path: Path, toy_arrays: dict[str, Any]) -> World:
    return World(tmp_path / "run", toy_arrays)


# ---------------------------------------------------------------- the snippets


def test_the_python_runs_as_pasted(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", world.snippet("python")],
        cwd=world.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"\('(sit|walk|run)', array\(\[.*dtype=int8\)\)", done.stdout)


def test_the_python_classifies_real_values(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world.folder)
    names: dict[str, Any] = {}
    exec(world.snippet("python"), names)
    capsys.readouterr()
    rows = world.task.rows("test")
    modalities = world.task.modalities
    data = (world.folder / "model.tflite").read_bytes()
    expected = run_litert(data, {m.name: m.quantised(rows) for m in modalities})
    real = {m.name: m.real(rows) for m in modalities}
    assert len(np.unique(expected, axis=0)) > 6
    for n, logits in enumerate(expected):
        window = {name: values[n] for name, values in reversed(real.items())}
        named, given = names["classify"](window)
        # XNNPACK, which LiteRT runs by default, rounds a few values differently.
        assert np.abs(given.astype(int) - logits).max() <= 2
        assert named == ("sit", "walk", "run")[given.argmax()]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler named cc")
def test_the_c_gives_the_integers_of_the_data(world: World, tmp_path: Path) -> None:
    source, library = tmp_path / "feed.c", tmp_path / "feed.so"
    source.write_text(world.snippet("c"))
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2"]
    command = ["cc", *strict, "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    subprocess.run(command, check=True)
    feed = ctypes.CDLL(str(library))
    for modality in world.task.modalities:
        rows = np.arange(60)
        expected = modality.quantised(rows)
        for real, wanted in zip(modality.real(rows), expected, strict=True):
            given = np.zeros(wanted.size, np.int8)
            values = np.ascontiguousarray(real, np.float32)
            getattr(feed, f"feed_{modality.name}")(
                values.ctypes.data_as(ctypes.c_void_p), given.ctypes.data_as(ctypes.c_void_p)
            )
            assert (given == wanted.ravel()).all()
        assert len(np.unique(expected)) > 50
        # Values next to where the rounding turns: the order of the divisions must be Python's.
        scale, count = np.float32(modality.input_scale), wanted.size // modality.channels
        for turn in range(-100, 100, 3):
            step = np.float32(turn + 0.5) * scale * modality.std
            values = np.tile(modality.mean + step, (count, 1)).astype(np.float32)
            wanted = np.round((values - modality.mean) / modality.std / scale)
            given = np.zeros(values.size, np.int8)
            getattr(feed, f"feed_{modality.name}")(
                values.ctypes.data_as(ctypes.c_void_p), given.ctypes.data_as(ctypes.c_void_p)
            )
            assert (given == np.clip(wanted, -128, 127).ravel()).all()


def test_the_c_rounds_halves_to_even_and_clips(world: World, tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler named cc")
    code = world.snippet("c") + (
        "#include <stdio.h>\nint main(void) {\n"
        "    const float real[8] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 127.5f, 1e9f, -1e9f};\n"
        '    for (int i = 0; i < 8; i++) printf("%d ", quantise(real[i], 0.0f, 1.0f, 1.0f));\n}\n'
    )
    (tmp_path / "round.c").write_text(code)
    program = tmp_path / "round"
    subprocess.run(["cc", "-o", str(program), str(tmp_path / "round.c"), "-lm"], check=True)
    printed = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["0", "2", "2", "0", "-2", "127", "127", "-128"]


# ---------------------------------------------------------------- the text


def test_the_numbers_of_the_brief(world: World) -> None:
    words = " ".join(world.text.split())
    cost = world.about["cost"]
    for part in (
        "reads accel, view and stats and tells 3 classes apart: sit, walk and run",
        "trained on `toys` for cortex-m4-32k (generic Cortex-M4 with 32 KB of RAM, 64 MHz)",
        "| 12 of validation | 0.7500 | 0.7100 to 0.7800 |",
        "| 12 of test | 0.7000 | 0.6600 to 0.7400 |",
        "| RAM of the program | 1,234 bytes, 31 % of 4,000 | estimated |",
        "| Flash of the program | 4,000 bytes, 10 % of 40,000 | estimated |",
        "| weights, biases, constants, tables | 500 bytes | exact |",
        "| latency | 1 ms | modelled |",
        "1 ms x 3.7 mA x 3 V = 11.1 uJ | modelled |",
        # 8 x 3 int16, 6 x 5 uint8, 4 float32
        "1 byte (the class) instead of 94 (the raw window) | exact |",
        "| a window before it is quantised | 232 bytes as float32, 94 as stored | exact, in no",
        "`accel`: 8 time steps of 3 channels, oldest first, stored as int16",
        "`view`: 6 rows of 5 pixels of 1 channel, stored as uint8",
        "`stats`: 4 features, stored as float32",
        f"{cost['cycles']:,.0f} cycles are modelled",
        "TFLM, x: 0 of 768 outputs differ from the reference, same class in 100 %",
        "QDQ: 9 of 1,768 outputs differ from the reference, same class in 99.609 %",
        "gone: not run",
        "Run on a PC only, with 256 inputs (candidate verified: host)",
    ):
        assert part in words
    assert max(len(line) for line in world.snippet("c").splitlines()) <= 100


def test_rate_and_columns_of_the_recordings(world: World) -> None:
    assert "(the data file does not name every one)" in " ".join(world.text.split())
    rule = world.about["inputs"]["accel"] | {"rate_hz": 50.0, "columns": ["ax", "ay", "az"]}
    about = world.about | {"inputs": world.about["inputs"] | {"accel": rule}}
    words = " ".join(brief(world.row, about, MANIFEST, PROOF).split())
    assert "`accel`: 8 time steps of 3 channels (ax, ay, az) at 50 Hz: 0.16 s, oldest" in words
    assert "at the sampling rate of the recordings:" in words


def test_worst_group(world: World) -> None:
    worst = world.about["groups"]["worst"]
    assert worst["rows"] == 6
    told = f"`{worst['group']}` with accuracy {worst['score']:.4f} (6 windows)"
    assert told in world.text
    lost = {"missing_sensors": {"accel": {"score": 0.5}, "rssi": {"score": 0.25}}}
    text = " ".join(brief(world.row, world.about | lost, MANIFEST, PROOF).split())
    assert "with one sensor held at its training mean: `accel` 0.5000 and `rssi` 0.2500." in text
    without = brief(world.row, world.about | {"groups": None}, MANIFEST, PROOF)
    assert "worst person or site is not known" in " ".join(without.split())


def test_what_judged_crosswise_is_not_said_of_the_files(world: World) -> None:
    text = brief(world.row, world.about, MANIFEST | {"validation": "cross"}, PROOF)
    words = " ".join(text.split())
    assert "| 48 of training and validation, crosswise | 0.7500 | 0.7100 to 0.7800 |" in words
    assert "of three networks of the same training, each on the part of the windows" in words
    assert "these integers were trained on 36 of the windows." in words
    assert "The scores are those of the integers" not in words
    assert "The scores are those of the integers" in " ".join(world.text.split())


def test_what_is_unknown_is_said(world: World) -> None:
    inputs = {
        name: {k: v for k, v in rule.items() if not k.startswith("stored")}
        for name, rule in world.about["inputs"].items()
    }
    text = brief(world.row, world.about | {"inputs": inputs}, MANIFEST, None)
    assert "| not known: this run did not record how wide stored values are | |\n" in text
    assert "not verified; `nas verify RUN` does it" in text and "stored as" not in text


def test_briefs_of_a_run(world: World) -> None:
    write_json(world.run / "run.json", MANIFEST)
    plain: dict[str, Any] = dict.fromkeys(FRONT_COLUMNS, "")
    plain |= {name: getattr(world.row, name) for name in FrontRow.__slots__}
    plain |= {"weight_bits": "8/4/4", "modalities": "accel+view+stats"}
    write_front(world.run, [plain])
    write_briefs(world.run)
    readme = world.folder / "README.md"
    assert "not verified" in readme.read_text()
    write_json(world.folder / "verification.json", PROOF)
    write_briefs(world.run)
    assert readme.read_text() == world.text
