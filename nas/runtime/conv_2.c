/* Four or more output positions, 2-bit weights, inner products up to 1020 inputs. */
#include "conv.h"

void NAS(conv_2)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch)
{
    NAS(convolve)(conv, x, y, scratch, NAS(gemm_2), NAS(dot_2));
}
