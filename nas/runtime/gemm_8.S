/* Four pixels times all channels, 8-bit weights, inner products up to 512 inputs. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(gemm_8)
#define WIDE 0
#include "gemm_8.inc"
#endif
