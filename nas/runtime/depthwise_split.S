/* void NAS(depthwise_split)(const int8_t *x, uint32_t *to, uint32_t channels, uint32_t columns,
 *                           uint32_t zeros, uint32_t odd)
 *
 * Splits `columns` columns of four neighbouring channels, `channels` bytes apart, into pairs of 16-bit
 * lanes: four words a pair, one a channel. Where `odd`, the first pair's left column is padding; where
 * the number does not come out even, the last one's right column is. `zeros` is padding, four bytes of
 * it. 35 cycles for 16 values.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

from    .req r0
to      .req r1
step    .req r2
left    .req r3
step2   .req r4
step3   .req r5
zeros   .req r12

/* Columns \a and \b to the pair at \offset. */
.macro split_pair a, b, offset
    sxtb16 r10, \a
    sxtb16 r11, \b
    pkhbt lr, r10, r11, lsl #16
    str.w lr, [to, #\offset]
    pkhtb r11, r11, r10, asr #16
    str.w r11, [to, #\offset + 8]
    sxtb16 \a, \a, ror #8
    sxtb16 \b, \b, ror #8
    pkhbt lr, \a, \b, lsl #16
    str.w lr, [to, #\offset + 4]
    pkhtb \b, \b, \a, asr #16
    str.w \b, [to, #\offset + 12]
.endm

    .section .text.NAS(depthwise_split), "ax", %progbits
    .p2align 2
    .globl NAS(depthwise_split)
    .type NAS(depthwise_split), %function
    .thumb_func
NAS(depthwise_split):
    push.w {r4-r11, lr}
    ldr.w zeros, [sp, #36]
    ldr.w r6, [sp, #40]
    lsl.w step2, step, #1
    add.w step3, step2, step
    cmp.w r6, #0
    beq.w .Lmany
    mov.w r6, zeros
    ldr.w r7, [from]
    sub.w from, from, step
    add.w left, left, #1
    b.w .Lpair
.Lmany:
    subs.w left, left, #4
    blt.w .Lfew
.Lfour:
    ldr.w r6, [from]
    ldr.w r7, [from, step]
    ldr.w r8, [from, step2]
    ldr.w r9, [from, step3]
    add.w from, from, step, lsl #2
    split_pair r6, r7, 0
    split_pair r8, r9, 16
    add.w to, to, #32
    subs.w left, left, #4
    bge.w .Lfour
.Lfew:
    adds.w left, left, #4
    beq.w .Ldone
    ldr.w r6, [from]
    mov.w r7, zeros
    cmp.w left, #1
    beq.w .Lpair
    ldr.w r7, [from, step]
.Lpair:
    split_pair r6, r7, 0
    add.w from, from, step2
    add.w to, to, #16
    subs.w left, left, #2
    bgt.w .Lmany
.Ldone:
    pop.w {r4-r11, pc}
    .size NAS(depthwise_split), . - NAS(depthwise_split)

    .unreq from
    .unreq to
    .unreq step
    .unreq left
    .unreq step2
    .unreq step3
    .unreq zeros

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
