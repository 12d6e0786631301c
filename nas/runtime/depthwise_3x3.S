/* A nas_plane for kernels of 3x3 at stride 1 with padding `same` on maps of at least 2x2. An
 * instance is a file that defines PLANE (its name, by NAS), WIDTH (of the map) and CHANNELS, and
 * includes this; (WIDTH + 3) * CHANNELS <= 4095 and WIDTH <= 164 keep all strides immediate.
 *
 * A tile is two columns of two rows: the four input rows below it give eight words of two columns,
 * and each word serves two outputs, two multiplications an instruction. The loop has two tiles; an
 * odd number of tiles enters in its middle. An odd width's last column is done by itself; of an odd
 * height's last pair of rows the upper one is computed once more.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

#define TILES (WIDTH / 2)
#define PITCH (16 * (((WIDTH + 3) / 4 * 4 - 1) / 2 + 2)) /* bytes of a row in scratch */
#define FIRST (TILES % 2)                                 /* tiles left out of the first round */

/* What does not fit the core's registers; in those of the FPU where there is one. */
#define BIAS 0
#define MULTIPLIER 1
#define OFFSET 2
#define SHIFT 3
#define TILE 4
#define LAST 5
#define ROWS 6

#if defined(__ARM_FP)
.macro keep register, slot
    vmov s\slot, \register
.endm
.macro fetch register, slot
    vmov \register, s\slot
.endm
/* The first four slots, from the block at r0. */
.macro keep_constants
    vldmia r0, {s0-s3}
.endm
#define FRAME 0
#else
.macro keep register, slot
    str.w \register, [sp, #4 * \slot]
.endm
.macro fetch register, slot
    ldr.w \register, [sp, #4 * \slot]
.endm
.macro keep_constants
    ldmia.w r0, {r4-r7}
    stmia.w sp, {r4-r7}
.endm
#define FRAME 32
#endif

#define BLOCK_BYTES 64     /* from one channel's constants to the next one's */
#define COUNT (FRAME + 52) /* channels left, the fifth argument */

/* Two outputs of one row, by the words r8 and r9 of one input row. */
.macro multiply left, right, even, odd
    smlad \left, r8, \even, \left
    smlatb \right, r8, \even, \right
    smlabt \left, r9, \odd, \left
    smlad \right, r9, \odd, \right
.endm

/* Sums to r6 and r7 (left column) and r11 and r10 (right column), shifted but not saturated. Taps
 * of a kernel row are in two registers: (0, 1) and (1, 2). */
.macro sum_tile tile
    fetch r10, BIAS
    ldr.w r6, [r12, #16 * \tile]
    ldr.w r7, [r12, #16 * \tile + 16]
    ldr.w r8, [r12, #PITCH + 16 * \tile]
    ldr.w r9, [r12, #PITCH + 16 * \tile + 16]
    smlatb r11, r6, r0, r10
    smlad r6, r6, r0, r10
    smlabt r6, r7, r1, r6
    smlad r11, r7, r1, r11
    smlad r7, r8, r0, r10
    smlatb r10, r8, r0, r10
    smlabt r7, r9, r1, r7
    smlad r10, r9, r1, r10
    multiply r6, r11, r2, r3
    ldr.w r8, [r12, #2 * PITCH + 16 * \tile]
    ldr.w r9, [r12, #2 * PITCH + 16 * \tile + 16]
    multiply r6, r11, r4, r5
    multiply r7, r10, r2, r3
    ldr.w r8, [r12, #3 * PITCH + 16 * \tile]
    ldr.w r9, [r12, #3 * PITCH + 16 * \tile + 16]
    multiply r7, r10, r4, r5
    ble.w .Lleft\tile
    fetch r8, MULTIPLIER
    fetch r9, OFFSET
    add.w r12, r9, r6, asr #31
    smmlar r6, r6, r8, r12
    add.w r12, r9, r7, asr #31
    smmlar r7, r7, r8, r12
    add.w r12, r9, r11, asr #31
    smmlar r11, r11, r8, r12
    add.w r12, r9, r10, asr #31
    smmlar r10, r10, r8, r12
    fetch r8, SHIFT
    asr.w r6, r6, r8
    asr.w r7, r7, r8
    asr.w r11, r11, r8
    asr.w r10, r10, r8
.Lstore\tile:
.endm

/* The same for a shift to the left. */
.macro shift_left tile
.Lleft\tile:
    fetch r12, SHIFT
    lsl.w r6, r6, r12
    lsl.w r7, r7, r12
    lsl.w r11, r11, r12
    lsl.w r10, r10, r12
    fetch r8, MULTIPLIER
    fetch r9, OFFSET
    smmlar r6, r6, r8, r9
    smmlar r7, r7, r8, r9
    smmlar r11, r11, r8, r9
    smmlar r10, r10, r8, r9
    b.w .Lstore\tile
.endm

.macro store_column column, upper, lower
    ssat \upper, #8, \upper
    strb.w \upper, [lr, #(\column) * CHANNELS]
    ssat \lower, #8, \lower
    strb.w \lower, [lr, #(WIDTH + \column) * CHANNELS]
.endm

/* The last column of an odd width: outputs r11 and, below it, r10. */
.macro do_column
    fetch r10, BIAS
    ldr.w r6, [r12]
    ldr.w r7, [r12, #16]
    ldr.w r8, [r12, #PITCH]
    ldr.w r9, [r12, #PITCH + 16]
    smlad r11, r6, r0, r10
    smlabt r11, r7, r1, r11
    smlad r10, r8, r0, r10
    smlabt r10, r9, r1, r10
    smlad r11, r8, r2, r11
    smlabt r11, r9, r3, r11
    ldr.w r6, [r12, #2 * PITCH]
    ldr.w r7, [r12, #2 * PITCH + 16]
    ldr.w r8, [r12, #3 * PITCH]
    ldr.w r9, [r12, #3 * PITCH + 16]
    smlad r11, r6, r4, r11
    smlabt r11, r7, r5, r11
    smlad r10, r6, r2, r10
    smlabt r10, r7, r3, r10
    smlad r10, r8, r4, r10
    smlabt r10, r9, r5, r10
    fetch r8, MULTIPLIER
    fetch r9, OFFSET
    fetch r7, SHIFT
    ble.w .Lleft_column
    add.w r6, r9, r11, asr #31
    smmlar r11, r11, r8, r6
    add.w r6, r9, r10, asr #31
    smmlar r10, r10, r8, r6
    asr.w r11, r11, r7
    asr.w r10, r10, r7
.Lstore_column:
    store_column 0, r11, r10
.endm

.macro shift_column_left
.Lleft_column:
    lsl.w r11, r11, r7
    lsl.w r10, r10, r7
    smmlar r11, r11, r8, r9
    smmlar r10, r10, r8, r9
    b.w .Lstore_column
.endm

    .section .text.PLANE, "ax", %progbits
    .p2align 2
    .globl PLANE
    .type PLANE, %function
    .thumb_func
PLANE:
    push.w {r0-r11, lr} /* r0 to r2 are those of the channel, r3 the rows of each */
#if FRAME
    sub.w sp, sp, #FRAME
#endif
.Lchannel:
    mov.w lr, r2
    keep_constants
    keep r3, ROWS
#if TILES == 1
    subw r6, r1, #16
#else
    addw r6, r1, #16 * (TILES - 2)
#endif
    keep r6, LAST
    mov.w r12, r1
    ldr.w r1, [r0, #28]
    ldr.w r2, [r0, #32]
    ldr.w r3, [r0, #44]
    ldr.w r4, [r0, #48]
    ldr.w r5, [r0, #60]
    ldr.w r0, [r0, #16]
#if FIRST
    subw r12, r12, #16
    subw lr, lr, #2 * CHANNELS
#endif
    keep r12, TILE
.Lrow:
    fetch r8, SHIFT
    cmp.w r8, #0 /* for all tiles of the row: nothing in the loop touches the flags */
#if FIRST
    b.w .Lsecond
#endif
.Lfirst:
    sum_tile 0
    store_column 0, r6, r7
    store_column 1, r11, r10
    fetch r12, TILE
.Lsecond:
    sum_tile 1
    store_column 2, r6, r7
    fetch r12, TILE
    fetch r8, LAST
    sub.w r6, r12, r8
    store_column 3, r11, r10
    addw lr, lr, #4 * CHANNELS
    add.w r12, r12, #32
    keep r12, TILE
    cbz r6, .Lrow_done
    b.w .Lfirst
    .p2align 2
.Lrow_done:
#if WIDTH % 2
    do_column
#endif
    fetch r9, LAST
    fetch r8, ROWS
    addw r12, r12, #2 * PITCH - 16 * TILES - 16 * FIRST
    addw lr, lr, #2 * (WIDTH - TILES - FIRST) * CHANNELS
    addw r9, r9, #2 * PITCH
    sub.w r8, r8, #2
.Lkeep:
    keep r9, LAST
    keep r8, ROWS
    keep r12, TILE
    cmp.w r8, #1
    bgt.w .Lrow
    blt.w .Ldone
    subw r12, r12, #PITCH
    subw lr, lr, #WIDTH * CHANNELS
    subw r9, r9, #PITCH
    mov.w r8, #2
    b.w .Lkeep
.Ldone:
    ldr.w r4, [sp, #COUNT]
    ldr.w r0, [sp, #FRAME]
    ldr.w r1, [sp, #FRAME + 4]
    ldr.w r2, [sp, #FRAME + 8]
    ldr.w r3, [sp, #FRAME + 12]
    add.w r0, r0, #BLOCK_BYTES
    add.w r1, r1, #4
    add.w r2, r2, #1
    subs.w r4, r4, #1
    str.w r4, [sp, #COUNT]
    str.w r0, [sp, #FRAME]
    str.w r1, [sp, #FRAME + 4]
    str.w r2, [sp, #FRAME + 8]
    bne.w .Lchannel
    add.w sp, sp, #FRAME + 16
    pop.w {r4-r11, pc}
    shift_left 0
    shift_left 1
#if WIDTH % 2
    shift_column_left
#endif
    .size PLANE, . - PLANE

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
