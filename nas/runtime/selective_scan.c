/* The recurrence of a Mamba block: h += (1 - a) (b u - h), y = (sum of h c + skip u) z. */
#include "sequence.h"
#include "words.h"

/* The states of one channel after one more step; returns the sum of h c. */
static int32_t advance(int16_t *h, const int8_t *b, const int8_t *c, int32_t u, int32_t decay,
                       uint32_t states) {
    int32_t power = decay, sum = 0;
    for (uint32_t n = 0; n < states; n++) {
        h[n] = (int16_t)(h[n] + nas_halve(((1 << NAS_STATE_BITS) - power) * (b[n] * u - h[n])));
        sum += h[n] * c[n];
        power = nas_halve(power * decay);
    }
    return sum;
}

void NAS(selective_scan)(const nas_scan *scan, const nas_scan_inputs *inputs, int8_t *y,
                         void *scratch, void *state) {
    uint32_t states = scan->states, channels = scan->channels;
    for (uint32_t channel = 0; channel < channels; channel++) {
        int16_t *h = state == 0 ? scratch : (int16_t *)state + channel * states;
        for (uint32_t n = 0; state == 0 && n < states; n++) {
            h[n] = 0;
        }
        for (uint32_t step = 0; step < scan->steps; step++) {
            uint32_t i = step * channels + channel;
            int32_t u = inputs->u[i];
            int32_t sum = advance(h, inputs->b + step * states, inputs->c + step * states, u,
                                  scan->decay[inputs->dt[i] + 128], states);
            sum = nas_rescale_16(sum + scan->skip[channel] * u, scan->sum);
            y[i] = nas_requantise(sum * inputs->z[i], scan->out, scan->out_zero);
        }
    }
}
