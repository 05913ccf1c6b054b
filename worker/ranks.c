// Ranks as a launcher starts them.
//
// mpirun, srun and their like say by an environment variable how many processes they have started; with one, or without
// a launcher, there is nobody to talk to and MPI is not even started. Who shares a machine is found by comparing host
// names, so that it works with any launcher.
//
// Cores: Open MPI would tie a rank to one core, or to none; the worker has threads of its own. So the launcher is told
// to leave the ranks alone, and here the cores that all ranks of a machine may use are dealt out in runs.
//
// The trap: what is refused must be refused by all, or one would wait for the others in the next collective. A layout
// is worked out by every rank from the same numbers; all else is agreed on.
#include "worker/ranks.h"

#include "kernels/dev.h"
#include "kernels/host.h"
#include "parallel/comm_nccl.h"
#include "proto/base/hash.h"
#include "proto/base/log.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A step of a large model takes minutes on a CPU, and so may an encoder that one rank runs for all. A rank that died is
// noticed by the launcher at once; this is for one that hangs.
enum { PATIENCE_MS = 3600000, BRANCHES_MAX = 3 };

struct ranks {
    struct comm *world;  // over the host
    struct comm *device; // over it; NULL where ops work on the host's memory
    struct mesh mesh;
    struct mesh_shape wish;
    struct mesh_shape preferred[BRANCHES_MAX]; // by branches - 1; guide 0: none
    int n_heads;
    int node, here, place; // number of this machine, its ranks, this one's place among them
};

static int count_launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *n = getenv(names[i]);
        if (n) return atoi(n);
    }
    return 1;
}

// Machines are numbered in the order in which ranks are on them.
static void find_places(struct ranks *r)
{
    int n = comm_size(r->world), own = comm_rank(r->world);
    uint8_t name[HASH_BYTES], *all = malloc((size_t)n * HASH_BYTES);
    char host[256] = "";
    struct hash h;
    BUG_IF(!all, "no memory for the names of %d machines", n);
    gethostname(host, sizeof host - 1);
    hash_init(&h);
    hash_update(&h, host, strlen(host));
    hash_final(&h, name);
    comm_all_gather(r->world, all, name, HASH_BYTES);
    for (int i = 0; i < n; i++) {
        bool same = memcmp(all + i * HASH_BYTES, name, HASH_BYTES) == 0;
        if (same && r->here == 0) r->node = i;
        if (same && i < own) r->place++;
        r->here += same;
    }
    free(all);
}

int ranks_open(struct ranks **out, struct err *e)
{
    struct ranks *r = calloc(1, sizeof *r);
    BUG_IF(!r, "no memory for the ranks");
    int launched = count_launched(), rc = comm_open(&r->world, launched > 1 ? "mpi" : "self", e);
    if (rc == 0 && launched > 1 && comm_size(r->world) == 1)
        rc = err_set(e, E_INPUT,
                     "%d processes were started and do not find each other; start them by mpirun, or by "
                     "srun --mpi=pmix",
                     launched);
    if (rc == 0) {
        comm_set_deadline_ms(r->world, PATIENCE_MS);
        find_places(r);
        rc = ranks_agree(r, 0, e);
    }
    if (rc < 0)
        ranks_close(&r);
    else
        *out = r;
    return rc;
}

void ranks_close(struct ranks **pr)
{
    struct ranks *r = *pr;
    if (!r) return;
    mesh_close(&r->mesh);
    comm_close(&r->device);
    comm_close(&r->world);
    free(r);
    *pr = NULL;
}

int ranks_count(const struct ranks *r) { return comm_size(r->world); }
int ranks_number(const struct ranks *r) { return comm_rank(r->world); }
int ranks_here(const struct ranks *r) { return r->here; }
struct comm *ranks_comm(const struct ranks *r) { return r->world; }
struct comm *ranks_card(const struct ranks *r) { return r->device; }
bool ranks_lost(const struct ranks *r) { return comm_check(r->world, NULL) < 0; }

void ranks_processes(const struct ranks *r, int32_t *pid)
{
    int n = comm_size(r->world);
    int32_t mine[2] = {r->node, (int32_t)getpid()}, *all = calloc((size_t)n, sizeof mine);
    BUG_IF(!all, "no memory for the processes of %d ranks", n);
    comm_all_gather(r->world, all, mine, sizeof mine);
    for (int i = 0; i < n; i++) pid[i] = all[2 * i] == r->node ? all[2 * i + 1] : 0;
    free(all);
}

int ranks_agree(const struct ranks *r, int rc, struct err *e) { return comm_agree(r->world, rc, NULL, e); }

// ---- cores

// Whether the ranks of this machine may all use the same cores.
static bool cores_are_common(const struct ranks *r, const cpu_set_t *own)
{
    int n = comm_size(r->world);
    struct {
        int node;
        cpu_set_t set;
    } mine, *all = calloc((size_t)n, sizeof *all);
    bool common = true;
    BUG_IF(!all, "no memory for the cores of %d ranks", n);
    memset(&mine, 0, sizeof mine);
    mine.node = r->node;
    mine.set = *own;
    comm_all_gather(r->world, all, &mine, sizeof mine);
    for (int i = 0; i < n; i++)
        if (all[i].node == r->node && !CPU_EQUAL(&all[i].set, own)) common = false;
    free(all);
    return common;
}

int ranks_tie(const struct ranks *r, int threads)
{
    cpu_set_t set, part;
    int usable = host_cpus();
    if (comm_size(r->world) == 1) return threads;
    bool known = sched_getaffinity(0, sizeof set, &set) == 0;
    if (!known) CPU_ZERO(&set);
    bool common = cores_are_common(r, &set);
    if (!known || !common) return threads ? threads : usable;
    int each = usable / r->here > 0 ? usable / r->here : 1, n = CPU_COUNT(&set), seen = 0;
    if (threads > each) return threads; // more than there are: the system shall share them out
    int from = n >= r->here * each ? r->place * each : r->place % n;
    CPU_ZERO(&part);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set) && seen++ >= from && CPU_COUNT(&part) < each) CPU_SET(cpu, &part);
    if (sched_setaffinity(0, sizeof part, &part) < 0) log_warn("ranks.cores", "text=\"not parted\"");
    return threads ? threads : each;
}

// ---- devices

int ranks_use(struct ranks *r, struct dev *d, struct err *e)
{
    if (comm_size(r->world) == 1 || dev_shares_host(d)) return 0;
    int rc = ranks_agree(r, comm_nccl_open(&r->device, r->world, dev_stream(d), e), e);
    if (rc == 0) comm_set_deadline_ms(r->device, PATIENCE_MS);
    return rc;
}

// ---- the same on all

int ranks_same(const struct ranks *r, const char *what, const void *bytes, size_t n, struct err *e)
{
    int count = comm_size(r->world), odd = 0;
    char *all = malloc((size_t)count * n);
    BUG_IF(!all, "no memory to compare %d ranks", count);
    comm_all_gather(r->world, all, bytes, (int64_t)n);
    for (int i = count - 1; i > 0; i--)
        if (memcmp(all, all + (size_t)i * n, n) != 0) odd = i;
    free(all);
    int rc = ranks_agree(r, 0, e); // a rank that is gone
    if (rc < 0 || odd == 0) return rc;
    return err_set(e, E_INPUT, "rank %d has another %s than rank 0; start all ranks of a group with the same", odd,
                   what);
}

// ---- layouts

int ranks_read_layout(struct mesh_shape *out, const char *text, struct err *e)
{
    int end = 0;
    struct mesh_shape s = {0};
    bool automatic = strcmp(text, "auto") == 0;
    if (!automatic && (sscanf(text, "%4dx%4dx%4d%n", &s.guide, &s.ring, &s.heads, &end) != 3 || text[end] ||
                       s.guide < 0 || s.ring < 0 || s.heads < 0))
        return err_set(e, E_INPUT,
                       "--layout: '%s' is no layout; give the ranks of guide x ring x heads, as in 1x1x4, or auto",
                       text);
    *out = s;
    return 0;
}

void ranks_prefer(struct ranks *r, const struct mesh_shape *shapes, int n)
{
    BUG_IF(n > BRANCHES_MAX, "layouts for %d branches", n);
    memcpy(r->preferred, shapes, (size_t)n * sizeof *shapes);
}

int ranks_wish(struct ranks *r, struct mesh_shape wish, int n_heads, struct err *e)
{
    r->wish = wish;
    r->n_heads = n_heads;
    return ranks_lay(r, wish.guide > 1 ? wish.guide : 1, e);
}

void ranks_hold_guide(struct ranks *r) { r->wish.guide = r->mesh.n.guide; }

int ranks_lay(struct ranks *r, int n_branches, struct err *e)
{
    struct mesh_shape s, wish = r->wish;
    if (n_branches <= BRANCHES_MAX && r->preferred[n_branches - 1].guide) wish = r->preferred[n_branches - 1];
    int rc = mesh_plan(&s, comm_size(r->world), wish, (struct mesh_for){r->n_heads, n_branches}, e);
    if (rc < 0 || memcmp(&s, &r->mesh.n, sizeof s) == 0) return rc;
    mesh_close(&r->mesh);
    rc = mesh_open(&r->mesh, r->device ? r->device : r->world, s, e);
    if (rc == 0 && comm_rank(r->world) == 0 && comm_size(r->world) > 1)
        log_info("ranks.layout", "guide=%d ring=%d heads=%d branches=%d", s.guide, s.ring, s.heads, n_branches);
    return rc;
}

const struct mesh *ranks_mesh(const struct ranks *r) { return comm_size(r->world) > 1 ? &r->mesh : NULL; }

int ranks_sharers(const struct ranks *r, bool node, struct comm **out, struct err *e)
{
    return comm_split(r->mesh.sequence, out, node ? r->node : 0, comm_rank(r->mesh.sequence), e);
}
