"""Ctrl-C, held back while something is being finished that must not be left half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_held: list[int] = []  # signals that came within a block


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Holds Ctrl-C back until the end of the block; processes begun in it never see it.

    These inherit the mask. In this process it is not enough: the system hands the signal to any
    thread that does not mask it, the one that draws the progress, say, and Python interrupts the
    main thread all the same.
    """
    resource_tracker.ensure_running()  # its own start would let Ctrl-C through again
    if threading.current_thread() is not threading.main_thread():
        yield  # Python interrupts no other thread
        return
    handler = signal.signal(signal.SIGINT, lambda number, _: _held.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
        if _held and signal.SIGINT not in before:  # the outermost block
            _held.clear()
            signal.raise_signal(signal.SIGINT)


def is_interrupted() -> bool:
    """Whether a Ctrl-C is being held back."""
    return len(_held) > 0 or signal.SIGINT in signal.sigpending()
