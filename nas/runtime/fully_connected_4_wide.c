/* Fewer than four output positions, 4-bit weights, long inner products. */
#include "conv.h"

void NAS(fully_connected_4_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch)
{
    NAS(convolve_single)(conv, x, y, scratch, NAS(dot_4_wide));
}
