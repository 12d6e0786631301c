/* The driver of layers with fewer than four output positions. */
#include "conv.h"

void NAS(convolve_single)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                          nas_product *dot)
{
    nas_reader reader;
    NAS(start_reader)(&reader, conv, x, scratch, 1);
    for (int32_t row = 0; row < conv->out_height; row++) {
        int32_t top = row * conv->stride_height - conv->pad_top;
        for (int32_t column = 0; column < conv->out_width; column++) {
            int32_t left = column * conv->stride_width - conv->pad_left;
            NAS(gather_one)(&reader, top, left * conv->in_channels, 0, 1, NAS(widen_1));
            dot(conv, reader.lanes, y, reader.pairs);
            y += conv->out_channels;
        }
    }
}
