"""A linked program: what is loaded where, and which bytes are whose."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.deploy.toolchain import INSTALL
from nas.errors import MachineFault, ToolMissing

# Of nas/deploy/firmware: what any firmware has of its own, so no part of a model.
STARTUP = ("firmware_vectors", "Reset_Handler", "Default_Handler", "main")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function or a variable."""

    name: str
    address: int
    size: int
    is_function: bool


@dataclass(frozen=True, slots=True)
class Image:
    """A linked program.

    Attributes:
        segments: address in Flash and bytes of each part that is loaded; variables' initial values
            are at the address that the start-up copies them from.
        symbols: by name; of several files' own ones with one name, any.
        functions: one for each address, rising.
        sections: bytes of each section that takes Flash or RAM.
        code: address and bytes of all instructions.
        instructions: address and size of each stretch of `code` that is instructions, not data.
        stack_top: where the stack begins, which is where the variables begin, too.
        statics_end: the first address after the last variable.
    """

    segments: tuple[tuple[int, bytes], ...]
    symbols: dict[str, Symbol]
    functions: tuple[Symbol, ...]
    sections: dict[str, int]
    code: tuple[int, bytes]
    instructions: tuple[tuple[int, int], ...]
    stack_top: int
    statics_end: int

    @property
    def flash_bytes(self) -> int:
        """All that is loaded: code, constants and the variables' initial values."""
        ends = [address + len(data) for address, data in self.segments]
        return max(ends) - min(address for address, _ in self.segments)

    @property
    def startup_bytes(self) -> int:
        """What of it is the vector table, the start-up and `main`."""
        return sum(self.symbols[name].size for name in STARTUP)

    @property
    def static_bytes(self) -> int:
        """RAM of all variables, without the stack."""
        return self.statics_end - self.stack_top

    def symbol(self, name: str) -> Symbol:
        """The function or variable of that name.

        Raises:
            MachineFault: the program has none.
        """
        if name not in self.symbols:
            raise MachineFault(f"{name}: the program has no such function or variable")
        return self.symbols[name]

    def encodings(self) -> Iterator[tuple[int, bytes]]:
        """Address and bytes of each instruction."""
        start, code = self.code
        for address, size in self.instructions:
            at, end = address - start, address - start + size
            while at < end:
                width = 4 if code[at + 1] >> 3 in (0x1D, 0x1E, 0x1F) else 2
                yield start + at, code[at : at + width]
                at += width

    def check_fpu(self) -> None:
        """Raise MachineFault if any instruction is of the FPU."""
        for address, encoding in self.encodings():
            if len(encoding) == 4 and encoding[1] & 0xEC == 0xEC and encoding[3] & 0xE == 0xA:
                raise MachineFault(
                    f"{self.function_at(address)}: uses the FPU, which this core does not have"
                )

    def function_at(self, address: int) -> str:
        """The function that an instruction's address lies in, or the address where none does."""
        index = bisect_right([function.address for function in self.functions], address) - 1
        if index >= 0:
            function = self.functions[index]
            if address < function.address + max(function.size, 2):
                return function.name
        return hex(address)

    def frame_bytes(self, function: str) -> int:
        """Stack that a function takes before it calls another: what it pushes, and room."""
        symbol, total = self.symbol(function), 0
        for address, encoding in self.encodings():
            if not symbol.address <= address < symbol.address + symbol.size:
                continue
            word = int.from_bytes(encoding[:2], "little")
            if _is_call(encoding):
                break
            if word >> 9 == 0x5A:  # PUSH
                total += 4 * (word & 0x1FF).bit_count()
            elif word == 0xE92D:  # PUSH.W
                total += 4 * int.from_bytes(encoding[2:], "little").bit_count()
            elif word >> 7 == 0x161:  # SUB sp, #
                total += 4 * (word & 0x7F)
        return total

    def returns(self, function: str) -> list[int]:
        """Addresses in `function` to which the functions that it calls return, in order."""
        symbol = self.symbol(function)
        return [
            address + 4
            for address, encoding in self.encodings()
            if symbol.address <= address < symbol.address + symbol.size and _is_call(encoding)
        ]


def _is_call(encoding: bytes) -> bool:
    """Whether an instruction is BL."""
    return len(encoding) == 4 and encoding[1] >> 3 == 0x1E and encoding[3] & 0xD0 == 0xD0


def read_elf(path: Path) -> Image:
    """Read a program that `compile_firmware` linked.

    Raises:
        ToolMissing: pyelftools is not installed.
    """
    try:
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise ToolMissing(f"pyelftools cannot be loaded ({error}): {INSTALL}") from None
    with path.open("rb") as file:
        elf = ELFFile(file)
        segments = tuple(
            (segment["p_paddr"], segment.data())
            for segment in elf.iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
        )
        sections = {
            section.name: section
            for section in elf.iter_sections()
            if section["sh_flags"] & 2 and section["sh_size"]  # SHF_ALLOC
        }
        listed: Any = elf.get_section_by_name(".symtab")
        symbols = [
            (symbol.name, symbol["st_value"], symbol["st_size"], symbol["st_info"]["type"])
            for symbol in listed.iter_symbols()
            if symbol.name and symbol["st_info"]["type"] not in ("STT_FILE", "STT_SECTION")
        ]
        code = (sections[".text"]["sh_addr"], sections[".text"].data())
        sizes = {name: section["sh_size"] for name, section in sections.items()}
    found = [
        Symbol(name, value & ~1 if kind == "STT_FUNC" else value, size, kind == "STT_FUNC")
        for name, value, size, kind in symbols
        if not name.startswith("$")
    ]
    by_name = {symbol.name: symbol for symbol in found}
    functions = {symbol.address: symbol for symbol in found if symbol.is_function}
    marks = sorted({(value, name[:2]) for name, value, _, _ in symbols if name[:2] in ("$t", "$d")})
    return Image(
        segments,
        by_name,
        tuple(functions[address] for address in sorted(functions)),
        sizes,
        code,
        _stretches(marks, code),
        by_name["firmware_stack_top"].address,
        by_name["firmware_bss_end"].address,
    )


def _stretches(
    marks: list[tuple[int, str]], code: tuple[int, bytes]
) -> tuple[tuple[int, int], ...]:
    """What the marks that assemblers leave say is Thumb code, within `code`."""
    end = code[0] + len(code[1])
    inside = [(address, kind) for address, kind in marks if code[0] <= address < end]
    ends = [address for address, _ in inside[1:]] + [end]
    return tuple(
        (address, stop - address)
        for (address, kind), stop in zip(inside, ends, strict=True)
        if kind == "$t" and stop > address
    )
