/* The driver of layers with four or more output positions. */
#include "conv.h"

enum { PADDED_BYTES = 512 }; /* a small map's rows are copied with their padding, not window by window */

/* Chooses between the map as one row (1x1), padded copies of the rows that the windows of one output row span
 * (returns 1), and the map as it is. */
static int choose_rows(nas_reader *reader, int32_t *height, int32_t *width)
{
    const nas_conv *conv = reader->conv;
    int32_t kernel = conv->kernel_height, left = conv->pad_left, top = conv->pad_top;
    int32_t padded = (*width - 1) * (int32_t)reader->tile.spacing + reader->row;
    int32_t bottom = (*height - 1) * conv->stride_height + kernel - top;
    if (kernel * conv->kernel_width * conv->stride_height * conv->stride_width == 1 &&
        left + top == 0 && conv->in_width == *width) {
        reader->stride *= reader->height;
        reader->height = 1;
        *width *= *height;
        *height = 1;
        return 0;
    }
    if (padded * kernel > PADDED_BYTES ||
        (left + top == 0 && padded <= reader->stride && bottom <= reader->height))
        return 0;
    reader->x = reader->edge;
    reader->stride = padded;
    reader->height = kernel;
    reader->tile.skip = padded - reader->row;
    return 1;
}

void NAS(convolve)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                   nas_product *gemm, nas_product *dot)
{
    nas_reader reader;
    NAS(start_reader)(&reader, conv, x, scratch, 4);
    int32_t height = conv->out_height, width = conv->out_width;
    int32_t remaining = height * width, top = -conv->pad_top;
    int is_padded = choose_rows(&reader, &height, &width);
    int32_t step = (int32_t)reader.tile.spacing, last = reader.stride - reader.span;
    int32_t first = -conv->pad_left * conv->in_channels, kernel = conv->kernel_height;
    uint32_t pairs = nas_pairs(conv), pixel = 0;
    for (int32_t row = 0; row < height; row++, top += conv->stride_height) {
        int32_t start = first, from = top;
        if (is_padded) {
            NAS(copy_padded)(&reader, x, top, kernel, first, reader.stride, row == 0);
            start = from = 0;
        }
        int is_inside = from >= 0 && from + kernel <= reader.height;
        const int8_t *source = reader.x + from * reader.stride;
        for (int32_t left = width; left > 0;) {
            if (pixel == 0 && left >= 4) {
                reader.tile.lanes = reader.lanes;
                reader.tile.rest_done = 0;
                if (is_inside && start >= 0 && start <= last)
                    NAS(gather)(&reader.tile, source + start, (uint32_t)kernel);
                else
                    NAS(gather_edge)(&reader, from, start);
                start += 4 * step;
                left -= 4;
            } else if (remaining >= 4) { /* a tile that goes on in the next row */
                NAS(gather_one)(&reader, from, start, pixel, 4, NAS(widen_4));
                start += step;
                left--;
                if (++pixel < 4)
                    continue;
                pixel = 0;
            } else {
                NAS(gather_one)(&reader, from, start, 0, 1, NAS(widen_1));
                dot(conv, reader.lanes, y, pairs);
                y += conv->out_channels;
                start += step;
                left--;
                continue;
            }
            gemm(conv, reader.lanes, y, pairs);
            y += 4 * (int32_t)conv->out_channels;
            remaining -= 4;
        }
    }
}
