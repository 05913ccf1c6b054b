// Recorded forwards.
//
// A record holds the addresses and numbers that its ops were given, so the key is all of them that come from outside:
// the tensors of the branches, where the arena's scratch begins, the flags that choose ops. What a step changes, time
// and latents, it changes in place.
//
// A driver that makes something else of a record would spoil a film in silence. So the first repeat on a device is run
// plainly too and compared, on the host, in what all of a forward comes to: its velocities.
//
// The trap: the forward gives its scratch back to the arena when it ends, and a repeat writes there again. That is
// right because it happens in the order of the device's work, at the same mark.
#include "worker/repeat.h"

#include "proto/base/err.h"
#include "proto/base/log.h"

#include <stdlib.h>
#include <string.h>

static bool same_tensor(const tensor *a, const tensor *b)
{
    if (a->data != b->data || a->n != b->n || a->dtype != b->dtype) return false;
    for (int i = 0; i < a->n; i++)
        if (a->shape[i] != b->shape[i] || a->stride[i] != b->stride[i]) return false;
    return true;
}

static struct repeat_branch branch_of(tensor out, const struct dit_in *in)
{
    return (struct repeat_branch){.of = {out, in->x, in->y, in->masks, in->time.e, in->time.e0, in->words->k,
                                         in->words->v, in->picture->k, in->picture->v, in->voice->k, in->voice->v,
                                         in->residual},
                                  .speakers = in->voice->n_speakers,
                                  .skip = in->skip,
                                  .wide = in->wide};
}

static bool same_branch(const struct repeat_branch *a, const struct repeat_branch *b)
{
    for (size_t i = 0; i < sizeof a->of / sizeof *a->of; i++)
        if (!same_tensor(&a->of[i], &b->of[i])) return false;
    return a->speakers == b->speakers && a->skip == b->skip && a->wide == b->wide;
}

static bool same_forward(const struct repeat_entry *a, const struct repeat_entry *b)
{
    bool same = a->m == b->m && a->mark == b->mark && a->n == b->n;
    for (int i = 0; same && i < a->n; i++) same = same_branch(&a->branch[i], &b->branch[i]);
    return same;
}

// The entry of a forward, and whether it was met before.
static struct repeat_entry *entry_of(struct repeat *r, const struct repeat_entry *f, bool *known)
{
    for (int i = 0; i < REPEAT_MOST; i++)
        if (r->of[i].n > 0 && same_forward(&r->of[i], f)) {
            *known = true;
            return &r->of[i];
        }
    struct repeat_entry *to = &r->of[r->n++ % REPEAT_MOST];
    dev_record_free(&to->record);
    *to = *f;
    *known = false;
    return to;
}

// Ranks meet inside of a forward, or its weights come while it runs: neither can stand in a record.
static bool stays_here(const struct dit *m, const struct mesh *mesh)
{
    return !dit_block_comm(m, DIT_STEP) && (!mesh || mesh->n.ring * mesh->n.heads == 1);
}

// Waits for the device.
static void take(struct dev *d, char *to, const tensor *out, int n)
{
    for (int i = 0; i < n; i++) {
        dev_download(d, to, out[i].dtype, out[i]);
        to += tensor_bytes(out[i]);
    }
}

// The forward by its record, whose bytes are kept, then plainly. What it leaves in `out` are the plain ones.
static bool repeats_rightly(const struct repeat_entry *e, const struct mesh *mesh, struct dev_arena *a,
                            const tensor *out, const struct dit_in *in)
{
    struct dev *d = dev_arena_dev(a);
    int64_t bytes = 0;
    for (int i = 0; i < e->n; i++) bytes += tensor_bytes(out[i]);
    char *repeated = calloc(2, (size_t)bytes);
    BUG_IF(!repeated, "no memory to compare forwards");
    for (int i = 0; i < e->n; i++) op_fill(d, out[i], 0); // what is there may be right already
    bool done = dev_repeat(d, e->record);
    take(d, repeated, out, e->n);
    dit_forward_branches(e->m, mesh, a, out, in, e->n, NULL);
    take(d, repeated + bytes, out, e->n);
    bool right = done && memcmp(repeated, repeated + bytes, (size_t)bytes) == 0;
    free(repeated);
    return right;
}

// The first repeat of a device, which says whether there are more.
static void repeat_first(const struct repeat_entry *e, const struct mesh *mesh, struct dev_arena *a, const tensor *out,
                         const struct dit_in *in)
{
    struct dev *d = dev_arena_dev(a);
    bool right = repeats_rightly(e, mesh, a, out, in);
    if (!dev_records(d)) return; // a fault, which dev_sync tells
    if (right) {
        dev_records_trust(d);
        return;
    }
    log_warn("device.unrecorded",
             "device=\"%s\" why=\"a forward that was repeated has other bytes than one that was launched\" "
             "text=\"ops are launched one by one\"",
             dev_name(d));
    dev_set_records(d, false);
}

void repeat_forward(struct repeat *r, const struct dit *m, const struct mesh *mesh, struct dev_arena *a,
                    const tensor *out, const struct dit_in *in, int n)
{
    struct dev *d = dev_arena_dev(a);
    struct repeat_entry f = {.m = m, .mark = dev_arena_mark(a), .n = n};
    bool known = false;
    if (!r || n > REPEAT_BRANCHES || !dev_records(d) || !stays_here(m, mesh)) {
        dit_forward_branches(m, mesh, a, out, in, n, NULL);
        return;
    }
    for (int i = 0; i < n; i++) f.branch[i] = branch_of(out[i], &in[i]);
    struct repeat_entry *e = entry_of(r, &f, &known);
    if (e->record && dev_repeat(d, e->record)) return;
    dev_record_free(&e->record);
    if (known) {
        dev_record_begin(d);
        dit_forward_branches(m, mesh, a, out, in, n, NULL);
        e->record = dev_record_end(d);
    }
    if (e->record && !dev_records_trusted(d))
        repeat_first(e, mesh, a, out, in);
    else if (!e->record || !dev_repeat(d, e->record))
        dit_forward_branches(m, mesh, a, out, in, n, NULL);
}

void repeat_release(struct repeat *r)
{
    for (int i = 0; i < REPEAT_MOST; i++) dev_record_free(&r->of[i].record);
    memset(r, 0, sizeof *r);
}
