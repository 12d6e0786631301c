/* One pixel times all channels, 8-bit weights, any inner product. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(dot_8_wide)
#define WIDE 1
#include "dot_8.inc"
#endif
