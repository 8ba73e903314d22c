/* Software prefetch. */
#ifndef FMNIST_PREFETCH_H
#define FMNIST_PREFETCH_H

enum { CACHE_LINE = 64 };

/* Into L2: the data is read some 10,000 cycles later. */
static inline void prefetch(const void *data, long size)
{
    const char *byte = data;
    for (long at = 0; at < size; at += CACHE_LINE)
        __builtin_prefetch(byte + at, 0, 2);
    __builtin_prefetch(byte + size - 1, 0, 2);
    __asm__ volatile(""); /* gcc drops calls of a function that does nothing but prefetch */
}

#endif
