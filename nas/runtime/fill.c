/* What surrounds a padded map. */
#include "kernels.h"
#include "words.h"

void NAS(fill)(int8_t *y, int8_t value, uint32_t size) {
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
    uint32_t word = (uint8_t)value * 0x01010101u;
    NAS_ROLLED
    for (; i + 16 <= size; i += 16) {
        nas_store(y + i, word);
        nas_store(y + i + 4, word);
        nas_store(y + i + 8, word);
        nas_store(y + i + 12, word);
        NAS_NO_CALL();
    }
#endif
    NAS_ROLLED
    for (; i < size; i++) {
        y[i] = value;
        NAS_NO_CALL();
    }
}
