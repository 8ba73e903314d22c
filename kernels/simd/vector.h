/* A vector of floats, as wide as the instruction set: the few operations that compilers do not
 * derive from plain arithmetic on vector types. fma is always one operation, fused where the
 * hardware has it and two roundings where it has not, so that no compiler setting moves a bit. */
#ifndef FMNIST_VECTOR_H
#define FMNIST_VECTOR_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
#elif defined(__SSE2__)
#include <emmintrin.h>
#define LANES 4
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define LANES 4
#else
#include <math.h>
#define LANES 4
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));

static inline vec load(const float *p)
{
    vec x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* Bytes as floats. */
static inline vec load_bytes(const uint8_t *p)
{
#if defined(__AVX512F__)
    __m128i bytes;
    memcpy(&bytes, p, sizeof bytes);
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
#elif defined(__AVX2__) && defined(__FMA__)
    int64_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes)));
#else
    return (vec){p[0], p[1], p[2], p[3]};
#endif
}

static inline void store(float *p, vec x) { memcpy(p, &x, sizeof x); }

static inline vec splat(float x) { return x - (vec){0}; }

static inline vec fma_(vec a, vec b, vec c)
{
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c; /* built with -ffp-contract=off */
#endif
}

static inline vec root(vec a)
{
#if defined(__AVX512F__)
    return (vec)_mm512_sqrt_ps((__m512)a);
#elif defined(__AVX2__) && defined(__FMA__)
    return (vec)_mm256_sqrt_ps((__m256)a);
#elif defined(__SSE2__)
    return (vec)_mm_sqrt_ps((__m128)a);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vec)vsqrtq_f32((float32x4_t)a);
#else
    for (int i = 0; i < LANES; i++)
        a[i] = sqrtf(a[i]);
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
#define LANES_4(F, x, j) F(j, x), F(j + 1, x), F(j + 2, x), F(j + 3, x)
#if LANES == 16
#define EVERY_LANE(F, x) LANES_4(F, x, 0), LANES_4(F, x, 4), LANES_4(F, x, 8), LANES_4(F, x, 12)
#elif LANES == 8
#define EVERY_LANE(F, x) LANES_4(F, x, 0), LANES_4(F, x, 4)
#else
#define EVERY_LANE(F, x) LANES_4(F, x, 0)
#endif

/* yes where the lane of mask is all ones, no where it is all zeros. */
static inline vec choose(ivec mask, vec yes, vec no)
{
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

/* One bit per lane of x that is not zero; NaN is not zero. */
static inline uint32_t nonzero(vec x)
{
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NEQ_UQ);
#elif defined(__AVX2__) && defined(__FMA__)
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_NEQ_UQ));
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps(_mm_cmpneq_ps((__m128)x, _mm_setzero_ps()));
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++)
        bits |= (uint32_t)(x[i] != 0) << i;
    return bits;
#endif
}

/* e^x for x <= 0, to 2 units in the last place; below -87 it stays at e^-87, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, whose rest is
 * below 6e-9. ln 2 is split in two so that n times its upper part is exact. */
static inline vec exp_(vec x)
{
    const vec lowest = splat(-87.0f);
    const vec shift = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    x = choose(x < lowest, lowest, x);
    vec shifted = fma_(x, splat(1.44269504088896341f), shift);
    vec n = shifted - shift;
    vec r = fma_(n, splat(-0.693145751953125f), x);
    r = fma_(n, splat(-1.42860682030941723e-6f), r);
    vec e = splat(1.0f / 5040);
    e = fma_(e, r, splat(1.0f / 720));
    e = fma_(e, r, splat(1.0f / 120));
    e = fma_(e, r, splat(1.0f / 24));
    e = fma_(e, r, splat(1.0f / 6));
    e = fma_(e, r, splat(0.5f));
    e = fma_(e, r, splat(1.0f));
    e = fma_(e, r, splat(1.0f));
    ivec power = ((ivec)shifted - (ivec)shift) << 23;
    return (vec)((ivec)e + power);
}

#endif
