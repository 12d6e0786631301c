"""What each instruction of a program costs on a Cortex-M4, as a table for `hook.c`.

The rules are Arm's published timings, with no constant fitted; on the programs of MLPerf Tiny that
are known both as source and as silicon they come within 10 %:

    1      arithmetic, multiplications of all kinds, IT; an instruction that an IT skips
    2      a load; 1 straight after another load that it pairs with: not if its address is what that
           one loads, nor if either writes its base back
    1      a store; 2 if its address is the sum of two registers and no load pairs with it
    1 + n  loads and stores of n words at once, also of a pair of registers
    7      divisions (2 to 12 in truth)
    1      floats; 14 a division or root, 3 a multiply-accumulate, 2 a move of two registers
    + 1    an address that the arithmetic just before has computed
    + 2    a taken branch; + 1 if its target is 4 bytes and not at a multiple of 4; + 1 from a table
    + 1    an unaligned half-word, or a word at an even address; + 2 a word at an odd one

Flash adds its wait states for each 8 bytes that are missing in a cache of 8 lines of 32 bytes for
data, or in one of 32 such lines for instructions; the least recently used line goes, and nothing is
fetched ahead.
"""

import struct
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from nas.deploy.toolchain import INSTALL
from nas.emulation.elf import Image
from nas.errors import MachineFault, ToolMissing

BRANCH_PENALTY = 2

# As in hook.c.
LOAD, STORE, PAIRS, COMPUTES, JUMPS, ALWAYS, MOVES_STACK, ALIGNED, FROM_TABLE = (
    1 << bit for bit in range(9)
)
NONE = 255
ROW = struct.Struct("<H8BHHHi")
MARK_OFFSET = 14
_EMPTY = bytes(ROW.size)

_WIDTHS = {
    **dict.fromkeys(("ldrb", "ldrsb", "strb", "tbb"), 1),
    **dict.fromkeys(("ldrh", "ldrsh", "strh", "tbh"), 2),
    **dict.fromkeys(("ldr", "ldrd", "ldm", "ldmdb", "pop"), 4),
    **dict.fromkeys(("str", "strd", "stm", "stmdb", "push"), 4),
    **dict.fromkeys(("vldr", "vldmia", "vldmdb", "vpop"), 4),
    **dict.fromkeys(("vstr", "vstmia", "vstmdb", "vpush"), 4),
}
_SINGLE = {"ldr", "ldrh", "ldrsh", "ldrb", "ldrsb", "str", "strh", "strb", "vldr", "vstr"}
_ADDED = {"vmla", "vmls", "vnmla", "vnmls", "vfma", "vfms", "vfnma", "vfnms"}
_COSTS = {
    **dict.fromkeys(("udiv", "sdiv"), 7),
    **dict.fromkeys(("vdiv", "vsqrt"), 14),
    **dict.fromkeys(_ADDED, 3),
    **dict.fromkeys(("mrs", "msr", "dsb", "dmb", "isb"), 2),
    **dict.fromkeys(("tbb", "tbh"), 2),
}


def cost_table(image: Image) -> bytes:
    """One row of `hook.c` for each half-word of the code; a row of size 0 begins no instruction.

    Raises:
        ToolMissing: Capstone is not installed.
        MachineFault: bytes in between that are no instruction.
    """
    start, code = image.code
    table = bytearray(_EMPTY * ((len(code) + 1) // 2))
    for address, encoding in image.encodings():
        row = decode(encoding)
        if row is None:
            raise MachineFault(
                f"{image.function_at(address)}: {encoding.hex()} at {address:#x} is no"
                " instruction of a Cortex-M4"
            )
        at = (address - start) // 2 * ROW.size
        table[at : at + ROW.size] = row
    return bytes(table)


def with_marks(table: bytes, places: Sequence[int]) -> bytes:
    """The table with the rows at `places` marked 1, 2, ...: there counts are written down."""
    marked = bytearray(table)
    for number, place in enumerate(places, 1):
        struct.pack_into("<H", marked, place * ROW.size + MARK_OFFSET, number)
    return bytes(marked)


@cache
def decode(encoding: bytes) -> bytes | None:
    """The row of an instruction, wherever it is; None if it is not one."""
    disassemble, library = _disassembler()
    found = disassemble(encoding)
    if found is None:
        return None
    name = found.insn_name()
    reads_or_writes = name in _WIDTHS
    flags, cost, paired, base, index, shift = 0, _COSTS.get(name, 1), 0, NONE, NONE, 0
    if name == "vmov" and len(found.operands) > 2:
        cost = 2
    width, words, addressing, offset = 0, 0, 0, 0
    _, written = found.regs_access()
    results = _mask(library, written)
    if reads_or_writes:
        memory = _address(found, library, name)
        base, index, shift, offset, words = memory
        width = _WIDTHS[name]
        is_load = name.startswith(("ld", "vld", "pop", "vpop", "tb"))
        flags |= LOAD if is_load else STORE
        addressing = sum(1 << number for number in {base, index} - {NONE, 15})
        cost, paired = _memory_costs(name, found, index != NONE, words)
        if name in _SINGLE and is_load and not found.writeback:
            flags |= PAIRS
        if name not in _SINGLE or name[0] == "v":
            flags |= 0 if name.startswith("tb") else ALIGNED
    elif name.startswith(("ld", "st", "vld", "vst", "fld", "fst", "pld")):
        raise MachineFault(f"{name}: the cycle model has no cost for this instruction")
    elif results & 0x7FFF and not _is_branch(found, library):
        flags |= COMPUTES
    if name in ("tbb", "tbh"):
        flags |= FROM_TABLE
    if results & 0x8000 or _is_branch(found, library) or name in ("tbb", "tbh"):
        conditional = name in ("cbz", "cbnz") or found.cc not in (
            library.arm.ARM_CC_AL,
            library.arm.ARM_CC_INVALID,
        )
        flags |= JUMPS if conditional else JUMPS | ALWAYS
    if results & 1 << 13 or name in ("vpush", "vpop"):
        flags |= MOVES_STACK
    return ROW.pack(
        *(flags, len(encoding), cost, paired or cost, base, index, shift, width, words),
        *(addressing, results & 0x7FFF, 0, offset),
    )


def _memory_costs(name: str, found: Any, indexed: bool, words: int) -> tuple[int, int]:
    """Cycles of a load or store by itself, and straight after a load that it pairs with."""
    if name in ("tbb", "tbh"):
        return _COSTS[name], _COSTS[name]
    if name not in _SINGLE:
        return 1 + words, 1 + words
    if name.startswith("st"):
        alone = 2 if indexed else 1
        return alone, 1
    alone = 1 + words
    return alone, alone if found.writeback else words


def _address(found: Any, library: ModuleType, name: str) -> tuple[int, int, int, int, int]:
    """Base, index, shift, offset and number of words of what a load or store touches."""
    arm = library.arm
    registers = [o.reg for o in found.operands if o.type == arm.ARM_OP_REG]
    for operand in found.operands:
        if operand.type == arm.ARM_OP_MEM:
            memory = operand.mem
            index = _number(library, memory.index) if memory.index else NONE
            words = 2 if name in ("ldrd", "strd") or _doubles(library, registers) else 1
            shift = 1 if name == "tbh" else operand.shift.value if index != NONE else 0
            return _number(library, memory.base), index, shift, memory.disp, words
    if name in ("push", "pop", "vpush", "vpop"):
        base = 13
    else:
        base, registers = _number(library, registers[0]), registers[1:]
    words = len(registers) + _doubles(library, registers)
    down = name in ("push", "vpush") or name.endswith("db")
    return base, NONE, 0, -4 * words if down else 0, words


def _doubles(library: ModuleType, registers: list[int]) -> int:
    arm = library.arm
    return sum(arm.ARM_REG_D0 <= register <= arm.ARM_REG_D31 for register in registers)


def _is_branch(found: Any, library: ModuleType) -> bool:
    return any(found.group(group) for group in (library.CS_GRP_JUMP, library.CS_GRP_CALL))


def _mask(library: ModuleType, registers: list[int]) -> int:
    numbers = (_number(library, register) for register in registers)
    return sum({1 << number for number in numbers if number != NONE})


def _number(library: ModuleType, register: int) -> int:
    return _numbers(library).get(register, NONE)


@cache
def _numbers(library: ModuleType) -> dict[int, int]:
    arm = library.arm
    core = [getattr(arm, f"ARM_REG_R{number}") for number in range(13)]
    return {r: n for n, r in enumerate([*core, arm.ARM_REG_SP, arm.ARM_REG_LR, arm.ARM_REG_PC])}


@cache
def _disassembler() -> tuple[Callable[[bytes], Any], ModuleType]:
    try:
        import capstone as library
        import capstone.arm
    except ImportError as error:
        raise ToolMissing(f"capstone cannot be loaded ({error}): {INSTALL}") from None
    engine = library.Cs(library.CS_ARCH_ARM, library.CS_MODE_THUMB | library.CS_MODE_MCLASS)
    engine.detail = True

    def one(encoding: bytes) -> Any:
        return next(engine.disasm(encoding, 0, 1), None)

    return one, library
