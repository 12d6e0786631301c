#include "kernels.h"
#include "words.h"

/* The largest value of one channel in the window that starts at x. */
static int8_t largest(const nas_pool *pool, const int8_t *x) {
    int8_t best = -128;
    NAS_ROLLED
    for (uint32_t i = 0; i < pool->kernel_height; i++) {
        const int8_t *at = x + i * pool->in_width * pool->channels;
        NAS_ROLLED
        for (uint32_t j = 0; j < pool->kernel_width; j++, at += pool->channels) {
            best = *at > best ? *at : best;
        }
    }
    return best;
}

#if defined(__ARM_FEATURE_DSP)
/* The same for four channels. */
static inline uint32_t largest_four(const nas_pool *pool, const int8_t *x) {
    uint32_t row_bytes = (uint32_t)pool->in_width * pool->channels, best = 0x80808080u;
    NAS_ROLLED
    for (uint32_t i = pool->kernel_height; i > 0; i--, x += row_bytes) {
        const int8_t *at = x;
        NAS_ROLLED
        for (uint32_t j = pool->kernel_width; j > 0; j--, at += pool->channels) {
            best = nas_max4(best, nas_load(at));
        }
    }
    return best;
}
#endif

/* In raster order, so that y may be x: what is written has been read by all windows before. */
void NAS(max_pool)(const nas_pool *pool, const int8_t *x, int8_t *y) {
    uint32_t channels = pool->channels;
    NAS_ROLLED
    for (uint32_t row = 0; row < pool->out_height; row++) {
        const int8_t *window = x + row * pool->stride_height * pool->in_width * channels;
        NAS_ROLLED
        for (uint32_t column = 0; column < pool->out_width; column++) {
            uint32_t channel = 0;
#if defined(__ARM_FEATURE_DSP)
            NAS_ROLLED
            for (; channel + 4 <= channels; channel += 4) {
                nas_store(y + channel, largest_four(pool, window + channel));
            }
#endif
            NAS_ROLLED
            for (; channel < channels; channel++) {
                y[channel] = largest(pool, window + channel);
            }
            window += pool->stride_width * channels;
            y += channels;
        }
    }
}
