/* What the kernels of series share: rescaling to int16 and the reciprocal of a softmax. */
#ifndef NAS_SEQUENCE_H
#define NAS_SEQUENCE_H

#include "rescale.h"

enum { NAS_STATE_BITS = 15 }; /* decays are integers of 2^-15 */

/* round(value / 2^15) with both of the roundings of a factor 2^-15, at bits 0 and 14. */
static inline int32_t nas_halve(int32_t value) {
    return nas_shift_right((value + 1) >> 1, NAS_STATE_BITS - 1);
}

/* `value` by any factor, clipped to int16. What a factor of one or more would take beyond int16 is
 * cut before. */
static inline int32_t nas_rescale_16(int32_t value, nas_factor factor) {
    int32_t scaled;
    if (factor.shift <= 0) {
        scaled = nas_rescale(value, factor);
    } else {
        int32_t cut = value < -32768 ? -32768 : value > 32768 ? 32768 : value;
        int32_t left = factor.shift > 15 ? 15 : factor.shift;
        scaled = nas_scale(cut * (1 << left), factor.multiplier);
    }
    return scaled < -32768 ? -32768 : scaled > 32767 ? 32767 : scaled;
}

#endif
