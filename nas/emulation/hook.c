/* Counts instructions and models a Cortex-M4's cycles while a program runs in the emulator.
 *
 * `nas_count` is called before each instruction. What an instruction costs by itself comes in `rows`,
 * one a halfword of the code, made by nas/emulation/cycles.py, where the rules are explained; what depends on
 * the run (which branches are taken, which loads follow each other, which addresses are read) is found
 * here. Nothing of the emulated machine is changed.
 */

#include <stdint.h>

enum {
    LOAD = 1,         /* reads memory */
    STORE = 2,        /* writes memory */
    PAIRS = 4,        /* a single load that a load or store may follow without a cycle lost */
    COMPUTES = 8,     /* the results come from the last stage: no address can use them at once */
    JUMPS = 16,       /* may continue elsewhere */
    ALWAYS = 32,      /* does so whenever it runs */
    MOVES_STACK = 64, /* writes the stack pointer */
    ALIGNED = 128,    /* faults unless its address is a multiple of 4 */
    FROM_TABLE = 256, /* a jump that reads its target from a table */
};

#define NOWHERE 0xFFFFFFFFu /* an address */
enum { NONE = 255, CODE_LINES = 32, DATA_LINES = 8, LINE_SHIFT = 5, PART_SHIFT = 3 };
enum { FAULT_NONE, FAULT_UNKNOWN, FAULT_JUMP, FAULT_UNALIGNED };

typedef struct {
    uint16_t flags;
    uint8_t size; /* bytes; 0 where no instruction begins */
    uint8_t cost, cost_paired;
    uint8_t base, index, shift; /* address = base + (index << shift) + offset; register numbers or NONE */
    uint8_t width, words;       /* bytes of an access, and how many follow each other */
    uint16_t addressing;        /* registers that the address is made of, one bit each */
    uint16_t results;           /* registers written */
    uint16_t mark;              /* n: here the n-th part of the run begins; 0: no part */
    int32_t offset;
} row;

typedef struct {
    uint64_t runs, cycles, data_misses, code_misses, unaligned, paired;
} counts;

typedef struct {
    uint32_t line; /* address / 32 */
    uint32_t parts; /* which of its four 8-byte parts are held */
    uint64_t used;
} cache_line;

typedef int (*read_register)(void *machine, int name, void *value);

typedef struct {
    uint64_t rows, counts, read, marks; /* addresses: row *, counts *, read_register, counts * */
    uint32_t code_start, code_bytes, flash_start, flash_bytes;
    int32_t names[16]; /* what the emulator calls r0 to pc */
    uint32_t penalty;  /* cycles of a taken branch */
    uint32_t lowest_stack;
    uint32_t fault, fault_at, fault_address;
    uint32_t last, next; /* address of the instruction before, and of its successor in memory */
    uint32_t last_part, check_stack;
    uint64_t clock;
    cache_line code[CODE_LINES], data[DATA_LINES];
} state;

/* Looks an 8-byte part up in a cache of `size` lines, brings it in, and returns 1 if it was missing. */
static uint32_t miss(state *s, cache_line *lines, int size, uint32_t address) {
    uint32_t line = address >> LINE_SHIFT, part = 1u << ((address >> PART_SHIFT) & 3u);
    cache_line *oldest = lines;
    s->clock++;
    for (int i = 0; i < size; i++) {
        if (lines[i].line == line && lines[i].parts) {
            lines[i].used = s->clock;
            uint32_t missing = !(lines[i].parts & part);
            lines[i].parts |= part;
            return missing;
        }
        if (lines[i].used < oldest->used) {
            oldest = &lines[i];
        }
    }
    oldest->line = line;
    oldest->parts = part;
    oldest->used = s->clock;
    return 1;
}

static row *row_at(state *s, uint32_t address) {
    uint32_t offset = address - s->code_start;
    return offset < s->code_bytes ? &((row *)(uintptr_t)s->rows)[offset >> 1] : 0;
}

static counts *counts_at(state *s, uint32_t address) {
    return &((counts *)(uintptr_t)s->counts)[(address - s->code_start) >> 1];
}

static void fail(state *s, uint32_t kind, uint32_t at, uint32_t address) {
    if (s->fault == FAULT_NONE) {
        s->fault = kind;
        s->fault_at = at;
        s->fault_address = address;
    }
}

static uint32_t value_of(state *s, void *machine, uint8_t number) {
    uint32_t value = 0;
    (void)((read_register)(uintptr_t)s->read)(machine, s->names[number], &value);
    return value;
}

/* Accounts the step from the instruction before to `address`: a taken branch, or instructions of an IT
 * block whose condition failed, each of which costs a cycle. Returns whether `address` follows at once. */
static int step(state *s, uint32_t address) {
    if (s->last == NOWHERE) {
        return 0;
    }
    row *before = row_at(s, s->last);
    if (before->flags & JUMPS && (address != s->next || before->flags & ALWAYS)) {
        row *target = row_at(s, address);
        uint32_t extra = s->penalty + (before->flags & FROM_TABLE ? 1u : 0u);
        if (target && target->size == 4 && address & 2u) {
            extra++;
        }
        counts_at(s, s->last)->cycles += extra;
        return 0;
    }
    if (address == s->next) {
        return 1;
    }
    for (uint32_t at = s->next; at < address && address - at <= 16;) {
        row *skipped = row_at(s, at);
        if (!skipped || !skipped->size) {
            break;
        }
        counts_at(s, at)->runs++;
        counts_at(s, at)->cycles++;
        at += skipped->size;
        if (at == address) {
            return 0;
        }
    }
    fail(s, FAULT_JUMP, s->last, address);
    return 0;
}

/* The addresses that an instruction reads or writes: unaligned words, and misses in Flash. */
static uint32_t access(state *s, void *machine, uint32_t at, row *r, counts *c) {
    uint32_t address = (uint32_t)r->offset, extra = 0;
    if (r->base == 15) {
        address += (at + 4) & ~3u;
    } else if (r->base != NONE) {
        address += value_of(s, machine, r->base);
    }
    if (r->index != NONE) {
        address += value_of(s, machine, r->index) << r->shift;
    }
    if (r->flags & ALIGNED) {
        if (address & 3u) {
            fail(s, FAULT_UNALIGNED, at, address);
        }
    } else if (r->width == 4 && address & 3u) {
        extra = address & 1u ? 2 : 1;
    } else if (r->width == 2 && address & 1u) {
        extra = 1;
    }
    c->unaligned += extra != 0;
    if (r->flags & LOAD && address - s->flash_start < s->flash_bytes) {
        uint32_t last = address + (uint32_t)r->width * r->words - 1;
        for (uint32_t part = address & ~7u; part <= last; part += 8) {
            c->data_misses += miss(s, s->data, DATA_LINES, part);
        }
    }
    return extra;
}

/* Writes down all that was counted until the n-th part of the run begins. */
static void snapshot(state *s, uint32_t n) {
    counts *sum = &((counts *)(uintptr_t)s->marks)[n - 1], *each = (counts *)(uintptr_t)s->counts;
    *sum = (counts){0, 0, 0, 0, 0, 0};
    for (uint32_t i = 0; i < (s->code_bytes + 1) / 2; i++) {
        sum->runs += each[i].runs;
        sum->cycles += each[i].cycles;
        sum->data_misses += each[i].data_misses;
        sum->code_misses += each[i].code_misses;
        sum->unaligned += each[i].unaligned;
        sum->paired += each[i].paired;
    }
}

/* UC_HOOK_CODE: called before each instruction. */
void nas_count(void *machine, uint64_t where, uint32_t size, void *user);
void nas_count(void *machine, uint64_t where, uint32_t size, void *user) {
    state *s = user;
    uint32_t address = (uint32_t)where;
    row *r = row_at(s, address);
    if (!r || r->size != size) {
        fail(s, FAULT_UNKNOWN, address, size);
        return;
    }
    int follows = step(s, address);
    if (r->mark) {
        snapshot(s, r->mark);
    }
    counts *c = counts_at(s, address);
    uint32_t cycles = r->cost;
    if (follows && r->flags & (LOAD | STORE)) {
        row *before = row_at(s, s->last);
        int depends = (before->results & r->addressing) != 0;
        if (before->flags & PAIRS && !depends) {
            cycles = r->cost_paired;
            c->paired += r->cost - cycles;
        } else if (before->flags & COMPUTES && depends) {
            cycles++;
        }
    }
    if (r->flags & (LOAD | STORE)) {
        cycles += access(s, machine, address, r, c);
    }
    if (s->check_stack) {
        uint32_t stack = value_of(s, machine, 13);
        s->lowest_stack = stack < s->lowest_stack ? stack : s->lowest_stack;
    }
    for (uint32_t part = address >> PART_SHIFT; part <= (address + size - 1) >> PART_SHIFT; part++) {
        if (part != s->last_part) {
            c->code_misses += miss(s, s->code, CODE_LINES, part << PART_SHIFT);
            s->last_part = part;
        }
    }
    c->runs++;
    c->cycles += cycles;
    s->check_stack = r->flags & MOVES_STACK;
    s->last = address;
    s->next = address + size;
}

/* The return out of the program is a taken branch, too. */
void nas_finish(state *s);
void nas_finish(state *s) {
    if (s->last != NOWHERE) {
        counts_at(s, s->last)->cycles += s->penalty;
    }
}

uint32_t nas_sizes(uint32_t what);
uint32_t nas_sizes(uint32_t what) {
    return (uint32_t)(what == 0 ? sizeof(state) : what == 1 ? sizeof(row) : sizeof(counts));
}
