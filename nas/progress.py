"""What a person sees of a run: a live line in a terminal, one line now and then in a log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

LOG_EVERY_S = 30.0


class Progress:
    """Shows one status line; `quiet` shows nothing but what `say` is given."""

    def __init__(self, quiet: bool) -> None:
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

    def status(self, text: str) -> None:
        """The state of now: replaces the last one in a terminal, every half minute in a log."""
        if self._is_live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif not self._quiet and time.monotonic() - self._shown >= LOG_EVERY_S:
            self._shown = time.monotonic()
            self.say(text)


def clock(seconds: float) -> str:
    """1:05 or 2:03:09."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    text = f"{minutes}:{whole % 60:02d}"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else text
