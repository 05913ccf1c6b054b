// Bands of a picture and their edges.
//
// A trade is one group of at most four messages, both neighbours at once: many small trades make a picture, so latency
// is what counts. Lines along the width are strided in memory; they are packed into scratch first, by an op, and
// unpacked by one.
//
// The trap: what a rank sends before it is what the neighbour stores after itself, so with one-sided halos (a
// down-sampling convolution reads one line after and none before) the sizes of the two messages differ.
#include "parallel/halo.h"

#include <stdlib.h>

struct halo halo_make(struct dev *d, struct comm *c, bool wide, int64_t lines)
{
    return (struct halo){.dev = d,
                         .comm = c,
                         .axis = wide ? 2 : 1,
                         .lines = lines,
                         .own = split_even(lines, comm_size(c), comm_rank(c))};
}

struct span halo_span(const struct halo *h, int rank, int64_t total)
{
    BUG_IF(total % h->lines != 0, "a picture of %lld lines in bands of %lld", (long long)total, (long long)h->lines);
    struct span s = split_even(h->lines, comm_size(h->comm), rank);
    int64_t k = total / h->lines;
    return (struct span){.from = s.from * k, .to = s.to * k};
}

static tensor packed(const struct halo *h, struct dev_arena *a, tensor x, int64_t lines)
{
    x.shape[h->axis] = lines;
    return dev_tensor(a, x.dtype, x.n, x.shape);
}

void halo_trade(const struct halo *h, struct dev_arena *a, tensor x, int64_t before, int64_t after)
{
    int64_t mark = dev_arena_mark(a), n = x.shape[h->axis], inner = n - before - after;
    int rank = comm_rank(h->comm), n_moves = 0;
    BUG_IF(inner < before || inner < after || inner < 1, "a band of %lld lines with edges of %lld and %lld",
           (long long)inner, (long long)before, (long long)after);
    bool first = h->own.from == 0, last = h->own.to == h->lines;
    struct comm_move moves[4];
    tensor got[2] = {packed(h, a, x, before), packed(h, a, x, after)};
    tensor sent[2] = {packed(h, a, x, after), packed(h, a, x, before)}; // to the one before, to the one after
    tensor spare[2] = {tensor_slice(x, h->axis, 0, before), tensor_slice(x, h->axis, n - after, n)};
    tensor edge[2] = {tensor_slice(x, h->axis, before, before + after),
                      tensor_slice(x, h->axis, n - after - before, n - after)};
    for (int i = 0; i < 2; i++) {
        if (i == 0 ? first : last) continue;
        int peer = i == 0 ? rank - 1 : rank + 1;
        op_copy(h->dev, sent[i], edge[i]);
        moves[n_moves++] = (struct comm_move){.peer = peer, .at = sent[i].data, .bytes = tensor_bytes(sent[i])};
        moves[n_moves++] =
            (struct comm_move){.receive = true, .peer = peer, .at = got[i].data, .bytes = tensor_bytes(got[i])};
    }
    comm_trade(h->comm, moves, n_moves);
    for (int i = 0; i < 2; i++)
        if (tensor_count(spare[i]) == 0)
            continue;
        else if (i == 0 ? first : last)
            op_fill(h->dev, spare[i], 0);
        else
            op_copy(h->dev, spare[i], got[i]);
    dev_arena_reset(a, mark);
}

// Bytes of each rank's band; the caller frees them.
static int64_t *band_bytes(const struct halo *h, tensor whole)
{
    int n = comm_size(h->comm);
    int64_t total = whole.shape[h->axis], line = tensor_count(whole) / total;
    int64_t *bytes = calloc((size_t)n, sizeof *bytes);
    BUG_IF(!bytes, "no memory for %d ranks", n);
    for (int i = 0; i < n; i++) bytes[i] = span_length(halo_span(h, i, total)) * line * dtype_size(whole.dtype);
    return bytes;
}

// Bands, one behind the other, as a picture.
static void put_together(const struct halo *h, tensor whole, tensor all)
{
    int64_t total = whole.shape[h->axis], line = tensor_count(whole) / total;
    for (int i = 0; i < comm_size(h->comm); i++) {
        struct span s = halo_span(h, i, total);
        if (span_length(s) == 0) continue;
        tensor to = tensor_slice(whole, h->axis, s.from, s.to);
        tensor from = tensor_slice(all, 0, s.from * line, s.to * line);
        op_copy(h->dev, to, tensor_reshape(from, to.n, to.shape));
    }
}

void halo_gather(const struct halo *h, struct dev_arena *a, tensor whole, tensor band)
{
    int64_t mark = dev_arena_mark(a), *bytes = band_bytes(h, whole);
    tensor all = dev_tensor(a, whole.dtype, SHAPE(tensor_count(whole)));
    comm_all_gatherv(h->comm, all.data, band.data, bytes);
    put_together(h, whole, all);
    free(bytes);
    dev_arena_reset(a, mark);
}

void halo_gather_to(const struct halo *h, int root, struct dev_arena *a, tensor whole, tensor band)
{
    int64_t mark = dev_arena_mark(a), *bytes = band_bytes(h, whole);
    bool mine = comm_rank(h->comm) == root;
    tensor all = mine ? dev_tensor(a, whole.dtype, SHAPE(tensor_count(whole))) : NO_TENSOR;
    comm_gatherv(h->comm, root, all.data, band.data, bytes);
    if (mine) put_together(h, whole, all);
    free(bytes);
    dev_arena_reset(a, mark);
}
