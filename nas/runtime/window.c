/* Windows of a map, gathered as conv.h says. */
#include "conv.h"

#include <stddef.h>

#include "words.h"

#if defined(__ARM_FEATURE_DSP)
/* requantise.inc has these offsets as numbers. */
typedef char nas_conv_offsets[offsetof(nas_conv, table) == 4 ? 1 : -1];
typedef char nas_conv_more_offsets[offsetof(nas_conv, out_channels) == 18 ? 1 : -1];
typedef char nas_conv_last_offset[offsetof(nas_conv, out_zero) == 27 ? 1 : -1];
#endif

void NAS(start_reader)(nas_reader *reader, const nas_conv *conv, const int8_t *x, void *scratch,
                       uint32_t pixels)
{
    int32_t spacing = conv->stride_width * conv->in_channels;
    reader->conv = conv;
    reader->x = x;
    reader->height = conv->in_height;
    reader->stride = conv->in_width * conv->in_channels;
    reader->row = conv->kernel_width * conv->in_channels;
    reader->span = reader->row + 3 * spacing;
    reader->lanes = scratch;
    reader->pairs = ((uint32_t)reader->row * conv->kernel_height + 1) / 2;
    if (reader->row * conv->kernel_height % 2 != 0) /* the lane that nothing is gathered into */
        for (uint32_t pixel = 0; pixel < pixels; pixel++)
            reader->lanes[pixels * (reader->pairs - 1) + pixel] = 0;
    reader->edge = (int8_t *)(reader->lanes + pixels * reader->pairs);
    reader->tile.words = (uint32_t)reader->row / 4;
    reader->tile.left_over = (uint32_t)reader->row % 4;
    reader->tile.skip = reader->stride - reader->row;
    reader->tile.lanes = reader->lanes;
    reader->tile.rest_done = 0;
    reader->tile.rest = reader->lanes + 8 * reader->tile.words * conv->kernel_height;
    reader->tile.spacing = (uint32_t)spacing;
}

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

void NAS(gather_edge)(const nas_reader *reader, int32_t top, int32_t start)
{
    nas_tile tile = reader->tile;
    for (uint32_t rows = reader->conv->kernel_height; rows > 0; rows--, top++) {
        NAS(copy_padded)(reader, reader->x, top, 1, start, reader->span, 1);
        NAS(gather)(&tile, reader->edge, 1);
        tile.lanes += 8 * tile.words;
        tile.rest_done += tile.left_over;
    }
}

void NAS(gather_one)(const nas_reader *reader, int32_t top, int32_t start, uint32_t pixel,
                     uint32_t pixels, nas_widen *widen_row)
{
    uint32_t whole = reader->tile.words, row_bytes = (uint32_t)reader->row, done = 0;
    uint32_t rows = reader->conv->kernel_height;
    int32_t last = reader->stride - reader->row;
    uint32_t *lanes = reader->lanes + pixel, *rest = lanes + whole * 2 * rows * pixels;
    for (; rows > 0; rows--, top++) {
        const int8_t *row = reader->edge;
        if (top >= 0 && top < reader->height && start >= 0 && start <= last)
            row = reader->x + (top * reader->stride + start);
        else
            NAS(copy_padded)(reader, reader->x, top, 1, start, reader->row, 1);
        lanes = widen_row(lanes, row, whole);
        for (uint32_t i = 4 * whole; i < row_bytes; i++) {
            nas_put_lane(rest, done++, pixels, row[i]);
            NAS_NO_CALL();
        }
    }
}
