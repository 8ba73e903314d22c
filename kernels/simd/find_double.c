#define DOUBLE
#include "find.c"
