/* One forward pass of a Llama-shaped decoder on a CPU, for the rows of many requests at once.
 *
 * A row is one token of one request. All rows share the products; attention reads each row's own cache. Every number of
 * a row is computed in one order, whatever rows stand beside it and however many threads there are: a dot product
 * gathers eight partial sums, element k in sum k % 8, and adds them up as `sum_lanes` does. So a row's bits do not
 * depend on its batch.
 *
 * Threads divide each phase by taking pieces from a counter and meet at a barrier behind it; within one pass they spin,
 * between passes they sleep once they have spun for a while. Nothing is allocated within a pass. Arithmetic is float32;
 * weights may be float32, bfloat16 or int8 with one scale a row, caches float32 or bfloat16. Rows that meet int8 weights
 * are rounded to int16 first, one scale a row, and their products summed up as integers, which is exact.
 *
 * The structures are those of layout.py, field by field.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef float f8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float f4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t i8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t u8 __attribute__((vector_size(32)));
typedef uint16_t h8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef int16_t s16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef int16_t s8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef int8_t b16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t bf16;

enum {
    LANES = 8,        /* numbers in a register, of int16 twice as many */
    WHOLE_LANES = 16,
    COLUMNS = 4,      /* rows of a weight that are multiplied together */
    PIECE = 32,       /* rows of a weight that a thread takes at a time */
    ROW_BLOCK = 48,   /* rows of a batch that stay near while a piece is multiplied */
    MIXED = 4,        /* registers of an attention head that are summed up together */
    LINE = 64,        /* bytes of a cache line */
    APART = 128,      /* bytes that are fetched together */
    SPINS = 4000,     /* looks before a waiting thread gives its core away */
};
/* How long a thread looks out for the next pass before it sleeps: waking takes milliseconds on a virtual machine, which
 * each step of an answer would pay. */
static const double AWAKE_S = 0.01;
enum kind { FLOAT32, BFLOAT16, INT8 };

typedef struct {
    const void *weight; /* (out, in), row after row */
    const float *scale; /* (out), of INT8 */
    const float *bias;  /* (out), or NULL */
    int64_t kind, num_out, num_in;
} Linear;

typedef struct {
    Linear query, key, value, output, gate, up, down;
    const float *input_norm, *mlp_norm;   /* (hidden) */
    const float *query_norm, *key_norm;   /* (head dim), or NULL */
    int64_t window;                       /* keys a row sees, 0 for all */
} Layer;

typedef struct {
    const Layer *layers;
    const float *norm;
    Linear head;
    int64_t num_layers, hidden, num_heads, num_kv_heads, head_dim, inner, cache_kind;
    float epsilon, scaling;
} Model;

typedef struct {
    int64_t num_rows, num_wanted, capacity_most, rotary_dim;
    float *states;            /* (rows, hidden), embeddings in, last hidden states out */
    const float *cosine;      /* (rows, rotary dim) */
    const float *sine;
    const int64_t *positions; /* (rows), the row's place in its cache */
    void *const *keys;        /* (rows), each (layers, kv heads, capacity, head dim) */
    void *const *values;
    const int64_t *capacities;
    const int64_t *wanted;    /* rows whose logits are asked for */
    float *logits;            /* (wanted, vocab) */
} Batch;

/* What is multiplied: float32, or int16 with what one means in each row. */
typedef struct {
    const float *floats;
    const int16_t *wholes;
    const float *units;
} Rows;

typedef struct {
    float *beside; /* (rows, PIECE), what a piece's gates are multiplied by */
    float *scores; /* one for each key, of three heads */
    int64_t num_threads;
} Scratch;

/* What threads write all the time lies apart from what they read all the time, and from each other's. */
typedef struct {
    int num_threads;
    pthread_t *threads;
    Scratch *scratch;
    const Model *model;
    const Batch *batch;
    int64_t rows_most, scores_most;
    float *normed, *heads, *mixed, *inner; /* (rows, ...) between phases */
    float *wholes, *units;                 /* the int16 rows of the next product (rows, most inputs), and (rows) */
    pthread_mutex_t lock;
    pthread_cond_t bell;
    int is_closing;
    _Alignas(APART) atomic_long next;
    _Alignas(APART) atomic_int arrived;
    _Alignas(APART) atomic_int phase;
    _Alignas(APART) atomic_int num_done;
    _Alignas(APART) atomic_ulong num_jobs;
} Pool;

/* ---- arithmetic ---- */

static inline f8 load_float32(const float *from) { return *(const f8 *)from; }

static inline f8 load_bfloat16(const bf16 *from) {
#if defined(__AVX2__)
    return (f8)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16);
#else
    return (f8)(__builtin_convertvector(*(const h8 *)from, u8) << 16);
#endif
}

static inline s16 load_int8(const int8_t *from) {
#if defined(__AVX2__)
    return (s16)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
#else
    return __builtin_convertvector(*(const b16 *)from, s16);
#endif
}

/* Sums of two neighbouring products each, in int32 */
static inline i8 pair_products(s16 left, s16 right) {
#if defined(__AVX2__)
    return (i8)_mm256_madd_epi16((__m256i)left, (__m256i)right);
#else
    i8 sums;
    for (int i = 0; i < LANES; i++) sums[i] = left[2 * i] * right[2 * i] + left[2 * i + 1] * right[2 * i + 1];
    return sums;
#endif
}

static inline bf16 to_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); /* to the nearest, ties to even */
}

/* ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)) of each */
static inline void sum_lanes(const f8 *sums, float *out) {
#if defined(__AVX2__)
    __m256 low = _mm256_hadd_ps((__m256)sums[0], (__m256)sums[1]), high = _mm256_hadd_ps((__m256)sums[2], (__m256)sums[3]);
    __m256 both = _mm256_hadd_ps(low, high);
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1)));
#else
    for (int i = 0; i < COLUMNS; i++) {
        f8 s = sums[i];
        out[i] = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    }
#endif
}

static inline float sum_of(f8 values) {
    f8 sums[COLUMNS] = {values};
    float out[COLUMNS];
    sum_lanes(sums, out);
    return out[0];
}

static inline f8 either(i8 is_first, f8 first, f8 second) {
    return (f8)(((i8)first & is_first) | ((i8)second & ~is_first));
}

static inline f8 larger(f8 left, f8 right) { return either(left > right, left, right); }

/* e to the power of each, to about one part in ten million (the polynomial of Cephes' expf) */
static inline f8 exponential(f8 x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    f8 least = (f8){0} - 87.3f, most = (f8){0} + 88.3f;
    x = larger(x, least);
    x = either(x < most, x, most);
    f8 power = (x * 1.44269504f + magic) - magic;
    f8 rest = x - power * 0.693359375f + power * 2.12194440e-4f;
    f8 series = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    series = series * rest * rest + rest + 1.0f;
    i8 bits = (__builtin_convertvector(power, i8) + 127) << 23;
    return series * (f8)bits;
}

/* In a register from here on, not read from memory at each use: loads are what bounds a product. */
static inline f8 held(f8 values) {
#if defined(__AVX2__)
    __asm__("" : "+x"(values));
#endif
    return values;
}

/* Dot products of ROWS rows of x with COLUMNS rows of a weight: out[row * COLUMNS + column]. */
#define DOTS(NAME, ROWS, TYPE, LOAD)                                                                                  \
    static void NAME(const void *rows, int64_t stride, const void *const *w, int64_t length, float *out) {            \
        const float *x = rows;                                                                                        \
        f8 sums[ROWS][COLUMNS];                                                                                       \
        for (int r = 0; r < ROWS; r++)                                                                                \
            for (int c = 0; c < COLUMNS; c++) sums[r][c] = (f8){0};                                                   \
        const TYPE *w0 = w[0], *w1 = w[1], *w2 = w[2], *w3 = w[3];                                                    \
        for (int64_t k = 0; k < length; k += LANES) {                                                                 \
            f8 left[ROWS];                                                                                            \
            for (int r = 0; r < ROWS; r++) left[r] = held(load_float32(x + r * stride + k));                          \
            f8 right = held(LOAD(w0 + k));                                                                            \
            for (int r = 0; r < ROWS; r++) sums[r][0] += left[r] * right;                                             \
            right = held(LOAD(w1 + k));                                                                               \
            for (int r = 0; r < ROWS; r++) sums[r][1] += left[r] * right;                                             \
            right = held(LOAD(w2 + k));                                                                               \
            for (int r = 0; r < ROWS; r++) sums[r][2] += left[r] * right;                                             \
            right = held(LOAD(w3 + k));                                                                               \
            for (int r = 0; r < ROWS; r++) sums[r][3] += left[r] * right;                                             \
        }                                                                                                             \
        for (int r = 0; r < ROWS; r++) sum_lanes(sums[r], out + r * COLUMNS);                                         \
    }

DOTS(dots1_float32, 1, float, load_float32)
DOTS(dots2_float32, 2, float, load_float32)
DOTS(dots3_float32, 3, float, load_float32)
DOTS(dots1_bfloat16, 1, bf16, load_bfloat16)
DOTS(dots2_bfloat16, 2, bf16, load_bfloat16)
DOTS(dots3_bfloat16, 3, bf16, load_bfloat16)

/* The same of int16 rows with int8 weights: as integers, pairs of elements in eight sums. */
#define WHOLE_DOTS(NAME, ROWS)                                                                                        \
    static void NAME(const void *rows, int64_t stride, const void *const *w, int64_t length, float *out) {            \
        const int16_t *x = rows;                                                                                      \
        i8 sums[ROWS][COLUMNS];                                                                                       \
        for (int r = 0; r < ROWS; r++)                                                                                \
            for (int c = 0; c < COLUMNS; c++) sums[r][c] = (i8){0};                                                   \
        for (int64_t k = 0; k < length; k += WHOLE_LANES)                                                             \
            for (int c = 0; c < COLUMNS; c++) {                                                                       \
                s16 right = load_int8((const int8_t *)w[c] + k);                                                     \
                for (int r = 0; r < ROWS; r++) sums[r][c] += pair_products(*(const s16 *)(x + r * stride + k), right); \
            }                                                                                                         \
        for (int r = 0; r < ROWS; r++) {                                                                              \
            f8 wide[COLUMNS];                                                                                         \
            for (int c = 0; c < COLUMNS; c++) wide[c] = __builtin_convertvector(sums[r][c], f8);                      \
            sum_lanes(wide, out + r * COLUMNS);                                                                       \
        }                                                                                                             \
    }

WHOLE_DOTS(dots1_int8, 1)
WHOLE_DOTS(dots2_int8, 2)

typedef void Dots(const void *, int64_t, const void *const *, int64_t, float *);
static Dots *const dots_of[][4] = {
    {NULL, dots1_float32, dots2_float32, dots3_float32},
    {NULL, dots1_bfloat16, dots2_bfloat16, dots3_bfloat16},
    {NULL, dots1_int8, dots2_int8},
};
static const int rows_most_of[] = {3, 3, 2};
static const size_t item_bytes[] = {4, 2, 1};

/* Have the weights of the columns from `column` on come nearer: of themselves they come too late, as four rows at once
 * are no stream to the processor (int8 weights were read at 2.6 GB/s a core without, 9 with). */
static void fetch(const Linear *linear, int64_t column) {
    if (column >= linear->num_out) return;
    size_t row_bytes = (size_t)linear->num_in * item_bytes[linear->kind];
    int64_t num_rows = linear->num_out - column < COLUMNS ? linear->num_out - column : COLUMNS;
    const char *from = (const char *)linear->weight + (size_t)column * row_bytes;
    for (const char *at = from; at < from + (size_t)num_rows * row_bytes; at += LINE) __builtin_prefetch(at, 0, 3);
}

/* As many of the numbers from `at` on as there are, zeros behind them and for no numbers at all. */
static f4 load_some(const float *numbers, int64_t at, int count) {
    f4 found = {0};
    if (numbers && count == COLUMNS) return *(const f4 *)(numbers + at);
    for (int c = 0; numbers && c < count; c++) found[c] = numbers[at + c];
    return found;
}

/* Columns begin:end of x times the transposed weight, for all rows; column begin is at out[0] of each row. */
static void multiply(const Linear *linear, const Rows *x, int64_t num_rows, int64_t begin, int64_t end, float *out,
                     int64_t out_stride, int is_added, Scratch *scratch) {
    int64_t kind = linear->kind, length = linear->num_in;
    int is_whole = kind == INT8;
    for (int64_t block = 0; block < num_rows; block += ROW_BLOCK) {
        int64_t stop = block + ROW_BLOCK < num_rows ? block + ROW_BLOCK : num_rows;
        for (int64_t column = begin; column < end; column += COLUMNS) {
            const void *weights[COLUMNS];
            for (int c = 0; c < COLUMNS; c++) {
                int64_t row = column + c < linear->num_out ? column + c : linear->num_out - 1;
                weights[c] = (const char *)linear->weight + (size_t)(row * length) * item_bytes[kind];
            }
            fetch(linear, column + COLUMNS < end ? column + COLUMNS : begin + scratch->num_threads * PIECE);
            int num_columns = end - column < COLUMNS ? (int)(end - column) : COLUMNS;
            f4 scales = load_some(linear->scale, column, num_columns), biases = load_some(linear->bias, column, num_columns);
            for (int64_t row = block; row < stop;) {
                int most = rows_most_of[kind], num = stop - row < most ? (int)(stop - row) : most;
                if (most == 3 && stop - row == 4) num = 2; /* 2 and 2 are quicker than 3 and 1 */
                const void *from = is_whole ? (const void *)(x->wholes + row * length) : x->floats + row * length;
                float found[3 * COLUMNS];
                dots_of[kind][num](from, length, weights, length, found);
                for (int r = 0; r < num; r++, row++) {
                    float *to = out + row * out_stride + (column - begin);
                    f4 values = *(const f4 *)(found + r * COLUMNS);
                    if (is_whole) values *= scales * x->units[row];
                    values += biases;
                    if (is_added) values += load_some(to, 0, num_columns);
                    if (num_columns == COLUMNS) *(f4 *)to = values;
                    else memcpy(to, &values, (size_t)num_columns * sizeof(float));
                }
            }
        }
    }
}

static void normalize(const float *x, const float *weight, int64_t width, float epsilon, float *out) {
    f8 squares = {0};
    for (int64_t k = 0; k < width; k += LANES) {
        f8 values = load_float32(x + k);
        squares += values * values;
    }
    float factor = 1.0f / sqrtf(sum_of(squares) / (float)width + epsilon);
    for (int64_t k = 0; k < width; k += LANES) *(f8 *)(out + k) = load_float32(weight + k) * (load_float32(x + k) * factor);
}

static float largest_lane(f8 values) {
    float largest = values[0];
    for (int i = 1; i < LANES; i++) largest = values[i] > largest ? values[i] : largest;
    return largest;
}

/* A row as int16, so small that no sum of its products with int8 can overflow; returns what one of it means, which is no
 * number where one of the row's is none. */
static float make_whole(const float *x, int64_t width, int16_t *out) {
    const float magic = 12582912.0f; /* as in `exponential`; the integer is then the lowest bits */
    int64_t most = ((int64_t)1 << 27) / width;
    float bound = most < 32767 ? (float)most : 32767.0f;
    f8 sizes = {0}, odd = {0};
    for (int64_t k = 0; k < width; k += LANES) {
        f8 values = load_float32(x + k);
        sizes = larger(sizes, larger(values, -values));
        odd += values * 0.0f;
    }
    float largest = largest_lane(sizes), factor = largest > 0.0f ? bound / largest : 0.0f;
    for (int64_t k = 0; k < width; k += LANES) {
        i8 bits = (i8)(load_float32(x + k) * factor + magic);
        *(s8 *)(out + k) = __builtin_convertvector(bits, s8);
    }
    return largest / bound + sum_of(odd);
}

/* As transformers' rotate_half: the two halves of the rotated part are the two coordinates. */
static void rotate(float *restrict head, const float *restrict cosine, const float *restrict sine, int64_t rotary_dim) {
    int64_t half = rotary_dim / 2;
    float *restrict other = head + half;
    for (int64_t i = 0; i < half; i++) {
        float first = head[i], second = other[i];
        head[i] = first * cosine[i] - second * sine[i];
        other[i] = second * cosine[i + half] + first * sine[i + half];
    }
}

/* Attention of HEADS queries, which share the keys and values first:last + 1. Scores of a head are `stride` from the next
 * one's. */
#define MIX(NAME, HEADS, TYPE, LOAD)                                                                                  \
    static void NAME(const float *scores, int64_t stride, const void *values, int64_t count, int64_t width,           \
                     float *out) {                                                                                    \
        for (int64_t begin = 0; begin < width; begin += MIXED * LANES) {                                              \
            int num = width - begin < MIXED * LANES ? (int)((width - begin) / LANES) : MIXED;                         \
            f8 mixed[HEADS][MIXED];                                                                                   \
            for (int h = 0; h < HEADS; h++)                                                                           \
                for (int i = 0; i < MIXED; i++) mixed[h][i] = (f8){0};                                                \
            const TYPE *at = (const TYPE *)values + begin;                                                            \
            if (num == MIXED)                                                                                         \
                for (int64_t t = 0; t < count; t++, at += width)                                                      \
                    for (int i = 0; i < MIXED; i++) {                                                                 \
                        f8 value = held(LOAD(at + i * LANES));                                                        \
                        for (int h = 0; h < HEADS; h++) mixed[h][i] += value * scores[h * stride + t];                \
                    }                                                                                                 \
            else                                                                                                      \
                for (int64_t t = 0; t < count; t++, at += width)                                                      \
                    for (int i = 0; i < num; i++)                                                                     \
                        for (int h = 0; h < HEADS; h++) mixed[h][i] += LOAD(at + i * LANES) * scores[h * stride + t]; \
            for (int h = 0; h < HEADS; h++)                                                                           \
                for (int i = 0; i < num; i++) *(f8 *)(out + h * width + begin + i * LANES) = mixed[h][i];             \
        }                                                                                                             \
    }

MIX(mix1_float32, 1, float, load_float32)
MIX(mix2_float32, 2, float, load_float32)
MIX(mix3_float32, 3, float, load_float32)
MIX(mix1_bfloat16, 1, bf16, load_bfloat16)
MIX(mix2_bfloat16, 2, bf16, load_bfloat16)
MIX(mix3_bfloat16, 3, bf16, load_bfloat16)

typedef void Mix(const float *, int64_t, const void *, int64_t, int64_t, float *);
static Mix *const mix_of[][4] = {
    {NULL, mix1_float32, mix2_float32, mix3_float32},
    {NULL, mix1_bfloat16, mix2_bfloat16, mix3_bfloat16},
};

/* Scores to probabilities, padded with zeros to whole lanes. */
static void soften(float *scores, int64_t count) {
    int64_t padded = (count + LANES - 1) / LANES * LANES;
    for (int64_t t = count; t < padded; t++) scores[t] = -INFINITY;
    f8 most = load_float32(scores), totals = {0};
    for (int64_t t = LANES; t < padded; t += LANES) most = larger(most, load_float32(scores + t));
    float largest = largest_lane(most);
    for (int64_t t = 0; t < padded; t += LANES) *(f8 *)(scores + t) = exponential(load_float32(scores + t) - largest);
    for (int64_t t = count; t < padded; t++) scores[t] = 0.0f;
    for (int64_t t = 0; t < padded; t += LANES) totals += load_float32(scores + t);
    float total = sum_of(totals);
    for (int64_t t = 0; t < padded; t += LANES) *(f8 *)(scores + t) = load_float32(scores + t) / total;
}

/* Attention of up to three heads, whose queries lie one after another, over the same `count` keys and values. */
static void attend_heads(int64_t kind, int num, const float *queries, const char *keys, const char *values, int64_t count,
                         int64_t width, float scaling, float *scores, int64_t stride, float *out) {
    size_t row_bytes = (size_t)width * item_bytes[kind];
    for (int64_t t = 0; t < count; t += COLUMNS) {
        const void *at[COLUMNS];
        float found[3 * COLUMNS];
        for (int c = 0; c < COLUMNS; c++) at[c] = keys + (size_t)(t + c < count ? t + c : count - 1) * row_bytes;
        dots_of[kind][num](queries, width, at, width, found);
        for (int h = 0; h < num; h++)
            for (int c = 0; c < COLUMNS; c++) scores[h * stride + t + c] = found[h * COLUMNS + c] * scaling;
    }
    for (int h = 0; h < num; h++) soften(scores + h * stride, count);
    mix_of[kind][num](scores, stride, values, count, width, out);
}

/* ---- threads ---- */

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* All threads are here before any goes on; pieces are counted from 0 again. */
static void meet(Pool *pool) {
    int phase = atomic_load_explicit(&pool->phase, memory_order_acquire);
    if (atomic_fetch_add(&pool->arrived, 1) == pool->num_threads - 1) {
        atomic_store(&pool->arrived, 0);
        atomic_store(&pool->next, 0);
        atomic_store_explicit(&pool->phase, phase + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&pool->phase, memory_order_acquire) == phase; spins++) {
        if (spins < SPINS) relax();
        else sched_yield(); /* something else wants this core */
    }
}

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static inline int64_t take(Pool *pool) { return atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed); }

static int64_t num_pieces(int64_t num_out) { return (num_out + PIECE - 1) / PIECE; }

/* Products of the same rows with several weights, their columns side by side in `out`. */
static void multiply_all(Pool *pool, Scratch *scratch, const Linear *const *linears, int count, const Rows *x,
                         int64_t num_rows, float *out, int64_t out_stride, int is_added) {
    for (int64_t piece = take(pool);; piece = take(pool)) {
        int64_t rest = piece, offset = 0;
        int which = 0;
        while (which < count && rest >= num_pieces(linears[which]->num_out)) {
            rest -= num_pieces(linears[which]->num_out);
            offset += linears[which++]->num_out;
        }
        if (which == count) break;
        int64_t begin = rest * PIECE, end = begin + PIECE;
        if (end > linears[which]->num_out) end = linears[which]->num_out;
        multiply(linears[which], x, num_rows, begin, end, out + offset + begin, out_stride, is_added, scratch);
    }
    meet(pool);
}

/* The rows of the next product: as they are, or made whole where its weights are. */
static Rows rows_for(Pool *pool, const Linear *linear, const float *x, int64_t num_rows) {
    Rows rows = {x, (const int16_t *)pool->wholes, pool->units};
    if (linear->kind == INT8) {
        for (int64_t row = take(pool); row < num_rows; row = take(pool))
            pool->units[row] =
                make_whole(x + row * linear->num_in, linear->num_in, (int16_t *)pool->wholes + row * linear->num_in);
        meet(pool);
    }
    return rows;
}

/* The same, of rows that are normalized first. */
static Rows normalized_rows_for(Pool *pool, const Linear *linear, const float *x, const float *weight,
                                const int64_t *which, int64_t num_rows) {
    int64_t width = pool->model->hidden;
    Rows rows = {pool->normed, (const int16_t *)pool->wholes, pool->units};
    for (int64_t row = take(pool); row < num_rows; row = take(pool)) {
        float *out = pool->normed + row * width;
        normalize(x + (which ? which[row] : row) * width, weight, width, pool->model->epsilon, out);
        if (linear->kind == INT8) pool->units[row] = make_whole(out, width, (int16_t *)pool->wholes + row * width);
    }
    meet(pool);
    return rows;
}

static void place(Pool *pool, int64_t index) {
    const Model *model = pool->model;
    const Batch *batch = pool->batch;
    const Layer *layer = model->layers + index;
    int64_t width = model->head_dim, num_heads = model->num_heads + model->num_kv_heads;
    int64_t stride = (num_heads + model->num_kv_heads) * width;
    for (int64_t row = take(pool); row < batch->num_rows; row = take(pool)) {
        float *heads = pool->heads + row * stride;
        for (int64_t h = 0; h < num_heads; h++) {
            const float *norm = h < model->num_heads ? layer->query_norm : layer->key_norm;
            if (norm) normalize(heads + h * width, norm, width, model->epsilon, heads + h * width);
            rotate(heads + h * width, batch->cosine + row * batch->rotary_dim, batch->sine + row * batch->rotary_dim,
                   batch->rotary_dim);
        }
        for (int64_t h = 0; h < model->num_kv_heads; h++) {
            int64_t at = ((index * model->num_kv_heads + h) * batch->capacities[row] + batch->positions[row]) * width;
            const float *key = heads + (model->num_heads + h) * width, *value = heads + (num_heads + h) * width;
            if (model->cache_kind == FLOAT32) {
                memcpy((float *)batch->keys[row] + at, key, (size_t)width * sizeof(float));
                memcpy((float *)batch->values[row] + at, value, (size_t)width * sizeof(float));
            } else {
                for (int64_t k = 0; k < width; k++) {
                    ((bf16 *)batch->keys[row])[at + k] = to_bfloat16(key[k]);
                    ((bf16 *)batch->values[row])[at + k] = to_bfloat16(value[k]);
                }
            }
        }
    }
    meet(pool);
}

static void attend(Pool *pool, Scratch *scratch, int64_t index) {
    const Model *model = pool->model;
    const Batch *batch = pool->batch;
    int64_t width = model->head_dim, window = model->layers[index].window, kind = model->cache_kind;
    int64_t all_heads = (model->num_heads + 2 * model->num_kv_heads) * width;
    int64_t group = model->num_heads / model->num_kv_heads, stride = pool->scores_most + LANES;
    for (int64_t task = take(pool); task < batch->num_rows * model->num_kv_heads; task = take(pool)) {
        int64_t row = task / model->num_kv_heads, shared = task % model->num_kv_heads, last = batch->positions[row];
        int64_t first = window && last >= window ? last - window + 1 : 0;
        int64_t at = ((index * model->num_kv_heads + shared) * batch->capacities[row] + first) * width;
        const char *keys = (const char *)batch->keys[row] + (size_t)at * item_bytes[kind];
        const char *values = (const char *)batch->values[row] + (size_t)at * item_bytes[kind];
        for (int64_t head = shared * group; head < (shared + 1) * group; head += 3) {
            int num = (shared + 1) * group - head < 3 ? (int)((shared + 1) * group - head) : 3;
            attend_heads(kind, num, pool->heads + row * all_heads + head * width, keys, values, last - first + 1, width,
                         model->scaling, scratch->scores, stride, pool->mixed + (row * model->num_heads + head) * width);
        }
    }
    meet(pool);
}

/* silu(gate) * up, a piece of columns at a time */
static void gate(Pool *pool, Scratch *scratch, const Layer *layer, const Rows *x, int64_t num_rows) {
    int64_t inner = pool->model->inner;
    for (int64_t piece = take(pool); piece < num_pieces(inner); piece = take(pool)) {
        int64_t begin = piece * PIECE, end = begin + PIECE < inner ? begin + PIECE : inner;
        multiply(&layer->gate, x, num_rows, begin, end, pool->inner + begin, inner, 0, scratch);
        multiply(&layer->up, x, num_rows, begin, end, scratch->beside, PIECE, 0, scratch);
        float *gates = pool->inner + begin;
        const float *ups = scratch->beside;
        for (int64_t row = 0; row < num_rows; row++, gates += inner, ups += PIECE)
            for (int64_t k = 0; k < end - begin; k += LANES) {
                f8 value = load_float32(gates + k);
                *(f8 *)(gates + k) = value / (1.0f + exponential(-value)) * load_float32(ups + k);
            }
    }
    meet(pool);
}

static void pass(Pool *pool, Scratch *scratch) {
    const Model *model = pool->model;
    const Batch *batch = pool->batch;
    int64_t rows = batch->num_rows, width = model->num_heads * model->head_dim;
    int64_t all_heads = width + 2 * model->num_kv_heads * model->head_dim;
    for (int64_t index = 0; index < model->num_layers; index++) {
        const Layer *layer = model->layers + index;
        const Linear *joined[] = {&layer->query, &layer->key, &layer->value};
        const Linear *output[] = {&layer->output}, *down[] = {&layer->down};
        Rows x = normalized_rows_for(pool, &layer->query, batch->states, layer->input_norm, NULL, rows);
        multiply_all(pool, scratch, joined, 3, &x, rows, pool->heads, all_heads, 0);
        place(pool, index);
        attend(pool, scratch, index);
        x = rows_for(pool, &layer->output, pool->mixed, rows);
        multiply_all(pool, scratch, output, 1, &x, rows, batch->states, model->hidden, 1);
        x = normalized_rows_for(pool, &layer->gate, batch->states, layer->mlp_norm, NULL, rows);
        gate(pool, scratch, layer, &x, rows);
        x = rows_for(pool, &layer->down, pool->inner, rows);
        multiply_all(pool, scratch, down, 1, &x, rows, batch->states, model->hidden, 1);
    }
    if (batch->num_wanted == 0) return;
    const Linear *head[] = {&model->head};
    Rows x = normalized_rows_for(pool, &model->head, batch->states, model->norm, batch->wanted, batch->num_wanted);
    multiply_all(pool, scratch, head, 1, &x, batch->num_wanted, batch->logits, model->head.num_out, 0);
}

typedef struct {
    Pool *pool;
    int index;
} Seat;

static void *work(void *argument) {
    Seat seat = *(Seat *)argument;
    Pool *pool = seat.pool;
    free(argument);
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "console-step"); /* for whoever looks at the process's threads */
#endif
    uint64_t seen = 0;
    for (;;) {
        double end_s = now_s() + AWAKE_S;
        while (atomic_load_explicit(&pool->num_jobs, memory_order_acquire) == seen && now_s() < end_s) sched_yield();
        pthread_mutex_lock(&pool->lock);
        while (atomic_load(&pool->num_jobs) == seen && !pool->is_closing) pthread_cond_wait(&pool->bell, &pool->lock);
        int is_closing = pool->is_closing;
        seen = atomic_load(&pool->num_jobs);
        pthread_mutex_unlock(&pool->lock);
        if (is_closing) return NULL;
        pass(pool, pool->scratch + seat.index);
        atomic_fetch_add(&pool->num_done, 1);
    }
}

static int renew(float **buffer, int64_t count) {
    free(*buffer);
    *buffer = aligned_alloc(APART, ((size_t)count * sizeof(float) + APART - 1) / APART * APART);
    return *buffer != NULL;
}

/* Room for so many rows and keys; 0 where there is no memory for it. */
static int make_room(Pool *pool, const Model *model, const Batch *batch) {
    int is_fine = 1;
    int64_t rows = batch->num_rows, width = model->num_heads * model->head_dim;
    int64_t most_in = model->inner > model->hidden ? model->inner : model->hidden;
    if (width > most_in) most_in = width;
    if (rows > pool->rows_most) {
        pool->rows_most = 0;
        is_fine &= renew(&pool->normed, rows * model->hidden) && renew(&pool->mixed, rows * width);
        is_fine &= renew(&pool->heads, rows * (width + 2 * model->num_kv_heads * model->head_dim));
        is_fine &= renew(&pool->inner, rows * model->inner);
        is_fine &= renew(&pool->wholes, rows * most_in) && renew(&pool->units, rows);
        for (int i = 0; i < pool->num_threads; i++) is_fine &= renew(&pool->scratch[i].beside, rows * PIECE);
        if (is_fine) pool->rows_most = rows;
    }
    if (batch->capacity_most > pool->scores_most) {
        pool->scores_most = 0;
        for (int i = 0; i < pool->num_threads; i++)
            is_fine &= renew(&pool->scratch[i].scores, 3 * (batch->capacity_most + LANES));
        if (is_fine) pool->scores_most = batch->capacity_most;
    }
    return is_fine;
}

/* ---- what layout.py and library.py call ---- */

void console_close_pool(Pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->is_closing = 1;
    pthread_cond_broadcast(&pool->bell);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 1; i < pool->num_threads; i++) pthread_join(pool->threads[i], NULL);
    for (int i = 0; i < pool->num_threads; i++) {
        free(pool->scratch[i].beside);
        free(pool->scratch[i].scores);
    }
    free(pool->normed);
    free(pool->heads);
    free(pool->mixed);
    free(pool->inner);
    free(pool->wholes);
    free(pool->units);
    free(pool->scratch);
    free(pool->threads);
    free(pool);
}

/* Threads that sleep until there is a pass to run, the calling thread counted; NULL where the system gives none. */
Pool *console_open_pool(int num_threads) {
    Pool *pool = aligned_alloc(APART, sizeof(Pool));
    if (!pool) return NULL;
    memset(pool, 0, sizeof(Pool));
    pool->threads = calloc((size_t)num_threads, sizeof(pthread_t));
    pool->scratch = calloc((size_t)num_threads, sizeof(Scratch));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->bell, NULL);
    if (!pool->threads || !pool->scratch) {
        free(pool->threads);
        free(pool->scratch);
        free(pool);
        return NULL;
    }
    pool->num_threads = 1;
    for (int i = 0; i < num_threads; i++) pool->scratch[i].num_threads = num_threads;
    for (int i = 1; i < num_threads; i++) {
        Seat *seat = malloc(sizeof(Seat));
        if (seat) *seat = (Seat){pool, i};
        if (!seat || pthread_create(pool->threads + i, NULL, work, seat)) {
            free(seat);
            console_close_pool(pool);
            return NULL;
        }
        pool->num_threads = i + 1;
    }
    return pool;
}

/* Run the batch through the model, on one thread at a time; 0, or 1 where there was no memory for it. */
int console_forward(Pool *pool, const Model *model, const Batch *batch) {
    if (!make_room(pool, model, batch)) return 1;
    pthread_mutex_lock(&pool->lock);
    pool->model = model;
    pool->batch = batch;
    atomic_store(&pool->next, 0);
    atomic_store(&pool->num_done, 0);
    atomic_fetch_add(&pool->num_jobs, 1);
    pthread_cond_broadcast(&pool->bell);
    pthread_mutex_unlock(&pool->lock);
    pass(pool, pool->scratch);
    for (int spins = 0; atomic_load(&pool->num_done) < pool->num_threads - 1; spins++) {
        if (spins < SPINS) relax();
        else sched_yield();
    }
    return 0;
}
