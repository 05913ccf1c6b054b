// Voice features on demand.
//
//   16 kHz track --wav2vec2--> rows [L, layers, channels] in a file per speaker
//   segment at frame s: window entry (j, o) = row clamp(s + j + o - 2)
//
// A speaker's own frames [0, n) are rows of the voice alone. Rows from n on, up to the last segment's need, come from
// further encodings of the voice with silence behind it; their rows before n are thrown away, because silence changes
// what the transformer says about speech. Statistics are those of the voice in all. Behind the shorter of two voices
// the silence may be long, so it is made in windows as well; the first begins with the voice.
//
// Easy to get wrong: the published program mirrors instead, only when it knows that the segment is the last, and
// includes the last row twice: row len + i is row len - 1 - i. It encodes the whole voice, so a limit on the frames
// changes no row.
#include "worker/features.h"

#include "worker/scratch.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct voice_rows {
    int fd;                  // nameless
    int64_t n;               // rows of the voice itself
    int64_t n_tail;          // rows of the silence behind it
    int64_t end;             // what lies from here on is mirrored, where that is asked for
    int64_t window;          // rows made at once
    struct track track;      // cut or padded to whole frames
    const struct track *raw; // as given
    struct wav2vec2_stats *stats;
    bool *have; // per window of the voice, then per window of the silence
};

struct features {
    struct wav2vec2 *m; // NULL: rows were given
    struct dev_arena *a;
    int layers, channels, n_speakers, frame_num;
    int64_t row_bytes;
    int64_t n_rows; // that segments may ask for
    bool mirror, published;
    struct voice_rows speaker[SPEC_SPEAKERS];
};

// ---- tracks

// The given track up to its end; silence behind it, whatever the given track would say.
static void read_cut(void *ctx, float *dst, int64_t from, int64_t n)
{
    const struct voice_rows *v = ctx;
    v->raw->read(v->raw->ctx, dst, from, n);
    int64_t end = v->n * 640 < v->raw->n_samples ? v->n * 640 : v->raw->n_samples;
    for (int64_t i = from > end ? from : end; i < from + n; i++) dst[i - from] = 0;
}

// ---- files

static int rows_write(const struct voice_rows *v, const float *rows, int64_t at, int64_t n, int64_t row_bytes,
                      struct err *e)
{
    const char *p = (const char *)rows;
    int64_t left = n * row_bytes, offset = at * row_bytes;
    while (left > 0) {
        ssize_t wrote = pwrite(v->fd, p, (size_t)left, offset);
        if (wrote <= 0)
            return err_set(e, E_FATAL,
                           "cannot write voice features to disk: %s; free some, or name another folder with --cache",
                           strerror(errno));
        p += wrote;
        offset += wrote;
        left -= wrote;
    }
    return 0;
}

static int row_read(const struct voice_rows *v, void *dst, int64_t at, int64_t row_bytes, struct err *e)
{
    if (pread(v->fd, dst, (size_t)row_bytes, at * row_bytes) == row_bytes) return 0;
    return err_set(e, E_FATAL, "cannot read voice features from disk: %s; look at the disk of --cache",
                   strerror(errno));
}

// ---- making rows

// A damaged encoder is told here, by its own name: further on it would look like a fault of the transformer.
static int check_finite(const struct features *f, const struct voice_rows *v, const float *rows, int64_t at, int64_t n,
                        struct err *e)
{
    int64_t w = f->layers * f->channels;
    for (int64_t i = 0; i < n * w; i++)
        if (!isfinite(rows[i]))
            return err_set(e, E_INPUT,
                           "the voice encoder makes values that are no numbers (speaker %d, frame %lld, layer %lld); "
                           "its weights are damaged: copy or download the wav2vec2 folder again",
                           (int)(v - f->speaker) + 1, (long long)(at + i / w), (long long)(i % w / f->channels) + 1);
    return 0;
}

// Encodes frames [from, to) of a track of n frames, and keeps [keep, end).
static int encode(struct features *f, struct voice_rows *v, int64_t n, int64_t from, int64_t to, int64_t keep,
                  int64_t end, struct err *e)
{
    struct track t = v->track;
    t.n_samples = n * 640;
    if (f->published) t = *v->raw;
    int64_t mark = dev_arena_mark(f->a);
    tensor rows = dev_tensor(f->a, DT_F32, SHAPE(to - from, f->layers, f->channels));
    wav2vec2_encode(f->m, f->a, rows, &t, v->stats, n, from, to, NULL);
    struct dev *d = dev_arena_dev(f->a);
    int rc = dev_sync(d, e);
    float *host = malloc((size_t)((end - keep) * f->row_bytes));
    if (!host) rc = err_set(e, E_FATAL, "no memory for %lld frames of voice features", (long long)(end - keep));
    if (rc == 0) {
        dev_download(d, host, DT_F32, tensor_slice(rows, 0, keep - from, end - from));
        rc = check_finite(f, v, host, keep, end - keep, e);
        if (rc == 0) rc = rows_write(v, host, keep, end - keep, f->row_bytes, e);
    }
    free(host);
    dev_arena_reset(f->a, mark);
    return rc;
}

static int64_t at_least(int64_t v, int64_t low) { return v > low ? v : low; }
static int64_t at_most(int64_t v, int64_t high) { return v < high ? v : high; }

// Makes the window that holds row `at`, unless it is there.
static int need_row(struct features *f, struct voice_rows *v, int64_t at, struct err *e)
{
    if (!f->m) return 0; // all rows were given
    int64_t n_windows = (v->n + v->window - 1) / v->window, i = (at - v->n) / FEATURES_WINDOW;
    int64_t k = at < v->n ? at / v->window : n_windows + i;
    if (v->have[k]) return 0;
    int rc;
    if (k >= n_windows) { // silence: the first window has as much voice before it as one of the voice has
        int64_t keep = v->n + i * FEATURES_WINDOW, all = v->n + v->n_tail, end = at_most(keep + FEATURES_WINDOW, all);
        int64_t from = keep - (i == 0 ? v->window : FEATURES_CONTEXT);
        rc = encode(f, v, all, at_least(from, 0), at_most(end + FEATURES_CONTEXT, all), keep, end, e);
    } else {
        int64_t keep = k * v->window, end = at_most(keep + v->window, v->n);
        rc = encode(f, v, v->n, at_least(keep - FEATURES_CONTEXT, 0), at_most(end + FEATURES_CONTEXT, v->n), keep, end,
                    e);
    }
    if (rc == 0) v->have[k] = true;
    return rc;
}

// ---- life

static struct features *features_new(struct dev_arena *a, const struct spec_render *s, int layers, int channels)
{
    struct features *f = calloc(1, sizeof *f);
    BUG_IF(!f, "no memory for voice features");
    int64_t n = spec_segments(s->n_frames, s->frame_num, s->motion_frame, s->mode);
    int64_t end = s->n_reach ? s->n_reach : (n - 1) * (s->frame_num - s->motion_frame) + s->frame_num;
    *f = (struct features){.a = a,
                           .layers = layers,
                           .channels = channels,
                           .n_speakers = s->n_speakers,
                           .frame_num = s->frame_num,
                           .row_bytes = (int64_t)layers * channels * (int64_t)sizeof(float),
                           .n_rows = end + 3,
                           .mirror = s->tail == SPEC_TAIL_MIRROR || s->parity == SPEC_PARITY_PUBLISHED,
                           .published = s->parity == SPEC_PARITY_PUBLISHED};
    for (int p = 0; p < SPEC_SPEAKERS; p++) f->speaker[p].fd = -1;
    return f;
}

// The shorter of two voices ends before the film does.
static int64_t own_frames(const struct track *t, int64_t n_frames)
{
    return at_least(at_most((t->n_samples + 639) / 640, n_frames), 1);
}

int features_open(struct features **out, struct wav2vec2 *m, struct dev_arena *a, const struct spec_render *s,
                  const struct track *track, const char *dir, struct err *e)
{
    struct features *f = features_new(a, s, wav2vec2_layers(m), wav2vec2_dim(m));
    int rc = 0;
    f->m = m;
    for (int p = 0; p < f->n_speakers && rc == 0; p++) {
        struct voice_rows *v = &f->speaker[p];
        v->n = f->published ? spec_frames_published(track[p].n_samples) : own_frames(&track[p], s->n_frames);
        v->n_tail = at_least(f->n_rows - v->n, 0);
        v->end = f->published ? v->n : s->n_frames;
        v->window = v->n > FEATURES_EXACT ? FEATURES_WINDOW : v->n;
        int64_t n_windows = (v->n + v->window - 1) / v->window + v->n_tail / FEATURES_WINDOW + 1;
        v->raw = &track[p];
        v->track = (struct track){.read = read_cut, .ctx = v, .n_samples = v->n * 640};
        v->have = calloc((size_t)n_windows, sizeof *v->have);
        BUG_IF(!v->have, "no memory for voice features");
        v->stats = wav2vec2_measure(m, a, f->published ? v->raw : &v->track);
        if ((v->fd = scratch_open(dir, "voice features", e)) < 0) rc = E_FATAL;
    }
    if (rc < 0)
        features_close(&f);
    else
        *out = f;
    return rc;
}

int features_of_rows(struct features **out, struct dev_arena *a, const struct spec_render *s, int layers, int channels,
                     const float *const *rows, const int64_t *n_frames, const char *dir, struct err *e)
{
    struct features *f = features_new(a, s, layers, channels);
    int rc = 0;
    f->mirror = true;
    for (int p = 0; p < f->n_speakers && rc == 0; p++) {
        f->speaker[p].n = f->speaker[p].end = n_frames[p];
        if ((f->speaker[p].fd = scratch_open(dir, "voice features", e)) < 0) rc = E_FATAL;
        if (rc == 0) rc = rows_write(&f->speaker[p], rows[p], 0, n_frames[p], f->row_bytes, e);
    }
    if (rc < 0)
        features_close(&f);
    else
        *out = f;
    return rc;
}

void features_lend(struct features *f, struct dev_arena *a, const struct track *track)
{
    f->a = a;
    for (int p = 0; p < f->n_speakers; p++) f->speaker[p].raw = &track[p];
}

void features_close(struct features **pf)
{
    struct features *f = *pf;
    if (!f) return;
    for (int p = 0; p < SPEC_SPEAKERS; p++) {
        struct voice_rows *v = &f->speaker[p];
        if (v->fd >= 0) close(v->fd);
        free(v->have);
        wav2vec2_stats_free(&v->stats);
    }
    free(f);
    *pf = NULL;
}

// ---- windows

// The row that stands for frame `at`.
static int64_t row_of(const struct features *f, const struct voice_rows *v, int64_t at, int64_t end, bool last)
{
    if (at < 0) return 0;
    if (!f->mirror) return at_most(at, v->n + v->n_tail - 1);
    if (at < v->end) return at;
    bool extended = last && end >= v->end;
    int64_t mirrored = 2 * v->end - 1 - at;
    return extended ? at_least(mirrored, 0) : v->end - 1;
}

int features_windows(struct features *f, struct dev_arena *a, tensor *out, int64_t start, int window, bool last,
                     struct err *e)
{
    int64_t n = f->frame_num + window - 1, first = start - window / 2, w = f->layers * f->channels;
    struct dev *d = dev_arena_dev(a);
    *out = dev_tensor(a, DT_F32, SHAPE(f->n_speakers, f->frame_num, window, f->layers, f->channels));
    int64_t mark = dev_arena_mark(a);
    tensor rows = dev_tensor(a, DT_F32, SHAPE(n, w));
    float *host = malloc((size_t)(n * f->row_bytes));
    if (!host) return err_set(e, E_FATAL, "no memory for the voice of a segment");
    int rc = 0;
    for (int p = 0; p < f->n_speakers && rc == 0; p++) {
        struct voice_rows *v = &f->speaker[p];
        for (int64_t i = 0; i < n && rc == 0; i++) {
            int64_t at = row_of(f, v, first + i, start + f->frame_num, last);
            rc = need_row(f, v, at, e);
            if (rc == 0) rc = row_read(v, host + i * w, at, f->row_bytes, e);
        }
        if (rc < 0) break;
        dev_upload(d, rows, host, DT_F32);
        tensor view =
            tensor_of(rows.data, DT_F32, SHAPE(f->frame_num, window, w)); // windows overlap: a stride of one row
        view.stride[0] = w;
        tensor to = tensor_at(*out, p);
        op_copy(d, tensor_reshape(to, SHAPE(f->frame_num, window, w)), view);
    }
    free(host);
    dev_arena_reset(a, mark);
    return rc;
}
