/* What the parts of a convolution share. Not for callers: they use kernels.h.
 *
 * A window is gathered as 16-bit lanes, two inputs a word ("k-pair"). First come the whole words of four
 * inputs of each kernel row, row by row: inputs 0 1 2 3 make the k-pairs (0, 2) and (1, 3), as SXTB16
 * gives them. Then what is left of the rows, 0 to 3 inputs of each, joined: k-pairs (0, 1), (2, 3) and so
 * on; an odd last one shares its k-pair with an unspecified lane. The packed weights follow this order
 * and are 0 for that lane.
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

/* The drivers: gather windows into `scratch`, call the product. `convolve` takes tiles of four pixels and the
 * rest one by one; `convolve_single` all one by one. */
void NAS(convolve)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                   nas_product *gemm, nas_product *dot);
void NAS(convolve_single)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                          nas_product *dot);

/* Widens 4 * `words` inputs of one pixel: two words for each four, 4 or 1 words apart; returns the next
 * place. */
uint32_t *NAS(widen_4)(uint32_t *lanes, const int8_t *x, uint32_t words);
uint32_t *NAS(widen_1)(uint32_t *lanes, const int8_t *x, uint32_t words);

/* A tile being gathered. gather.S has the offsets. */
typedef struct {
    uint32_t *lanes;    /* where the next whole word goes */
    uint32_t *rest;     /* the k-pairs of what is left of rows */
    uint32_t rest_done; /* inputs there */
    uint32_t spacing;   /* bytes from pixel to pixel */
    uint32_t words;     /* whole words in a row */
    uint32_t left_over; /* inputs of a row beyond them */
    int32_t skip;       /* bytes from the end of a pixel's row to its next */
} nas_tile;

/* Gathers `rows` kernel rows of four pixels, the first pixel's at x. */
void NAS(gather)(nas_tile *tile, const int8_t *x, uint32_t rows);

#endif
