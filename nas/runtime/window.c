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
        for (uint32_t pixel = 1; pixel <= pixels; pixel++) {
            reader->lanes[pixels * reader->pairs - pixel] = 0;
            NAS_NO_CALL();
        }
    reader->edge = (int8_t *)(reader->lanes + pixels * reader->pairs);
    reader->tile.words = (uint32_t)reader->row / 4;
    reader->tile.left_over = (uint32_t)reader->row % 4;
    reader->tile.skip = reader->stride - reader->row;
    reader->tile.lanes = reader->lanes;
    reader->tile.rest_done = 0;
    reader->tile.rest = reader->lanes + 8 * reader->tile.words * conv->kernel_height;
    reader->tile.spacing = (uint32_t)spacing;
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
