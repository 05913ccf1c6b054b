// Sharded weights.
//
//   share of rank q: bytes [q, q+1) run / P of every block   --all gather-->  slot i % 2: a whole run, tensors as views
//
// Two slots suffice because use is in order: while block i is computed from one, block i+1 arrives in the other, which
// was given back before i was taken. After the last block the first of the next pass is fetched.
//
// Streamed, a slot is filled by a fetch instead of a gather; all else is the same.
//
// The trap: blocks may be an odd number, or a pass may be cut short, so a slot is not known by the block's parity; each
// slot remembers which block it holds, and whether it only seemed to come, in a dry run. A block that was not foreseen
// is fetched when taken, at the price of a wait.
#include "parallel/shard.h"

#include "kernels/ops.h"

#include <stdlib.h>
#include <string.h>

enum { TENSOR_ALIGN = 256 };

struct slot {
    tensor bytes;
    int block;   // held or arriving; -1: none
    bool hollow; // in a dry run: nothing arrived
    bool taken;
    struct comm_ticket *arriving;
    bool fetching;
    tensor *views; // [n_tensors]
};

struct shard {
    struct dev *dev;
    struct comm *comm;
    struct shard_for f;
    int64_t run, share; // bytes
    int64_t *offset;    // [n_tensors]
    tensor own;         // U8 [n_blocks, share]
    void *pinned;       // the same on the host, when streamed
    struct slot slot[2];
};

static int64_t align(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static int64_t bytes_of(const struct shard_tensor *t)
{
    if (t->packed) return t->packed;
    int64_t n = dtype_size(t->dtype);
    for (int i = 0; i < t->n; i++) n *= t->shape[i];
    return n;
}

// Views of all tensors into a run. What is kept of packed ones comes from `a`.
static void view(const struct shard *s, tensor *views, tensor run, struct dev_arena *a)
{
    for (int i = 0; i < s->f.n_tensors; i++) {
        const struct shard_tensor *t = &s->f.tensors[i];
        void *at = run.data ? (char *)run.data + s->offset[i] : NULL;
        views[i] = tensor_of(t->packed ? NULL : at, t->dtype, t->n, t->shape);
        if (t->packed) views[i] = op_packed_at(s->dev, a, views[i], at);
    }
}

// This rank's share of one block, through `host`.
static int read_share(struct shard *s, int block, char *host, struct err *e)
{
    int64_t from = s->share * comm_rank(s->comm), to = from + s->share;
    for (int i = 0; i < s->f.n_tensors; i++) {
        int64_t start = s->offset[i], end = start + bytes_of(&s->f.tensors[i]);
        int64_t lo = start > from ? start : from, hi = end < to ? end : to;
        if (lo >= hi) continue;
        int rc = s->f.read(s->f.ctx, block, i, lo - start, hi - start, host + (lo - from), e);
        if (rc < 0) return rc;
    }
    if (s->pinned)
        memcpy((char *)s->pinned + block * s->share, host, (size_t)s->share);
    else
        dev_upload(s->dev, tensor_at(s->own, block), host, DT_U8);
    return 0;
}

static int read_all(struct shard *s, struct err *e)
{
    if (dev_is_dry(s->dev)) return 0;         // there is nowhere to put it
    char *host = calloc(1, (size_t)s->share); // gaps between tensors stay zero
    int rc = host ? 0 : err_set(e, E_FATAL, "no memory for %lld bytes of a block", (long long)s->share);
    for (int b = 0; b < s->f.n_blocks && rc == 0; b++) rc = read_share(s, b, host, e);
    free(host);
    return rc;
}

static int allocate(struct shard *s, struct dev_arena *a, struct err *e)
{
    int n = s->f.n_tensors;
    s->offset = calloc((size_t)n, sizeof *s->offset);
    for (int i = 0; i < 2; i++) {
        s->slot[i].block = -1;
        s->slot[i].views = calloc((size_t)n, sizeof(tensor));
        if (!s->slot[i].views || !s->offset) return err_set(e, E_FATAL, "no memory for %d tensors", n);
    }
    for (int i = 0; i < n; i++) {
        s->offset[i] = s->run;
        s->run = align(s->run + bytes_of(&s->f.tensors[i]), TENSOR_ALIGN);
    }
    s->run = align(s->run, (int64_t)TENSOR_ALIGN * comm_size(s->comm));
    s->share = s->run / comm_size(s->comm);
    bool alone = comm_size(s->comm) == 1;
    for (int i = 0; i < n; i++) BUG_IF(alone && s->f.tensors[i].packed, "a packed tensor of a group of one");
    if (alone && s->f.streamed) s->pinned = dev_pin(s->dev, s->f.n_blocks * s->share);
    if (!s->pinned) s->own = dev_tensor(a, DT_U8, SHAPE(s->f.n_blocks, s->share));
    for (int i = 0; i < 2 && (!alone || s->pinned); i++) {
        s->slot[i].bytes = dev_tensor(a, DT_U8, SHAPE(s->run));
        view(s, s->slot[i].views, s->slot[i].bytes, a);
        if (!alone) comm_keep(s->comm, s->slot[i].bytes.data, s->run);
    }
    if (!alone) comm_keep(s->comm, s->own.data, s->f.n_blocks * s->share);
    return dev_sync(s->dev, e);
}

int shard_open(struct shard **out, struct dev_arena *a, struct comm *group, const struct shard_for *f, struct err *e)
{
    BUG_IF(f->n_blocks < 1 || f->n_tensors < 1, "%d blocks of %d tensors", f->n_blocks, f->n_tensors);
    struct shard *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for sharded weights");
    s->dev = dev_arena_dev(a);
    s->f = *f;
    int rc = comm_split(group, &s->comm, 0, comm_rank(group), e);
    if (rc == 0) {
        rc = allocate(s, a, e);
        if (rc == 0) rc = read_all(s, e);
        rc = comm_agree(s->comm, rc, NULL, e);
    }
    if (rc < 0)
        shard_close(&s);
    else
        *out = s;
    return rc;
}

void shard_close(struct shard **ps)
{
    struct shard *s = *ps;
    if (!s) return;
    for (int i = 0; i < 2; i++) {
        comm_wait(&s->slot[i].arriving);
        free(s->slot[i].views);
    }
    comm_close(&s->comm);
    if (s->pinned) dev_unpin(s->dev, &s->pinned);
    free(s->offset);
    free(s);
    *ps = NULL;
}

static bool holds(const struct shard *s, const struct slot *slot, int block)
{
    return slot->block == block && (!slot->hollow || slot->taken || dev_is_dry(s->dev));
}

static struct slot *slot_of(struct shard *s, int block)
{
    return holds(s, &s->slot[0], block) ? &s->slot[0] : holds(s, &s->slot[1], block) ? &s->slot[1] : NULL;
}

static struct slot *start(struct shard *s, int block)
{
    struct slot *to = s->slot[0].taken ? &s->slot[1] : &s->slot[0];
    BUG_IF(to->taken, "block %d while two others are in use", block);
    comm_wait(&to->arriving);
    to->block = block;
    to->hollow = dev_is_dry(s->dev);
    if (s->pinned) {
        dev_fetch(s->dev, s->f.fetch_slot + (to == &s->slot[1]), to->bytes, (char *)s->pinned + block * s->share);
        to->fetching = true;
    } else if (comm_size(s->comm) == 1)
        view(s, to->views, tensor_at(s->own, block), NULL);
    else
        to->arriving = comm_start_all_gather(s->comm, to->bytes.data, tensor_at(s->own, block).data, s->share);
    return to;
}

const tensor *shard_take(struct shard *s, int block)
{
    BUG_IF(block < 0 || block >= s->f.n_blocks || s->slot[0].taken || s->slot[1].taken,
           "block %d of %d, with one still in use", block, s->f.n_blocks);
    struct slot *here = slot_of(s, block);
    if (!here) here = start(s, block);
    comm_wait(&here->arriving);
    if (here->fetching) dev_fetched(s->dev, s->f.fetch_slot + (here == &s->slot[1]));
    here->fetching = false;
    here->taken = true;
    int next = (block + 1) % s->f.n_blocks;
    if (!slot_of(s, next)) start(s, next);
    return here->views;
}

void shard_give(struct shard *s, int block)
{
    struct slot *here = slot_of(s, block);
    BUG_IF(!here || !here->taken, "block %d is not in use", block);
    here->taken = false;
}

int64_t shard_block_bytes(const struct shard *s) { return s->run; }
int64_t shard_own_bytes(const struct shard *s) { return s->share * s->f.n_blocks; }
struct comm *shard_comm(const struct shard *s) { return s->comm; }
