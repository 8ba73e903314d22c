/* A team of threads that meet: each waits until all have come. */
#ifndef FMNIST_TEAM_H
#define FMNIST_TEAM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX() ((void)0)
#endif

/* Turns of spinning before a waiting thread sleeps, some 100 us. A balanced step makes a thread wait
 * for less than 20 us, but on a shared machine a core is taken away for longer now and then, and
 * waking from sleep costs as much again: 2,000 turns made half of the epochs 1.5 times slower there,
 * 10,000 one in six. */
enum { SPINS = 10000 };

typedef struct {
    int size;
    atomic_int arrived;
    atomic_uint round;
    pthread_mutex_t lock;
    pthread_cond_t next_round;
} team;

static inline void team_begin(team *t, int size)
{
    t->size = size;
    atomic_init(&t->arrived, 0);
    atomic_init(&t->round, 0);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->next_round, NULL);
}

static inline void team_end(team *t)
{
    pthread_cond_destroy(&t->next_round);
    pthread_mutex_destroy(&t->lock);
}

static inline void team_meet(team *t)
{
    if (t->size == 1)
        return;
    unsigned round = atomic_load_explicit(&t->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == t->size - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        pthread_mutex_lock(&t->lock); /* a thread about to sleep must not miss this */
        atomic_store_explicit(&t->round, round + 1, memory_order_release);
        pthread_cond_broadcast(&t->next_round);
        pthread_mutex_unlock(&t->lock);
        return;
    }
    for (int spin = 0; spin < SPINS; spin++) {
        if (atomic_load_explicit(&t->round, memory_order_acquire) != round)
            return;
        RELAX();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load_explicit(&t->round, memory_order_acquire) == round)
        pthread_cond_wait(&t->next_round, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

/* Numbers too small to matter count as zero while training: idle moments of Adam decay into
 * denormals, and arithmetic on those is many times slower. Returns what to restore. */
static inline unsigned flush_denormals(void)
{
#if defined(__SSE2__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); /* flush to zero, denormals are zero */
    return before;
#else
    return 0;
#endif
}

static inline void restore_denormals(unsigned before)
{
#if defined(__SSE2__)
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

#endif
