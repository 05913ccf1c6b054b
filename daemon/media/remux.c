// Fragments to one index: packets are copied, one at a time, so the pictures and the sound stay what they are.
//
// libavformat's faststart writes the media first and moves it up when the index is known, within the file. The demuxer
// gives times with the edit lists applied (the voice's first packet lies before zero), and the muxer writes them anew,
// so the priming stays hidden. It gives the last packet of the voice its full frame, though, padding
// and all: the voice's length is known here, and the packet is cut to it. The count of pictures is checked: a short
// film is never delivered.
#include "daemon/media/remux.h"

#include <errno.h>
#include <fcntl.h>
#include <libavformat/avformat.h>
#include <string.h>
#include <unistd.h>

static int remux_fail(const char *path, int rc, const char *what, struct err *e)
{
    char why[AV_ERROR_MAX_STRING_SIZE];
    av_strerror(rc, why, sizeof why);
    if (rc == AVERROR(ENOSPC)) snprintf(why, sizeof why, "no space left on the disk; free some");
    return err_set(e, E_FATAL, "%s: %s: %s", path, what, why);
}

// The sound's rate as the unit of the movie's own times, so that edit lists are exact in samples. 25 fps divides all.
static int movie_timescale(const AVFormatContext *in)
{
    for (unsigned i = 0; i < in->nb_streams; i++)
        if (in->streams[i]->codecpar->codec_type == AVMEDIA_TYPE_AUDIO) return in->streams[i]->codecpar->sample_rate;
    return 12800;
}

static int remux_header(AVFormatContext *in, AVFormatContext *out)
{
    for (unsigned i = 0; i < in->nb_streams; i++) {
        AVStream *st = avformat_new_stream(out, NULL);
        if (!st || avcodec_parameters_copy(st->codecpar, in->streams[i]->codecpar) < 0) return AVERROR(ENOMEM);
        st->codecpar->codec_tag = 0;
        st->time_base = in->streams[i]->time_base;
        st->avg_frame_rate = in->streams[i]->avg_frame_rate;
        st->sample_aspect_ratio = in->streams[i]->sample_aspect_ratio;
    }
    AVDictionary *d = NULL;
    av_dict_set(&d, "movflags", "faststart", 0);
    av_dict_set_int(&d, "movie_timescale", movie_timescale(in), 0);
    int rc = avformat_write_header(out, &d);
    av_dict_free(&d);
    return rc;
}

static int remux_packets(AVFormatContext *in, AVFormatContext *out, int64_t n_audio, int64_t *n_pictures)
{
    AVPacket *p = av_packet_alloc();
    int rc = p ? 0 : AVERROR(ENOMEM);
    while (rc >= 0 && (rc = av_read_frame(in, p)) >= 0) {
        const AVStream *from = in->streams[p->stream_index], *to = out->streams[p->stream_index];
        const AVCodecParameters *c = from->codecpar;
        *n_pictures += c->codec_type == AVMEDIA_TYPE_VIDEO;
        if (c->codec_type == AVMEDIA_TYPE_AUDIO) {
            int64_t left = av_rescale_q(n_audio, (AVRational){1, c->sample_rate}, from->time_base) - p->pts;
            if (left < p->duration) p->duration = left;
        }
        av_packet_rescale_ts(p, from->time_base, to->time_base);
        p->pos = -1;
        rc = av_interleaved_write_frame(out, p);
    }
    av_packet_free(&p);
    return rc == AVERROR_EOF ? av_write_trailer(out) : rc;
}

static int sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return AVERROR(errno);
    int rc = fsync(fd) < 0 ? AVERROR(errno) : 0;
    close(fd);
    return rc;
}

int remux_faststart(const char *from, const char *to, const char *container, int64_t n_frames, int64_t n_audio,
                    struct err *e)
{
    char source[4200], target[4200];
    snprintf(source, sizeof source, "file:%s", from);
    snprintf(target, sizeof target, "file:%s", to);
    AVFormatContext *in = NULL, *out = NULL;
    int64_t n_pictures = 0;
    int rc = avformat_open_input(&in, source, NULL, NULL);
    if (rc >= 0) rc = avformat_find_stream_info(in, NULL);
    if (rc < 0) {
        remux_fail(from, rc, "cannot read back", e);
        goto out;
    }
    rc = avformat_alloc_output_context2(&out, NULL, container, target);
    if (rc >= 0) out->flags |= AVFMT_FLAG_BITEXACT;
    if (rc >= 0) rc = avio_open(&out->pb, target, AVIO_FLAG_WRITE);
    if (rc >= 0) rc = remux_header(in, out);
    if (rc >= 0) rc = remux_packets(in, out, n_audio, &n_pictures);
    if (out && out->pb) {
        int closed = avio_closep(&out->pb);
        if (rc >= 0) rc = closed;
    }
    if (rc >= 0) rc = sync_file(to);
    if (rc < 0)
        remux_fail(to, rc, "cannot write", e);
    else if (n_pictures != n_frames)
        rc = err_set(e, E_FATAL, "%s has %lld pictures where %lld were written", from, (long long)n_pictures,
                     (long long)n_frames);
out:
    avformat_free_context(out);
    avformat_close_input(&in);
    return rc < 0 ? E_FATAL : 0;
}
