/* Fewer than four output positions, 4-bit weights, inner products up to 512 inputs. */
#include "conv.h"

void NAS(fully_connected_4)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch)
{
    NAS(convolve_single)(conv, x, y, scratch, NAS(dot_4));
}
