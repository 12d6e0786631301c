/* Inputs of one pixel widened, words 4 bytes apart. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(widen_1)
#define STRIDE 4
#include "widen.inc"
#endif
