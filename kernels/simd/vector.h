/* A vector of numbers of the type real, as wide as the instruction set: the few operations that
 * compilers do not derive from plain arithmetic on vector types. fma is always one operation, fused
 * where the hardware has it and two roundings where it has not, so that no compiler setting moves a
 * bit. */
#ifndef FMNIST_VECTOR_H
#define FMNIST_VECTOR_H

#include <stdint.h>
#include <string.h>

#include "real.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define VECTOR_BYTES 32
#elif defined(__SSE2__)
#include <emmintrin.h>
#define VECTOR_BYTES 16
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define VECTOR_BYTES 16
#else
#define VECTOR_BYTES 16
#endif

/* LANES is needed by the preprocessor. whole: an integer as wide as real. FOR_TYPE chooses between
 * what is called f32 and what is called f64. */
#ifdef DOUBLE
#define LANES (VECTOR_BYTES / 8)
#define FOR_TYPE(f32, f64) f64
typedef int64_t whole;
typedef uint64_t natural;
#else
#define LANES (VECTOR_BYTES / 4)
#define FOR_TYPE(f32, f64) f32
typedef int32_t whole;
typedef uint32_t natural;
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef whole ivec __attribute__((vector_size(VECTOR_BYTES)));
typedef natural nvec __attribute__((vector_size(VECTOR_BYTES))); /* wraps around, for exponents */
#if defined(__ARM_NEON) && defined(__aarch64__)
typedef FOR_TYPE(float32x4_t, float64x2_t) neon;
#endif

/* As many lanes of other types, wider or narrower than a vector of the hardware may be. */
typedef uint8_t bytes_vec __attribute__((vector_size(LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef float floats_vec __attribute__((vector_size(4 * LANES)));
typedef double doubles_vec __attribute__((vector_size(8 * LANES)));

static inline vec load(const real *p)
{
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* Numbers of another type. */
static inline vec load_bytes(const uint8_t *p)
{
#if defined(__AVX512F__) && !defined(DOUBLE)
    __m128i bytes;
    memcpy(&bytes, p, sizeof bytes);
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
#elif defined(__AVX2__) && defined(__FMA__) && !defined(DOUBLE)
    int64_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes)));
#else
    bytes_vec bytes;
    memcpy(&bytes, p, sizeof bytes);
    return __builtin_convertvector(bytes, vec);
#endif
}

static inline vec load_floats(const float *p)
{
    floats_vec x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, vec);
}

static inline vec load_doubles(const double *p)
{
    doubles_vec x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, vec);
}

static inline void store(real *p, vec x) { memcpy(p, &x, sizeof x); }

static inline vec splat(real x) { return x - (vec){0}; }

/* The first `count` numbers at p, zeros in the lanes beyond, where nothing is read; and back. */
static inline vec load_first(const real *p, long count)
{
    if (count >= LANES)
        return load(p);
#if defined(__AVX512F__)
    return FOR_TYPE(_mm512_maskz_loadu_ps, _mm512_maskz_loadu_pd)((1u << count) - 1, p);
#else
    real numbers[LANES] = {0};
    memcpy(numbers, p, (size_t)count * sizeof(real));
    return load(numbers);
#endif
}

static inline void store_first(real *p, long count, vec x)
{
    if (count >= LANES) {
        store(p, x);
        return;
    }
#if defined(__AVX512F__)
    FOR_TYPE(_mm512_mask_storeu_ps, _mm512_mask_storeu_pd)(p, (1u << count) - 1, x);
#else
    memcpy(p, &x, (size_t)count * sizeof(real));
#endif
}

static inline vec fma_(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return FOR_TYPE(_mm512_fmadd_ps, _mm512_fmadd_pd)(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
    return FOR_TYPE(_mm256_fmadd_ps, _mm256_fmadd_pd)(a, b, c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vec)FOR_TYPE(vfmaq_f32, vfmaq_f64)((neon)c, (neon)a, (neon)b);
#else
    return a * b + c; /* built with -ffp-contract=off */
#endif
}

static inline vec root(vec a)
{
#if defined(__AVX512F__)
    return FOR_TYPE(_mm512_sqrt_ps, _mm512_sqrt_pd)(a);
#elif defined(__AVX2__) && defined(__FMA__)
    return FOR_TYPE(_mm256_sqrt_ps, _mm256_sqrt_pd)(a);
#elif defined(__SSE2__)
    return FOR_TYPE(_mm_sqrt_ps, _mm_sqrt_pd)(a);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vec)FOR_TYPE(vsqrtq_f32, vsqrtq_f64)((neon)a);
#else
    for (int i = 0; i < LANES; i++)
        a[i] = FOR_TYPE(sqrtf, sqrt)(a[i]);
    return a;
#endif
}

/* Lanes of a and b by number, those of b from LANES on; the numbers must be constants. */
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* F(lane, x) for every lane. */
#define LANES_2(F, x, j) F(j, x), F(j + 1, x)
#define LANES_4(F, x, j) LANES_2(F, x, j), LANES_2(F, x, j + 2)
#if LANES == 16
#define EVERY_LANE(F, x) LANES_4(F, x, 0), LANES_4(F, x, 4), LANES_4(F, x, 8), LANES_4(F, x, 12)
#elif LANES == 8
#define EVERY_LANE(F, x) LANES_4(F, x, 0), LANES_4(F, x, 4)
#elif LANES == 4
#define EVERY_LANE(F, x) LANES_4(F, x, 0)
#else
#define EVERY_LANE(F, x) LANES_2(F, x, 0)
#endif

/* yes where the lane of mask is all ones, no where it is all zeros. */
static inline vec choose(ivec mask, vec yes, vec no)
{
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

/* One bit per lane of x that is not zero; NaN is not zero. */
static inline uint32_t nonzero(vec x)
{
    const vec zero = {0};
#if defined(__AVX512F__)
    return FOR_TYPE(_mm512_cmp_ps_mask, _mm512_cmp_pd_mask)(x, zero, _CMP_NEQ_UQ);
#elif defined(__AVX2__) && defined(__FMA__)
    vec differs = FOR_TYPE(_mm256_cmp_ps, _mm256_cmp_pd)(x, zero, _CMP_NEQ_UQ);
    return (uint32_t)FOR_TYPE(_mm256_movemask_ps, _mm256_movemask_pd)(differs);
#elif defined(__SSE2__)
    vec differs = FOR_TYPE(_mm_cmpneq_ps, _mm_cmpneq_pd)(x, zero);
    return (uint32_t)FOR_TYPE(_mm_movemask_ps, _mm_movemask_pd)(differs);
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (uint32_t)(x[i] != zero[i]) << i;
    return bits;
#endif
}

static inline vec magnitude(vec x)
{
    return (vec)((ivec)x & FOR_TYPE(INT32_MAX, INT64_MAX));
}

/* The sign of `sign` on x, which is not negative. */
static inline vec with_sign(vec x, vec sign)
{
    return (vec)((ivec)x | ((ivec)sign & FOR_TYPE(INT32_MIN, INT64_MIN)));
}

/* x[0] + y (x[1] + y (x[2] ...)): the constants are of the type real, and the loop unrolls. */
#define POLYNOMIAL(sum, x, degree, y)           \
    vec sum = splat((x)[degree]);               \
    for (int i_ = (degree) - 1; i_ >= 0; i_--)  \
        sum = fma_(sum, y, splat((x)[i_]));

/* 1 / n!. e^r has |r| <= ln 2 / 2, where what the polynomial of degree 7 lacks is below 6e-9, of
 * degree 13 below 5e-18. */
enum { DEGREE = FOR_TYPE(7, 13) };
static const real INVERSE_FACTORIAL[] = {
    1,
    1,
    (real)1 / 2,
    (real)1 / 6,
    (real)1 / 24,
    (real)1 / 120,
    (real)1 / 720,
    (real)1 / 5040,
#ifdef DOUBLE
    1. / 40320,
    1. / 362880,
    1. / 3628800,
    1. / 39916800,
    1. / 479001600,
    1. / 6227020800,
#endif
};

/* Below this e^x stays where it is: at twice the smallest normal number, nearly. */
#define LOWEST FOR_TYPE(-87.0f, -708.0)

/* x as n ln 2 + r with |r| <= ln 2 / 2, for LOWEST <= x <= 0; others, in the lanes beyond a row, give
 * what nobody reads. ln 2 is split in two so that n times
 * its upper part is exact. Returns r; power: n, to be added to an exponent. */
static inline vec reduce(vec x, nvec *power)
{
    /* 1.5 * 2^23 or 2^52: adding it rounds to an integer */
    const vec shift = splat(FOR_TYPE(12582912.0f, 6755399441055744.0));
    vec shifted = fma_(x, splat(FOR_TYPE(1.44269504088896341f, 1.44269504088896341)), shift);
    vec n = shifted - shift;
    *power = ((nvec)shifted - (nvec)shift) << FOR_TYPE(23, 52);
    vec r = fma_(n, splat(FOR_TYPE(-0.693145751953125f, -6.93147180369123816490e-01)), x);
    return fma_(n, splat(FOR_TYPE(-1.42860682030941723e-6f, -1.90821492927058770002e-10)), r);
}

static inline vec not_below(vec lowest, vec x) { return choose(x < lowest, lowest, x); }

/* e^x for x <= 0, to 2 units in the last place; below LOWEST it stays there, NaN stays NaN. */
static inline vec exp_(vec x)
{
    nvec power;
    vec r = reduce(not_below(splat(LOWEST), x), &power);
    POLYNOMIAL(e, INVERSE_FACTORIAL, DEGREE, r)
    return (vec)((nvec)e + power);
}

/* e^x - 1 for x <= 0: with e^x = 2^n e^r it is 2^n (e^r - 1) + (2^n - 1), where e^r - 1 has no
 * rounded 1 in it; for n < 0 the sum is below -0.29, and no digits of either part cancel. */
static inline vec exp_minus_1(vec x)
{
    nvec power;
    vec r = reduce(not_below(splat(LOWEST), x), &power);
    POLYNOMIAL(ratio, INVERSE_FACTORIAL + 1, DEGREE - 1, r)
    vec scale = (vec)((nvec)splat(1) + power);
    return fma_(scale, r * ratio, scale - splat(1));
}

/* tanh |z| = -u / (2 + u) for u = e^(-2 |z|) - 1, to a few units in the last place, near zero, too:
 * 1 - e^(-2 |z|) would leave no digits there. */
static inline vec tanh_(vec z)
{
    vec u = exp_minus_1(splat(-2) * magnitude(z));
    return with_sign(magnitude(u / (splat(2) + u)), z);
}

/* 1 / (1 + e^-z); e is taken of -|z| only. */
static inline vec logistic_of(vec z, vec e)
{
    return choose(z < splat(0), e, splat(1)) / (splat(1) + e);
}

static inline vec logistic_(vec z) { return logistic_of(z, exp_(-magnitude(z))); }

/* 1 / (2n + 1), for as many n as 1/9^n / (2n + 1) needs to vanish. */
enum { LOGARITHM_DEGREE = FOR_TYPE(7, 16) };
static const real INVERSE_ODD[] = {
    1,
    (real)1 / 3,
    (real)1 / 5,
    (real)1 / 7,
    (real)1 / 9,
    (real)1 / 11,
    (real)1 / 13,
    (real)1 / 15,
#ifdef DOUBLE
    1. / 17,
    1. / 19,
    1. / 21,
    1. / 23,
    1. / 25,
    1. / 27,
    1. / 29,
    1. / 31,
    1. / 33,
#endif
};

/* log(1 + x) for 0 <= x <= 1: it is 2 artanh(s) with s = x / (2 + x) <= 1/3, whose series has
 * positive terms only. */
static inline vec log_1_plus(vec x)
{
    vec s = x / (splat(2) + x);
    vec square = s * s;
    POLYNOMIAL(ratio, INVERSE_ODD, LOGARITHM_DEGREE, square)
    return (s + s) * ratio;
}

#endif
