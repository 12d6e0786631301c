/* The recurrence of a Mamba block: h += (1 - a) (b u - h), y = (sum of h c + skip u) z. */
#include "sequence.h"
#include "words.h"

typedef struct {
    const int8_t *u, *dt, *b, *c, *z;
} nas_scan_inputs;

/* The states of one channel after one more step; returns the sum of h c. */
static int32_t advance(int16_t *h, const int8_t *b, const int8_t *c, int32_t u, int32_t decay,
                       uint32_t states) {
    int32_t power = decay, sum = 0;
    NAS_ROLLED
    for (uint32_t n = 0; n < states; n++) {
        h[n] = (int16_t)(h[n] + nas_halve(((1 << NAS_STATE_BITS) - power) * (b[n] * u - h[n])));
        sum += h[n] * c[n];
        power = nas_halve(power * decay);
    }
    return sum;
}

/* All steps of one channel, by the definition. */
static void scan_channel(const nas_scan *scan, const nas_scan_inputs *inputs, int8_t *y,
                         int16_t *h, uint32_t channel) {
    const int8_t *b = inputs->b, *c = inputs->c;
    uint32_t i = channel;
    NAS_ROLLED
    for (uint32_t step = scan->steps; step > 0; step--, i += scan->channels) {
        int32_t u = inputs->u[i];
        int32_t sum = advance(h, b, c, u, scan->decay[inputs->dt[i] + 128], scan->states);
        sum = nas_rescale_16(sum + scan->skip[channel] * u, scan->sum);
        y[i] = nas_requantise(sum * inputs->z[i], scan->out, scan->out_zero);
        b += scan->states;
        c += scan->states;
    }
}

static void clear_states(int16_t *h, uint32_t count) {
    NAS_ROLLED
    for (; count > 0; count--) {
        *h++ = 0;
        NAS_NO_CALL();
    }
}

#if defined(__ARM_FEATURE_DSP)
enum { BLOCK = 16 }; /* channels that share the widened b and c of a step, and have states */

typedef struct {
    int32_t multiplier, offset, shift;
} nas_scan_factor;

/* One step of a block; pointers to channels point past its end. scan_channels.S has the offsets. */
typedef struct {
    const int8_t *u, *dt;
    const int16_t *decay; /* of dt = 0 */
    const int32_t *skip;
    const uint32_t *lanes; /* two of b, two of -2 c, and so on */
    int32_t pairs;         /* of states, less one, in the upper half */
    uint32_t single;       /* whether one state is left */
    const int8_t *z;
    int8_t *y;
    nas_scan_factor sum, out;
} nas_scan_row;

void NAS(scan_channels)(const nas_scan_row *row, int16_t *state, int32_t before_end);

static inline nas_scan_factor in_row(nas_factor factor, int32_t zero) {
    int32_t shift = -factor.shift;
    return (nas_scan_factor){factor.multiplier, (2 * zero + 1) * (1 << (shift - 1)), shift};
}

static void widen_states(const int8_t *b, const int8_t *c, uint32_t *lanes, uint32_t states) {
    int16_t *lane = (int16_t *)lanes;
    NAS_ROLLED
    for (uint32_t n = 0; n < states; n++, lane += n % 2 ? 1 : 3) {
        lane[0] = b[n];
        lane[2] = (int16_t)(-2 * c[n]);
    }
}

/* The channels from `channel` on, `count` of them. */
static void scan_block(const nas_scan *scan, const nas_scan_inputs *inputs, int8_t *y,
                       uint32_t *lanes, int16_t *state, uint32_t channel, uint32_t count) {
    uint32_t states = scan->states, end = channel + count;
    const int8_t *b = inputs->b, *c = inputs->c;
    nas_scan_row row = {
        inputs->u + end, inputs->dt + end, scan->decay + 128, scan->skip + end, lanes,
        ((int32_t)states / 2 - 1) * 65536, states % 2, inputs->z + end, y + end,
        in_row(scan->sum, 0), in_row(scan->out, scan->out_zero),
    };
    NAS_ROLLED
    for (uint32_t step = scan->steps; step > 0; step--) {
        widen_states(b, c, lanes, states);
        NAS(scan_channels)(&row, state, -(int32_t)count);
        b += states;
        c += states;
        row.u += scan->channels;
        row.dt += scan->channels;
        row.z += scan->channels;
        row.y += scan->channels;
    }
}

static int scan_fast(const nas_scan *scan, const nas_scan_inputs *inputs, int8_t *y,
                     uint32_t *scratch, int16_t *state) {
    uint32_t states = scan->states, channels = scan->channels;
    if (scan->sum.shift > -1 || scan->sum.shift < -30 || scan->out.shift > -1 ||
        scan->out.shift < -23) {
        return 0;
    }
    NAS_ROLLED
    for (uint32_t channel = 0; channel < channels; channel += BLOCK) {
        uint32_t count = channels - channel < BLOCK ? channels - channel : BLOCK;
        int16_t *held = (int16_t *)(scratch + (states + 1) / 2 * 2);
        if (state == 0) {
            clear_states(held, count * states);
        } else {
            held = state + channel * states;
        }
        scan_block(scan, inputs, y, scratch, held, channel, count);
    }
    return 1;
}
#endif

void NAS(selective_scan)(const nas_scan *scan, const int8_t *u, const int8_t *dt, const int8_t *b,
                         const int8_t *c, const int8_t *z, int8_t *y, void *scratch, void *state) {
    nas_scan_inputs inputs = {u, dt, b, c, z};
    int16_t *h = state == 0 ? scratch : state;
#if defined(__ARM_FEATURE_DSP)
    if (scan_fast(scan, &inputs, y, scratch, state)) {
        return;
    }
#endif
    NAS_ROLLED
    for (uint32_t channel = 0; channel < scan->channels; channel++) {
        if (state == 0) {
            clear_states(h, scan->states);
        }
        scan_channel(scan, &inputs, y, h, channel);
        h += state == 0 ? 0 : scan->states;
    }
}
