/* Integer kernels of a generated model. All arithmetic is TensorFlow Lite's int8 specification with
 * double rounding; every kernel gives the same bytes on the portable path and on the Cortex-M4's.
 *
 * Tensors are int8 in (height, width, channels) order. A kernel touches its arguments alone: no
 * heap, no globals. `scratch` is 4-byte aligned working memory whose size the model's plan holds.
 */
#ifndef NAS_KERNELS_H
#define NAS_KERNELS_H

#include <stdint.h>

#include "names.h" /* NAS(name): the model's prefix before every kernel's name */

/* A convolution, a depthwise convolution or a fully connected layer. */
typedef struct {
    const uint32_t *weights; /* packed, in the order that the kernel reads them */
    const int32_t *table;    /* requantisation constants, in the kernel's own layout */
    uint16_t in_height, in_width, in_channels;
    uint16_t out_height, out_width, out_channels;
    uint8_t kernel_height, kernel_width;
    uint8_t stride_height, stride_width;
    uint8_t pad_top, pad_left;
    int8_t in_zero, out_zero;
} nas_conv;

/* A window pool; no padding. */
typedef struct {
    uint16_t in_width, channels;
    uint16_t out_height, out_width;
    uint16_t kernel_height, kernel_width;
    uint16_t stride_height, stride_width;
} nas_pool;

/* real factor = multiplier / 2^31 * 2^shift, multiplier in [2^30, 2^31) or 0. */
typedef struct {
    int32_t multiplier;
    int32_t shift;
} nas_factor;

typedef struct {
    nas_factor left, right, out;
    int8_t left_zero, right_zero, out_zero;
    int8_t low; /* the least output, above -128 after a ReLU */
} nas_add;

typedef struct {
    nas_factor out;
    int8_t left_zero, right_zero, out_zero;
} nas_mul;

/* Scores are products of queries and keys by `score`, outputs weighted values by `out`. */
typedef struct {
    const int32_t *exponentials; /* 256: of how far a score is below the largest, 2^-31 each */
    uint16_t queries, steps, width, heads;
    nas_factor score, out;
    int8_t out_zero;
} nas_attention;

typedef struct {
    const int16_t *decay; /* 256, for dt of -128 to 127: a in 2^-15 */
    const int32_t *skip;  /* a channel each */
    uint16_t steps, channels, states;
    int8_t out_zero;
    nas_factor sum, out; /* sum over the states to int16, and its product with z to the output */
} nas_scan;

/* `count`: steps of all runs. */
typedef struct {
    uint16_t steps, channels;
    uint32_t count;
} nas_running;

/* Four or more output positions: tiles of four, then one by one. `_wide` is for long inner
 * products. */
void NAS(conv_8)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(conv_8_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(conv_4)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(conv_4_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(conv_2)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(conv_2_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);

/* The same for fewer than four output positions: one by one. */
void NAS(fully_connected_8)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(fully_connected_8_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(fully_connected_4)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(fully_connected_4_wide)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(fully_connected_2)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);

/* Runs `kernel` with weights and table copied to the front of `scratch`, its own after them. */
void NAS(staged)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch,
                 void (*kernel)(const nas_conv *, const int8_t *, int8_t *, void *),
                 uint32_t weight_words, uint32_t table_words);

/* Any window and stride. */
void NAS(depthwise_8)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(depthwise_4)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);
void NAS(depthwise_2)(const nas_conv *conv, const int8_t *x, int8_t *y, void *scratch);

void NAS(average_pool)(const nas_pool *pool, const int8_t *x, int8_t *y);
void NAS(max_pool)(const nas_pool *pool, const int8_t *x, int8_t *y);

/* y may be either input. */
void NAS(add)(const nas_add *add, const int8_t *left, const int8_t *right, int8_t *y,
              uint32_t size);
void NAS(mul)(const nas_mul *mul, const int8_t *left, const int8_t *right, int8_t *y,
              uint32_t size);

/* `table` has 256 entries, for inputs -128 to 127; y may be x. */
void NAS(look_up)(const int8_t *table, const int8_t *x, int8_t *y, uint32_t size);

/* y may be q. */
void NAS(attention)(const nas_attention *attention, const int8_t *q, const int8_t *k,
                    const int8_t *v, int8_t *y, void *scratch);

/* u, dt, z are (steps, channels), b, c (steps, states); y may be u, dt or z. `state` holds an int16
 * a channel and state from one run to the next, at first 0; without it (0) runs start anew. */
void NAS(selective_scan)(const nas_scan *scan, const int8_t *u, const int8_t *dt, const int8_t *b,
                         const int8_t *c, const int8_t *z, int8_t *y, void *scratch, void *state);

/* Over this run's steps and those that `state` knows from runs before: an int32 a channel, at first
 * 0; an int8, at first -128. */
void NAS(running_average)(const nas_running *running, const int8_t *x, int8_t *y, void *state);
void NAS(running_max)(const nas_running *running, const int8_t *x, int8_t *y, void *state);

/* Copies `rows` rows of `row_bytes` bytes between tensors whose rows are `x_stride` and `y_stride`
 * bytes apart: one input of a concatenation, or the inside of a padded map. */
void NAS(copy_rows)(const int8_t *x, uint32_t x_stride, int8_t *y, uint32_t y_stride,
                    uint32_t row_bytes, uint32_t rows);

void NAS(fill)(int8_t *y, int8_t value, uint32_t size);

/* Raises all below `low` to it: a ReLU whose real zero is not -128. */
void NAS(clip)(int8_t *y, int8_t low, uint32_t size);

#endif
