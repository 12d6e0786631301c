/* Four pixels times all channels, 2-bit weights, inner products up to 1020 inputs. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(gemm_2)
#define WIDE 0
#include "gemm_2.inc"
#endif
