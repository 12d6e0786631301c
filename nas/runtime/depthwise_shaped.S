/* A nas_plane for one shape: kernels of KERNEL_HEIGHT x KERNEL_WIDTH at strides STRIDE_HEIGHT and
 * STRIDE_WIDTH (1 or 2) to rows of WIDTH outputs of CHANNELS channels. An instance is a file that
 * defines those and PLANE (its name, by NAS), and includes this; nas/deploy/pack_depthwise.py knows
 * which shapes keep all strides immediate.
 *
 * A tile is four outputs of a row. At stride 1 a word of two columns serves the output that starts
 * on its first column and the one that starts on its second, each with its own pairs of taps; at
 * stride 2 all outputs start on a first column. What a last tile has too much is computed, but not
 * stored. For small kernels the loop has two tiles; an odd number of them enters in its middle.
 */
#include "names.h"

#if defined(__ARM_FEATURE_DSP)

    .syntax unified
    .thumb

#define TILES ((WIDTH + 3) / 4)
/* Pairs of taps in a kernel row, bytes of a row in scratch. */
#define WORDS (KERNEL_WIDTH / 2 + 1)
#define PITCH (16 * ((4 * TILES - 1) * STRIDE_WIDTH / 2 + WORDS))
#define TILE_BYTES (32 * STRIDE_WIDTH)
#define TAPS 16 /* the first tap's place in a channel's block */

#define block r12
#define x r11
#define y lr
#define sum0 r0
#define sum1 r1
#define sum2 r2
#define sum3 r3

#if STRIDE_WIDTH == 1
#define STEPS WORDS
#define multiplier r8
#define offset r9
#define shift r10
#else
#define STEPS ((KERNEL_WIDTH + 1) / 2)
#define multiplier r5
#define offset r6
#define shift r7
#endif

#if KERNEL_HEIGHT * STEPS <= 4
#define UNROLL 2
#else
#define UNROLL 1
#endif
#define FIRST (TILES % UNROLL)                     /* tiles left out of the first round */
#define LAST_ROUND (TILE_BYTES * (TILES - UNROLL)) /* from the row's first tile to the last round */

/* The last tile of the row and the rows left: in registers, in the FPU's, or on the stack. */
#if STRIDE_WIDTH == 2
#define LAST r9
#define ROWS r10
.macro keep register, slot
    mov.w \slot, \register
.endm
.macro fetch register, slot
    mov.w \register, \slot
.endm
#define FRAME 0
#elif defined(__ARM_FP)
#define LAST s0
#define ROWS s1
.macro keep register, slot
    vmov \slot, \register
.endm
.macro fetch register, slot
    vmov \register, \slot
.endm
#define FRAME 0
#else
#define LAST 0
#define ROWS 4
.macro keep register, slot
    str.w \register, [sp, #\slot]
.endm
.macro fetch register, slot
    ldr.w \register, [sp, #\slot]
.endm
#define FRAME 8
#endif

#define BLOCK_BYTES (TAPS + 8 * KERNEL_HEIGHT * WORDS) /* from a channel's constants to the next */
#define COUNT (FRAME + 52)                             /* channels left, the fifth argument */

/* \register + a constant of any size, by way of r4. */
.macro add_constant register, constant
    movw r4, #(\constant) & 0xffff
    movt r4, #((\constant) >> 16) & 0xffff
    add.w \register, \register, r4
.endm

/* A pair of columns and a pair of taps to each sum; the very first one adds the bias. */
.macro multiply first, w0, t0, w1, t1, w2, t2, w3, t3
    .if \first
    smlad sum0, \w0, \t0, sum3
    smlad sum1, \w1, \t1, sum3
    smlad sum2, \w2, \t2, sum3
    .else
    smlad sum0, \w0, \t0, sum0
    smlad sum1, \w1, \t1, sum1
    smlad sum2, \w2, \t2, sum2
    .endif
    smlad sum3, \w3, \t3, sum3
.endm

#define IS_FIRST (kernel_row + word == 0)
#define TAP (TAPS + 8 * (kernel_row * WORDS + word))
#define COLUMN(n) (tile * TILE_BYTES + kernel_row * PITCH + 16 * (word + n))

#if STRIDE_WIDTH == 1
.macro step left, right
    ldr.w r4, [block, #TAP]
    ldr.w r5, [block, #TAP + 4]
    .if word == 0
    ldr.w \left, [x, #COLUMN(0)]
    .endif
    ldr.w \right, [x, #COLUMN(1)]
    multiply IS_FIRST, \left, r4, \left, r5, \right, r4, \right, r5
.endm
.macro next_step
    .if word % 2 == 0
    step r6, r7
    .else
    step r7, r6
    .endif
.endm
#else
.macro step w0, w1, w2, w3
    ldr.w r4, [block, #TAP]
    .if word == 0
    ldr.w \w0, [x, #COLUMN(0)]
    ldr.w \w1, [x, #COLUMN(1)]
    ldr.w \w2, [x, #COLUMN(2)]
    .endif
    ldr.w \w3, [x, #COLUMN(3)]
    multiply IS_FIRST, \w0, r4, \w1, r4, \w2, r4, \w3, r4
.endm
.macro next_step
    .if word % 4 == 0
    step r5, r6, r7, r8
    .elseif word % 4 == 1
    step r6, r7, r8, r5
    .elseif word % 4 == 2
    step r7, r8, r5, r6
    .else
    step r8, r5, r6, r7
    .endif
.endm
#endif

.macro scale sum
    add.w r4, offset, \sum, asr #31
    smmlar \sum, \sum, multiplier, r4
    asr.w \sum, \sum, shift
.endm

.macro raise sum
    lsl.w \sum, \sum, shift
    smmlar \sum, \sum, multiplier, offset
.endm

/* Stores output \column of the round's tile \number, unless the row ends before it. */
.macro store number, column, sum
    .if \number == UNROLL - 1 && \column == WIDTH % 4 && \column > 0
    cbz r4, .Lrow_done
    .endif
    ssat \sum, #8, \sum
    strb.w \sum, [y, #(4 * \number + \column) * CHANNELS]
.endm

.macro compute number
    .set tile, \number
.Ltile\number:
    ldr.w sum3, [block]
    .set kernel_row, 0
    .rept KERNEL_HEIGHT
    .set word, 0
    .rept STEPS
    next_step
    .set word, word + 1
    .endr
    .set kernel_row, kernel_row + 1
    .endr
#if STRIDE_WIDTH == 2
    ldr.w multiplier, [block, #4]
    ldr.w offset, [block, #8]
    ldr.w shift, [block, #12]
#endif
    ble.w .Lleft\number
    scale sum0
    scale sum1
    scale sum2
    scale sum3
.Lstore\number:
    .if \number == UNROLL - 1
    fetch r4, LAST
    sub.w r4, x, r4
    .endif
    store \number, 0, sum0
    store \number, 1, sum1
    store \number, 2, sum2
    store \number, 3, sum3
.endm

.macro shift_left number
.Lleft\number:
    raise sum0
    raise sum1
    raise sum2
    raise sum3
    b.w .Lstore\number
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
    mov.w block, r0
    mov.w x, r1
    mov.w y, r2
    keep r3, ROWS
    add_constant r1, LAST_ROUND
    keep r1, LAST
#if FIRST
    sub.w x, x, #TILE_BYTES
    subw y, y, #4 * CHANNELS
#endif
#if STRIDE_WIDTH == 1
    ldr.w multiplier, [block, #4]
    ldr.w offset, [block, #8]
    ldr.w shift, [block, #12]
#endif
.Lrow:
#if STRIDE_WIDTH == 2
    ldr.w shift, [block, #12]
#endif
    cmp.w shift, #0 /* for all tiles of the row: nothing in the loop touches the flags */
#if FIRST
    b.w .Ltile1
#endif
    compute 0
#if UNROLL == 2
    compute 1
#endif
#if WIDTH % 4 == 0
    cbz r4, .Lrow_done
#endif
    add.w x, x, #UNROLL * TILE_BYTES
    addw y, y, #UNROLL * 4 * CHANNELS
    b.w .Ltile0
    .p2align 2
.Lrow_done:
    fetch r5, ROWS
    subs.w r5, r5, #1
    beq.w .Ldone
    keep r5, ROWS
    fetch r6, LAST
    add_constant r6, STRIDE_HEIGHT * PITCH
    keep r6, LAST
    add_constant x, STRIDE_HEIGHT * PITCH - LAST_ROUND - FIRST * TILE_BYTES
    addw y, y, #(WIDTH - 4 * (TILES - UNROLL + FIRST)) * CHANNELS
    b.w .Lrow
.Ldone:
    ldr.w r4, [sp, #COUNT]
    ldr.w r0, [sp, #FRAME]
    ldr.w r1, [sp, #FRAME + 4]
    ldr.w r2, [sp, #FRAME + 8]
    ldr.w r3, [sp, #FRAME + 12]
    addw r0, r0, #BLOCK_BYTES
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
#if UNROLL == 2
    shift_left 1
#endif
    .size PLANE, . - PLANE

#endif
#if defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
