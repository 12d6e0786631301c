#include "kernels.h"
#include "rescale.h"
#include "words.h"

/* One element, by the definition. */
static int8_t product_of(const nas_mul *mul, int8_t left, int8_t right) {
    int32_t product = (left - mul->left_zero) * (right - mul->right_zero);
    return nas_requantise(product, mul->out, mul->out_zero);
}

#if defined(__ARM_FEATURE_DSP)
static inline uint32_t requantise(int32_t doubled, int32_t multiplier, int32_t offset,
                                  int32_t shift) {
    int32_t scaled = nas_multiply_add(doubled, multiplier, offset + (doubled >> 31));
    return (uint32_t)nas_saturate(scaled >> shift);
}

/* Whole words; returns how many elements that were. Zero points are taken off in 16-bit lanes. */
static uint32_t multiply_words(const nas_mul *mul, const int8_t *left, const int8_t *right,
                               int8_t *y, uint32_t size) {
    int32_t shift = -mul->out.shift, multiplier = mul->out.multiplier;
    if (shift < 1 || shift > 23) {
        return 0;
    }
    int32_t offset = (2 * mul->out_zero + 1) * (1 << (shift - 1));
    uint32_t left_zero = (uint32_t)(uint16_t)-mul->left_zero * 0x10001u;
    uint32_t right_zero = (uint32_t)(uint16_t)-mul->right_zero * 0x10001u, done;
    NAS_ROLLED
    for (done = 0; done + 4 <= size; done += 4) {
        uint32_t a = nas_load(left + done), b = nas_load(right + done);
        uint32_t x = nas_add_even(left_zero, a), z = nas_add_even(right_zero, b);
        uint32_t word = requantise(2 * nas_multiply_low(x, z), multiplier, offset, shift);
        NAS_INSERT(word, requantise(2 * nas_multiply_high(x, z), multiplier, offset, shift), 2);
        x = nas_add_odd(left_zero, a);
        z = nas_add_odd(right_zero, b);
        NAS_INSERT(word, requantise(2 * nas_multiply_low(x, z), multiplier, offset, shift), 1);
        NAS_INSERT(word, requantise(2 * nas_multiply_high(x, z), multiplier, offset, shift), 3);
        nas_store(y + done, word);
    }
    return done;
}
#endif

void NAS(mul)(const nas_mul *mul, const int8_t *left, const int8_t *right, int8_t *y,
              uint32_t size) {
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    i = multiply_words(mul, left, right, y, size);
#endif
    NAS_ROLLED
    for (; i < size; i++) {
        y[i] = product_of(mul, left[i], right[i]);
    }
}
