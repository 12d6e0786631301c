/* Sums of two tensors of different scales. */
#include "kernels.h"
#include "rescale.h"
#include "words.h"

#define HEAD_ROOM 20 /* bits that an input is raised by before it is rescaled */

/* One element, by the definition. */
static int8_t sum_of_two(const nas_add *add, int8_t left, int8_t right) {
    int32_t a = nas_rescale((left - add->left_zero) * (1 << HEAD_ROOM), add->left);
    int32_t b = nas_rescale((right - add->right_zero) * (1 << HEAD_ROOM), add->right);
    int8_t result = nas_requantise(a + b, add->out, add->out_zero);
    return result < add->low ? add->low : result;
}

#if defined(__ARM_FEATURE_DSP)
#define HALF (1 << 30) /* the multiplier of a factor of one half, with a shift of 0 */

/* The input of the larger scale has a factor of exactly one half, since the common scale is twice
 * that: it only has to be shifted. The other is rescaled. Both are doubled. */
typedef struct {
    int32_t small_offset, small_multiplier, small_half, small_shift;
    int32_t large_offset, out_multiplier, out_offset, out_shift;
    uint32_t low; /* four bytes */
} nas_add_words;

void NAS(add_words)(const nas_add_words *constants, const int8_t *small, const int8_t *large,
                    int8_t *y, uint32_t words);

static inline int is_half(nas_factor factor) {
    return factor.multiplier == HALF && factor.shift == 0;
}

/* Fills `k`; 0 where the fast path does not apply. */
static int prepare_words(const nas_add *add, nas_add_words *k, int swapped) {
    nas_factor small = swapped ? add->right : add->left;
    int32_t small_zero = swapped ? add->right_zero : add->left_zero;
    int32_t large_zero = swapped ? add->left_zero : add->right_zero;
    if (add->out.shift > -1 || add->out.shift < -23) {
        return 0;
    }
    if (is_half(small)) { /* one, to within what rounding takes away again, halved by the shift */
        small.multiplier = INT32_MAX;
        small.shift = -1;
    } else if (small.shift >= 0) {
        return 0;
    }
    k->small_offset = -small_zero * (1 << (HEAD_ROOM + 1));
    k->small_multiplier = small.multiplier;
    k->small_half = (int32_t)(1u << (-small.shift - 1));
    k->small_shift = -small.shift;
    k->large_offset = -large_zero * (1 << HEAD_ROOM);
    k->out_multiplier = add->out.multiplier;
    k->out_shift = -add->out.shift;
    k->out_offset = (2 * add->out_zero + 1) * (1 << (k->out_shift - 1));
    k->low = (uint8_t)add->low * 0x01010101u;
    return 1;
}

/* Whole words; returns how many elements that were. */
static uint32_t add_most(const nas_add *add, const int8_t *left, const int8_t *right, int8_t *y,
                         uint32_t size) {
    nas_add_words constants;
    int swapped = is_half(add->left);
    if (size < 4 || !(swapped || is_half(add->right)) || !prepare_words(add, &constants, swapped)) {
        return 0;
    }
    const int8_t *small = swapped ? right : left, *large = swapped ? left : right;
    NAS(add_words)(&constants, small, large, y, size / 4);
    return size / 4 * 4;
}
#endif

void NAS(add)(const nas_add *add, const int8_t *left, const int8_t *right, int8_t *y,
              uint32_t size) {
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    i = add_most(add, left, right, y, size);
#endif
    NAS_ROLLED
    for (; i < size; i++) {
        y[i] = sum_of_two(add, left[i], right[i]);
    }
}
