#define TABLE SUFFIXED(kernels_avx512)
#define NAME "avx512"
#include "kernel_body.h"
