/* What the parts of a convolution share. Not for callers: they use kernels.h.
 *
 * A window is gathered as 16-bit lanes, two inputs a word ("k-pair"). Its order: the whole words of four
 * inputs of each kernel row, row by row; then what is left of the rows (row bytes modulo 4 each), joined.
 * Four inputs 0 1 2 3 make the words (0, 2) and (1, 3), as SXTB16 gives them; a rest of one or two makes
 * one word (0, 1), a rest of three the words (0, 2) and (1, any). The packed weights follow this order and
 * are 0 for the input that is not there.
 *
 * Four pixels ("a tile") lie interleaved: word [4 * k_pair + pixel]. One pixel alone: word [k_pair].
 */
#ifndef NAS_CONV_H
#define NAS_CONV_H

#include "kernels.h"

/* Computes all output channels of a tile (`gemm`) or of one pixel (`dot`); pixels of y are
 * conv->out_channels bytes apart. `pairs`: k-pairs of the window. */
typedef void nas_product(const nas_conv *conv, const uint32_t *x, int8_t *y, uint32_t pairs);

nas_product NAS(gemm_8), NAS(gemm_8_wide), NAS(dot_8), NAS(dot_8_wide);
nas_product NAS(gemm_4), NAS(gemm_4_wide), NAS(dot_4), NAS(dot_4_wide);
nas_product NAS(gemm_2), NAS(gemm_2_wide), NAS(dot_2);

/* The drivers: gather windows into `scratch`, call the product. `convolve` takes tiles of four pixels and the
 * rest one by one; `convolve_single` all one by one. */
void NAS(convolve)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                   nas_product *gemm, nas_product *dot);
void NAS(convolve_single)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                          nas_product *dot);

/* Widens 4 * `words` inputs: two words for each four, `4` or `1` words apart; returns the next place. */
uint32_t *NAS(widen_4)(uint32_t *lanes, const int8_t *x, uint32_t words);
uint32_t *NAS(widen_1)(uint32_t *lanes, const int8_t *x, uint32_t words);

#endif
