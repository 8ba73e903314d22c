# The C kernels (simd/kernel_table.h). Included, not cimported: `real` is float in float32.pyx,
# double in float64.pyx, which also defines the C macro DOUBLE.

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "simd/real.h" nogil:
    real LOG(real x)

cdef extern from "simd/kernel_table.h" nogil:
    """
    _Static_assert(TABLE_POINTERS == 32, "declare the new kernel in kernel_table.pxd");
    """
    enum: PANEL, GROUP, PANEL_GROUPS
    enum: RELU, TANH, LOGISTIC, IDENTITY
    enum: ADAM, SGD, NESTEROV
    enum: ROW_U8, ROW_F32, ROW_F64

    ctypedef struct step_hyperparams:
        real step_size, epsilon, l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2

    ctypedef struct panel_matrix:
        const real *data
        long ld, panel_stride

    ctypedef struct dropout:
        const uint64_t *row_bits
        uint32_t threshold
        real inv_keep_prob, keep_prob

    ctypedef struct kernel_table:
        const char *name
        void (*masked_matmul)(
            const real *x, long ldx, const uint64_t *mask, uint64_t common_mask, panel_matrix w,
            panel_matrix init, real *out, long ldo, long panel_stride, long first, long last,
            long width) noexcept nogil
        void (*matmul)(
            const real *x, long ldx, long inputs, panel_matrix w, panel_matrix init, real *out,
            long ldo, long panel_stride, long first, long last, long width) noexcept nogil
        void (*csr_row_matmul)(
            const real *values, const int64_t *indices, long count, const real *w, long ldw,
            const real *init, real *out, long columns) noexcept nogil
        void (*transpose)(const real *x, long ldi, long rows, long width, real *out,
                          uint64_t *mask, real *sums) noexcept nogil
        real (**update_transposed)(
            const real *g, long inputs, real *w, real *m, real *v, long ldw, real *transposed,
            long ldt, const step_hyperparams *hyperparams) noexcept nogil
        void (*transpose_gradient)(const real *g, long inputs, real *out, long ldo) noexcept nogil
        void (*column_sums)(const real *grad, long ldg, long rows, real *out,
                            long width) noexcept nogil
        real (**update)(real *p, real *m, real *v, const real *g, long count,
                        const step_hyperparams *hyperparams) noexcept nogil
        void (*add)(real *x, const real *y, long count) noexcept nogil
        void (**activate)(real *x, long ldx, uint64_t *mask, long first, long last,
                          long columns) noexcept nogil
        void (*apply_dropout)(real *x, long ldx, uint64_t *mask, long first, long last, long width,
                              const dropout *drop, uint32_t unit) noexcept nogil
        void (**activation_backward)(
            const real *a, real *grad, long ldg, uint64_t *mask, long first, long last, long width,
            const dropout *drop, uint32_t unit) noexcept nogil
        real (*row_max)(const real *z, real so_far, long count) noexcept nogil
        real (*exp_and_sum)(const real *z, real max, real *out, long count) noexcept nogil
        void (*softmax_grad)(real *p, real factor, long target, real row_weight,
                             long width) noexcept nogil
        real (*softmax_grad_soft)(real *p, real factor, const real *target, const real *z,
                                  real row_weight, long width) noexcept nogil
        real (*sigmoid_bce_grad)(const real *z, const real *target, real row_weight, real max_loss,
                                 real *grad, long count) noexcept nogil
        void (**load_row)(
            const void *x, real scale, long count, real *out, long panel_stride, uint64_t *mask,
            long mask_stride, long s) noexcept nogil
        double (*multiply_adds)(long iterations) noexcept nogil

    const kernel_table *find_kernels(const char *name)
