/* What the depthwise kernels share: how the packed form is read, how rows lie in scratch. */
#ifndef NAS_DEPTHWISE_H
#define NAS_DEPTHWISE_H

#include "kernels.h"

/* The constants of a channel. `bias` is doubled: kernels work on twice an accumulator. `shift` is
 * to the right; `offset` is what is added before it, or, where the shift is to the left, after it.
 *
 * The table holds the bias and the multiplier of each channel, then a byte of each, its shift. The
 * weights are those of one channel after the other, the first one in the lowest bits. */
typedef struct {
    int32_t bias, multiplier, offset, shift;
} nas_channel;

/* Computes `rows` rows of outputs of up to four channels. `channel` is followed by the taps and the
 * other channels, see depthwise_planes.c; `x` is the first channel's word of the first pair of the
 * uppermost input row, `y` the first output. Each shape has its own function; the portable path
 * needs none. */
typedef void nas_plane(const nas_channel *channel, const uint32_t *x, int8_t *y, uint32_t rows,
                       uint32_t channels, const nas_conv *conv);

#if defined(__ARM_FEATURE_DSP)
#define NAS_PLANE(plane) (plane)
#else
#define NAS_PLANE(plane) ((nas_plane *)0)
#endif

/* A depthwise convolution by means of `plane`. */
void NAS(depthwise_planes)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                           uint32_t bits, nas_plane *plane);

/* Words of a channel that a kernel row needs, two taps in each, whether it starts on an even or an
 * odd column. */
static inline uint32_t nas_tap_words(const nas_conv *conv) {
    return conv->kernel_width / 2u + 1;
}

/* Words from one channel's block to the next one's. */
static inline uint32_t nas_block_words(const nas_conv *conv) {
    return 4 + 2u * conv->kernel_height * nas_tap_words(conv);
}

/* Pairs of columns in a row of scratch: what whole tiles of four outputs read. */
static inline uint32_t nas_row_pairs(const nas_conv *conv) {
    uint32_t last = ((conv->out_width + 3u) & ~3u) - 1;
    return last * conv->stride_width / 2 + nas_tap_words(conv);
}

#endif
