/* Team of threads that run one job in parallel, and the barrier at which they wait for each other. */
#ifndef FMNIST_THREAD_TEAM_H
#define FMNIST_THREAD_TEAM_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX() ((void)0)
#endif

/* Iterations of spinning before a waiting thread yields, and yields before it sleeps. Waits of a
 * balanced step are below 20 us. The thread that arrives last may have been scheduled on the same
 * core, or share its core with another process: spinning then keeps it from running, and 3 threads
 * on 2 cores took ten times as long when all spun for 100 us. */
enum { SPINS = 2000, YIELDS = 100 };

typedef struct {
    int size, spins;
    atomic_int arrived;
    atomic_uint generation;
    pthread_mutex_t lock;
    pthread_cond_t released;
} barrier;

/* spin: every thread has a core of its own. */
static inline void barrier_init(barrier *b, int size, int spin)
{
    b->size = size;
    b->spins = spin ? SPINS : 0;
    atomic_init(&b->arrived, 0);
    atomic_init(&b->generation, 0);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->released, NULL);
}

static inline void barrier_destroy(barrier *b)
{
    pthread_cond_destroy(&b->released);
    pthread_mutex_destroy(&b->lock);
}

static inline void barrier_wait(barrier *b)
{
    if (b->size == 1)
        return;
    unsigned generation = atomic_load_explicit(&b->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) == b->size - 1) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        pthread_mutex_lock(&b->lock); /* a thread about to sleep must not miss this */
        atomic_store_explicit(&b->generation, generation + 1, memory_order_release);
        pthread_cond_broadcast(&b->released);
        pthread_mutex_unlock(&b->lock);
        return;
    }
    for (int waited = 0; waited < b->spins + YIELDS; waited++) {
        if (atomic_load_explicit(&b->generation, memory_order_acquire) != generation)
            return;
        if (waited < b->spins)
            RELAX();
        else
            sched_yield();
    }
    pthread_mutex_lock(&b->lock);
    while (atomic_load_explicit(&b->generation, memory_order_acquire) == generation)
        pthread_cond_wait(&b->released, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

/* Claims the next `count` work items for the calling thread; returns the first. */
static inline long claim_items(long *next, long count)
{
    return __atomic_fetch_add(next, count, __ATOMIC_RELAXED);
}

/* Linux starts a new thread on the core of its creator and leaves it there for some 8 ms although
 * another core is idle: two threads that spin for each other lost 4 ms each, in 11 of 12 calls. So
 * every thread starts pinned to a core of its own, and is unpinned once it runs. */
#if defined(__linux__)
typedef struct {
    cpu_set_t allowed; /* of the caller; empty: fewer cores than threads, or unknown */
    int next;
} core_affinity;

static inline void affinity_init(core_affinity *cores, long threads)
{
    cores->next = 0;
    if (sched_getaffinity(0, sizeof cores->allowed, &cores->allowed) != 0
        || CPU_COUNT(&cores->allowed) < threads)
        CPU_ZERO(&cores->allowed);
}

/* Pins to the next core that is not the caller's. Errors are ignored: the thread then starts later,
 * on the core where it is. */
static inline void affinity_pin(core_affinity *cores, pthread_t thread)
{
    cpu_set_t one;
    int here = sched_getcpu();
    while (cores->next < CPU_SETSIZE
           && (cores->next == here || !CPU_ISSET(cores->next, &cores->allowed)))
        cores->next++;
    if (cores->next == CPU_SETSIZE)
        return;
    CPU_ZERO(&one);
    CPU_SET(cores->next++, &one);
    pthread_setaffinity_np(thread, sizeof one, &one);
}

static inline void affinity_unpin(const core_affinity *cores)
{
    if (CPU_COUNT(&cores->allowed))
        sched_setaffinity(0, sizeof cores->allowed, &cores->allowed);
}
#else
typedef int core_affinity;

static inline void affinity_init(core_affinity *cores, long threads)
{
    *cores = 0;
    (void)threads;
}

static inline void affinity_pin(core_affinity *cores, pthread_t thread)
{
    (void)cores;
    (void)thread;
}

static inline void affinity_unpin(const core_affinity *cores)
{
    (void)cores;
}
#endif

/* Arguments of a thread's main function. */
typedef struct {
    void (*job)(void *args, long thread);
    void *args;
    long thread;
    pthread_mutex_t *start_lock;
    const int *cancelled;
    const core_affinity *cores;
    pthread_t id;
} team_thread;

static inline void *team_thread_main(void *argument)
{
    team_thread *self = argument;
    pthread_mutex_lock(self->start_lock);
    pthread_mutex_unlock(self->start_lock);
    affinity_unpin(self->cores);
    if (!*self->cancelled)
        self->job(self->args, self->thread);
    return NULL;
}

/* Runs job(args, 0) here and job(args, 1), job(args, 2), ... on new threads, and joins them. Jobs
 * start when all threads exist, since they wait for each other at barriers. Returns 0, or an error
 * of errno.h if a thread could not be started and no job was run. Threads started from Python would
 * cost 0.3 ms a call, as much as an epoch of small data. */
static inline int team_run(void (*job)(void *args, long thread), void *args, long threads)
{
    pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
    core_affinity cores;
    int error = 0;
    long started = 1;
    if (threads == 1) {
        job(args, 0);
        return 0;
    }
    team_thread *team = calloc((size_t)threads, sizeof *team);
    if (team == NULL)
        return ENOMEM;
    affinity_init(&cores, threads);
    pthread_mutex_lock(&start_lock);
    for (; started < threads && !error; started += !error) {
        team[started] = (team_thread){.job = job, .args = args, .thread = started,
                                      .start_lock = &start_lock, .cancelled = &error,
                                      .cores = &cores};
        error = pthread_create(&team[started].id, NULL, team_thread_main, team + started);
        if (!error)
            affinity_pin(&cores, team[started].id);
    }
    pthread_mutex_unlock(&start_lock);
    if (!error)
        job(args, 0);
    while (--started > 0)
        pthread_join(team[started].id, NULL);
    free(team);
    return error;
}

/* Treats denormals as zero while training: idle moments of Adam decay into denormals, on which
 * arithmetic is many times slower. Returns the state to restore. */
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
