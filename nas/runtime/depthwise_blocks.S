/* void NAS(depthwise_blocks)(nas_reader *reader, uint32_t *blocks, uint32_t count)
 *
 * Reads the next `count` channels and writes their blocks; both are described in
 * depthwise_planes.c. About 30 cycles a channel and 10 a tap.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

/* nas_reader */
#define NEXT 0
#define WORD 4
#define LEFT 8
#define BITS 12
#define ROWS 16
#define WIDTH 20
#define TABLE 24
#define SHIFTS 28
#define ZERO 32
#define ODD_ZERO 36

#define reader r0
#define block r1
#define rows r2
#define width r3
#define next r4
#define word r5
#define left r6
#define bits r7
#define up r8
#define down r9
#define count r12
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

    .section .text.NAS(depthwise_blocks), "ax", %progbits
    .p2align 2
    .globl NAS(depthwise_blocks)
    .type NAS(depthwise_blocks), %function
    .thumb_func
NAS(depthwise_blocks):
    push.w {r4-r11, lr}
    mov.w count, r2
    ldr.w next, [reader, #NEXT]
    ldr.w word, [reader, #WORD]
    ldr.w left, [reader, #LEFT]
    ldr.w bits, [reader, #BITS]
    rsb.w up, bits, #32
    rsb.w down, bits, #31
.Lchannel:
    ldr.w r10, [reader, #TABLE]
    ldr.w r11, [reader, #SHIFTS]
    ldr.w r2, [r10]
    ldr.w r3, [r10, #4]
    ldrsb.w lr, [r11]
    add.w r10, r10, #8
    str.w r10, [reader, #TABLE]
    add.w r11, r11, #1
    str.w r11, [reader, #SHIFTS]
    str.w r2, [block]
    str.w r3, [block, #4]
    subs.w r11, lr, #1
    blt.w .Lshift_left
    ldr.w r10, [reader, #ODD_ZERO]
    lsl.w r10, r10, r11
.Lconstants:
    str.w r10, [block, #8]
    str.w lr, [block, #12]
    add.w block, block, #16
    ldr.w rows, [reader, #ROWS]
    ldr.w width, [reader, #WIDTH]
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
    ands.w r11, width, #1
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
    subs.w count, count, #1
    bne.w .Lchannel
    str.w next, [reader, #NEXT]
    str.w word, [reader, #WORD]
    str.w left, [reader, #LEFT]
    pop.w {r4-r11, pc}
    refill first
    refill second
    refill last
.Lshift_left:
    ldr.w r10, [reader, #ZERO]
    rsb.w lr, lr, #0x80000000
    b.w .Lconstants
    .size NAS(depthwise_blocks), . - NAS(depthwise_blocks)

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
