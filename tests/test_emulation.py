"""The emulated Cortex-M4: results, faults, and cycles counted by hand."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.deploy.toolchain import Memory, compile_firmware, find_compiler
from nas.emulation.cycles import MOVES_STACK, ROW, _disassembler, decode
from nas.emulation.elf import read_elf
from nas.emulation.emulator import Machine
from nas.errors import MachineFault, Mismatch, ToolMissing

MEMORY = Memory(flash_bytes=64 << 10, ram_bytes=6000, stack_bytes=1024)

C = r"""
#include <stdint.h>

int32_t dot(const int8_t *, int8_t *, int32_t, int32_t, int32_t, int32_t);
int32_t count(void), deep(int32_t), never_written(void);
int32_t peek(const volatile int32_t *), poke(volatile int32_t *);
void forever(void);
int8_t given[64], result[64];
static int32_t calls = 1;
static const int8_t weights[64] = {1, -2, 3, [63] = 5};

int32_t dot(const int8_t *x, int8_t *y, int32_t size, int32_t shift, int32_t low, int32_t high) {
    int32_t sum = 0;
    for (int32_t i = 0; i < size; i++) {
        int32_t scaled = x[i] * weights[i] >> shift;
        scaled = scaled < low ? low : scaled > high ? high : scaled;
        y[i] = (int8_t)scaled;
        sum += scaled;
    }
    return sum;
}

int32_t count(void) { return calls++; }

int32_t deep(int32_t depth) {
    volatile int32_t held[16];
    held[0] = depth;
    return depth ? deep(depth - 1) + held[0] : 0;
}

int32_t peek(const volatile int32_t *where) { return *where; }

int32_t poke(volatile int32_t *where) { *where = 1; return 0; }

int32_t never_written(void) { return *(volatile int32_t *)0x20000010; }

void forever(void) { for (;;) { __asm__ volatile(""); } }
"""
FUNCTIONS = ("dot", "count", "deep", "peek", "poke", "never_written", "forever")
# Assembly, instructions and cycles; all end in `bx lr`, one more instruction and 3 more cycles.
# r0 points to RAM, at a multiple of 4.
CYCLES = {
    "arithmetic": ("add r1, r2, r3; mul r1, r2, r3; smlad r1, r2, r3, r1; ssat r1, #8, r2", 4, 4),
    "long_multiply": ("umlal r1, r2, r3, r12; smmlar r1, r2, r3, r12", 2, 2),
    "division": ("udiv r1, r2, r3", 1, 7),
    "load": ("ldr r1, [r0]", 1, 2),
    "loads_pair": ("ldr r1, [r0]; ldr r2, [r0, #4]; ldrb r3, [r0, #8]", 3, 4),
    "loads_around_arithmetic": ("ldr r1, [r0]; nop; ldr r2, [r0]", 3, 5),
    "load_of_loaded_address": ("str r0, [r0]; ldr r1, [r0]; ldr r2, [r1]", 3, 5),
    "load_with_write_back": ("ldr r1, [r0], #4; ldr r2, [r0], #4; ldr r3, [r0]", 3, 6),
    "load_before_write_back": ("ldr r1, [r0]; ldr r2, [r0, #4]!", 2, 4),
    "load_after_write_back": ("mov r3, r0; nop; ldr r1, [r0], #4; ldr r2, [r3]", 4, 6),
    "load_of_computed_address": ("add r1, r0, #4; ldr r2, [r1]", 2, 4),
    "load_of_computed_index": ("movs r1, #4; ldr r2, [r0, r1]", 2, 4),
    "load_beside_computed": ("add r1, r0, #4; ldr r2, [r0]", 2, 3),
    "store": ("str r1, [r0]; str r1, [r0, #4]", 2, 2),
    "store_at_register": ("mov r1, #4; nop; str r2, [r0, r1]", 3, 4),
    "store_after_load": ("mov r1, #4; nop; ldr r2, [r0]; str r2, [r0, r1]", 4, 5),
    "load_after_store": ("str r1, [r0]; ldr r2, [r0]", 2, 3),
    "load_pair": ("ldrd r2, r3, [r0]; strd r2, r3, [r0]", 2, 6),
    "load_many": ("ldm r0, {r1, r2, r3, r12}", 1, 5),
    "push_and_pop": ("push {r4, r5, lr}; pop {r4, r5, lr}", 2, 8),
    "taken": ("b 1f; nop; 1:", 1, 3),
    "taken_to_wide": (".balign 4; b.n 1f; 1: add.w r1, r2, r3", 2, 5),
    "not_taken": ("cmp r0, #0; beq 1f; nop; 1:", 3, 3),
    "loop": ("movs r1, #5; .balign 4; 1: subs r1, #1; bne 1b", 12, 20),
    "table": ("movs r1, #1; tbb [pc, r1]; 2: .byte 1, 1; 1:", 2, 7),
    "skipped": ("cmp r0, #0; ittt eq; moveq r1, #1; ldreq r1, [r0]; moveq r1, #2", 5, 5),
    "not_skipped": ("cmp r0, #0; ittt ne; movne r1, #1; ldrne r1, [r0]; movne r1, #2", 5, 6),
    "half_skipped": ("cmp r0, #0; ite eq; ldreq r1, [r0]; ldrne r1, [r0]", 4, 5),
    "word_at_odd": ("ldr r1, [r0, #1]", 1, 4),
    "word_at_even": ("ldr r1, [r0, #2]", 1, 3),
    "half_word_at_odd": ("ldrh r1, [r0, #3]; strh r1, [r0, #5]", 2, 5),
    "literal": ("ldr r1, 1f; b 2f; .balign 4; 1: .word 1; 2:", 2, 5),
}
# Assembly whose r0 points to a table in Flash, at a multiple of 32, and its misses of data.
MISSES = {
    "one_line": ("ldm r0, {r1, r2, r3, r12}; ldr r1, [r0, #16]; ldr r1, [r0, #20]", 3),
    "across_parts": ("ldr r1, [r0, #6]", 2),
    "shifted_index": ("movs r1, #8; ldr r1, [r0, r1, lsl #2]; ldr r1, [r0, #32]", 1),
    "many_below": ("add r2, r0, #16; ldmdb r2, {r1, r3, r12}; ldr r1, [r0, #4]", 2),
    "eight_lines_twice": ("LINES 8; LINES 8", 8),
    "nine_lines_twice": ("LINES 9; LINES 9", 18),
    "recently_used_stays": ("LINES 8; ldr r1, [r0]; ldr r1, [r0, #256]; ldr r1, [r0]", 9),
}


def assembly() -> tuple[str, list[str]]:
    """A source file, and the names of what is in it."""
    lines = [
        ".syntax unified", ".thumb", ".macro LINES count", ".set at, 0", ".rept \\count",
        "ldr r1, [r0, #at]", ".set at, at + 32", ".endr", ".endm",
    ]  # fmt: skip
    programs = {name: text for name, (text, *_) in {**CYCLES, **MISSES}.items()}
    programs["straight"] = ".rept 16; add.w r1, r1, r1; .endr"
    for name, halves in (("loop_inside", 500), ("loop_beyond", 800)):
        programs[name] = f"movs r1, #3; 1: .rept {halves}; nop; .endr; subs r1, #1; bne.w 1b"
    programs["across_a_part"] = "nop; nop; nop; b.w 1f; .balign 32; 1:"
    programs["from_code"] = "adr r2, 1f; ldr r1, 1f; ldr r1, [r2]; b 2f; .balign 8; 1: .word 1; 2:"
    programs["reserve"] = "sub sp, #256; add sp, #256"  # never written
    programs["clobber"] = "movs r4, #1; mov r9, r4"
    programs["leave_stack"] = "push {r0, r1}"
    programs["unaligned_pair"] = "adds r1, r0, #2; ldrd r2, r3, [r1]"
    for name, text in programs.items():
        lines += [f'.section .text.{name}, "ax"', ".balign 32", f".global {name}"]
        lines += [".thumb_func", f".type {name}, %function", f"{name}:"]
        lines += [part.strip() for part in text.split(";")]
        lines += ["bx lr", f".size {name}, . - {name}"]
    lines += [".section .rodata.flash_table", ".balign 32", ".global flash_table"]
    lines += [".type flash_table, %object", "flash_table: .space 512", ".size flash_table, 512"]
    return "\n".join(lines) + "\n", [*programs, "flash_table"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def program(cache: Path) -> Path:
    """Both sources in one program."""
    (cache / "c.c").write_text(C)
    text, names = assembly()
    (cache / "assembly.S").write_text(text)
    sources = [cache / "c.c", cache / "assembly.S"]
    roots = [*FUNCTIONS, *names, "given", "result"]
    out = cache / "program.elf"
    compile_firmware(find_compiler(), sources, out, MEMORY, has_fpu=False, roots=roots, cache=cache)
    return out


@pytest.fixture(scope="module")
def machine(program: Path, cache: Path) -> Iterator[Machine]:
    with Machine(program, MEMORY, has_fpu=False, cache=cache) as machine:
        yield machine


def test_results(machine: Machine) -> None:
    given = bytes([100, 100, 3, *[0] * 60, 156])  # 156 is -100
    returned = machine.run(
        "dot",
        ["given", "result", 64, 1, -90, 90],  # the last two go over the stack
        writes=[("given", given)],
        reads=[("result", 64), ("given", 2)],
    )
    assert returned.outputs[0] == bytes([50, 166, 4, *[0] * 60, 166])
    assert returned.outputs[1] == given[:2]
    assert returned.value == (50 - 90 + 4 - 90) % 2**32


def test_a_measured_run_gives_the_same(machine: Machine) -> None:
    call = ("dot", ["given", "result", 64, 0, -128, 127])
    memory = {"writes": [("given", bytes(range(64)))], "reads": [("result", 64)]}
    measured = machine.measure(*call, **memory).returned
    plain = machine.run(*call, **memory)
    assert (measured.value, measured.outputs) == (plain.value, plain.outputs)


def test_variables_keep_their_values_between_calls_but_not_measured_ones(
    program: Path, cache: Path
) -> None:
    with Machine(program, MEMORY, has_fpu=False, cache=cache) as machine:
        assert [machine.run("count").value for _ in range(3)] == [1, 2, 3]
        assert machine.measure("count").returned.value == 1
        assert machine.run("count").value == 4


@pytest.mark.parametrize("name", CYCLES)
def test_cycles(machine: Machine, name: str) -> None:
    _, instructions, cycles = CYCLES[name]
    total = machine.measure(name, ["given"]).total
    assert (total.instructions, total.cycles) == (instructions + 1, cycles + 3)


@pytest.mark.parametrize("name", MISSES)
def test_misses_of_data(machine: Machine, name: str) -> None:
    assert machine.measure(name, ["flash_table"]).total.data_misses == MISSES[name][1]
    assert machine.measure(name, ["given"]).total.data_misses == 0  # RAM has no wait states


@pytest.mark.parametrize(
    ("name", "misses"),
    [
        ("straight", 9),  # 66 bytes
        ("across_a_part", 3),  # a branch over the edge of 8 bytes, and its target
        ("loop_inside", 127),  # 1,010 bytes, of which none leaves before the loop is over
        ("loop_beyond", 3 * 201 + 1),  # 1,606 bytes a round, each of which pushes the next out
    ],
)
def test_misses_of_instructions(machine: Machine, name: str, misses: int) -> None:
    total = machine.measure(name).total
    assert total.code_misses == misses
    assert total.cycles_at(5) == total.cycles + 5 * misses


def test_constants_between_code_are_data(machine: Machine) -> None:
    assert machine.measure("from_code").total.data_misses == 1


def test_unaligned_accesses_are_counted(machine: Machine) -> None:
    assert machine.measure("half_word_at_odd", ["given"]).total.unaligned == 2


def test_what_pairing_saves(machine: Machine) -> None:
    assert machine.measure("loads_pair", ["given"]).total.paired == 2
    assert machine.measure("load_pair", ["given"]).total.paired == 0
    assert machine.measure("store_after_load", ["given"]).total.paired == 1


def test_functions_add_up(machine: Machine) -> None:
    measured = machine.measure("deep", [3])
    assert set(measured.functions) == {"deep"}
    assert measured.functions["deep"] == measured.total
    assert machine.measure("straight").functions["straight"].instructions == 17


def test_stack(machine: Machine) -> None:
    assert machine.measure("reserve").stack_bytes == 256
    assert machine.measure("straight").stack_bytes == 0
    assert machine.measure("push_and_pop").stack_bytes == 12


def test_sizes(machine: Machine, program: Path) -> None:
    image = read_elf(program)
    assert image.stack_top == MEMORY.ram_origin + MEMORY.stack_bytes
    assert image.static_bytes == 64 + 64 + 4
    sizes = image.sections
    gap = image.flash_bytes - (sizes[".text"] + sizes[".rodata"] + sizes[".data"])
    assert 0 <= gap < 32  # the table's alignment
    assert sizes[".data"] == 4
    assert image.symbol("flash_table").size == 512
    assert image.function_at(image.symbol("dot").address + 2) == "dot"


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("deep", [1000], "the stack of 1024 bytes overflows in deep .*: write of 4 bytes"),
        ("peek", [0], "faults in peek .*: read of 4 bytes at 0x0, where no memory"),
        ("peek", [0x2000_2000], "read of 4 bytes at 0x20002000"),
        ("poke", [0x0800_0100], "write of 4 bytes at 0x8000100"),
        ("poke", ["result_end"], "wrote to 0x20000484, past the last of its variables"),
        ("poke", [0x2000_1FFC], "wrote to 0x20001ffc, past the last"),
    ],
)
def test_faults(machine: Machine, function: str, arguments: list[str | int], message: str) -> None:
    if arguments == ["result_end"]:
        arguments = [machine.image.statics_end]
    with pytest.raises(MachineFault, match=message):
        machine.run(function, arguments)
    with pytest.raises(MachineFault, match=message):
        machine.measure(function, arguments)
    assert machine.run("peek", ["given"]).value == 0  # a fault does no harm to the next call


def test_registers_that_belong_to_the_caller(machine: Machine) -> None:
    with pytest.raises(MachineFault, match="returned with another r4, r9 than it was called with"):
        machine.run("clobber")
    with pytest.raises(MachineFault, match="returned with another sp than"):
        machine.run("leave_stack")


def test_a_program_that_does_not_end(machine: Machine) -> None:
    with pytest.raises(MachineFault, match=r"did not end within 0.1 s in forever"):
        machine.run("forever", seconds=0.1)


def test_words_that_hardware_cannot_read_unaligned(machine: Machine) -> None:
    assert machine.run("unaligned_pair", ["given"])  # the emulator lets it pass
    with pytest.raises(MachineFault, match=r"access to 0x20000\w+ in unaligned_pair .* of 4"):
        machine.measure("unaligned_pair", ["given"])


def test_memory_that_was_never_written(machine: Machine) -> None:
    with pytest.raises(Mismatch, match="reads memory that it never wrote"):
        machine.measure("never_written")


def test_two_registers_to_the_fpu_cost_two_cycles() -> None:
    assert [decode(bytes.fromhex(code))[3] for code in ("51ec100a", "10ee100a")] == [2, 1]


def test_the_stack_is_watched_where_the_fpu_pushes() -> None:
    for code in ("2ded028b", "bdec028b"):  # vpush {d8}, vpop {d8}
        row = ROW.unpack(decode(bytes.fromhex(code)))
        assert row[0] & MOVES_STACK
        assert row[2] == 3


def test_memory_that_is_not_there(machine: Machine, program: Path, cache: Path) -> None:
    for call in ({"writes": [(0, b"x")]}, {"reads": [(0, 1)]}):
        with pytest.raises(MachineFault, match="1 bytes at 0x0: the device has no memory there"):
            machine.run("count", **call)
    for memory, message in (
        (Memory(4096, 6000, 1024), r"Flash of 4096 bytes is too small for \d+ bytes"),
        (Memory(64 << 10, 1100, 1024), "0x20000484: the program was linked for another RAM than"),
        (Memory(64 << 10, 6000, 2048), "another RAM than 6000 bytes with 2048 of stack"),
    ):
        with pytest.raises(MachineFault, match=message):
            Machine(program, memory, has_fpu=False, cache=cache)


def test_what_is_not_there(machine: Machine) -> None:
    with pytest.raises(MachineFault, match="nothing: the program has no such function"):
        machine.run("nothing")
    with pytest.raises(MachineFault, match="given: holds 64 bytes, not 65"):
        machine.run("dot", writes=[("given", bytes(65))])


def test_floats_with_an_fpu(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "float.c"
    source.write_text(
        "float third(float x); float third(float x) { return x / 3.0f; }\n"
        'void clobber(void); void clobber(void) { __asm__ volatile("vmov s17, r0"); }\n'
    )
    out = tmp_path / "float.elf"
    compile_firmware(
        find_compiler(),
        [source],
        out,
        MEMORY,
        has_fpu=True,
        roots=["third", "clobber"],
        cache=cache,
    )
    with Machine(out, MEMORY, has_fpu=True, cache=cache) as machine:
        assert machine.measure("third").total.instructions == 3
        with pytest.raises(MachineFault, match="another d8 than"):
            machine.run("clobber")
    with pytest.raises(MachineFault, match="third: uses the FPU, which this core does not have"):
        Machine(out, MEMORY, has_fpu=False, cache=cache)


def test_instructions_without_a_cost() -> None:
    assert decode(bytes.fromhex("ffffffff")) is None
    with pytest.raises(MachineFault, match="ldrex: the cycle model has no cost"):
        decode(bytes.fromhex("51e8000f"))


@pytest.mark.parametrize("library", ["unicorn", "elftools", "capstone"])
def test_a_missing_library(
    program: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    (tmp_path / f"{library}.py").write_text("raise ImportError('taken away')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)  # the process's
    for name in [n for n in sys.modules if n.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    _disassembler.cache_clear()
    decode.cache_clear()
    message = rf"{library} cannot be loaded \(taken away\): pip install 'mcu-nas\[emulate\]'"
    if library == "elftools":
        message = message.replace("elftools", "pyelftools")
    with (
        pytest.raises(ToolMissing, match=message),
        Machine(program, MEMORY, has_fpu=False, cache=cache) as machine,
    ):
        machine.measure("straight")
    _disassembler.cache_clear()


def test_a_process_that_dies(machine: Machine, program: Path, cache: Path) -> None:
    with Machine(program, MEMORY, has_fpu=False, cache=cache) as machine:
        machine._process.kill()
        with pytest.raises(MachineFault, match="process ended with status -9: no message"):
            machine.run("count")
