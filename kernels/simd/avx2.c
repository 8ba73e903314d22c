#define TABLE OF_TYPE(loops_avx2)
#define NAME "avx2"
#include "loops_body.h"
