// Positions are kept per demuxer and reads are pread, so several of them share one descriptor without knowing of each
// other. No name is passed on: libavformat would let an ending outweigh the content.
#include "daemon/media/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 16 };

struct reader {
    int fd;
    int64_t at, size;
};

int input_check(const char *word, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return err_set(e, E_INPUT, "%s %s: %s; check the name", word, path,
                       errno == ENOENT ? "there is no such file" : strerror(errno));
    if (S_ISDIR(st.st_mode)) return err_set(e, E_INPUT, "%s %s is a folder; name a file in it", word, path);
    if (!S_ISREG(st.st_mode)) return err_set(e, E_INPUT, "%s %s is not a file; name a file", word, path);
    if (st.st_size == 0) return err_set(e, E_INPUT, "%s %s is empty (0 bytes); make or copy it again", word, path);
    return 0;
}

int input_fd(const char *word, const char *path, struct err *e)
{
    int rc = input_check(word, path, e);
    if (rc < 0) return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) return fd;
    return err_set(e, E_INPUT, "%s %s: cannot read it: %s; %s", word, path, strerror(errno),
                   errno == EACCES ? "give yourself the right to read it (chmod)" : "copy it again");
}

static int reader_read(void *ctx, uint8_t *data, int n)
{
    struct reader *r = ctx;
    ssize_t got;
    do got = pread(r->fd, data, (size_t)n, (off_t)r->at);
    while (got < 0 && errno == EINTR);
    if (got < 0) return AVERROR(errno);
    if (got == 0) return AVERROR_EOF;
    r->at += got;
    return (int)got;
}

static int64_t reader_seek(void *ctx, int64_t offset, int whence)
{
    struct reader *r = ctx;
    whence &= ~AVSEEK_FORCE;
    if (whence == AVSEEK_SIZE) return r->size;
    int64_t at = whence == SEEK_SET ? offset : whence == SEEK_CUR ? r->at + offset : r->size + offset;
    if (at < 0) return AVERROR(EINVAL);
    return r->at = at;
}

static void pb_free(AVIOContext *pb)
{
    if (!pb) return;
    free(pb->opaque);
    av_freep(&pb->buffer);
    avio_context_free(&pb);
}

int input_demux(AVFormatContext **out, int fd, const char *formats)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return AVERROR(errno);
    struct reader *r = malloc(sizeof *r);
    BUG_IF(!r, "no memory for a reader");
    *r = (struct reader){.fd = fd, .size = st.st_size};
    AVFormatContext *in = avformat_alloc_context();
    uint8_t *buffer = av_malloc(PIECE);
    AVIOContext *pb = avio_alloc_context(buffer, PIECE, 0, r, reader_read, NULL, reader_seek);
    BUG_IF(!in || !buffer || !pb, "no memory for a reader");
    in->pb = pb;
    AVDictionary *o = NULL;
    av_dict_set(&o, "format_whitelist", formats, 0);
    av_dict_set(&o, "protocol_whitelist", "none", 0); // formats that open other files find none
    int rc = avformat_open_input(&in, "", NULL, &o);
    av_dict_free(&o);
    if (rc < 0) {
        pb_free(pb);
        return rc;
    }
    rc = avformat_find_stream_info(in, NULL);
    *out = in;
    if (rc < 0) input_close(out);
    return rc;
}

bool input_encrypted(const AVPacket *p)
{
    return av_packet_get_side_data(p, AV_PKT_DATA_ENCRYPTION_INFO, NULL) != NULL;
}

void input_close(AVFormatContext **in)
{
    if (!*in) return;
    AVIOContext *pb = (*in)->pb;
    avformat_close_input(in);
    pb_free(pb);
}
