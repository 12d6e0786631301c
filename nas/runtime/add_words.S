/* void NAS(add_words)(const nas_add_words *constants, const int8_t *small, const int8_t *large,
 *                     int8_t *y, uint32_t words)
 *
 * Sums of four elements a word; add.c describes the constants. 18 cycles an element.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

#define HEAD_ROOM 20

/* On the stack. */
#define Y 0
#define END 4
#define LOW 8
#define FRAME 16
#define WORDS (FRAME + 36)

#define other r0
#define small r1
#define large r2
#define small_offset r3
#define small_multiplier r4
#define small_half r5
#define small_shift r6
#define large_offset r7
#define out_multiplier r8
#define out_offset r9
#define out_shift r10
#define a r11
#define b r12
#define sum lr

/* Byte \lane of words a and b, added to byte \lane of a. */
.macro add_byte lane
    sxtb.w sum, a, ror #8 * \lane
    add.w sum, small_offset, sum, lsl #HEAD_ROOM + 1
    add.w other, small_half, sum, asr #31
    smmlar sum, sum, small_multiplier, other
    asr.w sum, sum, small_shift
    sxtb.w other, b, ror #8 * \lane
    add.w other, large_offset, other, lsl #HEAD_ROOM
    add.w sum, other, sum, lsl #1
    add.w other, out_offset, sum, asr #31
    smmlar sum, sum, out_multiplier, other
    asr.w sum, sum, out_shift
    ssat sum, #8, sum
    bfi a, sum, #8 * \lane, #8
.endm

    .section .text.NAS(add_words), "ax", %progbits
    .p2align 2
    .globl NAS(add_words)
    .type NAS(add_words), %function
    .thumb_func
NAS(add_words):
    push.w {r4-r11, lr}
    sub.w sp, sp, #FRAME
    str.w r3, [sp, #Y]
    ldr.w sum, [sp, #WORDS]
    add.w sum, small, sum, lsl #2
    str.w sum, [sp, #END]
    ldmia.w r0!, {r3-r10}
    ldr.w sum, [r0]
    str.w sum, [sp, #LOW]
.Lword:
    ldr.w a, [small]
    ldr.w b, [large]
    add.w small, small, #4
    add.w large, large, #4
    add_byte 0
    add_byte 1
    add_byte 2
    add_byte 3
    ldr.w sum, [sp, #LOW]
    ldr.w other, [sp, #Y]
    ldr.w b, [sp, #END]
    cmp.w small, b
    ssub8 b, a, sum
    sel a, a, sum
    str.w a, [other]
    add.w other, other, #4
    str.w other, [sp, #Y]
    bne.w .Lword
    add.w sp, sp, #FRAME
    pop.w {r4-r11, pc}
    .size NAS(add_words), . - NAS(add_words)

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
