#define TABLE loops_avx512
#define NAME "avx512"
#include "loops_body.h"
