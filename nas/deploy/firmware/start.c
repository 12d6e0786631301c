/* Vector table and start-up of a Cortex-M4, for the program that the emulator runs. */

#include <stdint.h>

/* Set by the linker script. */
extern uint32_t firmware_stack_top, firmware_data, firmware_data_end, firmware_data_image;
extern uint32_t firmware_bss, firmware_bss_end;

void Reset_Handler(void);
void Default_Handler(void);
int main(void);

/* A program whose functions are called from outside needs no main of its own. */
__attribute__((weak)) int main(void) {
    return 0;
}

/* Any exception: there is nobody to return to. */
void Default_Handler(void) {
    for (;;) {
        __asm__ volatile("");
    }
}

/* Turns the FPU on, fills the variables, calls main. Volatile keeps the loops from becoming calls of
 * memcpy and memset, whose own variables would not be there yet. */
void Reset_Handler(void) {
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb");
#endif
    const volatile uint32_t *image = &firmware_data_image;
    for (volatile uint32_t *to = &firmware_data; to < &firmware_data_end; to++) {
        *to = *image++;
    }
    for (volatile uint32_t *to = &firmware_bss; to < &firmware_bss_end; to++) {
        *to = 0;
    }
    (void)main();
    Default_Handler();
}

typedef union {
    void (*handler)(void);
    uint32_t *stack_top;
} vector;

/* The stack, then reset and the other 14 exceptions of the core; the emulator raises no interrupt. */
__attribute__((section(".vectors"), used)) const vector firmware_vectors[16] = {
    {.stack_top = &firmware_stack_top}, {Reset_Handler},
    {Default_Handler}, {Default_Handler}, {Default_Handler}, {Default_Handler}, {Default_Handler},
    {Default_Handler}, {Default_Handler}, {Default_Handler}, {Default_Handler}, {Default_Handler},
    {Default_Handler}, {Default_Handler}, {Default_Handler}, {Default_Handler},
};
