// One segment.
//
//   picture -> y, keys          windows -> voice keys          tail or picture -> motion latents [16, m]
//   noise -> step loop -> latents [16, t]
//   per latent frame: decode -> pixels (1, then 4) -> colours matched to the span's first picture -> bytes
//   last M frames, corrected -> encode -> tail -> sink; then the frames -> sink
//
// Easy to get wrong: colours are matched to the span's first picture, not the segment's own, on all frames including
// the motion frames; the tail is a fresh encoding of corrected pixels, not the end of these latents; it goes ahead of
// the frames so that the next segment can start, so the frames wait as bytes.
//
// Values that are not finite end the step loop, on all ranks. Then the segment is painted once more, from the picture's
// own bytes on, with attention in F32: a fault of the machine does not come twice, and what rounding pushed over the
// edge stays below it. If it comes again it is the weights', and the job's end.
#include "worker/segment.h"

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "worker/cache.h"
#include "worker/denoise.h"
#include "worker/emit.h"
#include "worker/sampler.h"
#include "worker/tail.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LATENT_STRIDE = 8, TIME_STRIDE = 4, SLICE_FRAMES = 4 };

struct segment {
    struct segment_job j;
    struct dev *dev;
    float *times;                     // [steps + 1]
    struct condition_picture picture; // of the segment under way
    struct guide guide;
    struct cache cache;
    struct repeat repeat;
    struct dit_voice silence;
    tensor masks, color; // token masks; F64 [1, 3, 2] of the colour picture
};

// Before ranks do something together again: the worst code of any of them.
static int agree(const struct segment *s, int rc, struct err *e)
{
    return s->j.mesh ? comm_agree(s->j.mesh->world, rc, NULL, e) : rc;
}

static int64_t latent_frames(int64_t frames) { return 1 + (frames - 1) / TIME_STRIDE; }

static tensor latents_new(const struct segment *s, struct dev_arena *a, int64_t t)
{
    const struct spec_render *r = s->j.spec;
    return dev_tensor(a, DT_F32, SHAPE(vae_latent_channels(s->j.vae), t, r->h / LATENT_STRIDE, r->w / LATENT_STRIDE));
}

bool segment_wants_negative(const struct spec_render *spec)
{
    struct guide g;
    guide_plan(&g, spec);
    return guide_wants_negative(&g);
}

void segment_match(struct segment *s, const uint8_t *picture)
{
    const struct spec_render *r = s->j.spec;
    int64_t mark = dev_arena_mark(s->j.work);
    tensor pixels = condition_pixels(s->j.work, picture, r->h, r->w);
    op_lab_stats(s->dev, s->color, tensor_reshape(pixels, SHAPE(1, r->h, r->w, 3)));
    dev_arena_reset(s->j.work, mark);
}

int segment_open(struct segment **out, const struct segment_job *j, struct err *e)
{
    const struct spec_render *r = j->spec;
    const struct dit_config *c = dit_config_of(j->dit);
    struct segment *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, E_FATAL, "no memory for a segment");
    s->j = *j;
    s->dev = dev_arena_dev(j->work);
    s->times = calloc((size_t)r->steps + 1, sizeof *s->times);
    BUG_IF(!s->times, "no memory for %d steps", r->steps);
    sampler_times(s->times, r->steps, r->shift);
    condition_picture_open(&s->picture, j->picture, r->h, r->w, r->frame_num);
    int64_t t = latent_frames(r->frame_num), gh = r->h / 16, gw = r->w / 16;
    guide_init(&s->guide, j->keep, r, latents_new(s, j->keep, t));
    if (r->teacache) {
        int n_slots = 0;
        for (int i = 0; i < s->guide.n; i++)
            if (s->guide.branch[i].slot >= n_slots) n_slots = s->guide.branch[i].slot + 1;
        cache_init(&s->cache, j->keep, r, n_slots, dit_rows(j->mesh, t, 2 * gh, 2 * gw), c->dim, dit_dtype(j->dit));
    }
    if (guide_wants_silence(&s->guide)) s->silence = dit_voice_null(j->dit, j->keep, t);
    s->color = dev_tensor(j->keep, DT_F64, SHAPE(1, 3, 2));
    tensor cells = NO_TENSOR;
    int rc =
        condition_masks(&cells, j->keep, j->masks, r->n_speakers, r->h, r->w, r->parity == SPEC_PARITY_PUBLISHED, e);
    if (rc == 0) {
        tap_see(j->tap, cells, "ref_target_masks");
        s->masks = dit_masks_new(j->dit, j->keep, cells, gh, gw);
        segment_match(s, j->color_picture);
        rc = dev_sync(s->dev, e);
    }
    if (rc < 0)
        segment_close(&s);
    else
        *out = s;
    return rc;
}

void segment_close(struct segment **ps)
{
    struct segment *s = *ps;
    if (!s) return;
    repeat_release(&s->repeat);
    condition_picture_close(&s->picture);
    free(s->times);
    free(s);
    *ps = NULL;
}

// ---- conditions

static void see_picture(const struct segment *s)
{
    tap_see(s->j.tap, tensor_permute(s->picture.pixels, (int[]){2, 0, 1}), "cond_image");
    tap_see(s->j.tap, s->picture.clip, "clip_fea");
    tap_see(s->j.tap, s->picture.y, "y");
}

static int motion_of(struct segment *s, const struct segment_in *in, tensor *motion, struct err *e)
{
    if (!in->tail) {
        *motion = s->picture.latent;
        return 0;
    }
    *motion = latents_new(s, s->j.work, latent_frames(s->j.spec->motion_frame));
    return tail_unpack(s->dev, *motion, in->tail, in->tail_bytes, e);
}

// ---- from latents to frames

struct decoding {
    struct segment *s;
    const struct segment_in *in;
    struct emit emit;
    tensor tail;  // F32 [M, h, w, 3], the last frames, corrected
    double drift; // summed over frames
};

// Distance of each frame's mean colour to the reference, before correction.
static double drift_of(const struct segment *s, tensor stats)
{
    double from[SLICE_FRAMES * 6] = {0}, to[6] = {0}, sum = 0;
    dev_download(s->dev, from, DT_F64, stats);
    dev_download(s->dev, to, DT_F64, s->color);
    for (int64_t t = 0; t < stats.shape[0]; t++) {
        double sq = 0;
        for (int c = 0; c < 6; c += 2) sq += (from[t * 6 + c] - to[c]) * (from[t * 6 + c] - to[c]);
        sum += sqrt(sq);
    }
    return sum;
}

// Frames [first, first + n) of the segment, decoded: corrected in place, kept where they are wanted.
static void take_slice(struct decoding *d, tensor pixels, int64_t first)
{
    struct segment *s = d->s;
    const struct spec_render *r = s->j.spec;
    int64_t mark = dev_arena_mark(s->j.work), n = pixels.shape[0];
    tensor stats = dev_tensor(s->j.work, DT_F64, SHAPE(n, 3, 2));
    tap_see(s->j.tap, pixels, "decoded%lld", (long long)first);
    op_lab_stats(s->dev, stats, pixels);
    d->drift += drift_of(s, stats);
    op_lab_match(s->dev, pixels, pixels, stats, s->color, (float)r->color_strength);
    tap_see(s->j.tap, pixels, "corrected%lld", (long long)first);
    emit_slice(&d->emit, s->dev, pixels, first);
    int64_t tail_from = r->frame_num - r->motion_frame, from = first > tail_from ? first : tail_from;
    if (d->in->want_tail && from < first + n)
        op_copy(s->dev, tensor_slice(d->tail, 0, from - tail_from, first + n - tail_from),
                tensor_slice(pixels, 0, from - first, n));
    dev_arena_reset(s->j.work, mark);
}

// The decoder only looks back: behind the last frame that is kept, or that a tail is made of, nothing is decoded.
static int64_t frames_decoded(const struct decoding *d)
{
    const struct segment *s = d->s;
    if (d->in->want_tail || s->j.tap) return s->j.spec->frame_num;
    return 1 + (d->in->keep_to - 1 + TIME_STRIDE - 1) / TIME_STRIDE * TIME_STRIDE;
}

// Frames are sent by one rank, which corrects them too. Where a tail is made of them all ranks need them, who encode it
// together.
static void decode_slice(struct decoding *d, struct vae_stream *v, tensor pixels, tensor z, int64_t first)
{
    enum { SENDER = 0 };
    const struct segment *s = d->s;
    const struct spec_render *r = s->j.spec;
    bool all = d->in->want_tail && first + pixels.shape[0] > r->frame_num - r->motion_frame;
    if (all)
        vae_decode_slice(v, pixels, z);
    else
        vae_decode_slice_for(v, SENDER, pixels, z);
    if (all || !s->j.mesh || comm_rank(s->j.mesh->world) == SENDER) take_slice(d, pixels, first);
}

static int decode(struct decoding *d, tensor x, const struct render_sink *sink, struct err *e)
{
    struct segment *s = d->s;
    const struct spec_render *r = s->j.spec;
    int64_t mark = dev_arena_mark(s->j.work), t = latent_frames(frames_decoded(d));
    struct vae_stream *v = vae_decode_open(s->j.vae, s->j.work, r->h, r->w, NULL);
    tensor pixels = dev_tensor(s->j.work, DT_F32, SHAPE(SLICE_FRAMES, r->h, r->w, 3));
    int rc = 0;
    for (int64_t i = 0; i < t && rc == 0; i++) {
        tensor slice = i ? pixels : tensor_slice(pixels, 0, 0, 1);
        decode_slice(d, v, slice, tensor_slice(x, 1, i, i + 1), i ? 4 * i - 3 : 0);
        if (sink && sink->step && (rc = sink->step(sink->ctx, "decode", (int)i + 1, (int)t)) < 0)
            err_set(e, rc, "segment %lld ended while decoding", (long long)d->in->number + 1);
        if (rc == 0) rc = dev_sync(s->dev, e);
        rc = agree(s, rc, e);
    }
    vae_stream_close(&v);
    dev_arena_reset(s->j.work, mark);
    return rc;
}

static int send_tail(struct decoding *d, const struct render_sink *sink, struct err *e)
{
    struct segment *s = d->s;
    int64_t mark = dev_arena_mark(s->j.work);
    tensor z = latents_new(s, s->j.work, latent_frames(d->tail.shape[0]));
    vae_encode(s->j.vae, s->j.work, z, d->tail, NULL);
    int rc = dev_sync(s->dev, e);
    if (rc == 0 && sink) {
        void *bytes = malloc(tail_size(z));
        if (!bytes) return err_set(e, E_FATAL, "no memory for a tail of %zu bytes", tail_size(z));
        tail_pack(s->dev, bytes, z);
        rc = sink->tail(sink->ctx, bytes, tail_size(z));
        if (rc < 0) err_set(e, rc, "the tail of segment %lld was not taken", (long long)d->in->number + 1);
        free(bytes);
    }
    dev_arena_reset(s->j.work, mark);
    return rc;
}

static int deliver(struct segment *s, const struct segment_in *in, tensor x, const struct render_sink *sink,
                   struct render_times *t, struct err *e)
{
    const struct spec_render *r = s->j.spec;
    struct decoding d = {.s = s, .in = in};
    int64_t begun = clock_ms();
    emit_open(&d.emit, s->j.work, r->h, r->w, in->keep_from, in->keep_to);
    if (in->want_tail) d.tail = dev_tensor(s->j.work, DT_F32, SHAPE(r->motion_frame, r->h, r->w, 3));
    int rc = decode(&d, x, sink, e);
    if (rc < 0) return rc;
    t->drift = d.drift / (double)frames_decoded(&d);
    t->decode = clock_ms() - begun;
    begun = clock_ms();
    if (in->want_tail) rc = send_tail(&d, sink, e);
    t->tail = clock_ms() - begun;
    if (rc == 0 && sink && (rc = emit_send(&d.emit, s->dev, sink, in->start)) < 0)
        err_set(e, rc, "the frames of segment %lld were not taken", (long long)in->number + 1);
    return rc;
}

// ---- the whole

static int on_step(void *ctx, int i, int n)
{
    const struct render_sink *sink = ctx;
    return sink->step(sink->ctx, "denoise", i, n);
}

static int denoise(struct segment *s, const struct segment_in *in, tensor x, tensor motion, struct dit_voice *voice,
                   bool wide, const struct render_sink *sink, struct err *e)
{
    const struct segment_job *j = &s->j;
    bool watched = sink && sink->step;
    struct denoise n = {.dit = j->dit,
                        .segment = in->number,
                        .n_steps = j->spec->steps,
                        .t = s->times,
                        .y = s->picture.y,
                        .masks = s->masks,
                        .motion = motion,
                        .picture = &s->picture.keys,
                        .words = j->words,
                        .negative = j->negative,
                        .voice = voice,
                        .silence = &s->silence,
                        .guide = &s->guide,
                        .cache = j->spec->teacache ? &s->cache : NULL,
                        .mesh = j->mesh,
                        .together = j->together,
                        .wide = wide,
                        .repeat = &s->repeat,
                        .step = watched ? on_step : NULL,
                        .ctx = (void *)sink,
                        .tap = j->tap};
    return denoise_run(&n, j->work, x, e);
}

// Latents into x. *blown: the step loop ended because of values that are not finite.
static int paint(struct segment *s, const struct segment_in *in, tensor x, bool wide, bool *blown,
                 const struct render_sink *sink, struct render_times *t, struct err *e)
{
    const struct segment_job *j = &s->j;
    int64_t begun = clock_ms(), mark = dev_arena_mark(j->work);
    tensor motion = NO_TENSOR;
    struct condition_eye eye = {
        .dit = j->dit, .vae = j->vae, .clip = j->clip, .world = j->mesh ? j->mesh->world : NULL, .rank = j->clip_rank};
    condition_picture_set(&s->picture, &eye, j->work, in->picture);
    see_picture(s);
    int rc = motion_of(s, in, &motion, e);
    if (rc == 0) rc = dev_sync(s->dev, e);
    rc = agree(s, rc, e);
    if (rc == 0) {
        struct dit_voice voice = dit_voice_new(j->dit, j->work, in->windows, NULL);
        if (tensor_is_none(in->noise))
            sampler_noise(s->dev, x, j->spec->seed, in->number, SAMPLER_NOISE);
        else
            op_copy(s->dev, x, in->noise);
        t->condition += clock_ms() - begun;
        begun = clock_ms();
        rc = denoise(s, in, x, motion, &voice, wide, sink, e);
        t->denoise += clock_ms() - begun;
        *blown = rc == E_INPUT;
    }
    dev_arena_reset(j->work, mark);
    return rc;
}

// `e` says what was wrong the first time.
static int paint_again(struct segment *s, const struct segment_in *in, tensor x, const struct render_sink *sink,
                       struct render_times *t, struct err *e)
{
    char text[512];
    bool bf16 = dit_dtype(s->j.dit) == DT_BF16;
    snprintf(text, sizeof text, "%.400s; the segment is rendered again%s", e->text,
             bf16 ? ", with attention in F32" : "");
    log_warn("segment.again", "i=%lld text=\"%s\"", (long long)in->number, text);
    if (sink && sink->notice) sink->notice(sink->ctx, text);
    bool blown = false;
    condition_picture_forget(&s->picture);
    int rc = paint(s, in, x, true, &blown, sink, t, e);
    if (!blown) return rc;
    snprintf(text, sizeof text, "%.400s", e->text);
    return err_set(e, rc,
                   "%s, in a second try%s too; the weights, a LoRA's scale or a guidance scale are out of range: take "
                   "the published ones%s",
                   text, bf16 ? " with attention in F32" : "", bf16 ? ", or --dtype f32" : "");
}

int segment_run(struct segment *s, const struct segment_in *in, const struct render_sink *sink, struct render_times *t,
                struct err *e)
{
    const struct segment_job *j = &s->j;
    int64_t mark = dev_arena_mark(j->work);
    tensor x = latents_new(s, j->work, latent_frames(j->spec->frame_num));
    bool blown = false;
    struct err why = {0};
    t->condition = t->denoise = 0;
    int rc = paint(s, in, x, false, &blown, sink, t, &why);
    if (blown) rc = paint_again(s, in, x, sink, t, &why);
    if (rc < 0) err_set(e, rc, "%s", why.text);
    if (rc == 0) {
        tap_see(j->tap, x, "latent_out");
        rc = agree(s, deliver(s, in, x, sink, t, e), e);
    }
    dev_arena_reset(j->work, mark);
    return rc;
}
