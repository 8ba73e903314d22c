#define DOUBLE
#include "find_kernels.c"
