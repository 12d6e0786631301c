"""Runs functions of a linked program on an emulated Cortex-M4 and measures them.

The emulator is a process of its own (`nas.emulation.machine`), one for each `Machine`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import numpy as np

import nas
from nas.deploy.host_library import host_library, library_file
from nas.deploy.toolchain import INSTALL, Memory, find_host_compiler
from nas.emulation.cycles import BRANCH_PENALTY, cost_table, with_marks
from nas.emulation.elf import Image, read_elf
from nas.emulation.wire import receive, send
from nas.errors import MachineFault, Mismatch, ToolMissing

MOST_SECONDS = 60.0  # of one call
HOOK = ("nas.emulation", "hook.c")  # what measures

# As `python -m nas.emulation.machine`, from wherever this package was loaded.
_START = "import sys; sys.path.append(sys.argv[1]); from nas.emulation.machine import main; main()"

Place = str | int
"""A variable's name, or an address."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What a call gave: r0, and the bytes of each place that was asked for.

    `stack_bytes` is the most that was ever written, by this call and those before it.
    """

    value: int
    outputs: tuple[bytes, ...]
    stack_bytes: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one function, without those that it calls, or of all.

    Attributes:
        instructions: executed, those that an IT skips included.
        cycles: at 0 wait states.
        data_misses: 8-byte parts of Flash that data were read from and that the cache did not hold.
        code_misses: the same for instructions.
        unaligned: accesses that took longer because their address was not a multiple of their size.
        paired: cycles that loads and stores took less because they followed a load.
    """

    instructions: int
    cycles: int
    data_misses: int
    code_misses: int
    unaligned: int
    paired: int

    def __add__(self, other: Counts) -> Counts:
        mine, others = astuple(self), astuple(other)
        return Counts(*(a + b for a, b in zip(mine, others, strict=True)))

    def cycles_at(self, wait_states: int) -> int:
        """Cycles when each miss costs `wait_states`."""
        return self.cycles + wait_states * (self.data_misses + self.code_misses)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured call.

    `functions` holds those that ran, by name; `stack_bytes` is how deep the stack ever went, be it
    written there or not; `parts` are the counts from each mark to the next, before the first and
    after the last included.
    """

    returned: Returned
    total: Counts
    functions: Mapping[str, Counts]
    stack_bytes: int
    parts: tuple[Counts, ...]


class Machine:
    """An emulated Cortex-M4 that holds one program; to be used as a context manager.

    Memory is exactly `memory`'s, filled with 0xA5; the start-up has run. The cache folder holds the
    compiled hook that measures.
    """

    def __init__(self, program: Path, memory: Memory, *, has_fpu: bool, cache: Path) -> None:
        """Start the process and load the program.

        Raises:
            ToolMissing: Unicorn or pyelftools is not installed.
            MachineFault: the program needs memory or an FPU that is not there, or faults.
        """
        self.image: Image = read_elf(program)
        if not has_fpu:  # the emulator's is always there
            self.image.check_fpu()
        _check_fit(self.image, memory)
        self.memory, self._cache, self._table = memory, cache, b""
        root = str(Path(nas.__file__).parents[1])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._to = cast(BinaryIO, self._process.stdin)
        self._from = cast(BinaryIO, self._process.stdout)
        try:
            image = self.image
            self._ask(
                {
                    "flash": (memory.flash_origin, memory.flash_bytes),
                    "ram": (memory.ram_origin, memory.ram_bytes),
                    "statics": (image.stack_top, image.statics_end),
                    "entry": image.symbol("Reset_Handler").address,
                    "main": image.symbol("main").address,
                    "addresses": [address for address, _ in image.segments],
                },
                [data for _, data in image.segments],
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def run(
        self,
        function: str,
        arguments: Sequence[Place] = (),
        *,
        writes: Sequence[tuple[Place, bytes]] = (),
        reads: Sequence[tuple[Place, int]] = (),
        seconds: float = MOST_SECONDS,
    ) -> Returned:
        """Call a function: integers or addresses of variables as arguments, memory written before.

        Raises:
            MachineFault: it faults, or does not end within `seconds`.
        """
        header, blobs = self._call("run", function, arguments, writes, reads, seconds)
        reply, outputs = self._ask(header, blobs)
        return Returned(reply["result"], tuple(outputs), reply["stack_bytes"])

    def measure(
        self,
        function: str,
        arguments: Sequence[Place] = (),
        *,
        writes: Sequence[tuple[Place, bytes]] = (),
        reads: Sequence[tuple[Place, int]] = (),
        seconds: float = MOST_SECONDS,
        marks: Sequence[int] = (),
    ) -> Measurement:
        """The same on a fresh machine, counted.

        Args:
            marks: addresses of instructions, each of which runs once, in this order.

        Raises:
            MachineFault: it faults, does not end, or does what a Cortex-M4 does not do.
            Mismatch: its outputs depend on memory that it never wrote, or counting disturbed it.
        """
        if not self._table:
            self._table = cost_table(self.image)
        header, blobs = self._call("measure", function, arguments, writes, reads, seconds)
        code = (self.image.code[0], len(self.image.code[1]))
        header |= {
            "library": str(host_library(*HOOK, self._cache)),
            "code": code,
            "penalty": BRANCH_PENALTY,
        }
        header["marks"] = len(marks)
        marked = with_marks(self._table, [(mark - code[0]) // 2 for mark in marks])
        reply, outputs = self._ask(header, [*blobs, marked])
        returned = Returned(reply["result"], tuple(outputs[:-2]), reply["stack_bytes"])
        table = np.frombuffer(outputs[-1], np.uint64).reshape(-1, len(fields(Counts)))
        functions: dict[str, Counts] = {}
        for symbol in self.image.functions:
            first = (symbol.address - code[0]) // 2
            rows = table[first : first + (symbol.size + 1) // 2]
            if rows[:, 0].any():
                before = functions.get(symbol.name, Counts(0, 0, 0, 0, 0, 0))
                functions[symbol.name] = before + _counts(rows)
        until = np.frombuffer(outputs[-2], np.uint64).reshape(-1, table.shape[1])[: len(marks)]
        steps = np.vstack([until, table.sum(axis=0)])
        steps[1:] -= steps[:-1].copy()
        parts = tuple(_counts(step[None]) for step in steps)
        return Measurement(returned, _counts(table), functions, reply["stack_bytes"], parts)

    def _call(
        self,
        kind: str,
        function: str,
        arguments: Sequence[Place],
        writes: Sequence[tuple[Place, bytes]],
        reads: Sequence[tuple[Place, int]],
        seconds: float,
    ) -> tuple[dict[str, object], list[bytes]]:
        for place, size in [*((place, len(data)) for place, data in writes), *reads]:
            if isinstance(place, str) and size > (held := self.image.symbol(place).size):
                raise MachineFault(f"{place}: holds {held} bytes, not {size}")
        header = {
            "kind": kind,
            "function": self.image.symbol(function).address,
            "arguments": [self._address(place) for place in arguments],
            "addresses": [self._address(place) for place, _ in writes],
            "reads": [(self._address(place), size) for place, size in reads],
            "seconds": seconds,
        }
        return header, [data for _, data in writes]

    def _address(self, place: Place) -> int:
        return self.image.symbol(place).address if isinstance(place, str) else place

    def _ask(
        self, header: dict[str, object], blobs: Sequence[bytes]
    ) -> tuple[dict[str, Any], list[bytes]]:
        try:
            send(self._to, header, blobs)
            reply, data = receive(self._from)
        except (EOFError, OSError):
            status = self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").splitlines() or ["no message"]
            raise MachineFault(
                f"the emulator's process ended with status {status}: {lines[-1]}"
            ) from None
        if "missing" in reply:
            raise ToolMissing(f"unicorn cannot be loaded ({reply['missing']}): {INSTALL}")
        if "fault" in reply:
            raise _error(reply["fault"], self.image, self.memory)
        return reply, data


def _check_fit(image: Image, memory: Memory) -> None:
    """Pages are larger than a byte, so the emulator alone would not see the last few."""
    free = memory.ram_origin + memory.ram_bytes - image.statics_end
    if free < 0 or image.stack_top != memory.ram_origin + memory.stack_bytes:
        raise MachineFault(
            f"variables from {image.stack_top:#x} to {image.statics_end:#x}: the program was linked"
            f" for another RAM than {memory.ram_bytes} bytes with {memory.stack_bytes} of stack"
        )
    if image.flash_bytes > memory.flash_bytes:
        raise MachineFault(
            f"Flash of {memory.flash_bytes} bytes is too small for {image.flash_bytes} bytes"
        )


def _counts(rows: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> Counts:
    return Counts(*(int(value) for value in rows.sum(axis=0)))


def _error(facts: Mapping[str, Any], image: Image, memory: Memory) -> MachineFault | Mismatch:
    """What happened, where, in words."""
    kind = facts["kind"]
    if kind == "differs":
        return Mismatch(
            "the measured run and the one before differ: the program reads memory that it never"
            " wrote, or measuring disturbs it"
        )
    at = f" in {image.function_at(facts['pc'])} (pc {facts['pc']:#x})" if "pc" in facts else ""
    address = facts.get("address", 0)
    if kind == "nowhere":
        return MachineFault(
            f"{facts['size']} bytes at {address:#x}: the device has no memory there"
        )
    if kind == "past":
        return MachineFault(f"the program wrote to {address:#x}, past the last of its variables")
    if kind == "unaligned":
        return MachineFault(
            f"access to {address:#x}{at}: several words at once must lie at a multiple of 4"
        )
    if kind == "clobbered":
        names = ", ".join(facts["registers"])
        return MachineFault(f"the function returned with another {names} than it was called with")
    if kind == "unknown":
        return MachineFault(f"instruction{at}: is not in the program's code")
    if kind == "jump":
        return MachineFault(f"jump to {address:#x}{at}: the instruction there is no branch")
    stack = f"stack pointer {facts['sp']:#x}"
    if kind == "endless":
        return MachineFault(f"the program did not end within {facts['seconds']} s{at}; {stack}")
    lowest = memory.ram_origin
    what = facts["reason"]
    if "address" in facts:
        what = (
            f"{facts['access']} of {facts['size']} bytes at {address:#x}, where no memory allows it"
        )
    overflow = facts["sp"] < lowest or lowest - 4096 <= facts.get("address", 0) < lowest
    if overflow:
        size = image.stack_top - lowest
        return MachineFault(f"the stack of {size} bytes overflows{at}: {what}; {stack}")
    return MachineFault(f"the program faults{at}: {what}; {stack}")


def check_hook(cache: Path) -> None:
    """Raises ToolMissing if what measures is not compiled yet, and nothing here can compile it."""
    if not os.access(library_file(*HOOK, cache), os.R_OK):
        find_host_compiler()
