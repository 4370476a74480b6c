/* One forward pass of the nanochat GPT on a CPU, for any mixture of prompt tokens and new tokens.

   A row is one token of one sequence. Every row is computed in the same order of operations whatever stands
   beside it, on however many threads: so a request gets the same bits alone, in a full batch, in chunks
   or behind a cached prefix. Built by nanochat/engine/native/__init__.py with the machine's own compiler.

   Weights are packed in panels of 64 outputs (four vectors of 16), see `pack` there:
     F32   [panel][k][4][16] float            BF16  [panel][k/2][4][16][2] bfloat16
     INT8  [panel][k/2][4][2][16] int8, one float scale per output
   With BF16 and INT8 the activations of a product are rounded to bfloat16 and sums are float32; the
   residual stream is float32 throughout. Keys and values lie in blocks of 16 tokens:
     [layer][block][kv head]{ keys [E][16], values [16][E] }, float or bfloat16.

   Not covered: AMX tiles, batches larger than `max_rows`. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16
#define PANEL 64
#define BLOCK 16
#define QUERIES 4 /* rows of a sequence that share their reads of the cache */
#ifdef __AVX512F__
#define TILE 6 /* rows: 24 accumulators of 32 registers */
#else
#define TILE 2
#endif

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));
typedef uint32_t u16 __attribute__((vector_size(64)));
typedef uint16_t bf16;

enum { F32, BF16, INT8 };

typedef struct {
    const void *data;
    const float *scale;
    int K, N;
} Matrix;

typedef struct {
    Matrix qkv, proj, fc, out;
    const float *mix, *values, *gate;
} Layer;

typedef struct {
    int kind, layers, D, H, G, E, V, context, blocks, max_rows, threads, gate_channels;
    float eps, cap;
    const float *embedding, *cos, *sin;
    Matrix head;
    Layer *layer;
    uint8_t *cache;
    /* scratch, a row after the other */
    float *x, *first, *normed, *qkv, *wide, *scores, *sums;
    bf16 *half;
    int32_t *begins;
} Model;

/* ---------------------------------------------------------------- vectors */

static inline v16 splat(float a) { return a - (v16){0}; }
static inline v16 load(const float *p) { v16 v; memcpy(&v, p, 64); return v; }
static inline void store(float *p, v16 v) { memcpy(p, &v, 64); }
static inline v16 pick(i16 mask, v16 a, v16 b) { return (v16)((mask & (i16)a) | (~mask & (i16)b)); }
static inline v16 larger(v16 a, v16 b) { return pick(a > b, a, b); }
static inline v16 smaller(v16 a, v16 b) { return pick(a < b, a, b); }

static inline float sum(v16 v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* e^x within 2 ulp for -87 ≤ x ≤ 88 (Cephes' polynomial) */
static inline v16 vexp(v16 x) {
    x = smaller(larger(x, splat(-87.0f)), splat(88.0f));
    v16 shifted = x * 1.44269504088896341f + 12582912.0f; /* rounds to the nearest whole number */
    v16 n = shifted - 12582912.0f;
    v16 r = x - n * 0.693359375f + n * 2.12194440e-4f;
    v16 p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    i16 power = ((i16)shifted - 0x4B400000 + 127) << 23;
    return p * (v16)power;
}

static inline bf16 to_half(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return (bf16)((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

static inline v16 half_load(const bf16 *p) {
#ifdef __AVX512F__
    return (v16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#else
    u16 v;
    for (int i = 0; i < LANES; i++) v[i] = (uint32_t)p[i] << 16;
    return (v16)v;
#endif
}

static void to_halves(const float *from, bf16 *to, int count) {
    for (int i = 0; i < count; i++) to[i] = to_half(from[i]);
}

/* ---------------------------------------------------------------- matrix products */

#define INLINE static inline __attribute__((always_inline))

/* One panel of 64 outputs for `R` rows of x. Each output is one chain of additions in the order of k. */
INLINE void tile_f32(const float *w, int K, int end, const float *x, v16 (*acc)[4], int R) {
    for (int k = 0; k < end; k++, w += PANEL) {
        v16 part[4];
        for (int j = 0; j < 4; j++) {
            part[j] = load(w + 16 * j);
            __builtin_prefetch(w + 1024 + 16 * j);
        }
        for (int r = 0; r < R; r++) {
            v16 a = splat(x[(size_t)r * K + k]);
            for (int j = 0; j < 4; j++) acc[r][j] += a * part[j];
        }
    }
}

/* acc += x[k]·(first of the pairs) + x[k + 1]·(second) */
INLINE void add_pairs(const u16 *pairs, int K, int k, const float *x, const bf16 *xh, v16 (*acc)[4], int R) {
#ifdef __AVX512BF16__
    for (int r = 0; r < R; r++) {
        int both;
        memcpy(&both, xh + (size_t)r * K + k, 4);
        __m512bh a = (__m512bh)_mm512_set1_epi32(both);
        for (int j = 0; j < 4; j++)
            acc[r][j] = (v16)_mm512_dpbf16_ps((__m512)acc[r][j], a, (__m512bh)pairs[j]);
    }
    (void)x;
#else
    for (int r = 0; r < R; r++) {
        v16 a = splat(x[(size_t)r * K + k]), b = splat(x[(size_t)r * K + k + 1]);
        for (int j = 0; j < 4; j++)
            acc[r][j] = acc[r][j] + a * (v16)(pairs[j] << 16) + b * (v16)(pairs[j] & 0xFFFF0000u);
    }
    (void)xh;
#endif
}

INLINE void tile_bf16(const uint32_t *w, int K, int end, const float *x, const bf16 *xh, v16 (*acc)[4], int R) {
    for (int k = 0; k < end; k += 2, w += PANEL) {
        u16 pairs[4];
        memcpy(pairs, w, sizeof pairs);
        for (int j = 0; j < 4; j++) __builtin_prefetch(w + 1024 + 16 * j);
        add_pairs(pairs, K, k, x, xh, acc, R);
    }
}

INLINE v16 widened(const int8_t *p) {
#ifdef __AVX512F__
    return (v16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#else
    v16 v;
    for (int i = 0; i < LANES; i++) v[i] = p[i];
    return v;
#endif
}

INLINE void tile_int8(const int8_t *w, int K, int end, const float *x, const bf16 *xh, v16 (*acc)[4], int R) {
    for (int k = 0; k < end; k += 2, w += 2 * PANEL) {
        u16 pairs[4];
        for (int j = 0; j < 4; j++) { /* whole numbers up to 127 are bfloat16 exactly: no rounding */
            pairs[j] = ((u16)widened(w + 32 * j) >> 16) | (u16)widened(w + 32 * j + 16);
        }
        __builtin_prefetch(w + 4096);
        __builtin_prefetch(w + 4160);
        add_pairs(pairs, K, k, x, xh, acc, R);
    }
}

/* `end` values of k, added to what `sums` (R rows of 64) holds, or to nothing. */
INLINE void tile(int kind, const void *w, int K, int end, const float *x, const bf16 *xh, float *sums, int first,
                 int R) {
    v16 acc[TILE][4];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < 4; j++) acc[r][j] = first ? splat(0) : load(sums + PANEL * r + 16 * j);
    if (kind == F32) tile_f32(w, K, end, x, acc, R);
    else if (kind == BF16) tile_bf16(w, K, end, x, xh, acc, R);
    else tile_int8(w, K, end, x, xh, acc, R);
    for (int r = 0; r < R; r++)
        for (int j = 0; j < 4; j++) store(sums + PANEL * r + 16 * j, acc[r][j]);
}

/* sums (rows × 64) of one panel. A slice of it stays in the first cache while all rows pass over it. */
static void panel_product(const Model *m, const char *panel, int K, const float *x, int rows, float *sums) {
    const int slice = m->kind == F32 ? 64 : 128, bytes = m->kind == F32 ? 4 : m->kind == BF16 ? 2 : 1;
    for (int k = 0; k < K; k += slice) {
        const int end = K - k < slice ? K - k : slice;
        const char *w = panel + (size_t)k * PANEL * bytes;
        for (int row = 0; row < rows; row += TILE) {
            const float *xs = x + (size_t)row * K + k;
            const bf16 *xh = m->half + (size_t)row * K + k;
            float *to = sums + PANEL * row;
            switch (m->kind * 8 + (rows - row < TILE ? rows - row : TILE)) {
#define CASE(kind, R) case kind * 8 + R: tile(kind, w, K, end, xs, xh, to, k == 0, R); break;
#if TILE == 6
#define CASES(kind) CASE(kind, 1) CASE(kind, 2) CASE(kind, 3) CASE(kind, 4) CASE(kind, 5) CASE(kind, 6)
#else
#define CASES(kind) CASE(kind, 1) CASE(kind, 2)
#endif
                CASES(F32) CASES(BF16) CASES(INT8)
            }
        }
    }
}

enum { SET, ADD, RELU2, CAP };

/* y (rows × stride) from x (rows × K): set, added to what is there, relu², or soft-capped. */
static void product(const Model *m, const Matrix *w, const float *x, int rows, float *y, int stride, int how, int me) {
    const int panels = (w->N + PANEL - 1) / PANEL;
    const int from = (int)((int64_t)panels * me / m->threads), to = (int)((int64_t)panels * (me + 1) / m->threads);
    const size_t bytes = (size_t)w->K * PANEL * (m->kind == F32 ? 4 : m->kind == BF16 ? 2 : 1);
    float *sums = m->sums + (size_t)me * m->max_rows * PANEL;
    for (int n = from; n < to; n++) {
        const int width = w->N - n * PANEL < PANEL ? w->N - n * PANEL : PANEL;
        panel_product(m, (const char *)w->data + n * bytes, w->K, x, rows, sums);
        for (int row = 0; row < rows; row++) {
            float *to_row = y + (size_t)row * stride + n * PANEL;
            for (int j = 0; 16 * j < width; j++) {
                v16 v = load(sums + PANEL * row + 16 * j);
                if (m->kind == INT8) v *= load(w->scale + n * PANEL + 16 * j);
                if (how == RELU2) { v = larger(v, splat(0)); v *= v; }
                if (how == CAP) v = m->cap - 2 * m->cap / (vexp(v * (2 / m->cap)) + 1);
                float *to = to_row + 16 * j;
                if (16 * j + LANES <= width) {
                    store(to, how == ADD ? load(to) + v : v);
                } else {
                    for (int i = 0; 16 * j + i < width; i++) to[i] = how == ADD ? to[i] + v[i] : v[i];
                }
            }
        }
    }
}

/* ---------------------------------------------------------------- rows */

static void norm(const float *x, float *y, int width, float eps) {
    v16 squares = splat(0);
    for (int i = 0; i < width; i += LANES) { v16 v = load(x + i); squares += v * v; }
    const float scale = 1.0f / sqrtf(sum(squares) / (float)width + eps);
    for (int i = 0; i < width; i += LANES) store(y + i, load(x + i) * scale);
}

/* by minus the angle, pairs (x[i], x[i + E/2]), then RMS norm */
static void rotate_norm(const Model *m, float *x, int position) {
    const int R = m->E / 2;
    const float *cos = m->cos + (size_t)position * R, *sin = m->sin + (size_t)position * R;
    for (int i = 0; i < R; i += LANES) {
        v16 a = load(x + i), b = load(x + R + i), c = load(cos + i), s = load(sin + i);
        store(x + i, a * c + b * s);
        store(x + R + i, b * c - a * s);
    }
    norm(x, x, m->E, m->eps);
}

static size_t unit(const Model *m) { return m->kind == F32 ? 4 : 2; }

static uint8_t *keys_at(const Model *m, int layer, int block, int g) {
    const size_t head = (size_t)2 * BLOCK * m->E * unit(m);
    return m->cache + (((size_t)layer * m->blocks + block) * m->G + g) * head;
}

static void remember(const Model *m, int layer, int block, int g, int at, const float *k, const float *v) {
    uint8_t *keys = keys_at(m, layer, block, g), *values = keys + (size_t)BLOCK * m->E * unit(m);
    if (m->kind == F32) {
        for (int e = 0; e < m->E; e++) ((float *)keys)[e * BLOCK + at] = k[e];
        memcpy((float *)values + (size_t)at * m->E, v, 4 * (size_t)m->E);
    } else {
        for (int e = 0; e < m->E; e++) ((bf16 *)keys)[e * BLOCK + at] = to_half(k[e]);
        to_halves(v, (bf16 *)values + (size_t)at * m->E, m->E);
    }
}

/* For R rows whose positions lie in one block, `last` the greatest: y[e … e + 16·vectors] of each row =
   share·Σ scores[t]·values[t]. Scores of tokens behind a row's own position are 0. */
INLINE void gather(const Model *m, int halves, const int32_t *table, int last, int layer, int g, int e, int vectors,
                   const float *scores, const float *share, float *y, int R) {
    const int size = halves ? 2 : 4, stride = m->context + BLOCK;
    const size_t keys = (size_t)BLOCK * m->E * size;
    v16 acc[QUERIES][4];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < 4; j++) acc[r][j] = splat(0);
    for (int b = 0; b <= last / BLOCK; b++) {
        const uint8_t *values = keys_at(m, layer, table[b], g) + keys;
        const uint8_t *next = keys_at(m, layer, table[b < last / BLOCK ? b + 1 : b], g) + keys;
        const int tokens = b == last / BLOCK ? last % BLOCK + 1 : BLOCK;
        for (int t = 0; t < tokens; t++) {
            const size_t at = (size_t)t * m->E + e;
            for (int j = 0; j < 16 * vectors * size; j += 64) __builtin_prefetch(next + at * size + j);
            v16 part[4];
            for (int j = 0; j < vectors; j++)
                part[j] = halves ? half_load((const bf16 *)values + at + 16 * j)
                                 : load((const float *)values + at + 16 * j);
            for (int r = 0; r < R; r++)
                for (int j = 0; j < vectors; j++) acc[r][j] += scores[r * stride + b * BLOCK + t] * part[j];
        }
    }
    for (int r = 0; r < R; r++)
        for (int j = 0; j < vectors; j++) store(y + (size_t)r * m->H * m->E + e + 16 * j, acc[r][j] * share[r]);
}

/* One head of R rows of one sequence: softmax(q·k/√E)·v over the tokens 0…position. The rows' positions follow
   each other in one block, `first` the first: every key and value is read once for all of them. */
INLINE void attend_with(const Model *m, int halves, const float *q, const int32_t *table, int first, int layer, int g,
                        float *scores, float *y, int R) {
    const int E = m->E, blocks = first / BLOCK + 1, size = halves ? 2 : 4, stride = m->context + BLOCK;
    const size_t row = (size_t)(m->H + 2 * m->G) * E;
    const float scale = 1.0f / sqrtf((float)E);
    v16 most[QUERIES];
    float share[QUERIES];
    for (int r = 0; r < R; r++) most[r] = splat(-INFINITY);
    for (int b = 0; b < blocks; b++) {
        const uint8_t *keys = keys_at(m, layer, table[b], g), *next = keys_at(m, layer, table[(b + 1) % blocks], g);
        v16 part[QUERIES][4];
        for (int r = 0; r < R; r++)
            for (int i = 0; i < 4; i++) part[r][i] = splat(0);
        for (int e = 0; e < E; e += 4) {
            for (int at = 0; at < 4 * BLOCK * size; at += 64) __builtin_prefetch(next + e * BLOCK * size + at);
            for (int i = 0; i < 4; i++) {
                const v16 k = halves ? half_load((const bf16 *)keys + (e + i) * BLOCK)
                                     : load((const float *)keys + (e + i) * BLOCK);
                for (int r = 0; r < R; r++) part[r][i] += q[r * row + e + i] * k;
            }
        }
        for (int r = 0; r < R; r++) {
            v16 s = ((part[r][0] + part[r][1]) + (part[r][2] + part[r][3])) * scale;
            if (b == blocks - 1)
                for (int i = first % BLOCK + r + 1; i < BLOCK; i++) s[i] = -INFINITY;
            store(scores + r * stride + b * BLOCK, s);
            most[r] = larger(s, most[r]);
        }
    }
    for (int r = 0; r < R; r++) {
        float top = most[r][0], *mine = scores + r * stride;
        for (int i = 1; i < LANES; i++) top = most[r][i] > top ? most[r][i] : top;
        v16 total = splat(0);
        for (int b = 0; b < blocks; b++) {
            v16 p = vexp(load(mine + b * BLOCK) - top);
            if (b == blocks - 1)
                for (int i = first % BLOCK + r + 1; i < BLOCK; i++) p[i] = 0;
            store(mine + b * BLOCK, p);
            total += p;
        }
        share[r] = 1.0f / sum(total);
    }
    for (int e = 0; e < E; e += 64) {
        const int vectors = (E - e) / LANES, last = first + R - 1;
        if (vectors >= 4) gather(m, halves, table, last, layer, g, e, 4, scores, share, y, R);
        else gather(m, halves, table, last, layer, g, e, vectors, scores, share, y, R);
    }
}

static void attend(const Model *m, const float *q, const int32_t *table, int first, int layer, int g, float *scores,
                   float *y, int rows) {
    switch ((m->kind == F32 ? 0 : 8) + rows) {
#define ROWS(halves, R) case 8 * halves + R: attend_with(m, halves, q, table, first, layer, g, scores, y, R); break;
        ROWS(0, 1) ROWS(0, 2) ROWS(0, 3) ROWS(0, 4)
        ROWS(1, 1) ROWS(1, 2) ROWS(1, 3) ROWS(1, 4)
#undef ROWS
    }
}

/* Rows in runs of up to QUERIES that one call of `attend` takes: where each begins, and behind them all `rows`.
   Returns how many there are. */
static int runs_of(int rows, const int32_t *positions, const int32_t *sequence, int32_t *begins) {
    int count = 0;
    for (int r = 0; r < rows; r++) {
        const int start = count ? begins[count - 1] : 0;
        const int same = count && r - start < QUERIES && sequence[r] == sequence[start] &&
                         positions[r] == positions[start] + r - start && positions[r] % BLOCK;
        if (!same) begins[count++] = r;
    }
    begins[count] = rows;
    return count;
}

/* ---------------------------------------------------------------- the pass */

#ifdef _OPENMP
#define WAIT _Pragma("omp barrier")
#else
#define WAIT
#endif
#define EACH(i, count) for (int i = (int)((int64_t)(count) * me / T); i < (int)((int64_t)(count) * (me + 1) / T); i++)

/* tokens, positions, tables (row → its sequence's block table, `table_width` wide) of `rows` rows; `wanted`:
   the rows whose logits are written, one after the other, V floats each. */
static void pass(Model *m, int rows, const int32_t *tokens, const int32_t *positions, const int32_t *sequence,
                 const int32_t *tables, int table_width, const int32_t *wanted, int wanted_rows, float *logits,
                 int runs, int me) {
    const int D = m->D, H = m->H, G = m->G, E = m->E, T = m->threads, C = (H + 2 * G) * E;
    const int halves = m->kind != F32;
    float *scores = m->scores + (size_t)me * QUERIES * (m->context + BLOCK);
    EACH(r, rows) {
        float *x = m->x + (size_t)r * D;
        norm(m->embedding + (size_t)tokens[r] * D, x, D, m->eps);
        memcpy(m->first + (size_t)r * D, x, 4 * (size_t)D);
    }
    for (int l = 0; l < m->layers; l++) {
        const Layer *w = &m->layer[l];
        EACH(r, rows) {
            float *x = m->x + (size_t)r * D, *y = m->normed + (size_t)r * D;
            if (w->mix)
                for (int i = 0; i < D; i += LANES)
                    store(x + i, w->mix[0] * load(x + i) + w->mix[1] * load(m->first + (size_t)r * D + i));
            norm(x, y, D, m->eps);
            if (halves) to_halves(y, m->half + (size_t)r * D, D);
        }
        WAIT
        product(m, &w->qkv, m->normed, rows, m->qkv, C, SET, me);
        WAIT
        EACH(r, rows) {
            float *q = m->qkv + (size_t)r * C, *k = q + H * E, *v = k + G * E;
            const int position = positions[r], block = tables[sequence[r] * table_width + position / BLOCK];
            for (int h = 0; h < H; h++) rotate_norm(m, q + h * E, position);
            for (int g = 0; g < G; g++) {
                rotate_norm(m, k + g * E, position);
                if (w->values) {
                    float open = 0;
                    for (int i = 0; i < m->gate_channels; i++)
                        open += w->gate[g * m->gate_channels + i] * m->normed[(size_t)r * D + i];
                    open = 2 / (1 + expf(-open));
                    const float *more = w->values + ((size_t)tokens[r] * G + g) * E;
                    for (int e = 0; e < E; e++) v[g * E + e] += open * more[e];
                }
                remember(m, l, block, g, position % BLOCK, k + g * E, v + g * E);
            }
        }
        WAIT
        EACH(i, runs * H) {
            const int r = m->begins[i / H], count = m->begins[i / H + 1] - r, h = i % H;
            const int32_t *table = tables + (size_t)sequence[r] * table_width;
            float *y = m->wide + ((size_t)r * H + h) * E;
            attend(m, m->qkv + (size_t)r * C + h * E, table, positions[r], l, h / (H / G), scores, y, count);
            if (halves)
                for (int j = 0; j < count; j++) {
                    const size_t at = ((size_t)(r + j) * H + h) * E;
                    to_halves(m->wide + at, m->half + at, E);
                }
        }
        WAIT
        product(m, &w->proj, m->wide, rows, m->x, D, ADD, me);
        WAIT
        EACH(r, rows) {
            float *y = m->normed + (size_t)r * D;
            norm(m->x + (size_t)r * D, y, D, m->eps);
            if (halves) to_halves(y, m->half + (size_t)r * D, D);
        }
        WAIT
        product(m, &w->fc, m->normed, rows, m->wide, 4 * D, RELU2, me);
        WAIT
        if (halves) {
            EACH(r, rows) to_halves(m->wide + (size_t)r * 4 * D, m->half + (size_t)r * 4 * D, 4 * D);
            WAIT
        }
        product(m, &w->out, m->wide, rows, m->x, D, ADD, me);
        WAIT
    }
    EACH(i, wanted_rows) {
        float *y = m->normed + (size_t)i * D;
        norm(m->x + (size_t)wanted[i] * D, y, D, m->eps);
        if (halves) to_halves(y, m->half + (size_t)i * D, D);
    }
    WAIT
    product(m, &m->head, m->normed, wanted_rows, logits, m->V, CAP, me);
}

void nanochat_forward(Model *m, int rows, const int32_t *tokens, const int32_t *positions, const int32_t *sequence,
                      const int32_t *tables, int table_width, const int32_t *wanted, int wanted_rows,
                      float *logits) {
    const int runs = runs_of(rows, positions, sequence, m->begins);
#ifdef _OPENMP
    if (m->threads > 1) {
#pragma omp parallel num_threads(m->threads)
        pass(m, rows, tokens, positions, sequence, tables, table_width, wanted, wanted_rows, logits, runs,
             omp_get_thread_num());
        return;
    }
#endif
    pass(m, rows, tokens, positions, sequence, tables, table_width, wanted, wanted_rows, logits, runs, 0);
}

static void *room(size_t bytes) {
    void *p = NULL;
    return posix_memalign(&p, 64, bytes + 64) ? NULL : p;
}

void nanochat_close(Model *m) {
    if (!m) return;
    void *parts[] = {m->layer, m->x, m->first, m->normed, m->qkv, m->wide, m->scores, m->sums, m->half, m->begins, m};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) free(parts[i]);
}

/* sizes: kind, layers, D, H, G, E, V, context, blocks, max_rows, threads, gate channels.
   parts: embedding, cos, sin, cache, head, head's scale, then for each layer qkv, proj, fc, out (each with its
   scale), mix, values, gate; NULL where there is none. All stay the caller's. NULL: not enough memory. */
Model *nanochat_open(const int32_t *sizes, float eps, float cap, const void **parts) {
    Model *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    int32_t *to[] = {&m->kind, &m->layers, &m->D, &m->H, &m->G, &m->E, &m->V, &m->context, &m->blocks,
                     &m->max_rows, &m->threads, &m->gate_channels};
    for (size_t i = 0; i < sizeof to / sizeof *to; i++) *to[i] = sizes[i];
    m->eps = eps;
    m->cap = cap;
#ifndef _OPENMP
    m->threads = 1;
#endif
    const int D = m->D, C = (m->H + 2 * m->G) * m->E;
    m->embedding = parts[0];
    m->cos = parts[1];
    m->sin = parts[2];
    m->cache = (uint8_t *)parts[3];
    m->head = (Matrix){parts[4], parts[5], D, m->V};
    m->layer = calloc((size_t)m->layers, sizeof *m->layer);
    for (int l = 0; m->layer && l < m->layers; l++) {
        const void **p = parts + 6 + 11 * l;
        m->layer[l] = (Layer){{p[0], p[1], D, C}, {p[2], p[3], m->H * m->E, D}, {p[4], p[5], D, 4 * D},
                              {p[6], p[7], 4 * D, D}, p[8], p[9], p[10]};
    }
    const size_t rows = (size_t)m->max_rows;
    m->x = room(rows * D * 4);
    m->first = room(rows * D * 4);
    m->normed = room(rows * D * 4);
    m->qkv = room(rows * C * 4);
    m->wide = room(rows * 4 * D * 4);
    m->half = room(rows * 4 * D * 2);
    m->scores = room((size_t)m->threads * QUERIES * (m->context + BLOCK) * 4);
    m->begins = room((rows + 1) * sizeof *m->begins);
    m->sums = room((size_t)m->threads * rows * PANEL * 4);
    if (m->layer && m->x && m->first && m->normed && m->qkv && m->wide && m->half && m->scores && m->sums &&
        m->begins)
        return m;
    nanochat_close(m);
    return NULL;
}
