/* The drivers of convolutions: gather the windows of output pixels as conv.h says, call the product. */
#include "conv.h"

#include <stddef.h>

/* What stays the same from window to window. */
typedef struct {
    const nas_conv *conv;
    const int8_t *x;
    uint32_t row;    /* inputs of a kernel row */
    uint32_t rest;   /* inputs that all rows together leave over from whole words */
    uint32_t stride; /* of lanes: 4 in a tile, 1 alone */
    uint32_t *(*widen)(uint32_t *lanes, const int8_t *x, uint32_t words);
    int8_t *joined; /* room for the rests of rows */
    int8_t *edge;   /* room for a row that reaches over the border */
} window_reader;

#if defined(__ARM_FEATURE_DSP)
/* requantise.inc has these offsets as numbers. */
typedef char nas_conv_layout[(offsetof(nas_conv, table) == 4 && offsetof(nas_conv, out_channels) == 18 &&
                              offsetof(nas_conv, out_zero) == 27)
                                 ? 1
                                 : -1];
#endif

/* Two inputs as lanes. */
static uint32_t lanes_of(int8_t low, int8_t high)
{
    return ((uint32_t)low & 0xFFFFu) | (uint32_t)high << 16;
}

#if !defined(__ARM_FEATURE_DSP)
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
#endif

/* `count` bytes; they are few. */
static void copy(int8_t *to, const int8_t *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        to[i] = from[i];
}

/* Where kernel row `top` of the window at column `left` lies in memory: in the map or, if it reaches over
 * the border, in `edge`, filled up with the zero point. */
static const int8_t *window_row(const window_reader *reader, int32_t top, int32_t left)
{
    const nas_conv *conv = reader->conv;
    int32_t width = conv->in_width, channels = conv->in_channels, kernel = conv->kernel_width;
    const int8_t *inside = reader->x + (ptrdiff_t)(top * width + left) * channels;
    int is_row = top >= 0 && top < conv->in_height;
    if (is_row && left >= 0 && left + kernel <= width)
        return inside;
    for (uint32_t i = 0; i < reader->row; i++)
        reader->edge[i] = conv->in_zero;
    int32_t from = left < 0 ? -left : 0;
    int32_t to = left + kernel > width ? width - left : kernel;
    if (is_row && to > from)
        copy(reader->edge + from * channels, inside + from * channels,
             (uint32_t)((to - from) * channels));
    return reader->edge;
}

/* The window whose first input is at (top, left), as lanes. */
static void gather(const window_reader *reader, int32_t top, int32_t left, uint32_t *lanes)
{
    uint32_t whole = reader->row / 4, stride = reader->stride;
    int8_t *joined = reader->joined;
    for (int32_t ky = 0; ky < reader->conv->kernel_height; ky++) {
        const int8_t *row = window_row(reader, top + ky, left);
        lanes = reader->widen(lanes, row, whole);
        copy(joined, row + 4 * whole, reader->row % 4);
        joined += reader->row % 4;
    }
    const int8_t *rest = reader->joined;
    lanes = reader->widen(lanes, rest, reader->rest / 4);
    rest += reader->rest / 4 * 4;
    switch (reader->rest % 4) {
    case 3:
        lanes[0] = lanes_of(rest[0], rest[2]);
        lanes[stride] = lanes_of(rest[1], 0);
        break;
    case 2:
        lanes[0] = lanes_of(rest[0], rest[1]);
        break;
    case 1:
        lanes[0] = lanes_of(rest[0], 0);
        break;
    default:
        break;
    }
}

static window_reader reader_of(const nas_conv *conv, const int8_t *x, void *scratch, uint32_t stride)
{
    window_reader reader;
    reader.conv = conv;
    reader.x = x;
    reader.row = (uint32_t)conv->kernel_width * conv->in_channels;
    reader.rest = reader.row % 4 * conv->kernel_height;
    reader.stride = stride;
    reader.widen = stride == 4 ? NAS(widen_4) : NAS(widen_1);
    uint32_t pairs = (reader.row * conv->kernel_height + 1) / 2;
    reader.joined = (int8_t *)((uint32_t *)scratch + stride * pairs);
    reader.edge = reader.joined + (reader.rest + 3) / 4 * 4;
    return reader;
}

void NAS(convolve)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                   nas_product *gemm, nas_product *dot)
{
    window_reader reader = reader_of(conv, x, scratch, 4);
    uint32_t *lanes = scratch;
    uint32_t pairs = (reader.row * conv->kernel_height + 1) / 2, pixel = 0;
    uint32_t pixels = (uint32_t)conv->out_height * conv->out_width;
    int32_t top = -conv->pad_top;
    for (uint32_t oy = 0; oy < conv->out_height; oy++) {
        int32_t left = -conv->pad_left;
        for (uint32_t ox = 0; ox < conv->out_width; ox++) {
            gather(&reader, top, left, lanes + pixel);
            left += conv->stride_width;
            if (pixels >= 4 && ++pixel < 4)
                continue;
            if (pixel == 4) {
                gemm(conv, lanes, y, pairs);
                y += 4 * (uint32_t)conv->out_channels;
                pixels -= 4;
                pixel = 0;
                continue;
            }
            for (uint32_t k = 1; k < pairs; k++)
                lanes[k] = lanes[4 * k];
            dot(conv, lanes, y, pairs);
            y += conv->out_channels;
        }
        top += conv->stride_height;
    }
}

void NAS(convolve_single)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                          nas_product *dot)
{
    window_reader reader = reader_of(conv, x, scratch, 1);
    uint32_t pairs = (reader.row * conv->kernel_height + 1) / 2;
    for (int32_t oy = 0; oy < conv->out_height; oy++) {
        for (int32_t ox = 0; ox < conv->out_width; ox++) {
            gather(&reader, oy * conv->stride_height - conv->pad_top,
                   ox * conv->stride_width - conv->pad_left, scratch);
            dot(conv, scratch, y, pairs);
            y += conv->out_channels;
        }
    }
}
