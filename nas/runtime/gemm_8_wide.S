/* Four pixels times all channels, 8-bit weights, any inner product. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(gemm_8_wide)
#define WIDE 1
#include "gemm_8.inc"
#endif
