/* Averages and maxima over the steps of several runs, of which `state` keeps what came before. */
#include "kernels.h"
#include "words.h"

void NAS(running_average)(const nas_running *running, const int8_t *x, int8_t *y, void *state) {
    int32_t *sums = state;
    int32_t count = (int32_t)running->count;
    NAS_ROLLED
    for (uint32_t channel = 0; channel < running->channels; channel++) {
        const int8_t *at = x + channel;
        int32_t sum = sums[channel];
        NAS_ROLLED
        for (uint32_t step = running->steps; step > 0; step--, at += running->channels) {
            sum += *at;
        }
        sums[channel] = sum;
        y[channel] = (int8_t)((sum < 0 ? sum - count / 2 : sum + count / 2) / count);
    }
}

void NAS(running_max)(const nas_running *running, const int8_t *x, int8_t *y, void *state) {
    int8_t *best = state;
    NAS_ROLLED
    for (uint32_t channel = 0; channel < running->channels; channel++) {
        const int8_t *at = x + channel;
        int8_t most = best[channel];
        NAS_ROLLED
        for (uint32_t step = running->steps; step > 0; step--, at += running->channels) {
            most = *at > most ? *at : most;
        }
        best[channel] = most;
        y[channel] = most;
    }
}
