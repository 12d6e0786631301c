/* The arena of the model that is measured, as an application would hold it. */

#include <stdint.h>

extern uint32_t firmware_arena[ARENA_WORDS];
uint32_t firmware_arena[ARENA_WORDS];
