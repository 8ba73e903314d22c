/* The type of all numbers: DOUBLE says which, and each has its own copy of every function. */
#ifndef FMNIST_REAL_H
#define FMNIST_REAL_H

#include <math.h>

#ifdef DOUBLE
typedef double real;
#define OF_TYPE(name) name##_double
#define log_of log
#else
typedef float real;
#define OF_TYPE(name) name##_float
#define log_of logf
#endif

#endif
