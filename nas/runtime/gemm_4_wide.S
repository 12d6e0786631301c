/* Four pixels times all channels, 4-bit weights, any inner product. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(gemm_4_wide)
#define WIDE 1
#include "gemm_4.inc"
#endif
