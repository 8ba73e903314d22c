#define TABLE loops_baseline
#define NAME "baseline"
#include "loops_body.h"
