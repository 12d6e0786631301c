"""Profiles: shipped files load, a bad file is refused with everything that is wrong in one line."""

import json
import pickle
import tomllib
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest

import hardware_profiles
from nas.errors import ProfileError
from nas.hardware.profile import Profile, list_profiles, load_profile

FOLDER = Path(hardware_profiles.__file__).parent
FILES = sorted(FOLDER.glob("*.toml"))
NAMES = [file.stem for file in FILES]

GOOD = """
[device]
name = "board"
part = "part on the board"
core = "cortex-m4f"
source = "datasheet of the part, cover page"
[clock]
clock_hz = 80_000_000
source = "datasheet of the part, cover page"
[memory]
ram_bytes = 65_536
flash_bytes = 262_144
source = "datasheet of the part, cover page"
[levels]
level_names = ["close", "all"]
level_bytes = [16_384, 65_536]
source = "reference manual of the part, table 2"
[reserved]
ram_reserved_bytes = 8_192
flash_reserved_bytes = 65_536
source = "what the application of the test keeps"
[flash]
flash_wait_states = 4
source = "reference manual of the part, table 9"
[power]
supply_voltage_v = 3
active_current_a = 6.5e-3
sleep_current_a = 1.25e-6
source = "datasheet of the part, table 27"
"""


def write(folder: Path, text: str, name: str = "board.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def change(old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) == 1, f"{old!r} must occur once, or the test changes something else"
    return text.replace(old, new)


def refuse(name_or_path: str) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(name_or_path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# --- what is shipped ---


def test_the_shipped_files_are_the_listed_profiles() -> None:
    profiles = list_profiles()
    assert [p.name for p in profiles] == NAMES
    assert {"cortex-m4-64k", "cortex-m4-32k"} <= set(NAMES)
    assert sum(p.ram_bytes == 64 * 1024 for p in profiles) >= 2
    assert sum(p.ram_bytes <= 32 * 1024 for p in profiles) >= 2
    assert len({p.hash for p in profiles}) == len(profiles)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_loads_by_name_and_says_its_own_name(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile == load_profile(str(FOLDER / f"{name}.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_table_of_a_shipped_profile_names_its_source(name: str) -> None:
    document = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    sources = load_profile(name).sources
    assert set(sources) == set(document)
    for table, source in sources.items():
        assert len(source) >= 20, table
        assert source.splitlines() == [source], table


@pytest.mark.parametrize("name", NAMES)
def test_shipped_figures_have_the_size_of_a_cortex_m4(name: str) -> None:
    # A slip of a unit (mA written as A, MHz as Hz) moves a figure out of these ranges.
    p = load_profile(name)
    assert 16e6 <= p.clock_hz <= 240e6
    assert 8 * 1024 <= p.ram_budget_bytes < p.ram_bytes <= 640 * 1024
    assert 32 * 1024 <= p.flash_budget_bytes < p.flash_bytes <= 2048 * 1024
    assert p.flash_wait_states <= 15
    assert 1.6 <= p.supply_voltage_v <= 3.8
    assert 20e-6 <= p.active_current_a / (p.clock_hz / 1e6) <= 400e-6
    assert 1e-7 <= p.sleep_current_a <= 1e-4


def test_the_two_classes_have_the_documented_figures() -> None:
    big, small = load_profile("cortex-m4-64k"), load_profile("cortex-m4-32k")
    assert (big.clock_hz, big.flash_wait_states) == (80_000_000, 4)
    assert (big.ram_budget_bytes, big.flash_budget_bytes) == (65_536 - 8_192, 262_144 - 65_536)
    assert (small.clock_hz, small.flash_wait_states) == (64_000_000, 2)
    assert (small.ram_budget_bytes, small.flash_budget_bytes) == (32_768 - 4_096, 262_144 - 65_536)


def test_the_readme_has_a_row_for_each_shipped_profile() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for p in list_profiles():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{p.name}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2:6] == [
            f"{p.clock_hz / 1e6:g} MHz",
            f"{p.ram_bytes // 1024} KB",
            f"{p.flash_bytes // 1024} KB",
            str(p.flash_wait_states),
        ]
        assert cells[7:] == [
            f"{p.active_current_a * 1e3:g} mA",
            f"{p.sleep_current_a * 1e6:g} µA",
        ]


# --- a profile as a value ---


def test_a_good_file_gives_each_figure(tmp_path: Path) -> None:
    p = load_profile(write(tmp_path, GOOD))
    assert p == Profile(
        name="board",
        part="part on the board",
        core="cortex-m4f",
        clock_hz=80_000_000,
        ram_bytes=65_536,
        flash_bytes=262_144,
        level_names=("close", "all"),
        level_bytes=(16_384, 65_536),
        ram_reserved_bytes=8_192,
        flash_reserved_bytes=65_536,
        flash_wait_states=4,
        supply_voltage_v=3.0,
        active_current_a=6.5e-3,
        sleep_current_a=1.25e-6,
        sources=p.sources,
    )
    assert p.sources["power"] == "datasheet of the part, table 27"
    assert (p.ram_budget_bytes, p.flash_budget_bytes) == (57_344, 196_608)
    assert isinstance(p.supply_voltage_v, float)
    assert p.has_fpu
    assert not load_profile(write(tmp_path, change("cortex-m4f", "cortex-m4"))).has_fpu


def test_a_profile_cannot_be_changed_and_survives_a_worker_process(tmp_path: Path) -> None:
    p = load_profile(write(tmp_path, GOOD))
    with pytest.raises(FrozenInstanceError):
        p.ram_bytes = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(p)) == p
    assert len({p, load_profile(write(tmp_path, GOOD))}) == 1


def test_json_holds_every_field(tmp_path: Path) -> None:
    p = load_profile(write(tmp_path, GOOD))
    lists = {"level_names": ["close", "all"], "level_bytes": [16_384, 65_536]}
    assert json.loads(p.to_json()) == p.to_dict() == asdict(p) | lists
    assert Profile.from_dict(json.loads(p.to_json())) == p
    assert "\n" not in p.to_json()


def test_the_hash_is_of_the_content_and_not_of_the_file(tmp_path: Path) -> None:
    p = load_profile(write(tmp_path, GOOD))
    assert len(p.hash) == 12 and set(p.hash) <= set("0123456789abcdef")
    reworded = change("80_000_000", "80000000  # a comment", change("= 3\n", "= 3.0\n"))
    assert load_profile(write(tmp_path, reworded, "other.toml")).hash == p.hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"board"', '"other"'),
        ('"part on the board"', '"other"'),
        ("cortex-m4f", "cortex-m4"),
        ("80_000_000", "80_000_001"),
        ('"close"', '"near"'),
        ("[16_384, ", "[16_385, "),
        ("262_144", "262_145"),
        ("8_192", "8_193"),
        ("flash_reserved_bytes = 65_536", "flash_reserved_bytes = 0"),
        ("flash_wait_states = 4", "flash_wait_states = 0"),
        ("= 3\n", "= 3.1\n"),
        ("6.5e-3", "6.6e-3"),
        ("1.25e-6", "1.26e-6"),
        ("table 27", "table 28"),
    ],
)
def test_the_hash_changes_with_each_entry(tmp_path: Path, old: str, new: str) -> None:
    before = load_profile(write(tmp_path, GOOD)).hash
    assert load_profile(write(tmp_path, change(old, new))).hash != before


# --- finding the file ---


def test_a_path_is_told_from_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD, "cortex-m4-64k")
    write(tmp_path, GOOD, "board.toml")
    monkeypatch.chdir(tmp_path)
    assert load_profile("board.toml").name == "board"
    assert load_profile("./cortex-m4-64k").name == "board"
    assert load_profile("cortex-m4-64k").name == "cortex-m4-64k"


def test_an_unknown_name_lists_the_known_ones_and_the_closest() -> None:
    message = refuse("STM32L432")
    assert "device 'STM32L432'" in message
    assert "did you mean 'stm32l432kc'?" in message
    for name in NAMES:
        assert name in message
    assert message.endswith("give the path of your own .toml file")


def test_the_closest_name_does_not_depend_on_capitals() -> None:
    assert "did you mean 'msp432p401r'?" in refuse("MSP")


def test_a_name_like_no_other_gets_no_suggestion() -> None:
    message = refuse("?")
    assert "did you mean" not in message
    assert ", ".join(NAMES) in message


@pytest.mark.parametrize("name", ["", "__init__", "..", "two\nlines"])
def test_only_names_of_shipped_files_are_names(name: str) -> None:
    assert "no profile has this name" in refuse(name)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    path = str(tmp_path / "absent.toml")
    assert refuse(path).startswith(f"{path}: cannot be read: No such file")
    assert "cannot be read" in refuse(f"{tmp_path}/")


@pytest.mark.parametrize(
    "content",
    [b"clock_hz: 80\n", b"[device\n", b"\xff\xfe\x00", b"a = 1\na = 2\n", b"a = " + b"[" * 9999],
)
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "board.toml"
    path.write_bytes(content)
    message = refuse(str(path))
    assert message.startswith(f"{path}: not a TOML file: ")
    assert "correct the syntax" in message


# --- what a file may not say ---


def test_one_line_names_a_missing_an_unknown_and_a_mistyped_key(tmp_path: Path) -> None:
    text = change("ram_bytes = 65_536\n", "ram_kilobytes = 64\n")
    path = write(tmp_path, change("= 80_000_000", '= "80 MHz"', text))
    message = refuse(path)
    assert message.split("; ") == [
        f"{path}: clock.clock_hz: must be a whole number greater than 0, not '80 MHz'",
        f"{path}: memory.ram_bytes: missing key",
        f"{path}: memory.ram_kilobytes: unknown key, did you mean 'ram_bytes'?",
        "correct the keys named here, cortex-m4-64k.toml in hardware_profiles has every key",
    ]


def keys_of(text: str) -> list[tuple[str, str]]:
    document = tomllib.loads(text)
    return [(table, key) for table, entries in document.items() for key in entries]


@pytest.mark.parametrize(("table", "key"), keys_of(GOOD))
def test_no_key_has_a_default(tmp_path: Path, table: str, key: str) -> None:
    head, body = GOOD.split(f"[{table}]\n")
    line = next(line for line in body.splitlines() if line.startswith(f"{key} = "))
    message = refuse(write(tmp_path, f"{head}[{table}]\n" + body.replace(f"{line}\n", "", 1)))
    assert message.count("board.toml: ") == 1
    assert f"{table}.{key}: missing key" in message


@pytest.mark.parametrize(("table", "key"), keys_of(GOOD))
@pytest.mark.parametrize("value", ["true", "[1]", "{ a = 1 }", "1979-05-27", "''"])
def test_no_key_takes_another_type(tmp_path: Path, table: str, key: str, value: str) -> None:
    head, body = GOOD.split(f"[{table}]\n")
    line = next(line for line in body.splitlines() if line.startswith(f"{key} = "))
    text = f"{head}[{table}]\n" + body.replace(f"{line}\n", f"{key} = {value}\n", 1)
    message = refuse(write(tmp_path, text))
    assert message.count("board.toml: ") == 1
    assert f"{table}.{key}: must be " in message


@pytest.mark.parametrize(
    "levels", ["[]", "[65_536, 16_384]", "[16_384, 16_384]", "[0, 65_536]", "['16 KB', 65_536]"]
)
def test_levels_rise(tmp_path: Path, levels: str) -> None:
    message = refuse(write(tmp_path, change("[16_384, 65_536]", levels)))
    assert "levels.level_bytes: must be a list of whole numbers greater than 0 that rise" in message


@pytest.mark.parametrize("levels", ["[65_536]", "[1, 2, 65_536]", "[16_384, 65_537]"])
def test_levels_have_names_and_end_with_the_whole_ram(tmp_path: Path, levels: str) -> None:
    message = refuse(write(tmp_path, change("[16_384, 65_536]", levels)))
    assert "levels.level_bytes: must be 2 numbers, one a name, that end with" in message
    assert "memory.ram_bytes = 65536" in message and message.count("board.toml: ") == 1


@pytest.mark.parametrize(
    ("old", "key", "values"),
    [
        ("80_000_000", "clock.clock_hz", ["0", "-1", "8e7", "inf"]),
        ("262_144", "memory.flash_bytes", ["0", "-262144", "262144.0"]),
        ("8_192", "reserved.ram_reserved_bytes", ["-1", "8192.0"]),
        ("states = 4", "flash.flash_wait_states", ["-1", "4.0"]),
        ("= 3\n", "power.supply_voltage_v", ["0", "0.0", "-3", "nan", "inf", "1" + "0" * 400]),
        ("6.5e-3", "power.active_current_a", ["0.0", "-6.5e-3", "nan", "'6.5 mA'"]),
        ("1.25e-6", "power.sleep_current_a", ["0", "-0.0", "-inf"]),
    ],
)
def test_a_number_outside_its_range(tmp_path: Path, old: str, key: str, values: list[str]) -> None:
    for value in values:
        message = refuse(write(tmp_path, change(old, old.replace(old.split()[-1], value) + "\n")))
        assert f"{key}: must be " in message, value
        assert message.count("board.toml: ") == 1, value


def test_a_boolean_is_not_a_number(tmp_path: Path) -> None:
    message = refuse(write(tmp_path, change("states = 4", "states = true")))
    assert "flash.flash_wait_states: must be a whole number of at least 0, not true" in message


@pytest.mark.parametrize("reserved", ["65_536", "65_537"])
def test_the_reserve_is_less_than_the_whole(tmp_path: Path, reserved: str) -> None:
    message = refuse(write(tmp_path, change("8_192", reserved)))
    value = int(reserved)
    assert (
        f"reserved.ram_reserved_bytes: must be less than memory.ram_bytes = 65536, not {value}"
        in (message)
    )
    load_profile(write(tmp_path, change("8_192", "65_535")))


def test_the_reserve_of_flash_and_of_ram_are_compared_with_their_own_total(tmp_path: Path) -> None:
    text = change("flash_reserved_bytes = 65_536", "flash_reserved_bytes = 262_144")
    message = refuse(write(tmp_path, change("8_192", "65_536", text)))
    assert "reserved.ram_reserved_bytes: must be less than memory.ram_bytes = 65536" in message
    assert "reserved.flash_reserved_bytes: must be less than memory.flash_bytes = 262144" in message


def test_nothing_reserved_and_no_wait_states_are_facts(tmp_path: Path) -> None:
    text = change("8_192", "0", change("flash_wait_states = 4", "flash_wait_states = 0"))
    profile = load_profile(write(tmp_path, text))
    assert profile.ram_budget_bytes == profile.ram_bytes
    assert profile.flash_wait_states == 0


@pytest.mark.parametrize("core", ["cortex-m7", "Cortex-M4", ""])
def test_only_cores_with_a_cost_model(tmp_path: Path, core: str) -> None:
    message = refuse(write(tmp_path, change("cortex-m4f", core)))
    assert f"device.core: must be one of cortex-m4, cortex-m4f, not {core!r}" in message


@pytest.mark.parametrize("name", ["a b", "a/b", "-a", "a\\n"])
def test_a_name_can_be_a_file_name(tmp_path: Path, name: str) -> None:
    assert "device.name: must be a name of" in refuse(
        write(tmp_path, change('"board"', f'"{name}"'))
    )


def test_tables_are_as_strict_as_keys(tmp_path: Path) -> None:
    text = change("[power]", "[powr]", change("[flash]", "[[flash]]"))
    message = refuse(write(tmp_path, 'extra = 1\n"a\\nb" = 2\n' + text))
    assert "board.toml: flash: must be a table, not [" in message
    assert "board.toml: power: missing table, needs the keys supply_voltage_v, " in message
    assert "board.toml: powr: unknown table, did you mean 'power'?" in message
    assert "board.toml: extra: unknown table, known are device, clock, " in message
    assert "board.toml: 'a\\nb': unknown table" in message
    assert message.count("board.toml: ") == 5


def test_an_empty_file_lists_every_table(tmp_path: Path) -> None:
    message = refuse(write(tmp_path, ""))
    for table in tomllib.loads(GOOD):
        assert f"{table}: missing table" in message
