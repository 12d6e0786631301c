"""What a person sees of a run: a live line in a terminal, one line now and then in a log.

The same line is kept in a file of the run's folder, for `nas status`.
"""

import contextlib
import datetime
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nas.errors import RunError
from nas.run_folder import read_json, write_json

LOG_EVERY_S = 30.0
KEEP_EVERY_S = 2.0
PROGRESS_FILE = "progress.json"


class Progress:
    """Shows one status line; `quiet` shows nothing but what `say` is given.

    Args:
        run: folder in which the line is kept, too.
    """

    def __init__(self, quiet: bool, run: Path | None = None) -> None:
        self._run, self._kept = run, -KEEP_EVERY_S
        self._figures = {} if run is None else _kept_figures(run / PROGRESS_FILE)
        self.console = Console(stderr=False, highlight=False)
        self._quiet = quiet
        self._live = Live(console=self.console, refresh_per_second=4, transient=True)
        self._shown = -LOG_EVERY_S
        self._is_live = self.console.is_terminal and not quiet

    def __enter__(self) -> "Progress":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, soft_wrap=True)
        sys.stdout.flush()

    def status(self, text: str, at_once: bool = False) -> None:
        """The state of now: replaces the last one in a terminal, every half minute in a log.

        Args:
            at_once: keep it however short a while ago the last one was kept.
        """
        if self._is_live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif not self._quiet and time.monotonic() - self._shown >= LOG_EVERY_S:
            self._shown = time.monotonic()
            self.say(text)
        due = at_once or time.monotonic() - self._kept >= KEEP_EVERY_S
        if self._run is not None and due:
            self._keep(self._run, text)

    def figures(self, figures: Mapping[str, Any]) -> None:
        """What is kept beside the line from now on, as plain data."""
        self._figures = dict(figures)

    def _keep(self, run: Path, text: str) -> None:
        self._kept = time.monotonic()
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with contextlib.suppress(RunError):  # a full disk: what matters will say so itself
            write_json(run / PROGRESS_FILE, {"line": text, "at": at, **self._figures})


def _kept_figures(file: Path) -> dict[str, Any]:
    """Of an earlier session, until this one has its own."""
    with contextlib.suppress(RunError):
        document = read_json(file) if file.exists() else {}
        return {key: value for key, value in document.items() if key not in ("line", "at")}
    return {}


def clock(seconds: float) -> str:
    """1:05 or 2:03:09."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    text = f"{minutes}:{whole % 60:02d}"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else text
