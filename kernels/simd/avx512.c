#define TABLE OF_TYPE(loops_avx512)
#define NAME "avx512"
#include "loops_body.h"
