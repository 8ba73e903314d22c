/* The loops of loops.h, for the instruction set that this is compiled for. Included once by each of
 * baseline.c, avx2.c and avx512.c, which define TABLE and NAME. */
#include "loops.h"
#include "vector.h"

#define INLINE static inline __attribute__((always_inline))

/* Keeps the compiler from taking a pointer apart into one register per offset from it. */
#define FIXED(pointer) __asm__("" : "+r"(pointer))

/* At most this many vectors of sums are kept in registers: 8 of AVX2's 16. */
enum { SUMS = 8 };

/* Calls f(..., n) with n, the number of vectors, a constant: the sums must live in registers. */
#define WITH_CONSTANT(n, f, ...)      \
    switch (n) {                      \
    case 1: f(__VA_ARGS__, 1); break; \
    case 2: f(__VA_ARGS__, 2); break; \
    case 3: f(__VA_ARGS__, 3); break; \
    case 4: f(__VA_ARGS__, 4); break; \
    case 6: f(__VA_ARGS__, 6); break; \
    default: f(__VA_ARGS__, 8);       \
    }

static long vectors(long width, long column)
{
    long n = (width - column) / LANES;
    return n < SUMS ? n : SUMS;
}

INLINE void multiply_n(const float *x, long ldx, const uint64_t *mask, const float *w, long ldw,
                       float *out, long ldo, long first, long last, const int n)
{
    for (long s = first; s < last; s++) {
        vec sum[SUMS];
        for (int j = 0; j < n; j++)
            sum[j] = load(out + s * ldo + j * LANES);
        const float *row = x + s * ldx;
        for (uint64_t bits = mask[s]; bits; bits &= bits - 1) {
            long k = __builtin_ctzll(bits);
            vec value = splat(row[k]);
            const float *weights = w + k * ldw;
            FIXED(weights);
            for (int j = 0; j < n; j++)
                sum[j] = fma_(value, load(weights + j * LANES), sum[j]);
        }
        for (int j = 0; j < n; j++)
            store(out + s * ldo + j * LANES, sum[j]);
    }
}

static void multiply(const float *x, long ldx, const uint64_t *mask, const float *w, long ldw,
                     float *out, long ldo, long first, long last, long width)
{
    for (long c = 0; c < width; c += SUMS * LANES)
        WITH_CONSTANT(vectors(width, c), multiply_n, x, ldx, mask, w + c, ldw, out + c, ldo, first,
                      last)
}

/* One vector of parameters: kernels/reference.py, update and adam. */
INLINE void adam_vector(float *p, float *m, float *v, vec g, const step_numbers *numbers)
{
    vec w = load(p);
    g = fma_(splat(numbers->l2), w, g);
    vec mean = fma_(splat(numbers->beta1), load(m), splat(numbers->rest1) * g);
    vec square = fma_(splat(numbers->beta2), load(v), splat(numbers->rest2) * g * g);
    vec step = splat(numbers->step_size) * mean / (root(square) + splat(numbers->epsilon));
    store(m, mean);
    store(v, square);
    store(p, splat(numbers->keep) * w - step);
}

INLINE void gradient_n(const float *x, long ldx, const uint64_t *columns, long blocks,
                       long spacing, const float *delta, long ldd, float *w, float *m, float *v,
                       long ldw, long first, long last, const step_numbers *numbers, vec *squares,
                       const int n)
{
    for (long k = first; k < last; k++) {
        vec sum[SUMS];
        for (int j = 0; j < n; j++)
            sum[j] = splat(0);
        for (long block = 0; block < blocks; block++) {
            const float *x_block = x + block * 64 * ldx + k;
            const float *delta_block = delta + block * 64 * ldd;
            for (uint64_t bits = columns[block * spacing + k]; bits; bits &= bits - 1) {
                long s = __builtin_ctzll(bits);
                vec value = splat(x_block[s * ldx]);
                const float *deltas = delta_block + s * ldd;
                FIXED(deltas);
                for (int j = 0; j < n; j++)
                    sum[j] = fma_(value, load(deltas + j * LANES), sum[j]);
            }
        }
        for (int j = 0; j < n; j++) {
            long at = k * ldw + j * LANES;
            if (numbers) {
                vec before = load(w + at);
                *squares = fma_(before, before, *squares);
                adam_vector(w + at, m + at, v + at, sum[j], numbers);
            } else {
                store(w + at, sum[j]);
            }
        }
    }
}

static float gradient(const float *x, long ldx, const uint64_t *columns, long blocks, long spacing,
                      const float *delta, long ldd, float *w, float *m, float *v, long ldw,
                      long first, long last, long width, const step_numbers *numbers)
{
    vec squares = splat(0);
    for (long c = 0; c < width; c += SUMS * LANES)
        WITH_CONSTANT(vectors(width, c), gradient_n, x, ldx, columns, blocks, spacing, delta + c,
                      ldd, w + c, m + c, v + c, ldw, first, last, numbers, &squares)
    float total = 0;
    for (int i = 0; i < LANES; i++)
        total += squares[i];
    return total;
}

static void bias_gradient(const float *delta, long ldd, long rows, float *b, float *m, float *v,
                          long width, const step_numbers *numbers)
{
    for (long c = 0; c < width; c += LANES) {
        vec sum = splat(0);
        for (long s = 0; s < rows; s++)
            sum += load(delta + s * ldd + c);
        if (numbers)
            adam_vector(b + c, m + c, v + c, sum, numbers);
        else
            store(b + c, sum);
    }
}

static void adam(float *p, float *m, float *v, const float *g, long count,
                 const step_numbers *numbers)
{
    long i = 0;
    for (; i + LANES <= count; i += LANES)
        adam_vector(p + i, m + i, v + i, load(g + i), numbers);
    if (i < count) { /* the rest, in a vector of its own */
        float rest[4][LANES] = {{0}};
        size_t size = (size_t)(count - i) * sizeof(float);
        memcpy(rest[0], p + i, size);
        memcpy(rest[1], m + i, size);
        memcpy(rest[2], v + i, size);
        memcpy(rest[3], g + i, size);
        adam_vector(rest[0], rest[1], rest[2], load(rest[3]), numbers);
        memcpy(p + i, rest[0], size);
        memcpy(m + i, rest[1], size);
        memcpy(v + i, rest[2], size);
    }
}

static void relu(float *x, long ldx, uint64_t *mask, long first, long last, long width)
{
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < width; c += LANES) {
            vec a = load(x + s * ldx + c);
            a = choose(a < splat(0), splat(0), a); /* NaN is not below 0, and stays */
            store(x + s * ldx + c, a);
            bits |= (uint64_t)nonzero(a) << c;
        }
        mask[s] = bits;
    }
}

static void relu_delta(const float *a, float *delta, long ldd, uint64_t *mask, long first,
                       long last, long width)
{
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < width; c += LANES) {
            long at = s * ldd + c;
            vec d = choose(load(a + at) > splat(0), load(delta + at), splat(0));
            store(delta + at, d);
            bits |= (uint64_t)nonzero(d) << c;
        }
        mask[s] = bits;
    }
}

static void exponential(const float *z, float peak, float *out, long width)
{
    for (long c = 0; c < width; c += LANES)
        store(out + c, exp_(load(z + c) - splat(peak)));
}

/* The whole panel is by far the most frequent; with a constant count its loop is unrolled. */
#define ROW_OF                                                                          \
    uint64_t bits = 0;                                                                        \
    if (count == PANEL) {                                                                     \
        for (int c = 0; c < PANEL; c++)                                                       \
            out[c] = scale * x[c];                                                            \
    } else {                                                                                  \
        for (long c = 0; c < width; c++)                                                      \
            out[c] = c < count ? scale * x[c] : 0;                                            \
    }                                                                                         \
    for (long c = 0; c < width; c += LANES)                                                   \
        bits |= (uint64_t)nonzero(load(out + c)) << c;                                        \
    return bits;

static uint64_t row_of_bytes(const uint8_t *restrict x, float scale, long count,
                             float *restrict out, long width)
{
    ROW_OF
}

static uint64_t row_of_floats(const float *restrict x, float scale, long count,
                              float *restrict out, long width)
{
    ROW_OF
}

const loops TABLE = {NAME,       multiply,    gradient,     bias_gradient, adam, relu,
                     relu_delta, exponential, row_of_bytes, row_of_floats};
