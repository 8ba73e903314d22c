/* Turning masks of rows into masks of columns. */
#ifndef FMNIST_BITS_H
#define FMNIST_BITS_H

#include <stdint.h>

/* columns[k] gets bit s from bit k of rows[s], for 64 rows; rows from `count` on count as empty.
 * Swaps ever smaller squares across the diagonal. Source: Warren, Hacker's Delight (2012), 7-3. */
static inline void transpose_bits(const uint64_t *rows, long count, uint64_t *columns)
{
    for (long s = 0; s < 64; s++)
        columns[s] = s < count ? rows[s] : 0;
    uint64_t low = 0x00000000FFFFFFFFu;
    for (int size = 32; size; size >>= 1, low ^= low << size)
        for (int s = 0; s < 64; s = (s + size + 1) & ~size) {
            uint64_t swap = ((columns[s] >> size) ^ columns[s + size]) & low;
            columns[s] ^= swap << size;
            columns[s + size] ^= swap;
        }
}

#endif
