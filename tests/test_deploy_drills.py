"""Drills of deployment: what is damaged, missing or too small is told in words of its own."""

import importlib.util
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import extreme_inputs, planned, put, small_model
from made_up_run import student, write_run

from nas import cli, run
from nas.data.task import Task, load_task
from nas.deploy import toolchain
from nas.deploy.toolchain import Memory, compile_firmware, find_compiler
from nas.emulation.emulator import Machine
from nas.errors import MachineFault, Mismatch, RunError, ToolMissing
from nas.export.again import write_again
from nas.export.bundle import Candidate, at_8_bits, write_candidate
from nas.export.emulate import Bench, run_bundle
from nas.export.verification import Proof, require_equal
from nas.export.verify import verification_inputs, verify_candidate
from nas.hardware.cost import estimate
from nas.hardware.memory import plan_memory
from nas.hardware.profile import Profile
from nas.hardware.program import Program, program_of
from nas.network import reference
from nas.network.integer import IntegerModel, Scale, load_integer_model
from nas.network.random_model import with_random_numbers
from nas.run_folder import read_front, read_json, write_json
from nas.space import architecture_id

INSTALL = r"pip install 'mcu-nas\[emulate\]'"
ID = architecture_id(student(0))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def write_data(path: Path) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 4
    np.savez(
        path,
        modality_accel=(rng.normal(size=(60, 64, 3)) + y[:, None, None]).astype(np.float32),
        y=y,
        split=np.repeat([0, 1, 2], 20),
        class_names=np.array(["a", "b", "c", "d"]),
    )
    return path


def integer_model(task: Task) -> IntegerModel:
    model = with_random_numbers(student(0).lower(), np.random.default_rng(0), odd_zeros=False)
    accel = task.modalities[0]
    return replace(model, scales={**model.scales, "accel": Scale(accel.input_scale, 0)})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of one candidate, all of whose files belong together."""
    folder = tmp_path_factory.mktemp("finished")
    home = write_run(folder / "run", candidates=1)
    task = load_task(write_data(folder / "data.npz"))
    model = integer_model(task)
    manifest = read_json(home / "run.json")
    manifest["data"] |= {
        "path": str(folder / "data.npz"),
        "hash": task.data_hash,
        "modalities": ["accel"],
        "classes": ["a", "b", "c", "d"],
    }
    write_json(home / "run.json", manifest)
    profile = Profile.from_dict(manifest["profile"])
    program = program_of(model.graph, plan_memory(model.graph), profile.flash_wait_states)
    document = {**student(0).to_json(), "space": "multimodal"}
    predicted = np.zeros(20, np.int64)
    write_candidate(
        home,
        Candidate(
            ID, document, model, program, estimate(program, profile),
            at_8_bits(model.graph, profile), None, [0.9, 0.8], 20, 900, "teacher", predicted,
            {"accel": 0.25},
        ),
        task,
    )  # fmt: skip
    return home


class Copy:
    """A copy of the finished run for one drill."""

    def __init__(self, finished: Path, folder: Path, cache: Path) -> None:
        self.run = Path(shutil.copytree(finished, folder / "run"))
        self.folder = self.run / "candidates" / ID
        self.c = self.folder / "c"
        manifest = read_json(self.run / "run.json")
        self.profile = Profile.from_dict(manifest["profile"])
        self.bench = Bench(self.profile, find_compiler(), cache)
        self.inputs = verification_inputs(load_task(manifest["data"]["path"]))

    @property
    def model(self) -> IntegerModel:
        return load_integer_model(self.folder / "model.npz")

    @property
    def program(self) -> Program:
        graph = self.model.graph
        return program_of(graph, plan_memory(graph), self.profile.flash_wait_states)

    def verify(self, ram_bytes: int | None = None) -> Proof:
        """Of a device whose RAM is just that, if one is given."""
        held = self.bench
        if ram_bytes is not None:
            profile = replace(self.profile, ram_bytes=ram_bytes, ram_reserved_bytes=0)
            held = replace(held, profile=profile)
        return verify_candidate(self.folder, self.inputs, held)

    def edit(self, file: str, change: Callable[[str], str]) -> None:
        path = self.c / file
        text = path.read_text()
        assert change(text) != text
        path.write_text(change(text))


@pytest.fixture
def copy(finished: Path, tmp_path: Path, cache: Path) -> Copy:
    return Copy(finished, tmp_path, cache)


def refused(copy: Copy, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What `nas verify` says when it ends with status 1."""
    assert cli.main(["verify", str(copy.run), "--workers", "1", *options]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    return line


def failure_of(proof: Proof) -> str:
    """Why the C was not run; everything else is as it should be."""
    assert proof.verdict is None and proof.verification.verified == "host"
    with pytest.raises(Mismatch, match=rf"^{ID}: its C was not run on the emulated chip: "):
        require_equal([proof.verification])
    return proof.verification.failure


# ---------------------------------------------------------------- tools that are missing


@pytest.fixture
def no_compiler(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_zig", "_gcc_wheel"):
        monkeypatch.setattr(toolchain, name, lambda: None)


@pytest.mark.usefixtures("no_compiler")
def test_no_compiler(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    message = (
        rf"ziglang: not installed, and needed to compile for the Cortex-M4: {INSTALL}; or name"
    )
    with pytest.raises(ToolMissing, match=message):
        find_compiler()
    assert re.search(message, refused(copy, capsys))
    with pytest.raises(ToolMissing, match=message):  # the start of a search
        run.check_runtimes(SimpleNamespace(verify=True, cc=None))  # type: ignore[arg-type]
    run.check_runtimes(SimpleNamespace(verify=False, cc=None))  # type: ignore[arg-type]
    assert read_front(copy.run)[0]["verified"] == "no"


@pytest.mark.parametrize(
    ("package", "role"),
    [("unicorn", "emulator"), ("capstone", "disassembler"), ("elftools", "reader of ELF files")],
)
def test_a_package_that_is_missing(
    package: str,
    role: str,
    copy: Copy,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == package else found(n, *a)
    )
    message = rf"{package}: not installed, and needed as the {role} that runs candidates' C: "
    assert re.search(message + INSTALL, refused(copy, capsys))
    with pytest.raises(ToolMissing, match=message):
        run.check_runtimes(SimpleNamespace(verify=True, cc=None))  # type: ignore[arg-type]


def test_an_unknown_compiler(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(copy, capsys, "--cc", "no-such-gcc")
    assert f"no-such-gcc: no such compiler; give its path, or leave --cc out and {INSTALL}"[
        :60
    ] in line.replace("\\", "")
    with pytest.raises(ToolMissing, match="no-such-gcc: no such compiler"):
        run.check_runtimes(SimpleNamespace(verify=True, cc="no-such-gcc"))  # type: ignore[arg-type]


def test_predictions_for_another_compiler_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"compiler": find_compiler().version}
    monkeypatch.setattr(run, "kernel_costs", lambda: table)
    assert run._other_compiler(None) == []
    table["compiler"] = "zig 0.1"
    (note,) = run._other_compiler(None)
    assert re.match(r"candidates were compiled by zig [\d.]+, predictions are calibrated for", note)


def test_a_cache_that_cannot_be_written(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    copy.bench = replace(copy.bench, cache=tmp_path / "file" / "cache")
    assert re.search(r"file/cache: cannot be written: Not a directory", failure_of(copy.verify()))


# ---------------------------------------------------------------- memory that is too small


def test_ram_and_stack(copy: Copy) -> None:
    """The exact RAM is enough; with 8 bytes less it faults, with a page less it does not link."""
    verdict = copy.verify().verdict
    assert verdict is not None and verdict.outputs_differing == 0
    arena = copy.program.workspace.bytes
    assert verdict.measured_ram_bytes == arena + verdict.stack_bytes
    stack = -(-verdict.stack_bytes // 8) * 8
    enough = copy.verify(arena + stack)
    assert enough.verdict is not None and enough.verification.verified == "emulated"
    assert enough.verdict.stack_bytes == verdict.stack_bytes
    few = replace(copy.bench.profile, ram_reserved_bytes=0)
    for short in (stack - 8, stack // 2 // 8 * 8, 8):
        held = replace(copy.bench, profile=replace(few, ram_bytes=arena + short))
        with pytest.raises(MachineFault, match=rf"the stack of {short} bytes overflows in model_"):
            run_bundle(copy.c, copy.program, copy.inputs, held)
    assert re.search(
        rf"the stack of {stack - 8} bytes overflows in model_\w+ \(pc .*where no memory allows it;"
        " stack pointer",
        failure_of(copy.verify(arena + stack - 8)),
    )
    assert re.search(
        rf"RAM of {arena - 256} bytes is \d+ bytes too small for a stack of 8 bytes and",
        failure_of(copy.verify(arena - 256)),
    )


def test_flash(copy: Copy) -> None:
    small = replace(copy.profile, flash_bytes=2048, flash_reserved_bytes=0)
    copy.bench = replace(copy.bench, profile=small)
    assert re.match(r"Flash of 2048 bytes is \d+ bytes too small", failure_of(copy.verify()))


# ---------------------------------------------------------------- files that are damaged


def spoil_weight(text: str) -> str:
    """Another bit in the middle of the last layer's weights."""
    names = re.findall(r"^static const uint32_t (\w+_weights)\[", text, re.M)
    head, rest = text.split(f"{names[-1]}[", 1)
    words = list(re.finditer(r"0x[0-9a-f]{8}", rest[: rest.index("}")]))
    chosen = words[len(words) // 2]
    spoiled = f"{int(chosen[0], 16) ^ 0x40:#010x}"
    return f"{head}{names[-1]}[{rest[: chosen.start()]}{spoiled}{rest[chosen.end() :]}"


def test_a_spoiled_weight(
    copy: Copy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(cache))
    copy.edit("model.c", spoil_weight)
    line = refused(copy, capsys)
    found = re.search(
        rf"error: {ID}: (\d+) of 256 outputs differ in C on an emulated Cortex-M4 \(zig [\d.]+\)"
        r" \(by up to (\d+)\); input (\d+): (\w+), element (\d+): the C gives (-?\d+), the"
        r" reference (-?\d+); they must be equal: report this candidate's folder",
        line,
    )
    assert found, line
    row, index, given, wanted = (int(found[n]) for n in (3, 5, 6, 7))
    last = [op.name for op in copy.program.ops if op.name in copy.model.weights][-1]
    assert found[4] == last
    one = {name: values[row : row + 1] for name, values in copy.inputs.items()}
    assert reference.trace(copy.model, one)[last].ravel()[index] == wanted != given
    assert read_front(copy.run)[0]["verified"] == "host"
    difference = read_json(copy.folder / "verdict.json")["difference"]
    assert difference == {
        "operator": last, "input": row, "index": index, "c": given, "reference": wanted
    }  # fmt: skip


def test_a_spoiled_weight_where_flash_is_full(copy: Copy) -> None:
    """What finds the operator is larger and does not fit; the difference is told all the same."""
    verdict = copy.verify().verdict
    assert verdict is not None
    exact = replace(copy.profile, flash_bytes=verdict.measured_flash_bytes, flash_reserved_bytes=0)
    copy.bench = replace(copy.bench, profile=exact)
    copy.edit("model.c", spoil_weight)
    proof = copy.verify()
    assert proof.verdict is not None and proof.verdict.difference is None
    with pytest.raises(Mismatch, match=r"\d+ of 256 outputs differ in C on an emulated Cortex-M4"):
        require_equal([proof.verification])


def test_an_edited_kernel(copy: Copy) -> None:
    """A rounding that is a little off is found, at the operator whose kernel it is."""
    copy.edit("kernels/average_pool.c", lambda t: t.replace("count / 2)", "count / 2 - 1)"))
    proof = copy.verify()
    assert proof.verdict is not None and proof.verification.verified == "host"
    assert proof.verdict.difference is not None
    pools = [op.name for op in copy.program.ops if type(op).__name__ == "Pool"]
    assert proof.verdict.difference.operator in pools
    with pytest.raises(Mismatch, match=r"input \d+: \w+, element \d+: the C gives -?\d+, the ref"):
        require_equal([proof.verification])
    copy.edit("kernels/average_pool.c", lambda t: t + "int broken(void) { return nothing; }\n")
    assert re.search(
        r"zig [\d.]+ refuses the program: .*average_pool.c:\d+:.*error: .*'nothing'",
        failure_of(copy.verify()),
    )
    (copy.c / "kernels" / "average_pool.c").unlink()
    assert re.search("undefined symbol: model_average_pool", failure_of(copy.verify()))


def insert(statement: str) -> Callable[[str], str]:
    """Into model_run, before its first operator."""
    return lambda text: text.replace("    (void)a;\n", f"    (void)a;\n    {statement}\n")


FAULTS = {
    "write": (
        "*(volatile int32_t *)0x30000000 = 1;",
        r"the program faults in model_run \(pc 0x\w+\): write of 4 bytes at 0x30000000, where no"
        " memory allows it; stack pointer",
    ),
    "endless_stack": (
        "volatile uint32_t at = 8999; volatile int32_t deep[9000]; deep[at - 8999] = 1;",
        r"the stack of \d+ bytes overflows in model_run",
    ),
    "register": (
        '__asm__ volatile("add r11, r11, #1");',
        "the function returned with another r11 than it was called with",
    ),
    "unwritten": (
        'int32_t left; __asm__ volatile("ldr %0, [sp, #-64]" : "=r"(left));'
        " a[{OUT}] = (int8_t)left; return;",
        "the measured run and the one before differ: the program reads memory that it never wrote",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_c_that_faults(fault: str, copy: Copy) -> None:
    statement, message = FAULTS[fault]
    out = copy.program.plan.offsets[copy.program.graph.output]
    copy.edit("model.c", insert(statement.replace("{OUT}", str(out))))
    assert re.search(message, failure_of(copy.verify()))


def test_the_verdict_of_a_fault_is_taken_back(
    copy: Copy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(cache))
    assert cli.main(["verify", str(copy.run), "--workers", "1"]) == 0
    assert "C on an emulated Cortex-M4" in capsys.readouterr().out
    row = read_front(copy.run)[0]
    verdict = read_json(copy.folder / "verdict.json")
    assert row["verified"] == "emulated" and int(row["ram_bytes"]) == verdict["measured_ram_bytes"]
    copy.edit("model.c", insert(FAULTS["write"][0]))
    line = refused(copy, capsys)
    assert re.search(
        rf"error: {ID}: its C was not run on the emulated chip: the program faults", line
    )
    assert not (copy.folder / "verdict.json").exists()
    assert read_front(copy.run)[0]["verified"] == "host"
    assert "the program faults" in read_json(copy.folder / "verification.json")["failure"]


def test_a_torn_model(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy.folder / "model.npz"
    file.write_bytes(file.read_bytes()[:-100])
    message = r"model.npz: not a trained model \(.*\); export the candidate again"
    with pytest.raises(RunError, match=message):
        copy.verify()
    assert re.search(message, refused(copy, capsys))
    assert cli.main(["bundle", str(copy.run), ID]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_no_bundle(copy: Copy) -> None:
    copy.c.rename(copy.folder / "gone")
    assert failure_of(copy.verify()) == "there is no folder c; nas bundle writes it"
    write_again(copy.run, ID, "model", copy.c)
    assert copy.verify().verification.verified == "emulated"
    (copy.c / "kernels" / "names.h").write_text("")
    assert "names.h: names no prefix; nas bundle writes it again" in failure_of(copy.verify())
    (copy.c / "kernels" / "names.h").unlink()
    assert "names.h: cannot be read: No such file" in failure_of(copy.verify())


# ---------------------------------------------------------------- nas bundle


def test_another_prefix(copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    """In the candidate's own folder, if asked for: what is verified is what is there."""
    named = ["bundle", str(copy.run), ID, "--prefix", "gait"]
    assert cli.main(named) != 0
    assert "--prefix gait: name a folder for it with --out" in capsys.readouterr().err
    assert cli.main([*named, "--out", str(copy.c)]) == 0
    assert re.search(r"/c: \d+ files\n$", capsys.readouterr().out)
    assert not list(copy.c.glob("model.*")) and (copy.c / "gait.c").exists()
    assert copy.verify().verification.verified == "emulated"
    copy.edit("gait.c", spoil_weight)
    verdict = copy.verify().verdict
    assert verdict is not None and verdict.difference is not None
    assert cli.main(["bundle", str(copy.run), ID, "--prefix", "Gait", "--out", str(copy.c)]) == 1
    assert "error: prefix 'Gait': must be at most 31 small letters" in capsys.readouterr().err
    assert cli.main(["bundle", str(copy.run), "none"]) == 1
    assert "candidates/none: no such candidate; nas pick" in capsys.readouterr().err


def test_a_folder_that_holds_other_things(copy: Copy, tmp_path: Path) -> None:
    out = tmp_path / "firmware"
    (out / "kernels").mkdir(parents=True)
    (out / "kernels" / "boot.c").write_text("mine")
    for name in ("main.c", "kernels/boot.c", "notes.txt"):
        (out / name).write_text("mine")
        with pytest.raises(RunError, match="firmware: holds something else than a bundle; choose"):
            write_again(copy.run, ID, "gait", out)
    assert {p.read_text() for p in out.rglob("*") if p.is_file()} == {"mine"}
    shutil.rmtree(out)
    write_again(copy.run, ID, "gait", out)
    write_again(copy.run, ID, "gait2", out)  # a bundle may be written over
    assert (out / "gait2.c").exists() and not (out / "gait.c").exists()
    for name in ("notes.txt", "kernels/notes.txt", "gait.c"):
        (out / name).write_text("mine")
        with pytest.raises(RunError, match=rf"firmware: holds {name}, which is of no bundle"):
            write_again(copy.run, ID, "gait2", out)
        (out / name).unlink()
    with pytest.raises(RunError, match=r"gait2.c: is a file; choose another --out"):
        write_again(copy.run, ID, "gait", out / "gait2.c")


def test_a_folder_that_cannot_be_written(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"names.h: cannot be written \(Not a directory\).*--out"):
        write_again(copy.run, ID, "gait", tmp_path / "file" / "out")
    if os.geteuid() == 0:
        return  # whom no permission stops
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(RunError, match=r"names.h: cannot be written \(Permission denied\).*--out"):
        write_again(copy.run, ID, "gait", locked / "out")


# ---------------------------------------------------------------- one firmware, two models

ARENAS = "#include <stdint.h>\n" + "".join(
    f"extern uint32_t {n}_arena[{n.upper()}];\nuint32_t {n}_arena[{n.upper()}];\n" for n in "ab"
)


def test_two_models_in_one_firmware(tmp_path: Path, cache: Path) -> None:
    """Their kernels have one source and two prefixes; each answers as if it were alone."""
    rng = np.random.default_rng(3)
    models = {"a": small_model(("accel", "gyro"), 1), "b": small_model(("accel", "mic"), 2)}
    programs = {name: planned(model.graph) for name, model in models.items()}
    inputs = {name: extreme_inputs(model.graph, rng) for name, model in models.items()}
    sources = [tmp_path / "arenas.c"]
    sources[0].write_text(ARENAS)
    for name, model in models.items():
        put(tmp_path / name, model, inputs[name], programs[name], prefix=name)
        sources += [
            path for path in sorted((tmp_path / name).rglob("*.[cS]")) if path.stem != "main"
        ]
    sizes = [f"{name.upper()}={program.workspace.bytes // 4}" for name, program in programs.items()]
    roots = [f"{name}_{part}" for name in models for part in ("run", "arena")]
    memory, elf = Memory(1 << 20, 1 << 16, 4096), tmp_path / "both.elf"
    compile_firmware(
        find_compiler(),
        sources,
        elf,
        memory,
        has_fpu=False,
        roots=roots,
        cache=cache,
        defines=sizes,
    )
    with Machine(elf, memory, has_fpu=False, cache=cache) as machine:
        for row in range(len(inputs["a"]["accel"])):
            for name, model in models.items():  # in turn: neither may disturb the other
                offsets = programs[name].plan.offsets
                arena = machine.image.symbol(f"{name}_arena").address
                one = {key: values[row : row + 1] for key, values in inputs[name].items()}
                returned = machine.run(
                    f"{name}_run",
                    (f"{name}_arena",),
                    writes=[(arena + offsets[key], v.tobytes()) for key, v in one.items()],
                    reads=[(arena + offsets[model.graph.output], 3)],
                )
                assert returned.outputs[0] == reference.run(model, one).tobytes()
