/* The driver of layers with four or more output positions. */
#include "conv.h"

/* Room for padded rows; a map whose windows span more is read where it is. */
enum { PADDED_BYTES = 512 };

/* Chooses what windows are read from: the map as one row (1x1), the map as it is, or padded copies
 * of some of its rows. Returns how many rows are copied at a time, 0 for none. */
static int32_t choose_rows(nas_reader *reader, int32_t *height, int32_t *width)
{
    const nas_conv *conv = reader->conv;
    int32_t kernel = conv->kernel_height, left = conv->pad_left, top = conv->pad_top;
    int32_t padded = (*width - 1) * (int32_t)reader->tile.spacing + reader->row;
    int32_t rows = (*height - 1) * conv->stride_height + kernel;
    if (kernel * conv->kernel_width * conv->stride_height * conv->stride_width == 1 &&
        left + top == 0 && conv->in_width == *width) {
        reader->stride *= reader->height;
        reader->height = 1;
        *width *= *height;
        *height = 1;
        return 0;
    }
    if (padded * kernel > PADDED_BYTES ||
        (left + top == 0 && padded <= reader->stride && rows <= reader->height))
        return 0;
    if (rows > PADDED_BYTES / padded)
        rows = PADDED_BYTES / padded;
    reader->x = reader->edge;
    reader->stride = padded;
    reader->height = rows;
    reader->tile.skip = padded - reader->row;
    return rows;
}

/* Tiles one after the other, all of whose windows are inside; the first one's at x. */
static void whole_tiles(const nas_reader *reader, const int8_t *x, int8_t *y, int32_t tiles,
                        nas_product *gemm)
{
    const nas_conv *conv = reader->conv;
    for (; tiles > 0; tiles--) {
        NAS(gather)(&reader->tile, x, conv->kernel_height);
        gemm(conv, reader->lanes, y, reader->pairs);
        x += 4 * reader->tile.spacing;
        y += 4 * (uint32_t)conv->out_channels;
    }
}

void NAS(convolve)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                   nas_product *gemm, nas_product *dot)
{
    nas_reader reader;
    NAS(start_reader)(&reader, conv, x, scratch, 4);
    int32_t height = conv->out_height, width = conv->out_width, channels = conv->out_channels;
    int32_t remaining = height * width, top = -conv->pad_top, from = top;
    int32_t copied = choose_rows(&reader, &height, &width);
    int32_t step = (int32_t)reader.tile.spacing, last = reader.stride - reader.span;
    int32_t first = -conv->pad_left * conv->in_channels, kernel = conv->kernel_height;
    uint32_t pixel = 0;
    for (int32_t row = 0; row < height; row++) {
        int32_t start = first;
        if (copied > 0) {
            start = 0;
            if (row == 0 || from + kernel > copied) {
                NAS(copy_padded)(&reader, x, top, copied, first, reader.stride, row == 0);
                from = 0;
            }
        }
        int is_inside = from >= 0 && from + kernel <= reader.height;
        for (int32_t left = width; left > 0;) {
            int32_t pixels = 1; /* done in this round */
            if (pixel == 0 && left >= 4) {
                pixels = 4;
                if (is_inside && start >= 0 && start <= last) {
                    int32_t tiles = (last - start) / (4 * step) + 1;
                    pixels = tiles < left / 4 ? 4 * tiles : left / 4 * 4;
                    const int8_t *source = reader.x + (from * reader.stride + start);
                    whole_tiles(&reader, source, y, pixels / 4, gemm);
                } else {
                    NAS(gather_edge)(&reader, from, start);
                    gemm(conv, reader.lanes, y, reader.pairs);
                }
                y += pixels * channels;
                remaining -= pixels;
            } else if (remaining >= 4) { /* a tile that goes on in the next row */
                NAS(gather_one)(&reader, from, start, pixel, 4, NAS(widen_4));
                if (++pixel == 4) {
                    gemm(conv, reader.lanes, y, reader.pairs);
                    y += 4 * channels;
                    remaining -= 4;
                    pixel = 0;
                }
            } else {
                NAS(gather_one)(&reader, from, start, 0, 1, NAS(widen_1));
                dot(conv, reader.lanes, y, reader.pairs);
                y += channels;
            }
            start += pixels * step;
            left -= pixels;
        }
        top += conv->stride_height;
        from += conv->stride_height;
    }
}
