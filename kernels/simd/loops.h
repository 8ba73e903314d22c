/* The innermost loops, one table of them per instruction set and type of numbers.
 *
 * Matrices are cut into panels of 64 columns: panel p of a (rows, columns) matrix holds columns
 * 64 p and up as (rows, width) numbers, width 64, in the last panel the rest rounded up to 16; the
 * columns beyond the matrix are zero. A 64 x 64 block of weights is 16 KiB in float32, half of the
 * smallest L1 cache, and a row of it fits into 8 AVX2 registers.
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

#include "real.h"

#define find_loops OF_TYPE(find_loops)

/* A panel is 64 columns wide; a part of an update has a group of 16 outputs, a cache line of
 * weights, of which a panel has four. */
enum { PANEL = 64, OUTPUTS = 16, GROUPS = PANEL / OUTPUTS };

/* What a spec chooses, by number: kernels/reference.py, activate and update. Rows of a data set are
 * uint8, float32 or float64. */
enum { RELU, TANH, LOGISTIC, IDENTITY, ACTIVATIONS };
enum { ADAM, SGD, NESTEROV, RULES };
enum { BYTES, FLOATS, DOUBLES, ROW_TYPES };

/* The numbers of one step, see StepHyperparams in kernels/__init__.py. keep = 1 - decay, rest = 1 -
 * beta: taken in double, since 1 - 0.999f is off by 5e-5 of itself. */
typedef struct {
    real step_size, epsilon, l2, keep, beta1, rest1, beta2, rest2;
} step_numbers;

/* Some panels of a matrix: rows are ld apart, a panel begins `next` after another. */
typedef struct {
    const real *p;
    long ld, next;
} panels;

/* Dropout in a batch: the 64 random bits of every row, the least bits of a unit that stays, what those
 * units are multiplied by, scale, and stays = 1 / scale. See random_bits in kernels/reference.py. */
typedef struct {
    const uint64_t *row;
    uint32_t least;
    real scale, stays;
} dropout;

typedef struct {
    const char *name;

    /* out[s] = start[s] + sum over the set bits k of mask[s] & only of x[s][k] * w[k], for rows
     * first..last-1 of x (rows, ldx). `width` columns of w (64 rows), start (ld 0: one row for all)
     * and out, which may be start: one panel, or two of 64; out's rows are ldo apart, its panels
     * next. */
    void (*multiply)(const real *x, long ldx, const uint64_t *mask, uint64_t only, panels w,
                     panels start, real *out, long ldo, long next, long first, long last,
                     long width);

    /* The same over all of the first `inputs` columns of x, for data with few zeros. */
    void (*multiply_dense)(const real *x, long ldx, long inputs, panels w, panels start,
                           real *out, long ldo, long next, long first, long last, long width);

    /* out = start + sum over the entries e of values[e] * w[at[e]], in their order: a row of which
     * only the entries are stored, by rows of w, ldw apart. `columns` columns, of one panel or less;
     * out gets zeros up to a multiple of 16. */
    void (*sum_entries)(const real *values, const int64_t *at, long count, const real *w, long ldw,
                        const real *start, real *out, long columns);

    /* out[c][s] = in[s][c]: up to 64 rows of `width` columns, turned. out (width, 64) is zero from
     * rows on; mask[c] says where it is not zero; sums[c] grows by the sum of the column, row by
     * row. */
    void (*turn)(const real *in, long ldi, long rows, long width, real *out, uint64_t *mask,
                 real *sums);

    /* A gradient of 16 outputs by `inputs` inputs, g (16, 64), turned: into w, m and v (inputs,
     * ldw), which the rule moves; the sum of w's squares before is returned. The new weights also
     * go to turned (16, ldt), if that is not null. */
    real (*update_turned[RULES])(const real *g, long inputs, real *w, real *m, real *v, long ldw,
                                 real *turned, long ldt, const step_numbers *numbers);

    /* The same gradient as it is, into out (inputs, ldo). */
    void (*gradient_turned)(const real *g, long inputs, real *out, long ldo);

    /* out[c] = sum over s of delta[s][c], the gradient of a bias. */
    void (*column_sums)(const real *delta, long ldd, long rows, real *out, long width);

    /* The rule on `count` numbers whose gradients are g, or all zero if g is null. v is Adam's alone.
     * Returns the sum of p's squares before. */
    real (*update[RULES])(real *p, real *m, real *v, const real *g, long count,
                          const step_numbers *numbers);

    /* x += y; count is a multiple of 16. */
    void (*add)(real *x, const real *y, long count);

    /* The activation of the sums x, in place; NaN stays NaN. There are `columns` of them, and zeros
     * up to a multiple of 16. mask[s] gets the bits of what is not zero. */
    void (*activate[ACTIVATIONS])(real *x, long ldx, uint64_t *mask, long first, long last,
                                  long columns);

    /* x = 0 where dropout says so, the others scaled; unit is the number of the first column.
     * mask[s] gets the bits of what is not zero. */
    void (*drop_out)(real *x, long ldx, uint64_t *mask, long first, long last, long width,
                     const dropout *drop, uint32_t unit);

    /* delta times the slope of the activation, whose output is a, in place. drop: null, or what
     * drop_out was given: what it left out is zero here, too, the others are scaled. mask[s] gets
     * the bits of what is not zero. */
    void (*backward[ACTIVATIONS])(const real *a, real *delta, long ldd, uint64_t *mask, long first,
                                  long last, long width, const dropout *drop, uint32_t unit);

    /* The largest of `count` numbers and of so_far. */
    real (*largest)(const real *z, real so_far, long count);

    /* out[c] = e^(z[c] - peak) for `count` columns, zero up to a multiple of 16; returns the sum. */
    real (*exponential)(const real *z, real peak, real *out, long count);

    /* p = (factor * p - [column is target]) * share; no column is a target below 0. */
    void (*share_out)(real *p, real factor, long target, real share, long width);

    /* p = (factor * p - target) * share; returns the sum of target * z. All are zero beyond the
     * columns of the matrix. */
    real (*share_out_soft)(real *p, real factor, const real *target, const real *z,
                            real share, long width);

    /* Of `count` answers that are independent: delta = (sigmoid(z) - target) * share, zero up to a
     * multiple of 16; returns the sum of log(1 + e^z) - target * z, none of them above most. */
    real (*independent)(const real *z, const real *target, real share, real most, real *delta,
                        long count);

    /* Row s of out = scale * x, which has `count` columns, and its masks: panels of out and mask
     * begin `next` after each other, and the last one is as wide as what is left. x need not be
     * aligned. */
    void (*row_of[ROW_TYPES])(const void *x, real scale, long count, real *out, long next,
                              uint64_t *mask, long next_mask, long s);

    /* Fused multiply-adds in registers and nothing else; returns how many floating-point
     * operations they were. What benchmarks call this processor's peak. */
    double (*multiply_adds)(long turns);
} loops;

/* The loops of an instruction set, or a null pointer if it was not built or this processor lacks
 * it. Names: baseline, avx2, avx512. */
const loops *find_loops(const char *name);

#endif
