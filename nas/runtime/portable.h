/* Arithmetic of the portable kernels, in steps that C defines: no shift of a negative number to
 * the left and none to the right, no conversion out of range. */
#ifndef NAS_PORTABLE_H
#define NAS_PORTABLE_H

#include <stddef.h>
#include <stdint.h>

/* The lowest 8 or 16 bits as a signed number. */
static inline int32_t nas_low_8(uint32_t word)
{
    return (int32_t)((word & 0xFFu) ^ 0x80u) - 0x80;
}

static inline int32_t nas_low_16(uint32_t word)
{
    return (int32_t)((word & 0xFFFFu) ^ 0x8000u) - 0x8000;
}

/* floor(value / 2^shift), 0 <= shift < 63. */
static inline int64_t nas_floor_shift(int64_t value, uint32_t shift)
{
    return value >= 0 ? value >> shift : -((-value - 1) >> shift) - 1;
}

/* sum * multiplier, shifted to the left before (`left`) or to the right after; both roundings of
 * TensorFlow Lite; the zero point and the limits of int8. `shift` as the table has it: -R, or R -
 * 1. */
static inline int8_t nas_to_output(int32_t sum, int32_t multiplier, uint32_t shift, int left,
                                   int32_t zero)
{
    int64_t scaled = left ? (int64_t)sum * ((int64_t)1 << shift) : sum;
    int64_t value = nas_floor_shift(scaled * multiplier + ((int64_t)1 << 30), 31);
    if (!left)
        value = nas_floor_shift(value - (value < 0) + ((int64_t)1 << shift), shift + 1);
    value += zero;
    return (int8_t)(value > 127 ? 127 : value < -128 ? -128 : value);
}

/* The sum of a pair's first or second channel, without its bias, as that channel's output. */
static inline int8_t nas_rescale_0(const int32_t *table, int32_t sum, int32_t zero)
{
    uint32_t shifts = (uint32_t)table[4];
    return nas_to_output(sum + table[2] / 2, table[3], shifts >> 16 & 0xFFu,
                         (shifts & 0x8000u) != 0, zero);
}

static inline int8_t nas_rescale_1(const int32_t *table, int32_t sum, int32_t zero)
{
    uint32_t shifts = (uint32_t)table[4];
    return nas_to_output(sum + table[0] / 2, table[1], shifts & 0xFFu, shifts >> 31 != 0, zero);
}

#endif
