/* Copies rows of a map with what surrounds it. In a file of its own so that it stays a function: it
 * runs at borders only, and inlined it would be there several times. */
#include "conv.h"

/* How many of `count` places from `start` lie before `end`. */
static int32_t up_to(int32_t start, int32_t count, int32_t end)
{
    int32_t inside = end - start;
    return inside < 0 ? 0 : inside < count ? inside : count;
}

void NAS(copy_padded)(const nas_reader *reader, const int8_t *x, int32_t top, int32_t rows,
                      int32_t start, int32_t bytes, int fill)
{
    const nas_conv *conv = reader->conv;
    int8_t *edge = reader->edge;
    int32_t stride = conv->in_width * conv->in_channels;
    int32_t above = up_to(top, rows, 0), end = up_to(top, rows, conv->in_height);
    int32_t before = up_to(start, bytes, 0), inside = up_to(start, bytes, stride) - before;
    if (fill) {
        NAS(fill)(edge, conv->in_zero, (uint32_t)(rows * bytes));
    } else {
        NAS(fill)(edge, conv->in_zero, (uint32_t)(above * bytes));
        NAS(fill)(edge + end * bytes, conv->in_zero, (uint32_t)((rows - end) * bytes));
    }
    if (inside > 0 && end > above)
        NAS(copy_rows)(x + ((top + above) * stride + start + before), (uint32_t)stride,
                       edge + above * bytes + before, (uint32_t)bytes, (uint32_t)inside,
                       (uint32_t)(end - above));
}
