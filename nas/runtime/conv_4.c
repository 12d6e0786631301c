/* Four or more output positions, 4-bit weights, inner products up to 512 inputs. */
#include "conv.h"

void NAS(conv_4)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch)
{
    NAS(convolve)(conv, x, y, scratch, NAS(gemm_4), NAS(dot_4));
}
