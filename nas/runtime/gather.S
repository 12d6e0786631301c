/* Kernel rows of four pixels, gathered as conv.h says.
 *
 * r0 lanes, r1 x, r2, r3, r12 one, two and three times the spacing of pixels, r4-r7 inputs, r8
 * scratch, r9 counts, r10 where the next left over input goes, r11 rows to do, lr whole words in a
 * row.
 */
#if defined(__ARM_FEATURE_DSP)
#include "names.h"

#define LEFT_OVER 0 /* in the frame */
#define SKIP 4
#define FRAME 12 /* with r4-r11 and lr, a multiple of 8 */

    .syntax unified
    .thumb

/* One word of each pixel. */
.macro word at
    ldr.w r4, [r1]
    ldr.w r5, [r1, r2]
    ldr.w r6, [r1, r3]
    ldr.w r7, [r1, r12]
    add.w r1, r1, #4
    widen r4, \at
    widen r5, \at + 4
    widen r6, \at + 8
    widen r7, \at + 12
.endm

.macro widen input, at
    sxtb16 r8, \input
    str.w r8, [r0, #\at]
    sxtb16 \input, \input, ror #8
    str.w \input, [r0, #\at + 16]
.endm

    .section .text.NAS(gather), "ax", %progbits
    .balign 4
    .global NAS(gather)
    .thumb_func
    .type NAS(gather), %function
NAS(gather): /* (tile, x, rows) */
    push {r4-r11, lr}
    sub sp, sp, #FRAME
    mov.w r11, r2
    ldm.w r0, {r4-r10} /* lanes, rest, rest_done, spacing, words, left_over, skip */
    str.w r9, [sp, #LEFT_OVER]
    str.w r10, [sp, #SKIP]
    mov.w r0, r4
    mov.w r2, r7
    add.w r3, r7, r7
    add.w r12, r3, r7
    mov.w lr, r8
    lsr.w r8, r6, #1
    add.w r10, r5, r8, lsl #4
    and.w r6, r6, #1
    add.w r10, r10, r6, lsl #1
.Lrow:
    lsrs.w r9, lr, #1
    bcs.w .Lodd
    beq.w .Lwords_done
    .balign 4
.Lwords:
    word 0
.Lsecond:
    word 32
    add.w r0, r0, #64
    subs.w r9, r9, #1
    bne.w .Lwords
.Lwords_done:
    ldr.w r9, [sp, #LEFT_OVER]
    ldr.w r8, [sp, #SKIP]
    cmp.w r9, #0
    beq.w .Lnext
.Lleft_over:
    ldrsb.w r4, [r1]
    ldrsb.w r5, [r1, r2]
    ldrsb.w r6, [r1, r3]
    ldrsb.w r7, [r1, r12]
    add.w r1, r1, #1
    strh.w r4, [r10]
    strh.w r5, [r10, #4]
    strh.w r6, [r10, #8]
    strh.w r7, [r10, #12]
    /* From the first lane of a word to its second, 2 bytes; from there to the next word, 14. */
    tst.w r10, #2
    ite eq
    addeq.w r10, r10, #2
    addne.w r10, r10, #14
    subs.w r9, r9, #1
    bne.w .Lleft_over
.Lnext:
    add.w r1, r1, r8
    subs.w r11, r11, #1
    bne.w .Lrow
    add sp, sp, #FRAME
    pop {r4-r11, pc}
.Lodd: /* enters at the loop's second word */
    add.w r9, r9, #1
    sub.w r0, r0, #32
    b.w .Lsecond
    .size NAS(gather), . - NAS(gather)
#endif
