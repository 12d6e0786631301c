/* One pixel times all channels, 8-bit weights, inner products up to 512 inputs. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(dot_8)
#define WIDE 0
#include "dot_8.inc"
#endif
