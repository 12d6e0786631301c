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

/* How a row of x becomes one of scratch: pairs of padding, a column right of padding, groups of four
 * columns, two columns, a column left of padding, pairs of padding. */
typedef struct {
    uint32_t channels;
    uint32_t x_rest, to_rest; /* bytes from the end of a row to the next one */
    uint32_t zeros, zero;     /* padding: four bytes, two lanes */
    uint32_t fours;
    uint32_t before, after; /* pairs of padding */
    uint32_t parts;         /* which of the others there are; AFTER for rests too */
} nas_split;

enum { HAS_LEFT = 1, HAS_BEFORE = 2, HAS_TWO = 4, HAS_RIGHT = 8, HAS_AFTER = 16 };

void NAS(depthwise_split)(const nas_split *split, const int8_t *x, uint32_t *to, uint32_t rows);

uint32_t *NAS(depthwise_taps)(nas_taps *taps, uint32_t *block, uint32_t rows, uint32_t width);

static inline uint32_t min(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static inline uint32_t pair_of(int32_t left, int32_t right) {
    return (uint16_t)left | (uint32_t)right << 16;
}

static nas_split split_of(const nas_conv *conv) {
    uint32_t needed = ((conv->out_width - 1u) * conv->stride_width + conv->kernel_width + 1u) / 2;
    uint32_t before = conv->pad_left / 2u, left = conv->pad_left & 1u;
    uint32_t columns = min(conv->in_width, 2 * (needed - before) - left);
    uint32_t inside = (left + columns + 1) / 2, after = needed - before - inside;
    uint32_t many = columns - left;
    nas_split split;
    split.channels = conv->in_channels;
    split.x_rest = (conv->in_width - columns) * split.channels;
    split.to_rest = 16 * (nas_row_pairs(conv) - needed);
    split.zeros = (uint8_t)conv->in_zero * 0x01010101u;
    split.zero = pair_of(conv->in_zero, conv->in_zero);
    split.fours = many / 4;
    split.before = before;
    split.after = after;
    split.parts = (before ? HAS_BEFORE : 0u) | (left ? HAS_LEFT : 0u) | (many & 2 ? HAS_TWO : 0u) |
                  (many & 1 ? HAS_RIGHT : 0u) |
                  (after || split.x_rest || split.to_rest ? HAS_AFTER : 0u);
    return split;
}

/* depthwise_split of one row of fewer than four channels. */
static void split_few(const nas_conv *conv, const int8_t *x, uint32_t *to) {
    int32_t channels = conv->in_channels, column = -conv->pad_left;
    for (uint32_t pairs = nas_row_pairs(conv); pairs > 0; pairs--, to += 4, column += 2) {
        for (int32_t channel = 0; channel < channels; channel++) {
            const int8_t *at = x + column * channels + channel;
            int8_t left = column >= 0 && column < conv->in_width ? at[0] : conv->in_zero;
            int32_t next = column + 1;
            int8_t right = next >= 0 && next < conv->in_width ? at[channels] : conv->in_zero;
            to[channel] = pair_of(left, right);
        }
    }
}

/* `rows` rows of padding; returns their end. */
static uint32_t *fill_rows(const nas_conv *conv, uint32_t *to, int32_t rows) {
    uint32_t zero = pair_of(conv->in_zero, conv->in_zero);
    for (int32_t pairs = rows * (int32_t)nas_row_pairs(conv); pairs > 0; pairs--, to += 4) {
        to[0] = zero;
        to[1] = zero;
        to[2] = zero;
        to[3] = zero;
    }
    return to;
}

/* Splits the input rows from `row` to `end`; those outside the map are padding. */
static void split_rows(const nas_conv *conv, const nas_split *split, const int8_t *x, uint32_t *to,
                       int32_t row, int32_t end) {
    int32_t height = conv->in_height, above = (end < 0 ? end : 0) - row;
    if (above > 0) {
        to = fill_rows(conv, to, above);
        row += above;
    }
    int32_t inside = (end < height ? end : height) - row;
    if (inside > 0) {
        const int8_t *from = x + (uint32_t)row * conv->in_width * conv->in_channels;
        uint32_t row_words = 4 * nas_row_pairs(conv);
        if (conv->in_channels >= 4) {
            NAS(depthwise_split)(split, from, to, (uint32_t)inside);
            to += (uint32_t)inside * row_words;
        } else {
            for (int32_t i = 0; i < inside; i++, to += row_words) {
                split_few(conv, from, to);
                from += conv->in_width * conv->in_channels;
            }
        }
        row += inside;
    }
    fill_rows(conv, to, end - row);
}

/* Writes a channel's block; returns its end. */
static uint32_t *read_channel(const nas_conv *conv, uint32_t channel, nas_taps *taps, uint32_t *block) {
    nas_channel constants = nas_channel_of(conv, channel);
    block[0] = (uint32_t)constants.bias;
    block[1] = (uint32_t)constants.multiplier;
    block[2] = (uint32_t)constants.offset;
    block[3] = (uint32_t)(constants.shift > 0 ? constants.shift : LEFT_SHIFT - constants.shift);
    return NAS(depthwise_taps)(taps, block + 4, conv->kernel_height, conv->kernel_width);
}

/* Output rows a strip has at most: odd, so that a last single row joins the strip before it. */
static uint32_t strip_rows(const nas_conv *conv) {
    uint32_t fit = STRIP_BYTES / (16 * nas_row_pairs(conv)), rows = 0;
    if (fit > conv->kernel_height) {
        rows = (fit - conv->kernel_height) / conv->stride_height + 1;
    }
    return rows < 3 ? 3 : (rows - 1) | 1;
}

/* `words`, a multiple of four, to lower addresses. */
static void move(uint32_t *to, const uint32_t *from, uint32_t words) {
    for (; words > 0; words -= 4, to += 4, from += 4) {
        uint32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
}

/* All outputs of up to four channels, from `channel` on. */
static void convolve_group(const nas_conv *conv, const nas_split *split, const int8_t *x, int8_t *y,
                           uint32_t *blocks, uint32_t *rows, uint32_t channel, nas_plane *plane) {
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
        split_rows(conv, split, x + channel - skip, rows + held * row_words, first + (int32_t)held,
                   first + (int32_t)needed);
        for (uint32_t i = 0; i < count; i++) {
            int8_t *to = y + done * conv->out_width * channels + channel + i;
            plane((const nas_channel *)(blocks + i * block_words), rows + skip + i, to, strip, conv);
        }
        if (strip < left && height > stride) {
            held = height - stride;
            move(rows, rows + (needed - held) * row_words, held * row_words);
        }
    }
}

void NAS(depthwise_planes)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                           uint32_t bits, nas_plane *plane) {
    nas_taps taps = nas_taps_of(conv, bits);
    uint32_t block_words = 4 + 2u * conv->kernel_height * nas_tap_words(conv);
    nas_split split = split_of(conv);
    uint32_t *blocks = scratch, *rows = blocks + 4 * block_words;
    for (uint32_t channel = 0; channel < conv->in_channels; channel += 4) {
        uint32_t *block = blocks;
        for (uint32_t i = channel; i < min(channel + 4, conv->in_channels); i++) {
            block = read_channel(conv, i, &taps, block);
        }
        convolve_group(conv, &split, x, y, blocks, rows, channel, plane);
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
