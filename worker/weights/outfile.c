// A file that grows from front to back.
//
// stdio with a large buffer is all it takes; what is added is the running size (a zip's directory is made of offsets)
// and sentences. A full disk shows only when the buffer is flushed, so closing can fail as well.
#include "worker/weights/outfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER = 1 << 20 };

struct outfile {
    FILE *stream;
    char *path;
    int64_t size;
};

int64_t head_bytes(const struct tensor_head *h)
{
    int64_t n = dtype_size(h->dtype);
    for (int i = 0; i < h->n; i++) n *= h->shape[i];
    return n;
}

int outfile_create(struct outfile **out, const char *path, struct err *e)
{
    struct outfile *f = calloc(1, sizeof *f);
    BUG_IF(!f, "no memory for a file handle");
    f->path = strdup(path);
    BUG_IF(!f->path, "no memory for a path");
    f->stream = fopen(path, "wbe");
    if (!f->stream) {
        int rc = err_set(e, E_INPUT, "cannot write %s: %s", path, strerror(errno));
        outfile_free(&f);
        return rc;
    }
    setvbuf(f->stream, NULL, _IOFBF, BUFFER);
    *out = f;
    return 0;
}

int outfile_put(struct outfile *f, const void *bytes, size_t n, struct err *e)
{
    if (n > 0 && fwrite(bytes, 1, n, f->stream) != n)
        return err_set(e, E_INPUT, "cannot write %s beyond %lld bytes: %s", f->path, (long long)f->size,
                       strerror(errno));
    f->size += (int64_t)n;
    return 0;
}

int64_t outfile_size(const struct outfile *f) { return f->size; }
const char *outfile_path(const struct outfile *f) { return f->path; }

int outfile_close(struct outfile **pf, struct err *e)
{
    struct outfile *f = *pf;
    int rc = 0;
    if (fclose(f->stream) != 0) rc = err_set(e, E_INPUT, "cannot finish %s: %s", f->path, strerror(errno));
    f->stream = NULL;
    outfile_free(pf);
    return rc;
}

void outfile_free(struct outfile **pf)
{
    struct outfile *f = *pf;
    if (!f) return;
    if (f->stream) fclose(f->stream);
    free(f->path);
    free(f);
    *pf = NULL;
}
