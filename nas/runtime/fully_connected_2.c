/* Fewer than four output positions, 2-bit weights, any inner product. */
#include "conv.h"

void NAS(fully_connected_2)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch)
{
    NAS(convolve_single)(conv, x, y, scratch, NAS(dot_2));
}
