/* What portable_4.c and portable_2.c share. */
#ifndef NAS_PORTABLE_GROUP_H
#define NAS_PORTABLE_GROUP_H

#include "conv.h"
#include "portable.h"

/* The sums of the `group`-th four channels, without their bias, as the outputs of the first
 * `count`. */
static inline void nas_rescale_group(const nas_conv *conv, uint32_t group, const int32_t *sums,
                                     int8_t *y, uint32_t count)
{
    const int32_t *table = conv->table + (size_t)group * 10;
    for (uint32_t channel = 0; channel < 4 && channel < count; channel++) {
        const int32_t *pair = table + channel / 2 * 5;
        y[channel] = channel % 2 == 0 ? nas_rescale_0(pair, sums[channel], conv->out_zero)
                                      : nas_rescale_1(pair, sums[channel], conv->out_zero);
    }
}

#endif
