/* The innermost loops, one table of them per instruction set.
 *
 * Matrices are cut into panels of 64 columns: panel p of a (rows, columns) matrix holds columns
 * 64 p and up as (rows, width) floats, width 64, in the last panel the rest rounded up to 16; the
 * columns beyond the matrix are zero. A 64 x 64 block of weights is 16 KiB, half of the smallest L1
 * cache, and a row of it fits into 8 AVX2 registers.
 *
 * A mask has one bit for each entry of 64 that is not zero. Products run over the set bits only, in
 * ascending order: x + 0 * w is x for finite w. The same product serves both ways: forward it skips
 * the inputs that are zero, and for the gradient, whose sums run over the rows of a batch, the
 * deltas that are zero, which ReLU leaves more of.
 *
 * kernels/reference.py says what the operations compute. */
#ifndef FMNIST_LOOPS_H
#define FMNIST_LOOPS_H

#include <stdint.h>

/* A panel is 64 columns wide; a part of an update has 16 outputs, a cache line of weights. */
enum { PANEL = 64, OUTPUTS = 16 };

/* The numbers of one step, see StepNumbers in kernels/__init__.py. keep = 1 - decay, rest = 1 -
 * beta: taken in double, since 1 - 0.999f is off by 5e-5 of itself. */
typedef struct {
    float step_size, epsilon, l2, keep, beta1, rest1, beta2, rest2;
} step_numbers;

/* Some panels of a matrix: rows are ld floats apart, a panel begins `next` floats after another. */
typedef struct {
    const float *p;
    long ld, next;
} panels;

/* Dropout in a batch: the 64 random bits of every row, the least bits of a unit that stays, and
 * what the units that stay are multiplied by. See random_bits in kernels/reference.py. */
typedef struct {
    const uint64_t *row;
    uint32_t least;
    float scale;
} dropout;

typedef struct {
    const char *name;

    /* out[s] = start[s] + sum over the set bits k of mask[s] & only of x[s][k] * w[k], for rows
     * first..last-1 of x (rows, ldx). `width` columns of w (64 rows), start (ld 0: one row for all)
     * and out, which may be start: one panel, or two of 64; out's rows are ldo apart, its panels
     * next. */
    void (*multiply)(const float *x, long ldx, const uint64_t *mask, uint64_t only, panels w,
                     panels start, float *out, long ldo, long next, long first, long last,
                     long width);

    /* The same over all of the first `inputs` columns of x, for data with few zeros. */
    void (*multiply_dense)(const float *x, long ldx, long inputs, panels w, panels start,
                           float *out, long ldo, long next, long first, long last, long width);

    /* out[c][s] = in[s][c]: up to 64 rows of `width` columns, turned. out (width, 64) is zero from
     * row `rows` on; mask[c] gets the bits of what is not zero in out[c]. */
    void (*turn)(const float *in, long ldi, long rows, long width, float *out, uint64_t *mask);

    /* A gradient of 16 outputs by `inputs` inputs, g (16, 64), turned: into w, m and v (inputs,
     * ldw), which Adam moves; the sum of w's squares before is returned. The new weights also go
     * to turned (16, ldt), if that is not null. Without numbers w becomes the gradient. */
    float (*adam_turned)(const float *g, long inputs, float *w, float *m, float *v, long ldw,
                         float *turned, long ldt, const step_numbers *numbers);

    /* The gradient of a bias, the sum over s of delta[s], and Adam; without numbers b becomes it. */
    void (*bias_gradient)(const float *delta, long ldd, long rows, float *b, float *m, float *v,
                          long width, const step_numbers *numbers);

    /* Adam on `count` numbers whose gradients are g. */
    void (*adam)(float *p, float *m, float *v, const float *g, long count,
                 const step_numbers *numbers);

    /* x += y; count is a multiple of 16. */
    void (*add)(float *x, const float *y, long count);

    /* x = max(0, x), NaN stays NaN; mask[s] gets the bits of what is not zero. */
    void (*relu)(float *x, long ldx, uint64_t *mask, long first, long last, long width);

    /* x = 0 where dropout says so, the others scaled; unit is the number of the first column.
     * mask[s] gets the bits of what is not zero. */
    void (*drop_out)(float *x, long ldx, uint64_t *mask, long first, long last, long width,
                     const dropout *drop, uint32_t unit);

    /* delta = scale * delta where a is above 0, else 0; mask[s] gets the bits of what is not zero. */
    void (*relu_delta)(const float *a, float *delta, long ldd, uint64_t *mask, long first,
                       long last, long width, float scale);

    /* The largest of `count` numbers and of so_far. */
    float (*largest)(const float *z, float so_far, long count);

    /* out[c] = e^(z[c] - peak) for `count` columns, zero up to a multiple of 16; returns the sum. */
    float (*exponential)(const float *z, float peak, float *out, long count);

    /* p = (factor * p - [column is target]) * share; no column is a target below 0. */
    void (*share_out)(float *p, float factor, long target, float share, long width);

    /* p = (factor * p - target) * share; returns the sum of target * z. All are zero beyond the
     * columns of the matrix. */
    float (*share_out_soft)(float *p, float factor, const float *target, const float *z,
                            float share, long width);

    /* Row s of out = scale * x, which has `count` columns, and its masks: panels of out and mask
     * begin `next` after each other, and the last one is as wide as what is left. */
    void (*row_of_bytes)(const uint8_t *x, float scale, long count, float *out, long next,
                         uint64_t *mask, long next_mask, long s);
    void (*row_of_floats)(const float *x, float scale, long count, float *out, long next,
                          uint64_t *mask, long next_mask, long s);

    /* Fused multiply-adds in registers and nothing else; returns how many floating-point
     * operations they were. What benchmarks call this processor's peak. */
    double (*multiply_adds)(long turns);
} loops;

/* The loops of an instruction set, or a null pointer if it was not built or this processor lacks
 * it. Names: baseline, avx2, avx512. */
const loops *find_loops(const char *name);

#endif
