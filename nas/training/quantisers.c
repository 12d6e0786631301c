/* The loops of fake quantisation, one pass where tensor operations take ten. Compiled for this
   machine; the results are those of the operations in fake_quantise.py. */

#include <stddef.h>
#include <stdint.h>

#define LANES 16
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

void quantise(const float *x, float *y, uint8_t *inside, size_t count, float scale, float low,
              float high)
{
    for (size_t i = 0; i < count; i++) {
        const float steps = round_even(x[i] / scale), held = clamp(steps, low, high);
        y[i] = held * scale;
        inside[i] = steps == held;
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

/* Moves `peak` towards the largest size by `momentum`, from 0 all the way, and quantises by
   peak / most. */
void follow_and_quantise(const float *x, float *y, uint8_t *inside, size_t count, float *peak,
                         float momentum, float most, float low, float high)
{
    const float newest = largest(x, count, low < 0);
    *peak = *peak > 0 ? *peak + momentum * (newest - *peak) : newest;
    quantise(x, y, inside, count, *peak / most + SMALLEST_SCALE, low, high);
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
        quantise(x + at, y + at, inside + at, columns, scales[row], -limit, limit);
    }
}

/* A gradient where nothing was clipped, 0 elsewhere. */
void keep(const float *gradient, const uint8_t *inside, float *kept, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        kept[i] = inside[i] ? gradient[i] : 0;
    }
}
