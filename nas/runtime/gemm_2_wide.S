/* Four pixels times all channels, 2-bit weights, any inner product. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(gemm_2_wide)
#define WIDE 1
#include "gemm_2.inc"
#endif
