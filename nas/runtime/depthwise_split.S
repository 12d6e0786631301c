/* void NAS(depthwise_split)(const nas_split *split, const int8_t *x, uint32_t *to, uint32_t rows)
 *
 * Splits rows of four neighbouring channels into pairs of columns in 16-bit lanes: four words a
 * pair, one a channel. 31 cycles for 16 values. nas_split is in depthwise_planes.c.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

#define STEP 0
#define X_REST 4
#define TO_REST 8
#define ZEROS 12
#define FOURS 16
#define PARTS 20

/* Bits of PARTS: LEFT, TWO, RIGHT, REST. A shift moves neighbours to the flags N and C, which hold
 * until the next shift. */
#define LEFT_TO_N 31
#define TWO_TO_N 30 /* RIGHT is then in C */
#define HAS_REST 8
#define PARTS_BITS 4

#define x r0
#define to r1
#define step r2
#define step2 r4
#define step3 r5
#define split r12
#define parts lr

/* Columns \a and \b to the pair at \offset. */
.macro split_pair a, b, offset
    pkhbt r10, \a, \b, lsl #16
    pkhtb r11, \b, \a, asr #16
    sxtb16 \a, r10
    str.w \a, [to, #\offset]
    sxtb16 \b, r11
    str.w \b, [to, #\offset + 8]
    sxtb16 r10, r10, ror #8
    str.w r10, [to, #\offset + 4]
    sxtb16 r11, r11, ror #8
    str.w r11, [to, #\offset + 12]
.endm

    .section .text.NAS(depthwise_split), "ax", %progbits
    .p2align 2
    .globl NAS(depthwise_split)
    .type NAS(depthwise_split), %function
    .thumb_func
NAS(depthwise_split):
    push.w {r4-r11, lr}
    mov.w split, r0
    mov.w x, r1
    mov.w to, r2
    ldr.w step, [split, #STEP]
    ldr.w parts, [split, #PARTS]
    sub.w r3, r3, #1
    orr.w parts, parts, r3, lsl #PARTS_BITS /* the rows left are counted down there */
    lsl.w step2, step, #1
    add.w step3, step2, step
.Lrow:
    ldr.w r3, [split, #FOURS]
    lsls.w r6, parts, #LEFT_TO_N
    bpl.w .Lfours
    ldr.w r6, [split, #ZEROS]
    ldr.w r7, [x]
    add.w x, x, step
    split_pair r6, r7, 0
    add.w to, to, #16
.Lfours:
    subs.w r3, r3, #1
    blt.w .Ltwo
.Lfour:
    ldr.w r6, [x]
    ldr.w r7, [x, step]
    ldr.w r8, [x, step2]
    ldr.w r9, [x, step3]
    add.w x, x, step, lsl #2
    split_pair r6, r7, 0
    split_pair r8, r9, 16
    add.w to, to, #32
    subs.w r3, r3, #1
    bge.w .Lfour
.Ltwo:
    lsls.w r6, parts, #TWO_TO_N
    bpl.w .Lright
    ldr.w r6, [x]
    ldr.w r7, [x, step]
    add.w x, x, step2
    split_pair r6, r7, 0
    add.w to, to, #16
.Lright:
    bcc.w .Lafter
    ldr.w r6, [x]
    ldr.w r7, [split, #ZEROS]
    add.w x, x, step
    split_pair r6, r7, 0
    add.w to, to, #16
.Lafter:
    tst.w parts, #HAS_REST
    bne.w .Lrest
.Lend:
    subs.w parts, parts, #1 << PARTS_BITS
    bpl.w .Lrow
    pop.w {r4-r11, pc}
.Lrest:
    ldr.w r6, [split, #X_REST]
    ldr.w r7, [split, #TO_REST]
    add.w x, x, r6
    add.w to, to, r7
    b.w .Lend
    .size NAS(depthwise_split), . - NAS(depthwise_split)

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
