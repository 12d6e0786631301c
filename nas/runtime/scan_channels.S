/* void NAS(scan_channels)(const nas_scan_row *row, int16_t *state, int32_t before_end)
 *
 * One step of the channels from `before_end` (negative) channels in front of the row's pointers on.
 * selective_scan.c describes the row. States are held negative, g = -h. With f = 2 (1 - a) in
 * 2^-15, the new h is h + ((f (b u - h) + r) >> 16), where r = 32770 - 3 (b u < h) rounds as a
 * factor of 2^-15 does, at bits 0 and 14: f d is even, so 3 does for 4.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

/* nas_scan_row */
#define U 0
#define DT 4
#define DECAY 8
#define SKIP 12
#define LANES 16
#define PAIRS 20
#define SINGLE 24
#define Z 28
#define Y 32
#define SUM 36
#define OUT 48
/* On the stack. */
#define INDEX 0
#define ROW 8

#define state r0
#define lanes r1
#define u r2
#define power r3
#define decay r4
#define sum r5
#define rounding r6
#define one r7
#define held r8
#define b r9
#define c r10
#define first r11
#define second r12
#define other lr

/* f (b u - h) with its rounding, in place of b u - h; `power` becomes the next one. */
.macro relax difference
    sub.w b, one, power, lsl #1
    mla power, power, decay, rounding
    sub.w other, rounding, \difference, lsr #30
    lsr.w power, power, #16
    mla \difference, b, \difference, other
.endm

/* Of a doubled value, to `bits`. */
.macro requantise multiplier offset shift bits
    add.w other, \offset, sum, asr #31
    smmlar sum, sum, \multiplier, other
    asr.w sum, sum, \shift
    ssat sum, #\bits, sum
.endm

    .section .text.NAS(scan_channels), "ax", %progbits
    .p2align 2
    .globl NAS(scan_channels)
    .type NAS(scan_channels), %function
    .thumb_func
NAS(scan_channels):
    push.w {r0, r4-r11, lr}
    sub.w sp, sp, #8
    str.w r2, [sp, #INDEX]
    mov.w state, r1
    movw rounding, #32770
    mov.w one, #65536
.Lchannel:
    ldr.w other, [sp, #ROW]
    ldr.w power, [sp, #INDEX]
    ldr.w b, [other, #U]
    ldr.w c, [other, #DT]
    ldr.w first, [other, #DECAY]
    ldr.w second, [other, #SKIP]
    ldr.w lanes, [other, #LANES]
    ldr.w held, [other, #PAIRS]
    ldrsb.w u, [b, power]
    ldrsb.w c, [c, power]
    ldr.w second, [second, power, lsl #2]
    ldrsh.w power, [first, c, lsl #1]
    mul sum, u, second
    pkhbt u, u, held
    lsl.w sum, sum, #1
    cmp.w held, #0
    lsl.w decay, power, #1
    blt.w .Lsingle
.Lpair:
    ldr.w held, [state]
    ldr.w b, [lanes]
    ldr.w c, [lanes, #4]
    add.w lanes, lanes, #8
    smulbb first, b, u
    smultb second, b, u
    sxtah first, first, held
    sxtah second, second, held, ror #16
    relax first
    relax second
    pkhtb second, second, first, asr #16
    ssub16 held, held, second
    smlad sum, held, c, sum
    str.w held, [state]
    add.w state, state, #4
    subs.w u, u, #0x10000
    bpl.w .Lpair
    ldr.w other, [sp, #ROW]
.Lsingle:
    ldr.w second, [other, #SINGLE]
    cmp.w second, #0
    beq.w .Lfinish
    ldrsh.w held, [state]
    ldr.w b, [lanes]
    ldr.w c, [lanes, #4]
    smulbb first, b, u
    add.w first, first, held
    sub.w b, one, power, lsl #1
    sub.w second, rounding, first, lsr #30
    mla first, b, first, second
    sub.w held, held, first, asr #16
    smlabb sum, held, c, sum
    strh.w held, [state]
    add.w state, state, #2
.Lfinish:
    ldr.w lanes, [sp, #INDEX]
    ldr.w u, [other, #Z]
    ldr.w power, [other, #Y]
    ldr.w decay, [other, #SUM]
    ldr.w held, [other, #SUM + 4]
    ldr.w b, [other, #SUM + 8]
    ldr.w c, [other, #OUT]
    ldr.w first, [other, #OUT + 4]
    ldr.w second, [other, #OUT + 8]
    ldrsb.w u, [u, lanes]
    requantise decay, held, b, 16
    mul sum, sum, u
    lsl.w sum, sum, #1
    requantise c, first, second, 8
    strb.w sum, [power, lanes]
    adds.w lanes, lanes, #1
    str.w lanes, [sp, #INDEX]
    bne.w .Lchannel
    add.w sp, sp, #12
    pop.w {r4-r11, pc}
    .size NAS(scan_channels), . - NAS(scan_channels)

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
