/* Concatenations, paddings and reshapes are copies of rows. */
#include "kernels.h"
#include "words.h"

void NAS(copy_rows)(const int8_t *x, uint32_t x_stride, int8_t *y, uint32_t y_stride,
                    uint32_t row_bytes, uint32_t rows) {
    NAS_ROLLED
    for (; rows > 0; rows--) {
        uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP)
        NAS_ROLLED
        for (; i + 16 <= row_bytes; i += 16) {
            uint32_t a = nas_load(x + i), b = nas_load(x + i + 4);
            uint32_t c = nas_load(x + i + 8), d = nas_load(x + i + 12);
            nas_store(y + i, a);
            nas_store(y + i + 4, b);
            nas_store(y + i + 8, c);
            nas_store(y + i + 12, d);
            NAS_NO_CALL();
        }
        NAS_ROLLED
        for (; i + 4 <= row_bytes; i += 4) {
            nas_store(y + i, nas_load(x + i));
            NAS_NO_CALL();
        }
#endif
        NAS_ROLLED
        for (; i < row_bytes; i++) {
            y[i] = x[i];
            NAS_NO_CALL();
        }
        x += x_stride;
        y += y_stride;
    }
}
