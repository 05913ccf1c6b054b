// Blocks by name.
//
//   file's tensor, bytes [from, to) of it  -> rounded to the model's dtype -> as it lies in the block's run
//
// The traps. A share is cut at any byte, so a tensor is read in part, and most of a file is never touched by this rank;
// of a packed one the rows are read of which the share's pieces are made. What does not lie densely (some PyTorch
// files) is made dense first. Ranks on different CPUs may pack in different orders: then none does.
#include "worker/models/spread.h"

#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 128 };

struct spread {
    struct shard *shard;
    struct shard_tensor *tensor; // [n_tensors]
};

struct reading {
    const struct spread_for *f;
    const struct shard_tensor *tensor; // [n_tensors]
    const struct pack_form *form;      // [n_tensors]
    struct dev *host;                  // works on stored tensors: the model's device, or one beside it
};

// Elements of a stored tensor from `from` on, rounded to the model's dtype on the way to `dst`, all in the host's
// memory.
static int copy_range(const struct reading *r, tensor dst, tensor stored, int64_t from)
{
    enum dtype t = r->f->dtype;
    int64_t n = dst.shape[0];
    void *dense = NULL, *rounded = NULL;
    if (stored.scale) { // quantised: its values are times its factors
        weights_widen(dst.data, t == dst.dtype ? t : DT_F32, stored, from, n);
        return 0;
    }
    if (!tensor_is_contiguous(stored)) {
        dense = malloc((size_t)tensor_bytes(stored));
        if (!dense) return -1;
        tensor to = tensor_of(dense, stored.dtype, stored.n, stored.shape);
        op_copy(r->host, to, stored);
        stored = to;
    }
    tensor src = tensor_of((char *)stored.data + from * dtype_size(stored.dtype), stored.dtype, SHAPE(n));
    if (dst.dtype != t) {
        rounded = malloc((size_t)(n * dtype_size(t)));
        if (!rounded) {
            free(dense);
            return -1;
        }
        tensor middle = tensor_of(rounded, t, SHAPE(n));
        op_copy(r->host, middle, src);
        src = middle;
    }
    op_copy(r->host, dst, src);
    free(dense);
    free(rounded);
    return 0;
}

// Bytes [from, to) of the packed form of a matrix `w`, to dst. -1: no memory.
static int pack_range(const struct reading *r, void *dst, tensor w, const struct pack_form *f, tensor stored,
                      int64_t from, int64_t to)
{
    int64_t n_pieces = (w.shape[0] + f->rows - 1) / f->rows, piece = f->bytes / n_pieces, in = w.shape[1];
    int64_t lo = from / piece, hi = (to + piece - 1) / piece, first = lo * f->rows, last = hi * f->rows;
    int64_t n = (last < w.shape[0] ? last : w.shape[0]) - first;
    char *rows = malloc((size_t)(n * in * dtype_size(w.dtype))), *packed = malloc((size_t)((hi - lo) * piece));
    int rc = rows && packed ? copy_range(r, tensor_of(rows, w.dtype, SHAPE(n * in)), stored, first * in) : -1;
    if (rc == 0) {
        op_pack_rows(r->host, packed, w, first, n, rows);
        memcpy(dst, packed + (from - lo * piece), (size_t)(to - from));
    }
    free(rows);
    free(packed);
    return rc;
}

static int read_share(void *ctx, int block, int i_tensor, int64_t from, int64_t to, void *dst, struct err *e)
{
    const struct reading *r = ctx;
    const struct spread_tensor *s = &r->f->tensors[i_tensor];
    const struct shard_tensor *want = &r->tensor[i_tensor];
    char name[NAME_BYTES], text[96], wanted[96];
    tensor stored, whole = tensor_of(NULL, want->dtype, want->n, want->shape);
    snprintf(name, sizeof name, "blocks.%d.%s", block, s->name);
    int rc = weights_get(r->f->w, name, &stored, e), size = dtype_size(want->dtype);
    if (rc < 0) return rc;
    if (tensor_count(stored) != tensor_count(whole) || (!s->vector && !tensor_same_shape(stored, whole)))
        return err_set(e, E_INPUT, "%s: %s is %s where %s belongs", weights_file(r->f->w, name), name,
                       tensor_text(stored, text, sizeof text), tensor_text(whole, wanted, sizeof wanted));
    rc = want->packed ? pack_range(r, dst, whole, &r->form[i_tensor], stored, from, to)
                      : copy_range(r, tensor_of(dst, want->dtype, SHAPE((to - from) / size)), stored, from / size);
    if (rc < 0) return err_set(e, E_FATAL, "no memory to read %s", name);
    return 0;
}

// How matrices are packed, where all ranks pack alike; `form` [n_tensors] is zeros.
static void choose_forms(struct pack_form *form, const struct shard_tensor *t, const struct spread_for *f,
                         struct dev *d)
{
    int n = f->n_tensors, ranks = comm_size(f->group);
    size_t bytes = (size_t)n * sizeof *form;
    if (ranks == 1 || !dev_shares_host(d)) return;
    for (int i = 0; i < n; i++)
        if (!f->tensors[i].vector && !f->tensors[i].table && t[i].n == 2)
            form[i] = op_packed_form(d, tensor_of(NULL, t[i].dtype, 2, t[i].shape));
    char *all = calloc((size_t)ranks, bytes);
    bool alike = true;
    BUG_IF(!all, "no memory to compare %d ranks", ranks);
    comm_all_gather(f->group, all, form, (int64_t)bytes);
    for (int i = 1; i < ranks; i++) alike &= memcmp(all, all + (size_t)i * bytes, bytes) == 0;
    if (!alike) memset(form, 0, bytes);
    free(all);
}

int spread_open(struct spread **out, struct dev_arena *a, const struct spread_for *f, struct err *e)
{
    struct spread *s = calloc(1, sizeof *s);
    struct dev *d = dev_arena_dev(a);
    int rc = 0;
    BUG_IF(!s, "no memory for spread weights");
    s->tensor = calloc((size_t)f->n_tensors, sizeof *s->tensor);
    BUG_IF(!s->tensor, "no memory for %d tensors", f->n_tensors);
    for (int i = 0; i < f->n_tensors; i++) {
        const struct spread_tensor *t = &f->tensors[i];
        s->tensor[i] =
            (struct shard_tensor){.dtype = t->vector ? DT_F32 : f->dtype, .n = t->in ? 2 : 1, .shape = {t->out, t->in}};
    }
    struct pack_form *form = calloc((size_t)f->n_tensors, sizeof *form);
    BUG_IF(!form, "no memory for %d tensors", f->n_tensors);
    choose_forms(form, s->tensor, f, d);
    for (int i = 0; i < f->n_tensors; i++) s->tensor[i].packed = form[i].bytes;
    struct reading r = {.f = f, .tensor = s->tensor, .form = form, .host = d};
    if (!dev_shares_host(d)) rc = dev_open(&r.host, "cpu", 0, e);
    rc = comm_agree(f->group, rc, NULL, e);
    if (rc == 0)
        rc = shard_open(&s->shard, a, f->group,
                        &(struct shard_for){.n_blocks = f->n_blocks,
                                            .n_tensors = f->n_tensors,
                                            .tensors = s->tensor,
                                            .read = read_share,
                                            .ctx = &r,
                                            .streamed = f->streamed,
                                            .fetch_slot = f->fetch_slot},
                        e);
    if (r.host != d) dev_close(&r.host);
    free(form);
    if (rc < 0)
        spread_close(&s);
    else
        *out = s;
    return rc;
}

void spread_close(struct spread **ps)
{
    struct spread *s = *ps;
    if (!s) return;
    shard_close(&s->shard);
    free(s->tensor);
    free(s);
    *ps = NULL;
}

const tensor *spread_take(struct spread *s, int block) { return shard_take(s->shard, block); }
void spread_give(struct spread *s, int block) { shard_give(s->shard, block); }
int64_t spread_block_bytes(const struct spread *s) { return shard_block_bytes(s->shard); }
int64_t spread_own_bytes(const struct spread *s) { return shard_own_bytes(s->shard); }
struct comm *spread_comm(const struct spread *s) { return shard_comm(s->shard); }
