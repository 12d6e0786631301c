"""The process that holds the emulated Cortex-M4: `python -m nas.emulation.machine`.

The only module that imports Unicorn, whose licence is the GPL 2; others talk to it through its
standard input and output, in the messages of `wire`. Flash, RAM and the core's own registers are
all the memory there is. Hooks only run in a measured run, on instructions, and in a repetition that
finds out what a fault was: Unicorn's hooks on memory change what some programs compute.
"""

import ctypes
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from nas.emulation.wire import receive, send

PAGE = 4096
CORE_REGISTERS = 0xE000_E000
RETURN = 0x1000_0000  # where a called function returns to; nothing else is there
PAINT = b"\xa5"

_T = TypeVar("_T")
_ACCESSES = {19: "read", 20: "write", 21: "fetch", 22: "write", 23: "read", 24: "fetch"}


class Fault(Exception):
    """A program that did not come to its end; `facts` says how."""

    def __init__(self, **facts: object) -> None:
        super().__init__(str(facts))
        self.facts = facts


@dataclass(frozen=True)
class Program:
    """What one machine after another is made of."""

    flash: tuple[int, int]
    ram: tuple[int, int]
    statics: tuple[int, int]  # the variables' first and last address + 1
    entry: int
    main: int
    segments: list[tuple[int, bytes]]


class State(ctypes.Structure):
    """`state` of hook.c, without its caches."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("rows", "counts", "read", "marks")),
        *((n, ctypes.c_uint32) for n in ("code_start", "code_bytes", "flash_start", "flash_bytes")),
        ("names", ctypes.c_int32 * 16),
        *((name, ctypes.c_uint32) for name in ("penalty", "lowest_stack")),
        *((name, ctypes.c_uint32) for name in ("fault", "fault_at", "fault_address")),
        *((n, ctypes.c_uint32) for n in ("last", "next", "last_part", "check_stack")),
    ]


class Machine:
    """A Cortex-M4 after its start-up, just before `main`."""

    def __init__(self, program: Program, paint: bytes = PAINT, probe: bool = False) -> None:
        import unicorn
        from unicorn import arm_const

        self.program, self.paint, self.unicorn, self.arm = program, paint, unicorn, arm_const
        self.invalid: dict[str, object] = {}
        self.engine = unicorn.Uc(
            unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS
        )
        self.engine.ctl_set_cpu_model(arm_const.UC_CPU_ARM_CORTEX_M4)
        if probe:
            self.engine.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._note_invalid)
        readable, executable = unicorn.UC_PROT_READ, unicorn.UC_PROT_EXEC
        writable = readable | unicorn.UC_PROT_WRITE
        self._map(program.flash, readable | executable)
        self._map(program.ram, writable)
        self._map((CORE_REGISTERS, PAGE), writable)
        self._map((RETURN, PAGE), readable | executable)
        for address, data in program.segments:
            self.poke(address, data)
        start, size = program.ram
        self.engine.mem_write(start, paint * _whole_pages(size))
        self.engine.reg_write(
            arm_const.UC_ARM_REG_FPEXC, 1 << 30
        )  # what the start-up's write means
        self.stack_top = program.statics[0]
        self._go(program.entry, program.main, (), 10.0)
        self.engine.mem_write(start, paint * (self.stack_top - start))

    def call(self, function: int, arguments: Sequence[int], seconds: float) -> int:
        """Run a function to its end and return its result.

        What the calling convention lets it change is all that it may have changed.
        """
        for _, register, value in self._kept():
            self.engine.reg_write(register, value)
        stack = self._go(function, RETURN, arguments, seconds)
        changed = [
            n for n, register, value in self._kept() if self.engine.reg_read(register) != value
        ]
        if self.engine.reg_read(self.arm.UC_ARM_REG_SP) != stack:
            changed.append("sp")
        if changed:
            raise Fault(kind="clobbered", registers=changed)
        self._check_edges()
        return int(self.engine.reg_read(self.arm.UC_ARM_REG_R0))

    def _kept(self) -> Iterator[tuple[str, int, int]]:
        """Registers that a function must leave as it found them, and a value for each."""
        for number in range(4, 12):
            yield f"r{number}", getattr(self.arm, f"UC_ARM_REG_R{number}"), 0x5EED_0000 + number
        for number in range(8, 16):
            name, value = f"d{number}", 0x5EED_0000_5EED_0000 + number
            yield name, getattr(self.arm, f"UC_ARM_REG_D{number}"), value

    def poke(self, address: int, data: bytes) -> None:
        """Write memory from outside."""
        try:
            self.engine.mem_write(address, data)
        except self.unicorn.UcError:
            raise Fault(kind="nowhere", address=address, size=len(data)) from None

    def peek(self, address: int, size: int) -> bytes:
        """Read memory from outside."""
        try:
            return bytes(self.engine.mem_read(address, size))
        except self.unicorn.UcError:
            raise Fault(kind="nowhere", address=address, size=size) from None

    def stack_used(self) -> int:
        """Bytes of the stack that were written at any time."""
        start = self.program.ram[0]
        stack = bytes(self.engine.mem_read(start, self.stack_top - start))
        return len(stack.lstrip(self.paint))

    def _map(self, region: tuple[int, int], permissions: int) -> None:
        self.engine.mem_map(region[0], _whole_pages(region[1]), permissions)

    def _go(self, start: int, end: int, arguments: Sequence[int], seconds: float) -> int:
        """Run from one address to another; returns what the stack pointer was at the start."""
        arm = self.arm
        on_stack = arguments[4:]
        stack = self.stack_top - (4 * len(on_stack) + 7) // 8 * 8
        data = b"".join((value & 0xFFFFFFFF).to_bytes(4, "little") for value in on_stack)
        if data:
            self.engine.mem_write(stack, data)
        registers = (
            arm.UC_ARM_REG_R0, arm.UC_ARM_REG_R1, arm.UC_ARM_REG_R2, arm.UC_ARM_REG_R3,
        )  # fmt: skip
        for register, value in zip(registers, arguments, strict=False):
            self.engine.reg_write(register, value & 0xFFFFFFFF)
        self.engine.reg_write(arm.UC_ARM_REG_SP, stack)
        self.engine.reg_write(arm.UC_ARM_REG_LR, RETURN | 1)
        try:
            self.engine.emu_start(start | 1, end, timeout=int(seconds * 1e6))
        except self.unicorn.UcError as error:
            raise Fault(kind="trap", reason=str(error), **self._where(), **self.invalid) from None
        if self.engine.reg_read(arm.UC_ARM_REG_PC) != end:
            raise Fault(kind="endless", seconds=seconds, **self._where())
        return stack

    def _where(self) -> dict[str, object]:
        read, arm = self.engine.reg_read, self.arm
        return {
            "pc": read(arm.UC_ARM_REG_PC),
            "sp": read(arm.UC_ARM_REG_SP),
            "lr": read(arm.UC_ARM_REG_LR),
        }

    def _note_invalid(
        self, engine: Any, access: int, address: int, size: int, value: int, data: Any
    ) -> bool:
        self.invalid = {"access": _ACCESSES.get(access, "access"), "address": address, "size": size}
        return False

    def _check_edges(self) -> None:
        """Raise Fault if anything past the program's variables, to the last page's end, changed."""
        start = self.program.statics[1]
        end = self.program.ram[0] + _whole_pages(self.program.ram[1])
        past = bytes(self.engine.mem_read(start, end - start))
        left = past.lstrip(self.paint)
        if left:
            raise Fault(kind="past", address=end - len(left))


def _whole_pages(size: int) -> int:
    return -(-size // PAGE) * PAGE


@dataclass(frozen=True)
class Call:
    """A function, what it is given in registers and in memory, and what is read afterwards."""

    function: int
    arguments: list[int]
    writes: list[tuple[int, bytes]]
    reads: list[tuple[int, int]]
    seconds: float

    def run(self, machine: Machine) -> tuple[int, list[bytes]]:
        """Its result and what was read."""
        for address, data in self.writes:
            machine.poke(address, data)
        result = machine.call(self.function, self.arguments, self.seconds)
        return result, [machine.peek(address, size) for address, size in self.reads]


class Session:
    """Answers requests about one program."""

    def __init__(self, header: dict[str, Any], blobs: list[bytes]) -> None:
        self.program = Program(
            flash=tuple(header["flash"]),
            ram=tuple(header["ram"]),
            statics=tuple(header["statics"]),
            entry=header["entry"],
            main=header["main"],
            segments=list(zip(header["addresses"], blobs, strict=True)),
        )
        self.machine = _explained(lambda probe: Machine(self.program, probe=probe))

    def run(self, call: Call) -> tuple[dict[str, object], list[bytes]]:
        """Run a call on the machine as the calls before left it."""
        try:
            result, outputs = call.run(self.machine)
        except Fault as fault:
            self.machine = Machine(self.program)  # the one that faulted is of no more use
            _explained(lambda probe: call.run(Machine(self.program, probe=probe)), fault)
            raise
        return {"result": result, "stack_bytes": self.machine.stack_used()}, outputs

    def measure(
        self, call: Call, header: dict[str, Any], table: bytes
    ) -> tuple[dict[str, object], list[bytes]]:
        """Run a call on two fresh machines, the second one measured; their outputs must be equal.

        Their memory is filled with different bytes: a program shows that reads what it never wrote.
        """

        def attempt(probe: bool) -> tuple[tuple[int, list[bytes]], int]:
            plain = Machine(self.program, probe=probe)
            return call.run(plain), plain.stack_used()

        expected, stack_bytes = _explained(attempt)
        machine = Machine(self.program, paint=b"\x5a")
        meter = Meter(machine, header, table)
        found = call.run(machine)
        counts = meter.finish()
        if found != expected:
            raise Fault(kind="differs")
        stack_bytes = max(stack_bytes, machine.stack_used(), meter.deepest())
        return {"result": found[0], "stack_bytes": stack_bytes}, [*found[1], *counts]


class Meter:
    """The hook of hook.c on a machine."""

    def __init__(self, machine: Machine, header: dict[str, Any], table: bytes) -> None:
        self.machine = machine
        self.library = ctypes.CDLL(header["library"])
        unicorn = importlib.import_module("unicorn.unicorn_py3.unicorn").uclib
        row, count = self.library.nas_sizes(1), self.library.nas_sizes(2)
        self.rows = ctypes.create_string_buffer(table, len(table))
        self.counts = ctypes.create_string_buffer(len(table) // row * count)
        self.marks = ctypes.create_string_buffer(max(1, header["marks"]) * count)
        self.memory = ctypes.create_string_buffer(self.library.nas_sizes(0))
        self.state = state = State.from_buffer(self.memory)
        state.rows, state.counts = ctypes.addressof(self.rows), ctypes.addressof(self.counts)
        state.marks = ctypes.addressof(self.marks)
        state.read = ctypes.cast(unicorn.uc_reg_read, ctypes.c_void_p).value
        state.code_start, state.code_bytes = header["code"]
        state.flash_start, state.flash_bytes = machine.program.flash
        arm = machine.arm
        names = [f"R{n}" for n in range(13)] + ["SP", "LR", "PC"]
        state.names[:] = [getattr(arm, f"UC_ARM_REG_{name}") for name in names]
        state.penalty = header["penalty"]
        state.lowest_stack = machine.stack_top
        state.last = state.last_part = 0xFFFFFFFF
        handle = ctypes.c_size_t()
        status = unicorn.uc_hook_add(
            machine.engine._uch,
            ctypes.byref(handle),
            ctypes.c_int(machine.unicorn.UC_HOOK_CODE),
            ctypes.cast(self.library.nas_count, ctypes.c_void_p),
            ctypes.c_void_p(ctypes.addressof(self.memory)),
            ctypes.c_uint64(machine.program.flash[0]),
            ctypes.c_uint64(machine.program.flash[0] + machine.program.flash[1] - 1),
        )
        if status:
            raise Fault(kind="trap", reason=f"the hook is refused with status {status}")

    def deepest(self) -> int:
        """Bytes of the stack that were reserved at any time, written or not."""
        return self.machine.stack_top - int(self.state.lowest_stack)

    def finish(self) -> list[bytes]:
        """What was counted until each mark, and in all.

        Raises:
            Fault: the run did what a Cortex-M4 does not.
        """
        state = self.state
        self.library.nas_finish(ctypes.byref(state))
        if state.fault:
            raise Fault(
                kind=("", "unknown", "jump", "unaligned")[state.fault],
                pc=state.fault_at,
                address=state.fault_address,
            )
        return [self.marks.raw, self.counts.raw]


def _explained(attempt: Callable[[bool], _T], fault: Fault | None = None) -> _T:
    """Run `attempt`; if it traps, again with the hook that tells which access was invalid."""
    try:
        if fault is None:
            return attempt(False)
    except Fault as found:
        fault = found
    if fault.facts["kind"] == "trap":
        attempt(True)
    raise fault


def _answer(
    session: Session | None, header: dict[str, Any], blobs: list[bytes]
) -> tuple[Session, tuple[dict[str, object], list[bytes]]]:
    if session is None:
        return Session(header, blobs), ({}, [])
    call = Call(
        header["function"],
        header["arguments"],
        list(zip(header["addresses"], blobs, strict=False)),
        header["reads"],
        header["seconds"],
    )
    if header["kind"] == "measure":
        return session, session.measure(call, header, blobs[-1])
    return session, session.run(call)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are none; the first one holds the program."""
    session: Session | None = None
    while True:
        try:
            header, blobs = receive(source)
        except EOFError:
            return
        try:
            session, (reply, data) = _answer(session, header, blobs)
        except Fault as fault:
            reply, data = {"fault": fault.facts}, []
        except ImportError as error:
            reply, data = {"missing": str(error)}, []
        send(sink, reply, data)


def main() -> None:
    """Serve standard input and output; what libraries print must not get between the messages."""
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, messages)


if __name__ == "__main__":
    main()
