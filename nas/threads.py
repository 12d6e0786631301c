"""How many threads numpy's and torch's own operators take."""

import os

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def one_thread_each() -> None:
    """One in this process, where numpy is not imported yet, and in those that it starts.

    A run keeps every core busy with a process of its own. More threads would only wait for each
    other, in a loop: the parent's proposals then took twice the CPU and twice the time.
    """
    for variable in VARIABLES:
        os.environ.setdefault(variable, "1")
