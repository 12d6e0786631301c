/* TensorFlow Lite's requantisation, as nas/network/numerics.py defines it under `double`. */
#ifndef NAS_RESCALE_H
#define NAS_RESCALE_H

#include "kernels.h"

/* round(value * multiplier / 2^31), half up. */
static inline int32_t nas_scale(int32_t value, int32_t multiplier) {
    return (int32_t)(((int64_t)value * multiplier + (1 << 30)) >> 31);
}

/* value / 2^shift for 0 <= shift <= 31, half away from zero. */
static inline int32_t nas_shift_right(int32_t value, int32_t shift) {
    if (shift == 0) {
        return value;
    }
    return (value + (value >> 31) + (int32_t)(1u << (shift - 1))) >> shift;
}

static inline int8_t nas_clip(int32_t value) {
    return (int8_t)(value < -128 ? -128 : value > 127 ? 127 : value);
}

/* `value` by a factor of less than one. */
static inline int32_t nas_rescale(int32_t value, nas_factor factor) {
    return nas_shift_right(nas_scale(value, factor.multiplier), -factor.shift);
}

/* `value` by any factor, plus `zero`, clipped to int8. What a factor of one or more would take
 * beyond int8 is cut before it leaves int32. */
static inline int8_t nas_requantise(int32_t value, nas_factor factor, int32_t zero) {
    if (factor.shift <= 0) {
        return nas_clip(nas_rescale(value, factor) + zero);
    }
    int32_t cut = value < -1024 ? -1024 : value > 1024 ? 1024 : value;
    int32_t left = factor.shift > 20 ? 20 : factor.shift;
    return nas_clip(nas_scale(cut * (1 << left), factor.multiplier) + zero);
}

#endif
