/* Which instruction sets were built, and which of them this processor has. */
#include <stddef.h>
#include <string.h>

#include "loops.h"

extern const loops OF_TYPE(loops_baseline);
#ifdef BUILT_FOR_X86
extern const loops OF_TYPE(loops_avx2), OF_TYPE(loops_avx512);
#endif

const loops *find_loops(const char *name)
{
    if (strcmp(name, "baseline") == 0)
        return &OF_TYPE(loops_baseline);
#ifdef BUILT_FOR_X86
    if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return &OF_TYPE(loops_avx2);
    if (strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f"))
        return &OF_TYPE(loops_avx512);
#endif
    return NULL;
}
