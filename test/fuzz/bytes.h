/* A fuzzer's input as a run of choices. Past its end all choices are 0. */
#ifndef RBOND_TEST_FUZZ_BYTES_H
#define RBOND_TEST_FUZZ_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t take8(struct bytes *b)
{
    if (!b->left) return 0;
    b->left--;
    return *b->at++;
}

static inline uint16_t take16(struct bytes *b)
{
    uint16_t low = take8(b);
    return (uint16_t)(low | take8(b) << 8);
}

static inline uint32_t take32(struct bytes *b)
{
    uint32_t low = take16(b);
    return low | (uint32_t)take16(b) << 16;
}

/* 0 .. n - 1; n at most 256. */
static inline uint32_t pick(struct bytes *b, uint32_t n) { return take8(b) % n; }
static inline bool maybe(struct bytes *b) { return take8(b) & 1; }

/* The next `len` bytes, or as many as there are: *got. They stay where they are. */
static inline const uint8_t *take_run(struct bytes *b, size_t len, size_t *got)
{
    const uint8_t *at = b->at;
    *got = len < b->left ? len : b->left;
    b->at += *got;
    b->left -= *got;
    return at;
}

#endif
