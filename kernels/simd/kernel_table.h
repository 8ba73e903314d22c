/* Table of the innermost kernels, one per instruction set and floating type.
 *
 * Packed matrices: columns are cut into panels of 64; panel p of a (rows, columns) matrix holds
 * columns 64 p and up as (rows, width) elements, width 64, in the last panel the remaining columns
 * rounded up to 16. Columns beyond the matrix are zero. A 64 x 64 block of weights is 16 KiB in
 * float32, half of the smallest L1 cache, and a row of it fits into 8 AVX2 registers.
 *
 * Zero masks: one bit per element of a block of 64, set where the element is not zero. Masked
 * products iterate over the set bits only, in ascending order: x + 0 * w is x for finite w. The
 * forward pass skips zero inputs; the weight gradient, a sum over the rows of a batch, skips zero
 * gradients, which ReLU produces many of.
 *
 * kernels/reference.py specifies the operations. */
#ifndef FMNIST_KERNEL_TABLE_H
#define FMNIST_KERNEL_TABLE_H

#include <stdint.h>

#include "real.h"

#define find_kernels SUFFIXED(find_kernels)

/* Width of a panel; of a group of outputs, the unit of an update tile (a cache line of float32
 * weights); groups per panel. */
enum { PANEL = 64, GROUP = 16, PANEL_GROUPS = PANEL / GROUP };

/* Options of a NetworkSpec, and the element types of a data set's rows. */
enum { RELU, TANH, LOGISTIC, IDENTITY, ACTIVATIONS };
enum { ADAM, SGD, NESTEROV, OPTIMIZERS };
enum { ROW_U8, ROW_F32, ROW_F64, ROW_TYPES };

/* StepHyperparams of kernels/interface.py. decay_factor = 1 - decay. The differences are taken in
 * double, since 1 - 0.999f has a relative error of 5e-5. */
typedef struct {
    real step_size, epsilon, l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2;
} step_hyperparams;

/* View of consecutive panels: ld elements from row to row, panel_stride from panel to panel. */
typedef struct {
    const real *data;
    long ld, panel_stride;
} panel_matrix;

/* Dropout of a batch: a unit is dropped if its 32 random bits, derived from the row's 64 bits, are
 * below threshold (random_bits in kernels/reference.py); inv_keep_prob = 1 / keep_prob. */
typedef struct {
    const uint64_t *row_bits;
    uint32_t threshold;
    real inv_keep_prob, keep_prob;
} dropout;

typedef struct {
    const char *name;

    /* out[s] = init[s] + sum of x[s][k] * w[k] over the set bits k of mask[s] & common_mask, for
     * rows first..last-1 of x (rows, ldx). `width` columns of w (64 rows), init (ld 0: one row for
     * all) and out, which may be init: one panel, or two of 64. */
    void (*masked_matmul)(const real *x, long ldx, const uint64_t *mask, uint64_t common_mask,
                          panel_matrix w, panel_matrix init, real *out, long ldo,
                          long panel_stride, long first, long last, long width);

    /* The same over the first `inputs` columns of x, zeros included. */
    void (*matmul)(const real *x, long ldx, long inputs, panel_matrix w, panel_matrix init,
                   real *out, long ldo, long panel_stride, long first, long last, long width);

    /* out = init + sum of values[e] * w[indices[e]] over e, in order: one CSR row times rows of w,
     * ldw apart. `columns` columns, at most a panel; out is zero up to a multiple of 16. */
    void (*csr_row_matmul)(const real *values, const int64_t *indices, long count, const real *w,
                           long ldw, const real *init, real *out, long columns);

    /* out[c][s] = in[s][c] for up to 64 rows of `width` columns; out (width, 64) is zero from `rows`
     * on. mask[c]: zero mask of column c. sums[c] += sum of column c, row by row. */
    void (*transpose)(const real *in, long ldi, long rows, long width, real *out, uint64_t *mask,
                      real *sums);

    /* One optimizer step of w, m and v (inputs, ldw), 16 outputs wide, by the transposed gradient g
     * (16, 64). The new weights also go to transposed (16, ldt), unless null. Returns the sum of the
     * squares of the old w. */
    real (*update_transposed[OPTIMIZERS])(const real *g, long inputs, real *w, real *m, real *v,
                                          long ldw, real *transposed, long ldt,
                                          const step_hyperparams *hyperparams);

    /* out (inputs, ldo) = the transpose of g (16, 64). */
    void (*transpose_gradient)(const real *g, long inputs, real *out, long ldo);

    /* out[c] = sum over s of grad[s][c], the gradient of a bias. */
    void (*column_sums)(const real *grad, long ldg, long rows, real *out, long width);

    /* One optimizer step of `count` parameters by the gradients g, null: all zero. Only Adam uses
     * v. Returns the sum of the squares of the old p. */
    real (*update[OPTIMIZERS])(real *p, real *m, real *v, const real *g, long count,
                               const step_hyperparams *hyperparams);

    /* x += y; count is a multiple of 16. */
    void (*add)(real *x, const real *y, long count);

    /* x = activation(x) for `columns` columns, zero up to a multiple of 16; NaN stays NaN. mask[s]:
     * zero mask of row s. */
    void (*activate[ACTIVATIONS])(real *x, long ldx, uint64_t *mask, long first, long last,
                                  long columns);

    /* x = 0 in dropped units, x * inv_keep_prob in the others. unit: index of the first column.
     * mask[s]: zero mask of row s. */
    void (*apply_dropout)(real *x, long ldx, uint64_t *mask, long first, long last, long width,
                          const dropout *drop, uint32_t unit);

    /* grad *= activation'(z), given a = activation(z), and the gradient of dropout unless drop is
     * null. mask[s]: zero mask of row s. */
    void (*activation_backward[ACTIVATIONS])(const real *a, real *grad, long ldg, uint64_t *mask,
                                             long first, long last, long width,
                                             const dropout *drop, uint32_t unit);

    /* Maximum of `count` elements and of so_far. */
    real (*row_max)(const real *z, real so_far, long count);

    /* out[c] = e^(z[c] - max) for `count` columns, zero up to a multiple of 16; returns the sum. */
    real (*exp_and_sum)(const real *z, real max, real *out, long count);

    /* p = (factor * p - [column is target]) * row_weight; target < 0: no column is. */
    void (*softmax_grad)(real *p, real factor, long target, real row_weight, long width);

    /* p = (factor * p - target) * row_weight; returns the sum of target * z. All are zero beyond the
     * columns of the matrix. */
    real (*softmax_grad_soft)(real *p, real factor, const real *target, const real *z,
                              real row_weight, long width);

    /* grad = (sigmoid(z) - target) * row_weight for `count` columns, zero up to a multiple of 16;
     * returns the sum of log(1 + e^z) - target * z, each clipped to max_loss. */
    real (*sigmoid_bce_grad)(const real *z, const real *target, real row_weight, real max_loss,
                             real *grad, long count);

    /* Row s of out = scale * x, `count` columns, and its zero masks; out and mask advance by their
     * strides from panel to panel. x need not be aligned. */
    void (*load_row[ROW_TYPES])(const void *x, real scale, long count, real *out,
                                long panel_stride, uint64_t *mask, long mask_stride, long s);

    /* Fused multiply-adds in registers only, for measuring the peak of the processor; returns the
     * number of floating-point operations. */
    double (*multiply_adds)(long iterations);
} kernel_table;

/* All members are pointers. A new one is declared in cython_backend/kernel_table.pxd, too, which
 * asserts this number. */
enum { TABLE_POINTERS = 15 + 2 * OPTIMIZERS + 2 * ACTIVATIONS + ROW_TYPES };
_Static_assert(sizeof(kernel_table) == TABLE_POINTERS * sizeof(void *), "update TABLE_POINTERS");

/* The kernels of an instruction set (baseline, avx2, avx512), null if it was not built or this
 * processor lacks it. */
const kernel_table *find_kernels(const char *name);

#endif
