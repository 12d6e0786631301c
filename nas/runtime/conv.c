/* The drivers of convolutions: gather the windows of output pixels as conv.h says, call the product. */
#include "conv.h"

#include <stddef.h>

#if defined(__ARM_FEATURE_DSP)
/* requantise.inc has these offsets as numbers. */
typedef char nas_conv_layout[(offsetof(nas_conv, table) == 4 && offsetof(nas_conv, out_channels) == 18 &&
                              offsetof(nas_conv, out_zero) == 27)
                                 ? 1
                                 : -1];
#endif

/* Puts left over input number `at` of one pixel into its lane; `rest` is that pixel's first k-pair. */
static void put_lane(uint32_t *rest, uint32_t at, uint32_t stride, int8_t value)
{
    uint32_t *word = rest + at / 2 * stride;
    *word = at % 2 ? (*word & 0xFFFFu) | (uint32_t)value << 16 : (uint32_t)value & 0xFFFFu;
}

#if !defined(__ARM_FEATURE_DSP)
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
void NAS(gather)(nas_tile *tile, const int8_t *x, uint32_t rows)
{
    for (; rows > 0; rows--) {
        for (uint32_t pixel = 0; pixel < 4; pixel++) {
            const int8_t *row = x + pixel * tile->spacing;
            widen(tile->lanes + pixel, row, tile->words, 4);
            for (uint32_t i = 0; i < tile->left_over; i++)
                put_lane(tile->rest + pixel, tile->rest_done + i, 4, row[4 * tile->words + i]);
        }
        tile->lanes += 8 * tile->words;
        tile->rest_done += tile->left_over;
        x += (ptrdiff_t)(4 * tile->words + tile->left_over) + tile->skip;
    }
}
#endif

/* What stays the same from window to window. */
typedef struct {
    const nas_conv *conv;
    const int8_t *x;
    uint32_t *lanes;
    int8_t *edge;      /* room for rows that reach over the border */
    int32_t edge_rows; /* how many a tile has room for */
    int32_t height, width, channels; /* of x */
    int32_t row, span; /* bytes of a kernel row, and of one that serves a whole tile */
    int32_t spacing;   /* bytes from a pixel's window to the next one's */
} window_reader;

enum { EDGE_BYTES = 256 }; /* a tile's edge rows are copied all at once within this, else one by one */

/* The k-pairs of what is left of rows. */
static uint32_t *rest_of(const window_reader *reader, uint32_t stride)
{
    return reader->lanes + (uint32_t)(reader->row / 4 * 2 * reader->conv->kernel_height) * stride;
}

/* How many of `count` places from `start` lie before `end`. */
static int32_t up_to(int32_t start, int32_t count, int32_t end)
{
    int32_t inside = end - start;
    return inside < 0 ? 0 : inside < count ? inside : count;
}

/* Rows of the map into edge rows of `bytes` bytes from column `left`; what is outside of the map is not
 * touched. `row` is inside. */
static void copy_inside(const window_reader *reader, int32_t row, int32_t rows, int32_t left,
                        int32_t bytes)
{
    int32_t stride = reader->width * reader->channels, start = left * reader->channels;
    int32_t before = up_to(start, bytes, 0), inside = up_to(start, bytes, stride) - before;
    if (inside > 0)
        NAS(copy_rows)(reader->x + (row * stride + start + before), (uint32_t)stride,
                       reader->edge + before, (uint32_t)bytes, (uint32_t)inside, (uint32_t)rows);
}

/* Four windows side by side that reach over the border; the first one's first input is at (top, left). */
static void gather_edge(const window_reader *reader, nas_tile *tile, int32_t top, int32_t left)
{
    const nas_conv *conv = reader->conv;
    int32_t kernel = conv->kernel_height, span = reader->span;
    int32_t above = up_to(top, kernel, 0), below = kernel - up_to(top, kernel, reader->height);
    int32_t stride = reader->width * reader->channels, start = left * reader->channels;
    int32_t last = kernel - below;
    NAS(fill)(reader->edge, conv->in_zero, (uint32_t)(span * reader->edge_rows));
    if (above > 0) {
        tile->skip = -reader->row;
        NAS(gather)(tile, reader->edge, (uint32_t)above);
    }
    if (start >= 0 && start + span <= stride) {
        tile->skip = stride - reader->row;
        if (last > above)
            NAS(gather)(tile, reader->x + ((top + above) * stride + start), (uint32_t)(last - above));
    } else {
        tile->skip = span - reader->row;
        for (int32_t ky = above; ky < last; ky += reader->edge_rows) {
            int32_t rows = up_to(ky, reader->edge_rows, last);
            copy_inside(reader, top + ky, rows, left, span);
            NAS(gather)(tile, reader->edge, (uint32_t)rows);
        }
    }
    if (below > 0) {
        NAS(fill)(reader->edge, conv->in_zero, (uint32_t)span);
        tile->skip = -reader->row;
        NAS(gather)(tile, reader->edge, (uint32_t)below);
    }
}

/* Four windows side by side. */
static void gather_tile(const window_reader *reader, int32_t top, int32_t left)
{
    int32_t stride = reader->width * reader->channels, start = left * reader->channels;
    nas_tile tile;
    tile.lanes = reader->lanes;
    tile.rest = rest_of(reader, 4);
    tile.rest_done = 0;
    tile.spacing = (uint32_t)reader->spacing;
    tile.words = (uint32_t)reader->row / 4;
    tile.left_over = (uint32_t)reader->row % 4;
    if (top >= 0 && top + reader->conv->kernel_height <= reader->height && start >= 0 &&
        start + reader->span <= stride) {
        tile.skip = stride - reader->row;
        NAS(gather)(&tile, reader->x + (top * stride + start), reader->conv->kernel_height);
    } else {
        gather_edge(reader, &tile, top, left);
    }
}

/* One window into lanes `stride` words apart, from word `pixel` on. */
static void gather_one(const window_reader *reader, int32_t top, int32_t left, uint32_t pixel,
                       uint32_t stride, uint32_t *(*widen_row)(uint32_t *, const int8_t *, uint32_t))
{
    int32_t bytes = reader->width * reader->channels, start = left * reader->channels;
    uint32_t whole = (uint32_t)reader->row / 4, done = 0;
    uint32_t *lanes = reader->lanes + pixel, *rest = rest_of(reader, stride) + pixel;
    for (int32_t ky = 0; ky < reader->conv->kernel_height; ky++, top++) {
        const int8_t *row = reader->x + (top * bytes + start);
        int is_inside = top >= 0 && top < reader->height;
        if (!is_inside || start < 0 || start + reader->row > bytes) {
            row = reader->edge;
            NAS(fill)(reader->edge, reader->conv->in_zero, (uint32_t)reader->row);
            if (is_inside)
                copy_inside(reader, top, 1, left, reader->row);
        }
        lanes = widen_row(lanes, row, whole);
        for (uint32_t i = 4 * whole; i < (uint32_t)reader->row; i++)
            put_lane(rest, done++, stride, row[i]);
    }
}

/* `stride`: of lanes, 4 for tiles, 1 for single windows. */
static window_reader reader_of(const nas_conv *conv, const int8_t *x, void *scratch, uint32_t stride)
{
    window_reader reader;
    reader.conv = conv;
    reader.x = x;
    reader.lanes = scratch;
    reader.height = conv->in_height;
    reader.width = conv->in_width;
    reader.channels = conv->in_channels;
    reader.row = conv->kernel_width * reader.channels;
    reader.spacing = conv->stride_width * reader.channels;
    reader.span = reader.row + 3 * reader.spacing;
    reader.edge_rows = reader.span * conv->kernel_height <= EDGE_BYTES ? conv->kernel_height : 1;
    reader.edge = (int8_t *)(reader.lanes + stride * ((uint32_t)(reader.row * conv->kernel_height + 1) / 2));
    return reader;
}

void NAS(convolve)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                   nas_product *gemm, nas_product *dot)
{
    window_reader reader = reader_of(conv, x, scratch, 4);
    uint32_t *lanes = scratch;
    uint32_t pairs = (uint32_t)(reader.row * conv->kernel_height + 1) / 2, pixel = 0;
    int32_t height = conv->out_height, width = conv->out_width;
    int32_t top = -conv->pad_top, remaining = height * width;
    if (conv->kernel_height * conv->kernel_width * conv->stride_height * conv->stride_width == 1 &&
        conv->pad_top + conv->pad_left == 0 && reader.width == width) { /* the map is one row */
        reader.width = width = remaining;
        reader.height = height = 1;
    }
    for (; height > 0; height--, top += conv->stride_height) {
        int32_t left = -conv->pad_left;
        for (int32_t column = 0; column < width; column++, left += conv->stride_width) {
            if (pixel == 0 && column + 4 <= width) {
                gather_tile(&reader, top, left);
                column += 3;
                left += 3 * conv->stride_width;
            } else if (remaining >= 4) { /* a tile that goes on in the next row */
                gather_one(&reader, top, left, pixel, 4, NAS(widen_4));
                if (++pixel < 4)
                    continue;
                pixel = 0;
            } else {
                gather_one(&reader, top, left, 0, 1, NAS(widen_1));
                dot(conv, lanes, y, pairs);
                y += conv->out_channels;
                continue;
            }
            gemm(conv, lanes, y, pairs);
            y += 4 * (int32_t)conv->out_channels;
            remaining -= 4;
        }
    }
}

void NAS(convolve_single)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                          nas_product *dot)
{
    window_reader reader = reader_of(conv, x, scratch, 1);
    uint32_t pairs = (uint32_t)(reader.row * conv->kernel_height + 1) / 2;
    for (int32_t row = 0; row < conv->out_height; row++) {
        for (int32_t column = 0; column < conv->out_width; column++) {
            gather_one(&reader, row * conv->stride_height - conv->pad_top,
                       column * conv->stride_width - conv->pad_left, 0, 1, NAS(widen_1));
            dot(conv, scratch, y, pairs);
            y += conv->out_channels;
        }
    }
}
