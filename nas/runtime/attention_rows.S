/* The loops over steps of attention.c, four steps at a time.
 *
 * uint32_t NAS(score_steps)(const nas_scoring *scoring, const int8_t *key, uint8_t *row,
 *                           const uint8_t *end)
 *     127 - score of the steps from `key` on; returns the least of each place of a word.
 * uint32_t NAS(sum_powers)(const int32_t *powers, const uint8_t *row, const uint8_t *end)
 *     The sum of exponentials in Q12.
 * void NAS(share_powers)(const int32_t *powers, uint8_t *row, const uint8_t *end,
 *                        const nas_sharing *sharing)
 *     Exponentials become weights.
 * uint32_t NAS(mix_steps)(const nas_mixing *mixing, const int8_t *value, const uint8_t *row)
 *     Four outputs, of the four channels at `value`.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

/* nas_scoring, and the same on the stack; then arguments. */
#define STRIDE 0
#define LANES 4
#define LANES_END 8
#define MULTIPLIER 12
#define OFFSET 16
#define SHIFT 20
#define KEY 24
#define ROW 28
#define END 32
#define LEAST 36
#define FRAME 40

#define sum0 r0
#define sum1 r1
#define sum2 r2
#define sum3 r3
#define even r4
#define odd r5
#define p r6
#define stride r7
#define x0 r8
#define x1 r9
#define x2 r10
#define end r11
#define t r12
#define lanes lr

.macro score_four sum x
    sxtb16 t, \x
    sxtb16 \x, \x, ror #8
    smlad \sum, t, even, \sum
    smlad \sum, \x, odd, \sum
.endm

/* Of a doubled sum; the offset holds the zero point, and the half that rounds. */
.macro requantise sum multiplier offset shift
    add.w t, \offset, \sum, asr #31
    smmlar \sum, \sum, \multiplier, t
    asr.w \sum, \sum, \shift
    ssat \sum, #8, \sum
.endm

    .section .text.NAS(score_steps), "ax", %progbits
    .p2align 2
    .globl NAS(score_steps)
    .type NAS(score_steps), %function
    .thumb_func
NAS(score_steps):
    push.w {r4-r11, lr}
    sub.w sp, sp, #FRAME
    mvn.w r12, #0
    add.w lr, sp, #KEY
    stmia.w lr, {r1-r3, r12}
    ldmia.w r0, {r6-r11}
    stmia.w sp, {r6-r11}
    mov.w stride, r6
    mov.w end, r8
    mov.w p, r1
.Lscore_group:
    ldr.w lanes, [sp, #LANES]
    mov.w sum0, #0
    mov.w sum1, #0
    mov.w sum2, #0
    mov.w sum3, #0
.Lscore_word:
    ldr.w even, [lanes]
    ldr.w odd, [lanes, #4]
    ldr.w x0, [p]
    ldr.w x1, [p, stride]
    ldr.w x2, [p, stride, lsl #1]
    score_four sum0, x0
    add.w x0, p, stride
    score_four sum1, x1
    ldr.w x0, [x0, stride, lsl #1]
    score_four sum2, x2
    score_four sum3, x0
    add.w lanes, lanes, #8
    add.w p, p, #4
    cmp.w lanes, end
    bne.w .Lscore_word
    ldr.w even, [sp, #MULTIPLIER]
    ldr.w odd, [sp, #OFFSET]
    ldr.w x0, [sp, #SHIFT]
    ldr.w p, [sp, #KEY]
    ldr.w x1, [sp, #ROW]
    ldr.w x2, [sp, #LEAST]
    requantise sum0, even, odd, x0
    requantise sum1, even, odd, x0
    requantise sum2, even, odd, x0
    requantise sum3, even, odd, x0
    bfi sum0, sum1, #8, #8
    bfi sum0, sum2, #16, #8
    bfi sum0, sum3, #24, #8
    eor.w sum0, sum0, #0x7F7F7F7F
    str.w sum0, [x1]
    add.w x1, x1, #4
    usub8 t, x2, sum0
    sel x2, sum0, x2
    add.w p, p, stride, lsl #2
    ldr.w t, [sp, #END]
    str.w p, [sp, #KEY]
    str.w x1, [sp, #ROW]
    str.w x2, [sp, #LEAST]
    cmp.w x1, t
    bne.w .Lscore_group
    mov.w r0, x2
    add.w sp, sp, #FRAME
    pop.w {r4-r11, pc}
    .size NAS(score_steps), . - NAS(score_steps)

#undef p
#undef x0
#undef x1
#undef x2
#undef end
#undef t
#undef even
#undef odd

#define powers r0
#define row r1
#define end r2
#define total r3

/* The exponentials of four scores to r4-r7. */
.macro look_up_four
    ldr.w r12, [row]
    uxtb.w r4, r12
    uxtb.w r5, r12, ror #8
    uxtb.w r6, r12, ror #16
    lsr.w r7, r12, #24
    ldr.w r4, [powers, r4, lsl #2]
    ldr.w r5, [powers, r5, lsl #2]
    ldr.w r6, [powers, r6, lsl #2]
    ldr.w r7, [powers, r7, lsl #2]
.endm

.macro add_power power
    add.w \power, \power, #2048
    add.w total, total, \power, lsr #12
.endm

    .section .text.NAS(sum_powers), "ax", %progbits
    .p2align 2
    .globl NAS(sum_powers)
    .type NAS(sum_powers), %function
    .thumb_func
NAS(sum_powers):
    push.w {r4-r7}
    mov.w total, #0
.Lsum:
    look_up_four
    add.w row, row, #4
    add_power r4
    add_power r5
    add_power r6
    add_power r7
    cmp.w row, end
    bne.w .Lsum
    mov.w r0, total
    pop.w {r4-r7}
    bx lr
    .size NAS(sum_powers), . - NAS(sum_powers)

#define factor r8
#define half r9
#define shift r10

/* A product with a factor of 2^31 or more, which the register holds less 2^32. */
.macro share power
    smmlar \power, \power, factor, \power
    add.w \power, \power, half
    lsr.w \power, \power, shift
    usat \power, #8, \power
.endm

    .section .text.NAS(share_powers), "ax", %progbits
    .p2align 2
    .globl NAS(share_powers)
    .type NAS(share_powers), %function
    .thumb_func
NAS(share_powers):
    push.w {r4-r10}
    ldmia.w r3, {factor, half, shift}
.Lshare:
    look_up_four
    share r4
    share r5
    share r6
    share r7
    bfi r4, r5, #8, #8
    bfi r4, r6, #16, #8
    bfi r4, r7, #24, #8
    str.w r4, [row]
    add.w row, row, #4
    cmp.w row, end
    bne.w .Lshare
    pop.w {r4-r10}
    bx lr
    .size NAS(share_powers), . - NAS(share_powers)

#undef row
#undef end
#undef half
#undef shift

/* nas_mixing. */
#define MIX_STRIDE 0
#define FOURS 4
#define TAIL_MASK 8
#define TAIL_ROW 12
#define TAIL_OFFSET 16
#define MIX_MULTIPLIER 20
/* On the stack. */
#define MASK 0
#define MIXING 4
#define VALUE 8
#define WEIGHTS 12

#define p r4
#define row r6
#define end r7
#define even r8
#define odd r9
#define x0 r10
#define x1 r11
#define x2 r12
#define other lr
#define mix_stride r5

/* Four values times the weight in the \half (b or t) of \weights. */
.macro mix_four x weights half
    sxtb16 other, \x
    sxtb16 \x, \x, ror #8
    smlab\half sum0, other, \weights, sum0
    smlat\half sum2, other, \weights, sum2
    smlab\half sum1, \x, \weights, sum1
    smlat\half sum3, \x, \weights, sum3
.endm

.macro finish_mix sum
    lsl.w \sum, \sum, #1
    add.w other, r5, \sum, asr #31
    smmlar \sum, \sum, r4, other
    asr.w \sum, \sum, r6
    ssat \sum, #8, \sum
.endm

    .section .text.NAS(mix_steps), "ax", %progbits
    .p2align 2
    .globl NAS(mix_steps)
    .type NAS(mix_steps), %function
    .thumb_func
NAS(mix_steps):
    push.w {r0-r2, r4-r11, lr}
    sub.w sp, sp, #4
    ldr.w other, [r0, #TAIL_MASK]
    ldr.w mix_stride, [r0, #MIX_STRIDE]
    ldr.w end, [r0, #FOURS]
    mov.w row, r2
    add.w end, end, r2
    str.w other, [sp, #MASK]
    mov.w p, r1
    mov.w sum0, #0
    mov.w sum1, #0
    mov.w sum2, #0
    mov.w sum3, #0
.Lmix:
    ldr.w even, [row]
    add.w row, row, #4
.Lmix_group:
    ldr.w x0, [p]
    ldr.w x1, [p, mix_stride]
    ldr.w x2, [p, mix_stride, lsl #1]
    uxtb16 odd, even, ror #8
    uxtb16 even, even
    mix_four x0, even, b
    add.w x0, p, mix_stride
    mix_four x1, odd, b
    ldr.w x0, [x0, mix_stride, lsl #1]
    mix_four x2, even, t
    mix_four x0, odd, t
    add.w p, p, mix_stride, lsl #2
    cmp.w row, end
    bne.w .Lmix
    ldr.w other, [sp, #MASK]
    ldr.w x0, [sp, #MIXING]
    cmp.w other, #0
    beq.w .Lmixed
    ldr.w x1, [sp, #VALUE] /* the last four steps, of which some are done */
    ldr.w x2, [sp, #WEIGHTS]
    ldr.w p, [x0, #TAIL_OFFSET]
    ldr.w even, [x0, #TAIL_ROW]
    mov.w x0, #0
    str.w x0, [sp, #MASK]
    add.w p, p, x1
    ldr.w even, [x2, even]
    and.w even, even, other
    b.w .Lmix_group
.Lmixed:
    add.w x0, x0, #MIX_MULTIPLIER
    ldmia.w x0, {r4-r6}
    finish_mix sum0
    finish_mix sum1
    finish_mix sum2
    finish_mix sum3
    bfi sum0, sum1, #8, #8
    bfi sum0, sum2, #16, #8
    bfi sum0, sum3, #24, #8
    add.w sp, sp, #16
    pop.w {r4-r11, pc}
    .size NAS(mix_steps), . - NAS(mix_steps)

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
