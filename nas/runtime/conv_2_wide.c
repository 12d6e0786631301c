/* Four or more output positions, 2-bit weights, long inner products. */
#include "conv.h"

void NAS(conv_2_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch)
{
    NAS(convolve)(conv, x, y, scratch, NAS(gemm_2_wide), NAS(dot_2));
}
