// Choosing among layouts. What one costs is worked out in plan_cost.c.
//
// Every legal layout is looked at, since there are few: a guide axis has one rank or one per branch, heads axes divide
// the model's heads and the ranks, the ring takes the rest, and weights are whole or spread in one or two ways. So the
// fastest is found by looking, and the table that a person reads is the one that the choice was made from.
//
// Fewer ranks are looked at the same way. Where ranks divide the cores of one machine, fewer of them are faster ones,
// each with more memory, so their rates grow as their number falls; on devices they stay.
#include "parallel/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 512 };
static const double clear_win = 0.95;

static const struct {
    enum plan_shard shard;
    const char *name;
} shards[] = {{PLAN_WHOLE, "whole"}, {PLAN_NODE, "node"}, {PLAN_ALL, "all"}};

static const char *shard_name(enum plan_shard s) { return shards[s].name; }

const char *plan_text(const struct plan_row *y, char *text, size_t n)
{
    snprintf(text, n, "%dx%dx%d%s%s", y->shape.guide, y->shape.ring, y->shape.heads, y->sharers > 1 ? " " : "",
             y->sharers > 1 ? shard_name(y->shard) : "");
    return text;
}

static int by_time(const void *a, const void *b)
{
    const struct plan_row *x = a, *y = b;
    if (x->fits != y->fits) return x->fits ? -1 : 1;
    if (x->segment != y->segment) return x->segment < y->segment ? -1 : 1;
    return x->memory < y->memory ? -1 : x->memory > y->memory;
}

// The ways to keep weights that differ from each other in this layout.
static int add_rows(struct plan_row *out, int room, const struct plan_model *m, const struct plan_job *j,
                    const struct plan_rates *r, struct mesh_shape s)
{
    int n = 0, sharers = 0;
    for (size_t i = 0; i < sizeof shards / sizeof *shards && n < room; i++) {
        struct plan_row y = plan_predict(m, j, r, s, shards[i].shard);
        if (y.sharers == sharers) continue;
        sharers = y.sharers;
        out[n++] = y;
    }
    return n;
}

int plan_list(struct plan_row *out, int room, int n, const struct plan_model *m, const struct plan_job *j,
              const struct plan_rates *r)
{
    int count = 0;
    for (int guide = 1; guide <= j->branches; guide += j->branches > 1 ? j->branches - 1 : 1) {
        if (n % guide) continue;
        for (int heads = 1; heads <= n / guide; heads++) {
            struct mesh_shape s = {.guide = guide, .ring = n / guide / heads, .heads = heads};
            if (n / guide % heads == 0 && m->heads % heads == 0)
                count += add_rows(out + count, room - count, m, j, r, s);
        }
    }
    qsort(out, (size_t)count, sizeof *out, by_time);
    return count;
}

// What a rank can do where there are only `n` of `before`.
static struct plan_rates rates_of(const struct plan_rates *r, int n, int before)
{
    struct plan_rates y = *r;
    int node = r->node > 0 ? r->node : before, left = node < n ? node : n;
    double more = (double)node / left;
    if (!r->shared) return y;
    y.linear *= more;
    y.attention *= more;
    y.conv *= more;
    y.copy *= more;
    y.near *= more;
    y.memory = (int64_t)((double)y.memory * more);
    return y;
}

bool plan_fewer(struct plan_row *out, int n, const struct plan_model *m, const struct plan_job *j,
                const struct plan_rates *r)
{
    struct plan_row *rows = calloc(ROOM, sizeof *rows);
    bool found = false;
    BUG_IF(!rows, "no memory for %d layouts", ROOM);
    for (int k = 1; k < n; k++) {
        struct plan_rates rates = rates_of(r, k, n);
        int count = plan_list(rows, ROOM, k, m, j, &rates);
        if (count == 0 || !rows->fits || (found && rows->segment >= out->segment)) continue;
        *out = *rows;
        found = true;
    }
    free(rows);
    return found;
}

// ---- of itself

bool plan_is_faster(const struct plan_row *a, const struct plan_row *b) { return a->segment < clear_win * b->segment; }

static struct mesh_shape wished_shape(struct plan_wish w)
{
    if (w.spread && !w.shape.guide) w.shape.guide = 1;
    return w.shape;
}

static bool is_wished(int wish, int is) { return wish == 0 || wish == is; }

static bool has_shape(const struct plan_row *y, struct mesh_shape s)
{
    return is_wished(s.guide, y->shape.guide) && is_wished(s.ring, y->shape.ring) && is_wished(s.heads, y->shape.heads);
}

int plan_choose(struct plan_row *out, int n, struct plan_wish w, const struct plan_model *m, const struct plan_job *j,
                const struct plan_rates *r, struct err *e)
{
    struct mesh_shape wish = wished_shape(w), rule;
    int rc = mesh_plan(&rule, n, wish, (struct mesh_for){(int)m->heads, j->branches}, e);
    if (rc < 0) return rc;
    struct plan_row *rows = calloc(ROOM, sizeof *rows), *best = NULL, *own = NULL;
    BUG_IF(!rows, "no memory for %d layouts", ROOM);
    int count = plan_list(rows, ROOM, n, m, j, r);
    for (int i = 0; i < count; i++) {
        struct plan_row *y = &rows[i];
        bool alone = y->shape.ring * y->shape.heads == 1; // has nobody to spread them over
        if (!has_shape(y, wish) || (w.spread && !alone) != (y->sharers > 1)) continue;
        if (!best) best = y;
        if (!own && memcmp(&y->shape, &rule, sizeof rule) == 0) own = y;
    }
    BUG_IF(!own, "a layout of %d x %d x %d is not among the legal ones", rule.guide, rule.ring, rule.heads);
    *out = (best->fits && !own->fits) || (best->fits == own->fits && plan_is_faster(best, own)) ? *best : *own;
    free(rows);
    return 0;
}

int plan_choices(int n, struct plan_wish w, const struct plan_model *m, int branches)
{
    struct mesh_shape wish = wished_shape(w);
    int count = 0;
    for (int guide = 1; guide <= branches; guide += branches > 1 ? branches - 1 : 1)
        for (int heads = 1; heads <= n / guide; heads++) {
            struct plan_row y = {.shape = {guide, n / guide / heads, heads}};
            count += n % guide == 0 && n / guide % heads == 0 && m->heads % heads == 0 && has_shape(&y, wish);
        }
    return count;
}

int plan_check(const struct plan_row *rows, int n, const struct plan_rates *r, struct err *e)
{
    const struct plan_row *lean = rows;
    char text[64];
    for (int i = 0; i < n; i++) {
        if (rows[i].fits) return 0;
        if (rows[i].memory < lean->memory) lean = &rows[i];
    }
    return err_set(
        e, E_INPUT,
        "no layout fits: the leanest, %s, needs %.1f GB a rank (weights %.1f, keys %.1f, work %.1f) and %.1f "
        "GB are there; take more ranks or a smaller size, or bf16 instead of f32",
        plan_text(lean, text, sizeof text), (double)lean->memory / 1e9, (double)lean->held / 1e9,
        (double)lean->caches / 1e9, (double)lean->work / 1e9, (double)r->memory / 1e9);
}
