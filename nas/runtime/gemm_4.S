/* Four pixels times all channels, 4-bit weights, inner products up to 512 inputs. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(gemm_4)
#define WIDE 0
#include "gemm_4.inc"
#endif
