#define TABLE SUFFIXED(kernels_avx2)
#define NAME "avx2"
#include "kernel_body.h"
