// Choosing and opening a mesh.
//
// The choice needs no measurement: branches are independent work, so a rank for each is free but for one gather a step;
// heads cost the fewest bytes of the ways to share a sequence; the ring takes what is left, since any number fits it.
// (A planner that knows the links may wish otherwise.) Three branches on a guide axis of two are refused: one half of
// the ranks would idle in the second round.
#include "parallel/mesh.h"

#include <stdio.h>
#include <string.h>

static int common(int a, int b) { return b ? common(b, a % b) : a; }

// "1, 2, 4, 5 or 8": the numbers of ranks that can share `n_heads`.
static const char *divisors(char *to, size_t size, int n_heads)
{
    size_t used = 0;
    to[0] = 0;
    for (int i = 1; i <= n_heads && used < size; i++)
        if (n_heads % i == 0)
            used += (size_t)snprintf(to + used, size - used, "%s%d", i == 1 ? "" : i == n_heads ? " or " : ", ", i);
    return to;
}

static int refuse_heads(int heads, int n_heads, struct err *e)
{
    char list[256];
    return err_set(
        e, E_INPUT,
        "heads: %d ranks cannot share the model's %d attention heads evenly; use %s, and the ring for the rest", heads,
        n_heads, divisors(list, sizeof list, n_heads));
}

int mesh_plan(struct mesh_shape *out, int n, struct mesh_shape wish, struct mesh_for f, struct err *e)
{
    struct mesh_shape s = wish;
    if (n < 1) return err_set(e, E_INPUT, "a group of %d ranks; at least 1 is needed", n);
    if (s.guide < 0 || s.ring < 0 || s.heads < 0)
        return err_set(e, E_INPUT, "a layout of guide %d x ring %d x heads %d; none may be negative", s.guide, s.ring,
                       s.heads);
    if (s.heads > 0 && f.n_heads % s.heads != 0) return refuse_heads(s.heads, f.n_heads, e);
    if (s.guide > 1 && f.n_branches == 1)
        return err_set(e, E_INPUT, "guide: %d ranks for 1 branch of guidance; use 1, and heads or ring for the others",
                       s.guide);
    if (s.guide > 1 && s.guide != f.n_branches)
        return err_set(e, E_INPUT,
                       "guide: %d ranks for %d guidance branches; use 1 (each rank does all branches) or %d", s.guide,
                       f.n_branches, f.n_branches);
    int64_t fixed = (int64_t)(s.guide ? s.guide : 1) * (s.ring ? s.ring : 1) * (s.heads ? s.heads : 1);
    if (fixed > n || n % fixed != 0)
        return err_set(e, E_INPUT,
                       "a layout of guide %d x ring %d x heads %d needs %s%lld ranks, and there are %d; start as many, "
                       "or take another layout (auto finds one)",
                       s.guide ? s.guide : 1, s.ring ? s.ring : 1, s.heads ? s.heads : 1,
                       s.guide && s.ring && s.heads ? "" : "a multiple of ", (long long)fixed, n);
    int rest = n / (int)fixed;
    if (!s.guide) {
        s.guide = f.n_branches > 1 && rest % f.n_branches == 0 ? f.n_branches : 1;
        rest /= s.guide;
    }
    if (!s.heads) {
        s.heads = s.ring ? rest : common(rest, f.n_heads);
        if (f.n_heads % s.heads != 0) return refuse_heads(s.heads, f.n_heads, e);
        rest /= s.heads;
    }
    if (!s.ring) {
        s.ring = rest;
        rest = 1;
    }
    if (rest != 1)
        return err_set(e, E_INPUT, "a layout of guide %d x ring %d x heads %d uses %d of %d ranks; start %d", s.guide,
                       s.ring, s.heads, n / rest, n, n / rest);
    *out = s;
    return 0;
}

int mesh_open(struct mesh *m, struct comm *world, struct mesh_shape s, struct err *e)
{
    int rank = comm_rank(world), n = s.guide * s.ring * s.heads, rc = 0;
    if (n != comm_size(world))
        return err_set(e, E_INPUT, "a layout of guide %d x ring %d x heads %d needs %d ranks, and there are %d",
                       s.guide, s.ring, s.heads, n, comm_size(world));
    *m = (struct mesh){.n = s,
                       .i_guide = rank / (s.ring * s.heads),
                       .i_ring = rank / s.heads % s.ring,
                       .i_heads = rank % s.heads,
                       .world = world};
    rc = comm_split(world, &m->guide, rank % (s.ring * s.heads), rank, e);
    if (rc == 0) rc = comm_split(world, &m->sequence, m->i_guide, rank, e);
    if (rc == 0) rc = comm_split(world, &m->ring, m->i_guide * s.heads + m->i_heads, rank, e);
    if (rc == 0) rc = comm_split(world, &m->heads, rank / s.heads, rank, e);
    if (rc < 0) mesh_close(m);
    return rc;
}

void mesh_close(struct mesh *m)
{
    comm_close(&m->heads);
    comm_close(&m->ring);
    comm_close(&m->sequence);
    comm_close(&m->guide);
    memset(m, 0, sizeof *m);
}

void mesh_keep(const struct mesh *m, void *at, int64_t bytes)
{
    if (!m) return;
    struct comm *all[] = {m->world, m->guide, m->sequence, m->ring, m->heads};
    for (int i = 0; i < 5; i++) comm_keep(all[i], at, bytes);
}

void mesh_forget(const struct mesh *m, const void *at)
{
    if (!m) return;
    struct comm *all[] = {m->world, m->guide, m->sequence, m->ring, m->heads};
    for (int i = 0; i < 5; i++) comm_forget(all[i], at);
}
