#define DOUBLE
#include "baseline.c"
