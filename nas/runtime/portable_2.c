/* What gemm_2.inc and dot_2.S compute, on any machine, from the same packed weights. */
#include "portable_group.h"

#if !defined(__ARM_FEATURE_DSP)

/* Adds one input times the weights of two channels: of `weights`, w0 + 1 at bit 0, w1 at bit 14. */
static void add_products_2(int32_t *sums, uint32_t weights, int32_t value)
{
    sums[0] += ((int32_t)(weights & 3u) - 1) * value;
    sums[1] += ((int32_t)((weights >> 14 & 3u) ^ 2u) - 2) * value;
}

/* `word`, rotated to the right. */
static uint32_t rotated(uint32_t word, uint32_t turn)
{
    return turn == 0 ? word : word >> turn | word << (32 - turn);
}

/* A group of `count` channels of one pixel whose words are `stride` apart. An odd number of
 * k-pairs starts in the middle of a weight word. */
static void group_2(const nas_conv *conv, uint32_t group, const uint32_t *x, uint32_t stride,
                    uint32_t pairs, int8_t *y, uint32_t count)
{
    const uint32_t *weights = conv->weights + (size_t)group * ((pairs + 1) / 2);
    int32_t sums[4] = {0, 0, 0, 0};
    for (uint32_t k = 0; k < pairs; k++) {
        uint32_t at = k + pairs % 2;
        int32_t low = nas_low_16(x[k * stride]), high = nas_low_16(x[k * stride] >> 16);
        for (uint32_t channel = 0; channel < 4; channel += 2) {
            uint32_t halves = rotated(weights[at / 2], at % 2 * 8 + channel * 2);
            add_products_2(sums + channel, halves, low);
            add_products_2(sums + channel, halves >> 16, high);
        }
    }
    nas_rescale_group(conv, group, sums, y, count);
}

/* `pixels` pixels, whose words are interleaved, times all channels. */
static void product_2(const nas_conv *conv, const uint32_t *x, uint32_t pixels, int8_t *y,
                      uint32_t pairs)
{
    uint32_t channels = conv->out_channels;
    for (uint32_t pixel = 0; pixel < pixels; pixel++)
        for (uint32_t channel = 0; channel < channels; channel += 4)
            group_2(conv, channel / 4, x + pixel, pixels, pairs,
                    y + (size_t)pixel * channels + channel, channels - channel);
}

void NAS(gemm_2)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_2(conv, x, 4, y, pairs);
}

void NAS(gemm_2_wide)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_2(conv, x, 4, y, pairs);
}

void NAS(dot_2)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_2(conv, x, 1, y, pairs);
}

#endif

/* Keeps a translation unit that has nothing else from being empty. */
typedef int nas_portable_2;
