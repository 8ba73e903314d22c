/* The loops of loops.h, for the instruction set that this is compiled for. Included once by each of
 * baseline.c, avx2.c and avx512.c, which define TABLE and NAME; for double, by way of the files
 * that are named so. */
#include "loops.h"
#include "vector.h"

#define INLINE static inline __attribute__((always_inline))

/* Keeps the compiler from taking a pointer apart into one register per offset from it. */
#define FIXED(pointer) __asm__("" : "+r"(pointer))

/* Keeps the compiler from loading a vector once for every use of it. */
#if defined(__x86_64__)
#define IN_REGISTER(vector) __asm__("" : "+v"(vector))
#else
#define IN_REGISTER(vector) ((void)0)
#endif

/* At most this many vectors of sums are kept in registers: 8 of AVX2's 16, and of AVX-512's 32 two
 * panels, whose rows hide the latency of their sums. */
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

/* Vector j of a row that begins at p in one panel; those that do not fit are in the next one. */
#define IN_PANELS(p, next, j) ((j) * LANES < PANEL ? (p) + (j) * LANES : (next) + (j) * LANES - PANEL)

INLINE void multiply_n(const real *x, long ldx, const uint64_t *mask, uint64_t only, panels w,
                       panels start, real *out, long ldo, long next, long first, long last,
                       const int n)
{
    for (long s = first; s < last; s++) {
        vec sum[SUMS];
        const real *from = start.p + s * start.ld, *from_next = from + start.next;
        for (int j = 0; j < n; j++)
            sum[j] = load(IN_PANELS(from, from_next, j));
        const real *row = x + s * ldx;
        for (uint64_t bits = mask[s] & only; bits; bits &= bits - 1) {
            long k = __builtin_ctzll(bits);
            vec value = splat(row[k]);
            const real *weights = w.p + k * w.ld, *weights_next = weights + w.next;
            FIXED(weights);
            if (n * LANES > PANEL)
                FIXED(weights_next);
            for (int j = 0; j < n; j++)
                sum[j] = fma_(value, load(IN_PANELS(weights, weights_next, j)), sum[j]);
        }
        real *to = out + s * ldo, *to_next = to + next;
        for (int j = 0; j < n; j++)
            store(IN_PANELS(to, to_next, j), sum[j]);
    }
}

/* The same matrix from column c on. */
INLINE panels from_column(panels m, long c)
{
    m.p += c / PANEL * m.next + c % PANEL;
    return m;
}

static void multiply(const real *x, long ldx, const uint64_t *mask, uint64_t only, panels w,
                     panels start, real *out, long ldo, long next, long first, long last,
                     long width)
{
    for (long c = 0; c < width; c += SUMS * LANES)
        WITH_CONSTANT(vectors(width, c), multiply_n, x, ldx, mask, only, from_column(w, c),
                      from_column(start, c), out + c / PANEL * next + c % PANEL, ldo, next, first,
                      last)
}

/* Rows and vectors of a tile of sums: 4 by 4 of AVX-512's 32 registers, else 4 by 2 of 16; 8 rows of
 * a single vector. A row's sums are the same in a tile of any height. */
enum { TILE_ROWS = 4, TILE = VECTOR_BYTES == 64 ? 4 : 2, NARROW_ROWS = 8 };

INLINE void dense_tile(const real *x, long ldx, long inputs, panels w, panels start, real *out,
                       long ldo, const int rows, const int n)
{
    vec sum[NARROW_ROWS][TILE];
    for (int s = 0; s < rows; s++)
        for (int j = 0; j < n; j++)
            sum[s][j] = load(start.p + s * start.ld + j * LANES);
    for (long k = 0; k < inputs; k++) {
        vec weights[TILE];
        for (int j = 0; j < n; j++) {
            weights[j] = load(w.p + k * w.ld + j * LANES);
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

INLINE void multiply_dense_n(const real *x, long ldx, long inputs, panels w, panels start,
                             real *out, long ldo, long first, long last, const int n)
{
    const int tall = n == 1 ? NARROW_ROWS : TILE_ROWS;
    start.p += first * start.ld;
    for (long s = first, rows; s < last; s += rows, start.p += rows * start.ld) {
        rows = s + tall <= last ? tall : 1;
        if (rows == 1)
            dense_tile(x + s * ldx, ldx, inputs, w, start, out + s * ldo, ldo, 1, n);
        else
            dense_tile(x + s * ldx, ldx, inputs, w, start, out + s * ldo, ldo, tall, n);
    }
}

static void multiply_dense(const real *x, long ldx, long inputs, panels w, panels start,
                           real *out, long ldo, long next, long first, long last, long width)
{
    for (long c = 0, n; c < width; c += n * LANES) {
        real *to = out + c / PANEL * next + c % PANEL;
        n = c + TILE * LANES <= width ? TILE : 1;
        if (n == 1)
            multiply_dense_n(x, ldx, inputs, from_column(w, c), from_column(start, c), to, ldo,
                             first, last, 1);
        else
            multiply_dense_n(x, ldx, inputs, from_column(w, c), from_column(start, c), to, ldo,
                             first, last, TILE);
    }
}

INLINE void sum_entries_n(const real *values, const int64_t *at, long count, const real *w, long ldw,
                          const real *start, real *out, const int n)
{
    vec sum[SUMS];
    for (int j = 0; j < n; j++)
        sum[j] = load(start + j * LANES);
    for (long e = 0; e < count; e++) {
        vec value = splat(values[e]);
        const real *weights = w + at[e] * ldw;
        FIXED(weights);
        for (int j = 0; j < n; j++)
            sum[j] = fma_(value, load(weights + j * LANES), sum[j]);
    }
    for (int j = 0; j < n; j++)
        store(out + j * LANES, sum[j]);
}

/* No row of w is padded: a vector that reaches beyond the columns is read in part. */
static void sum_entries(const real *values, const int64_t *at, long count, const real *w, long ldw,
                        const real *start, real *out, long columns)
{
    long c = 0;
    for (long n; (n = vectors(columns, c)) > 0; c += n * LANES) {
        n -= n == 7 || n == 5; /* WITH_CONSTANT has no such case */
        WITH_CONSTANT(n, sum_entries_n, values, at, count, w + c, ldw, start + c, out + c)
    }
    if (c < columns) {
        vec sum = load_first(start + c, columns - c);
        for (long e = 0; e < count; e++)
            sum = fma_(splat(values[e]), load_first(w + at[e] * ldw + c, columns - c), sum);
        store(out + c, sum);
        c += LANES;
    }
    for (; c < (columns + 15) / 16 * 16; c += LANES)
        store(out + c, splat(0));
}

#define LANE_NUMBER(j, unused) (j)

/* x in the first n lanes, no in the others. */
INLINE vec first_lanes(vec x, long n, vec no)
{
    const ivec lane = {EVERY_LANE(LANE_NUMBER, 0)};
    return choose(lane < (whole)(n < LANES ? n : LANES), x, no);
}

/* f(distance) for distances that bring every lane together with all others. */
#define PARTNER(j, size) ((j) ^ (size))
#if LANES == 16
#define FOLD(f) f(8) f(4) f(2) f(1)
#elif LANES == 8
#define FOLD(f) f(4) f(2) f(1)
#elif LANES == 4
#define FOLD(f) f(2) f(1)
#else
#define FOLD(f) f(1)
#endif

#define SUM(size) sum += SHUFFLE(sum, sum, EVERY_LANE(PARTNER, size));
INLINE real sum_of(vec sum)
{
    FOLD(SUM)
    return sum[0];
}

/* A square of LANES by LANES numbers across its diagonal, by swapping ever larger squares. */
INLINE void turn_square(vec t[LANES])
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

static void turn(const real *in, long ldi, long rows, long width, real *out, uint64_t *mask,
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
            turn_square(t);
            for (int i = 0; i < LANES; i++) {
                store(out + (c + i) * PANEL + s, t[i]);
                bits[i] |= (uint64_t)nonzero(t[i]) << s;
            }
        }
        memcpy(mask + c, bits, sizeof bits);
        store(sums + c, sum);
    }
}

/* The numbers of a step in every lane, so that they are loaded once and not for every vector. */
typedef struct {
    vec step_size, epsilon, l2, keep, beta1, rest1, beta2, rest2;
} numbers_in_lanes;

INLINE numbers_in_lanes in_lanes(const step_numbers *n)
{
    return (numbers_in_lanes){splat(n->step_size), splat(n->epsilon), splat(n->l2),
                              splat(n->keep),      splat(n->beta1),   splat(n->rest1),
                              splat(n->beta2),     splat(n->rest2)};
}

/* The rule on one vector of parameters w with the gradient g: kernels/reference.py, update. Changes
 * the moments and returns the new w. Only Adam has the second moment. */
typedef vec (*step_rule)(vec w, vec *m, vec *v, vec g, const numbers_in_lanes *n);

INLINE vec adam(vec w, vec *m, vec *v, vec g, const numbers_in_lanes *n)
{
    g = fma_(n->l2, w, g);
    *m = fma_(n->beta1, *m, n->rest1 * g);
    *v = fma_(n->beta2, *v, n->rest2 * g * g);
    vec step = n->step_size * *m / (root(*v) + n->epsilon);
    return n->keep * w - step;
}

INLINE vec sgd(vec w, vec *m, vec *v, vec g, const numbers_in_lanes *n)
{
    (void)v;
    g = fma_(n->l2, w, g);
    *m = fma_(n->beta1, *m, -(n->step_size * g));
    return fma_(n->keep, w, *m);
}

INLINE vec nesterov(vec w, vec *m, vec *v, vec g, const numbers_in_lanes *n)
{
    (void)v;
    g = fma_(n->l2, w, g);
    vec step = n->step_size * g;
    *m = fma_(n->beta1, *m, -step);
    return fma_(n->keep, w, fma_(n->beta1, *m, -step));
}

/* One vector in memory, of which the first `count` lanes are there; v is neither read nor written
 * but by Adam. */
INLINE vec move(step_rule rule, real *p, real *m, real *v, vec g, long count,
                const numbers_in_lanes *n)
{
    vec mean = load_first(m, count), square = rule == adam ? load_first(v, count) : splat(0);
    vec w = rule(load_first(p, count), &mean, &square, g, n);
    store_first(m, count, mean);
    if (rule == adam)
        store_first(v, count, square);
    store_first(p, count, w);
    return w;
}

INLINE real update_turned_by(step_rule rule, const real *g, long inputs, real *w, real *m, real *v,
                             long ldw, real *turned, long ldt, const step_numbers *numbers)
{
    const numbers_in_lanes lanes = in_lanes(numbers);
    vec squares = splat(0);
    for (long k = 0; k < inputs; k += LANES)
        for (long o = 0; o < OUTPUTS; o += LANES) {
            vec t[LANES];
            for (int i = 0; i < LANES; i++)
                t[i] = load(g + (o + i) * PANEL + k);
            turn_square(t);
            for (int i = 0; i < LANES && k + i < inputs; i++) {
                long at = (k + i) * ldw + o;
                vec before = load(w + at);
                squares = fma_(before, before, squares);
                t[i] = move(rule, w + at, m + at, v + at, t[i], LANES, &lanes);
            }
            if (turned) {
                turn_square(t);
                for (int i = 0; i < LANES; i++)
                    store(turned + (o + i) * ldt + k, t[i]);
            }
        }
    real total = 0;
    for (int i = 0; i < LANES; i++)
        total += squares[i];
    return total;
}

static void gradient_turned(const real *g, long inputs, real *out, long ldo)
{
    for (long k = 0; k < inputs; k += LANES)
        for (long o = 0; o < OUTPUTS; o += LANES) {
            vec t[LANES];
            for (int i = 0; i < LANES; i++)
                t[i] = load(g + (o + i) * PANEL + k);
            turn_square(t);
            for (int i = 0; i < LANES && k + i < inputs; i++)
                store(out + (k + i) * ldo + o, t[i]);
        }
}

static void column_sums(const real *delta, long ldd, long rows, real *out, long width)
{
    for (long c = 0; c < width; c += LANES) {
        vec sum = splat(0);
        for (long s = 0; s < rows; s++)
            sum += load(delta + s * ldd + c);
        store(out + c, sum);
    }
}

INLINE real update_by(step_rule rule, real *p, real *m, real *v, const real *g, long count,
                      const step_numbers *numbers)
{
    const numbers_in_lanes lanes = in_lanes(numbers);
    vec squares = splat(0);
    for (long i = 0; i < count; i += LANES) {
        vec before = load_first(p + i, count - i);
        squares = fma_(before, before, squares);
        move(rule, p + i, m + i, v + i, g ? load_first(g + i, count - i) : splat(0), count - i,
             &lanes);
    }
    return sum_of(squares);
}

#define FUNCTIONS_OF_RULE(rule)                                                                 \
    static real rule##_turned(const real *g, long inputs, real *w, real *m, real *v, long ldw,  \
                              real *turned, long ldt, const step_numbers *numbers)              \
    {                                                                                           \
        return update_turned_by(rule, g, inputs, w, m, v, ldw, turned, ldt, numbers);           \
    }                                                                                           \
    static real rule##_flat(real *p, real *m, real *v, const real *g, long count,               \
                            const step_numbers *numbers)                                        \
    {                                                                                           \
        return update_by(rule, p, m, v, g, count, numbers);                                     \
    }
FUNCTIONS_OF_RULE(adam)
FUNCTIONS_OF_RULE(sgd)
FUNCTIONS_OF_RULE(nesterov)

static void add(real *x, const real *y, long count)
{
    for (long i = 0; i < count; i += LANES)
        store(x + i, load(x + i) + load(y + i));
}

/* What a hidden layer makes of its sums z, and what delta becomes where its output was a:
 * kernels/reference.py, activate and slope. NaN is not below 0, and stays. */
INLINE vec relu(vec z) { return choose(z < splat(0), splat(0), z); }
INLINE vec relu_delta(vec a, vec delta) { return choose(a > splat(0), delta, splat(0)); }

INLINE vec tanh_delta(vec a, vec delta) { return delta * fma_(-a, a, splat(1)); }

INLINE vec logistic_delta(vec a, vec delta) { return delta * (a * (splat(1) - a)); }

INLINE vec identity_(vec z) { return z; }
INLINE vec identity_delta(vec a, vec delta)
{
    (void)a;
    return delta;
}

INLINE void activate_by(vec (*activation)(vec), real *x, long ldx, uint64_t *mask, long first,
                        long last, long columns)
{
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < (columns + 15) / 16 * 16; c += LANES) {
            vec a = activation(load(x + s * ldx + c));
            if (c + LANES > columns)
                a = first_lanes(a, columns - c, splat(0));
            store(x + s * ldx + c, a);
            bits |= (uint64_t)nonzero(a) << c;
        }
        mask[s] = bits;
    }
}

/* 32 random bits for every lane, the first of which is this unit: kernels/reference.py says how. */
INLINE uvec random_bits(uint64_t row, uint32_t unit)
{
    const uvec lane = {EVERY_LANE(LANE_NUMBER, 0)};
    uvec bits = (lane + unit) * 0x9E3779B9u + (uint32_t)row;
    bits = (bits ^ bits >> 16) * 0x7FEB352Du;
    bits ^= (uint32_t)(row >> 32);
    bits = (bits ^ bits >> 15) * 0x846CA68Bu;
    return bits ^ bits >> 16;
}

/* All ones in the lanes that dropout leaves out. */
INLINE ivec left_out(const dropout *drop, long s, uint32_t unit)
{
    return __builtin_convertvector(random_bits(drop->row[s], unit) < drop->least, ivec);
}

static void drop_out(real *x, long ldx, uint64_t *mask, long first, long last, long width,
                     const dropout *drop, uint32_t unit)
{
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < width; c += LANES) {
            ivec out = left_out(drop, s, unit + (uint32_t)c);
            vec a = choose(out, splat(0), load(x + s * ldx + c) * splat(drop->scale));
            store(x + s * ldx + c, a);
            bits |= (uint64_t)nonzero(a) << c;
        }
        mask[s] = bits;
    }
}

/* zero_stops: an output of 0 stops the delta anyway, so that what dropout left out need not be
 * found again. */
INLINE void backward_by(vec (*through)(vec, vec), int zero_stops, const real *a, real *delta,
                        long ldd, uint64_t *mask, long first, long last, long width,
                        const dropout *drop, uint32_t unit)
{
    const vec scale = splat(drop ? drop->scale : 1), stays = splat(drop ? drop->stays : 1);
    for (long s = first; s < last; s++) {
        uint64_t bits = 0;
        for (long c = 0; c < width; c += LANES) {
            long at = s * ldd + c;
            vec d = through(stays * load(a + at), scale * load(delta + at));
            if (!zero_stops && drop)
                d = choose(left_out(drop, s, unit + (uint32_t)c), splat(0), d);
            store(delta + at, d);
            bits |= (uint64_t)nonzero(d) << c;
        }
        mask[s] = bits;
    }
}

#define FUNCTIONS_OF_ACTIVATION(name, activation, through, zero_stops)                            \
    static void name##_rows(real *x, long ldx, uint64_t *mask, long first, long last,             \
                            long columns)                                                         \
    {                                                                                             \
        activate_by(activation, x, ldx, mask, first, last, columns);                              \
    }                                                                                             \
    static void name##_backward(const real *a, real *delta, long ldd, uint64_t *mask, long first, \
                                long last, long width, const dropout *drop, uint32_t unit)        \
    {                                                                                             \
        backward_by(through, zero_stops, a, delta, ldd, mask, first, last, width, drop, unit);    \
    }
FUNCTIONS_OF_ACTIVATION(relu, relu, relu_delta, 1)
FUNCTIONS_OF_ACTIVATION(tanh, tanh_, tanh_delta, 0)
FUNCTIONS_OF_ACTIVATION(logistic, logistic_, logistic_delta, 0)
FUNCTIONS_OF_ACTIVATION(identity, identity_, identity_delta, 0)

static real largest(const real *z, real so_far, long count)
{
    vec best = splat(so_far);
    for (long c = 0; c < count; c += LANES) {
        vec a = first_lanes(load(z + c), count - c, best);
        best = choose(a > best, a, best); /* NaN is not above anything */
    }
#define LARGER(size)                                                \
    {                                                               \
        vec other = SHUFFLE(best, best, EVERY_LANE(PARTNER, size)); \
        best = choose(other > best, other, best);                   \
    }
    FOLD(LARGER)
    return best[0];
}

static real exponential(const real *z, real peak, real *out, long count)
{
    vec sum = splat(0);
    for (long c = 0; c < (count + 15) / 16 * 16; c += LANES) {
        vec e = first_lanes(exp_(load(z + c) - splat(peak)), count - c, splat(0));
        store(out + c, e);
        sum += e;
    }
    return sum_of(sum);
}

static void share_out(real *p, real factor, long target, real share, long width)
{
    const ivec lane = {EVERY_LANE(LANE_NUMBER, 0)};
    for (long c = 0; c < width; c += LANES) {
        vec is_target = choose(lane == (whole)(target - c), splat(1), splat(0));
        store(p + c, (load(p + c) * splat(factor) - is_target) * splat(share));
    }
}

static real share_out_soft(real *p, real factor, const real *target, const real *z,
                            real share, long width)
{
    vec sum = splat(0);
    for (long c = 0; c < width; c += LANES) {
        vec t = load(target + c);
        sum = fma_(t, load(z + c), sum);
        store(p + c, (load(p + c) * splat(factor) - t) * splat(share));
    }
    return sum_of(sum);
}

static real independent(const real *z, const real *target, real share, real most, real *delta,
                        long count)
{
    vec sum = splat(0);
    for (long c = 0; c < (count + 15) / 16 * 16; c += LANES) {
        vec logit = load(z + c), t = load(target + c), e = exp_(-magnitude(logit));
        vec loss = relu(logit) + log_1_plus(e) - t * logit;
        loss = choose(loss > splat(most), splat(most), loss); /* NaN is not above, and stays */
        sum += first_lanes(loss, count - c, splat(0));
        vec d = (logistic_of(logit, e) - t) * splat(share);
        store(delta + c, first_lanes(d, count - c, splat(0)));
    }
    return sum_of(sum);
}

/* A row of numbers, which need not be aligned, in blocks of 64: full vectors, then one with what is
 * left and zeros, then zeros up to a multiple of 16. */
#define ROW_OF(name, type, widen)                                                                 \
    static void row_of_##name(const void *row, real scale, long count, real *restrict out,        \
                              long next, uint64_t *restrict mask, long next_mask, long s)         \
    {                                                                                             \
        const type *restrict x = row;                                                             \
        for (long first = 0; first < count; first += PANEL, out += next, mask += next_mask) {     \
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
                bits |= (uint64_t)nonzero(a) << c;                                                \
            }                                                                                     \
            mask[s] = bits;                                                                       \
        }                                                                                         \
    }
ROW_OF(bytes, uint8_t, load_bytes)
ROW_OF(floats, float, load_floats)
ROW_OF(doubles, double, load_doubles)

/* Twelve independent chains: two units of latency 4 or 5 need ten; 16 registers hold them. */
static double multiply_adds(long turns)
{
    enum { CHAINS = 12 };
    const vec half = splat(0.5);
    vec x[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        x[i] = splat((real)i);
    for (long turn = 0; turn < turns; turn++)
        for (int i = 0; i < CHAINS; i++)
            x[i] = fma_(x[i], half, half);
    real used = 0; /* or else the compiler leaves all of it out */
    for (int i = 0; i < CHAINS; i++)
        used += x[i][0];
    __asm__ volatile("" : : "r"(used));
    return 2.0 * LANES * CHAINS * (double)turns;
}

#define OF_EACH_ACTIVATION(kind) {relu_##kind, tanh_##kind, logistic_##kind, identity_##kind}
#define OF_EACH_RULE(kind) {adam_##kind, sgd_##kind, nesterov_##kind}

const loops TABLE = {
    NAME,
    multiply,
    multiply_dense,
    sum_entries,
    turn,
    OF_EACH_RULE(turned),
    gradient_turned,
    column_sums,
    OF_EACH_RULE(flat),
    add,
    OF_EACH_ACTIVATION(rows),
    drop_out,
    OF_EACH_ACTIVATION(backward),
    largest,
    exponential,
    share_out,
    share_out_soft,
    independent,
    {row_of_bytes, row_of_floats, row_of_doubles},
    multiply_adds,
};
