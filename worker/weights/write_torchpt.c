// PyTorch checkpoints: a pickle that names tensors, and one stored zip member per tensor's bytes.
//
// data.pkl is a protocol 2 pickle. Each value is
//   torch._utils._rebuild_tensor_v2(persistent("storage", torch.FloatStorage, "0", "cpu", count), 0, size, stride,
//                                   False, OrderedDict())
// and "0" names the member <root>/data/0. Every tensor has a storage of its own, contiguous. No memo is used: a pickle
// may repeat itself, and the file stays simple.
#include "worker/weights/write_torchpt.h"

#include "worker/weights/zip_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct torchpt_out {
    struct zip_out *zip;
    const struct tensor_head *head;
    int64_t n, i; // tensor i is the next to begin, or open when zip_left >= 0
    char root[256];
};

// ---- pickle

static const char *storage_class(enum dtype t)
{
    switch (t) {
    case DT_F32:
        return "FloatStorage";
    case DT_F16:
        return "HalfStorage";
    case DT_BF16:
        return "BFloat16Storage";
    case DT_F64:
        return "DoubleStorage";
    case DT_I64:
        return "LongStorage";
    case DT_I32:
        return "IntStorage";
    case DT_I16:
        return "ShortStorage";
    case DT_I8:
        return "CharStorage";
    case DT_U8:
        return "ByteStorage";
    case DT_BOOL:
        return "BoolStorage";
    default:
        BUG("PyTorch has no storage class for dtype %d", (int)t);
    }
}

static void pickle_text(FILE *p, const char *s)
{
    size_t n = strlen(s);
    putc('X', p); // BINUNICODE
    for (int i = 0; i < 4; i++) putc((int)(n >> 8 * i & 255), p);
    fwrite(s, 1, n, p);
}

static void pickle_int(FILE *p, int64_t v)
{
    int size = v < 256 ? 1 : v < 65536 ? 2 : v <= INT32_MAX ? 4 : 8;
    BUG_IF(v < 0, "a negative number in a checkpoint");
    fputs(size == 1 ? "K" : size == 2 ? "M" : size == 4 ? "J" : "\x8a\x08", p); // BININT1, BININT2, BININT, LONG1
    for (int i = 0; i < size; i++) putc((int)(v >> 8 * i & 255), p);
}

static void pickle_ints(FILE *p, int n, const int64_t *v)
{
    putc('(', p); // MARK
    for (int i = 0; i < n; i++) pickle_int(p, v[i]);
    putc('t', p); // TUPLE
}

static void pickle_tensor(FILE *p, const struct tensor_head *h, int64_t key)
{
    char text[32];
    int64_t stride[TENSOR_DIMS], count = 1;
    for (int i = h->n - 1; i >= 0; i--) {
        stride[i] = count;
        count *= h->shape[i] > 1 ? h->shape[i] : 1;
    }
    fputs("ctorch._utils\n_rebuild_tensor_v2\n((", p); // GLOBAL; MARK of the arguments; MARK of the storage
    pickle_text(p, "storage");
    fprintf(p, "ctorch\n%s\n", storage_class(h->dtype));
    snprintf(text, sizeof text, "%lld", (long long)key);
    pickle_text(p, text);
    pickle_text(p, "cpu");
    pickle_int(p, head_bytes(h) / dtype_size(h->dtype));
    fputs("tQ", p); // TUPLE, BINPERSID
    pickle_int(p, 0);
    pickle_ints(p, h->n, h->shape);
    pickle_ints(p, h->n, stride);
    fputs("\x89"
          "ccollections\nOrderedDict\n)R"
          "tR",
          p); // NEWFALSE; OrderedDict(); TUPLE, REDUCE
}

static void pickle_dict(FILE *p, bool ordered, const struct tensor_head *heads, int64_t n)
{
    fputs("\x80\x02", p); // PROTO 2
    fputs(ordered ? "ccollections\nOrderedDict\n)R(" : "}(", p);
    for (int64_t i = 0; i < n; i++) {
        pickle_text(p, heads[i].name);
        pickle_tensor(p, &heads[i], i);
    }
    fputs("u.", p); // SETITEMS, STOP
}

// ---- archive

static int put_member(struct torchpt_out *t, const char *tail, const char *bytes, size_t n, struct err *e)
{
    char name[300];
    snprintf(name, sizeof name, "%s/%s", t->root, tail);
    return zip_member_put(t->zip, name, bytes, n, e);
}

static int put_pickle(struct torchpt_out *t, bool ordered, struct err *e)
{
    char *text = NULL;
    size_t size = 0;
    FILE *p = open_memstream(&text, &size);
    BUG_IF(!p, "no memory for a checkpoint's directory");
    pickle_dict(p, ordered, t->head, t->n);
    BUG_IF(fclose(p) != 0, "no memory for a checkpoint's directory");
    int rc = put_member(t, "data.pkl", text, size, e);
    free(text);
    return rc;
}

int torchpt_create(struct torchpt_out **out, const char *path, const char *root, bool ordered,
                   const struct tensor_head *heads, int64_t n, struct err *e)
{
    struct torchpt_out *t = calloc(1, sizeof *t);
    BUG_IF(!t, "no memory for a file handle");
    *t = (struct torchpt_out){.head = heads, .n = n};
    snprintf(t->root, sizeof t->root, "%s", root);
    int rc = zip_create(&t->zip, path, e);
    if (rc == 0) rc = put_pickle(t, ordered, e);
    if (rc == 0) rc = put_member(t, "byteorder", "little", 6, e);
    if (rc < 0)
        torchpt_free(&t);
    else
        *out = t;
    return rc;
}

static int begin_tensor(struct torchpt_out *t, struct err *e)
{
    char name[300];
    snprintf(name, sizeof name, "%s/data/%lld", t->root, (long long)t->i);
    return zip_begin(t->zip, name, head_bytes(&t->head[t->i]), e);
}

// Ends tensors that are full and begins those that hold nothing, so that an open one wants bytes.
static int advance(struct torchpt_out *t, struct err *e)
{
    int rc = 0;
    while (rc == 0 && t->i < t->n && zip_left(t->zip) <= 0) {
        if (zip_left(t->zip) < 0)
            rc = begin_tensor(t, e);
        else {
            rc = zip_end(t->zip, e);
            t->i++;
        }
    }
    return rc;
}

int torchpt_put(struct torchpt_out *t, const void *bytes, size_t n, struct err *e)
{
    const uint8_t *p = bytes;
    int rc = advance(t, e);
    while (rc == 0 && n > 0) {
        BUG_IF(t->i == t->n, "a checkpoint gets more bytes than its tensors have");
        int64_t left = zip_left(t->zip);
        size_t m = (int64_t)n < left ? n : (size_t)left;
        rc = zip_put(t->zip, p, m, e);
        p += m;
        n -= m;
        if (rc == 0) rc = advance(t, e);
    }
    return rc;
}

int torchpt_close(struct torchpt_out **pt, struct err *e)
{
    struct torchpt_out *t = *pt;
    int rc = advance(t, e);
    BUG_IF(rc == 0 && t->i < t->n, "a checkpoint is closed before %s is full", t->head[t->i].name);
    if (rc == 0) rc = put_member(t, "version", "3\n", 2, e);
    if (rc == 0) rc = zip_close(&t->zip, e);
    torchpt_free(pt);
    return rc;
}

void torchpt_free(struct torchpt_out **pt)
{
    if (!*pt) return;
    zip_out_free(&(*pt)->zip);
    free(*pt);
    *pt = NULL;
}
