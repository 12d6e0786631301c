#include "depthwise.h"

#if defined(__ARM_FEATURE_DSP)

/* Four channels at a time are split into 16-bit lanes. A row in scratch is a sequence of pairs of
 * columns, padding included; a pair is four words, one a channel, the left column in the lower half.
 * Several output rows are computed from what is split, so that the constants of a channel are read
 * seldom; the input rows that the next ones share are moved, not split again. What is read from x is no
 * longer needed when y is written, so y may be x where the map does not grow.
 *
 * Before the rows stand four blocks, one a channel: nas_channel, then two words for each two taps of a
 * kernel row: taps (2i, 2i + 1), for outputs that start on an even column, and (2i - 1, 2i), for the
 * others; beyond the row's ends stand zeros. Taps are doubled. */

#define STRIP_BYTES 4096u /* of split rows, unless three output rows need more */
#define LEFT_SHIFT INT32_MIN /* marks a shift to the left, by the low byte */

void NAS(depthwise_split)(const int8_t *x, uint32_t *to, uint32_t channels, uint32_t columns,
                          uint32_t zeros, uint32_t odd);

static inline uint32_t min(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static inline uint32_t pair_of(int32_t left, int32_t right) {
    return (uint16_t)left | (uint32_t)right << 16;
}

static uint32_t *fill_pairs(uint32_t *to, uint32_t pairs, uint32_t zero) {
    for (uint32_t i = 0; i < 4 * pairs; i++) {
        *to++ = zero;
    }
    return to;
}

/* depthwise_split for fewer than four channels. */
static void split_few(const int8_t *x, uint32_t *to, uint32_t channels, uint32_t columns, int8_t zero,
                      uint32_t odd) {
    for (int32_t left = -(int32_t)odd; left < (int32_t)columns; left += 2, to += 4) {
        const int8_t *at = x + left * (int32_t)channels;
        for (uint32_t channel = 0; channel < channels; channel++) {
            int8_t first = left < 0 ? zero : at[channel];
            int8_t second = left + 1 < (int32_t)columns ? at[channel + channels] : zero;
            to[channel] = pair_of(first, second);
        }
    }
}

/* Splits the input rows from `row` to `end`; those outside the map are padding. */
static void split_rows(const nas_conv *conv, const int8_t *x, uint32_t *to, int32_t row, int32_t end) {
    uint32_t pairs = nas_row_pairs(conv), zero = pair_of(conv->in_zero, conv->in_zero);
    uint32_t before = conv->pad_left / 2u, odd = conv->pad_left & 1u, channels = conv->in_channels;
    uint32_t columns = min(conv->in_width, 2 * (pairs - before) - odd);
    uint32_t inside = (odd + columns + 1) / 2;
    for (; row < end; row++) {
        if (row < 0 || row >= conv->in_height) {
            to = fill_pairs(to, pairs, zero);
            continue;
        }
        const int8_t *from = x + (uint32_t)row * conv->in_width * channels;
        to = fill_pairs(to, before, zero);
        if (channels < 4) {
            split_few(from, to, channels, columns, conv->in_zero, odd);
        } else {
            uint32_t zeros = (uint8_t)conv->in_zero * 0x01010101u;
            NAS(depthwise_split)(from, to, channels, columns, zeros, odd);
        }
        to = fill_pairs(to + 4 * inside, pairs - before - inside, zero);
    }
}

/* Writes a channel's block; returns its end. */
static uint32_t *read_channel(const nas_conv *conv, uint32_t channel, nas_taps *taps, uint32_t *block) {
    nas_channel constants = nas_channel_of(conv, channel);
    uint32_t words = nas_tap_words(conv), width = conv->kernel_width;
    *block++ = (uint32_t)constants.bias;
    *block++ = (uint32_t)constants.multiplier;
    *block++ = (uint32_t)constants.offset;
    *block++ = (uint32_t)(constants.shift > 0 ? constants.shift : LEFT_SHIFT - constants.shift);
    for (uint32_t i = 0; i < conv->kernel_height; i++) {
        int32_t before = 0;
        for (uint32_t j = 0; j < words; j++) {
            int32_t left = 2 * j < width ? 2 * nas_next_tap(taps) : 0;
            int32_t right = 2 * j + 1 < width ? 2 * nas_next_tap(taps) : 0;
            *block++ = pair_of(left, right);
            *block++ = pair_of(before, left);
            before = right;
        }
    }
    return block;
}

/* Output rows a strip has at most: odd, so that a last single row joins the strip before it. */
static uint32_t strip_rows(const nas_conv *conv) {
    uint32_t fit = STRIP_BYTES / (16 * nas_row_pairs(conv)), rows = 0;
    if (fit > conv->kernel_height) {
        rows = (fit - conv->kernel_height) / conv->stride_height + 1;
    }
    return rows < 3 ? 3 : (rows - 1) | 1;
}

/* All outputs of up to four channels, from `channel` on. */
static void convolve_group(const nas_conv *conv, const int8_t *x, int8_t *y, uint32_t *blocks,
                           uint32_t *rows, uint32_t channel, nas_plane *plane) {
    uint32_t channels = conv->in_channels, most = strip_rows(conv);
    uint32_t row_words = 4 * nas_row_pairs(conv), strip;
    uint32_t block_words = 4 + 2u * conv->kernel_height * nas_tap_words(conv);
    uint32_t stride = conv->stride_height, height = conv->kernel_height, held = 0;
    /* The last group reads whole words too: it begins further left, and skips what it need not do. */
    uint32_t skip = channels < 4 || channel + 4 <= channels ? 0 : channel + 4 - channels;
    uint32_t count = min(4, channels - channel);
    for (uint32_t done = 0; done < conv->out_height; done += strip) {
        uint32_t left = conv->out_height - done;
        strip = left <= most ? left : most - 1;
        int32_t first = (int32_t)(done * stride) - conv->pad_top;
        uint32_t needed = (strip - 1) * stride + height;
        split_rows(conv, x + channel - skip, rows + held * row_words, first + (int32_t)held,
                   first + (int32_t)needed);
        for (uint32_t i = 0; i < count; i++) {
            int8_t *to = y + done * conv->out_width * channels + channel + i;
            plane((const nas_channel *)(blocks + i * block_words), rows + skip + i, to, strip, conv);
        }
        held = height > stride ? height - stride : 0;
        const uint32_t *from = rows + (needed - held) * row_words;
        for (uint32_t i = 0; i < held * row_words; i++) {
            rows[i] = from[i];
        }
    }
}

void NAS(depthwise_planes)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                           uint32_t bits, nas_plane *plane) {
    nas_taps taps = nas_taps_of(conv, bits);
    uint32_t block_words = 4 + 2u * conv->kernel_height * nas_tap_words(conv);
    uint32_t *blocks = scratch, *rows = blocks + 4 * block_words;
    for (uint32_t channel = 0; channel < conv->in_channels; channel += 4) {
        uint32_t *block = blocks;
        for (uint32_t i = channel; i < min(channel + 4, conv->in_channels); i++) {
            block = read_channel(conv, i, &taps, block);
        }
        convolve_group(conv, x, y, blocks, rows, channel, plane);
    }
}

#else

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

void NAS(depthwise_planes)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                           uint32_t bits, nas_plane *plane) {
    (void)plane;
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

#endif
