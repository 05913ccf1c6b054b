// What comes out of a pipeline run, compared with its file: values on the way as the tap brings them, the film at the
// end.
//
// Pixels arrive slice by slice and are collected. Our decoder's slices are not yet clamped where they are tapped; the
// file's are.
#include "tests/goldenrun/pipe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static tensor film_new(struct golden *g, const struct spec_render *r, int64_t n)
{
    return dev_tensor(g->arena, DT_F32, SHAPE(n, r->h, r->w, 3));
}

void pipe_record_open(struct pipe_record *r, struct golden *g, const struct pipe_job *j, int n_branches)
{
    const struct spec_render *s = &j->r;
    *r = (struct pipe_record){.g = g, .j = j};
    r->decoded = film_new(g, s, s->frame_num);
    r->corrected = film_new(g, s, s->frame_num);
    r->film = film_new(g, s, s->n_frames);
    r->skipped = calloc((size_t)(j->n_segments * s->steps * n_branches), sizeof *r->skipped);
    r->yuv = calloc((size_t)s->n_frames, (size_t)s->h * (size_t)s->w * 3 / 2);
    BUG_IF(!r->skipped || !r->yuv, "no memory");
}

void pipe_record_close(struct pipe_record *r)
{
    free(r->skipped);
    free(r->yuv);
    free(r->tail);
}

// ---- values on the way

static const struct {
    const char *name;
    double bound;
} bounds[] = {
    {"cond_image", GOLDEN_INPUT}, {"y", GOLDEN_INPUT}, {"clip_fea", GOLDEN_MODULE}, {"latent_out", GOLDEN_LOOP}};

static double bound_of(const char *name)
{
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (strcmp(bounds[i].name, name) == 0) return bounds[i].bound;
    return GOLDEN_LOOP; // step0.latent_in, step0.pred0
}

static void collect(struct golden *g, tensor all, tensor slice, int64_t first)
{
    tensor to = tensor_slice(all, 0, first, first + slice.shape[0]);
    op_copy(g->dev, to, slice);
    float *v = to.data;
    for (int64_t i = 0; i < tensor_count(to); i++) v[i] = v[i] < -1 ? -1 : v[i] > 1 ? 1 : v[i];
}

static void record_see(void *ctx, const char *name, tensor t)
{
    struct pipe_record *r = ctx;
    long long first;
    int i, k;
    char key[64];
    if (strcmp(name, "ref_target_masks") == 0)
        golden_check(r->g, name, t, GOLDEN_EXACT);
    else if (sscanf(name, "decoded%lld", &first) == 1)
        collect(r->g, r->decoded, t, first);
    else if (sscanf(name, "corrected%lld", &first) == 1)
        collect(r->g, r->corrected, t, first);
    else if (sscanf(name, "step%d.cache%d", &i, &k) == 2)
        dev_download(r->g->dev, &r->skipped[r->n_forwards++], DT_F32, tensor_slice(t, 0, 2, 3));
    else {
        snprintf(key, sizeof key, "clip%lld.%s", (long long)r->segment.number, name);
        if (golden_has(r->g, key)) golden_check(r->g, key, t, bound_of(name));
    }
}

struct tap pipe_record_tap(struct pipe_record *r) { return (struct tap){.see = record_see, .ctx = r}; }

// ---- what is sent

static int take_tail(void *ctx, const void *bytes, size_t n)
{
    struct pipe_record *r = ctx;
    free(r->tail);
    r->tail = malloc(n);
    BUG_IF(!r->tail, "no memory");
    memcpy(r->tail, bytes, n);
    r->tail_bytes = n;
    return 0;
}

static int take_frames(void *ctx, int64_t first, int n, const uint8_t *yuv)
{
    struct pipe_record *r = ctx;
    size_t frame = (size_t)r->j->r.h * (size_t)r->j->r.w * 3 / 2;
    if (first != r->n_frames || first + n > r->j->r.n_frames) {
        golden_expect(r->g, "frames", false, "%d frames from %lld, %lld were taken so far", n, (long long)first,
                      (long long)r->n_frames);
        return E_INPUT;
    }
    memcpy(r->yuv + (size_t)first * frame, yuv, (size_t)n * frame);
    r->n_frames += n;
    return 0;
}

struct render_sink pipe_record_sink(struct pipe_record *r)
{
    return (struct render_sink){.ctx = r, .tail = take_tail, .frames = take_frames};
}

// ---- a segment's end

static tensor channels_first(tensor film) { return tensor_permute(film, (int[]){3, 0, 1, 2}); }

// The 8-bit picture that the file's condition picture was made from, against ours.
static void check_bytes(struct pipe_record *r, const uint8_t *picture)
{
    char key[48];
    snprintf(key, sizeof key, "clip%lld.cond_image", (long long)r->segment.number);
    int64_t mark = dev_arena_mark(r->g->arena), plane = (int64_t)r->j->r.h * r->j->r.w, n_wrong = 0;
    tensor ref = golden_get(r->g, key);
    bool comparable = tensor_count(ref) == 3 * plane;
    for (int64_t i = 0; comparable && i < 3 * plane; i++)
        n_wrong += lrintf((((float *)ref.data)[i] / 2 + 0.5f) * 255) != picture[i % plane * 3 + i / plane];
    golden_expect(r->g, key, comparable && n_wrong == 0, "%lld of %lld bytes differ", (long long)n_wrong,
                  (long long)(3 * plane));
    dev_arena_reset(r->g->arena, mark);
}

void pipe_record_segment(struct pipe_record *r, const uint8_t *picture)
{
    const struct plan_segment *p = &r->segment;
    char key[48];
    check_bytes(r, picture);
    snprintf(key, sizeof key, "clip%lld.decoded", (long long)p->number);
    if (golden_has(r->g, key)) golden_check(r->g, key, channels_first(r->decoded), GOLDEN_DECODED);
    snprintf(key, sizeof key, "clip%lld.corrected", (long long)p->number);
    if (golden_has(r->g, key)) golden_check_color(r->g, key, channels_first(r->corrected));
    if (p->keep_to > p->keep_from)
        op_copy(r->g->dev, tensor_slice(r->film, 0, p->start + p->keep_from, p->start + p->keep_to),
                tensor_slice(r->corrected, 0, p->keep_from, p->keep_to));
}

// ---- the film

static void check_sent(struct pipe_record *r)
{
    const struct spec_render *s = &r->j->r;
    size_t n = (size_t)s->n_frames * (size_t)s->h * (size_t)s->w * 3 / 2;
    tensor yuv = dev_tensor(r->g->arena, DT_U8, SHAPE(s->n_frames, (int64_t)s->h * s->w * 3 / 2));
    op_yuv420(r->g->dev, yuv, r->film);
    bool whole = r->n_frames == s->n_frames;
    golden_expect(r->g, "frames", whole && memcmp(yuv.data, r->yuv, n) == 0, "%lld of %lld were sent",
                  (long long)r->n_frames, (long long)s->n_frames);
}

// The pattern of the metadata ("..s") and the key of the same name.
static void check_skipped(struct pipe_record *r)
{
    json_t *pattern = golden_meta(r->g, "skipped");
    const char *want = json_string_value(pattern);
    bool same = want && strlen(want) == (size_t)r->n_forwards;
    for (int i = 0; same && i < r->n_forwards; i++) same = (want[i] == 's') == (r->skipped[i] > 0);
    golden_expect(r->g, "pattern", same, "%d forward passes", r->n_forwards);
    golden_check(r->g, "skipped", tensor_of(r->skipped, DT_F32, SHAPE(r->n_forwards)), GOLDEN_EXACT);
    json_decref(pattern);
}

void pipe_record_end(struct pipe_record *r)
{
    if (r->j->r.teacache) check_skipped(r);
    if (golden_has(r->g, "final")) golden_check_color(r->g, "final", channels_first(r->film));
    check_sent(r);
}
