/* One pixel times groups of four channels, 2-bit weights, packed as gemm_2.inc says; any inner
 * product.
 *
 * r0, r1 A of channels 0 and 1, and of 2 and 3, within a block of BLOCK weight words (the first
 * one is the shorter); of the blocks before: r2, r3 sums of channels 0 and 2, r8, r12 of 1 and 3.
 * r4 x, r5 weights, r6 a k-pair of a channel pair, r7 a weight word, r9, r10 inputs, r11 the mask,
 * lr the end of x. */
#if defined(__ARM_FEATURE_DSP)
#include "names.h"
#include "requantise.inc"

#define X 0
#define ENTRY 4 /* where the loop's first round enters it */
#define BACK 8 /* bytes of weights that this round leaves out */
#define LAST 12 /* end of x */
#define TABLE 16
#define ZERO 20 /* 2 * zero point of the output + 1 */
#define Y 24
#define COUNT 28 /* channels to do */
#define PENDING 32
#define PAIRS 36
#define WEIGHTS 40
#define MINUS 44 /* minus the sum of the inputs */
#define FRAME 52

#define BLOCK 8
#define UNIT_BYTES 44

    .syntax unified
    .thumb

/* One weight word: 16 multiplications. */
.macro unit u
    ldr.w r7, [r5, #4 * \u]
    ldr.w r9, [r4, #8 * \u]
    ldr.w r10, [r4, #8 * \u + 4]
    and.w r6, r11, r7
    smlad r0, r6, r9, r0
    and.w r6, r11, r7, ror #4
    smlad r1, r6, r9, r1
    and.w r6, r11, r7, ror #8
    smlad r0, r6, r10, r0
    and.w r6, r11, r7, ror #12
    smlad r1, r6, r10, r1
.endm

.macro settle a, low, high
    sbfx r6, \a, #0, #14
    sub.w \a, \a, r6
    add.w \low, \low, r6
    add.w \high, \high, \a, asr #14
    mov.w \a, #0
.endm

    .section .text.NAS(dot_2), "ax", %progbits
    .balign 4
    .global NAS(dot_2)
    .thumb_func
    .type NAS(dot_2), %function
NAS(dot_2): /* (conv, x, y, pairs) */
    push {r4-r11, lr}
    sub sp, sp, #FRAME
    ldrsb.w r4, [r0, #CONV_OUT_ZERO]
    ldrh.w r5, [r0, #CONV_OUT_CHANNELS]
    ldr.w r6, [r0, #CONV_TABLE]
    ldr.w r7, [r0, #CONV_WEIGHTS]
    add.w r4, r4, r4
    add.w r4, r4, #1
    str r4, [sp, #ZERO]
    str r5, [sp, #COUNT]
    str r6, [sp, #TABLE]
    str r7, [sp, #WEIGHTS]
    str r1, [sp, #X]
    str r2, [sp, #Y]
    str r3, [sp, #PAIRS]
    add.w r4, r3, #1
    lsr.w r4, r4, #1
    rsb.w r4, r4, #0
    and.w r4, r4, #BLOCK - 1 /* weight words left out */
    and.w r5, r3, #1
    add.w r4, r4, r5 /* and half a word done before */
    lsl.w r5, r4, #2
    str r5, [sp, #BACK]
    mov.w r5, #UNIT_BYTES
    adr.w r6, .Lloop
    mla r6, r4, r5, r6
    orr.w r6, r6, #1
    str r6, [sp, #ENTRY]
    add.w r12, r1, r3, lsl #2
    str.w r12, [sp, #LAST]
    mov.w r0, #0
    mvn.w r2, #0 /* -1 in both halves */
    subs.w r3, r3, #4
    blo.w .Lsum_rest
    .balign 4
.Lsum_four:
    ldm.w r1!, {r4, r5, r6, r7}
    smlad r0, r4, r2, r0
    smlad r0, r5, r2, r0
    smlad r0, r6, r2, r0
    smlad r0, r7, r2, r0
    subs.w r3, r3, #4
    bhs.w .Lsum_four
.Lsum_rest:
    cmp.w r1, r12
    beq.w .Lsum_done
    ldr.w r4, [r1]
    add.w r1, r1, #4
    smlad r0, r4, r2, r0
    b.w .Lsum_rest
.Lsum_done:
    str r0, [sp, #MINUS]

    .balign 4
.Lgroup:
    ldr r4, [sp, #X]
    ldr r5, [sp, #WEIGHTS]
    ldr.w r10, [sp, #PAIRS]
    ldr r2, [sp, #MINUS]
    ldr.w lr, [sp, #LAST]
    movw r11, #0xc003
    movt r11, #0xc003
    mov.w r0, #0
    mov.w r1, #0
    mov r3, r2
    mov.w r8, #0
    mov.w r12, #0
    tst.w r10, #1
    beq.w .Leven
    ldr.w r9, [r4]
    ldr.w r7, [r5]
    add.w r4, r4, #4
    add.w r5, r5, #4
    and.w r6, r11, r7, ror #8
    smuad r0, r6, r9
    and.w r6, r11, r7, ror #12
    smuad r1, r6, r9
.Leven:
    ldr r7, [sp, #BACK]
    ldr r6, [sp, #ENTRY]
    sub.w r4, r4, r7, lsl #1
    sub.w r5, r5, r7
    bx r6

    .balign 4
.Lloop:
    .irp u, 0, 1, 2, 3, 4, 5, 6, 7
    unit \u
    .endr
    settle r0, r2, r8
    settle r1, r3, r12
    add.w r4, r4, #8 * BLOCK
    add.w r5, r5, #4 * BLOCK
    cmp.w r4, lr
    bne.w .Lloop

    str r5, [sp, #WEIGHTS]
    lsl.w r0, r2, #1
    lsl.w r1, r8, #1
    lsl.w r2, r3, #1
    lsl.w r3, r12, #1
#include "finish_group.inc"
    .size NAS(dot_2), . - NAS(dot_2)
#endif
