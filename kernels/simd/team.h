/* A team of threads that meet: each waits until all have come. */
#ifndef FMNIST_TEAM_H
#define FMNIST_TEAM_H

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

/* Turns of spinning before a waiting thread lets others run, and how often it does so before it
 * sleeps. A balanced step makes a thread wait for less than 20 us. The thread that is awaited may
 * have been given the same core, or share it with another process: who spins on keeps it from
 * running, and 3 threads on 2 cores took ten times as long when all spun for 100 us. */
enum { SPINS = 2000, YIELDS = 100 };

typedef struct {
    int size, spins;
    atomic_int arrived;
    atomic_uint round;
    pthread_mutex_t lock;
    pthread_cond_t next_round;
} team;

/* spin: the threads have a core each. Else spinning only keeps the one that is awaited from its. */
static inline void team_begin(team *t, int size, int spin)
{
    t->size = size;
    t->spins = spin ? SPINS : 0;
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
    for (int waited = 0; waited < t->spins + YIELDS; waited++) {
        if (atomic_load_explicit(&t->round, memory_order_acquire) != round)
            return;
        if (waited < t->spins)
            RELAX();
        else
            sched_yield();
    }
    pthread_mutex_lock(&t->lock);
    while (atomic_load_explicit(&t->round, memory_order_acquire) == round)
        pthread_cond_wait(&t->next_round, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

/* The first of `count` parts that nobody else gets. */
static inline long team_claim(long *next, long count)
{
    return __atomic_fetch_add(next, count, __ATOMIC_RELAXED);
}

/* Linux puts a new thread on the core of the one that starts it, and leaves it there for some 8 ms
 * although another core is idle: of two that spin for each other each lost 4 ms, in 11 of 12 calls.
 * So every thread of a team begins on a core of its own; from then on the system may move it. */
#if defined(__linux__)
typedef struct {
    cpu_set_t all; /* cores that the caller may use; none: there are not enough, or nobody knows */
    int next;
} team_cores;

static inline void team_cores_begin(team_cores *cores, long threads)
{
    cores->next = 0;
    if (sched_getaffinity(0, sizeof cores->all, &cores->all) != 0
        || CPU_COUNT(&cores->all) < threads)
        CPU_ZERO(&cores->all);
}

/* The next core that is not the caller's. It is not asked whether that is possible: a thread that
 * stays where it is only begins later. */
static inline void team_cores_move(team_cores *cores, pthread_t thread)
{
    cpu_set_t one;
    int here = sched_getcpu();
    while (cores->next < CPU_SETSIZE
           && (cores->next == here || !CPU_ISSET(cores->next, &cores->all)))
        cores->next++;
    if (cores->next == CPU_SETSIZE)
        return;
    CPU_ZERO(&one);
    CPU_SET(cores->next++, &one);
    pthread_setaffinity_np(thread, sizeof one, &one);
}

static inline void team_cores_free(const team_cores *cores)
{
    if (CPU_COUNT(&cores->all))
        sched_setaffinity(0, sizeof cores->all, &cores->all);
}
#else
typedef int team_cores;

static inline void team_cores_begin(team_cores *cores, long threads)
{
    *cores = 0;
    (void)threads;
}

static inline void team_cores_move(team_cores *cores, pthread_t thread)
{
    (void)cores;
    (void)thread;
}

static inline void team_cores_free(const team_cores *cores)
{
    (void)cores;
}
#endif

/* What a thread of its own does, when the gate opens. */
typedef struct {
    void (*job)(void *plan, long thread);
    void *plan;
    long thread;
    pthread_mutex_t *gate;
    const int *cancelled;
    const team_cores *cores;
    pthread_t id;
} team_member;

static inline void *team_member_runs(void *argument)
{
    team_member *member = argument;
    pthread_mutex_lock(member->gate);
    pthread_mutex_unlock(member->gate);
    team_cores_free(member->cores);
    if (!*member->cancelled)
        member->job(member->plan, member->thread);
    return NULL;
}

/* job(plan, 0) here and job(plan, 1), job(plan, 2), ... on threads of their own; returns when all are
 * done. Nobody begins before all threads exist: they wait for each other, so that one that could
 * not be started would be waited for forever. Returns an error of errno.h, and nothing was done,
 * or 0. Threads of Python's would cost 0.3 ms a call, which is as much as an epoch of small data. */
static inline int team_run(void (*job)(void *plan, long thread), void *plan, long threads)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    team_cores cores;
    int error = 0;
    long started = 1;
    if (threads == 1) {
        job(plan, 0);
        return 0;
    }
    team_member *members = calloc((size_t)threads, sizeof *members);
    if (members == NULL)
        return ENOMEM;
    team_cores_begin(&cores, threads);
    pthread_mutex_lock(&gate);
    for (; started < threads && !error; started += !error) {
        members[started] = (team_member){job, plan, started, &gate, &error, &cores, 0};
        error = pthread_create(&members[started].id, NULL, team_member_runs, members + started);
        if (!error)
            team_cores_move(&cores, members[started].id);
    }
    pthread_mutex_unlock(&gate);
    if (!error)
        job(plan, 0);
    while (--started > 0)
        pthread_join(members[started].id, NULL);
    free(members);
    return error;
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
