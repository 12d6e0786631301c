/* What the depthwise kernels share: how weights and constants are read, how rows lie in scratch. */
#ifndef NAS_DEPTHWISE_H
#define NAS_DEPTHWISE_H

#include "kernels.h"

/* Reads packed weights one after the other, the first one in the lowest bits of the first word. */
typedef struct {
    const uint32_t *next;
    uint32_t word, left, bits;
} nas_taps;

static inline nas_taps nas_taps_of(const nas_conv *conv, uint32_t bits) {
    nas_taps taps = {conv->weights, 0, 0, bits};
    return taps;
}

static inline int32_t nas_next_tap(nas_taps *taps) {
    if (taps->left == 0) {
        taps->word = *taps->next++;
        taps->left = 32;
    }
    int32_t value = (int32_t)(taps->word << (32 - taps->bits)) >> (32 - taps->bits);
    taps->word >>= taps->bits;
    taps->left -= taps->bits;
    return value;
}

/* The constants of a channel. The table holds twice the bias and the multiplier of each channel, then
 * a byte of each: its shift to the right. `offset` is what is added before that shift, or, where the
 * shift is to the left, after it. */
typedef struct {
    int32_t bias, multiplier, offset, shift;
} nas_channel;

static inline nas_channel nas_channel_of(const nas_conv *conv, uint32_t channel) {
    const int32_t *entry = conv->table + 2 * channel;
    const int8_t *shifts = (const int8_t *)(conv->table + 2 * (uint32_t)conv->out_channels);
    int32_t shift = shifts[channel], zero = conv->out_zero;
    nas_channel result = {entry[0], entry[1], zero, shift};
    if (shift > 0) {
        result.offset = (2 * zero + 1) * (1 << (shift - 1));
    }
    return result;
}

/* Twice an accumulator to an output. */
static inline int8_t nas_output(int32_t doubled, const nas_channel *channel) {
    int64_t round = (int64_t)1 << 31;
    int32_t value;
    if (channel->shift > 0) {
        value = (int32_t)(((int64_t)doubled * channel->multiplier + round) >> 32);
        value = (value + (doubled >> 31) + channel->offset) >> channel->shift;
    } else {
        int64_t raised = (int64_t)doubled * (1 << -channel->shift);
        value = (int32_t)((raised * channel->multiplier + round) >> 32) + channel->offset;
    }
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}

#endif
