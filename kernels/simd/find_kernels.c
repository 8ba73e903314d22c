/* Lookup of the kernels by instruction set, if built and supported by this processor. */
#include <stddef.h>
#include <string.h>

#include "kernel_table.h"

extern const kernel_table SUFFIXED(kernels_baseline);
#ifdef BUILT_FOR_X86
extern const kernel_table SUFFIXED(kernels_avx2), SUFFIXED(kernels_avx512);
#endif

const kernel_table *find_kernels(const char *name)
{
    if (strcmp(name, "baseline") == 0)
        return &SUFFIXED(kernels_baseline);
#ifdef BUILT_FOR_X86
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return &SUFFIXED(kernels_avx2);
    if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f"))
        return &SUFFIXED(kernels_avx512);
#endif
    return NULL;
}
