/* Runs the model step by step over recorded windows and compares with what it must answer: 0 when
 * every output is equal, else the number of the first window that is not. Also an example of use.
 */
#include "@PREFIX@.h"
#include "test_vectors.h"

/* What lies here must stay as it is from one step to the next. */
static uint32_t memory[@UPPER@_STATE_BYTES / 4u];

static void copy(int8_t *to, const int8_t *from, uint32_t size) {
    for (uint32_t i = 0; i < size; i++) {
        to[i] = from[i];
    }
}

int main(void) {
    void *state = memory;
    @PREFIX@_reset(state);
    for (int n = 0; n < TEST_VECTORS; n++) {
        for (uint32_t step = 0; step < @UPPER@_WINDOW_STEPS; step++) {
@COPIES@
            if (@PREFIX@_step(state) != (step == @UPPER@_WINDOW_STEPS - 1u)) {
                return n + 1;
            }
        }
        for (uint32_t i = 0; i < @UPPER@_OUTPUT_SIZE; i++) {
            if (@PREFIX@_output(state)[i] != expected[n][i]) {
                return n + 1;
            }
        }
    }
    return 0;
}
