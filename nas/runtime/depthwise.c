#include "depthwise.h"

/* Twice the accumulator of one output of one channel, by the definition. */
static int32_t window_sum(const nas_conv *conv, int32_t bias, const int8_t *x, const int16_t *taps,
                          int32_t top, int32_t left) {
    int32_t sum = bias;
    for (int32_t i = top; i < top + conv->kernel_height; i++) {
        for (int32_t j = left; j < left + conv->kernel_width; j++) {
            int inside = i >= 0 && i < conv->in_height && j >= 0 && j < conv->in_width;
            int32_t value = inside ? x[(i * conv->in_width + j) * conv->in_channels] : conv->in_zero;
            sum += 2 * value * *taps++;
        }
    }
    return sum;
}

static void depthwise(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch, uint32_t bits) {
    int16_t *taps = scratch;
    nas_taps reader = nas_taps_of(conv, bits);
    for (uint32_t channel = 0; channel < conv->in_channels; channel++) {
        nas_channel constants = nas_channel_of(conv, channel);
        for (uint32_t i = 0; i < (uint32_t)conv->kernel_height * conv->kernel_width; i++) {
            taps[i] = (int16_t)nas_next_tap(&reader);
        }
        int8_t *to = y + channel;
        for (int32_t i = 0; i < conv->out_height; i++) {
            for (int32_t j = 0; j < conv->out_width; j++, to += conv->out_channels) {
                int32_t top = i * conv->stride_height - conv->pad_top;
                int32_t left = j * conv->stride_width - conv->pad_left;
                int32_t sum = window_sum(conv, constants.bias, x + channel, taps, top, left);
                *to = nas_output(sum, &constants);
            }
        }
    }
}

void NAS(depthwise_8)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch) {
    depthwise(conv, x, y, scratch, 8);
}

void NAS(depthwise_4)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch) {
    depthwise(conv, x, y, scratch, 4);
}

void NAS(depthwise_2)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch) {
    depthwise(conv, x, y, scratch, 2);
}
