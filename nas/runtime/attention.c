/* Multi-head attention, one head of one query at a time. Scores and then weights of that row live
 * in scratch, a byte a step. Softmax is TensorFlow Lite Micro's in integers; its exp is a table. */
#include "rescale.h"
#include "words.h"

enum { SUM_BITS = 12 }; /* integer bits of the sum of exponentials */

/* One head: its first channel in keys and values. */
typedef struct {
    const nas_attention *attention;
    const int8_t *keys, *values;
    uint32_t width; /* channels of a head */
} nas_head;

/* 1 / total, for a total of (1 + f) * 2^n the 31 bits of 1 / (1 + f): Newton's method. */
static NAS_ONCE int32_t reciprocal(uint32_t total) {
    int32_t half = (int32_t)(total << __builtin_clz(total) >> 1); /* (1 + f) / 2 */
    int32_t x = 1515870810 + nas_scale(half, -1010580540);        /* 48/17 - 32/17 of it */
    NAS_ROLLED
    for (int32_t i = 0; i < 3; i++) {
        x += nas_scale(x, (1 << 29) - nas_scale(half, x)) * 4;
    }
    return x >= 1 << 30 ? INT32_MAX : 2 * x;
}

/* Bits by which an exponential times the reciprocal of `total` is shifted to a weight. */
static int32_t weight_shift(uint32_t total) {
    return SUM_BITS - __builtin_clz(total) + 23;
}

/* 127 - score of every step; returns the least, that of the largest score. */
static NAS_ONCE uint32_t score_row(const nas_head *head, const int8_t *query, uint8_t *row) {
    const nas_attention *attention = head->attention;
    const int8_t *key = head->keys;
    uint32_t least = 255;
    NAS_ROLLED
    for (uint32_t step = 0; step < attention->steps; step++, key += attention->width) {
        int32_t sum = 0;
        NAS_ROLLED
        for (uint32_t i = 0; i < head->width; i++) {
            sum += query[i] * key[i];
        }
        row[step] = (uint8_t)(127 - nas_requantise(sum, attention->score, 0));
        least = row[step] < least ? row[step] : least;
    }
    return least;
}

/* Scores become weights of 0 to 255, of which 256 would be one. */
static NAS_ONCE void weigh_row(const nas_attention *attention, uint8_t *row, uint32_t least) {
    const int32_t *powers = attention->exponentials;
    uint32_t total = 0;
    NAS_ROLLED
    for (uint32_t step = 0; step < attention->steps; step++) {
        total += ((uint32_t)powers[row[step] - least] + (1u << (SUM_BITS - 1))) >> SUM_BITS;
    }
    int32_t factor = reciprocal(total), shift = weight_shift(total);
    NAS_ROLLED
    for (uint32_t step = 0; step < attention->steps; step++) {
        uint32_t share = (uint32_t)nas_scale(powers[row[step] - least], factor);
        share = shift > 31 ? 0 : (share + (1u << (shift - 1))) >> shift;
        row[step] = (uint8_t)(share > 255 ? 255 : share);
    }
}

/* The weighted sum of all values. */
static NAS_ONCE void mix_row(const nas_head *head, const uint8_t *row, int8_t *y) {
    const nas_attention *attention = head->attention;
    NAS_ROLLED
    for (uint32_t i = 0; i < head->width; i++) {
        const int8_t *value = head->values + i;
        int32_t sum = 0;
        NAS_ROLLED
        for (uint32_t step = 0; step < attention->steps; step++, value += attention->width) {
            sum += row[step] * *value;
        }
        y[i] = nas_requantise(sum, attention->out, attention->out_zero);
    }
}

#if defined(__ARM_FEATURE_DSP)
enum { MOST_WORDS = 16, BLOCK_ROWS = 4 }; /* of a head that has a fast path; rows side by side */

/* attention_rows.S has the offsets. */
typedef struct {
    uint32_t stride; /* bytes from step to step */
    const uint32_t *lanes, *lanes_end; /* the doubled query: bytes 0 and 2, 1 and 3 of each word */
    int32_t multiplier, offset, shift;
} nas_scoring;

typedef struct {
    uint32_t factor; /* the reciprocal, doubled */
    uint32_t half, shift;
} nas_sharing;

typedef struct {
    uint32_t stride;
    uint32_t fours;       /* steps that are whole groups of four, and bytes of a row of them */
    uint32_t tail_mask;   /* the weights that are left, in a word of the last four; 0 for none */
    uint32_t tail_row;    /* the last four weights */
    uint32_t tail_offset; /* and their values */
    int32_t multiplier, offset, shift;
} nas_mixing;

/* All that the fast path keeps for one call. */
typedef struct {
    nas_scoring scoring;
    nas_mixing mixing;
    uint32_t words; /* of a head */
    uint32_t lanes[2 * MOST_WORDS];
} nas_rows;

uint32_t NAS(score_steps)(const nas_scoring *scoring, const int8_t *key, uint8_t *row,
                          const uint8_t *end);
uint32_t NAS(sum_powers)(const int32_t *powers, const uint8_t *row, const uint8_t *end);
void NAS(share_powers)(const int32_t *powers, uint8_t *row, const uint8_t *end,
                       const nas_sharing *sharing);
uint32_t NAS(mix_steps)(const nas_mixing *mixing, const int8_t *value, const uint8_t *row);

static inline int is_fast(nas_factor factor) {
    return factor.shift < 0 && factor.shift >= -23;
}

/* Fills `rows`; 0 where the fast path does not apply. */
static int prepare_rows(const nas_attention *attention, uint32_t width, nas_rows *rows) {
    uint32_t steps = attention->steps, rest = steps % 4;
    rows->words = (width + 3) / 4;
    if (!is_fast(attention->score) || !is_fast(attention->out) || steps < 4 ||
        4 * rows->words > attention->width || rows->words > MOST_WORDS) {
        return 0;
    }
    int32_t score = -attention->score.shift, out = -attention->out.shift;
    rows->scoring = (nas_scoring){
        attention->width, rows->lanes, rows->lanes + 2 * rows->words,
        attention->score.multiplier, 1 << (score - 1), score,
    };
    rows->mixing = (nas_mixing){
        attention->width, steps - rest, rest == 0 ? 0 : ~0u << 8 * (4 - rest),
        steps - 4, (steps - 4) * attention->width,
        attention->out.multiplier, (2 * attention->out_zero + 1) * (1 << (out - 1)), out,
    };
    return 1;
}

/* Widens the words of a query from its head's first on, without the bytes in front of `from` and
 * those from `to` on, which belong to other heads. */
static void widen_query(nas_rows *rows, const int8_t *query, uint32_t from, uint32_t to) {
    uint32_t *lanes = rows->lanes, before = 8 * from;
    NAS_ROLLED
    for (uint32_t at = 0; at < 4 * rows->words; at += 4, lanes += 2, before = 0) {
        uint32_t word = nas_load(query + at) >> before << before;
        if (at + 4 > to) {
            uint32_t beyond = 8 * (at + 4 - to);
            word = word << beyond >> beyond;
        }
        lanes[0] = nas_add_even(nas_add_even(0, word), word);
        lanes[1] = nas_add_odd(nas_add_odd(0, word), word);
    }
}

/* The least of four bytes and `least`. */
static uint32_t least_byte(uint32_t word, uint32_t least) {
    NAS_ROLLED
    for (uint32_t i = 0; i < 4; i++, word >>= 8) {
        least = (uint8_t)word < least ? (uint8_t)word : least;
    }
    return least;
}

/* score_row with the row filled up to words by the least score that there is. */
static uint32_t score_words(const nas_rows *rows, uint32_t steps, const int8_t *key,
                            uint8_t *row) {
    uint8_t *end = row + (steps & ~3u);
    uint32_t least = least_byte(NAS(score_steps)(&rows->scoring, key, row, end), 255);
    if (steps % 4 > 0) {
        key += (steps - 4) * rows->scoring.stride;
        end = row + steps;
        least = least_byte(NAS(score_steps)(&rows->scoring, key, end - 4, end), least);
        for (uint32_t i = steps; i % 4 > 0; i++) {
            row[i] = 255;
        }
    }
    return least;
}

static void weigh_words(const nas_attention *attention, uint8_t *row, uint32_t least) {
    const int32_t *powers = attention->exponentials - least;
    uint32_t padding = -(uint32_t)attention->steps % 4;
    const uint8_t *end = row + attention->steps + padding;
    uint32_t total = NAS(sum_powers)(powers, row, end);
    total -= padding * (((uint32_t)powers[255] + (1u << (SUM_BITS - 1))) >> SUM_BITS);
    nas_sharing sharing = {2u * (uint32_t)reciprocal(total), 0, (uint32_t)weight_shift(total)};
    if (sharing.shift < 32) { /* or else all weights are 0, as 32 zeros are shifted in */
        sharing.half = 1u << (sharing.shift - 1);
    }
    NAS(share_powers)(powers, row, end, &sharing);
}

/* The output of one head: `before` channels in front of it are in its first word, too. */
static void mix_words(const nas_rows *rows, const int8_t *value, const uint8_t *row, int8_t *y,
                      uint32_t width, uint32_t before) {
    if (width < 4) {
        uint32_t word = NAS(mix_steps)(&rows->mixing, value - before, row) >> 8 * before;
        NAS_ROLLED
        for (uint32_t i = 0; i < width; i++, word >>= 8) {
            y[i] = (int8_t)word;
        }
        return;
    }
    NAS_ROLLED
    for (uint32_t at = 0; at < width; at += 4) {
        at = at + 4 > width ? width - 4 : at; /* the last word again has some of the one before */
        nas_store(y + at, NAS(mix_steps)(&rows->mixing, value + at, row));
    }
}

/* One head of `count` queries, `at` channels behind the first. One loop after the other has all of
 * them, so that an instruction cache of 1 KB reads each from Flash once. */
static void attend(const nas_head *head, nas_rows *rows, const int8_t *query, int8_t *y,
                   uint8_t *row, uint32_t at, uint32_t count) {
    const nas_attention *attention = head->attention;
    uint32_t words = 4 * rows->words, room = attention->width - at, steps = attention->steps;
    uint32_t before = room < words ? words - room : 0, row_bytes = steps + -steps % 4;
    uint32_t least[BLOCK_ROWS];
    NAS_ROLLED
    for (uint32_t i = 0; i < count; i++) {
        widen_query(rows, query + i * attention->width - before, before, before + head->width);
        least[i] = score_words(rows, steps, head->keys - before, row + i * row_bytes);
    }
    NAS_ROLLED
    for (uint32_t i = 0; i < count; i++) {
        weigh_words(attention, row + i * row_bytes, least[i]);
    }
    NAS_ROLLED
    for (uint32_t i = 0; i < count; i++) {
        int8_t *out = y + i * attention->width;
        mix_words(rows, head->values, row + i * row_bytes, out, head->width, before);
    }
}
#endif

/* y may be q: what rows of a head read of q, they have read before they write there. */
void NAS(attention)(const nas_attention *attention, const int8_t *q, const int8_t *k,
                    const int8_t *v, int8_t *y, void *scratch) {
    uint32_t width = (uint32_t)attention->width / attention->heads, count = 1;
    nas_head head = {attention, k, v, width};
#if defined(__ARM_FEATURE_DSP)
    nas_rows rows;
    int fast = prepare_rows(attention, width, &rows);
#endif
    NAS_ROLLED
    for (uint32_t left = attention->queries; left > 0; left -= count) {
#if defined(__ARM_FEATURE_DSP)
        count = !fast ? 1 : left < BLOCK_ROWS ? left : BLOCK_ROWS;
#endif
        NAS_ROLLED
        for (uint32_t at = 0; at < attention->width; at += width) {
            head.keys = k + at;
            head.values = v + at;
#if defined(__ARM_FEATURE_DSP)
            if (fast) {
                attend(&head, &rows, q + at, y + at, scratch, at, count);
                continue;
            }
#endif
            weigh_row(attention, scratch, score_row(&head, q + at, scratch));
            mix_row(&head, scratch, y + at);
        }
        q += count * attention->width;
        y += count * attention->width;
    }
}
