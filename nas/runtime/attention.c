/* Multi-head attention, one head of one query at a time. Scores and then weights of that row live
 * in scratch, a byte a step. Softmax is TensorFlow Lite Micro's in integers; its exp is a table. */
#include "rescale.h"
#include "words.h"

enum { SUM_BITS = 12 }; /* integer bits of the sum of exponentials */

/* One head: its first channel in queries, keys, values and output. */
typedef struct {
    const nas_attention *attention;
    const int8_t *keys, *values;
    uint32_t width; /* channels of a head */
} nas_head;

/* 1 / total, for a total of (1 + f) * 2^n the 31 bits of 1 / (1 + f): Newton's method. */
static int32_t reciprocal(uint32_t total) {
    int32_t half = (int32_t)(total << __builtin_clz(total) >> 1); /* (1 + f) / 2 */
    int32_t x = 1515870810 + nas_scale(half, -1010580540);       /* 48/17 - 32/17 of it */
    NAS_ROLLED
    for (int32_t i = 0; i < 3; i++) {
        x += nas_scale(x, (1 << 29) - nas_scale(half, x)) * 4;
    }
    return x >= 1 << 30 ? INT32_MAX : 2 * x;
}

/* 127 - score of every step; returns the least, that of the largest score. */
static uint32_t score_row(const nas_head *head, const int8_t *query, uint8_t *row) {
    const nas_attention *attention = head->attention;
    const int8_t *key = head->keys;
    uint32_t least = 255;
    for (uint32_t step = 0; step < attention->steps; step++, key += attention->width) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < head->width; i++) {
            sum += query[i] * key[i];
        }
        row[step] = (uint8_t)(127 - nas_requantise(sum, attention->score, 0));
        least = row[step] < least ? row[step] : least;
    }
    return least;
}

/* Scores become weights of 0 to 255, of which 256 would be one. */
static void weigh_row(const nas_attention *attention, uint8_t *row, uint32_t least) {
    const int32_t *powers = attention->exponentials;
    uint32_t total = 0;
    for (uint32_t step = 0; step < attention->steps; step++) {
        total += (uint32_t)(powers[row[step] - least] + (1 << (SUM_BITS - 1))) >> SUM_BITS;
    }
    int32_t factor = reciprocal(total);
    int32_t shift = SUM_BITS - __builtin_clz(total) + 23;
    for (uint32_t step = 0; step < attention->steps; step++) {
        uint32_t share = (uint32_t)nas_scale(powers[row[step] - least], factor);
        share = shift > 31 ? 0 : (share + (1u << (shift - 1))) >> shift;
        row[step] = (uint8_t)(share > 255 ? 255 : share);
    }
}

/* The weighted sum of all values. */
static void mix_row(const nas_head *head, const uint8_t *row, int8_t *y) {
    const nas_attention *attention = head->attention;
    for (uint32_t i = 0; i < head->width; i++) {
        const int8_t *value = head->values + i;
        int32_t sum = 0;
        for (uint32_t step = 0; step < attention->steps; step++, value += attention->width) {
            sum += row[step] * *value;
        }
        y[i] = nas_requantise(sum, attention->out, attention->out_zero);
    }
}

/* y may be q: what a row of a head reads of q, it has read before it writes there. */
void NAS(attention)(const nas_attention *attention, const int8_t *q, const int8_t *k,
                    const int8_t *v, int8_t *y, void *scratch) {
    nas_head head = {attention, k, v, (uint32_t)attention->width / attention->heads};
    uint8_t *row = scratch;
    for (uint32_t query = attention->queries; query > 0; query--) {
        head.keys = k;
        head.values = v;
        for (uint32_t i = attention->heads; i > 0; i--) {
            weigh_row(attention, row, score_row(&head, q, row));
            mix_row(&head, row, y);
            head.keys += head.width;
            head.values += head.width;
            q += head.width;
            y += head.width;
        }
    }
}
