/* The floating type of the kernels, float or with DOUBLE double, and the suffix of its functions. */
#ifndef FMNIST_REAL_H
#define FMNIST_REAL_H

#include <math.h>

#ifdef DOUBLE
typedef double real;
#define SUFFIXED(name) name##_double
#define LOG log
#else
typedef float real;
#define SUFFIXED(name) name##_float
#define LOG logf
#endif

#endif
