// Attention by blocks: packs the keys and values of a few heads, then spreads blocks of queries over the threads.
//
// A head's keys are packed once and read by all its queries, from the caches when they fit. As many heads at a time are
// packed as HEADS_BYTES holds, so that short sequences give the threads enough to do and long ones take little memory.
//
// The attention map is attention whose values are the class masks, averaged over heads.
#include "kernels/cpu/attend.h"
#include "kernels/cpu/fast.h"
#include "kernels/cpu/ref.h"

#include <omp.h>
#include <string.h>

enum { HEADS_BYTES = 32 << 20, PACK_KEYS = 512 };

// One call: tensors as [b, n, h, d].
struct run {
    tensor y, q, k, v; // y: the result, or the sums of an unfinished softmax
    const float *bias;
    float *state; // of an unfinished softmax [b, nq, h, 2], or NULL
    bool first;
    float scale;
    attend_fn *way;
    bool half;                      // BF16 pairs are packed, not floats
    int64_t key_steps, value_steps; // of the axes summed over: channels, keys
    int64_t key_panels, value_panels;
    size_t key_bytes, head_bytes; // packed keys of a head; with its values
    char *packed, *tiles;
    size_t tile_bytes;
};

static const char *place(tensor t, int64_t b, int64_t n, int64_t h)
{
    return (const char *)t.data + (b * t.stride[0] + n * t.stride[1] + h * t.stride[2]) * dtype_size(t.dtype);
}

static float element(enum dtype t, const char *row, int64_t c)
{
    return t == DT_BF16 ? bf16_to_f32(((const uint16_t *)row)[c]) : ((const float *)row)[c];
}

// Keys [from, to) of a head into their panels; keys past the last are zero.
static void pack_keys(const struct run *r, void *panels, int64_t b, int64_t h, int64_t from, int64_t to)
{
    int64_t d = r->k.shape[3];
    for (int64_t i = from; i < to; i++) {
        int64_t at = i / ATTEND_PANEL * ATTEND_PANEL * r->key_steps + i % ATTEND_PANEL;
        bool some = i < r->k.shape[1];
        const char *row = some ? place(r->k, b, i, h) : NULL;
        if (r->half) {
            uint32_t *to_row = (uint32_t *)panels + at;
            const uint16_t *pair = (const uint16_t *)row;
            for (int64_t c = 0; c < d; c += 2)
                to_row[c / 2 * ATTEND_PANEL] = some ? pair[c] | (uint32_t)(c + 1 < d ? pair[c + 1] : 0) << 16 : 0;
        } else {
            float *to_row = (float *)panels + at;
            for (int64_t c = 0; c < d; c++) to_row[c * ATTEND_PANEL] = some ? element(r->k.dtype, row, c) : 0;
        }
    }
}

// Values of keys [from, to), `from` even, likewise.
static void pack_values(const struct run *r, void *panels, int64_t b, int64_t h, int64_t from, int64_t to)
{
    int64_t dv = r->v.shape[3], n = r->v.shape[1], step = r->half ? 2 : 1;
    for (int64_t i = from; i < to; i += step) {
        const char *row = i < n ? place(r->v, b, i, h) : NULL, *next = i + 1 < n ? place(r->v, b, i + 1, h) : NULL;
        for (int64_t c = 0; c < r->value_panels * ATTEND_PANEL; c++) {
            int64_t at = (c / ATTEND_PANEL * r->value_steps + i / step) * ATTEND_PANEL + c % ATTEND_PANEL;
            if (r->half) {
                uint32_t low = c < dv && row ? ((const uint16_t *)row)[c] : 0;
                uint32_t high = c < dv && next ? ((const uint16_t *)next)[c] : 0;
                ((uint32_t *)panels)[at] = low | high << 16;
            } else
                ((float *)panels)[at] = c < dv && row ? element(r->v.dtype, row, c) : 0;
        }
    }
}

static void pack_part(const struct run *r, int64_t head, char *packed, int64_t part)
{
    int64_t b = head / r->k.shape[2], h = head % r->k.shape[2], n = r->key_panels * ATTEND_PANEL;
    int64_t from = part * PACK_KEYS, to = from + PACK_KEYS < n ? from + PACK_KEYS : n;
    pack_keys(r, packed, b, h, from, to);
    pack_values(r, packed + r->key_bytes, b, h, from, to);
}

static void attend_part(const struct run *r, int64_t head, const char *packed, int64_t part, void *tile)
{
    int64_t b = head / r->q.shape[2], h = head % r->q.shape[2], from = part * ATTEND_ROWS, left = r->q.shape[1] - from;
    struct attend a = {
        .keys = packed,
        .values = packed + r->key_bytes,
        .nk = r->k.shape[1],
        .d = r->k.shape[3],
        .dv = r->v.shape[3],
        .q = place(r->q, b, from, h),
        .y = (char *)place(r->y, b, from, h),
        .q_step = r->q.stride[1] * dtype_size(r->q.dtype),
        .y_step = r->y.stride[1] * dtype_size(r->y.dtype),
        .dtype = r->q.dtype,
        .y_dtype = r->y.dtype,
        .n = left < ATTEND_ROWS ? left : ATTEND_ROWS,
        .bias = r->bias ? r->bias + (h * r->q.shape[1] + from) * r->k.shape[1] : NULL,
        .scale = r->scale,
        .tile = tile,
    };
    if (r->state) {
        int64_t nh = r->q.shape[2];
        a.sum = (float *)a.y;
        a.sum_step = r->y.stride[1];
        a.state = r->state + ((b * r->q.shape[1] + from) * nh + h) * 2;
        a.state_step = nh * 2;
        a.first = r->first;
    }
    r->way(&a);
}

// The best way on this CPU; BF16 products only where they were asked for.
static attend_fn *way_for(const struct fast *f, bool half)
{
#if defined(__x86_64__)
    if (half && f->isa == ISA_AVX512_BF16) return attend_bf16;
    if (f->isa >= ISA_AVX512) return attend_avx512;
    if (f->isa >= ISA_AVX2) return attend_avx2;
#endif
    (void)f, (void)half;
    return attend_plain;
}

static void run_all(struct dev *d, struct run *r)
{
    struct fast *f = fast_of(d);
    int64_t heads = r->q.shape[0] * r->q.shape[2], nq = r->q.shape[1], nk = r->k.shape[1];
    r->half = r->way == attend_bf16;
    r->key_panels = attend_up(nk, ATTEND_PANEL) / ATTEND_PANEL;
    r->value_panels = attend_up(r->v.shape[3], ATTEND_PANEL) / ATTEND_PANEL;
    r->key_steps = r->half ? (r->k.shape[3] + 1) / 2 : r->k.shape[3];
    r->value_steps = r->key_panels * ATTEND_PANEL / (r->half ? 2 : 1);
    r->key_bytes = 4 * ATTEND_PANEL * (size_t)(r->key_panels * r->key_steps);
    r->head_bytes = r->key_bytes + 4 * ATTEND_PANEL * (size_t)(r->value_panels * r->value_steps);
    r->tile_bytes = (size_t)attend_up((int64_t)attend_tile_bytes(r->k.shape[3], r->v.shape[3]), 64);
    int64_t group = (int64_t)(HEADS_BYTES / r->head_bytes);
    group = group < 1 ? 1 : group > heads ? heads : group;
    r->packed = fast_scratch(f, SCRATCH_KEYS, r->head_bytes * (size_t)group);
    r->tiles = fast_scratch(f, SCRATCH_TILES, r->tile_bytes * (size_t)d->n_threads);
    int64_t packs = attend_up(r->key_panels * ATTEND_PANEL, PACK_KEYS) / PACK_KEYS;
    int64_t blocks = attend_up(nq, ATTEND_ROWS) / ATTEND_ROWS;
    int64_t work = heads * nq * nk * r->q.shape[3] / 8;
#pragma omp parallel num_threads(dev_team(d, work))
    for (int64_t first = 0; first < heads; first += group) {
        int64_t n = heads - first < group ? heads - first : group;
        void *tile = r->tiles + r->tile_bytes * (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n * packs; i++)
            pack_part(r, first + i / packs, r->packed + r->head_bytes * (size_t)(i / packs), i % packs);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n * blocks; i++)
            attend_part(r, first + i / blocks, r->packed + r->head_bytes * (size_t)(i / blocks), i % blocks, tile);
    }
}

static void fast_attention(struct dev *d, tensor y, tensor q, tensor k, tensor v, struct attn a)
{
    if (tensor_count(y) == 0) return;
    struct run r = {.y = y,
                    .q = q,
                    .k = k,
                    .v = v,
                    .bias = a.bias.data,
                    .scale = a.scale != 0 ? a.scale : (float)(1 / sqrt((double)q.shape[3])),
                    .way = way_for(fast_of(d), q.dtype == DT_BF16 && !a.wide)};
    run_all(d, &r);
}

static void fast_attention_more(struct dev *d, tensor sum, tensor state, tensor q, tensor k, tensor v, struct attn a,
                                bool first)
{
    if (tensor_count(sum) == 0) return;
    struct run r = {.y = sum,
                    .q = q,
                    .k = k,
                    .v = v,
                    .state = state.data,
                    .first = first,
                    .scale = a.scale != 0 ? a.scale : (float)(1 / sqrt((double)q.shape[3])),
                    .way = way_for(fast_of(d), q.dtype == DT_BF16 && !a.wide)};
    run_all(d, &r);
}

// A tensor [n, h, d] as [1, n, h, d].
static tensor batch_of(tensor t) { return tensor_split(t, 0, 1, t.shape[0]); }

static void fast_attention_map(struct dev *d, tensor map, tensor q, tensor k, tensor mask, bool published)
{
    int64_t n = q.shape[0], nh = q.shape[1], n_ref = k.shape[0], n_class = mask.shape[0];
    if (n == 0 || nh == 0 || n_ref == 0 || n_class == 0) {
        fast_of(d)->ref.attention_map(d, map, q, k, mask, published);
        return;
    }
    const float *m = mask.data;
    double area[TENSOR_DIMS] = {0};
    float *values = fast_scratch(fast_of(d), SCRATCH_X, (size_t)(n_ref * n_class) * sizeof *values);
    for (int64_t c = 0; c < n_class; c++) {
        for (int64_t i = 0; i < n_ref; i++) {
            area[c] += (double)m[c * n_ref + i];
            values[i * n_class + c] = m[c * n_ref + i];
        }
        if (area[c] == 0 && !published) area[c] = 1;
    }
    float *sums = fast_scratch(fast_of(d), SCRATCH_Y, (size_t)(n * nh * n_class) * sizeof *sums); // [n, h, class]
    tensor v = tensor_of(values, DT_F32, SHAPE(1, n_ref, 1, n_class));
    v.shape[2] = nh; // every head has the same values
    v.stride[2] = 0;
    struct run r = {.y = tensor_of(sums, DT_F32, SHAPE(1, n, nh, n_class)),
                    .q = batch_of(q),
                    .k = batch_of(k),
                    .v = v,
                    .scale = (float)(1 / sqrt((double)q.shape[2])),
                    .way = way_for(fast_of(d), false)}; // masks may hold any number, and the map decides who speaks
    run_all(d, &r);
    int64_t work = n * nh * n_class;
#pragma omp parallel for num_threads(dev_team(d, work))
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < n_class; c++) {
            double sum = 0;
            for (int64_t h = 0; h < nh; h++) sum += (double)sums[(i * nh + h) * n_class + c];
            ((float *)map.data)[c * map.stride[0] + i] = ref_round(q.dtype, (float)(sum / (double)nh / area[c]));
        }
}

void fast_attention_slots(struct ops *o)
{
    o->attention = fast_attention;
    o->attention_more = fast_attention_more;
    o->attention_map = fast_attention_map;
}
