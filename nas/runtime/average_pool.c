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
#define LANE_VALUES 255 /* int8 values that a sum in a 16-bit lane holds for sure */

/* Sums of two times two channels, in 16-bit lanes. */
typedef struct {
    uint32_t even, odd;
} lanes;

static inline void unload(lanes *part, int32_t sums[4]) {
    sums[0] += (int16_t)part->even;
    sums[1] += (int16_t)part->odd;
    sums[2] += (int32_t)part->even >> 16;
    sums[3] += (int32_t)part->odd >> 16;
    part->even = part->odd = 0;
}

/* sum_of for four channels. */
static inline void sum_four(const nas_pool *pool, const int8_t *x, int32_t sums[4]) {
    uint32_t row_bytes = (uint32_t)pool->in_width * pool->channels, room = LANE_VALUES;
    lanes part = {0, 0};
    sums[0] = sums[1] = sums[2] = sums[3] = 0;
    NAS_ROLLED
    for (uint32_t i = pool->kernel_height; i > 0; i--, x += row_bytes) {
        const int8_t *at = x;
        NAS_ROLLED
        for (uint32_t j = pool->kernel_width; j > 0; j--, at += pool->channels) {
            uint32_t word = nas_load(at);
            part.even = nas_add_even(part.even, word);
            part.odd = nas_add_odd(part.odd, word);
            if (--room == 0) {
                unload(&part, sums);
                room = LANE_VALUES;
            }
        }
    }
    unload(&part, sums);
}
#endif

/* In raster order, so that y may be x: what is written has been read by all windows before. */
void NAS(average_pool)(const nas_pool *pool, const int8_t *x, int8_t *y) {
    uint32_t channels = pool->channels, count = (uint32_t)pool->kernel_height * pool->kernel_width;
    NAS_ROLLED
    for (uint32_t row = 0; row < pool->out_height; row++) {
        const int8_t *window = x + row * pool->stride_height * pool->in_width * channels;
        NAS_ROLLED
        for (uint32_t column = 0; column < pool->out_width; column++) {
            uint32_t channel = 0;
#if defined(__ARM_FEATURE_DSP)
            NAS_ROLLED
            for (; channel + 4 <= channels; channel += 4) {
                int32_t sums[4];
                sum_four(pool, window + channel, sums);
                NAS_ROLLED
                for (uint32_t k = 0; k < 4; k++) {
                    y[channel + k] = mean(sums[k], count);
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
