"""A user's search space: `--space FILE.py`, a file with `SPACE = nas.space.Space(...)`.

The file is run: that is what a search space in Python means. What it raises becomes one line with
the line number of the file, and what would harm a search hours later is checked on a few random
draws before it starts.
"""

import hashlib
import json
import random
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nas.data.data_rules import NAME, one_line
from nas.errors import NasError, SpaceError
from nas.space import (
    Architecture,
    FixedTrial,
    Genes,
    Problem,
    RandomTrial,
    Space,
    Trial,
    architecture_id,
)

DRAWS = 30  # that a space is checked on
MODULE = "nas_own_space"  # the name under which the file's classes are known

Result = TypeVar("Result")
Gene = tuple[object, ...]


def load_space_file(path: Path, taken: Sequence[str]) -> Space:
    """Runs the file and returns its SPACE, which knows the file and its hash.

    Raises:
        SpaceError: no such file, an exception while it runs, no SPACE, or a name that is `taken`.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise SpaceError(f"--space {path}: {error.strerror}; give a Python file") from None
    module = types.ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module  # dataclasses look their module up
    _guard(path, "cannot be run", lambda: exec(compile(source, str(path), "exec"), vars(module)))
    space = getattr(module, "SPACE", None)
    if not isinstance(space, Space):
        held = f"SPACE is a {type(space).__name__}" if space is not None else "defines no SPACE"
        raise SpaceError(
            f"--space {path}: {held}; it must define SPACE = nas.space.Space(name, summary,"
            " sample, parse)"
        )
    if not NAME.fullmatch(space.name) or space.name in taken:
        raise SpaceError(
            f"--space {path}: the name {space.name!r} must be a word other than {', '.join(taken)}"
        )
    sample, parse, starts = space.sample, space.parse, space.starts

    def guarded_sample(trial: Trial, problem: Problem) -> Architecture:
        architecture: Architecture = _guard(path, "sample fails", partial(sample, trial, problem))
        _guard(path, "lower fails", architecture.lower)
        return architecture

    def guarded_parse(document: Mapping[str, Any]) -> Architecture:
        return _guard(path, "parse fails", partial(parse, document))

    def guarded_starts(problem: Problem) -> Sequence[Genes]:
        return _guard(path, "starts fails", lambda: list(starts(problem)))

    return replace(
        space,
        sample=guarded_sample,
        parse=guarded_parse,
        starts=guarded_starts,
        file=path,
        file_hash=hashlib.sha256(source).hexdigest(),
    )


def _guard(path: Path, what: str, action: Callable[[], Result]) -> Result:
    """The action's result; its exception as one line that names the file's line."""
    try:
        return action()
    except NasError as error:
        raise SpaceError(f"--space {path}: {what}: {error}") from None
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(path):
                line = trace.tb_lineno
            trace = trace.tb_next
        text = error.msg if isinstance(error, SyntaxError) else one_line(error)
        at = f", line {line}" if line else ""
        raise SpaceError(f"--space {path}{at}: {what}: {type(error).__name__}: {text}") from None


class _Genes:
    """A random trial that remembers which genes were drawn, and from what."""

    def __init__(self, seed: int, lowest: bool) -> None:
        self._trial = RandomTrial(random.Random(seed), lowest)
        self.drawn: dict[str, Gene] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """As Optuna's."""
        self._note(name, (low, high), low <= high)
        return self._trial.suggest_int(name, low, high)

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """As Optuna's."""
        text = len(choices) > 0 and all(isinstance(choice, str) for choice in choices)
        self._note(name, tuple(choices), text)
        return self._trial.suggest_categorical(name, choices)

    def _note(self, name: str, gene: Gene, valid: bool) -> None:
        if not valid:
            raise SpaceError(
                f"gene {name!r} has the choices {gene}; integers need low <= high, categories texts"
            )
        if name in self.drawn:
            raise SpaceError(f"gene {name!r} is drawn twice in one trial; give each its own name")
        self.drawn[name] = gene

    def __getattr__(self, name: str) -> Any:
        raise SpaceError(f"a trial has suggest_int and suggest_categorical, not {name}")


def check_space(space: Space, problem: Problem) -> None:
    """Tries a space on random draws.

    Raises:
        SpaceError: a draw that cannot be repeated, lowered or read back, genes that differ between
            draws, a network that does not fit the data, or a start that is no draw of the space.
    """
    genes: dict[str, Gene] | None = None
    for seed in range(DRAWS):
        trials = [_Genes(seed, seed == 0) for _ in range(2)]
        first, second = (space.sample(trial, problem) for trial in trials)
        document = _document(space, first)
        if document != _document(space, second):
            raise _error(
                space,
                "two draws of one trial differ; an architecture must depend on its trial alone",
            )
        if genes is None:
            genes = trials[0].drawn
        _check_genes(space, genes, trials[0].drawn)
        again = space.parse(document)
        if _document(space, again) != document or again.lower() != first.lower():
            raise _error(
                space, "an architecture is another one after to_json and parse; mend one of them"
            )
        _check_graph(space, problem, first)
    for number, start in enumerate(space.starts(problem)):
        try:
            _check_graph(space, problem, space.sample(FixedTrial(start), problem))
        except SpaceError as error:
            text = str(error).removeprefix(f"--space {space.file or space.name}: ")
            raise _error(space, f"start {number}: {text}") from None


def _error(space: Space, text: str) -> SpaceError:
    return SpaceError(f"--space {space.file or space.name}: {text}")


def _document(space: Space, architecture: Architecture) -> dict[str, Any]:
    """The architecture's JSON, as a file would give it back."""
    try:
        document = json.loads(json.dumps(architecture.to_json()))
        architecture_id(architecture)
    except Exception as error:  # whatever the user's to_json leads to
        raise _error(
            space, f"to_json fails or is not JSON: {type(error).__name__}: {one_line(error)}"
        ) from None
    if not isinstance(document, dict) or document.get("space") != space.name:
        raise _error(space, f"to_json must be a dict with 'space': {space.name!r}")
    return document


def _check_genes(space: Space, first: dict[str, Gene], drawn: dict[str, Gene]) -> None:
    """Samplers learn one fixed set of genes; a gene that comes and goes is drawn blindly."""
    for name in {*first, *drawn}:
        if first.get(name) != drawn.get(name):
            raise _error(
                space,
                f"gene {name!r} has the choices {first.get(name)} in one draw and"
                f" {drawn.get(name)} in another; draw every gene from the same choices in every"
                " trial and leave out of the architecture what has no effect",
            )
    if not first:
        raise _error(space, "sample draws no gene; there is nothing to search")


def _check_graph(space: Space, problem: Problem, architecture: Architecture) -> None:
    graph = architecture.lower()
    known = {sensor.name: sensor.shape for sensor in problem.sensors}
    for source in graph.inputs:
        if known.get(source.name) != tuple(source.shape):
            raise _error(
                space,
                f"a network has the input {source.name!r} of shape {source.shape}; the data have"
                f" {known}",
            )
    if not graph.inputs or graph.shapes[graph.output] != (problem.classes,):
        raise _error(
            space,
            f"a network has {len(graph.inputs)} inputs and an output of shape"
            f" {graph.shapes[graph.output]}; it needs a sensor and ({problem.classes},) logits: end"
            " with a Reshape",
        )
