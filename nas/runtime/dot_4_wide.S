/* One pixel times all channels, 4-bit weights, any inner product. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(dot_4_wide)
#define WIDE 1
#include "dot_4.inc"
#endif
