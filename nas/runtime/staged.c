#include "kernels.h"

/* Reading weights from RAM spares the wait states that Flash has for every output. */
void NAS(staged)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                 void (*kernel)(const nas_conv *, const int8_t *, int8_t *, void *),
                 uint32_t weight_words, uint32_t table_words) {
    uint32_t *weights = scratch;
    int32_t *table = (int32_t *)scratch + weight_words;
    nas_conv held = *conv;

    for (uint32_t i = 0; i < weight_words; i++) {
        weights[i] = conv->weights[i];
    }
    for (uint32_t i = 0; i < table_words; i++) {
        table[i] = conv->table[i];
    }
    held.weights = weights;
    held.table = table;
    kernel(&held, x, y, table + table_words);
}
