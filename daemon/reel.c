// From a spec to media: the source decides the size, the voice decides the length, and what cannot be is refused before
// any weight is read.
//
// Order matters for whoever waits: first the picture (fast), then the voice (decoded whole), then where spans begin (a
// video is looked through for that), then the masks.
//
// The film is opened with its first piece: the sound's encoder alone takes a megabyte, and a thousand jobs may wait for
// their first segment; and to go on with a long film, all of its voice goes through that encoder again.
#include "daemon/reel.h"

#include "daemon/media/drawn.h"
#include "daemon/media/masks.h"
#include "daemon/media/mux.h"
#include "daemon/media/source.h"
#include "daemon/media/speaker.h"
#include "daemon/media/voice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct reel {
    struct reel_info info;
    struct spec *spec;
    const struct reel_options *o; // while it opens
    char *output;
    struct source *source;
    struct source_info source_info;
    struct voice *voice;
    struct voice_info voice_info;
    struct plan_segments plan;
    int64_t *cut;            // plan's
    int64_t *span_end;       // [n_spans] segment after each
    uint8_t *colour, *masks; // colour: of the first span
    struct mux *mux;         // from the first piece on
    int64_t n_made, n_bytes; // of the film while it is not open
    bool over;               // the film is delivered or ended
};

// ---- opening

static void notice_lines(struct reel *r, const char *lines)
{
    size_t n = strlen(r->info.notices);
    const char *end = n == 0 || r->info.notices[n - 1] == '\n' ? "" : "\n";
    if (*lines) snprintf(r->info.notices + n, sizeof r->info.notices - n, "%s%s", end, lines);
}

// The limit that clip mode, max_frame_num and a film's end set together; 0: none.
static int64_t frames_limit(const struct reel *r)
{
    const struct spec *s = r->spec;
    int64_t limit = s->max_frame_num;
    if (s->r.mode == SPEC_CLIP && (limit == 0 || limit > s->r.frame_num)) limit = s->r.frame_num;
    int64_t film = s->video_end == SPEC_END_STOP ? r->source_info.n_frames : 0;
    return film > 0 && (limit == 0 || limit > film) ? film : limit;
}

static int open_source(struct reel *r, const struct model *m, const char *self, struct err *e)
{
    struct spec *s = r->spec;
    struct source_options o = {.self = self,
                               .path = s->image ? s->image : s->video,
                               .end = (enum spec_video_end)s->video_end,
                               .cut = s->cut_at_shots || s->n_cuts > 0,
                               .published = s->r.parity == SPEC_PARITY_PUBLISHED};
    const struct bucket_table *sizes;
    int rc = source_open(&r->source, &o, &r->source_info, e);
    if (rc >= 0) rc = model_size(m, s->r.size, &sizes, e);
    if (rc < 0) return rc;
    const struct bucket *b = model_bucket(sizes, r->source_info.h, r->source_info.w);
    s->r.h = b->h;
    s->r.w = b->w;
    r->info.src_h = r->source_info.h;
    r->info.src_w = r->source_info.w;
    if (s->video_end == SPEC_END_STOP) return source_measure(r->source, s->max_frame_num, &r->source_info, e);
    return 0;
}

static int open_voice(struct reel *r, const char *self, struct err *e)
{
    struct spec *s = r->spec;
    struct voice_options o = {.self = self,
                              .folder = r->o->folder,
                              .audio = {s->audio[0], s->audio[1]},
                              .n_speakers = s->n_speakers,
                              .audio_type = s->audio_type,
                              .track = s->audio_track,
                              .published = s->r.parity == SPEC_PARITY_PUBLISHED,
                              .max_frames = frames_limit(r)};
    int rc = voice_open(&r->voice, &o, &r->voice_info, e);
    if (rc < 0) return rc;
    plan_segments_init(&r->plan, &s->r, o.max_frames, &r->voice_info.n_frames, 1);
    s->r.n_frames = r->info.n_frames = r->plan.n_frames;
    memcpy(r->info.n_samples, r->voice_info.own16, sizeof r->info.n_samples);
    memcpy(r->info.voice_hash, r->voice_info.hash, sizeof r->info.voice_hash);
    return 0;
}

// ---- spans

static int find_cuts(struct reel *r, struct err *e)
{
    const struct spec *s = r->spec;
    int n = 0;
    if (r->o->planned) {
        n = r->o->n_cuts;
        r->cut = calloc((size_t)n + 1, sizeof *r->cut);
        BUG_IF(!r->cut, "no memory for cuts");
        for (int i = 0; i < n; i++) r->cut[i] = r->o->cut[i];
    } else if (s->cut_at_shots) {
        int rc = source_shots(r->source, r->info.n_frames, &r->cut, &n, e);
        if (rc < 0) return rc;
        char note[128];
        if (r->source_info.still)
            snprintf(note, sizeof note, "%s: has no effect on a picture, which has no shots", s->cut_from);
        else
            snprintf(note, sizeof note, "the video has %d shots; each begins afresh", n + 1);
        notice_lines(r, note);
    } else {
        n = s->n_cuts;
        r->cut = calloc((size_t)n + 1, sizeof *r->cut);
        BUG_IF(!r->cut, "no memory for cuts");
        for (int i = 0; i < n; i++) r->cut[i] = s->cut[i];
    }
    r->plan.cut = r->cut;
    r->plan.n_cuts = r->o->planned ? n : plan_cuts_tidy(r->cut, n, r->info.n_frames);
    if (!r->o->planned && s->n_cuts > r->plan.n_cuts) {
        char note[160];
        snprintf(note, sizeof note,
                 "%d cuts lie beyond the film or less than half a second from another, and are left out",
                 s->n_cuts - r->plan.n_cuts);
        notice_lines(r, note);
    }
    return 0;
}

static int make_plan(struct reel *r, struct err *e)
{
    int rc = find_cuts(r, e);
    if (rc < 0) return rc;
    r->info.n_spans = r->plan.n_cuts + 1;
    r->span_end = calloc((size_t)r->info.n_spans, sizeof *r->span_end);
    BUG_IF(!r->span_end, "no memory for spans");
    r->info.n_segments = plan_segments_count(&r->plan);
    // published parity may plan a last segment of which nothing is delivered
    while (r->info.n_segments > 1) {
        struct plan_segment g = plan_segments_at(&r->plan, r->info.n_segments - 1);
        if (g.keep_to > g.keep_from) break;
        r->info.n_segments--;
    }
    int64_t reach = 0, k = 0, step = r->plan.frame_num - r->plan.motion_frame;
    for (int i = 0; i < r->info.n_spans; i++) {
        int64_t from = i ? r->cut[i - 1] : 0, to = i < r->plan.n_cuts ? r->cut[i] : r->plan.n_reach;
        int64_t n = spec_segments(to - from, r->plan.frame_num, r->plan.motion_frame, SPEC_STREAMING);
        int64_t end = from + (n - 1) * step + r->plan.frame_num;
        r->span_end[i] = k += n;
        if (end > reach) reach = end;
    }
    r->span_end[r->info.n_spans - 1] = r->info.n_segments;
    r->spec->r.n_reach = r->plan.n_cuts ? reach : 0;
    return 0;
}

static int measure_video(struct reel *r, struct err *e)
{
    struct source_info *i = &r->source_info;
    int rc = source_measure(r->source, r->info.n_frames, i, e);
    static const char *const then[] = {"its last picture is held", "it starts over", "it runs backwards"};
    if (rc >= 0 && i->n_frames > 0 && i->n_frames < r->info.n_frames && r->spec->video_end != SPEC_END_STOP)
        warn_add(i->warnings, sizeof i->warnings, "the video ends at %.2f s, before the voice; then %s",
                 (double)i->n_frames / 25, then[r->spec->video_end]);
    return rc;
}

static int make_masks(struct reel *r, const char *self, struct err *e)
{
    const struct spec *s = r->spec;
    size_t n = (size_t)s->r.h * (size_t)s->r.w;
    uint8_t *plane[SPEC_SPEAKERS] = {0};
    char notices[1024] = "";
    int rc = 0, src_h = r->info.src_h, src_w = r->info.src_w;
    if (s->n_speakers < 2) return 0;
    r->masks = malloc(n * (size_t)s->n_speakers);
    BUG_IF(!r->masks, "no memory for masks");
    for (int p = 0; p < s->n_speakers && rc >= 0; p++)
        if (s->region[p].mask) rc = source_mask(&plane[p], self, s->region[p].mask, src_h, src_w, e);
    if (rc >= 0)
        rc = masks_fill(r->masks, s->region, (const uint8_t *const *)plane, s->n_speakers, src_h, src_w, s->r.h, s->r.w,
                        s->face_scale, notices, sizeof notices, e);
    for (int p = 0; p < s->n_speakers; p++) free(plane[p]);
    notice_lines(r, notices);
    return rc;
}

// A bit more than half of what films usually take, while they grow and once more when they are delivered, and the
// voices once more for the worker: whoever has less would hear of it after hours.
static int check_room(const struct reel *r, struct err *e)
{
    struct statvfs v;
    if (statvfs(r->o->folder, &v) < 0) return 0; // writing will tell
    double pixels = (double)r->spec->r.h * r->spec->r.w * (double)r->info.n_frames, mb = 1e6;
    double sound = (double)r->info.n_frames / 25 * 12000 * r->voice_info.mux_channels;
    double voice = 0;
    for (int p = 0; p < r->spec->n_speakers; p++) voice += (double)r->info.n_samples[p] * sizeof(float);
    double need = 2 * (pixels / 32 + sound) + voice, has = (double)v.f_bavail * (double)v.f_frsize;
    if (has >= need) return 0;
    return err_set(e, E_INPUT,
                   "-o %s: the film takes about %.1f MB there and %.1f MB are free; free some, or choose "
                   "another disk",
                   r->output, need / mb, has / mb);
}

static int open_film(struct reel *r, struct err *e)
{
    if (r->mux) return 0;
    struct mux_options o = {.path = r->info.growing,
                            .picture = reel_piece_options(r),
                            .n_frames = r->info.n_frames,
                            .read_audio = voice_read_audio,
                            .audio = r->voice,
                            .rate = r->voice_info.mux_rate,
                            .channels = r->voice_info.mux_channels,
                            .n_audio = r->voice_info.n_mux,
                            .resume_frames = r->n_made,
                            .resume_bytes = r->n_bytes};
    return mux_open(&r->mux, &o, e);
}

// A photograph given to a model that has only seen drawn heads renders, but into nobody.
static void check_range(struct reel *r, const struct model *m)
{
    const struct spec *s = r->spec;
    char note[MODEL_PATH_MAX];
    if (m->range != MODEL_DRAWN || drawn_looks(r->colour, s->r.h, s->r.w)) return;
    snprintf(note, sizeof note,
             "%s looks like a photograph, and the model %s has only learnt drawn heads: do not expect a likeness; for "
             "people, give --model a folder with the published 14B weights",
             s->image ? "the picture" : "the video", m->name);
    notice_lines(r, note);
}

static int reel_fill(struct reel *r, const struct model *m, struct err *e)
{
    struct spec *s = r->spec;
    const char *self = r->o->self;
    int rc = mux_check_path(r->output, e);
    if (rc >= 0) rc = open_source(r, m, self, e);
    if (rc >= 0) rc = open_voice(r, self, e);
    if (rc >= 0) rc = measure_video(r, e);
    if (rc >= 0) rc = make_plan(r, e);
    if (rc < 0) return rc;
    r->colour = malloc((size_t)s->r.h * (size_t)s->r.w * 3);
    BUG_IF(!r->colour, "no memory for a picture");
    rc = source_colour_picture(r->source, 0, s->r.h, s->r.w, r->colour, &r->source_info, e);
    if (rc >= 0 && source_notice(r->source)) notice_lines(r, source_notice(r->source));
    if (rc >= 0) check_range(r, m);
    if (rc >= 0) rc = make_masks(r, self, e);
    if (rc >= 0) rc = check_room(r, e);
    notice_lines(r, r->source_info.warnings);
    notice_lines(r, r->voice_info.warnings);
    return rc;
}

int reel_open(struct reel **out, struct spec *s, const struct model *m, const struct reel_options *o, struct err *e)
{
    struct reel *r = calloc(1, sizeof *r);
    BUG_IF(!r, "no memory for a job's media");
    r->spec = s;
    r->o = o;
    r->n_made = o->frames;
    r->n_bytes = o->bytes;
    snprintf(r->info.growing, sizeof r->info.growing, "%s/film.mp4", o->folder);
    r->output = strdup(s->output);
    BUG_IF(!r->output, "no memory for a job's media");
    notice_lines(r, s->notices);
    int rc = reel_fill(r, m, e);
    r->o = NULL;
    if (rc < 0) {
        reel_close(&r);
        return rc;
    }
    *out = r;
    return 0;
}

int reel_probe(struct spec *s, const struct model *m, const struct reel_options *o, enum reel_probed what,
               struct err *e)
{
    struct reel *r = calloc(1, sizeof *r);
    BUG_IF(!r, "no memory for a job's media");
    r->spec = s;
    r->o = o;
    int rc = what & REEL_PICTURE ? open_source(r, m, o->self, e) : 0;
    if (rc >= 0 && what & REEL_VOICE) rc = open_voice(r, o->self, e);
    if (rc >= 0 && what & REEL_PICTURE) rc = make_masks(r, o->self, e);
    reel_close(&r);
    return rc;
}

// ---- for the worker

const struct reel_info *reel_info(const struct reel *r) { return &r->info; }
struct plan_segment reel_segment(const struct reel *r, int64_t number) { return plan_segments_at(&r->plan, number); }
int64_t reel_span_end(const struct reel *r, int span) { return r->span_end[span]; }
const int64_t *reel_cuts(const struct reel *r) { return r->cut; }

int reel_colour_picture(struct reel *r, int span, uint8_t *rgb, struct err *e)
{
    const struct spec_render *s = &r->spec->r;
    struct source_info info = {0}; // what it warns of is no news hours later
    if (span > 0) return source_colour_picture(r->source, r->cut[span - 1], s->h, s->w, rgb, &info, e);
    memcpy(rgb, r->colour, (size_t)s->h * (size_t)s->w * 3);
    return 0;
}

const uint8_t *reel_masks(const struct reel *r) { return r->masks; }

int reel_picture(struct reel *r, int64_t segment, uint8_t *rgb, struct err *e)
{
    return source_picture(r->source, plan_segments_at(&r->plan, segment).start, r->spec->r.h, r->spec->r.w, rgb, e);
}

const char *reel_notice(struct reel *r) { return source_notice(r->source); }

void reel_rest(struct reel *r) { source_rest(r->source); }

int reel_voice(struct reel *r, int speaker, float *to, int64_t from, int64_t n, struct err *e)
{
    return voice_read16(r->voice, speaker, to, from, n, e);
}

// ---- the film

struct piece_options reel_piece_options(const struct reel *r)
{
    const struct spec *s = r->spec;
    return (struct piece_options){.w = s->r.w, .h = s->r.h, .crf = s->crf, .preset = s->preset};
}

int reel_add(struct reel *r, const char *path, int64_t segment, int64_t *bytes, struct err *e)
{
    struct plan_segment g = plan_segments_at(&r->plan, segment);
    struct piece *p = NULL;
    int rc = open_film(r, e);
    if (rc < 0) return rc;
    BUG_IF(mux_frames(r->mux) != g.start + g.keep_from, "segment %lld is added after frame %lld", (long long)segment,
           (long long)mux_frames(r->mux));
    rc = piece_read(&p, path, g.keep_to - g.keep_from, e);
    if (rc >= 0) rc = mux_piece(r->mux, p, e);
    if (rc >= 0) rc = mux_sync(r->mux, e);
    if (rc >= 0) *bytes = mux_bytes(r->mux);
    piece_free(&p);
    return rc;
}

int64_t reel_frames(const struct reel *r) { return r->mux ? mux_frames(r->mux) : r->n_made; }

int reel_finish(struct reel *r, struct err *e)
{
    int rc = open_film(r, e);
    if (rc >= 0) rc = mux_finish(r->mux, r->output, e);
    if (rc < 0) return rc;
    r->mux = NULL;
    r->over = true;
    r->n_made = r->info.n_frames;
    return 0;
}

bool reel_is_delivered(const char *folder, const char *output)
{
    char growing[4200];
    snprintf(growing, sizeof growing, "%s/film.mp4", folder);
    return access(growing, F_OK) < 0 && access(output, F_OK) == 0;
}

bool reel_abandon(struct reel *r)
{
    if (r->over) return false;
    if (r->mux) r->n_made = mux_frames(r->mux);
    bool worth = r->n_made > 0;
    mux_abort(r->mux, worth);
    if (!r->mux && !worth) unlink(r->info.growing); // of a run that died before its first piece was kept
    r->mux = NULL;
    r->over = true;
    return worth;
}

void reel_close(struct reel **pr)
{
    struct reel *r = *pr;
    if (!r) return;
    if (r->mux) mux_abort(r->mux, true);
    source_close(r->source);
    voice_close(r->voice);
    free(r->cut);
    free(r->span_end);
    free(r->colour);
    free(r->masks);
    free(r->output);
    free(r);
    *pr = NULL;
}
