#include "depthwise.h"
#include "words.h"

#if defined(__ARM_FEATURE_DSP)

/* Four channels at a time are split into 16-bit lanes. A row in scratch is a sequence of pairs of
 * columns, padding included; a pair is four words, one a channel, the left column in the lower
 * half. Several output rows are computed from what is split, so that the constants of a channel are
 * read seldom; the input rows that the next ones share are moved, not split again.
 *
 * Before the rows stand four blocks, one a channel: nas_channel, then two words for each two taps
 * of a kernel row: taps (2i, 2i + 1), for outputs that start on an even column, and (2i - 1, 2i),
 * for the others; beyond the row's ends stand zeros. Taps are doubled. A shift to the left, by the
 * low byte, is marked by the sign. */

#define STRIP_BYTES 4096u /* of split rows, unless three output rows need more */

/* How a row of x becomes one of scratch: a column right of padding, groups of four columns, two
 * columns, a column left of padding. Pairs of padding alone are written once a call. */
typedef struct {
    uint32_t channels;
    uint32_t x_rest, to_rest; /* bytes from the end of what is split to the next row */
    uint32_t zeros;           /* four bytes of padding */
    uint32_t fours;
    uint32_t parts; /* the HAS_ of the others */
} nas_split;

enum { HAS_LEFT = 1, HAS_TWO = 2, HAS_RIGHT = 4, HAS_REST = 8 };

/* What is the same for all groups of channels. */
typedef struct {
    const nas_conv *conv;
    nas_split split;
    nas_channel *blocks;
    uint32_t *rows;
    uint32_t row_words;
    uint32_t before;    /* words of padding left of what is split */
    uint32_t most_rows; /* of the output, in a strip */
    uint32_t *first;    /* if one strip holds the map: the first row inside, */
    uint32_t inside;    /* and how many */
    nas_plane *plane;
} nas_work;

void NAS(depthwise_split)(const nas_split *split, const int8_t *x, uint32_t *to, uint32_t rows);

/* Where the next channel is read from. */
typedef struct {
    const uint32_t *next;      /* word of weights */
    uint32_t word, left, bits; /* the word before it, bits of it not yet read, bits of a weight */
    uint32_t height, width;    /* of a kernel */
    const int32_t *table;
    const int8_t *shifts;
    int32_t zero, odd_zero; /* z and 2 z + 1, for the output's zero point z */
} nas_reader;

void NAS(depthwise_blocks)(nas_reader *reader, nas_channel *blocks, uint32_t count);

static inline uint32_t min(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static inline uint32_t pair_of(int32_t left, int32_t right) {
    return (uint16_t)left | (uint32_t)right << 16;
}

/* `words` words of padding, a multiple of four. */
static NAS_ONCE void pad_words(const nas_conv *conv, uint32_t *to, uint32_t words) {
    uint32_t zero = pair_of(conv->in_zero, conv->in_zero);
    NAS_ROLLED
    for (; words > 0; words -= 4, to += 4) {
        to[0] = zero;
        to[1] = zero;
        to[2] = zero;
        to[3] = zero;
    }
}

/* `words` words to lower addresses, a multiple of four. */
static NAS_ONCE void move(uint32_t *to, const uint32_t *from, uint32_t words) {
    NAS_ROLLED
    for (; words > 0; words -= 4, to += 4, from += 4) {
        uint32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
}

/* depthwise_split for fewer than four channels. */
static NAS_ONCE void split_few(const nas_work *work, const int8_t *x, uint32_t *to, uint32_t rows) {
    const nas_conv *conv = work->conv;
    int32_t channels = conv->in_channels, width = conv->in_width, start = -(conv->pad_left & 1);
    NAS_ROLLED
    for (; rows > 0; rows--, x += width * channels, to += work->row_words) {
        uint32_t *pair = to;
        NAS_ROLLED
        for (int32_t column = start; column < width; column += 2, pair += 4) {
            if (pair == to + work->row_words - work->before) {
                break;
            }
            NAS_ROLLED
            for (int32_t channel = 0; channel < channels; channel++) {
                const int8_t *at = x + column * channels + channel;
                int8_t left = column >= 0 ? at[0] : conv->in_zero;
                int8_t right = column + 1 < width ? at[channels] : conv->in_zero;
                pair[channel] = pair_of(left, right);
            }
        }
    }
}

/* Splits `rows` rows of the map. */
static inline void split_inside(const nas_work *work, const int8_t *x, uint32_t *to,
                                uint32_t rows) {
    if (work->split.channels >= 4) {
        NAS(depthwise_split)(&work->split, x, to + work->before, rows);
    } else {
        split_few(work, x, to + work->before, rows);
    }
}

/* Splits the input rows from `row` to `end`; those outside the map are padding. */
static NAS_ONCE void split_rows(const nas_work *work, const int8_t *x, uint32_t *to, int32_t row,
                                int32_t end) {
    const nas_conv *conv = work->conv;
    int32_t last = end < conv->in_height ? end : conv->in_height;
    NAS_ROLLED
    for (; row < end && row < 0; row++, to += work->row_words) {
        pad_words(conv, to, work->row_words);
    }
    if (row < last) {
        const int8_t *from = x + (uint32_t)row * conv->in_width * conv->in_channels;
        split_inside(work, from, to, (uint32_t)(last - row));
        to += (uint32_t)(last - row) * work->row_words;
        row = last;
    }
    NAS_ROLLED
    for (; row < end; row++, to += work->row_words) {
        pad_words(conv, to, work->row_words);
    }
}

/* Output rows a strip has at most: odd, so that a last single row joins the strip before it. */
static uint32_t strip_rows(const nas_conv *conv, uint32_t row_bytes) {
    uint32_t fit = STRIP_BYTES / row_bytes, rows = 0;
    if (fit > conv->kernel_height) {
        rows = (fit - conv->kernel_height) / conv->stride_height + 1;
    }
    return min(conv->out_height, rows < 3 ? 3 : (rows - 1) | 1);
}

/* Moves the input rows that the next strip shares to the front. Returns their number. */
static int32_t keep_shared(const nas_work *work, int32_t split) {
    int32_t shared = work->conv->kernel_height - work->conv->stride_height;
    if (shared <= 0) {
        return 0;
    }
    const uint32_t *from = work->rows + (uint32_t)(split - shared) * work->row_words;
    move(work->rows, from, (uint32_t)shared * work->row_words);
    return shared;
}

/* Outputs of `count` channels, strip by strip. */
static NAS_ONCE void convolve_strips(const nas_work *work, const int8_t *x, int8_t *y,
                                     uint32_t skip, uint32_t count) {
    const nas_conv *conv = work->conv;
    int32_t row = -conv->pad_top, held = 0;
    uint32_t strip;
    NAS_ROLLED
    for (uint32_t left = conv->out_height; left > 0; left -= strip) {
        strip = left <= work->most_rows ? left : work->most_rows - 1;
        int32_t needed = ((int32_t)strip - 1) * conv->stride_height + conv->kernel_height;
        uint32_t *to = work->rows + (uint32_t)held * work->row_words;
        split_rows(work, x, to, row + held, row + needed);
        work->plane(work->blocks, work->rows + skip, y, strip, count, conv);
        row += (int32_t)strip * conv->stride_height;
        y += strip * conv->out_width * conv->out_channels;
        if (strip < left) {
            held = keep_shared(work, needed);
        }
    }
}

/* Outputs of `count` channels where one strip holds the map: rows of padding are already there. */
static void convolve_map(const nas_work *work, const int8_t *x, int8_t *y, uint32_t skip,
                         uint32_t count) {
    const nas_conv *conv = work->conv;
    split_inside(work, x, work->first, work->inside);
    work->plane(work->blocks, work->rows + skip, y, conv->out_height, count, conv);
}

/* Fills `work` in, and writes the columns of padding. */
static NAS_ONCE void prepare(nas_work *work, const nas_conv *conv, uint32_t *scratch) {
    uint32_t last = (conv->out_width - 1u) * conv->stride_width + conv->kernel_width;
    uint32_t pairs = nas_row_pairs(conv), needed = (last + 1) / 2;
    uint32_t before = conv->pad_left / 2u, left = conv->pad_left & 1u;
    uint32_t columns = min(conv->in_width, 2 * (needed - before) - left), many = columns - left;
    uint32_t inside = (left + columns + 1) / 2, rest = pairs - before - inside;
    uint32_t x_rest = (conv->in_width - columns) * conv->in_channels;
    work->conv = conv;
    work->split.channels = conv->in_channels;
    work->split.x_rest = x_rest;
    work->split.to_rest = 16 * (pairs - inside);
    work->split.zeros = (uint8_t)conv->in_zero * 0x01010101u;
    work->split.fours = many / 4;
    work->split.parts = (left ? HAS_LEFT : 0u) | (many & 2 ? HAS_TWO : 0u) |
                        (many & 1 ? HAS_RIGHT : 0u) | (x_rest || pairs > inside ? HAS_REST : 0u);
    work->row_words = 4 * pairs;
    work->blocks = (nas_channel *)scratch;
    work->rows = scratch + 4 * nas_block_words(conv);
    work->before = 4 * before;
    work->most_rows = strip_rows(conv, 4 * work->row_words);
    uint32_t *row = work->rows;
    uint32_t rows = (work->most_rows - 1) * conv->stride_height + conv->kernel_height;
    work->first = work->rows + conv->pad_top * work->row_words;
    work->inside = min(conv->in_height, rows - conv->pad_top);
    NAS_ROLLED
    for (uint32_t i = 0; i < rows; i++, row += work->row_words) {
        if (i < conv->pad_top || i >= conv->pad_top + work->inside) {
            pad_words(conv, row, work->row_words);
        } else if (before + rest > 0) {
            pad_words(conv, row, 4 * before);
            pad_words(conv, row + 4 * (before + inside), 4 * rest);
        }
    }
}

void NAS(depthwise_planes)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                           uint32_t bits, nas_plane *plane) {
    uint32_t channels = conv->in_channels;
    nas_reader reader = {0};
    reader.next = conv->weights;
    reader.bits = bits;
    reader.height = conv->kernel_height;
    reader.width = conv->kernel_width;
    reader.table = conv->table;
    reader.shifts = (const int8_t *)(conv->table + 2 * channels);
    reader.zero = conv->out_zero;
    reader.odd_zero = 2 * conv->out_zero + 1;
    nas_work work;
    prepare(&work, conv, scratch);
    work.plane = plane;
    NAS_ROLLED
    for (uint32_t channel = 0; channel < channels; channel += 4) {
        uint32_t count = min(4, channels - channel);
        /* The last group reads whole words too: it begins further left, and skips what is done. */
        uint32_t skip = channels < 4 ? 0 : 4 - count;
        NAS(depthwise_blocks)(&reader, work.blocks, count);
        if (work.most_rows == conv->out_height) {
            convolve_map(&work, x + channel - skip, y + channel, skip, count);
        } else {
            convolve_strips(&work, x + channel - skip, y + channel, skip, count);
        }
    }
}

#else

/* Reads packed weights one after the other. */
typedef struct {
    const uint32_t *next;
    uint32_t word, left, bits;
} reader;

static reader reader_of(const nas_conv *conv, uint32_t bits) {
    reader result = {conv->weights, 0, 0, bits};
    return result;
}

static int32_t next_tap(reader *from) {
    if (from->left == 0) {
        from->word = *from->next++;
        from->left = 32;
    }
    int32_t value = (int32_t)(from->word << (32 - from->bits)) >> (32 - from->bits);
    from->word >>= from->bits;
    from->left -= from->bits;
    return value;
}

static nas_channel channel_of(const nas_conv *conv, uint32_t channel) {
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
static int8_t output_of(int32_t doubled, const nas_channel *channel) {
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

/* Twice the accumulator of one output of one channel, by the definition. */
static int32_t window_sum(const nas_conv *conv, int32_t bias, const int8_t *x, const int16_t *taps,
                          int32_t top, int32_t left) {
    int32_t sum = bias;
    for (int32_t i = top; i < top + conv->kernel_height; i++) {
        for (int32_t j = left; j < left + conv->kernel_width; j++) {
            int inside = i >= 0 && i < conv->in_height && j >= 0 && j < conv->in_width;
            int32_t at = (i * conv->in_width + j) * conv->in_channels;
            sum += 2 * (inside ? x[at] : conv->in_zero) * *taps++;
        }
    }
    return sum;
}

void NAS(depthwise_planes)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                           uint32_t bits, nas_plane *plane) {
    (void)plane;
    int16_t *taps = scratch;
    reader weights = reader_of(conv, bits);
    for (uint32_t channel = 0; channel < conv->in_channels; channel++) {
        nas_channel constants = channel_of(conv, channel);
        for (uint32_t i = 0; i < (uint32_t)conv->kernel_height * conv->kernel_width; i++) {
            taps[i] = (int16_t)next_tap(&weights);
        }
        int8_t *to = y + channel;
        for (int32_t i = 0; i < conv->out_height; i++) {
            for (int32_t j = 0; j < conv->out_width; j++, to += conv->out_channels) {
                int32_t top = i * conv->stride_height - conv->pad_top;
                int32_t left = j * conv->stride_width - conv->pad_left;
                int32_t sum = window_sum(conv, constants.bias, x + channel, taps, top, left);
                *to = output_of(sum, &constants);
            }
        }
    }
}

#endif
