#define TABLE SUFFIXED(kernels_baseline)
#define NAME "baseline"
#include "kernel_body.h"
