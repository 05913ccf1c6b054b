// libswresample with the SoX engine at its "HQ" recipe (20 bits, pass band 0.9137), which is what the published program
// resamples with. The engine takes its own delay out; the end is cut or padded to the exact length.
//
// Equal rates pass through untouched: no filter, the same floats.
#include "daemon/media/resample.h"

#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
#include <libswresample/swresample.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_SAMPLES = 16384 };

struct resample {
    SwrContext *swr; // NULL: equal rates
    int from, to, channels;
    resample_sink sink;
    void *ctx;
    int64_t n_in, n_out;
    float *out; // [OUT_SAMPLES, channels]
};

int64_t resample_length(int64_t n, int from, int to)
{
    __extension__ __int128 scaled = (__int128)n * to + from - 1;
    return (int64_t)(scaled / from);
}

static int engine_open(struct resample *r)
{
    AVChannelLayout layout;
    av_channel_layout_default(&layout, r->channels);
    int rc =
        swr_alloc_set_opts2(&r->swr, &layout, AV_SAMPLE_FMT_FLT, r->to, &layout, AV_SAMPLE_FMT_FLT, r->from, 0, NULL);
    av_channel_layout_uninit(&layout);
    if (rc < 0) return rc;
    av_opt_set_int(r->swr, "resampler", SWR_ENGINE_SOXR, 0);
    av_opt_set_double(r->swr, "precision", 20, 0);
    av_opt_set_double(r->swr, "cutoff", 0.91374, 0);
    return swr_init(r->swr);
}

int resample_new(struct resample **out, int from, int to, int channels, resample_sink sink, void *ctx, struct err *e)
{
    struct resample *r = calloc(1, sizeof *r);
    BUG_IF(!r || from <= 0 || to <= 0 || channels <= 0, "resample %d to %d Hz, %d channels", from, to, channels);
    *r = (struct resample){.from = from, .to = to, .channels = channels, .sink = sink, .ctx = ctx};
    r->out = malloc((size_t)OUT_SAMPLES * (size_t)channels * sizeof(float));
    BUG_IF(!r->out, "no memory to resample");
    if (from != to && engine_open(r) < 0) {
        resample_free(r);
        return err_set(e, E_FATAL,
                       "cannot resample %d Hz to %d Hz: this FFmpeg has no SoX resampler; install a "
                       "libswresample that was built with libsoxr",
                       from, to);
    }
    *out = r;
    return 0;
}

// No more than the exact length.
static int emit(struct resample *r, const float *x, int64_t n, int64_t most, struct err *e)
{
    if (n > most - r->n_out) n = most - r->n_out;
    if (n <= 0) return 0;
    r->n_out += n;
    return r->sink(r->ctx, x, n, e);
}

// `x` NULL: the input has ended. Otherwise a further call without samples takes what did not fit, and is not the end.
static int engine_run(struct resample *r, const float *x, int n, int64_t most, struct err *e)
{
    const uint8_t *in = (const uint8_t *)x;
    uint8_t *out = (uint8_t *)r->out;
    for (;; n = 0) {
        int got = swr_convert(r->swr, &out, OUT_SAMPLES, x ? &in : NULL, n);
        if (got < 0)
            return err_set(e, E_FATAL, "the resampler stopped (%d Hz to %d Hz); convert the voice to WAV first",
                           r->from, r->to);
        int rc = emit(r, r->out, got, most, e);
        if (rc < 0 || got < OUT_SAMPLES) return rc;
    }
}

int resample_push(struct resample *r, const float *x, int64_t n, struct err *e)
{
    r->n_in += n;
    if (!r->swr) return emit(r, x, n, INT64_MAX, e);
    int64_t piece = (int64_t)OUT_SAMPLES * r->from / r->to / 2 + 1;
    for (int rc; n > 0; n -= piece, x += piece * r->channels)
        if ((rc = engine_run(r, x, (int)(n < piece ? n : piece), INT64_MAX, e)) < 0) return rc;
    return 0;
}

int resample_end(struct resample *r, struct err *e)
{
    int64_t want = resample_length(r->n_in, r->from, r->to);
    int rc = r->swr ? engine_run(r, NULL, 0, want, e) : 0;
    memset(r->out, 0, (size_t)OUT_SAMPLES * (size_t)r->channels * sizeof(float));
    while (rc >= 0 && r->n_out < want) rc = emit(r, r->out, OUT_SAMPLES, want, e);
    return rc;
}

void resample_free(struct resample *r)
{
    if (!r) return;
    swr_free(&r->swr);
    free(r->out);
    free(r);
}
