/* What gemm_8.inc and dot_8.inc compute, on any machine, from the same packed weights. */
#include "portable.h"

#if !defined(__ARM_FEATURE_DSP)

#include "conv.h"

/* One channel pair of one pixel whose words are `stride` apart; `many`: whether it has a second
 * channel. */
static void pair_8(const nas_conv *conv, uint32_t pair, const uint32_t *x, uint32_t stride,
                   uint32_t pairs, int wide, int8_t *y, int many)
{
    const uint32_t *weights = conv->weights + (size_t)pair * pairs;
    int32_t sum_0 = 0, sum_1 = 0;
    for (uint32_t k = 0; k < pairs; k++) {
        for (uint32_t half = 0; half < 32; half += 16) {
            int32_t value = nas_low_16(x[k * stride] >> half);
            uint32_t lane = weights[k] >> half;
            int32_t low = nas_low_8(lane);
            int32_t high = wide ? nas_low_8(lane >> 8) : (nas_low_16(lane) - low) / 256;
            sum_0 += value * low;
            sum_1 += value * high;
        }
    }
    const int32_t *table = conv->table + (size_t)pair * 5;
    y[0] = nas_rescale_0(table, sum_0, conv->out_zero);
    if (many)
        y[1] = nas_rescale_1(table, sum_1, conv->out_zero);
}

/* `pixels` pixels, whose words are interleaved, times all channels. */
static void product_8(const nas_conv *conv, const uint32_t *x, uint32_t pixels, int8_t *y,
                      uint32_t pairs, int wide)
{
    uint32_t channels = conv->out_channels;
    for (uint32_t pixel = 0; pixel < pixels; pixel++)
        for (uint32_t channel = 0; channel < channels; channel += 2)
            pair_8(conv, channel / 2, x + pixel, pixels, pairs, wide,
                   y + (size_t)pixel * channels + channel, channel + 1 < channels);
}

void NAS(gemm_8)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_8(conv, x, 4, y, pairs, 0);
}

void NAS(gemm_8_wide)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_8(conv, x, 4, y, pairs, 1);
}

void NAS(dot_8)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_8(conv, x, 1, y, pairs, 0);
}

void NAS(dot_8_wide)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_8(conv, x, 1, y, pairs, 1);
}

#endif

/* Keeps a translation unit that has nothing else from being empty. */
typedef int nas_portable_8;
