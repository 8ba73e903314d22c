/* The innermost loops, one table of them per instruction set.
 *
 * Matrices are cut into panels of 64 columns: panel p of a (rows, columns) matrix holds columns
 * 64 p and up as (rows, width) floats, width 64, in the last panel the rest rounded up to 16; the
 * columns beyond the matrix are zero. A 64 x 64 block of weights is 16 KiB, half of the smallest L1
 * cache, and a row of it fits into 8 AVX2 registers.
 *
 * A mask has one bit for each entry of 64 that is not zero. Sums over the inputs of a layer run
 * over the set bits only, in ascending order: x + 0 * w is x for finite w.
 *
 * kernels/reference.py says what the operations compute. */
#ifndef FMNIST_LOOPS_H
#define FMNIST_LOOPS_H

#include <stdint.h>

enum { PANEL = 64 };

/* The numbers of one step, see StepNumbers in kernels/__init__.py. keep = 1 - decay, rest = 1 -
 * beta: taken in double, since 1 - 0.999f is off by 5e-5 of itself. */
typedef struct {
    float step_size, epsilon, l2, keep, beta1, rest1, beta2, rest2;
} step_numbers;

typedef struct {
    const char *name;

    /* out[s] += sum over the set bits k of mask[s] of x[s][k] * w[k], for rows first..last-1.
     * x (rows, ldx), w (64, ldw), out (rows, ldo); `width` columns of w and out. */
    void (*multiply)(const float *x, long ldx, const uint64_t *mask, const float *w, long ldw,
                     float *out, long ldo, long first, long last, long width);

    /* grad[k] = sum over s of x[s][k] * delta[s], for inputs first..last-1 of one panel; over the
     * set bits of columns[64 * (s / 64) ...][k]. Then, with numbers, Adam moves w, m and v
     * (inputs, ldw), and the sum of w's squares before is returned; without, w becomes grad. */
    float (*gradient)(const float *x, long ldx, const uint64_t *columns, long blocks, long spacing,
                      const float *delta, long ldd, float *w, float *m, float *v, long ldw,
                      long first, long last, long width, const step_numbers *numbers);

    /* The same for a bias: grad = sum over s of delta[s]. */
    void (*bias_gradient)(const float *delta, long ldd, long rows, float *b, float *m, float *v,
                          long width, const step_numbers *numbers);

    /* Adam on `count` numbers whose gradients are g. */
    void (*adam)(float *p, float *m, float *v, const float *g, long count,
                 const step_numbers *numbers);

    /* x = max(0, x), NaN stays NaN; mask[s] gets the bits of what is not zero. */
    void (*relu)(float *x, long ldx, uint64_t *mask, long first, long last, long width);

    /* delta = 0 where a is not above 0; mask[s] gets the bits of what is not zero. */
    void (*relu_delta)(const float *a, float *delta, long ldd, uint64_t *mask, long first,
                       long last, long width);

    /* out[c] = e^(z[c] - peak); returns nothing, sums nothing. */
    void (*exponential)(const float *z, float peak, float *out, long width);

    /* out = scale * x for one row of up to 64 inputs, zero up to width; returns the mask. */
    uint64_t (*row_of_bytes)(const uint8_t *x, float scale, long count, float *out, long width);
    uint64_t (*row_of_floats)(const float *x, float scale, long count, float *out, long width);
} loops;

/* The loops of an instruction set, or a null pointer if it was not built or this processor lacks
 * it. Names: baseline, avx2, avx512. */
const loops *find_loops(const char *name);

#endif
