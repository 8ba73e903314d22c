#define DOUBLE
#include "avx2.c"
