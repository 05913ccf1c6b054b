// Choosing by trying.
//
// The trap: a wrong result is harmless, a fault is not. A kernel that traps takes the card's context with it, so there
// is no next way to try in this process; it is told which way it was.
#include "kernels/variants.h"

#include "kernels/trial_on.h"
#include "proto/base/log.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 4 << 20, SEED = 1 };

static bool meant_for(const struct op_variant *v, int arch) { return arch >= v->from && (v->to == 0 || arch <= v->to); }

// Whether all its cases come out right. Negative: the device has a fault.
static int is_right(struct trial_bench *b, const struct op_variant *v, struct err *e)
{
    char text[200];
    for (int i = 0; i < v->n_cases; i++) {
        const struct op_case *c = &v->cases[i];
        double worst = 0;
        int rc = trial_on(b, c, SEED + (uint64_t)i, NULL, &worst, e);
        dev_arena_reset(b->arena, 0);
        if (rc < 0) return err_wrap(e, "the way '%s' of doing %s", v->name, v->op);
        if (worst <= trial_bound(c)) continue;
        log_warn("op.dropped", "op=%s variant=%s device=\"%s\" error=%.3g bound=%.3g case=\"%s\"", v->op, v->name,
                 dev_name(b->d), worst, trial_bound(c), trial_text(c, text, sizeof text));
        return 0;
    }
    return 1;
}

static void say_dropped(struct dev *d, const struct op_variant *v)
{
    size_t n = strlen(d->name);
    snprintf(d->name + n, sizeof d->name - n, " -%s/%s", v->op, v->name);
}

static int settle(struct trial_bench *b, int arch, const struct op_variant *list, int n, struct err *e)
{
    for (int i = 0, end; i < n; i = end) {
        bool found = false;
        for (end = i; end < n && strcmp(list[end].op, list[i].op) == 0; end++) {
            const struct op_variant *v = &list[end];
            if (found || !meant_for(v, arch)) continue;
            v->fill(&b->d->ops);
            int right = is_right(b, v, e);
            if (right < 0) return right;
            found = right;
            if (!found) say_dropped(b->d, v);
        }
        if (!found)
            return err_set(e, E_FATAL,
                           "no way of doing %s is right on %s; look for a newer driver, or use --device cpu",
                           list[i].op, dev_name(b->d));
    }
    return 0;
}

int variants_settle(struct dev *d, int arch, const struct op_variant *list, int n, struct err *e)
{
    struct trial_bench b;
    int rc = trial_bench_open(&b, d, BLOCK, 4 * BLOCK, e);
    if (rc == 0) rc = settle(&b, arch, list, n, e);
    trial_bench_close(&b);
    return rc;
}
