/* One pixel times all channels, 4-bit weights, inner products up to 512 inputs. */
#if defined(__ARM_FEATURE_DSP)
#define NAME NAS(dot_4)
#define WIDE 0
#include "dot_4.inc"
#endif
