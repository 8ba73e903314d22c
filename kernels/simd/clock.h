/* Seconds of one thread by phase; a comparison per lap where nothing is measured. */
#ifndef FMNIST_CLOCK_H
#define FMNIST_CLOCK_H

#include <time.h>

typedef struct {
    double *seconds; /* by phase; null: disabled */
    double since;
} stopwatch;

static inline double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline void stopwatch_start(stopwatch *watch, double *seconds)
{
    watch->seconds = seconds;
    watch->since = seconds ? monotonic_seconds() : 0;
}

/* Adds the time since the last lap to this phase. */
static inline void stopwatch_lap(stopwatch *watch, int phase)
{
    if (watch->seconds) {
        double now = monotonic_seconds();
        watch->seconds[phase] += now - watch->since;
        watch->since = now;
    }
}

#endif
