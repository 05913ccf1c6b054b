// The muxer: one libavformat run over the whole film, one AAC run over the whole voice; pictures come as the pieces
// that were made of the segments (piece.h), in the film's order, whatever the order in which they were made.
//
// Fragments: every IDR closes the fragment before it. `delay_moov` holds the header back until both tracks have a
// packet: only then are the edit lists known that hide the AAC encoder's priming and the reordering of B pictures. So
// the sound runs a little ahead of the picture (LEAD_SAMPLES), more than the AAC encoder swallows before its first
// packet.
//
// Trap: decode times. x264 says them per run, and a run shorter than its own delay says them differently, so they would
// go backwards at a seam. They are counted here instead: the i-th packet of a segment that starts at frame s decodes at
// s + i - delay, delay being the same for all runs. Pictures never leave the encoder later than that allows.
#include "daemon/media/mux.h"

#include "daemon/media/growing.h"
#include "daemon/media/remux.h"

#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEAD_SAMPLES = 4096 };

struct mux {
    struct mux_options o; // the path is ours
    struct growing *growing;
    AVFormatContext *file; // its pb is growing's
    AVStream *video, *sound;
    AVCodecContext *aenc;
    AVFrame *samples;
    AVPacket *packet;
    float *interleaved;   // [frame_size, channels]
    int delay;            // pictures x264 may hold back to reorder
    int64_t next;         // frame expected
    int64_t n_read;       // samples of the voice that went to the encoder
    bool sound_ended;     // and its last packet was asked for
    bool replaying;       // the sound's packets are in the file already
    int64_t sound_shift;  // of a resumed run's times of sound; see resume()
    bool header, trailer; // written
};

static const int aac_rates[] = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000};

int mux_audio_rate(int rate)
{
    for (size_t i = 0; i < sizeof aac_rates / sizeof *aac_rates; i++)
        if (aac_rates[i] == rate) return rate;
    return 48000;
}

int mux_audio_channels(int channels) { return (channels >= 1 && channels <= 6) || channels == 8 ? channels : 2; }

int mux_check_path(const char *final_path, struct err *e)
{
    const char *dot = strrchr(final_path, '.');
    if (dot && (!strcasecmp(dot, ".mp4") || !strcasecmp(dot, ".mov"))) return 0;
    return err_set(e, E_INPUT, "cannot write %s: the output must end in .mp4 or .mov", final_path);
}

static int mux_fail(const struct mux *m, int rc, const char *what, struct err *e)
{
    char why[AV_ERROR_MAX_STRING_SIZE];
    av_strerror(rc, why, sizeof why);
    if (rc == AVERROR(ENOSPC)) snprintf(why, sizeof why, "no space left on the disk; free some");
    return err_set(e, E_FATAL, "%s: %s: %s", m->o.path, what, why);
}

// ---- sound

// The sound's packets to the file.
static int packets_write(struct mux *m, struct err *e)
{
    for (int rc; (rc = avcodec_receive_packet(m->aenc, m->packet)) != AVERROR(EAGAIN) && rc != AVERROR_EOF;) {
        if (rc < 0) return mux_fail(m, rc, "an encoder stopped", e);
        if (m->o.resume_bytes > 0) {
            if (m->replaying && m->sound_shift == INT64_MAX) m->sound_shift = -m->packet->pts; // the first one
            m->packet->pts += m->sound_shift;
            m->packet->dts += m->sound_shift;
        }
        if (m->replaying) {
            av_packet_unref(m->packet);
            continue;
        }
        m->packet->stream_index = m->sound->index;
        av_packet_rescale_ts(m->packet, m->aenc->time_base, m->sound->time_base);
        rc = av_write_frame(m->file, m->packet);
        av_packet_unref(m->packet);
        if (rc < 0) return mux_fail(m, rc, "cannot write", e);
    }
    return 0;
}

static int64_t bit_rate(int rate, int channels)
{
    int64_t wanted = channels == 1 ? 128000 : 96000 * (int64_t)channels;
    int64_t most = 6144 * (int64_t)channels * rate / 1024; // what the format can hold
    return wanted < most ? wanted : most;
}

// Layouts of the AAC standard, by number of channels.
static AVChannelLayout aac_layout(int channels)
{
    switch (channels) {
    case 1:
        return (AVChannelLayout)AV_CHANNEL_LAYOUT_MONO;
    case 2:
        return (AVChannelLayout)AV_CHANNEL_LAYOUT_STEREO;
    case 3:
        return (AVChannelLayout)AV_CHANNEL_LAYOUT_SURROUND;
    case 4:
        return (AVChannelLayout)AV_CHANNEL_LAYOUT_4POINT0;
    case 5:
        return (AVChannelLayout)AV_CHANNEL_LAYOUT_5POINT0_BACK;
    case 6:
        return (AVChannelLayout)AV_CHANNEL_LAYOUT_5POINT1_BACK;
    default:
        return (AVChannelLayout)AV_CHANNEL_LAYOUT_7POINT1;
    }
}

static int sound_open(struct mux *m, struct err *e)
{
    const AVCodec *aac = avcodec_find_encoder(AV_CODEC_ID_AAC);
    if (!aac) return err_set(e, E_FATAL, "this FFmpeg has no AAC encoder; install a full libavcodec");
    BUG_IF(mux_audio_rate(m->o.rate) != m->o.rate || mux_audio_channels(m->o.channels) != m->o.channels,
           "sound of %d channels at %d Hz for AAC", m->o.channels, m->o.rate);
    AVCodecContext *c = m->aenc = avcodec_alloc_context3(aac);
    BUG_IF(!c, "no memory for an encoder");
    c->sample_fmt = AV_SAMPLE_FMT_FLTP;
    c->sample_rate = m->o.rate;
    c->ch_layout = aac_layout(m->o.channels);
    c->bit_rate = bit_rate(m->o.rate, m->o.channels);
    c->time_base = (AVRational){1, m->o.rate};
    c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
    int rc = avcodec_open2(c, aac, NULL);
    if (rc < 0) return mux_fail(m, rc, "cannot start the AAC encoder", e);
    m->sound = avformat_new_stream(m->file, NULL);
    BUG_IF(!m->sound || avcodec_parameters_from_context(m->sound->codecpar, c) < 0, "no memory for a track");
    m->sound->time_base = c->time_base;
    m->samples = av_frame_alloc();
    m->interleaved = malloc((size_t)c->frame_size * (size_t)m->o.channels * sizeof(float));
    BUG_IF(!m->samples || !m->interleaved, "no memory for sound");
    m->samples->format = c->sample_fmt;
    m->samples->sample_rate = c->sample_rate;
    m->samples->nb_samples = c->frame_size;
    m->samples->ch_layout = c->ch_layout;
    BUG_IF(av_frame_get_buffer(m->samples, 0) < 0, "no memory for sound");
    return 0;
}

static int sound_encode(struct mux *m, int n, struct err *e)
{
    int channels = m->o.channels, rc = m->o.read_audio(m->o.audio, m->interleaved, m->n_read, n, e);
    if (rc < 0) return rc;
    BUG_IF(av_frame_make_writable(m->samples) < 0, "no memory for sound");
    m->samples->nb_samples = n;
    m->samples->pts = m->n_read;
    for (int c = 0; c < channels; c++) {
        float *plane = (float *)m->samples->extended_data[c];
        for (int i = 0; i < n; i++) plane[i] = m->interleaved[i * channels + c];
    }
    rc = avcodec_send_frame(m->aenc, m->samples);
    if (rc < 0) return mux_fail(m, rc, "cannot encode the voice", e);
    m->n_read += n;
    return packets_write(m, e);
}

// The voice up to the end of `frame` and a little more; INT64_MAX: all of it.
static int sound_until(struct mux *m, int64_t frame, struct err *e)
{
    if (!m->sound || m->sound_ended) return 0;
    int64_t end = m->o.n_audio;
    if (frame < m->o.n_frames) {
        int64_t want = (frame + 1) * m->o.rate / m->o.picture.fps + LEAD_SAMPLES;
        if (want < end) end = want;
    }
    while (m->n_read < end) {
        int64_t left = m->o.n_audio - m->n_read;
        int rc = sound_encode(m, left < m->aenc->frame_size ? (int)left : m->aenc->frame_size, e);
        if (rc < 0) return rc;
    }
    if (m->n_read < m->o.n_audio) return 0;
    m->sound_ended = true;
    int rc = avcodec_send_frame(m->aenc, NULL);
    return rc < 0 ? mux_fail(m, rc, "cannot end the voice", e) : packets_write(m, e);
}

// ---- pictures

static int picture_write(struct mux *m, const struct piece_packet *k, int64_t i, struct err *e)
{
    int rc = sound_until(m, m->next + i, e);
    if (rc < 0) return rc;
    if (av_new_packet(m->packet, (int)k->n) < 0) BUG("no memory for a packet");
    memcpy(m->packet->data, k->bytes, k->n);
    m->packet->pts = m->next + k->pts;
    m->packet->dts = m->next + i - m->delay;
    m->packet->duration = 1;
    m->packet->flags = k->key ? AV_PKT_FLAG_KEY : 0;
    m->packet->stream_index = m->video->index;
    av_packet_rescale_ts(m->packet, (AVRational){1, m->o.picture.fps}, m->video->time_base);
    rc = m->packet->pts < m->packet->dts ? AVERROR_INVALIDDATA : av_write_frame(m->file, m->packet);
    av_packet_unref(m->packet);
    return rc < 0 ? mux_fail(m, rc, "cannot write", e) : 0;
}

int mux_piece(struct mux *m, const struct piece *p, struct err *e)
{
    int64_t n = piece_frames(p);
    if (m->next + n > m->o.n_frames)
        return err_set(e, E_FATAL, "%s: %lld frames more than the %lld it was to have", m->o.path,
                       (long long)(m->next + n - m->o.n_frames), (long long)m->o.n_frames);
    int rc = 0;
    for (int64_t i = 0; i < n && rc >= 0; i++) {
        struct piece_packet k = piece_at(p, i);
        rc = picture_write(m, &k, i, e);
    }
    if (rc < 0 || n == 0) return rc;
    m->next += n;
    // The open fragment. The film's first flush writes the header alone, hence two.
    for (int i = 0; i < 2 && rc >= 0; i++) rc = av_write_frame(m->file, NULL);
    if (rc >= 0) avio_flush(m->file->pb);
    return rc < 0 || m->file->pb->error < 0 ? mux_fail(m, rc < 0 ? rc : m->file->pb->error, "cannot write", e) : 0;
}

int mux_sync(struct mux *m, struct err *e)
{
    int rc = growing_sync(m->growing);
    return rc < 0 ? mux_fail(m, rc, "cannot sync", e) : 0;
}

int64_t mux_frames(const struct mux *m) { return m->next; }
int64_t mux_bytes(const struct mux *m) { return growing_bytes(m->growing); }

// ---- the file

static int header_write(struct mux *m, struct err *e)
{
    m->video = avformat_new_stream(m->file, NULL);
    BUG_IF(!m->video, "no memory for a track");
    AVCodecContext *like = NULL; // what all pieces are made by
    int rc = piece_encoder(&like, &m->o.picture, e);
    if (rc < 0) return rc;
    BUG_IF(avcodec_parameters_from_context(m->video->codecpar, like) < 0, "no memory for a track");
    m->delay = like->has_b_frames;
    m->video->time_base = like->time_base;
    m->video->avg_frame_rate = like->framerate;
    avcodec_free_context(&like);
    if (m->o.n_audio > 0 && (rc = sound_open(m, e)) < 0) return rc;
    rc = growing_open(&m->growing, m->o.path, m->o.resume_bytes, e);
    if (rc < 0) return rc;
    m->file->pb = growing_io(m->growing);
    AVDictionary *d = NULL;
    // no index of fragments at the end: a run that was resumed would know only its own
    av_dict_set(&d, "movflags", "frag_keyframe+empty_moov+delay_moov+default_base_moof+skip_trailer", 0);
    if (m->o.resume_bytes > 0) {
        av_dict_set(&d, "movflags", "+frag_discont", AV_DICT_APPEND);
        av_dict_set_int(&d, "fragment_index", growing_fragments(m->growing) + 1, 0);
    }
    rc = avformat_write_header(m->file, &d);
    av_dict_free(&d);
    if (rc < 0) return mux_fail(m, rc, "cannot write", e);
    m->header = true;
    return 0;
}

// Goes on where a run before was cut off: pictures at frame `resume_frames`, with the encoders of that moment.
//
// Pictures come encoded. The sound's encoder is one for the whole film: it hears the voice from its beginning again,
// and its packets up to here are dropped. `frag_discont` makes the first packet of each track say where its fragment
// begins, for a track that began at 0; the sound began before that, by its priming, hence sound_shift.
static int resume(struct mux *m, struct err *e)
{
    if (m->o.resume_bytes == 0) return 0;
    m->next = m->o.resume_frames;
    m->replaying = true;
    m->sound_shift = INT64_MAX;
    int rc = sound_until(m, m->next - 1, e);
    m->replaying = false;
    return rc;
}

int mux_open(struct mux **out, const struct mux_options *o, struct err *e)
{
    const struct piece_options *k = &o->picture;
    BUG_IF(k->w <= 0 || k->h <= 0 || k->w % 2 || k->h % 2, "a film of %dx%d", k->w, k->h);
    av_log_set_level(AV_LOG_QUIET); // what goes wrong comes back as a code
    struct mux *m = calloc(1, sizeof *m);
    BUG_IF(!m, "no memory for a muxer");
    m->o = *o;
    m->o.path = strdup(o->path);
    if (m->o.picture.fps == 0) m->o.picture.fps = PIECE_FPS;
    char url[4200];
    snprintf(url, sizeof url, "file:%s", o->path); // a name with a colon is a name
    m->packet = av_packet_alloc();
    BUG_IF(!m->o.path || !m->packet, "no memory for a muxer");
    BUG_IF(avformat_alloc_output_context2(&m->file, NULL, "mp4", url) < 0, "no mp4 muxer in this FFmpeg");
    m->file->flags |= AVFMT_FLAG_BITEXACT;
    int rc = header_write(m, e);
    m->o.picture.preset = NULL; // the caller's
    if (rc >= 0) rc = resume(m, e);
    if (rc < 0) {
        mux_abort(m, o->resume_bytes > 0);
        return rc;
    }
    *out = m;
    return 0;
}

static int trailer_write(struct mux *m, struct err *e)
{
    int rc = m->next == m->o.n_frames ? sound_until(m, INT64_MAX, e) : 0;
    if (rc < 0) return rc;
    m->trailer = true;
    rc = av_write_trailer(m->file);
    m->file->pb = NULL;
    int closed = growing_close(&m->growing);
    if (rc >= 0) rc = closed;
    return rc < 0 ? mux_fail(m, rc, "cannot write", e) : 0;
}

static void mux_free(struct mux *m)
{
    avcodec_free_context(&m->aenc);
    avformat_free_context(m->file);
    growing_close(&m->growing);
    av_frame_free(&m->samples);
    av_packet_free(&m->packet);
    free(m->interleaved);
    free((char *)m->o.path);
    free(m);
}

int mux_finish(struct mux *m, const char *final_path, struct err *e)
{
    int rc = mux_check_path(final_path, e);
    if (rc < 0) return rc;
    if (m->next != m->o.n_frames)
        return err_set(e, E_FATAL, "%s has %lld of %lld frames", m->o.path, (long long)m->next,
                       (long long)m->o.n_frames);
    if (!m->trailer && (rc = trailer_write(m, e)) < 0) return rc;
    char whole[4200];
    snprintf(whole, sizeof whole, "%s.whole", m->o.path);
    const char *container = strcasecmp(strrchr(final_path, '.'), ".mov") ? "mp4" : "mov";
    rc = remux_faststart(m->o.path, whole, container, m->o.n_frames, m->o.n_audio, e);
    if (rc >= 0 && rename(whole, final_path) < 0)
        rc = err_set(e, E_FATAL, "cannot name the finished film %s: %s; mend that, then give the same command again",
                     final_path, strerror(errno));
    int synced = rc < 0 ? 0 : growing_sync_folder(final_path); // before the growing file goes
    if (synced < 0) return mux_fail(m, synced, "cannot sync its folder", e);
    if (rc < 0) {
        unlink(whole);
        return rc;
    }
    unlink(m->o.path);
    mux_free(m);
    return 0;
}

void mux_abort(struct mux *m, bool keep)
{
    if (!m) return;
    if (m->header && !m->trailer && keep) trailer_write(m, NULL);
    if (!keep && m->file->pb) unlink(m->o.path);
    if (!keep && m->trailer) unlink(m->o.path);
    mux_free(m);
}
