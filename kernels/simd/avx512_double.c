#define DOUBLE
#include "avx512.c"
