// One segment's denoising by one rank and by two, on the same cores.
//
// The model is random and an eighth of the published one in width (640, 10 heads, 3 blocks); 3,120 tokens, F32, one
// step of one or two branches. One rank has two threads; two ranks have one each. They take turns, so that a machine
// that slows down slows both; the shortest of each is compared, since what disturbs only ever adds.
//
// Then the same with comm replaced by nothing: messages are counted and none is sent. What is left out is the time in
// which the ranks stood still for the wire. (What the ranks compute is then wrong, but takes as long.) Bytes are held
// against the planner's formulas, and latents against one rank's.
#include "bench/bench_comm.h"
#include "parallel/plan.h"
#include "worker/denoise.h"
#include "worker/plan/sizes.h"
#include "worker/weights/write_safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FRAMES = 2, HEIGHT = 60, WIDTH = 104, WINDOW = 5, TURNS = 5, STEPS = 1, BRANCHES = 2 };

struct scene {
    struct synth_sizes size;
    struct plan_model net;
    struct weights *weights;
};

static int write_list(const char *path, const struct synth_list *l, struct err *e)
{
    struct safetensors_out *f = NULL;
    int rc = safetensors_create(&f, path, l->head, l->n, NULL, e);
    for (int64_t i = 0; i < l->n && rc == 0; i++) {
        int64_t bytes = head_bytes(&l->head[i]);
        void *values = malloc((size_t)bytes);
        BUG_IF(!values, "no memory for a tensor");
        list_fill(l, i, 0, bytes / dtype_size(l->dtype), values);
        rc = safetensors_put(f, values, (size_t)bytes, e);
        free(values);
    }
    return rc == 0 ? safetensors_close(&f, e) : rc;
}

int scene_open(struct scene **out, struct err *e)
{
    struct scene *s = calloc(1, sizeof *s);
    char path[] = "/tmp/bench_comm_XXXXXX";
    BUG_IF(!s, "no memory for a scene");
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    s->size = synth_tiny;
    s->size.dim = 640, s->size.ffn = 1728, s->size.heads = 10, s->size.layers = 3;
    sizes_of_list(&s->net, &s->size, 4);
    struct synth_list l = {.label = "bench", .seed = 1, .dtype = DT_F32};
    list_dit(&l, &s->size);
    list_adapter(&l, &s->size);
    int rc = write_list(path, &l, e);
    list_free(&l);
    if (rc == 0) rc = weights_open(&s->weights, path, e);
    unlink(path);
    if (rc < 0)
        scene_close(&s);
    else
        *out = s;
    return rc;
}

void scene_close(struct scene **ps)
{
    struct scene *s = *ps;
    if (!s) return;
    weights_free(&s->weights);
    free(s);
    *ps = NULL;
}

// ---- one rank's part

struct part {
    const struct scene *s;
    struct dev *d;
    struct dev_arena *keep, *work;
    struct dit *dit;
};

static int part_open(struct part *p, const struct scene *s, int threads, struct comm *sharers, struct err *e)
{
    struct dit_config c = {.n_heads = s->size.heads, .text_len = (int)s->size.text_len, .audio_window = WINDOW};
    *p = (struct part){.s = s};
    int rc = dev_open(&p->d, "cpu", threads, e);
    if (rc < 0) return rc;
    p->keep = dev_arena_new(p->d, "keep", 0);
    p->work = dev_arena_new(p->d, "work", 0);
    return dit_new_shared(&p->dit, p->d, s->weights, &c, DT_F32, sharers, e);
}

static void part_close(struct part *p)
{
    dit_free(&p->dit);
    dev_arena_free(&p->work);
    dev_arena_free(&p->keep);
    dev_close(&p->d);
}

static tensor waves(struct part *p, int n, const int64_t *shape)
{
    tensor x = dev_tensor(p->keep, DT_F32, n, shape);
    for (int64_t i = 0; i < tensor_count(x); i++) ((float *)x.data)[i] = sinf((float)i * 1.7f);
    return x;
}

// One segment's steps; the latents in *x.
static int run_steps(struct part *p, const struct mesh *mesh, int branches, bool together, tensor *x, double *took,
                     struct err *e)
{
    const struct synth_sizes *z = &p->s->size;
    const float t[STEPS + 1] = {1000, 0};
    struct spec_render spec = {.text_scale = 1, .audio_scale = branches == 1 ? 1 : 4, .steps = STEPS};
    struct guide guide;
    dev_arena_reset(p->keep, 0);
    *x = waves(p, SHAPE(z->vae_z, FRAMES, HEIGHT, WIDTH));
    tensor y = waves(p, SHAPE(z->vae_z + 4, FRAMES, HEIGHT, WIDTH));
    struct dit_picture picture = dit_picture_new(p->dit, p->keep, waves(p, SHAPE(z->clip_tokens, z->clip_dim)), NULL);
    struct dit_words words = dit_words_new(p->dit, p->keep, waves(p, SHAPE(20, z->text_dim)), NULL);
    struct dit_voice voice = dit_voice_new(
        p->dit, p->keep, waves(p, SHAPE(1, 1 + 4 * (FRAMES - 1), WINDOW, z->voice_layers, z->voice_dim)), NULL);
    struct dit_voice silence = dit_voice_null(p->dit, p->keep, FRAMES);
    guide_init(&guide, p->keep, &spec, *x);
    struct denoise n = {.dit = p->dit,
                        .n_steps = STEPS,
                        .t = t,
                        .y = y,
                        .picture = &picture,
                        .words = &words,
                        .voice = &voice,
                        .silence = &silence,
                        .guide = &guide,
                        .mesh = mesh,
                        .together = together};
    if (mesh) comm_barrier(mesh->world);
    double from = comm_bench_now();
    int rc = denoise_run(&n, p->work, *x, e);
    *took = comm_bench_now() - from;
    return rc;
}

// ---- layouts

struct layout {
    const char *name;
    struct mesh_shape shape;
    bool shared;
    int branches;
};
static const struct layout layouts[] = {
    {"heads 2", {1, 1, 2}, false, 1},
    {"ring 2", {1, 2, 1}, false, 1},
    {"guide 2", {2, 1, 1}, false, 2},
    {"heads 2, weights shared", {1, 1, 2}, true, 1},
    {"heads 2, shared, two branches", {1, 1, 2}, true, 2},
};

struct result {
    double alone, ranks, dry; // the shortest
    double off;               // largest difference of latents over the largest value
    int64_t exchange, ring, weights, foretold_exchange, foretold_ring, foretold_weights;
};

static double least(double a, double b) { return a == 0 || b < a ? b : a; }

static double difference(tensor got, const float *want)
{
    double most = 0, largest = 0;
    for (int64_t i = 0; i < tensor_count(got); i++) {
        most = fmax(most, fabs((double)((float *)got.data)[i] - (double)want[i]));
        largest = fmax(largest, fabs((double)want[i]));
    }
    return most / largest;
}

static void count(const struct part *p, const struct mesh *m, struct result *r)
{
    struct comm *w = dit_block_comm(p->dit, DIT_STEP);
    r->exchange = comm_counted(m->heads, COMM_ALL_TO_ALL).sent_bytes;
    r->ring = comm_counted(m->ring, COMM_TRADE).sent_bytes;
    r->weights = w ? comm_counted_all(w).sent_bytes : 0;
}

static void count_anew(const struct part *p, const struct mesh *m)
{
    struct comm *w = dit_block_comm(p->dit, DIT_STEP);
    comm_count_reset(m->heads);
    comm_count_reset(m->ring);
    if (w) comm_count_reset(w);
}

static void foretell(const struct scene *s, const struct layout *l, struct result *r)
{
    struct plan_job j = {.frames = FRAMES, .gh = HEIGHT / 2, .gw = WIDTH / 2, .branches = l->branches, .speakers = 1};
    struct plan_rates rates = {.linear = 1, .attention = 1, .conv = 1, .copy = 1, .near = 1, .far = 1};
    struct plan_row y = plan_predict(&s->net, &j, &rates, l->shape, l->shared ? PLAN_ALL : PLAN_WHOLE);
    int mine = l->branches / l->shape.guide;
    r->foretold_exchange = y.exchange_bytes * mine * STEPS;
    r->foretold_ring = y.ring_bytes * mine * STEPS;
    r->foretold_weights = y.weight_bytes * STEPS;
}

// One rank with all cores, on the first rank. The others sleep for as long as it took last, since a rank that waits for
// a message looks for it all the time, on a core that is not its own now.
static int run_alone(struct part *p, struct comm *world, const struct layout *l, float **want, struct result *r,
                     struct err *e)
{
    tensor x;
    double took = 0, last = r->alone;
    comm_bcast(world, 0, &last, sizeof last);
    if (comm_rank(world) != 0) usleep((useconds_t)(last * 1e6));
    int rc = comm_rank(world) == 0 ? run_steps(p, NULL, l->branches, false, &x, &took, e) : 0;
    if (rc == 0 && comm_rank(world) == 0) {
        if (!*want) *want = malloc((size_t)tensor_bytes(x));
        BUG_IF(!*want, "no memory for latents");
        memcpy(*want, x.data, (size_t)tensor_bytes(x));
    }
    if (took > 0) r->alone = least(r->alone, took);
    return comm_agree(world, rc, NULL, e);
}

static int run_together(struct part *p, const struct mesh *m, const struct layout *l, const float *want,
                        struct result *r, struct err *e)
{
    tensor x;
    double took = 0;
    count_anew(p, m);
    int rc = run_steps(p, m, l->branches, l->shared, &x, &took, e);
    if (rc < 0) return rc;
    r->ranks = least(r->ranks, took);
    count(p, m, r);
    if (want) r->off = fmax(r->off, difference(x, want));
    comm_barrier(m->world);
    return comm_agree(m->world, 0, NULL, e);
}

// The last runs of a part: blocks that seemed to come are not there.
static int run_without_wire(struct part *p, const struct mesh *m, const struct layout *l, struct result *r,
                            struct err *e)
{
    tensor x;
    double took = 0;
    comm_set_dry(m->world, true);
    int rc = run_steps(p, m, l->branches, l->shared, &x, &took, e);
    comm_set_dry(m->world, false);
    if (rc == 0) r->dry = least(r->dry, took);
    return comm_agree(m->world, rc, NULL, e);
}

static void print_bytes(const char *what, int64_t got, int64_t foretold)
{
    if (got || foretold)
        printf("    %-9s %12lld bytes sent, %12lld foretold (%+.2f %%)\n", what, (long long)got, (long long)foretold,
               foretold ? 100.0 * ((double)got / (double)foretold - 1) : 0.0);
}

static void print(const struct layout *l, const struct result *r)
{
    printf("%-30s %8.3f %8.3f %8.3f  %7.3f %9.3f %6.1f %%  %9.1e\n", l->name, r->alone, r->ranks, r->dry,
           r->alone / r->ranks, r->ranks - r->dry, 100 * (r->ranks - r->dry) / r->ranks, r->off);
    print_bytes("heads", r->exchange, r->foretold_exchange);
    print_bytes("ring", r->ring, r->foretold_ring);
    print_bytes("weights", r->weights, r->foretold_weights);
}

static int bench_layout(const struct scene *s, struct comm *world, const struct layout *l, struct err *e)
{
    struct part alone = {0}, part = {0};
    struct mesh m = {0};
    struct result r = {0};
    float *want = NULL;
    int rc = part_open(&alone, s, 2, NULL, e);
    rc = comm_agree(world, rc, NULL, e);
    if (rc == 0) rc = mesh_open(&m, world, l->shape, e);
    if (rc == 0) rc = part_open(&part, s, 1, l->shared ? m.heads : NULL, e);
    for (int i = 0; i < TURNS && rc == 0; i++) {
        rc = run_alone(&alone, world, l, &want, &r, e);
        if (rc == 0) rc = run_together(&part, &m, l, want, &r, e);
    }
    for (int i = 0; i < TURNS && rc == 0; i++) rc = run_without_wire(&part, &m, l, &r, e);
    if (rc == 0) foretell(s, l, &r);
    if (rc == 0 && comm_rank(world) == 0) print(l, &r);
    free(want);
    part_close(&part);
    part_close(&alone);
    mesh_close(&m);
    return rc;
}

int scene_bench(const struct scene *s, struct comm *world, struct err *e)
{
    int rc = 0;
    if (comm_size(world) != 2) return err_set(e, E_INPUT, "a segment is for two ranks, not %d", comm_size(world));
    if (comm_rank(world) == 0)
        printf("Two ranks (%s) of one thread beside one rank of two; seconds, the shortest of %d\n%-30s %8s %8s %8s  "
               "%7s %9s %8s  %9s\n",
               comm_transport(world), TURNS, "layout", "1x2", "2x1", "no wire", "1x2/2x1", "exposed", "", "unlike");
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts && rc == 0; i++)
        rc = bench_layout(s, world, &layouts[i], e);
    return rc;
}
