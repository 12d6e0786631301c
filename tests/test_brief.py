"""The brief of a candidate: its snippets run as pasted, its numbers are those of the run folder."""

import ctypes
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_run import made_up_verdict
from test_choose import row

from nas.choosing.brief import brief, write_briefs
from nas.choosing.choose import FrontRow
from nas.choosing.firmware import Proofs, c_prefix
from nas.data.task import Task, make_task
from nas.export.bundle import Candidate, at_8_bits, write_candidate
from nas.export.runtimes import run_litert
from nas.hardware.budget import price
from nas.hardware.profile import load_profile
from nas.network import reference
from nas.network.graph import Graph, Input
from nas.network.integer import IntegerModel, Scale
from nas.network.ops import Add, Conv2d, Pool, Reshape
from nas.network.random_model import with_random_numbers
from nas.packing import by_bits
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
    "tflm_arena_bytes": 4752,
    "tflite_bytes": 7536,
    "failure": "",
}
ID = "c0123456789ab"


def network() -> Graph:
    """A network on all three kinds of input: means over positions, then dense layers."""

    def dense(name: str, source: str, channels: int, bits: int = 8) -> Conv2d:
        return Conv2d(name, (source,), channels, (1, 1), (1, 1), "valid", bits, False)

    return Graph(
        (Input("accel", (1, 8, 3)), Input("view", (6, 5, 1)), Input("stats", (1, 1, 4))),
        (
            Reshape("flat", ("accel",), (1, 1, 24)),
            dense("a", "flat", 6, 4),
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


def of_task(model: IntegerModel, task: Task) -> IntegerModel:
    """The same model with the task's own scales at its inputs, as a trained one has them."""
    groups = model.graph.scale_groups
    own = {groups[m.name]: Scale(m.input_scale, m.zero_point) for m in task.modalities}
    scales = {name: own.get(groups[name], scale) for name, scale in model.scales.items()}
    return replace(model, scales=scales)


class World:
    """A task, a model of it with random numbers, and the candidate's folder in a run."""

    def __init__(self, run: Path, arrays: dict[str, Any]) -> None:
        self.run, self.folder = run, run / "candidates" / ID
        self.task: Task = make_task(arrays, "toys")
        self.model = of_task(with_random_numbers(network(), np.random.default_rng(3)), self.task)
        priced = price(self.model.graph, PROFILE)
        predicted = classify_split(self.task, self.model, "test")
        document = {"space": "conv"}
        write_candidate(
            run,
            Candidate(
                *(ID, document, self.model, priced.program, priced.cost),
                *(
                    at_8_bits(self.model.graph, PROFILE),
                    None,
                    [0.5],
                    36,
                    9,
                    "teacher",
                    predicted,
                    {},
                ),
            ),
            self.task,
        )
        self.about = read_json(self.folder / "architecture.json")
        scores = {"val_low": 0.71, "val_high": 0.78, "test_score": 0.7, "test_low": 0.66}
        scores |= {"test_high": 0.74}
        names = tuple(self.task.names)
        self.verdict = made_up_verdict(ID, 1234, 4000, 64_000)  # a millisecond at 64 MHz
        scores |= {"ram_bytes": 1234, "flash_bytes": 4000, "latency_ms": 1.0}
        self.row: FrontRow = row(ID, 0.75, 1.0, verified="emulated", modalities=names, **scores)
        self.proofs = Proofs(PROOF, self.verdict, [self.verdict], c_prefix(self.folder))
        self.text = brief(self.row, self.about, MANIFEST, self.proofs)

    @property
    def words(self) -> str:
        """The brief with one space between words."""
        return " ".join(self.text.split())

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


@pytest.fixture
def firmware(world: World, tmp_path: Path) -> ctypes.CDLL:
    """The folder `c` and the brief's snippet in one library."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler named cc")
    source, library = tmp_path / "firmware.c", tmp_path / "firmware.so"
    source.write_text(world.snippet("c"))
    c = world.folder / "c"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O2"]
    sources = [source, c / "model.c", *sorted((c / "kernels").glob("*.c"))]
    command = ["cc", *strict, "-shared", "-fPIC", "-o", library, f"-I{c}", *sources]
    subprocess.run(list(map(str, command)), check=True)
    return ctypes.CDLL(str(library))


def test_the_c_gives_the_classes_of_the_reference(world: World, firmware: ctypes.CDLL) -> None:
    rows = np.arange(60)
    modalities = world.task.modalities
    expected = reference.run(world.model, {m.name: m.quantised(rows) for m in modalities})
    assert len(np.unique(expected.argmax(1))) > 1
    for n, logits in enumerate(expected):
        windows = [np.ascontiguousarray(m.real(rows)[n], np.float32) for m in modalities]
        pointers = [window.ctypes.data_as(ctypes.c_void_p) for window in windows]
        assert firmware.classify(*pointers) == logits.argmax()


def test_the_c_gives_the_integers_of_the_data(world: World, firmware: ctypes.CDLL) -> None:
    arena = np.zeros(4096, np.int8)

    def quantised(name: str, values: Any, count: int) -> Any:
        real = np.ascontiguousarray(values, np.float32)
        call = getattr(firmware, f"model_quantise_{name}")
        call(arena.ctypes.data_as(ctypes.c_void_p), real.ctypes.data_as(ctypes.c_void_p))
        begin = world.about["plan"]["offsets"][name]
        return arena[begin : begin + count]

    for modality in world.task.modalities:
        rows = np.arange(60)
        expected = modality.quantised(rows)
        for real, wanted in zip(modality.real(rows), expected, strict=True):
            assert (quantised(modality.name, real, wanted.size) == wanted.ravel()).all()
        assert len(np.unique(expected)) > 50
        # Values next to where the rounding turns: the order of the divisions must be Python's.
        scale, count = np.float32(modality.input_scale), wanted.size // modality.channels
        for turn in (*range(-100, 100, 3), 1e6, -1e6):
            step = np.float32(turn + 0.5) * scale * modality.std
            values = np.tile(modality.mean + step, (count, 1)).astype(np.float32)
            wanted = np.round((values - modality.mean) / modality.std / scale)
            given = quantised(modality.name, values, wanted.size)
            assert (given == np.clip(wanted, -128, 127).ravel()).all()


# ---------------------------------------------------------------- the text


def test_the_numbers_of_the_brief(world: World) -> None:
    words = world.words
    cost, plain = world.about["cost"], world.about["at_8_bits"]
    saved = plain["weight_bytes"] - cost["weight_bytes"]

    def more(key: str) -> str:
        change = cost[key] - plain[key]
        unit = "cycles" if key == "cycles" else "bytes of Flash"
        return f"{abs(change):,.0f} {unit} {'more' if change > 0 else 'less'}"

    for part in (
        "reads accel, view and stats and tells 3 classes apart: sit, walk and run",
        "trained on `toys` for cortex-m4-32k (generic Cortex-M4 with 32 KB of RAM, 64 MHz)",
        "| 12 of validation | 0.7500 | 0.7100 to 0.7800 |",
        "| 12 of test | 0.7000 | 0.6600 to 0.7400 |",
        "| RAM of the program | 1,234 bytes, 31 % of 4,000 | measured |",
        "| Flash of the program | 4,000 bytes, 10 % of 40,000 | measured |",
        "| weights, biases, constants, tables | 500 bytes | exact |",
        "| latency | 1 ms | modelled |",
        "1 ms x 3.7 mA x 3 V = 11.1 uJ | modelled |",
        # 8 x 3 int16, 6 x 5 uint8, 4 float32
        "1 byte (the class) instead of 94 (the raw window) | exact |",
        "| a window before it is quantised | 232 bytes as float32, 94 as stored | exact, in no",
        "`accel`: 8 time steps of 3 channels, oldest first, stored as int16",
        "`view`: 6 rows of 5 pixels of 1 channel, stored as uint8",
        "`stats`: 4 features, stored as float32",
        "| latency | 1 ms | modelled |",
        "100 bytes of arena, 634 of working memory and 500 of stack; predicted were 1,300 bytes of"
        " RAM, 4,100 of Flash and 60,800 cycles.",
        "45,678 instructions take 64,000 cycles; with the cycle model's 10 % that is 0.9 to 1.1 ms",
        f"its bits save {saved:,} bytes of weights ({cost['weight_bytes']:,} instead of"
        f" {plain['weight_bytes']:,}); predicted are {more('cycles')} and, with the kernels of"
        f" every width used, {more('flash_bytes')}.",
        "With `model.tflite` (7,536 bytes of Flash) its interpreter takes an arena of 4,752 bytes",
        "about 100 KB of Flash, and its stack come on top",
        "64,000 cycles are modelled",
        "high-water mark in bytes: it was 500 on the emulated chip",
        "/* 734 bytes, yours between two runs */",
        "return best; /* 0 sit, 1 walk, 2 run */",
        f"`nas bundle RUN {ID} --prefix NAME --out FOLDER`",
        "the C ran with 64 inputs inside exactly the budget of cortex-m4-32k, compiled by zig 0.1",
        "Not run on silicon",
        "caches like an STM32L4's",
        "interrupts and the caller need their own",
        "| `verdict.json` |",
        "TFLM, x: 0 of 768 outputs differ from the reference, same class in 100 %",
        "QDQ: 9 of 1,768 outputs differ from the reference, same class in 99.609 %",
        "gone: not run",
        "Run with 256 inputs (candidate verified: emulated)",
    ):
        assert part in words
    assert max(len(line) for line in world.snippet("c").splitlines()) <= 100


def test_rate_and_columns_of_the_recordings(world: World) -> None:
    assert "(the data file does not name every one)" in " ".join(world.text.split())
    rule = world.about["inputs"]["accel"] | {"rate_hz": 50.0, "columns": ["ax", "ay", "az"]}
    about = world.about | {"inputs": world.about["inputs"] | {"accel": rule}}
    words = " ".join(brief(world.row, about, MANIFEST, world.proofs).split())
    assert "`accel`: 8 time steps of 3 channels (ax, ay, az) at 50 Hz: 0.16 s, oldest" in words
    assert "at the sampling rate of the recordings:" in words


def test_worst_group(world: World) -> None:
    worst = world.about["groups"]["worst"]
    assert worst["rows"] == 6
    told = f"`{worst['group']}` with accuracy {worst['score']:.4f} (6 windows)"
    assert told in world.text
    lost = {"missing_sensors": {"accel": {"score": 0.5}, "rssi": {"score": 0.25}}}
    text = " ".join(brief(world.row, world.about | lost, MANIFEST, world.proofs).split())
    assert "with one sensor held at its training mean: `accel` 0.5000 and `rssi` 0.2500." in text
    without = brief(world.row, world.about | {"groups": None}, MANIFEST, world.proofs)
    assert "worst person or site is not known" in " ".join(without.split())


def test_what_judged_crosswise_is_not_said_of_the_files(world: World) -> None:
    text = brief(world.row, world.about, MANIFEST | {"validation": "cross"}, world.proofs)
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
    about = {k: v for k, v in world.about.items() if k != "at_8_bits"} | {"inputs": inputs}
    text = brief(world.row, about, MANIFEST, Proofs(None, None, [], None))
    assert "| not known: this run did not record how wide stored values are | |\n" in text
    assert "not verified; `nas verify RUN` does it" in text and "stored as" not in text
    words = " ".join(text.split())
    for part in (
        "| RAM of the program | 1,234 bytes, 31 % of 4,000 | predicted |",
        "| latency | 1 ms | predicted |",
        "Its C was not run: RAM, Flash, latency and energy are predicted from its operators.",
        f"There is no folder `c` here; `nas bundle RUN {ID}` writes it",
        f"{about['cost']['cycles']:,.0f} cycles are predicted",
        "under TensorFlow Lite Micro is not known",
        "The C was not run on the emulated chip",
    ):
        assert part in words
    assert "modelled" not in words and "measured |" not in words and "verdict.json" not in words


def test_predictions_come_with_the_error_of_others(world: World) -> None:
    proofs = replace(world.proofs, verdict=None)
    words = " ".join(brief(world.row, world.about, MANIFEST, proofs).split())
    assert "On the one candidate of this run that ran on the emulated chip, predictions" in words
    assert "missed RAM by 5.3 % in the mean and 5.3 % at most, Flash by 2.5 % in the mean" in words


def test_eight_bits_save_nothing(world: World) -> None:
    plain = replace(world.row, weight_bits=(8, 8, 8, 8))
    assert "Against 8 bits" not in brief(plain, world.about, MANIFEST, world.proofs)


def test_the_same_network_at_8_bits(world: World) -> None:
    cost, plain = world.about["cost"], world.about["at_8_bits"]
    assert set(plain) == {"weight_bytes", "flash_bytes", "cycles", "per_op"}
    saved = by_bits.packed_bytes(24, 6, 8) - by_bits.packed_bytes(24, 6, 4)
    for own, other in zip(cost["per_op"], plain["per_op"], strict=True):
        assert set(other) == {"name", "weight_bytes", "cycles"} and own["name"] == other["name"]
        same = own["name"] != "a"  # the one layer of 4 bits: 24 inputs, 6 outputs
        assert (other["cycles"] == own["cycles"]) is same
        assert other["weight_bytes"] - own["weight_bytes"] == (0 if same else saved)
    for key in ("weight_bytes", "cycles"):
        assert plain[key] == pytest.approx(sum(op[key] for op in plain["per_op"]))
    assert saved > 0 and plain["flash_bytes"] != cost["flash_bytes"]


def test_briefs_of_a_run(world: World) -> None:
    write_json(world.run / "run.json", MANIFEST)
    plain: dict[str, Any] = dict.fromkeys(FRONT_COLUMNS, "")
    plain |= {name: getattr(world.row, name) for name in FrontRow.__slots__}
    plain |= {"weight_bits": "8/4/4", "modalities": "accel+view+stats"}
    write_front(world.run, [plain])
    write_briefs(world.run)
    readme = world.folder / "README.md"
    assert "not verified" in readme.read_text() and "measured |" not in readme.read_text()
    write_json(world.folder / "verification.json", PROOF)
    write_json(world.folder / "verdict.json", world.verdict.to_json())
    write_briefs(world.run)
    assert readme.read_text() == world.text
    # A verdict on other bytes than those of front.csv is one on another program.
    write_front(world.run, [plain | {"ram_bytes": 1235}])
    write_briefs(world.run)
    assert "1,235 bytes, 31 % of 4,000 | predicted |" in readme.read_text()


def test_the_prefix_of_the_c(world: World) -> None:
    assert c_prefix(world.folder) == "model"
    for suffix in (".c", ".h"):
        (world.folder / "c" / f"model{suffix}").rename(world.folder / "c" / f"gait{suffix}")
    assert c_prefix(world.folder) == "gait"
    shutil.rmtree(world.folder / "c")
    assert c_prefix(world.folder) is None
