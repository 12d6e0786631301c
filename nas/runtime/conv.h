/* What the parts of a convolution share. Not for callers: they use kernels.h.
 *
 * A window is gathered as 16-bit lanes, two inputs a word ("k-pair"). First come the whole words
 * of four inputs of each kernel row, row by row: inputs 0 1 2 3 make the k-pairs (0, 2) and (1,
 * 3), as SXTB16 gives them. Then what is left of the rows, 0 to 3 inputs of each, joined: k-pairs
 * (0, 1), (2, 3) and so on; an odd last one shares its k-pair with a lane that is always 0. The
 * packed weights follow this order.
 *
 * Four pixels ("a tile") lie interleaved: word [4 * k_pair + pixel]. One pixel alone: word
 * [k_pair].
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

/* The drivers: gather windows into `scratch`, call the product. `convolve` takes tiles of four
 * pixels and the rest one by one; `convolve_single` all one by one. */
void NAS(convolve)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                   nas_product *gemm, nas_product *dot);
void NAS(convolve_single)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                          nas_product *dot);

/* Widens 4 * `words` inputs of one pixel: two words for each four, 4 or 1 words apart; returns the
 * next place. */
typedef uint32_t *nas_widen(uint32_t *lanes, const int8_t *x, uint32_t words);
nas_widen NAS(widen_4), NAS(widen_1);

/* A tile being gathered. gather.S has the offsets. */
typedef struct {
    uint32_t *lanes;    /* where whole words go */
    uint32_t *rest;     /* the k-pairs of what is left of rows */
    uint32_t rest_done; /* inputs that are there already */
    uint32_t spacing;   /* bytes from pixel to pixel */
    uint32_t words;     /* whole words in a row */
    uint32_t left_over; /* inputs of a row beyond them */
    int32_t skip;       /* bytes from the end of a pixel's row to its next */
} nas_tile;

/* Gathers `rows` kernel rows of four pixels, the first pixel's at x. */
void NAS(gather)(const nas_tile *tile, const int8_t *x, uint32_t rows);

/* Where windows are read from, and what stays the same from window to window. */
typedef struct {
    const nas_conv *conv;
    const int8_t *x; /* the map, or padded rows of it */
    int32_t height, stride; /* rows of x, and bytes of a row */
    int32_t row, span; /* bytes of a kernel row, and of one that serves a whole tile */
    uint32_t *lanes;
    int8_t *edge; /* room for rows with their padding */
    uint32_t pairs; /* k-pairs of a window */
    nas_tile tile;
} nas_reader;

/* `pixels`: 4 for tiles, 1 for windows one by one. */
void NAS(start_reader)(nas_reader *reader, const nas_conv *conv, const int8_t *x, void *scratch,
                       uint32_t pixels);

/* `rows` rows of the map from `top` on, `bytes` bytes of each from byte `start` on, to `edge`.
 * What is outside of the map becomes the zero point: in rows that are inside only if `fill`. */
void NAS(copy_padded)(const nas_reader *reader, const int8_t *x, int32_t top, int32_t rows,
                      int32_t start, int32_t bytes, int fill);

/* Four windows side by side that may reach over the border; the first one begins at row `top`,
 * byte `start`. */
void NAS(gather_edge)(const nas_reader *reader, int32_t top, int32_t start);

/* One window into lanes `pixels` words apart, from word `pixel` on; `widen_row` is widen_4 or
 * widen_1. */
void NAS(gather_one)(const nas_reader *reader, int32_t top, int32_t start, uint32_t pixel,
                     uint32_t pixels, nas_widen *widen_row);

/* Puts left over input number `at` of one pixel into its lane; `rest` is that pixel's first
 * k-pair. */
static inline void nas_put_lane(uint32_t *rest, uint32_t at, uint32_t stride, int8_t value)
{
    uint32_t *word = rest + at / 2 * stride;
    *word = at % 2 ? (*word & 0xFFFFu) | (uint32_t)value << 16 : (uint32_t)value & 0xFFFFu;
}

#endif
