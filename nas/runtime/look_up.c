/* Any function of one value: a table of 256 entries. */
#include "kernels.h"
#include "words.h"

void NAS(look_up)(const int8_t *table, const int8_t *x, int8_t *y, uint32_t size) {
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    NAS_ROLLED
    for (; i + 4 <= size; i += 4) {
        uint32_t index = nas_load(x + i) ^ 0x80808080u; /* from 0 */
        int8_t a = table[(uint8_t)index], b = table[(uint8_t)(index >> 8)];
        int8_t c = table[(uint8_t)(index >> 16)], d = table[index >> 24];
        y[i] = a;
        y[i + 1] = b;
        y[i + 2] = c;
        y[i + 3] = d;
    }
#endif
    NAS_ROLLED
    for (; i < size; i++) {
        y[i] = table[x[i] + 128];
    }
}
