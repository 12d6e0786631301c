/* What widen.inc and gather.S do, on any machine. */
#include "conv.h"

#if !defined(__ARM_FEATURE_DSP)

#include <stddef.h>

/* Two inputs as lanes. */
static uint32_t lanes_of(int8_t low, int8_t high)
{
    return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

static uint32_t *widen(uint32_t *lanes, const int8_t *x, uint32_t words, uint32_t stride)
{
    for (; words > 0; words--, x += 4, lanes += 2 * stride) {
        lanes[0] = lanes_of(x[0], x[2]);
        lanes[stride] = lanes_of(x[1], x[3]);
    }
    return lanes;
}

uint32_t *NAS(widen_4)(uint32_t *lanes, const int8_t *x, uint32_t words)
{
    return widen(lanes, x, words, 4);
}

uint32_t *NAS(widen_1)(uint32_t *lanes, const int8_t *x, uint32_t words)
{
    return widen(lanes, x, words, 1);
}
void NAS(gather)(const nas_tile *tile, const int8_t *x, uint32_t rows)
{
    uint32_t *lanes = tile->lanes, done = tile->rest_done;
    for (; rows > 0; rows--) {
        for (uint32_t pixel = 0; pixel < 4; pixel++) {
            const int8_t *row = x + pixel * tile->spacing;
            widen(lanes + pixel, row, tile->words, 4);
            for (uint32_t i = 0; i < tile->left_over; i++)
                nas_put_lane(tile->rest + pixel, done + i, 4, row[4 * tile->words + i]);
        }
        lanes += 8 * tile->words;
        done += tile->left_over;
        x += (ptrdiff_t)(4 * tile->words + tile->left_over) + tile->skip;
    }
}

#endif

/* Keeps a translation unit that has nothing else from being empty. */
typedef int nas_portable_gather;
