// Weights are whole minutes, so that two calls within one turn agree.
#include "daemon/sched.h"

enum { PAUSE_MS = 250, PAUSE_MOST_MS = 32000 };

static int64_t weight(const struct sched_job *j, int64_t now_ms)
{
    int64_t waited = now_ms - j->waiting_since_ms;
    return j->priority + (waited > 0 && j->n_groups == 0 ? waited / SCHED_AGE_MS : 0);
}

static bool before(const struct sched_job *a, const struct sched_job *b, uint64_t set, int64_t now_ms)
{
    int64_t wa = weight(a, now_ms), wb = weight(b, now_ms);
    if (wa != wb) return wa > wb;
    if (a->n_groups != b->n_groups) return a->n_groups < b->n_groups;
    bool loaded_a = a->set == set, loaded_b = b->set == set;
    if (loaded_a != loaded_b) return loaded_a;
    return a->id < b->id;
}

int sched_pick(const struct sched_job *j, int n, uint64_t set, int64_t now_ms)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (j[i].not_before_ms <= now_ms && (best < 0 || before(&j[i], &j[best], set, now_ms))) best = i;
    return best;
}

bool sched_yields(int priority, int n_groups, const struct sched_job *waiting, int n, int64_t now_ms)
{
    int margin = n_groups > 1 ? 0 : SCHED_MARGIN;
    for (int i = 0; i < n; i++)
        if (waiting[i].not_before_ms <= now_ms && weight(&waiting[i], now_ms) >= priority + margin) return true;
    return false;
}

int64_t sched_pause_ms(int n_losses)
{
    int64_t ms = PAUSE_MS;
    for (int i = 1; i < n_losses && ms < PAUSE_MOST_MS; i++) ms *= 2;
    return ms;
}
