"""`--space FILE.py`: the example works from search to resume, bad files are told in one line."""

import json
import shutil
from pathlib import Path

import pytest
from test_end_to_end import ROOT, World, document, table

from nas.errors import SpaceError
from nas.search.own_space import check_space, load_space_file
from nas.space import Problem, Sensor, architecture_id

EXAMPLE = ROOT / "examples" / "own_space.py"
PROBLEM = Problem(
    (
        Sensor("wave", "series", (1, 16, 2)),
        Sensor("view", "image", (6, 5, 1)),
        Sensor("level", "vector", (1, 1, 5)),
    ),
    3,
)
ONE = Problem(PROBLEM.sensors[:1], 2)


@pytest.mark.parametrize("problem", (PROBLEM, ONE))
def test_the_example_is_a_space(problem: Problem) -> None:
    space = load_space_file(EXAMPLE, ("conv",))
    check_space(space, problem)
    assert (space.name, space.file) == ("stems", EXAMPLE)
    assert load_space_file(EXAMPLE, ("conv",)).file_hash == space.file_hash


def test_a_search_in_the_example(tmp_path: Path) -> None:
    """Search, report, estimate and verify; then a resume, and one with a changed file."""
    world = World(tmp_path)
    own = shutil.copy(EXAMPLE, tmp_path / "mine.py")
    arguments = ("--data", world.data, "--space", own, "--no-distil", "--out", world.run)
    world.search(*arguments, "--trials", 2, "--no-verify")
    held = document(world.run / "run.json")
    assert held["space"] == "stems" and held["space_file"]["path"] == str(own)
    assert len(held["space_file"]["hash"]) == 64
    world.command("-m", "nas", "report", world.run)
    assert str(own) in (world.run / "report.html").read_text()
    row = table(world.run / "front.csv")[0]
    file = world.run / "candidates" / row["id"] / "architecture.json"
    assert document(file)["architecture"]["space"] == "stems"
    done = world.command("-m", "nas", "estimate", file, "--device", "cortex-m4-32k")
    assert f"{int(row['weight_bytes']):,} B  exact" in done.stdout
    done = world.command("-m", "nas", "verify", world.run, row["id"])
    assert f"0 of {256 * 3}" in done.stdout
    again = (*arguments, "--trials", 3, "--no-verify", "--resume")
    own.write_text(own.read_text().replace("CHANNELS = (4,", "CHANNELS = (6,"))
    line = world.refused(*again)
    assert "content of space_file" in line and held["space_file"]["hash"][:12] in line
    line = world.refused(*(a if a != own else "conv" for a in again))
    assert "space is 'conv' and was 'stems' when the run began" in line
    shutil.copy(EXAMPLE, own)
    world.search(*again)
    assert document(world.run / "run.json")["trials"]["trained"] == 3


# ---------------------------------------------------------------- files that are no space

SMALLEST = """
from dataclasses import asdict, dataclass
from nas.network.graph import Graph, Input
from nas.network.ops import Conv2d, Pool, Reshape
from nas.space import Space

@dataclass(frozen=True)
class One:
    name: str
    shape: tuple
    units: int
    classes: int

    def to_json(self):
        return {"space": "mine", **asdict(self)}

    def lower(self):
        ops = (
            Pool("mean", (self.name,), "average", tuple(self.shape[:2]), tuple(self.shape[:2])),
            Conv2d("a", ("mean",), self.units, (1, 1), (1, 1), "valid", 8, True),
            Conv2d("b", ("a",), self.classes, (1, 1), (1, 1), "valid", 8, False),
            Reshape("c", ("b",), (self.classes,)),
        )
        return Graph((Input(self.name, tuple(self.shape)),), ops, "c")

def sample(trial, problem):
    sensor = problem.sensors[0]
    units = trial.suggest_int("units", 1, 8)
    return One(sensor.name, sensor.shape, units, problem.classes)

def parse(document):
    values = {k: v for k, v in document.items() if k != "space"}
    return One(**{**values, "shape": tuple(document["shape"])})

SPACE = Space("mine", "the smallest", sample, parse)
"""


def written(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = SMALLEST
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def test_the_smallest_space(tmp_path: Path) -> None:
    space = load_space_file(written(tmp_path), ("conv",))
    check_space(space, ONE)


CANNOT_LOAD: dict[str, tuple[tuple[str, str], str]] = {
    "exception": (("SPACE = Space(", "1 / 0\nSPACE = Space("), r", line 35: cannot be run: ZeroD"),
    "import": (
        (
            "from nas.space import Space",
            "import nowhere\nfrom nas.space import Space",
        ),
        r", line 5: cannot be run: ModuleNotFoundError: No module named 'nowhere'",
    ),
    "syntax": (("def sample(trial, problem):", "def sample(trial problem):"), r", line 26: cannot"),
    "exit": (
        ("SPACE = Space(", "raise SystemExit(3)\nSPACE = Space("),
        r"line 35: .*SystemExit: 3",
    ),
    "none": (("SPACE = Space(", "space = Space("), r"defines no SPACE; it must define SPACE = nas"),
    "other": (("SPACE = Space(", "SPACE = dict() or ("), r"SPACE is a tuple; it must define"),
    "taken": (('Space("mine"', 'Space("conv"'), r"the name 'conv' must be a word other than conv"),
    "no word": (('Space("mine"', 'Space("my space"'), r"the name 'my space' must be a word"),
}


@pytest.mark.parametrize("case", CANNOT_LOAD)
def test_files_that_cannot_be_loaded(case: str, tmp_path: Path) -> None:
    change, message = CANNOT_LOAD[case]
    path = written(tmp_path, change)
    with pytest.raises(SpaceError, match=message) as caught:
        load_space_file(path, ("conv",))
    assert str(caught.value).startswith(f"--space {path}")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"mine.py: No such file or directory; give a Python file"):
        load_space_file(tmp_path / "mine.py", ())


NOT_FIT: dict[str, tuple[tuple[str, str], str]] = {
    "sample raises": (
        ("    sensor = problem.sensors[0]", "    sensor = problem.sensors[7]"),
        r", line 27: sample fails: IndexError: tuple index out of range",
    ),
    "lower raises": (('"average", tuple', '"median", tuple'), r"lower fails: "),
    "parse raises": (
        ('tuple(document["shape"])', 'tuple(document["form"])'),
        r"parse fails: KeyErr",
    ),
    "chance": (
        (
            "def sample(trial, problem):\n",
            "PAST = [0]\n\ndef sample(trial, problem):\n    PAST.append(0)\n"
            "    problem = type(problem)(problem.sensors, len(PAST))\n",
        ),
        r"two draws of one trial differ; an architecture must depend on its trial alone",
    ),
    "other after parsing": (
        ("    return One(**{**values,", "    values['units'] = 3\n    return One(**{**values,"),
        r"an architecture is another one after to_json and parse",
    ),
    "a field that is lost": (
        ('{"space": "mine", **asdict(self)}', '{"space": "mine", **asdict(self), "units": 3}'),
        r"an architecture is another one after to_json and parse",
    ),
    "choices that change": (
        (
            'trial.suggest_int("units", 1, 8)',
            'trial.suggest_int("units", 1, 2 + trial.suggest_int("more", 0, 3))',
        ),
        r"gene 'units' has the choices \(1, \d\) in one draw and \(1, \d\) in another",
    ),
    "genes that come and go": (
        (
            'trial.suggest_int("units", 1, 8)',
            'trial.suggest_int("more", 0, 1) or trial.suggest_int("units", 1, 8)',
        ),
        r"gene 'units' has the choices \(1, 8\) in one draw and None in another",
    ),
    "gene twice": (
        (
            'trial.suggest_int("units", 1, 8)',
            'trial.suggest_int("units", 1, 8) + trial.suggest_int("units", 1, 8)',
        ),
        r"gene 'units' is drawn twice in one trial",
    ),
    "a start that is no draw": (
        ("sample, parse)", 'sample, parse, lambda problem: [{"units": 4}, {"units": 9}])'),
        r"start 1: sample fails: gene units is 9; it must be an integer 1\.\.8",
    ),
    "starts that fail": (
        ("sample, parse)", "sample, parse, lambda problem: problem.starts)"),
        r"starts fails: AttributeError",
    ),
    "no gene": (('trial.suggest_int("units", 1, 8)', "4"), r"sample draws no gene"),
    "empty choice": (
        ('trial.suggest_int("units", 1, 8)', 'trial.suggest_int("units", 8, 1)'),
        r"gene 'units' has the choices \(8, 1\); integers need low <= high",
    ),
    "float gene": (
        ('trial.suggest_int("units", 1, 8)', 'int(trial.suggest_float("units", 1, 8))'),
        r"a trial has suggest_int and suggest_categorical, not suggest_float",
    ),
    "no space": (
        ('{"space": "mine", **asdict(self)}', "asdict(self)"),
        r"a dict with 'space': 'mine'",
    ),
    "no JSON": (
        ('{"space": "mine", **asdict(self)}', '{"space": "mine", "units": {1, 2}}'),
        r"to_json fails or is not JSON: TypeError",
    ),
    "other input": (("Graph((Input(self.name,", 'Graph((Input("x",'), r"lower fails: "),
    "output": (
        ('ops, "c")', 'ops[:3], "b")'),
        r"a network has 1 inputs and an output of shape \(1, 1, 2\); it needs",
    ),
}


@pytest.mark.parametrize("case", NOT_FIT)
def test_spaces_that_would_harm_a_search(case: str, tmp_path: Path) -> None:
    change, message = NOT_FIT[case]
    path = written(tmp_path, change)
    with pytest.raises(SpaceError, match=message) as caught:
        check_space(load_space_file(path, ("conv",)), ONE)
    assert str(caught.value).startswith(f"--space {path}") and "\n" not in str(caught.value)


def test_a_network_of_an_input_that_the_data_lack(tmp_path: Path) -> None:
    path = written(tmp_path, ("One(sensor.name,", 'One("gyro",'))
    with pytest.raises(SpaceError, match=r"has the input 'gyro' of shape \(1, 16, 2\); the data"):
        check_space(load_space_file(path, ()), ONE)


def test_two_ids_of_two_architectures(tmp_path: Path) -> None:
    """The space of the file is used as it is: what it draws has the engine's own kind of id."""
    space = load_space_file(written(tmp_path), ())
    found = {
        architecture_id(
            space.parse(
                json.loads(
                    json.dumps(
                        {
                            "space": "mine",
                            "name": "wave",
                            "shape": [1, 16, 2],
                            "units": units,
                            "classes": 2,
                        }
                    )
                )
            )
        )
        for units in (1, 2, 2)
    }
    assert len(found) == 2
