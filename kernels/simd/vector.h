/* Vector of real as wide as the instruction set, and the operations that compilers do not derive from
 * plain arithmetic on vector types. fma_ is fused where the hardware has it, and rounds twice where
 * it has not, so that results are bit-identical regardless of compiler flags. */
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

/* LANES is used by the preprocessor; lane_int is as wide as real; F32_F64 selects by type. */
#ifdef DOUBLE
#define LANES (VECTOR_BYTES / 8)
#define F32_F64(f32, f64) f64
typedef int64_t lane_int;
typedef uint64_t lane_uint;
#else
#define LANES (VECTOR_BYTES / 4)
#define F32_F64(f32, f64) f32
typedef int32_t lane_int;
typedef uint32_t lane_uint;
#endif

typedef real vec __attribute__((vector_size(VECTOR_BYTES)));
typedef lane_int ivec __attribute__((vector_size(VECTOR_BYTES)));
typedef lane_uint uvec __attribute__((vector_size(VECTOR_BYTES))); /* arithmetic on exponents wraps */
#if defined(__ARM_NEON) && defined(__aarch64__)
typedef F32_F64(float32x4_t, float64x2_t) neon_vec;
#endif

/* Vectors of LANES elements of other types, not always as wide as a hardware register. */
typedef uint8_t u8_vec __attribute__((vector_size(LANES)));
typedef uint32_t u32_vec __attribute__((vector_size(4 * LANES)));
typedef float f32_vec __attribute__((vector_size(4 * LANES)));
typedef double f64_vec __attribute__((vector_size(8 * LANES)));

static inline vec load(const real *p)
{
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* Load elements of another type, converted. */
static inline vec load_u8(const uint8_t *p)
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
    u8_vec bytes;
    memcpy(&bytes, p, sizeof bytes);
    return __builtin_convertvector(bytes, vec);
#endif
}

static inline vec load_f32(const float *p)
{
    f32_vec x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, vec);
}

static inline vec load_f64(const double *p)
{
    f64_vec x;
    memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, vec);
}

static inline void store(real *p, vec x) { memcpy(p, &x, sizeof x); }

static inline vec splat(real x) { return x - (vec){0}; }

/* Masked load and store of the first `count` lanes; the others are zero and not accessed. */
static inline vec load_first(const real *p, long count)
{
    if (count >= LANES)
        return load(p);
#if defined(__AVX512F__)
    return F32_F64(_mm512_maskz_loadu_ps, _mm512_maskz_loadu_pd)((1u << count) - 1, p);
#else
    real lanes[LANES] = {0};
    memcpy(lanes, p, (size_t)count * sizeof(real));
    return load(lanes);
#endif
}

static inline void store_first(real *p, long count, vec x)
{
    if (count >= LANES) {
        store(p, x);
        return;
    }
#if defined(__AVX512F__)
    F32_F64(_mm512_mask_storeu_ps, _mm512_mask_storeu_pd)(p, (1u << count) - 1, x);
#else
    memcpy(p, &x, (size_t)count * sizeof(real));
#endif
}

static inline vec fma_(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return F32_F64(_mm512_fmadd_ps, _mm512_fmadd_pd)(a, b, c);
#elif defined(__AVX2__) && defined(__FMA__)
    return F32_F64(_mm256_fmadd_ps, _mm256_fmadd_pd)(a, b, c);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vec)F32_F64(vfmaq_f32, vfmaq_f64)((neon_vec)c, (neon_vec)a, (neon_vec)b);
#else
    return a * b + c; /* built with -ffp-contract=off */
#endif
}

static inline vec sqrt_(vec a)
{
#if defined(__AVX512F__)
    return F32_F64(_mm512_sqrt_ps, _mm512_sqrt_pd)(a);
#elif defined(__AVX2__) && defined(__FMA__)
    return F32_F64(_mm256_sqrt_ps, _mm256_sqrt_pd)(a);
#elif defined(__SSE2__)
    return F32_F64(_mm_sqrt_ps, _mm_sqrt_pd)(a);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vec)F32_F64(vsqrtq_f32, vsqrtq_f64)((neon_vec)a);
#else
    for (int i = 0; i < LANES; i++)
        a[i] = F32_F64(sqrtf, sqrt)(a[i]);
    return a;
#endif
}

/* Lanes of a (indices below LANES) and b (from LANES on); the indices must be constants. */
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

/* a where the lane of mask is all ones, b where it is all zeros. */
static inline vec blend(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

/* One bit per lane of x that is not zero; NaN is not zero. */
static inline uint32_t nonzero_bits(vec x)
{
    const vec zero = {0};
#if defined(__AVX512F__)
    return F32_F64(_mm512_cmp_ps_mask, _mm512_cmp_pd_mask)(x, zero, _CMP_NEQ_UQ);
#elif defined(__AVX2__) && defined(__FMA__)
    vec differs = F32_F64(_mm256_cmp_ps, _mm256_cmp_pd)(x, zero, _CMP_NEQ_UQ);
    return (uint32_t)F32_F64(_mm256_movemask_ps, _mm256_movemask_pd)(differs);
#elif defined(__SSE2__)
    vec differs = F32_F64(_mm_cmpneq_ps, _mm_cmpneq_pd)(x, zero);
    return (uint32_t)F32_F64(_mm_movemask_ps, _mm_movemask_pd)(differs);
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (uint32_t)(x[i] != zero[i]) << i;
    return bits;
#endif
}

static inline vec fabs_(vec x)
{
    return (vec)((ivec)x & F32_F64(INT32_MAX, INT64_MAX));
}

/* x, which must not be negative, with the sign of `sign`. */
static inline vec copysign_(vec x, vec sign)
{
    return (vec)((ivec)x | ((ivec)sign & F32_F64(INT32_MIN, INT64_MIN)));
}

/* Horner's rule, x[0] + y (x[1] + y (x[2] ...)): the loop unrolls. */
#define POLYNOMIAL(sum, x, degree, y)           \
    vec sum = splat((x)[degree]);               \
    for (int i_ = (degree) - 1; i_ >= 0; i_--)  \
        sum = fma_(sum, y, splat((x)[i_]));

/* 1 / n!. For |r| <= ln 2 / 2 the truncation error of e^r is below 6e-9 at degree 7, 5e-18 at degree
 * 13. */
enum { EXP_DEGREE = F32_F64(7, 13) };
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

/* Arguments of e^x are clipped to this: its value is about twice the smallest normal number. */
#define EXP_MIN F32_F64(-87.0f, -708.0)

/* Range reduction: x = n ln 2 + r with |r| <= ln 2 / 2, for EXP_MIN <= x <= 0. ln 2 is split in two
 * so that n times its upper part is exact. Returns r; power: n, shifted to add to an exponent. */
static inline vec reduce_range(vec x, uvec *power)
{
    /* 1.5 * 2^23 or 2^52: adding it rounds to an integer */
    const vec shift = splat(F32_F64(12582912.0f, 6755399441055744.0));
    vec shifted = fma_(x, splat(F32_F64(1.44269504088896341f, 1.44269504088896341)), shift);
    vec n = shifted - shift;
    *power = ((uvec)shifted - (uvec)shift) << F32_F64(23, 52);
    vec r = fma_(n, splat(F32_F64(-0.693145751953125f, -6.93147180369123816490e-01)), x);
    return fma_(n, splat(F32_F64(-1.42860682030941723e-6f, -1.90821492927058770002e-10)), r);
}

static inline vec max_(vec a, vec x) { return blend(x < a, a, x); } /* NaN in x stays */

/* e^x for x <= 0, error at most 2 ulp; x is clipped to EXP_MIN; NaN stays NaN. */
static inline vec exp_(vec x)
{
    uvec power;
    vec r = reduce_range(max_(splat(EXP_MIN), x), &power);
    POLYNOMIAL(e, INVERSE_FACTORIAL, EXP_DEGREE, r)
    return (vec)((uvec)e + power);
}

/* e^x - 1 for x <= 0: with e^x = 2^n e^r it is 2^n (e^r - 1) + (2^n - 1), where the polynomial gives
 * e^r - 1 without a rounded 1; for n < 0 the sum is below -0.29, and nothing cancels. */
static inline vec expm1_(vec x)
{
    uvec power;
    vec r = reduce_range(max_(splat(EXP_MIN), x), &power);
    POLYNOMIAL(ratio, INVERSE_FACTORIAL + 1, EXP_DEGREE - 1, r)
    vec scale = (vec)((uvec)splat(1) + power);
    return fma_(scale, r * ratio, scale - splat(1));
}

/* tanh |z| = -u / (2 + u) for u = e^(-2 |z|) - 1, error a few ulp; 1 - e^(-2 |z|) would cancel near
 * zero. */
static inline vec tanh_(vec z)
{
    vec u = expm1_(splat(-2) * fabs_(z));
    return copysign_(fabs_(u / (splat(2) + u)), z);
}

/* 1 / (1 + e^-z), given e = e^-|z|. */
static inline vec logistic_from_exp(vec z, vec e)
{
    return blend(z < splat(0), e, splat(1)) / (splat(1) + e);
}

static inline vec logistic_(vec z) { return logistic_from_exp(z, exp_(-fabs_(z))); }

/* 1 / (2n + 1), until 1/9^n / (2n + 1) is negligible. */
enum { LOG_DEGREE = F32_F64(7, 16) };
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

/* log(1 + x) = 2 artanh(s) with s = x / (2 + x) <= 1/3, for 0 <= x <= 1: a series of positive terms. */
static inline vec log1p_(vec x)
{
    vec s = x / (splat(2) + x);
    vec square = s * s;
    POLYNOMIAL(ratio, INVERSE_ODD, LOG_DEGREE, square)
    return (s + s) * ratio;
}

#endif
