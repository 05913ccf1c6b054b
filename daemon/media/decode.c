// One pass through libavformat, libavcodec and libswresample: packets, frames, floats at the file's own rate.
//
// The decoded count is the truth, not the header's duration. Encoder delay and padding that the container declares are
// cut by libavcodec. Where packets cannot be decoded, the next good one tells by its time how much is missing, and
// silence takes its place, so what follows stays where it was. Times are looked at only then: containers that round
// them to milliseconds would tear the sound apart otherwise. A stream may change its format midway; the converter is
// made anew and its output stays what the first frame said.
//
// Only local files, only these containers: formats that open other files are not among them.
#include "daemon/media/decode.h"

#include "daemon/media/input.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswresample/swresample.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char formats[] = "wav,w64,aiff,au,caf,flac,mp3,aac,ac3,eac3,dts,ogg,matroska,webm,mov,mp4,m4a,3gp,avi,asf,"
                              "flv,mpeg,mpegts,amr,wv,ape,tta,mxf";
enum { OFFSET_MAX_S = 600, GAP_MAX_S = 600, PIECE = 8192 };

#define NO_SOUND 1e10f // floats beyond it are bytes of something else: their squares would not fit

struct decoder {
    const char *path;
    int track; // asked for, 0: the default one
    const struct decode_sink *sink;
    struct decode_tail *tail;
    AVFormatContext *in;
    AVStream *st;
    AVCodecContext *codec;
    SwrContext *swr;
    AVFrame *frame;
    AVPacket *packet;
    AVChannelLayout layout;   // of the output
    int rate, channels;       // 0: no frame yet
    int swr_rate, swr_format; // what the converter takes
    AVChannelLayout swr_layout;
    int64_t start; // the output's sample 0, in the stream's samples
    int64_t skip;  // samples still to be cut at the front
    bool damaged;  // since the last good frame
    float *out;    // [room, channels]
    int64_t room;
    float *held; // [n_held, channels]: what the last frame has beyond its packet's duration
    int64_t n_held;
};

// ---- opening

// The stream that is the track asked for; -1: the file has not so many.
static int track_stream(const struct decoder *d, int *n_tracks)
{
    int found = -1;
    *n_tracks = 0;
    for (unsigned s = 0; s < d->in->nb_streams; s++)
        if (d->in->streams[s]->codecpar->codec_type == AVMEDIA_TYPE_AUDIO && ++*n_tracks == d->track) found = (int)s;
    return found;
}

static int track_find(struct decoder *d, struct err *e)
{
    const AVCodec *codec = NULL;
    int n_tracks, wanted = track_stream(d, &n_tracks), pictures = 0;
    const AVCodecParameters *empty = NULL; // a sound track whose header leaves nothing to hear
    int i = av_find_best_stream(d->in, AVMEDIA_TYPE_AUDIO, wanted, -1, &codec, 0);
    if (d->track > 0 && wanted < 0 && n_tracks > 0)
        return err_set(e, E_INPUT, "voice %s has no sound track %d (--audio-track); it has %d", d->path, d->track,
                       n_tracks);
    for (unsigned s = 0; s < d->in->nb_streams; s++) {
        const AVCodecParameters *p = d->in->streams[s]->codecpar;
        pictures += p->codec_type == AVMEDIA_TYPE_VIDEO;
        if (p->codec_type == AVMEDIA_TYPE_AUDIO && (p->ch_layout.nb_channels < 1 || p->sample_rate < 1)) empty = p;
    }
    if (i == AVERROR_DECODER_NOT_FOUND)
        return err_set(e, E_INPUT,
                       "voice %s: its sound is in a format that this FFmpeg cannot decode; convert it to WAV", d->path);
    if (i < 0 && empty)
        return err_set(e, E_INPUT, "voice %s says of itself that it has %d channels at %d Hz; record or copy it again",
                       d->path, empty->ch_layout.nb_channels, empty->sample_rate);
    if (i < 0 && pictures)
        return err_set(
            e, E_INPUT,
            "voice %s has pictures but no sound track; give a recording (wav, mp3, m4a), or a video with sound",
            d->path);
    if (i < 0) return err_set(e, E_INPUT, "voice %s has no sound track; give a recording (wav, mp3, m4a)", d->path);
    d->st = d->in->streams[i];
    for (unsigned s = 0; s < d->in->nb_streams; s++)
        if ((int)s != i) d->in->streams[s]->discard = AVDISCARD_ALL;
    d->codec = avcodec_alloc_context3(codec);
    BUG_IF(!d->codec, "no memory for a decoder");
    d->codec->pkt_timebase = d->st->time_base;
    if (avcodec_parameters_to_context(d->codec, d->st->codecpar) < 0 || avcodec_open2(d->codec, codec, NULL) < 0)
        return err_set(e, E_INPUT,
                       "voice %s: its %s sound of %d channels at %d Hz cannot be decoded; save it anew as WAV", d->path,
                       codec->name, d->st->codecpar->ch_layout.nb_channels, d->st->codecpar->sample_rate);
    return 0;
}

static int input_open(struct decoder *d, struct err *e)
{
    int rc = input_check("voice", d->path, e);
    if (rc < 0) return rc;
    char url[4200], why[AV_ERROR_MAX_STRING_SIZE];
    snprintf(url, sizeof url, "file:%s", d->path);
    AVDictionary *o = NULL;
    av_dict_set(&o, "protocol_whitelist", "file", 0);
    av_dict_set(&o, "format_whitelist", formats, 0);
    rc = avformat_open_input(&d->in, url, NULL, &o);
    av_dict_free(&o);
    if (rc == AVERROR(EACCES))
        return err_set(e, E_INPUT, "voice %s: cannot read it: %s; give yourself the right to read it (chmod)", d->path,
                       strerror(EACCES));
    if (rc >= 0) rc = avformat_find_stream_info(d->in, NULL);
    av_strerror(rc, why, sizeof why);
    if (rc == AVERROR(EINVAL)) // the list above, in FFmpeg's words
        return err_set(e, E_INPUT,
                       "voice %s is not a sound or video file; give wav, mp3, m4a, flac, ogg, or a video with sound",
                       d->path);
    if (rc < 0)
        return err_set(e, E_INPUT,
                       "voice %s is not a readable sound or video file: %s; copy it again, or save it anew as WAV",
                       d->path, why);
    return track_find(d, e);
}

// ---- frames

static int samples_out(struct decoder *d, float *x, int64_t n, struct err *e)
{
    for (int64_t i = 0; i < n * d->channels; i++)
        if (!(fabsf(x[i]) < NO_SOUND)) {
            x[i] = 0;
            d->tail->n_bad++;
        }
    int64_t cut = n < d->skip ? n : d->skip;
    d->skip -= cut;
    if (n == cut) return 0;
    d->tail->n += n - cut;
    return d->sink->samples(d->sink->ctx, x + cut * d->channels, n - cut, e);
}

static int silence_out(struct decoder *d, int64_t n, struct err *e)
{
    float *zeros = calloc((size_t)(PIECE * d->channels), sizeof *zeros);
    BUG_IF(!zeros, "no memory for silence");
    int rc = 0;
    for (; rc >= 0 && n > 0; n -= PIECE) rc = samples_out(d, zeros, n < PIECE ? n : PIECE, e);
    free(zeros);
    return rc;
}

// The first frame says what comes out, and where it lies against the picture, if there is one.
static int first_frame(struct decoder *d, struct err *e)
{
    const AVFrame *f = d->frame;
    d->rate = f->sample_rate;
    if (d->rate < 1000 || d->rate > 768000)
        return err_set(e, E_INPUT, "voice %s: a sample rate of %d Hz is not taken; convert it to 48000 Hz", d->path,
                       d->rate);
    int n = f->ch_layout.nb_channels;
    if (n > DECODE_CHANNELS)
        d->layout = (AVChannelLayout)AV_CHANNEL_LAYOUT_STEREO;
    else if (f->ch_layout.order == AV_CHANNEL_ORDER_NATIVE)
        av_channel_layout_copy(&d->layout, &f->ch_layout);
    else
        av_channel_layout_default(&d->layout, n);
    d->channels = d->layout.nb_channels;
    struct decode_head h = {.rate = d->rate, .channels = d->channels};
    h.center = d->channels > 2 ? av_channel_layout_index_from_channel(&d->layout, AV_CHAN_FRONT_CENTER) : -1;
    h.lfe = av_channel_layout_index_from_channel(&d->layout, AV_CHAN_LOW_FREQUENCY);
    if (h.center < 0) h.center = -1;
    if (h.lfe < 0) h.lfe = -1;
    for (unsigned s = 0; s < d->in->nb_streams; s++)
        h.n_tracks += d->in->streams[s]->codecpar->codec_type == AVMEDIA_TYPE_AUDIO;
    int rc = d->sink->head(d->sink->ctx, &h, e);
    if (rc < 0 || f->pts == AV_NOPTS_VALUE) return rc;
    d->start = av_rescale_q(f->pts, d->st->time_base, (AVRational){1, d->rate});
    for (unsigned s = 0; s < d->in->nb_streams; s++) {
        const AVStream *v = d->in->streams[s];
        if (v->codecpar->codec_type != AVMEDIA_TYPE_VIDEO || v->disposition & AV_DISPOSITION_ATTACHED_PIC ||
            v->start_time == AV_NOPTS_VALUE)
            continue;
        int64_t offset = d->start - av_rescale_q(v->start_time, v->time_base, (AVRational){1, d->rate});
        if (llabs(offset) <= d->rate / 1000 || llabs(offset) > (int64_t)OFFSET_MAX_S * d->rate) break;
        d->tail->offset = offset;
        d->start -= offset;
        if (offset < 0) d->skip = -offset;
        return offset > 0 ? silence_out(d, offset, e) : 0;
    }
    return 0;
}

static int converter_for(struct decoder *d, struct err *e)
{
    AVFrame *f = d->frame;
    if (f->ch_layout.order != AV_CHANNEL_ORDER_NATIVE) {
        int n = f->ch_layout.nb_channels;
        av_channel_layout_uninit(&f->ch_layout);
        av_channel_layout_default(&f->ch_layout, n);
    }
    if (d->swr && d->swr_rate == f->sample_rate && d->swr_format == f->format &&
        !av_channel_layout_compare(&d->swr_layout, &f->ch_layout))
        return 0;
    swr_free(&d->swr);
    d->swr_rate = f->sample_rate;
    d->swr_format = f->format;
    av_channel_layout_copy(&d->swr_layout, &f->ch_layout);
    int rc = swr_alloc_set_opts2(&d->swr, &d->layout, AV_SAMPLE_FMT_FLT, d->rate, &f->ch_layout,
                                 (enum AVSampleFormat)f->format, f->sample_rate, 0, NULL);
    if (rc >= 0) rc = swr_init(d->swr);
    return rc < 0 ? err_set(e, E_INPUT, "voice %s: %d channels of this kind are not taken; convert it to stereo",
                            d->path, f->ch_layout.nb_channels)
                  : 0;
}

// What was lost before this frame, by its time.
static int gap_fill(struct decoder *d, struct err *e)
{
    d->damaged = false;
    if (d->frame->pts == AV_NOPTS_VALUE) return 0;
    int64_t at = av_rescale_q(d->frame->pts, d->st->time_base, (AVRational){1, d->rate}) - d->start;
    int64_t missing = at - d->tail->n;
    if (missing <= 0) return 0;
    if (missing > (int64_t)GAP_MAX_S * d->rate)
        return err_set(e, E_INPUT, "voice %s is damaged at %.1f s; record or copy it again", d->path,
                       (double)d->tail->n / d->rate);
    if (!d->tail->n_damaged) d->tail->first_damage = d->tail->n;
    d->tail->n_damaged += missing;
    return silence_out(d, missing, e);
}

// Codecs of fixed frames pad the last one, and a container that knows gives its packet a shorter duration. Which frame
// is the last is known later, so what goes beyond a duration waits for the next frame, or is dropped at the end.
static int samples_hold(struct decoder *d, int64_t n, struct err *e)
{
    int64_t keep = n;
    if (d->frame->pkt_duration > 0) {
        int64_t lasts =
            av_rescale_q_rnd(d->frame->pkt_duration, d->st->time_base, (AVRational){1, d->rate}, AV_ROUND_UP);
        if (lasts < n) keep = lasts;
    }
    if (keep < n) {
        size_t bytes = (size_t)((n - keep) * d->channels) * sizeof *d->held;
        d->held = realloc(d->held, bytes);
        BUG_IF(!d->held, "no memory for samples");
        memcpy(d->held, d->out + keep * d->channels, bytes);
        d->n_held = n - keep;
    }
    return samples_out(d, d->out, keep, e);
}

static int held_out(struct decoder *d, struct err *e)
{
    int64_t n = d->n_held;
    d->n_held = 0;
    return n ? samples_out(d, d->held, n, e) : 0;
}

static int frame_out(struct decoder *d, struct err *e)
{
    AVFrame *f = d->frame;
    if (f->sample_rate <= 0 || f->ch_layout.nb_channels <= 0 || f->nb_samples <= 0) return 0;
    int rc = d->rate ? held_out(d, e) : first_frame(d, e);
    if (rc >= 0 && d->damaged) rc = gap_fill(d, e);
    if (rc >= 0) rc = converter_for(d, e);
    if (rc < 0) return rc;
    int64_t need = swr_get_out_samples(d->swr, f->nb_samples);
    if (need > d->room) {
        d->room = need;
        d->out = realloc(d->out, (size_t)(need * d->channels) * sizeof *d->out);
        BUG_IF(!d->out, "no memory for %lld samples", (long long)need);
    }
    uint8_t *out = (uint8_t *)d->out;
    int n = swr_convert(d->swr, &out, (int)d->room, (const uint8_t **)f->extended_data, f->nb_samples);
    if (n < 0) return err_set(e, E_INPUT, "voice %s: its samples cannot be converted; save it as WAV", d->path);
    return samples_hold(d, n, e);
}

// Sends a packet (NULL at the end) and takes all frames. A packet that fails is a hole, not an end.
static int packet_decode(struct decoder *d, const AVPacket *p, struct err *e)
{
    if (avcodec_send_packet(d->codec, p) < 0 && p) d->damaged = true;
    for (;;) {
        int rc = avcodec_receive_frame(d->codec, d->frame);
        if (rc == AVERROR(EAGAIN) || rc == AVERROR_EOF) return 0;
        if (rc < 0) {
            d->damaged = true;
            return 0;
        }
        rc = frame_out(d, e);
        av_frame_unref(d->frame);
        if (rc < 0) return rc;
    }
}

static int packet_take(struct decoder *d, struct err *e)
{
    if (d->packet->stream_index != d->st->index) return 0;
    if (input_encrypted(d->packet))
        return err_set(e, E_INPUT, "voice %s is encrypted (DRM) and cannot be decoded; give a copy without protection",
                       d->path);
    return packet_decode(d, d->packet, e);
}

static int decode_run(struct decoder *d, struct err *e)
{
    int rc = 0;
    while (rc >= 0 && av_read_frame(d->in, d->packet) >= 0) {
        rc = packet_take(d, e);
        av_packet_unref(d->packet);
    }
    if (rc >= 0) rc = packet_decode(d, NULL, e);
    if (rc < 0) return rc;
    if (d->tail->n == 0) return err_set(e, E_INPUT, "voice %s holds no samples; record or copy it again", d->path);
    int64_t n_bad = d->tail->n_bad / d->channels;
    if (d->tail->n_damaged * 20 > d->tail->n || d->tail->n_bad * 100 > d->tail->n * d->channels)
        return err_set(e, E_INPUT, "voice %s is damaged (%.0f %% of it); record or copy it again", d->path,
                       100.0 * (double)(d->tail->n_damaged + n_bad) / (double)d->tail->n);
    return 0;
}

int decode_voice(const char *path, int track, const struct decode_sink *sink, struct decode_tail *tail, struct err *e)
{
    av_log_set_level(AV_LOG_QUIET);
    *tail = (struct decode_tail){0};
    struct decoder d = {.path = path, .track = track, .sink = sink, .tail = tail};
    d.frame = av_frame_alloc();
    d.packet = av_packet_alloc();
    BUG_IF(!d.frame || !d.packet, "no memory for a decoder");
    int rc = input_open(&d, e);
    if (rc >= 0) rc = decode_run(&d, e);
    swr_free(&d.swr);
    av_channel_layout_uninit(&d.layout);
    av_channel_layout_uninit(&d.swr_layout);
    avcodec_free_context(&d.codec);
    avformat_close_input(&d.in);
    av_frame_free(&d.frame);
    av_packet_free(&d.packet);
    free(d.out);
    free(d.held);
    return rc;
}
