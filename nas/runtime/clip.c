/* A ReLU whose real zero is not -128. */
#include "kernels.h"
#include "words.h"

void NAS(clip)(int8_t *y, int8_t low, uint32_t size) {
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    uint32_t lows = (uint8_t)low * 0x01010101u;
    NAS_ROLLED
    for (; i + 8 <= size; i += 8) {
        uint32_t a = nas_load(y + i), b = nas_load(y + i + 4);
        nas_store(y + i, nas_max4(a, lows));
        nas_store(y + i + 4, nas_max4(b, lows));
    }
#endif
    NAS_ROLLED
    for (; i < size; i++) {
        y[i] = y[i] < low ? low : y[i];
    }
}
