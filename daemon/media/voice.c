// Where each speaker's samples lie on the job's timeline, for the worker and for the muxer.
//
//            worker, 16 kHz mono                     muxer
//   one      heard x gain                            native (at a rate and layout that AAC has)
//   para     each its own, from 0                    sum of native x gain, both from 0
//   add      speaker 2 from speaker 1's end          the same
//   published                                        sum of heard x gain, cut to the film
//
// The muxer's sum may pass full scale, so its peak is found first, by one reading of all of it, and one factor brings
// it to -1 dB (`published`: to full scale, where the published program clips). One speaker's original is only touched
// when it is itself beyond full scale.
//
// Trap: lengths. A speaker at rate r has n samples; its second one starts ceil(n * 16000 / r) later at 16 kHz and
// ceil(n * R / r) at the muxer's rate: less than a sample apart in time. L comes from the exact sum of durations.
#include "daemon/media/voice.h"

#include "daemon/media/mux.h"
#include "daemon/media/resample.h"
#include "daemon/media/speaker.h"
#include "proto/voice_hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PEAK_MAX 0.891 // -1 dB

struct voice {
    struct voice_info info;
    struct speaker s[SPEC_SPEAKERS];
    bool has[SPEC_SPEAKERS];
    int n_speakers;
    bool published;
    int64_t start16[SPEC_SPEAKERS], start_mux[SPEC_SPEAKERS];
    struct track converted[SPEC_SPEAKERS]; // native at the muxer's rate, where that differs
    float level[SPEC_SPEAKERS];            // factor for the muxer
    float *scratch;                        // [TRACK_PIECE, DECODE_CHANNELS]
};

// ---- the muxer's side

static const struct track *mux_track(const struct voice *v, int p)
{
    return v->published ? &v->s[p].heard : v->converted[p].channels ? &v->converted[p] : &v->s[p].native;
}

// Adds a speaker's samples: as they are, or its mono mix in every channel.
static int mux_add(struct voice *v, int p, float *out, int64_t from, int64_t n, struct err *e)
{
    const struct track *t = mux_track(v, p);
    int channels = v->info.mux_channels;
    int rc = track_read(t, v->scratch, from - v->start_mux[p], n, e);
    if (rc < 0) return rc;
    bool as_is = t->channels == channels;
    if (!as_is && t->channels > 1) speaker_mono(&v->s[p], v->scratch, n, v->scratch);
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < channels; c++)
            out[i * channels + c] += v->level[p] * v->scratch[as_is ? i * channels + c : i];
    return 0;
}

int voice_read_mux(struct voice *v, float *interleaved, int64_t from, int64_t n, struct err *e)
{
    BUG_IF(from < 0 || n < 0 || from + n > v->info.n_mux, "samples %lld to %lld of %lld", (long long)from,
           (long long)(from + n), (long long)v->info.n_mux);
    int channels = v->info.mux_channels;
    for (int64_t at = 0, some; at < n; at += some) {
        some = n - at < TRACK_PIECE ? n - at : TRACK_PIECE;
        float *out = interleaved + at * channels;
        memset(out, 0, (size_t)(some * channels) * sizeof *out);
        for (int p = 0; p < v->n_speakers; p++) {
            int rc = v->has[p] ? mux_add(v, p, out, from + at, some, e) : 0;
            if (rc < 0) return rc;
        }
    }
    return 0;
}

int voice_read_audio(void *voice, float *interleaved, int64_t from, int64_t n, struct err *e)
{
    return voice_read_mux(voice, interleaved, from, n, e);
}

static int into_track(void *ctx, const float *x, int64_t n, struct err *e) { return track_append(ctx, x, n, e); }

static int convert(struct voice *v, int p, const char *folder, struct err *e)
{
    const struct track *from = &v->s[p].native;
    if (v->published || from->rate == v->info.mux_rate) return 0;
    struct track *to = &v->converted[p];
    int rc = track_open(to, folder, v->info.mux_rate, from->channels, e);
    struct resample *r = NULL;
    if (rc >= 0) rc = resample_new(&r, from->rate, to->rate, from->channels, into_track, to, e);
    for (int64_t at = 0; rc >= 0 && at < from->n; at += TRACK_PIECE) {
        int64_t n = from->n - at < TRACK_PIECE ? from->n - at : TRACK_PIECE;
        rc = track_read(from, v->scratch, at, n, e);
        if (rc >= 0) rc = resample_push(r, v->scratch, n, e);
    }
    if (rc >= 0) rc = resample_end(r, e);
    resample_free(r);
    return rc;
}

static int mux_peak(struct voice *v, double *peak, struct err *e)
{
    int channels = v->info.mux_channels, rc = 0;
    float *x = malloc((size_t)(TRACK_PIECE * channels) * sizeof *x);
    BUG_IF(!x, "no memory for samples");
    *peak = 0;
    for (int64_t at = 0; rc >= 0 && at < v->info.n_mux; at += TRACK_PIECE) {
        int64_t n = v->info.n_mux - at < TRACK_PIECE ? v->info.n_mux - at : TRACK_PIECE;
        rc = voice_read_mux(v, x, at, n, e);
        for (int64_t i = 0; rc >= 0 && i < n * channels; i++) *peak = fmax(*peak, fabs((double)x[i]));
    }
    free(x);
    return rc;
}

// One factor for all speakers, so that the sum stays in scale.
static int levels_set(struct voice *v, struct err *e)
{
    bool original = v->n_speakers == 1 && !v->published;
    for (int p = 0; p < v->n_speakers; p++) v->level[p] = original ? 1 : (float)v->s[p].gain;
    double peak, most = original || v->published ? 1 : PEAK_MAX;
    int rc = mux_peak(v, &peak, e);
    if (rc < 0 || peak <= most) return rc;
    for (int p = 0; p < v->n_speakers; p++)
        v->level[p] *= (float)(most / peak * (1 - 1e-6)); // rounding stays below, too
    warn_add(v->info.warnings, sizeof v->info.warnings, "the film's sound is lowered by %.1f dB: it would clip",
             20 * log10(peak / most));
    return 0;
}

static int mux_prepare(struct voice *v, const char *folder, struct err *e)
{
    int rate = 0, channels = 0;
    for (int p = 0; p < v->n_speakers; p++)
        if (v->has[p]) {
            const struct track *t = &v->s[p].native;
            if (t->rate > rate) rate = t->rate;
            if (t->channels > channels) channels = t->channels;
        }
    v->info.mux_rate = v->published ? VOICE_RATE : mux_audio_rate(rate);
    v->info.mux_channels = v->published         ? 1
                           : v->n_speakers == 1 ? mux_audio_channels(channels)
                                                : (channels > 2 ? 2 : channels);
    for (int p = 0; p < v->n_speakers; p++) {
        int rc = v->has[p] ? convert(v, p, folder, e) : 0;
        if (rc < 0) return rc;
    }
    return 0;
}

// ---- the timeline

static void warn_lengths(struct voice *v, double a, double b)
{
    if (fabs(a - b) > 0.1)
        warn_add(v->info.warnings, sizeof v->info.warnings,
                 "the two voices last %.2f s and %.2f s; silence follows the shorter one", a, b);
}

// L and both lengths, and where the second speaker starts. A silent speaker is as long as the other.
static void timeline(struct voice *v, const struct voice_options *o)
{
    struct voice_info *i = &v->info;
    bool both = v->has[0] && v->n_speakers == 2 && v->has[1], add = v->n_speakers == 2 && o->audio_type == SPEC_ADD;
    int64_t n16[2], n_mux[2], frames[2];
    double seconds[2];
    for (int p = 0; p < 2; p++) {
        const struct speaker *s = &v->s[both ? p : v->has[0] ? 0 : 1];
        n16[p] = s->heard.n;
        n_mux[p] = v->published ? n16[p] : resample_length(s->native.n, s->native.rate, i->mux_rate);
        frames[p] = spec_frames(s->native.n, s->native.rate);
        seconds[p] = (double)s->native.n / s->native.rate;
    }
    if (add && (both || v->published)) {
        v->start16[1] = n16[0];
        v->start_mux[1] = n_mux[0];
        i->n_samples16 = n16[0] + n16[1];
        i->n_mux = n_mux[0] + n_mux[1];
        i->seconds = seconds[0] + seconds[1];
        i->n_frames = both
                          ? spec_frames(v->s[0].native.n * v->s[1].native.rate + v->s[1].native.n * v->s[0].native.rate,
                                        (int64_t)v->s[0].native.rate * v->s[1].native.rate)
                          : 0;
    } else {
        if (both) warn_lengths(v, seconds[0], seconds[1]);
        i->n_samples16 = n16[0] > n16[1] ? n16[0] : n16[1];
        i->n_mux = n_mux[0] > n_mux[1] ? n_mux[0] : n_mux[1];
        i->seconds = fmax(seconds[0], seconds[1]);
        i->n_frames = frames[0] > frames[1] ? frames[0] : frames[1];
    }
    if (v->published) i->n_frames = spec_frames_published(i->n_samples16);
    if (o->max_frames > 0 && i->n_frames > o->max_frames) {
        warn_add(i->warnings, sizeof i->warnings,
                 "the film ends after %lld frames, as asked; %.2f s of the voice are cut", (long long)o->max_frames,
                 i->seconds - (double)o->max_frames / 25);
        i->n_frames = o->max_frames;
        int64_t most = i->n_frames * i->mux_rate / 25;
        if (i->n_mux > most) i->n_mux = most;
    }
    if (!v->published) i->n_samples16 = i->n_frames * VOICE_FRAME;
    if (v->published && i->n_mux > i->n_frames * VOICE_FRAME) i->n_mux = i->n_frames * VOICE_FRAME;
}

int voice_read16(struct voice *v, int speaker, float *dst, int64_t from, int64_t n, struct err *e)
{
    BUG_IF(speaker < 0 || speaker >= v->n_speakers || from < 0 || n < 0 || from + n > v->info.n_samples16,
           "samples %lld to %lld of %lld, speaker %d", (long long)from, (long long)(from + n),
           (long long)v->info.n_samples16, speaker);
    if (!v->has[speaker]) {
        memset(dst, 0, (size_t)n * sizeof *dst);
        return 0;
    }
    int rc = track_read(&v->s[speaker].heard, dst, from - v->start16[speaker], n, e);
    float gain = (float)v->s[speaker].gain;
    for (int64_t i = 0; rc >= 0 && i < n; i++) dst[i] *= gain;
    return rc;
}

// What the worker is sent of each track. The shorter of two voices at once ends in whole frames: the silence behind it
// must not count in what the encoder measures over a voice. Silence that is the film's own (a partner who waits or says
// nothing) is part of the track, as the published program has it.
static void own_set(struct voice *v, const struct voice_options *o)
{
    struct voice_info *i = &v->info;
    bool para = v->n_speakers == 2 && o->audio_type == SPEC_PARA && v->has[0] && v->has[1] && !v->published;
    for (int p = 0; p < v->n_speakers; p++) {
        int64_t own = (v->s[p].heard.n + VOICE_FRAME - 1) / VOICE_FRAME * VOICE_FRAME;
        i->own16[p] = (uint64_t)(para && own < i->n_samples16 ? own : i->n_samples16);
    }
}

// Two jobs with one hash hear the same.
static int hash_set(struct voice *v, struct err *e)
{
    struct hash h;
    voice_hash_init(&h, v->n_speakers, v->info.own16);
    for (int p = 0; p < v->n_speakers; p++)
        for (int64_t at = 0, own = (int64_t)v->info.own16[p]; at < own; at += TRACK_PIECE) {
            int64_t n = own - at < TRACK_PIECE ? own - at : TRACK_PIECE;
            int rc = voice_read16(v, p, v->scratch, at, n, e);
            if (rc < 0) return rc;
            hash_update(&h, v->scratch, (size_t)n * sizeof(float));
        }
    hash_final(&h, v->info.hash);
    return 0;
}

static int voice_prepare(struct voice *v, const struct voice_options *o, struct err *e)
{
    struct voice_info *i = &v->info;
    bool any = false;
    for (int p = 0; p < o->n_speakers; p++) any = any || o->audio[p];
    if (!any) return err_set(e, E_INPUT, "nobody speaks: at least one speaker needs a voice (a sound file)");
    if (o->n_speakers == 2 && o->audio_type == SPEC_AUDIO_NONE)
        return err_set(e, E_INPUT,
                       "audio_type: two speakers need one: para (both at once) or add (one after the other)");
    for (int p = 0; p < o->n_speakers; p++) {
        i->lufs[p] = -INFINITY;
        if (!o->audio[p]) continue;
        v->has[p] = true;
        int rc = speaker_open(&v->s[p], o->self, o->audio[p], o->track, o->folder, o->published, i->warnings,
                              sizeof i->warnings, e);
        if (rc < 0) return rc;
        i->lufs[p] = v->s[p].lufs;
    }
    int rc = mux_prepare(v, o->folder, e);
    if (rc < 0) return rc;
    timeline(v, o);
    own_set(v, o);
    rc = levels_set(v, e);
    return rc < 0 ? rc : hash_set(v, e);
}

int voice_open(struct voice **out, const struct voice_options *o, struct voice_info *info, struct err *e)
{
    BUG_IF(o->n_speakers < 1 || o->n_speakers > SPEC_SPEAKERS, "%d speakers", o->n_speakers);
    struct voice *v = calloc(1, sizeof *v);
    BUG_IF(!v, "no memory for a voice");
    v->n_speakers = o->n_speakers;
    v->published = o->published;
    v->scratch = malloc((size_t)TRACK_PIECE * DECODE_CHANNELS * sizeof(float));
    BUG_IF(!v->scratch, "no memory for samples");
    int rc = voice_prepare(v, o, e);
    if (rc < 0) {
        voice_close(v);
        return rc;
    }
    *info = v->info;
    *out = v;
    return 0;
}

void voice_close(struct voice *v)
{
    if (!v) return;
    for (int p = 0; p < SPEC_SPEAKERS; p++) {
        speaker_close(&v->s[p]);
        track_close(&v->converted[p]);
    }
    free(v->scratch);
    free(v);
}
