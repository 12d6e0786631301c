/* uint32_t *NAS(depthwise_taps)(nas_taps *taps, uint32_t *block, uint32_t rows, uint32_t width)
 *
 * Reads the taps of one channel, `rows` rows of `width`, doubles them, and writes them in pairs as
 * depthwise_planes.c describes; returns the end of what it wrote. About 9 cycles a tap.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

#define taps r0
#define block r1
#define rows r2
#define width r3
#define next r4
#define word r5
#define left r6
#define bits r7
#define up r8
#define down r9
#define before lr

/* The next tap, twice. */
.macro next_tap tap, label
    subs.w left, left, bits
    bmi.w .Lrefill_\label
.Lread_\label:
    lsl.w \tap, word, up
    asr.w \tap, \tap, down
    lsr.w word, word, bits
.endm

.macro refill label
.Lrefill_\label:
    ldr.w word, [next]
    add.w next, next, #4
    rsb.w left, bits, #32
    b.w .Lread_\label
.endm

    .section .text.NAS(depthwise_taps), "ax", %progbits
    .p2align 2
    .globl NAS(depthwise_taps)
    .type NAS(depthwise_taps), %function
    .thumb_func
NAS(depthwise_taps):
    push.w {r4-r11, lr}
    ldr.w next, [taps]
    ldr.w word, [taps, #4]
    ldr.w left, [taps, #8]
    ldr.w bits, [taps, #12]
    rsb.w up, bits, #32
    rsb.w down, bits, #31
.Lrow:
    mov.w before, #0
    lsrs.w r10, width, #1
    beq.w .Llast
.Lpair:
    next_tap r11, first
    pkhbt before, before, r11, lsl #16
    str.w before, [block, #4]
    next_tap before, second
    pkhbt r11, r11, before, lsl #16
    str.w r11, [block]
    add.w block, block, #8
    subs.w r10, r10, #1
    bne.w .Lpair
.Llast:
    mov.w r11, #0
    tst.w width, #1
    beq.w .Lwrite
    next_tap r11, last
.Lwrite:
    pkhbt before, before, r11, lsl #16
    str.w before, [block, #4]
    uxth.w r11, r11
    str.w r11, [block]
    add.w block, block, #8
    subs.w rows, rows, #1
    bne.w .Lrow
    str.w next, [taps]
    str.w word, [taps, #4]
    str.w left, [taps, #8]
    mov.w r0, block
    pop.w {r4-r11, pc}
    refill first
    refill second
    refill last
    .size NAS(depthwise_taps), . - NAS(depthwise_taps)

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
