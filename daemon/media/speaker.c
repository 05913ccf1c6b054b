// Decode and survey in one pass, then mix to mono, resample and measure in a second.
//
//   file -> native [n, C] -> weights -> mono [n] -> 16 kHz [ceil(16000 n / rate)] -> LUFS -> gain
//
// The published program takes the plain mean of the channels before it resamples. That loses speech in two cases, which
// the survey finds: surround sound, whose speech sits in the centre, and stereo of opposite phase, which cancels.
// The gain of a near-silent track would only bring up its noise: it ends at 30 dB.
#include "daemon/media/speaker.h"

#include "daemon/media/loudness.h"
#include "daemon/media/resample.h"
#include "daemon/media/voice.h"
#include "daemon/media/voice_child.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GAIN_MAX_DB 30

struct survey {
    struct speaker *s;
    const char *path;
    int track;
    struct decode_head head;
    double energy[DECODE_CHANNELS], mean_energy; // of each channel, of their mean
    int64_t n_full;                              // values at full scale
};

void warn_add(char *warnings, size_t room, const char *fmt, ...)
{
    size_t n = strlen(warnings);
    va_list ap;
    va_start(ap, fmt);
    int put = vsnprintf(warnings + n, room - n, fmt, ap);
    va_end(ap);
    if (put < 0 || n + (size_t)put + 2 > room)
        warnings[n] = 0; // no half sentences
    else
        memcpy(warnings + n + put, "\n", 2);
}

static int survey_head(void *ctx, const struct decode_head *h, struct err *e)
{
    (void)e;
    struct survey *v = ctx;
    v->head = *h;
    v->s->native.rate = h->rate;
    v->s->native.channels = h->channels;
    return 0;
}

static int survey_samples(void *ctx, const float *x, int64_t n, struct err *e)
{
    struct survey *v = ctx;
    int channels = v->head.channels;
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int c = 0; c < channels; c++) {
            double a = (double)x[i * channels + c];
            v->energy[c] += a * a;
            sum += a;
            if (fabs(a) >= 0.9999) v->n_full++;
        }
        v->mean_energy += sum * sum / channels / channels;
    }
    return track_append(&v->s->native, x, n, e);
}

// ---- the mono mix

static void weights_surround(const struct survey *v, float *w)
{
    int channels = v->head.channels, center = v->head.center, n = 0;
    double others = 0;
    for (int c = 0; c < channels; c++)
        if (c != center && c != v->head.lfe) others += v->energy[c], n++;
    bool alone = n == 0 || v->energy[center] >= 3.98 * others / n; // 6 dB
    float sum = 0;
    for (int c = 0; c < channels; c++)
        sum += w[c] = c == center ? (alone ? 1 : 0.707f) : alone || c == v->head.lfe ? 0 : 0.5f;
    for (int c = 0; c < channels; c++) w[c] /= sum; // the muxer may hear this mix, too: no louder than its channels
}

static void weights_choose(const struct survey *v, bool published, char *warnings, size_t room)
{
    float *w = v->s->weights;
    int channels = v->head.channels;
    for (int c = 0; c < channels; c++) w[c] = 1 / (float)channels;
    if (published) return;
    if (channels == 2 && v->mean_energy < 0.01 * (v->energy[0] + v->energy[1]) / 2) {
        w[0] = 1;
        w[1] = 0;
        warn_add(warnings, room, "voice %s: its two channels cancel each other; the left one is used", v->path);
    } else if (channels > 2 && v->head.center >= 0)
        weights_surround(v, w);
}

void speaker_mono(const struct speaker *s, const float *x, int64_t n, float *mono)
{
    int channels = s->native.channels;
    bool mean = true;
    for (int c = 0; c < channels; c++) mean = mean && s->weights[c] == s->weights[0];
    for (int64_t i = 0; i < n; i++, x += channels) {
        double sum = 0;
        for (int c = 0; c < channels; c++) sum += mean ? (double)x[c] : (double)s->weights[c] * (double)x[c];
        mono[i] = (float)(mean ? sum / channels : sum);
    }
}

// ---- 16 kHz, measured as it is made

struct hearing {
    struct speaker *s;
    struct loudness *meter;
    bool any; // sample that is not 0
};

static int hear(void *ctx, const float *x, int64_t n, struct err *e)
{
    struct hearing *h = ctx;
    for (int64_t i = 0; i < n && !h->any; i++) h->any = x[i] != 0;
    loudness_push(h->meter, x, n);
    return track_append(&h->s->heard, x, n, e);
}

static int speaker_hear(struct speaker *s, struct err *e)
{
    struct hearing h = {.s = s, .meter = loudness_new(VOICE_RATE)};
    struct resample *r = NULL;
    float *x = malloc((size_t)(TRACK_PIECE * s->native.channels) * sizeof *x);
    BUG_IF(!x, "no memory for samples");
    int rc = resample_new(&r, s->native.rate, VOICE_RATE, 1, hear, &h, e);
    for (int64_t at = 0; rc >= 0 && at < s->native.n; at += TRACK_PIECE) {
        int64_t n = s->native.n - at < TRACK_PIECE ? s->native.n - at : TRACK_PIECE;
        rc = track_read(&s->native, x, at, n, e);
        speaker_mono(s, x, n, x);
        if (rc >= 0) rc = resample_push(r, x, n, e);
    }
    if (rc >= 0) rc = resample_end(r, e);
    s->lufs = h.any ? loudness_lufs(h.meter) : -INFINITY; // which has no measure of less than 0.4 s
    s->gain = loudness_gain(s->lufs);
    loudness_free(h.meter);
    resample_free(r);
    free(x);
    return rc;
}

static void warn_survey(const struct survey *v, const struct decode_tail *t, char *warnings, size_t room)
{
    const char *path = v->path;
    double rate = v->head.rate;
    if (v->head.n_tracks > 1 && v->track == 0)
        warn_add(warnings, room, "voice %s has %d sound tracks; the default one is used, --audio-track takes another",
                 path, v->head.n_tracks);
    if (t->offset)
        warn_add(warnings, room, "voice %s: its sound starts %.3f s %s its picture; that is kept", path,
                 fabs((double)t->offset) / rate, t->offset > 0 ? "after" : "before");
    if (t->n_damaged)
        warn_add(warnings, room, "voice %s: %.2f s could not be decoded, first at %.2f s; silence stands there", path,
                 (double)t->n_damaged / rate, (double)t->first_damage / rate);
    if (t->n_bad)
        warn_add(warnings, room, "voice %s: %lld samples were no numbers; they are zero now", path,
                 (long long)t->n_bad);
    if (v->n_full * 100 > t->n * v->head.channels)
        warn_add(warnings, room, "voice %s: %.0f %% of it is clipped; lip accuracy may suffer", path,
                 100.0 * (double)v->n_full / (double)(t->n * v->head.channels));
    if (rate <= 8000)
        warn_add(warnings, room, "voice %s has %d Hz: narrow band, lip accuracy may suffer", path, v->head.rate);
}

int speaker_open(struct speaker *s, const char *self, const char *path, int track, const char *folder, bool published,
                 char *warnings, size_t room, struct err *e)
{
    *s = (struct speaker){.native.fd = -1, .heard.fd = -1};
    struct survey v = {.s = s, .path = path, .track = track};
    struct decode_sink sink = {.ctx = &v, .head = survey_head, .samples = survey_samples};
    struct decode_tail tail;
    int rc = track_open(&s->native, folder, 0, 0, e);
    if (rc >= 0) rc = track_open(&s->heard, folder, VOICE_RATE, 1, e);
    if (rc >= 0) rc = voice_child_run(self, path, track, &sink, &tail, e);
    if (rc < 0) return rc;
    if (s->native.n == 0) return err_set(e, E_INPUT, "voice %s holds no samples; record or copy it again", path);
    if (s->native.n * VOICE_RATE < (int64_t)s->native.rate * VOICE_FRAME)
        return err_set(e, E_INPUT,
                       "voice %s lasts %.3f s, and a film's frame 0.040 s; give one that is as long or longer", path,
                       (double)s->native.n / s->native.rate);
    tail.n = s->native.n; // counted here
    warn_survey(&v, &tail, warnings, room);
    weights_choose(&v, published, warnings, room);
    rc = speaker_hear(s, e);
    if (rc < 0) return rc;
    double most = pow(10, GAIN_MAX_DB / 20.0);
    if (s->lufs == -INFINITY) warn_add(warnings, room, "voice %s is silent; the mouth will stay closed", path);
    if (!published && s->gain > most) {
        warn_add(warnings, room, "voice %s is very quiet (%.1f LUFS); it is raised by %d dB only", path, s->lufs,
                 GAIN_MAX_DB);
        s->gain = most;
    }
    return 0;
}

void speaker_close(struct speaker *s)
{
    track_close(&s->native);
    track_close(&s->heard);
}
