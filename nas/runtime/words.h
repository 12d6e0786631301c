/* Four int8 values in a word, and the instructions that the Cortex-M4 has for them. */
#ifndef NAS_WORDS_H
#define NAS_WORDS_H

#include <stdint.h>

/* Keeps compilers from making a copying loop a call of memcpy, which firmware may not have. */
#define NAS_NO_CALL() __asm__ volatile("" ::: "memory")

/* Before a loop that need not be fast: clang would unroll it, to several times its size. */
#if defined(__clang__)
#define NAS_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define NAS_ROLLED
#endif

/* Keeps a function from being copied to each of its calls. */
#define NAS_ONCE __attribute__((noinline))

#if defined(__ARM_FEATURE_DSP)

/* A word from any address: the core reads unaligned words, but not unaligned pairs of them. */
static inline uint32_t nas_load(const int8_t *from) {
    uint32_t word;
    __builtin_memcpy(&word, from, sizeof word);
    return word;
}

static inline void nas_store(int8_t *to, uint32_t word) {
    __builtin_memcpy(to, &word, sizeof word);
}

/* The larger of each pair of bytes. */
static inline uint32_t nas_max4(uint32_t a, uint32_t b) {
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    return larger;
}

/* sums + bytes 0 and 2 of `word`, in 16-bit lanes; */
static inline uint32_t nas_add_even(uint32_t sums, uint32_t word) {
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2" : "=r"(result) : "r"(sums), "r"(word));
    return result;
}

/* and bytes 1 and 3. */
static inline uint32_t nas_add_odd(uint32_t sums, uint32_t word) {
    uint32_t result;
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(sums), "r"(word));
    return result;
}

/* addend + ((a * b + 2^31) >> 32) */
static inline int32_t nas_multiply_add(int32_t a, int32_t b, int32_t addend) {
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(addend));
    return result;
}

/* a * b >> 32 */
static inline int32_t nas_multiply_top(int32_t a, int32_t b) {
    int32_t result;
    __asm__("smmul %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

static inline int32_t nas_saturate(int32_t value) {
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value) : "cc");
    return result;
}

/* a * b of the lower halves, and of the upper ones. */
static inline int32_t nas_multiply_low(uint32_t a, uint32_t b) {
    int32_t result;
    __asm__("smulbb %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

static inline int32_t nas_multiply_high(uint32_t a, uint32_t b) {
    int32_t result;
    __asm__("smultt %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

/* The low byte of `byte` in place of byte `lane` of `word`. */
#define NAS_INSERT(word, byte, lane) \
    __asm__("bfi %0, %1, %2, #8" : "+r"(word) : "r"(byte), "I"(8 * (lane)))

#endif
#endif
