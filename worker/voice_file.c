// Voices in a nameless file.
//
// Pieces come in order per speaker, so how much of each there is says all about what is missing. Tracks are read by
// offset; a read that fails cannot be told through the reader's interface, so it is kept and asked for afterwards.
#include "worker/voice_file.h"

#include "proto/spec.h"
#include "proto/voice_hash.h"
#include "worker/scratch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHECK_BYTES = 1 << 16 };

struct speaker_part {
    struct voice_file *file;
    int64_t n_samples;
    int64_t first, have; // bytes: where the run begins, how many came
};

struct voice_file {
    int fd;
    int n_speakers;
    struct speaker_part part[SPEC_SPEAKERS];
    int fault; // errno of the first read that failed
};

static int64_t part_bytes(const struct speaker_part *p) { return p->n_samples * (int64_t)sizeof(float); }

int voice_file_open(struct voice_file **out, const char *dir, int n_speakers, const uint64_t *n_samples, struct err *e)
{
    BUG_IF(n_speakers < 1 || n_speakers > SPEC_SPEAKERS, "%d speakers", n_speakers);
    struct voice_file *v = calloc(1, sizeof *v);
    if (!v) return err_set(e, E_FATAL, "no memory for a voice");
    *v = (struct voice_file){.fd = scratch_open(dir, "a voice", e), .n_speakers = n_speakers};
    if (v->fd < 0) {
        free(v);
        return E_FATAL;
    }
    int64_t first = 0;
    for (int p = 0; p < n_speakers; p++) {
        v->part[p] = (struct speaker_part){.file = v, .n_samples = (int64_t)n_samples[p], .first = first};
        first += part_bytes(&v->part[p]);
    }
    *out = v;
    return 0;
}

void voice_file_close(struct voice_file **pv)
{
    if (!*pv) return;
    close((*pv)->fd);
    free(*pv);
    *pv = NULL;
}

int voice_file_put(struct voice_file *v, int speaker, int64_t offset_bytes, const void *bytes, size_t n, struct err *e)
{
    if (speaker < 0 || speaker >= v->n_speakers)
        return err_set(e, E_INPUT, "a piece of speaker %d's voice, of %d speakers", speaker + 1, v->n_speakers);
    struct speaker_part *p = &v->part[speaker];
    if (offset_bytes != p->have || (int64_t)n > part_bytes(p) - p->have)
        return err_set(e, E_INPUT,
                       "a piece of %zu bytes of speaker %d's voice at byte %lld; expected at %lld of %lld in all", n,
                       speaker + 1, (long long)offset_bytes, (long long)p->have, (long long)part_bytes(p));
    const char *from = bytes;
    while (n > 0) {
        ssize_t wrote = pwrite(v->fd, from, n, p->first + p->have);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0)
            return err_set(e, E_FATAL,
                           "cannot keep the voice on disk: %s; free some, or name another folder with --cache",
                           strerror(errno));
        from += wrote;
        n -= (size_t)wrote;
        p->have += wrote;
    }
    return 0;
}

bool voice_file_is_whole(const struct voice_file *v)
{
    for (int p = 0; p < v->n_speakers; p++)
        if (v->part[p].have != part_bytes(&v->part[p])) return false;
    return true;
}

static bool read_whole(int fd, void *dst, size_t n, int64_t at)
{
    char *to = dst;
    while (n > 0) {
        ssize_t got = pread(fd, to, n, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to += got;
        at += got;
        n -= (size_t)got;
    }
    return true;
}

int voice_file_check(const struct voice_file *v, const uint8_t hash[HASH_BYTES], struct err *e)
{
    struct hash h;
    uint8_t buf[CHECK_BYTES], found[HASH_BYTES];
    uint64_t n_samples[SPEC_SPEAKERS] = {0};
    int64_t end = 0;
    for (int p = 0; p < v->n_speakers; p++) {
        n_samples[p] = (uint64_t)v->part[p].n_samples;
        end += part_bytes(&v->part[p]);
    }
    voice_hash_init(&h, v->n_speakers, n_samples);
    for (int64_t at = 0; at < end; at += CHECK_BYTES) {
        size_t n = end - at < CHECK_BYTES ? (size_t)(end - at) : CHECK_BYTES;
        if (!read_whole(v->fd, buf, n, at))
            return err_set(e, E_FATAL, "cannot read the voice back from disk; look at the disk of --cache");
        hash_update(&h, buf, n);
    }
    hash_final(&h, found);
    if (memcmp(found, hash, HASH_BYTES) == 0) return 0;
    return err_set(e, E_INPUT, "the voice that arrived is not the one that was announced: its hash differs");
}

static void track_read(void *ctx, float *dst, int64_t from, int64_t n)
{
    struct speaker_part *p = ctx;
    struct voice_file *v = p->file;
    int64_t to = from + n, first = from > 0 ? from : 0, last = to < p->n_samples ? to : p->n_samples;
    memset(dst, 0, (size_t)n * sizeof *dst);
    if (first >= last || v->fault) return;
    size_t bytes = (size_t)(last - first) * sizeof *dst;
    if (!read_whole(v->fd, dst + (first - from), bytes, p->first + first * (int64_t)sizeof *dst))
        v->fault = errno ? errno : EIO;
}

struct track voice_file_track(struct voice_file *v, int speaker)
{
    return (struct track){.read = track_read, .ctx = &v->part[speaker], .n_samples = v->part[speaker].n_samples};
}

int voice_file_fault(const struct voice_file *v, struct err *e)
{
    return v->fault ? err_set(e, E_FATAL, "cannot read the voice back from disk: %s; look at the disk of --cache",
                              strerror(v->fault))
                    : 0;
}
