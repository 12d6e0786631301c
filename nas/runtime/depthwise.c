/* Depthwise convolutions of any window, channel by channel, and which of their forms runs. */
#include "depthwise.h"

#if defined(__ARM_FEATURE_DSP)

static inline int32_t multiply_pair(uint32_t x, uint32_t taps, int32_t sum) {
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(x), "r"(taps), "r"(sum));
    return result;
}

static inline int32_t multiply_add(int32_t a, int32_t b, int32_t addend) {
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(addend));
    return result;
}

/* Twice an accumulator to an output. */
static inline int8_t requantised(int32_t sum, const nas_channel *channel) {
    int32_t value, shift = channel->shift;
    if (shift > 0) {
        value = multiply_add(sum, channel->multiplier, channel->offset + (sum >> 31)) >> shift;
    } else {
        int32_t raised = sum * (1 << (shift & 31));
        value = multiply_add(raised, channel->multiplier, channel->offset);
    }
    __asm__("ssat %0, #8, %1" : "=r"(value) : "r"(value) : "cc");
    return (int8_t)value;
}

/* One channel, any window and stride. */
static void any_channel(const nas_channel *channel, const uint32_t *x, int8_t *y, uint32_t rows,
                        const nas_conv *conv) {
    const uint32_t *taps = (const uint32_t *)(channel + 1);
    uint32_t words = nas_tap_words(conv), row_words = 4 * nas_row_pairs(conv);
    uint32_t columns = conv->out_width * (uint32_t)conv->stride_width;
    for (; rows > 0; rows--, x += conv->stride_height * row_words) {
        for (uint32_t column = 0; column < columns; column += conv->stride_width) {
            const uint32_t *pair = x + column / 2 * 4, *tap = taps + (column & 1);
            int32_t sum = channel->bias;
            for (uint32_t i = conv->kernel_height; i > 0; i--, pair += row_words - 4 * words) {
                for (uint32_t j = words; j > 0; j--, pair += 4, tap += 2) {
                    sum = multiply_pair(*pair, *tap, sum);
                }
            }
            *y = requantised(sum, channel);
            y += conv->out_channels;
        }
    }
}

/* The nas_plane for any window and stride. */
static void any_plane(const nas_channel *channel, const uint32_t *x, int8_t *y, uint32_t rows,
                      uint32_t channels, const nas_conv *conv) {
    const uint32_t *block = (const uint32_t *)channel;
    for (; channels > 0; channels--, block += nas_block_words(conv)) {
        any_channel((const nas_channel *)block, x++, y++, rows, conv);
    }
}

#endif

void NAS(depthwise_8)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch) {
    NAS(depthwise_planes)(conv, x, y, scratch, 8, NAS_PLANE(any_plane));
}

void NAS(depthwise_4)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch) {
    NAS(depthwise_planes)(conv, x, y, scratch, 4, NAS_PLANE(any_plane));
}

void NAS(depthwise_2)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch) {
    NAS(depthwise_planes)(conv, x, y, scratch, 2, NAS_PLANE(any_plane));
}
