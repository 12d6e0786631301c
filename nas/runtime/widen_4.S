/* Inputs of one pixel widened, words 16 bytes apart. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(widen_4)
#define STRIDE 16
#include "widen.inc"
#endif
