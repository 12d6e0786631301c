/* Four or more output positions, 8-bit weights, long inner products. */
#include "conv.h"

void NAS(conv_8_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch)
{
    NAS(convolve)(conv, x, y, scratch, NAS(gemm_8_wide), NAS(dot_8_wide));
}
