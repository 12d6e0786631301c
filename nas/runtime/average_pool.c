#include "kernels.h"
#include "words.h"

/* sum / count, half away from zero. */
static inline int8_t mean(int32_t sum, uint32_t count) {
    uint32_t magnitude = sum < 0 ? (uint32_t)-sum : (uint32_t)sum;
    int32_t rounded = (int32_t)((magnitude + count / 2) / count);
    return (int8_t)(sum < 0 ? -rounded : rounded);
}

/* The sum of one channel over the window that starts at x. */
static int32_t sum_of(const nas_pool *pool, const int8_t *x) {
    int32_t sum = 0;
    NAS_ROLLED
    for (uint32_t i = 0; i < pool->kernel_height; i++) {
        const int8_t *at = x + i * pool->in_width * pool->channels;
        NAS_ROLLED
        for (uint32_t j = 0; j < pool->kernel_width; j++, at += pool->channels) {
            sum += *at;
        }
    }
    return sum;
}

#if defined(__ARM_FEATURE_DSP)
#define LANE_VALUES 255u /* int8 values that a sum in a 16-bit lane holds for sure */

/* Sums of two times two channels, in 16-bit lanes. */
typedef struct {
    uint32_t even, odd;
} lanes;

/* Adds `columns` columns of four channels to `part`. */
static inline void add_columns(const nas_pool *pool, const int8_t *x, uint32_t columns,
                               lanes *part) {
    NAS_ROLLED
    for (; columns > 0; columns--, x += pool->channels) {
        uint32_t word = nas_load(x);
        part->even = nas_add_even(part->even, word);
        part->odd = nas_add_odd(part->odd, word);
    }
}

/* mean() of one lane, for 2 to LANE_VALUES values: half a count away from zero, then a division
 * that drops the rest. `inverse` is 2^31 / count, rounded up by more than nothing, so that the
 * product's upper word is that quotient for positive sums and one below it for negative ones. */
static inline uint32_t mean_of_lane(int32_t sum, int32_t half, int32_t inverse) {
    int32_t sign = sum >> 31;
    int32_t doubled = 2 * (sum + ((half ^ sign) - sign));
    return (uint32_t)(nas_multiply_top(doubled, inverse) - sign);
}

/* Means of four channels, for windows that the lanes hold. */
static inline uint32_t mean_four(const nas_pool *pool, const int8_t *x, int32_t half,
                                 int32_t inverse) {
    lanes part = {0, 0};
    NAS_ROLLED
    for (uint32_t i = pool->kernel_height; i > 0; i--) {
        add_columns(pool, x, pool->kernel_width, &part);
        x += (uint32_t)pool->in_width * pool->channels;
    }
    uint32_t word = mean_of_lane((int16_t)part.even, half, inverse);
    NAS_INSERT(word, mean_of_lane((int16_t)part.odd, half, inverse), 1);
    NAS_INSERT(word, mean_of_lane((int32_t)part.even >> 16, half, inverse), 2);
    NAS_INSERT(word, mean_of_lane((int32_t)part.odd >> 16, half, inverse), 3);
    return word;
}

/* The same for any window: the lanes are emptied before they overflow. */
static NAS_ONCE void mean_four_large(const nas_pool *pool, const int8_t *x, int8_t *y,
                                     uint32_t count) {
    int32_t sums[4] = {0, 0, 0, 0};
    NAS_ROLLED
    for (uint32_t i = pool->kernel_height; i > 0; i--) {
        const int8_t *at = x;
        uint32_t run;
        NAS_ROLLED
        for (uint32_t left = pool->kernel_width; left > 0; left -= run) {
            lanes part = {0, 0};
            run = left < LANE_VALUES ? left : LANE_VALUES;
            add_columns(pool, at, run, &part);
            at += run * pool->channels;
            sums[0] += (int16_t)part.even;
            sums[1] += (int16_t)part.odd;
            sums[2] += (int32_t)part.even >> 16;
            sums[3] += (int32_t)part.odd >> 16;
        }
        x += (uint32_t)pool->in_width * pool->channels;
    }
    NAS_ROLLED
    for (uint32_t k = 0; k < 4; k++) {
        y[k] = mean(sums[k], count);
    }
}
#endif

/* In raster order, so that y may be x: what is written has been read by all windows before. */
void NAS(average_pool)(const nas_pool *pool, const int8_t *x, int8_t *y) {
    uint32_t channels = pool->channels;
    uint32_t count = (uint32_t)pool->kernel_height * pool->kernel_width;
#if defined(__ARM_FEATURE_DSP)
    int32_t half = (int32_t)(count / 2), inverse = (int32_t)((1u << 31) / count + 1);
#endif
    NAS_ROLLED
    for (uint32_t row = 0; row < pool->out_height; row++) {
        const int8_t *window = x + row * pool->stride_height * pool->in_width * channels;
        NAS_ROLLED
        for (uint32_t column = 0; column < pool->out_width; column++) {
            uint32_t channel = 0;
#if defined(__ARM_FEATURE_DSP)
            NAS_ROLLED
            for (; channel + 4 <= channels; channel += 4) {
                if (count >= 2 && count <= LANE_VALUES) {
                    nas_store(y + channel, mean_four(pool, window + channel, half, inverse));
                } else {
                    mean_four_large(pool, window + channel, y + channel, count);
                }
            }
#endif
            NAS_ROLLED
            for (; channel < channels; channel++) {
                y[channel] = mean(sum_of(pool, window + channel), count);
            }
            window += pool->stride_width * channels;
            y += channels;
        }
    }
}
