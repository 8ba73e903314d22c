/* The kernels of kernel_table.h for the instruction set that this is compiled for. Included once by
 * each of baseline.c, avx2.c and avx512.c, which define TABLE and NAME, and again for double by the
 * *_double.c files. One file above 600 lines, since a variant is compiled as one unit: the functions
 * are inlined into each other. */
#include "kernel_table.h"
#include "vector.h"

#define INLINE static inline __attribute__((always_inline))

/* Keeps the compiler from splitting a pointer into one register per offset from it. */
#define KEEP_POINTER(pointer) __asm__("" : "+r"(pointer))

/* Keeps the compiler from loading a vector again for every use of it. */
#if defined(__x86_64__)
#define IN_REGISTER(vector) __asm__("" : "+v"(vector))
#else
#define IN_REGISTER(vector) ((void)0)
#endif

/* Maximum number of accumulator vectors: 8 of AVX2's 16 registers; two panels with AVX-512, whose
 * rows hide the latency of the sums. */
enum { ACCUMULATORS = 8 };

/* Calls f(..., n) with a constant number n of vectors, so that accumulators stay in registers. */
#define WITH_CONSTANT(n, f, ...)      \
    switch (n) {                      \
    case 1: f(__VA_ARGS__, 1); break; \
    case 2: f(__VA_ARGS__, 2); break; \
    case 3: f(__VA_ARGS__, 3); break; \
    case 4: f(__VA_ARGS__, 4); break; \
    case 6: f(__VA_ARGS__, 6); break; \
    default: f(__VA_ARGS__, 8);       \
    }

static long vector_count(long width, long column)
{
    long n = (width - column) / LANES;
    return n < ACCUMULATORS ? n : ACCUMULATORS;
}

/* Address of vector j of a row that begins at p in one panel and continues at `next` in another. */
#define IN_PANELS(p, next, j) ((j) * LANES < PANEL ? (p) + (j) * LANES : (next) + (j) * LANES - PANEL)

INLINE void masked_matmul_n(const real *x, long ldx, const uint64_t *mask, uint64_t common_mask,
                            panel_matrix w, panel_matrix init, real *out, long ldo,
                            long panel_stride, long first, long last, const int n)
{
    for (long s = first; s < last; s++) {
        vec sum[ACCUMULATORS];
        const real *from = init.data + s * init.ld, *from_next = from + init.panel_stride;
        for (int j = 0; j < n; j++)
            sum[j] = load(IN_PANELS(from, from_next, j));
        const real *row = x + s * ldx;
        for (uint64_t bits = mask[s] & common_mask; bits; bits &= bits - 1) {
            long k = __builtin_ctzll(bits);
            vec value = splat(row[k]);
            const real *weights = w.data + k * w.ld, *weights_next = weights + w.panel_stride;
            KEEP_POINTER(weights);
            if (n * LANES > PANEL)
                KEEP_POINTER(weights_next);
            for (int j = 0; j < n; j++)
                sum[j] = fma_(value, load(IN_PANELS(weights, weights_next, j)), sum[j]);
        }
        real *to = out + s * ldo, *to_next = to + panel_stride;
        for (int j = 0; j < n; j++)
            store(IN_PANELS(to, to_next, j), sum[j]);
    }
}

/* The same matrix from column c on. */
INLINE panel_matrix from_column(panel_matrix m, long c)
{
    m.data += c / PANEL * m.panel_stride + c % PANEL;
    return m;
}

static void masked_matmul(const real *x, long ldx, const uint64_t *mask, uint64_t common_mask,
                          panel_matrix w, panel_matrix init, real *out, long ldo,
                          long panel_stride, long first, long last, long width)
{
    for (long c = 0; c < width; c += ACCUMULATORS * LANES)
        WITH_CONSTANT(vector_count(width, c), masked_matmul_n, x, ldx, mask, common_mask,
                      from_column(w, c), from_column(init, c),
                      out + c / PANEL * panel_stride + c % PANEL, ldo, panel_stride, first, last)
}

/* Rows and vectors of the register tile of a product: 4 by 4 of AVX-512's 32 registers, else 4 by 2
 * of 16; 8 rows of a single vector. A row's sums do not depend on the height of its tile. */
enum { TILE_ROWS = 4, TILE_VECTORS = VECTOR_BYTES == 64 ? 4 : 2, NARROW_ROWS = 8 };

INLINE void matmul_tile(const real *x, long ldx, long inputs, panel_matrix w, panel_matrix init,
                        real *out, long ldo, const int rows, const int n)
{
    vec sum[NARROW_ROWS][TILE_VECTORS];
    for (int s = 0; s < rows; s++)
        for (int j = 0; j < n; j++)
            sum[s][j] = load(init.data + s * init.ld + j * LANES);
    for (long k = 0; k < inputs; k++) {
        vec weights[TILE_VECTORS];
        for (int j = 0; j < n; j++) {
            weights[j] = load(w.data + k * w.ld + j * LANES);
            IN_REGISTER(weights[j]);
        }
        for (int s = 0; s < rows; s++) {
            vec value = splat(x[s * ldx + k]);
            for (int j = 0; j < n; j++)
                sum[s][j] = fma_(value, weights[j], sum[s][j]);
        }
    }
    for (int s = 0; s < rows; s++)
        for (int j = 0; j < n; j++)
            store(out + s * ldo + j * LANES, sum[s][j]);
}

INLINE void matmul_n(const real *x, long ldx, long inputs, panel_matrix w, panel_matrix init,
                     real *out, long ldo, long first, long last, const int n)
{
    const int tall = n == 1 ? NARROW_ROWS : TILE_ROWS;
    init.data += first * init.ld;
    for (long s = first, rows; s < last; s += rows, init.data += rows * init.ld) {
        rows = s + tall <= last ? tall : 1;
        if (rows == 1)
            matmul_tile(x + s * ldx, ldx, inputs, w, init, out + s * ldo, ldo, 1, n);
        else
            matmul_tile(x + s * ldx, ldx, inputs, w, init, out + s * ldo, ldo, tall, n);
    }
}

static void matmul(const real *x, long ldx, long inputs, panel_matrix w, panel_matrix init,
                   real *out, long ldo, long panel_stride, long first, long last, long width)
{
    for (long c = 0, n; c < width; c += n * LANES) {
        const panel_matrix wc = from_column(w, c), initc = from_column(init, c);
        real *to = out + c / PANEL * panel_stride + c % PANEL;
        n = c + TILE_VECTORS * LANES <= width ? TILE_VECTORS : 1;
        if (n == 1)
            matmul_n(x, ldx, inputs, wc, initc, to, ldo, first, last, 1);
        else
            matmul_n(x, ldx, inputs, wc, initc, to, ldo, first, last, TILE_VECTORS);
    }
}

INLINE void csr_row_matmul_n(const real *values, const int64_t *indices, long count, const real *w,
                             long ldw, const real *init, real *out, const int n)
{
    vec sum[ACCUMULATORS];
    for (int j = 0; j < n; j++)
        sum[j] = load(init + j * LANES);
    for (long e = 0; e < count; e++) {
        vec value = splat(values[e]);
        const real *weights = w + indices[e] * ldw;
        KEEP_POINTER(weights);
        for (int j = 0; j < n; j++)
            sum[j] = fma_(value, load(weights + j * LANES), sum[j]);
    }
    for (int j = 0; j < n; j++)
        store(out + j * LANES, sum[j]);
}

/* Rows of w are not padded: a vector that reaches beyond the columns is loaded in part. */
static void csr_row_matmul(const real *values, const int64_t *indices, long count, const real *w,
                           long ldw, const real *init, real *out, long columns)
{
    long c = 0;
    for (long n; (n = vector_count(columns, c)) > 0; c += n * LANES) {
        n -= n == 7 || n == 5; /* WITH_CONSTANT has no such case */
        WITH_CONSTANT(n, csr_row_matmul_n, values, indices, count, w + c, ldw, init + c, out + c)
    }
    if (c < columns) {
        vec sum = load_first(init + c, columns - c);
        for (long e = 0; e < count; e++)
            sum = fma_(splat(values[e]), load_first(w + indices[e] * ldw + c, columns - c), sum);
        store(out + c, sum);
        c += LANES;
    }
    for (; c < (columns + 15) / 16 * 16; c += LANES)
        store(out + c, splat(0));
}

#define LANE_INDEX(j, unused) (j)

/* x in the first n lanes, `other` in the rest. */
INLINE vec mask_lanes(vec x, long n, vec other)
{
    const ivec lane = {EVERY_LANE(LANE_INDEX, 0)};
    return blend(lane < (lane_int)(n < LANES ? n : LANES), x, other);
}

/* f(distance) for the butterfly distances of a reduction over all lanes. */
#define PARTNER(j, distance) ((j) ^ (distance))
#if LANES == 16
#define BUTTERFLY(f) f(8) f(4) f(2) f(1)
#elif LANES == 8
#define BUTTERFLY(f) f(4) f(2) f(1)
#elif LANES == 4
#define BUTTERFLY(f) f(2) f(1)
#else
#define BUTTERFLY(f) f(1)
#endif

#define ADD_PARTNER(distance) sum += SHUFFLE(sum, sum, EVERY_LANE(PARTNER, distance));
INLINE real hsum(vec sum)
{
    BUTTERFLY(ADD_PARTNER)
    return sum[0];
}

/* Transposes a LANES by LANES matrix by swapping ever larger squares. */
INLINE void transpose_square(vec t[LANES])
{
#define SWAP_SQUARES(size)                                                      \
    for (int i = 0; i < LANES; i++)                                             \
        if (!(i & (size))) {                                                    \
            vec upper = t[i], lower = t[i + (size)];                            \
            t[i] = SHUFFLE(upper, lower, EVERY_LANE(UPPER, size));              \
            t[i + (size)] = SHUFFLE(upper, lower, EVERY_LANE(LOWER, size));     \
        }
#define UPPER(j, size) ((j) & (size) ? LANES + (j) - (size) : (j))
#define LOWER(j, size) ((j) & (size) ? LANES + (j) : (j) + (size))
    SWAP_SQUARES(1)
#if LANES > 2
    SWAP_SQUARES(2)
#endif
#if LANES > 4
    SWAP_SQUARES(4)
#endif
#if LANES > 8
    SWAP_SQUARES(8)
#endif
}

static void transpose(const real *in, long ldi, long rows, long width, real *out, uint64_t *mask,
                      real *sums)
{
    for (long c = 0; c < width; c += LANES) {
        uint64_t bits[LANES] = {0};
        vec sum = load(sums + c);
        for (long s = 0; s < PANEL; s += LANES) {
            vec t[LANES];
            for (int i = 0; i < LANES; i++)
                t[i] = s + i < rows ? load(in + (s + i) * ldi + c) : splat(0);
            for (int i = 0; i < LANES; i++)
                sum += t[i];
            transpose_square(t);
            for (int i = 0; i < LANES; i++) {
                store(out + (c + i) * PANEL + s, t[i]);
                bits[i] |= (uint64_t)nonzero_bits(t[i]) << s;
            }
        }
        memcpy(mask + c, bits, sizeof bits);
        store(sums + c, sum);
    }
}

/* step_hyperparams broadcast to vectors, once for a call and not once for every vector. */
typedef struct {
    vec step_size, epsilon, l2, decay_factor, beta1, one_minus_beta1, beta2, one_minus_beta2;
} vec_hyperparams;

INLINE vec_hyperparams broadcast(const step_hyperparams *h)
{
    return (vec_hyperparams){
        .step_size = splat(h->step_size), .epsilon = splat(h->epsilon), .l2 = splat(h->l2),
        .decay_factor = splat(h->decay_factor),
        .beta1 = splat(h->beta1), .one_minus_beta1 = splat(h->one_minus_beta1),
        .beta2 = splat(h->beta2), .one_minus_beta2 = splat(h->one_minus_beta2)};
}

/* One step of an optimizer (update in kernels/reference.py) on a vector of parameters with the
 * gradient g: changes the moments, returns the new w. Only Adam has a second moment. */
typedef vec (*optimizer_step)(vec w, vec *m, vec *v, vec g, const vec_hyperparams *h);

INLINE vec adam(vec w, vec *m, vec *v, vec g, const vec_hyperparams *h)
{
    g = fma_(h->l2, w, g);
    *m = fma_(h->beta1, *m, h->one_minus_beta1 * g);
    *v = fma_(h->beta2, *v, h->one_minus_beta2 * g * g);
    vec step = h->step_size * *m / (sqrt_(*v) + h->epsilon);
    return h->decay_factor * w - step;
}

INLINE vec sgd(vec w, vec *m, vec *v, vec g, const vec_hyperparams *h)
{
    (void)v;
    g = fma_(h->l2, w, g);
    *m = fma_(h->beta1, *m, -(h->step_size * g));
    return fma_(h->decay_factor, w, *m);
}

INLINE vec nesterov(vec w, vec *m, vec *v, vec g, const vec_hyperparams *h)
{
    (void)v;
    g = fma_(h->l2, w, g);
    vec step = h->step_size * g;
    *m = fma_(h->beta1, *m, -step);
    return fma_(h->decay_factor, w, fma_(h->beta1, *m, -step));
}

/* The same in memory, for the first `count` lanes; v is read and written by Adam only. */
INLINE vec apply_update(optimizer_step step, real *p, real *m, real *v, vec g, long count,
                        const vec_hyperparams *h)
{
    vec mean = load_first(m, count), square = step == adam ? load_first(v, count) : splat(0);
    vec w = step(load_first(p, count), &mean, &square, g, h);
    store_first(m, count, mean);
    if (step == adam)
        store_first(v, count, square);
    store_first(p, count, w);
    return w;
}

INLINE real update_transposed_with(optimizer_step step, const real *g, long inputs, real *w,
                                   real *m, real *v, long ldw, real *transposed, long ldt,
                                   const step_hyperparams *hyperparams)
{
    const vec_hyperparams h = broadcast(hyperparams);
    vec squares = splat(0);
    for (long k = 0; k < inputs; k += LANES)
        for (long o = 0; o < GROUP; o += LANES) {
            vec t[LANES];
            for (int i = 0; i < LANES; i++)
                t[i] = load(g + (o + i) * PANEL + k);
            transpose_square(t);
            for (int i = 0; i < LANES && k + i < inputs; i++) {
                long at = (k + i) * ldw + o;
                vec before = load(w + at);
                squares = fma_(before, before, squares);
                t[i] = apply_update(step, w + at, m + at, v + at, t[i], LANES, &h);
            }
            if (transposed) {
                transpose_square(t);
                for (int i = 0; i < LANES; i++)
                    store(transposed + (o + i) * ldt + k, t[i]);
            }
        }
    real total = 0;
    for (int i = 0; i < LANES; i++)
        total += squares[i];
    return total;
}

static void transpose_gradient(const real *g, long inputs, real *out, long ldo)
{
    for (long k = 0; k < inputs; k += LANES)
        for (long o = 0; o < GROUP; o += LANES) {
            vec t[LANES];
            for (int i = 0; i < LANES; i++)
                t[i] = load(g + (o + i) * PANEL + k);
            transpose_square(t);
            for (int i = 0; i < LANES && k + i < inputs; i++)
                store(out + (k + i) * ldo + o, t[i]);
        }
}

static void column_sums(const real *grad, long ldg, long rows, real *out, long width)
{
    for (long c = 0; c < width; c += LANES) {
        vec sum = splat(0);
        for (long s = 0; s < rows; s++)
            sum += load(grad + s * ldg + c);
        store(out + c, sum);
    }
}

INLINE real update_with(optimizer_step step, real *p, real *m, real *v, const real *g, long count,
                        const step_hyperparams *hyperparams)
{
    const vec_hyperparams h = broadcast(hyperparams);
    vec squares = splat(0);
    for (long i = 0; i < count; i += LANES) {
        vec before = load_first(p + i, count - i);
        squares = fma_(before, before, squares);
        apply_update(step, p + i, m + i, v + i, g ? load_first(g + i, count - i) : splat(0),
                     count - i, &h);
    }
    return hsum(squares);
}

#define OPTIMIZER_KERNELS(name)                                                               \
    static real name##_update_transposed(const real *g, long inputs, real *w, real *m,        \
                                         real *v, long ldw, real *transposed, long ldt,       \
                                         const step_hyperparams *h)                           \
    {                                                                                         \
        return update_transposed_with(name, g, inputs, w, m, v, ldw, transposed, ldt, h);     \
    }                                                                                         \
    static real name##_update(real *p, real *m, real *v, const real *g, long count,           \
                              const step_hyperparams *h)                                      \
    {                                                                                         \
        return update_with(name, p, m, v, g, count, h);                                       \
    }
OPTIMIZER_KERNELS(adam)
OPTIMIZER_KERNELS(sgd)
OPTIMIZER_KERNELS(nesterov)

static void add(real *x, const real *y, long count)
{
    for (long i = 0; i < count; i += LANES)
        store(x + i, load(x + i) + load(y + i));
}

/* Activations, and the gradient with respect to z from that with respect to a = activation(z):
 * activate and activation_grad in kernels/reference.py. NaN is not less than 0 and passes. */
INLINE vec relu(vec z) { return blend(z < splat(0), splat(0), z); }
INLINE vec relu_grad(vec a, vec grad) { return blend(a > splat(0), grad, splat(0)); }

INLINE vec tanh_grad(vec a, vec grad) { return grad * fma_(-a, a, splat(1)); }

INLINE vec logistic_grad(vec a, vec grad) { return grad * (a * (splat(1) - a)); }

INLINE vec identity_(vec z) { return z; }
INLINE vec identity_grad(vec a, vec grad)
{
    (void)a;
    return grad;
}

INLINE void activate_with(vec (*activation)(vec), real *x, long ldx, uint64_t *mask, long first,
                          long last, long columns)
{
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < (columns + 15) / 16 * 16; c += LANES) {
            vec a = activation(load(x + s * ldx + c));
            if (c + LANES > columns)
                a = mask_lanes(a, columns - c, splat(0));
            store(x + s * ldx + c, a);
            bits |= (uint64_t)nonzero_bits(a) << c;
        }
        mask[s] = bits;
    }
}

/* 32 random bits per lane; unit: index of the first one. random_bits in kernels/reference.py. */
INLINE u32_vec random_bits(uint64_t row, uint32_t unit)
{
    const u32_vec lane = {EVERY_LANE(LANE_INDEX, 0)};
    u32_vec bits = (lane + unit) * 0x9E3779B9u + (uint32_t)row;
    bits = (bits ^ bits >> 16) * 0x7FEB352Du;
    bits ^= (uint32_t)(row >> 32);
    bits = (bits ^ bits >> 15) * 0x846CA68Bu;
    return bits ^ bits >> 16;
}

/* All ones in the lanes of dropped units. */
INLINE ivec dropped_lanes(const dropout *drop, long s, uint32_t unit)
{
    return __builtin_convertvector(random_bits(drop->row_bits[s], unit) < drop->threshold, ivec);
}

static void apply_dropout(real *x, long ldx, uint64_t *mask, long first, long last, long width,
                          const dropout *drop, uint32_t unit)
{
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < width; c += LANES) {
            ivec dropped = dropped_lanes(drop, s, unit + (uint32_t)c);
            vec a = blend(dropped, splat(0), load(x + s * ldx + c) * splat(drop->inv_keep_prob));
            store(x + s * ldx + c, a);
            bits |= (uint64_t)nonzero_bits(a) << c;
        }
        mask[s] = bits;
    }
}

/* zero_blocks: the gradient is zero where a is zero, so that the dropout mask is not needed. */
INLINE void backward_with(vec (*activation_grad)(vec, vec), int zero_blocks, const real *a,
                          real *grad, long ldg, uint64_t *mask, long first, long last, long width,
                          const dropout *drop, uint32_t unit)
{
    const vec inv_keep_prob = splat(drop ? drop->inv_keep_prob : 1);
    const vec keep_prob = splat(drop ? drop->keep_prob : 1);
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < width; c += LANES) {
            long at = s * ldg + c;
            vec g = activation_grad(keep_prob * load(a + at), inv_keep_prob * load(grad + at));
            if (!zero_blocks && drop)
                g = blend(dropped_lanes(drop, s, unit + (uint32_t)c), splat(0), g);
            store(grad + at, g);
            bits |= (uint64_t)nonzero_bits(g) << c;
        }
        mask[s] = bits;
    }
}

#define ACTIVATION_KERNELS(name, activation, activation_grad, zero_blocks)                     \
    static void name##_activate(real *x, long ldx, uint64_t *mask, long first, long last,      \
                                long columns)                                                  \
    {                                                                                          \
        activate_with(activation, x, ldx, mask, first, last, columns);                         \
    }                                                                                          \
    static void name##_activation_backward(const real *a, real *grad, long ldg,                \
                                           uint64_t *mask, long first, long last, long width,  \
                                           const dropout *drop, uint32_t unit)                 \
    {                                                                                          \
        backward_with(activation_grad, zero_blocks, a, grad, ldg, mask, first, last, width,    \
                      drop, unit);                                                             \
    }
ACTIVATION_KERNELS(relu, relu, relu_grad, 1)
ACTIVATION_KERNELS(tanh, tanh_, tanh_grad, 0)
ACTIVATION_KERNELS(logistic, logistic_, logistic_grad, 0)
ACTIVATION_KERNELS(identity, identity_, identity_grad, 0)

static real row_max(const real *z, real so_far, long count)
{
    vec max = splat(so_far);
    for (long c = 0; c < count; c += LANES) {
        vec a = mask_lanes(load(z + c), count - c, max);
        max = blend(a > max, a, max); /* comparisons with NaN are false */
    }
#define MAX_PARTNER(distance)                                         \
    {                                                                 \
        vec other = SHUFFLE(max, max, EVERY_LANE(PARTNER, distance)); \
        max = blend(other > max, other, max);                         \
    }
    BUTTERFLY(MAX_PARTNER)
    return max[0];
}

static real exp_and_sum(const real *z, real max, real *out, long count)
{
    vec sum = splat(0);
    for (long c = 0; c < (count + 15) / 16 * 16; c += LANES) {
        vec e = mask_lanes(exp_(load(z + c) - splat(max)), count - c, splat(0));
        store(out + c, e);
        sum += e;
    }
    return hsum(sum);
}

static void softmax_grad(real *p, real factor, long target, real row_weight, long width)
{
    const ivec lane = {EVERY_LANE(LANE_INDEX, 0)};
    for (long c = 0; c < width; c += LANES) {
        vec is_target = blend(lane == (lane_int)(target - c), splat(1), splat(0));
        store(p + c, (load(p + c) * splat(factor) - is_target) * splat(row_weight));
    }
}

static real softmax_grad_soft(real *p, real factor, const real *target, const real *z,
                              real row_weight, long width)
{
    vec sum = splat(0);
    for (long c = 0; c < width; c += LANES) {
        vec t = load(target + c);
        sum = fma_(t, load(z + c), sum);
        store(p + c, (load(p + c) * splat(factor) - t) * splat(row_weight));
    }
    return hsum(sum);
}

static real sigmoid_bce_grad(const real *z, const real *target, real row_weight, real max_loss,
                             real *grad, long count)
{
    vec sum = splat(0);
    for (long c = 0; c < (count + 15) / 16 * 16; c += LANES) {
        vec logit = load(z + c), t = load(target + c), e = exp_(-fabs_(logit));
        vec loss = relu(logit) + log1p_(e) - t * logit;
        loss = blend(loss > splat(max_loss), splat(max_loss), loss); /* NaN passes */
        sum += mask_lanes(loss, count - c, splat(0));
        vec g = (logistic_from_exp(logit, e) - t) * splat(row_weight);
        store(grad + c, mask_lanes(g, count - c, splat(0)));
    }
    return hsum(sum);
}

/* A row, not necessarily aligned, in blocks of 64: full vectors, one with the remaining elements
 * and zeros, zeros up to a multiple of 16. */
#define LOAD_ROW(name, type, widen)                                                               \
    static void load_row_##name(const void *row, real scale, long count, real *restrict out,      \
                                long panel_stride, uint64_t *restrict mask, long mask_stride,     \
                                long s)                                                           \
    {                                                                                             \
        const type *restrict x = row;                                                             \
        for (long first = 0; first < count;                                                       \
             first += PANEL, out += panel_stride, mask += mask_stride) {                          \
            uint64_t bits = 0;                                                                    \
            long width = first + PANEL <= count ? PANEL : (count - first + 15) / 16 * 16;         \
            for (long c = 0; c < width; c += LANES) {                                             \
                vec a;                                                                            \
                if (first + c + LANES <= count) {                                                 \
                    a = widen(x + first + c);                                                     \
                } else {                                                                          \
                    type rest[LANES] = {0};                                                       \
                    if (first + c < count)                                                        \
                        memcpy(rest, x + first + c, (size_t)(count - first - c) * sizeof *x);     \
                    a = widen(rest);                                                              \
                }                                                                                 \
                a *= splat(scale);                                                                \
                store(out + s * width + c, a);                                                    \
                bits |= (uint64_t)nonzero_bits(a) << c;                                           \
            }                                                                                     \
            mask[s] = bits;                                                                       \
        }                                                                                         \
    }
LOAD_ROW(u8, uint8_t, load_u8)
LOAD_ROW(f32, float, load_f32)
LOAD_ROW(f64, double, load_f64)

/* Twelve independent chains: two units of latency 4 or 5 need ten; 16 registers hold them. */
static double multiply_adds(long iterations)
{
    enum { CHAINS = 12 };
    const vec half = splat(0.5);
    vec x[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        x[i] = splat((real)i);
    for (long n = 0; n < iterations; n++)
        for (int i = 0; i < CHAINS; i++)
            x[i] = fma_(x[i], half, half);
    real used = 0; /* keeps the compiler from removing the loop */
    for (int i = 0; i < CHAINS; i++)
        used += x[i][0];
    __asm__ volatile("" : : "r"(used));
    return 2.0 * LANES * CHAINS * (double)iterations;
}

#define BY_OPTIMIZER(kernel) \
    {[ADAM] = adam_##kernel, [SGD] = sgd_##kernel, [NESTEROV] = nesterov_##kernel}
#define BY_ACTIVATION(kernel)                                                          \
    {[RELU] = relu_##kernel, [TANH] = tanh_##kernel, [LOGISTIC] = logistic_##kernel,   \
     [IDENTITY] = identity_##kernel}

const kernel_table TABLE = {
    .name = NAME,
    .masked_matmul = masked_matmul,
    .matmul = matmul,
    .csr_row_matmul = csr_row_matmul,
    .transpose = transpose,
    .update_transposed = BY_OPTIMIZER(update_transposed),
    .transpose_gradient = transpose_gradient,
    .column_sums = column_sums,
    .update = BY_OPTIMIZER(update),
    .add = add,
    .activate = BY_ACTIVATION(activate),
    .apply_dropout = apply_dropout,
    .activation_backward = BY_ACTIVATION(activation_backward),
    .row_max = row_max,
    .exp_and_sum = exp_and_sum,
    .softmax_grad = softmax_grad,
    .softmax_grad_soft = softmax_grad_soft,
    .sigmoid_bce_grad = sigmoid_bce_grad,
    .load_row = {[ROW_U8] = load_row_u8, [ROW_F32] = load_row_f32, [ROW_F64] = load_row_f64},
    .multiply_adds = multiply_adds,
};
