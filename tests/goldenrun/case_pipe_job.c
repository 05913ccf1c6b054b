// A pipeline file's metadata and inputs as a job: what the coordinator would have made of the published program's
// options.
#include "daemon/media/crop.h"
#include "daemon/media/masks.h"
#include "tests/goldenrun/pipe.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double real(struct golden *g, const char *key)
{
    json_t *j = golden_meta(g, key);
    double v = json_number_value(j);
    json_decref(j);
    return v;
}

static double field(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

// ---- spec

static void read_spec(struct spec_render *r, struct golden *g)
{
    json_t *apg = golden_meta(g, "apg"), *cache = golden_meta(g, "teacache");
    *r = (struct spec_render){.frame_num = (int)real(g, "frame_num"),
                              .motion_frame = (int)real(g, "motion_frame"),
                              .steps = (int)real(g, "sampling_steps"),
                              .shift = real(g, "shift"),
                              .text_scale = real(g, "text_guide_scale"),
                              .audio_scale = real(g, "audio_guide_scale"),
                              .color_strength = real(g, "color_correction_strength"),
                              .seed = (int64_t)real(g, "seed"),
                              .apg = json_is_object(apg),
                              .apg_momentum = field(apg, "momentum"),
                              .apg_norm_threshold = field(apg, "norm_threshold"),
                              .teacache = json_is_object(cache),
                              .teacache_thresh = field(cache, "thresh"),
                              .tail = SPEC_TAIL_MIRROR,
                              .parity = SPEC_PARITY_PUBLISHED,
                              .mode = SPEC_STREAMING};
    if (r->teacache)
        memcpy(r->teacache_poly, model_teacache(json_string_value(json_object_get(cache, "size")), 0),
               sizeof r->teacache_poly);
    json_decref(apg);
    json_decref(cache);
}

static void read_size(struct spec_render *r, struct golden *g, int sh, int sw)
{
    struct bucket_table t = {0};
    json_t *buckets = golden_meta(g, "size_buckets"), *size;
    const char *key;
    json_object_foreach(buckets, key, size)
    {
        BUG_IF(t.n == MODEL_BUCKETS_MAX, "too many sizes");
        t.bucket[t.n++] = (struct bucket){.key = strtod(key, NULL),
                                          .h = (int)json_integer_value(json_array_get(size, 0)),
                                          .w = (int)json_integer_value(json_array_get(size, 1))};
    }
    const struct bucket *b = model_bucket(&t, sh, sw);
    r->h = b->h;
    r->w = b->w;
    json_decref(buckets);
}

// ---- pictures

// in.source_image [h, w, 3] or in.source_video [n, h, w, 3].
static bool read_source(struct pipe_job *j, struct golden *g)
{
    j->still = !golden_has(g, "in.source_video");
    tensor t = golden_get(g, j->still ? "in.source_image" : "in.source_video");
    if (tensor_is_none(t)) return false;
    if (j->still) t = tensor_reshape(t, SHAPE(1, t.shape[0], t.shape[1], t.shape[2]));
    j->film = (struct plan_film){
        .n_frames = t.shape[0], .rate_num = 25, .rate_den = 1, .end = SPEC_END_HOLD, .by_index = true};
    j->sh = (int)t.shape[1];
    j->sw = (int)t.shape[2];
    int64_t n = tensor_count(t);
    j->source = malloc((size_t)n);
    BUG_IF(!j->source, "no memory");
    for (int64_t i = 0; i < n; i++) j->source[i] = (uint8_t)((float *)t.data)[i];
    return true;
}

void pipe_job_picture(const struct pipe_job *j, int64_t frame, uint8_t *rgb)
{
    int64_t i = j->still ? 0 : plan_film_picture(&j->film, frame);
    crop_picture(j->source + (size_t)i * (size_t)j->sh * (size_t)j->sw * 3, j->sh, j->sw, rgb, j->r.h, j->r.w);
}

static bool draw_masks(struct pipe_job *j, struct golden *g)
{
    struct spec_region region[SPEC_SPEAKERS] = {0};
    json_t *boxes = golden_meta(g, "bbox"), *box;
    const char *name;
    int n = 0;
    json_object_foreach(boxes, name, box)
    {
        double v[4];
        for (size_t i = 0; i < 4; i++) v[i] = json_number_value(json_array_get(box, i));
        if (n < SPEC_SPEAKERS)
            region[n++] = (struct spec_region){.has_box = true, .row0 = v[0], .col0 = v[1], .row1 = v[2], .col1 = v[3]};
    }
    json_decref(boxes);
    if (j->r.n_speakers == 1) return true;
    struct err e = {0};
    j->masks = malloc((size_t)j->r.n_speakers * (size_t)j->r.h * (size_t)j->r.w);
    BUG_IF(!j->masks, "no memory");
    if (masks_fill(j->masks, region, NULL, j->r.n_speakers, j->sh, j->sw, j->r.h, j->r.w, real(g, "face_scale"), NULL,
                   0, &e) == 0)
        return true;
    golden_expect(g, "masks", false, "%s", e.text);
    return false;
}

// ---- voices and the plan

static bool read_voices(struct pipe_job *j, struct golden *g)
{
    const float *rows[SPEC_SPEAKERS];
    int64_t n_rows[SPEC_SPEAKERS];
    tensor t = NO_TENSOR;
    int n = 0;
    for (char key[16]; n < SPEC_SPEAKERS; n++) {
        snprintf(key, sizeof key, "in.audio%d", n + 1);
        if (!golden_has(g, key)) break;
        t = golden_get(g, key);
        rows[n] = t.data;
        n_rows[n] = t.shape[0];
    }
    json_t *lengths = golden_meta(g, "audio_len");
    bool same = n > 0 && json_array_size(lengths) == (size_t)n;
    for (int p = 0; same && p < n; p++) same = json_integer_value(json_array_get(lengths, (size_t)p)) == n_rows[p];
    json_decref(lengths);
    golden_expect(g, "audio_len", same, "%d voices", n);
    if (!same) return false;
    j->r.n_speakers = n;
    plan_segments_init(&j->plan, &j->r, (int64_t)real(g, "max_frames_num"), n_rows, n);
    j->r.n_frames = j->plan.n_frames;
    struct err e = {0};
    snprintf(j->dir, sizeof j->dir, "/tmp/golden_XXXXXX");
    if (!mkdtemp(j->dir)) BUG("no folder for voice features in /tmp");
    if (features_of_rows(&j->voice, g->arena, &j->r, (int)t.shape[1], (int)t.shape[2], rows, n_rows, j->dir, &e) == 0)
        return true;
    golden_expect(g, "voice", false, "%s", e.text);
    return false;
}

static bool read_segments(struct pipe_job *j, struct golden *g)
{
    json_t *starts = golden_meta(g, "source_frame_index");
    j->n_segments = (int)real(g, "clips");
    bool same = j->n_segments > 0 && json_array_size(starts) == (size_t)j->n_segments;
    if (!same) golden_expect(g, "clips", false, "%d segments, %zu starts", j->n_segments, json_array_size(starts));
    j->starts = calloc(json_array_size(starts) + 1, sizeof *j->starts);
    BUG_IF(!j->starts, "no memory");
    for (size_t i = 0; i < json_array_size(starts); i++) j->starts[i] = json_integer_value(json_array_get(starts, i));
    json_decref(starts);
    return same;
}

bool pipe_job_open(struct pipe_job *j, struct golden *g)
{
    *j = (struct pipe_job){0};
    read_spec(&j->r, g);
    if (!read_segments(j, g) || !read_source(j, g)) return false;
    read_size(&j->r, g, j->sh, j->sw);
    return read_voices(j, g) && draw_masks(j, g);
}

void pipe_job_close(struct pipe_job *j)
{
    features_close(&j->voice);
    if (j->dir[0]) rmdir(j->dir);
    free(j->starts);
    free(j->source);
    free(j->masks);
}
