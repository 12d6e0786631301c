"""The commands of the README's examples, as they are written there but with smaller numbers."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from test_end_to_end import ROOT, World, document, table, write_data

from nas.data.task import load_task

README = ROOT / "README.md"


class Shell(World):
    """A folder in which the examples' commands are run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.environment |= {"PYTHONPATH": str(ROOT)}

    def paste(self, line: str, *more: str) -> str:
        """Runs a command of the README with its files in this folder; returns what it prints."""
        words = [self._moved(word) for word in [*shlex.split(line), *more]]
        if words[0] == "nas":
            words[:1] = ["-m", "nas"]
        elif words[0] == "python":
            del words[0]
        return self.command(*words).stdout

    def _moved(self, word: str) -> str:
        """Files that commands write lie in this folder, not in the checkout."""
        made = ("recordings", "badge", "teacher.onnx", "results/")
        return str(self.folder / word) if word.startswith(made) else word


def commands(heading: str) -> list[str]:
    """The indented lines of one section of the README, continued lines joined."""
    text = README.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"(?m)^ {4}(\S.*)$", text.replace("\\\n", " "))
    return [line.split(" #")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("shell"))


def test_from_recordings_to_a_front(shell: Shell) -> None:
    make, dry, write, apart, search = commands("From CSV recordings to a data file")
    shell.paste(make)
    seen = shell.paste(dry)
    assert dry == f"{write} --dry-run" and "dry run: nothing written" in seen
    assert not (shell.folder / "badge.npz").exists()
    assert "wrote" in shell.paste(write)
    task = load_task(shell.folder / "badge.npz")
    assert [(m.name, m.kind, m.shape) for m in task.modalities] == [
        ("accel", "series", (100, 3)),
        ("rssi", "vector", (3,)),
    ]
    assert task.class_names == ("cart", "rest", "walk") and len(task.y) > 600
    assert {len(set(task.split[task.group == g])) for g in set(task.group)} == {1}
    assert set(task.group) == {f"p{i}" for i in range(1, 9)}
    shell.paste(apart)
    other = load_task(shell.folder / "badge2.npz")
    assert [m.shape for m in other.modalities] == [(100, 3), (4, 3)]
    assert set(other.group) == set(task.group)
    assert "--minutes 2" in search
    short = "--trials 1 --validation split --no-verify --no-distil --workers 2"
    shell.paste(search.replace("--minutes 2", short))
    run = shell.folder / "results" / "badge"
    assert len(table(run / "front.csv")) >= 1
    assert document(run / "run.json")["data"]["modalities"] == ["accel", "rssi"]


def test_a_teacher_of_ones_own(shell: Shell) -> None:
    train, search = commands("Your own teacher")
    write_data(shell.folder / "toy.npz")
    toy = str(shell.folder / "toy.npz")
    shell.paste(train.replace("my_sensors.npz", toy), "--epochs", "4")
    limits = "--trials 2 --no-verify --workers 2 --out results/taught"
    shell.paste(search.replace("my_sensors.npz", toy).replace("--minutes 10", limits))
    run = shell.folder / "results" / "taught"
    held = document(run / "run.json")
    assert held["teacher"]["kind"] == "onnx" and len(held["own_teacher"]) == 64
    assert len(held["teacher"]["hash"]) == 64 and held["teacher"]["hash"] != held["own_teacher"]
    assert 0.4 < held["teacher"]["val_score"] <= 1 and 0.4 < held["teacher"]["test_score"] <= 1
    answers = np.load(shell.folder / "cache" / "teachers" / f"{held['teacher']['hash']}.npz")
    task = load_task(toy)
    right = answers["val"].argmax(1) == task.y[task.rows("val")]
    assert float(right.mean()) == held["teacher"]["val_score"]


def test_the_space_of_the_readme_is_the_example() -> None:
    """Its whole life is in test_own_space.py; here only that the command names it rightly."""
    (search,) = commands("Your own search space")
    words = shlex.split(search)
    assert (ROOT / words[words.index("--space") + 1]).read_text().count("SPACE = Space(") == 1
