/* Runs the model on recorded inputs and compares with what it must answer: 0 when every output is
 * equal, else the number of the first input that is not. Also an example of how the model is used.
 */
#include "@PREFIX@.h"
#include "test_vectors.h"

/* The arena may lie anywhere and serve others between two runs; words make it aligned to 4. */
static uint32_t arena[@UPPER@_ARENA_BYTES / 4u];

static void copy(int8_t *to, const int8_t *from, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        to[i] = from[i];
    }
}

int main(void) {
    for (int n = 0; n < TEST_VECTORS; n++) {
@COPIES@
        @PREFIX@_run(arena);
        for (uint32_t i = 0; i < @UPPER@_OUTPUT_SIZE; i++) {
            if (@PREFIX@_output(arena)[i] != expected[n][i]) {
                return n + 1;
            }
        }
    }
    return 0;
}
