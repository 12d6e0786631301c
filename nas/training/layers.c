/* The loops of a layer in training: fake quantisation, windows, batch norm, one pass where tensor
   operations take ten. Compiled for this machine; the results are those of the operations in
   fake_quantise.py and linear_layer.py, but for the order of sums. Maps have their channels last. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 64 /* rows summed before the sum goes on in doubles */
#define SMALLEST_SCALE 1e-8f /* as in fake_quantise.py */

/* Half to even: adding this leaves no bits below one. Wrong only where clamping follows anyway. */
#define ROUNDER 12582912.0f

static float round_even(float value)
{
    return (value + ROUNDER) - ROUNDER;
}

static float clamp(float value, float low, float high)
{
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* The nearest value on the grid, and whether it was not clipped. */
static inline float on_grid(float value, float scale, float low, float high, uint8_t *inside)
{
    const float steps = round_even(value / scale), held = clamp(steps, low, high);
    *inside = steps == held;
    return held * scale;
}

static void quantise_by(float scale, const float *x, float *y, uint8_t *inside, size_t count,
                        float low, float high)
{
    for (size_t i = 0; i < count; i++) {
        y[i] = on_grid(x[i], scale, low, high, inside + i);
    }
}

/* `count` values of each of `members`, by a scale of its own. */
void quantise(const float *x, float *y, uint8_t *inside, size_t members, size_t count,
              const float *scales, float low, float high)
{
    for (size_t m = 0, at = 0; m < members; m++, at += count) {
        quantise_by(scales[m], x + at, y + at, inside + at, count, low, high);
    }
}

/* The largest value, or size where `sizes`; 0 if that is below 0. */
static float largest(const float *x, size_t count, int sizes)
{
    float lanes[LANES] = {0}, most = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            const float value = x[i + j], size = sizes && value < 0 ? -value : value;
            lanes[j] = size > lanes[j] ? size : lanes[j];
        }
    }
    for (; i < count; i++) {
        const float size = sizes && x[i] < 0 ? -x[i] : x[i];
        most = size > most ? size : most;
    }
    for (size_t j = 0; j < LANES; j++) {
        most = lanes[j] > most ? lanes[j] : most;
    }
    return most;
}

/* The scale that `peak` gives once it has moved towards `newest` by `momentum`, from 0 all the way. */
static float follow(float *peak, float newest, float momentum, float most)
{
    if (momentum > 0) {
        *peak = *peak > 0 ? *peak + momentum * (newest - *peak) : newest;
    }
    return *peak / most + SMALLEST_SCALE;
}

/* Moves each member's peak towards its largest size and quantises by peak / most. */
void follow_and_quantise(const float *x, float *y, uint8_t *inside, size_t members, size_t count,
                         float *peaks, float momentum, float most, float low, float high)
{
    for (size_t m = 0, at = 0; m < members; m++, at += count) {
        const float newest = largest(x + at, count, low < 0);
        const float scale = follow(peaks + m, newest, momentum, most);
        quantise_by(scale, x + at, y + at, inside + at, count, low, high);
    }
}

/* The scale of a row of weights; see fake_quantise.py. */
static float row_scale(const float *x, size_t count, int bits, float limit)
{
    float sums[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            sums[j] += x[i + j] < 0 ? -x[i + j] : x[i + j];
        }
    }
    for (; i < count; i++) {
        sum += x[i] < 0 ? -x[i] : x[i];
    }
    for (size_t j = 0; j < LANES; j++) {
        sum += sums[j];
    }
    const float mean = sum / (float)count;
    if (bits == 2) {
        return mean * 1.5f;
    }
    const float whole = largest(x, count, 1) / limit, clipped = mean * 3.5f / limit;
    return bits == 4 && clipped < whole ? clipped : whole;
}

/* Each of `rows` by a scale of its own, which is kept, to the integers from -limit to limit. */
void quantise_rows(const float *x, float *scales, float *y, uint8_t *inside, size_t rows,
                   size_t columns, int bits, float limit)
{
    for (size_t row = 0; row < rows; row++) {
        const size_t at = row * columns;
        scales[row] = row_scale(x + at, columns, bits, limit) + SMALLEST_SCALE;
        quantise_by(scales[row], x + at, y + at, inside + at, columns, -limit, limit);
    }
}

/* A gradient where nothing was clipped, 0 elsewhere. */
void keep(const float *gradient, const uint8_t *inside, float *kept, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        kept[i] = inside[i] ? gradient[i] : 0;
    }
}

/* How windows lie on maps of `height` x `width` x `channels`; `window_t` of fused.py. */
typedef struct {
    size_t maps, height, width, channels, rows, columns; /* maps a member, windows a map */
    size_t kernel_height, kernel_width, stride_height, stride_width;
    ptrdiff_t top, left; /* padding */
} window_t;

/* A window: whose, on which of all maps, and where. */
typedef struct {
    size_t member, map, row, column;
} place_t;

/* The next of the windows, which lie in this order wherever there is something for each. */
static void next(const window_t *w, place_t *at)
{
    if (++at->column == w->columns) {
        at->column = 0;
        if (++at->row == w->rows) {
            at->row = 0;
            if (++at->map % w->maps == 0) {
                at->member++;
            }
        }
    }
}

/* The part of row `i` of a window that lies on its map: it begins at `from` of the maps, after
   `skip` values of padding, and has `count` values. */
typedef struct {
    size_t from, skip, count;
} part_t;

static part_t part(const window_t *w, const place_t *at, size_t i)
{
    const ptrdiff_t y = (ptrdiff_t)(at->row * w->stride_height + i) - w->top;
    const ptrdiff_t x = (ptrdiff_t)(at->column * w->stride_width) - w->left;
    const ptrdiff_t end = x + (ptrdiff_t)w->kernel_width, width = (ptrdiff_t)w->width;
    const ptrdiff_t first = x < 0 ? 0 : x, last = end > width ? width : end;
    if (y < 0 || y >= (ptrdiff_t)w->height || last <= first) {
        return (part_t){0, 0, 0};
    }
    const size_t row = at->map * w->height + (size_t)y;
    return (part_t){(row * w->width + (size_t)first) * w->channels,
                    (size_t)(first - x) * w->channels, (size_t)(last - first) * w->channels};
}

static size_t map_values(const window_t *w, size_t members)
{
    return members * w->maps * w->height * w->width * w->channels;
}

/* Each window of `x` as a row of `windows`, (kernel_height, kernel_width, channels). */
void gather(const window_t *w, size_t members, const float *restrict x, float *restrict windows)
{
    const size_t wide = w->kernel_width * w->channels;
    for (place_t at = {0}; at.member < members; next(w, &at)) {
        for (size_t i = 0; i < w->kernel_height; i++, windows += wide) {
            const part_t p = part(w, &at, i);
            for (size_t j = 0; j < p.skip; j++) {
                windows[j] = 0;
            }
            for (size_t j = 0; j < p.count; j++) {
                windows[p.skip + j] = x[p.from + j];
            }
            for (size_t j = p.skip + p.count; j < wide; j++) {
                windows[j] = 0;
            }
        }
    }
}

/* The reverse of `gather`: what lies in several windows is summed. */
void scatter(const window_t *w, size_t members, const float *restrict windows, float *restrict x)
{
    const size_t wide = w->kernel_width * w->channels;
    memset(x, 0, map_values(w, members) * sizeof *x);
    for (place_t at = {0}; at.member < members; next(w, &at)) {
        for (size_t i = 0; i < w->kernel_height; i++, windows += wide) {
            const part_t p = part(w, &at, i);
            for (size_t j = 0; j < p.count; j++) {
                x[p.from + j] += windows[p.skip + j];
            }
        }
    }
}

/* Where the factors of a part lie among the weights (member, kernel_height, kernel_width, channels)
   of a depthwise convolution. */
static size_t factors_of(const window_t *w, const place_t *at, const part_t *p, size_t i)
{
    const size_t wide = w->kernel_width * w->channels;
    return (at->member * w->kernel_height + i) * wide + p->skip;
}

/* A depthwise convolution. */
void depthwise(const window_t *w, size_t members, const float *restrict x,
               const float *restrict weight, float *restrict y)
{
    memset(y, 0, members * w->maps * w->rows * w->columns * w->channels * sizeof *y);
    for (place_t at = {0}; at.member < members; next(w, &at), y += w->channels) {
        for (size_t i = 0; i < w->kernel_height; i++) {
            const part_t p = part(w, &at, i);
            const float *values = x + p.from, *factors = weight + factors_of(w, &at, &p, i);
            for (size_t j = 0; j < p.count; j += w->channels) {
                for (size_t c = 0; c < w->channels; c++) {
                    y[c] += values[j + c] * factors[j + c];
                }
            }
        }
    }
}

/* Gradients of `depthwise`: of the weights, */
void depthwise_back(const window_t *w, size_t members, const float *restrict x,
                    const float *restrict gradient, float *restrict of_weight)
{
    const size_t taps = w->kernel_height * w->kernel_width * w->channels;
    memset(of_weight, 0, members * taps * sizeof *of_weight);
    for (place_t at = {0}; at.member < members; next(w, &at), gradient += w->channels) {
        for (size_t i = 0; i < w->kernel_height; i++) {
            const part_t p = part(w, &at, i);
            const float *values = x + p.from;
            float *factors = of_weight + factors_of(w, &at, &p, i);
            for (size_t j = 0; j < p.count; j += w->channels) {
                for (size_t c = 0; c < w->channels; c++) {
                    factors[j + c] += gradient[c] * values[j + c];
                }
            }
        }
    }
}

/* and of the maps. */
void depthwise_spread(const window_t *w, size_t members, const float *restrict weight,
                      const float *restrict gradient, float *restrict of_x)
{
    memset(of_x, 0, map_values(w, members) * sizeof *of_x);
    for (place_t at = {0}; at.member < members; next(w, &at), gradient += w->channels) {
        for (size_t i = 0; i < w->kernel_height; i++) {
            const part_t p = part(w, &at, i);
            const float *factors = weight + factors_of(w, &at, &p, i);
            float *values = of_x + p.from;
            for (size_t j = 0; j < p.count; j += w->channels) {
                for (size_t c = 0; c < w->channels; c++) {
                    values[j + c] += gradient[c] * factors[j + c];
                }
            }
        }
    }
}

/* Sums over rows of `x` and of its product with `y`, both less `shift`. */
static void row_sums(const float *restrict x, const float *restrict y, const float *restrict shift,
                     size_t rows, size_t channels, double *restrict sums, double *restrict products)
{
    float some[channels], some_products[channels];
    memset(sums, 0, channels * sizeof *sums);
    memset(products, 0, channels * sizeof *products);
    for (size_t first = 0; first < rows; first += BLOCK) {
        const size_t end = rows - first < BLOCK ? rows : first + BLOCK;
        memset(some, 0, sizeof some);
        memset(some_products, 0, sizeof some_products);
        for (size_t row = first; row < end; row++) {
            for (size_t c = 0; c < channels; c++) {
                const float value = x[row * channels + c] - shift[c];
                some[c] += value;
                some_products[c] += value * (y[row * channels + c] - shift[c]);
            }
        }
        for (size_t c = 0; c < channels; c++) {
            sums[c] += some[c];
            products[c] += some_products[c];
        }
    }
}

/* Means and variances of `rows` of `channels`. */
static void moments(const float *y, size_t rows, size_t channels, float *means, float *variances)
{
    double sums[channels], squares[channels];
    /* From the first row, which is near the mean: squares lose nothing. */
    row_sums(y, y, y, rows, channels, sums, squares);
    for (size_t c = 0; c < channels; c++) {
        const double apart = sums[c] / (double)rows;
        const double variance = squares[c] / (double)rows - apart * apart;
        means[c] = y[c] + (float)apart;
        variances[c] = variance < 0 ? 0 : (float)variance;
    }
}

/* out = y * gain + bias, followed and quantised. */
static void adjust_one(const float *restrict y, float *restrict out, uint8_t *restrict inside,
                       size_t rows, size_t channels, const float *gain, const float *bias,
                       float *peak, float momentum, float most, float low, float high)
{
    for (size_t row = 0; row < rows; row++) {
        for (size_t c = 0; c < channels; c++) {
            out[row * channels + c] = y[row * channels + c] * gain[c] + bias[c];
        }
    }
    const size_t count = rows * channels;
    const float scale = follow(peak, largest(out, count, low < 0), momentum, most);
    for (size_t at = 0; at < count; at++) { /* `quantise_by` is several times slower in place */
        out[at] = on_grid(out[at], scale, low, high, inside + at);
    }
}

/* The end of a layer for each of `members`: `rows` of `channels` times gain plus bias, ReLU where
   `low` is 0, and the quantiser of the activation, whose peak follows by `momentum`. */
void adjust(const float *y, float *out, uint8_t *inside, size_t members, size_t rows,
            size_t channels, const float *gain, const float *bias, float *peaks, float momentum,
            float most, float low, float high)
{
    for (size_t m = 0; m < members; m++) {
        const size_t at = m * rows * channels, c = m * channels;
        adjust_one(y + at, out + at, inside + at, rows, channels, gain + c, bias + c, peaks + m,
                   momentum, most, low, high);
    }
}

/* Batch norm and then `adjust`. `y` becomes what is normalised but for gain and bias; `scales` takes
   1 / standard deviation; `mean` and `variance` move towards those of the rows. */
void normalise(float *y, float *out, uint8_t *inside, size_t members, size_t rows, size_t channels,
               const float *gain, const float *bias, float *mean, float *variance, float *scales,
               float norm_momentum, float epsilon, float *peaks, float momentum, float most,
               float low, float high)
{
    const float whole = rows > 1 ? (float)rows / (float)(rows - 1) : 1;
    float means[channels], variances[channels];
    for (size_t m = 0; m < members; m++) {
        const size_t start = m * channels;
        float *const values = y + start * rows;
        moments(values, rows, channels, means, variances);
        for (size_t c = 0; c < channels; c++) {
            scales[start + c] = 1 / sqrtf(variances[c] + epsilon);
            mean[start + c] += norm_momentum * (means[c] - mean[start + c]);
            variance[start + c] += norm_momentum * (variances[c] * whole - variance[start + c]);
        }
        for (size_t row = 0; row < rows; row++) {
            for (size_t c = 0; c < channels; c++) {
                float *const value = values + row * channels + c;
                *value = (*value - means[c]) * scales[start + c];
            }
        }
    }
    adjust(y, out, inside, members, rows, channels, gain, bias, peaks, momentum, most, low, high);
}

/* Gradients of `adjust`, or where `scales` are given of `normalise`: `gradient` of its result becomes
   that of its input; `y` is what it left there. */
void adjust_back(const float *y, const uint8_t *inside, float *gradient, size_t members,
                 size_t rows, size_t channels, const float *gain, const float *scales,
                 float *of_gain, float *of_bias)
{
    double biases[channels], gains[channels];
    float factor[channels], slope[channels], offset[channels], nothing[channels];
    memset(nothing, 0, sizeof nothing);
    for (size_t at = 0; at < members * rows * channels; at++) {
        gradient[at] = inside[at] ? gradient[at] : 0;
    }
    for (size_t m = 0; m < members; m++) {
        const size_t start = m * channels;
        const float *const values = y + start * rows;
        float *const passed = gradient + start * rows;
        row_sums(passed, values, nothing, rows, channels, biases, gains);
        for (size_t c = 0; c < channels; c++) {
            of_gain[start + c] = (float)gains[c];
            of_bias[start + c] = (float)biases[c];
            factor[c] = gain[start + c] * (scales ? scales[start + c] : 1);
            slope[c] = scales ? of_gain[start + c] / (float)rows : 0;
            offset[c] = scales ? of_bias[start + c] / (float)rows : 0;
        }
        for (size_t row = 0; row < rows; row++) {
            for (size_t c = 0; c < channels; c++) {
                const size_t at = row * channels + c;
                passed[at] = factor[c] * (passed[at] - offset[c] - values[at] * slope[c]);
            }
        }
    }
}
