#define TABLE OF_TYPE(loops_baseline)
#define NAME "baseline"
#include "loops_body.h"
