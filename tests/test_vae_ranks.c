// The VAE split over ranks gives the bits of one rank, encoding and decoding, along either side, for bands that are not
// even and ranks without a line; and sends the bytes that its convolutions need, a line of each, and no others.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm_thread.h"
#include "parallel/split.h"
#include "worker/models/vae.h"
#include "worker/synth/parts.h"
#include "worker/weights/write_safetensors.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

enum { SEED = 29, Z = 4, LATENTS = 3, FRAMES = 1 + 4 * (LATENTS - 1), CONVS_ENCODE = 25, CONVS_DECODE = 33 };

struct scene {
    const struct weights *weights;
    const char *table;
    int64_t dim, h, w;
    float *z, *film; // of one rank alone: encoded, decoded again
    double bound;
};

static const float mean[Z] = {0.1f, -0.2f, 0, 0.4f}, deviation[Z] = {1, 2, 0.5f, 1.5f};

static struct weights *make_model(int dim)
{
    char dir[] = "/tmp/test_vae_ranks_XXXXXX", path[64];
    struct err e = {0};
    struct safetensors_out *f = NULL;
    struct weights *w = NULL;
    struct synth_sizes size = {.vae_dim = dim, .vae_z = Z};
    struct synth_list l = {.label = "test", .seed = SEED, .dtype = DT_F32};
    assert_non_null(mkdtemp(dir));
    list_vae(&l, &size);
    snprintf(path, sizeof path, "%s/vae.safetensors", dir);
    if (safetensors_create(&f, path, l.head, l.n, NULL, &e) < 0) fail_msg("%s", e.text);
    for (int64_t i = 0; i < l.n; i++) {
        int64_t bytes = head_bytes(&l.head[i]);
        void *values = malloc((size_t)bytes);
        list_fill(&l, i, 0, bytes / 4, values);
        assert_int_equal(safetensors_put(f, values, (size_t)bytes, &e), 0);
        free(values);
    }
    assert_int_equal(safetensors_close(&f, &e), 0);
    list_free(&l);
    if (weights_open(&w, path, &e) < 0) fail_msg("%s", e.text);
    unlink(path);
    rmdir(dir);
    return w;
}

static tensor film_of(const struct scene *s, struct dev_arena *a)
{
    uint64_t seed = SEED;
    tensor x = dev_tensor(a, DT_F32, SHAPE(FRAMES, s->h, s->w, 3));
    for (int64_t i = 0; i < tensor_count(x); i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        ((float *)x.data)[i] = (float)((int32_t)(seed >> 33) - (1 << 30)) / (float)(1 << 30);
    }
    return x;
}

// Encodes the film, decodes the latents; `c` NULL: alone.
static int there_and_back(const struct scene *s, struct comm *c, struct dev *d, struct dev_arena *a, tensor *z,
                          tensor *film, struct err *e)
{
    struct vae *v = NULL;
    if (vae_new(&v, d, s->weights, mean, deviation, e) < 0) return e->code;
    vae_share(v, c);
    *film = film_of(s, a);
    *z = dev_tensor(a, DT_F32, SHAPE(Z, LATENTS, s->h / 8, s->w / 8));
    vae_encode(v, a, *z, *film, NULL);
    struct vae_stream *out = vae_decode_open(v, a, s->h, s->w, NULL);
    op_fill(d, *film, 0);
    for (int64_t i = 0; i < LATENTS; i++)
        vae_decode_slice(out, tensor_slice(*film, 0, i ? 4 * i - 3 : 0, 4 * i + 1), tensor_slice(*z, 1, i, i + 1));
    vae_stream_close(&out);
    int rc = dev_sync(d, e);
    vae_free(&v);
    return rc;
}

static int lines_of(const struct scene *s) { return (int)((s->w > s->h ? s->w : s->h) / 8); }

// Whether x is y to `bound` of its largest value.
static bool near(const float *x, const float *y, int64_t n, double bound)
{
    double top = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabs((double)y[i]) > top) top = fabs((double)y[i]);
    bound *= top;
    for (int64_t i = 0; i < n; i++)
        if (!((double)x[i] - (double)y[i] <= bound && (double)y[i] - (double)x[i] <= bound)) return false;
    return true;
}

// What one side of a band sends there and back: a line of every convolution's input, in each slice's new frames, on the
// grids of 1, 2, 4 and 8 places a cell of the latents. `halving` lines go to the band before alone.
static void sides(const struct scene *s, int64_t *both, int64_t *halving)
{
    int64_t d = s->dim, cells = (s->w > s->h ? s->h : s->w) / 8;
    *both = *halving = 0;
    for (int64_t k = 0; k < LATENTS; k++) {
        int64_t two = k ? 2 : 1, four = k ? 4 : 1;
        *both += 8 * four * (3 + 4 * d) + 4 * four * 7 * d + 2 * two * 14 * d + 36 * d; // encoded
        *halving += 8 * four * d + 4 * four * 2 * d + 2 * two * 4 * d;                  // its grids
        *both += Z + 40 * d + 2 * two * 22 * d + 4 * four * 12 * d + 8 * four * 7 * d;  // decoded
        *both += two * 4 * d + 2 * four * 4 * d + 4 * four * 2 * d;                     // finer grids
    }
    *both *= cells * (int64_t)sizeof(float);
    *halving *= cells * (int64_t)sizeof(float);
}

// Halos, and in gathers the keys and values of the middle and what is handed out whole; nothing else.
static int bytes_as_written(const struct scene *s, const struct comm *world, struct err *e)
{
    int n = comm_size(world), rank = comm_rank(world), lines = lines_of(s);
    int64_t both, halving, cells = s->h * s->w / 64 / lines, own = span_length(split_even(lines, n, rank)) * cells;
    sides(s, &both, &halving);
    bool before = own > 0 && rank > 0, after = own > 0 && rank + 1 < n && rank + 1 < lines;
    int64_t middle = 2 * LATENTS * 2 * 4 * s->dim, whole = LATENTS * Z + FRAMES * 64 * 3;
    struct comm_count trade = comm_counted(world, COMM_TRADE), gather = comm_counted(world, COMM_ALL_GATHER);
    CHECK(trade.sent_bytes == (before + after) * both + before * halving);
    CHECK(gather.sent_bytes == (n - 1) * own * (middle + whole) * (int64_t)sizeof(float));
    CHECK(comm_counted_all(world).sent_bytes == trade.sent_bytes + gather.sent_bytes);
    return 0;
}

// Frames for the last rank alone: there they are those of the whole, elsewhere nothing comes but halos and the middle.
static int for_one(const struct scene *s, struct comm *world, struct dev *d, struct dev_arena *a, tensor z,
                   struct err *e)
{
    struct vae *v = NULL;
    int n = comm_size(world), root = n - 1;
    tensor film = dev_tensor(a, DT_F32, SHAPE(FRAMES, s->h, s->w, 3));
    int64_t values = tensor_count(film), line = values / lines_of(s);
    op_fill(d, film, 7);
    if (vae_new(&v, d, s->weights, mean, deviation, e) < 0) return e->code;
    vae_share(v, world);
    comm_count_reset(world);
    struct vae_stream *out = vae_decode_open(v, a, s->h, s->w, NULL);
    for (int64_t i = 0; i < LATENTS; i++)
        vae_decode_slice_for(out, root, tensor_slice(film, 0, i ? 4 * i - 3 : 0, 4 * i + 1),
                             tensor_slice(z, 1, i, i + 1));
    vae_stream_close(&out);
    vae_free(&v);
    if (dev_sync(d, e) < 0) return e->code;
    const float *got = film.data;
    bool mine = comm_rank(world) == root;
    if (mine) CHECK(near(got, s->film, values, s->bound));
    for (int64_t i = 0; i < values && !mine && n > 1; i++) CHECK(got[i] == 7);
    int64_t own = span_length(split_even(lines_of(s), n, comm_rank(world)));
    int64_t due = mine ? values - own * line : 0;
    CHECK(comm_counted(world, COMM_GATHER).received_bytes == due * (int64_t)sizeof(float));
    return 0;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    const struct scene *s = ctx;
    struct dev *d = NULL;
    tensor z, film;
    if (dev_open(&d, s->table, 1, e) < 0) return e->code;
    struct dev_arena *a = dev_arena_new(d, "rank", 1 << 28);
    int rc = there_and_back(s, world, d, a, &z, &film, e);
    if (rc < 0) return rc;
    CHECK(near(z.data, s->z, tensor_count(z), s->bound));
    CHECK(near(film.data, s->film, tensor_count(film), s->bound));
    if (s->bound == 0) CHECK(memcmp(film.data, s->film, (size_t)tensor_bytes(film)) == 0);
    // One group of messages a convolution of 3x3 and slice, on ranks that have a line to compute.
    bool works = comm_size(world) > 1 && comm_rank(world) < lines_of(s);
    CHECK(comm_counted(world, COMM_TRADE).calls == (works ? LATENTS * (CONVS_ENCODE + CONVS_DECODE) : 0));
    if (bytes_as_written(s, world, e) < 0) return e->code;
    int n = comm_size(world);
    if ((n == 2 || n == 8) && for_one(s, world, d, a, z, e) < 0) return e->code;
    dev_arena_free(&a);
    dev_close(&d);
    return comm_check(world, e);
}

static void split(const struct weights *w, int dim, const char *table, double bound, int64_t height, int64_t width)
{
    static const int ranks[] = {1, 2, 3, 5, 8};
    struct scene s = {.weights = w, .table = table, .dim = dim, .h = height, .w = width, .bound = bound};
    struct err e = {0};
    struct dev *d = NULL;
    tensor z, film;
    assert_int_equal(dev_open(&d, table, 1, &e), 0);
    struct dev_arena *a = dev_arena_new(d, "alone", 1 << 28);
    if (there_and_back(&s, NULL, d, a, &z, &film, &e) < 0) fail_msg("%s", e.text);
    s.z = z.data;
    s.film = film.data;
    for (int i = 0; i < 5; i++)
        if (comm_thread_run(ranks[i], rank_main, &s, &e) < 0)
            fail_msg("%s, %d ranks, %dx%d: %s", table, ranks[i], (int)width, (int)height, e.text);
    dev_arena_free(&a);
    dev_close(&d);
}

static void bands_equal_the_whole(void **state)
{
    (void)state;
    struct weights *w = make_model(2);
    split(w, 2, "ref", 0, 16, 40); // five columns
    split(w, 2, "ref", 0, 32, 8);  // four lines: eight ranks have too many
    weights_free(&w);
    // Up to 64 channels a band has the bits of the whole on the fast table as well.
    w = make_model(16);
    split(w, 16, "cpu", 1e-6, 16, 40);
    split(w, 16, "cpu", 1e-6, 40, 16);
    weights_free(&w);
    // Of more, oneDNN adds up the taps of 3x3x3 in pieces, and a piece's length hangs on the picture's (conv_fast.c): 1
    // to 2e-6 a convolution, all in all 3.3e-6 after thirty layers.
    w = make_model(32);
    split(w, 32, "cpu", 1e-5, 16, 40);
    weights_free(&w);
}

int main(void)
{
    print_message("seed %d\n", SEED);
    const struct CMUnitTest tests[] = {cmocka_unit_test(bands_equal_the_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
