/* What gemm_4.inc and dot_4.inc compute, on any machine, from the same packed weights. */
#include "portable_group.h"

#if !defined(__ARM_FEATURE_DSP)

/* The signed digit of 4 bits at the bottom of `word`. */
static int32_t digit(uint32_t word)
{
    return (int32_t)((word & 15u) ^ 8u) - 8;
}

/* Adds one input times the weights of four channels. */
static void add_products_4(int32_t *sums, uint32_t weights, int32_t value)
{
    for (uint32_t channel = 0; channel < 4; channel++) {
        int32_t weight = digit(weights);
        sums[channel] += weight * value;
        weights = (weights - (uint32_t)weight) >> 4;
    }
}

/* A group of `count` channels of one pixel whose words are `stride` apart. */
static void group_4(const nas_conv *conv, uint32_t group, const uint32_t *x, uint32_t stride,
                    uint32_t pairs, int8_t *y, uint32_t count)
{
    const uint32_t *weights = conv->weights + (size_t)group * pairs;
    int32_t sums[4] = {0, 0, 0, 0};
    for (uint32_t k = 0; k < pairs; k++) {
        add_products_4(sums, weights[k], nas_low_16(x[k * stride]));
        add_products_4(sums, weights[k] >> 16, nas_low_16(x[k * stride] >> 16));
    }
    nas_rescale_group(conv, group, sums, y, count);
}

/* `pixels` pixels, whose words are interleaved, times all channels. */
static void product_4(const nas_conv *conv, const uint32_t *x, uint32_t pixels, int8_t *y,
                      uint32_t pairs)
{
    uint32_t channels = conv->out_channels;
    for (uint32_t pixel = 0; pixel < pixels; pixel++)
        for (uint32_t channel = 0; channel < channels; channel += 4)
            group_4(conv, channel / 4, x + pixel, pixels, pairs,
                    y + (size_t)pixel * channels + channel, channels - channel);
}

void NAS(gemm_4)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_4(conv, x, 4, y, pairs);
}

void NAS(gemm_4_wide)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_4(conv, x, 4, y, pairs);
}

void NAS(dot_4)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_4(conv, x, 1, y, pairs);
}

void NAS(dot_4_wide)(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs)
{
    product_4(conv, x, 1, y, pairs);
}

#endif

/* Keeps a translation unit that has nothing else from being empty. */
typedef int nas_portable_4;
