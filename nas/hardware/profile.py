"""Hardware profiles: the figures of one microcontroller, read from a strict TOML file.

A profile holds facts only. Every key carries its unit in its name and every table names the
document its figures come from. No hardware number has a default: a profile that lacks one, or
holds a key that nobody reads, is refused with one message that lists everything that is wrong.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from nas.errors import ProfileError

CORES = ("cortex-m4", "cortex-m4f")

Rule = Callable[[object], str | None]
"""Takes a value from the file; returns the rule that it breaks, or None."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One microcontroller. Sizes in bytes, clock in hertz, voltage in volts, currents in amperes.

    `ram_reserved_bytes` and `flash_reserved_bytes` are what the application keeps for itself;
    the rest is the budget of the model. `level_names` and `level_bytes` are memories above the
    Flash that a network may live in alone, the smallest first; the last is the whole RAM.
    `sources` maps a table of the file to the text that says where its figures come from.
    """

    name: str
    part: str
    core: str
    clock_hz: int
    ram_bytes: int
    flash_bytes: int
    level_names: tuple[str, ...]
    level_bytes: tuple[int, ...]
    ram_reserved_bytes: int
    flash_reserved_bytes: int
    flash_wait_states: int
    supply_voltage_v: float
    active_current_a: float
    sleep_current_a: float
    sources: Mapping[str, str] = field(hash=False)

    @property
    def ram_budget_bytes(self) -> int:
        """RAM in bytes that is left for the model."""
        return self.ram_bytes - self.ram_reserved_bytes

    @property
    def flash_budget_bytes(self) -> int:
        """Flash in bytes that is left for the model."""
        return self.flash_bytes - self.flash_reserved_bytes

    @property
    def has_fpu(self) -> bool:
        """Whether the core has the single-precision floating-point unit."""
        return self.core == "cortex-m4f"

    @property
    def hash(self) -> str:
        """First 12 hex digits of the SHA-256 of `to_json()`; any changed entry changes it."""
        return hashlib.sha256(self.to_json().encode("utf-8")).hexdigest()[:12]

    def to_dict(self) -> dict[str, object]:
        """All fields by name, ready for JSON; units are in the names."""
        return asdict(self) | {key: list(getattr(self, key)) for key in _LIST_KEYS}

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Profile:
        """The inverse of `to_dict`, also from JSON; KeyError or TypeError for another document."""
        values = {field.name: document[field.name] for field in fields(Profile)}
        return Profile(**values | {key: tuple(values[key]) for key in _LIST_KEYS})

    def to_json(self) -> str:
        """Canonical JSON on one line: keys sorted, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)


def load_profile(name_or_path: str) -> Profile:
    """Read the shipped profile of that name, or the file if the text looks like a path.

    Text that ends in `.toml` or contains a path separator is a path; all else is a name.
    """
    if _is_path(name_or_path):
        return _read(Path(name_or_path), name_or_path)
    shipped = _shipped()
    if name_or_path not in shipped:
        raise ProfileError(_unknown_name(name_or_path, list(shipped)))
    return _read(shipped[name_or_path], f"{name_or_path}.toml")


def list_profiles() -> list[Profile]:
    """All shipped profiles, sorted by name."""
    return [_read(file, file.name) for file in _shipped().values()]


def _is_path(text: str) -> bool:
    # A backslash never occurs in a profile name, so a Windows path is a path everywhere.
    return text.endswith(".toml") or "/" in text or "\\" in text or os.sep in text


def _shipped() -> dict[str, Traversable]:
    folder = resources.files("hardware_profiles")
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): file for file in sorted(files, key=lambda f: f.name)}


def _unknown_name(name: str, known: list[str]) -> str:
    # Without a cutoff the best of a bad lot is still named, as long as anything is alike.
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.3)
    hint = f"did you mean {close[0]!r}? Or" if close else "use one of these, or"
    return _one_line(
        f"device {_show(name)}: no profile has this name; known names are {', '.join(known)}; "
        f"{hint} give the path of your own .toml file"
    )


def _read(file: Traversable, label: str) -> Profile:
    try:
        document = tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ProfileError(
            _one_line(
                f"{label}: cannot be read: {reason}; check the path, or give the name of a "
                "shipped profile instead"
            )
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(
            _one_line(
                f"{label}: not a TOML file: {error}; correct the syntax, "
                "cortex-m4-64k.toml in hardware_profiles shows the form"
            )
        ) from error
    problems = _problems(document)
    if problems:
        raise ProfileError(_report(label, problems))
    return _build(document)


def _report(label: str, problems: list[tuple[str, str]]) -> str:
    listed = "; ".join(f"{label}: {key}: {rule}" for key, rule in problems)
    return _one_line(
        f"{listed}; correct the keys named here, cortex-m4-64k.toml in hardware_profiles "
        "has every key"
    )


def _build(document: Mapping[str, Mapping[str, object]]) -> Profile:
    values: dict[str, object] = {}
    for table in _TABLES:
        values.update(document[table])
    values.pop("source")
    for key in _REAL_KEYS:
        values[key] = float(str(values[key]))
    for key in _LIST_KEYS:
        values[key] = tuple(document["levels"][key])  # type: ignore[arg-type]
    sources = {table: _one_line(str(document[table]["source"])) for table in _TABLES}
    return Profile(**values, sources=sources)  # type: ignore[arg-type]


def _problems(document: Mapping[str, object]) -> list[tuple[str, str]]:
    """Everything that is wrong, as (key, rule): first each key, then what keys say together."""
    found: list[tuple[str, str]] = []
    for table, rules in _TABLES.items():
        found += _table_problems(table, rules, document)
    known_tables = list(_TABLES)
    for key in document:
        if key not in _TABLES:
            found.append((_name(key), _unknown_entry("table", key, known_tables)))
    return found + _reserved_problems(document) + _level_problems(document)


def _table_problems(
    table: str, rules: Mapping[str, Rule], document: Mapping[str, object]
) -> list[tuple[str, str]]:
    if table not in document:
        return [(table, f"missing table, needs the keys {', '.join(rules)}")]
    entries = document[table]
    if not isinstance(entries, dict):
        return [(table, f"must be a table, not {_show(entries)}")]
    found: list[tuple[str, str]] = []
    for key, rule in rules.items():
        if key not in entries:
            found.append((f"{table}.{key}", "missing key"))
        elif (broken := rule(entries[key])) is not None:
            found.append((f"{table}.{key}", f"must be {broken}, not {_show(entries[key])}"))
    for key in entries:
        if key not in rules:
            found.append((f"{table}.{_name(key)}", _unknown_entry("key", key, list(rules))))
    return found


def _unknown_entry(kind: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"unknown {kind}, {hint}"


def _reserved_problems(document: Mapping[str, object]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for kind in ("ram", "flash"):
        total = _whole(document, "memory", f"{kind}_bytes")
        reserved = _whole(document, "reserved", f"{kind}_reserved_bytes")
        # A total that is wrong by itself is already listed; comparing with it would mislead.
        if total is not None and total > 0 and reserved is not None and reserved >= total:
            rule = f"must be less than memory.{kind}_bytes = {total}, not {reserved}"
            found.append((f"reserved.{kind}_reserved_bytes", rule))
    return found


def _level_problems(document: Mapping[str, object]) -> list[tuple[str, str]]:
    """What sizes of levels, right by themselves, must keep with their names and the RAM."""
    levels = document.get("levels")
    held = levels if isinstance(levels, dict) else {}
    names, sizes = held.get("level_names"), held.get("level_bytes")
    total = _whole(document, "memory", "ram_bytes")
    if not isinstance(sizes, list) or _sizes(sizes) is not None or total is None or total <= 0:
        return []
    named = len(names) if isinstance(names, list) and _texts(names) is None else len(sizes)
    if len(sizes) == named and sizes[-1] == total:
        return []
    rule = f"must be {named} numbers, one a name, that end with memory.ram_bytes = {total}"
    return [("levels.level_bytes", f"{rule}, not {_show(sizes)}")]


def _whole(document: Mapping[str, object], table: str, key: str) -> int | None:
    entries = document.get(table)
    value = entries.get(key) if isinstance(entries, dict) else None
    return value if _is_whole(value) else None


def _is_whole(value: object) -> bool:
    # In Python True is an int; in a profile it is a mistake.
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: object) -> str | None:
    good = isinstance(value, str) and value.strip() != ""
    return None if good else "a text that is not empty"


def _plain_name(value: object) -> str | None:
    good = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value)
    return None if good else "a name of letters, digits, '.', '_' and '-'"


def _core(value: object) -> str | None:
    return None if value in CORES else f"one of {', '.join(CORES)}"


def _positive_whole(value: object) -> str | None:
    good = isinstance(value, int) and _is_whole(value) and value > 0
    return None if good else "a whole number greater than 0"


def _whole_from_zero(value: object) -> str | None:
    good = isinstance(value, int) and _is_whole(value) and value >= 0
    return None if good else "a whole number of at least 0"


def _positive_real(value: object) -> str | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # The upper bound refuses inf, and with the lower one nan: neither compares as true.
    good = number and isinstance(value, (int, float)) and 0 < value <= sys.float_info.max
    return None if good else "a finite number greater than 0"


def _texts(value: object) -> str | None:
    good = isinstance(value, list) and value and not any(_text(entry) for entry in value)
    return None if good else "a list of texts that are not empty"


def _sizes(value: object) -> str | None:
    good = isinstance(value, list) and value and not any(_positive_whole(entry) for entry in value)
    if good and isinstance(value, list) and all(a < b for a, b in itertools.pairwise(value)):
        return None
    return "a list of whole numbers greater than 0 that rise"


_TABLES: Mapping[str, Mapping[str, Rule]] = {
    "device": {"name": _plain_name, "part": _text, "core": _core, "source": _text},
    "clock": {"clock_hz": _positive_whole, "source": _text},
    "memory": {"ram_bytes": _positive_whole, "flash_bytes": _positive_whole, "source": _text},
    "levels": {"level_names": _texts, "level_bytes": _sizes, "source": _text},
    "reserved": {
        "ram_reserved_bytes": _whole_from_zero,
        "flash_reserved_bytes": _whole_from_zero,
        "source": _text,
    },
    "flash": {"flash_wait_states": _whole_from_zero, "source": _text},
    "power": {
        "supply_voltage_v": _positive_real,
        "active_current_a": _positive_real,
        "sleep_current_a": _positive_real,
        "source": _text,
    },
}

_REAL_KEYS = ("supply_voltage_v", "active_current_a", "sleep_current_a")
_LIST_KEYS = ("level_names", "level_bytes")


def _name(key: str) -> str:
    """A key as it is, or quoted where TOML would need quotes."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _show(key)


def _show(value: object) -> str:
    """A value for a message, in TOML's words for booleans, at most 60 characters long."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(message: str) -> str:
    return " ".join(message.split())
