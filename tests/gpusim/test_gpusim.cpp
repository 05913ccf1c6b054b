// gpusim itself: what it must catch, what it must let pass, and what a device that is not there says.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/common.cuh"
#include "tests/gpusim/sim.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { N = 256 };

// ---- kernels with a fault each

// Each thread takes what its neighbour in another warp left.
template <bool BARRIER> static __global__ void pass_on_kernel(float *y, const float *x)
{
    float *shared = (float *)shared_memory();
    int i = (int)threadIdx.x;
    store(shared + i, load(x + i));
    if (BARRIER) sync_block();
    store(y + i, load(shared + (i + 32) % N));
}

static __global__ void one_too_far_kernel(float *y, const float *x, int n)
{
    int64_t i = thread_index();
    if (i <= n) store(y + i % n, load(x + i));
}

static __global__ void every_other_kernel(float *y, const float *x)
{
    int i = (int)threadIdx.x;
    if (i % 2 == 0) store(y + i, load(x + i));
}

static __global__ void lanes_apart_kernel(float *y)
{
    float v = (float)threadIdx.x;
    if (threadIdx.x % 32 < 16)
        v = shuffle_xor(v, 1);
    else
        sync_warp();
    store(y + threadIdx.x, v);
}

static __global__ void leaves_early_kernel(float *y)
{
    if (threadIdx.x >= 64) return;
    sync_block();
    store(y + threadIdx.x, 1.f);
}

static __global__ void host_pointer_kernel(float *y) { store(y, 1.f); }
static __global__ void misaligned_kernel(uint4 *y, const char *x) { store(y, load((const uint4 *)(x + 4))); }

template <bool WAIT> static __global__ void copy_kernel(float *y, const float *x)
{
    char *shared = shared_memory() + 16 * threadIdx.x;
    copy_start16(shared, x + 4 * threadIdx.x, 16);
    copy_commit();
    if (WAIT) copy_wait<0>();
    for (int i = 0; i < 4; i++) store(y + 4 * threadIdx.x + i, load((const float *)shared + i));
}

// ---- kernels that are right

static __global__ void sums_kernel(float *y, const float *x)
{
    float *shared = (float *)shared_memory(), v = load(x + threadIdx.x);
    float of_warp = warp_sum(v), of_block = block_sum(v, shared), top = warp_max(v);
    store(y + threadIdx.x, any_lane(threadIdx.x == 40) ? of_warp : of_block + top);
}

// c [16, 8] = a [16, 16] b [16, 8]; a by rows, b by columns or, with TURNED, by rows.
template <bool TURNED> static __global__ void mma_kernel(float *c, const bf16 *a, const bf16 *b)
{
    bf16 *as = (bf16 *)shared_memory(), *bs = as + 256;
    int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += 32) store(as + i, load(a + i));
    for (int i = lane; i < 256; i += 32) store(bs + i, i < 128 ? load(b + i) : bf16{0});
    sync_warp();
    unsigned fa[4], fb[4];
    float sum[4] = {};
    matrix_load4(fa, as + lane % 16 * 16 + lane / 16 * 8);
    if (TURNED)
        matrix_load4_turned(fb, bs + lane % 16 * 8);
    else
        matrix_load4(fb, bs + lane % 8 * 16 + lane / 8 % 2 * 8);
    mma_bf16(sum, fa, fb[0], fb[1]);
    for (int i = 0; i < 4; i++) store(c + (lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2, sum[i]);
}

// ---- a device and two vectors on it

struct bed {
    struct dev *d;
    struct dev_arena *a;
    float *x, *y;
    float host[2 * N];
};

static void bed_open(struct bed *b)
{
    struct err e = {};
    sim_clear();
    sim_seed(7);
    if (dev_open(&b->d, "cuda", 0, &e) < 0) fail_msg("%s", e.text);
    b->a = dev_arena_new(b->d, "bed", 1 << 20);
    const int64_t n = N;
    tensor x = dev_tensor(b->a, DT_F32, 1, &n), y = dev_tensor(b->a, DT_F32, 1, &n);
    for (int i = 0; i < N; i++) b->host[i] = (float)(i % 17) - 8;
    dev_upload(b->d, x, b->host, DT_F32);
    b->x = (float *)x.data;
    b->y = (float *)y.data;
}

static void bed_close(struct bed *b)
{
    sim_clear();
    dev_arena_free(&b->a);
    dev_close(&b->d);
}

// The device must have the fault that `wanted` is part of; the bed is closed.
static void faults(struct bed *b, const char *wanted)
{
    struct err e = {};
    assert_int_equal(dev_sync(b->d, &e), E_FATAL);
    if (!strstr(e.text, wanted)) fail_msg("wanted '%s', got '%s'", wanted, e.text);
    bed_close(b);
}

static void take(struct bed *b)
{
    struct err e = {};
    const int64_t n = N;
    dev_download(b->d, b->host + N, DT_F32, tensor_of(b->y, DT_F32, 1, &n));
    if (dev_sync(b->d, &e) < 0) fail_msg("%s", e.text);
}

// ---- tests

static void missing_barrier_is_caught(void **)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct bed b;
        bed_open(&b);
        sim_seed(seed);
        LAUNCH(b.d, pass_on_kernel<false>, 1, N, N * 4, b.y, b.x);
        faults(&b, "no barrier between");
    }
}

static void barrier_is_enough(void **)
{
    struct bed b;
    bed_open(&b);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        sim_seed(seed);
        LAUNCH(b.d, pass_on_kernel<true>, 1, N, N * 4, b.y, b.x);
        take(&b);
        for (int i = 0; i < N; i++) assert_true(b.host[N + i] == b.host[(i + 32) % N]);
    }
    bed_close(&b);
}

static void read_out_of_bounds_is_caught(void **)
{
    struct bed b;
    bed_open(&b);
    LAUNCH(b.d, one_too_far_kernel, 2, N, 0, b.y, b.x, (int)N);
    faults(&b, "one_too_far_kernel: block (1, 0, 0) thread 0: reads 4 bytes outside of any tensor");
}

static void unwritten_output_is_caught(void **)
{
    struct bed b;
    bed_open(&b);
    LAUNCH(b.d, every_other_kernel, 1, N, 0, b.y, b.x);
    assert_int_equal(sim_unwritten(b.y, N * 4), N * 2);
    LAUNCH(b.d, pass_on_kernel<true>, 1, N, N * 4, b.x, b.y);
    faults(&b, "nothing has written");
}

static void other_faults_are_caught(void **)
{
    struct bed b;
    bed_open(&b);
    LAUNCH(b.d, lanes_apart_kernel, 1, N, 0, b.y);
    faults(&b, "different instructions");
    bed_open(&b);
    LAUNCH(b.d, leaves_early_kernel, 1, N, 0, b.y);
    faults(&b, "wait for others");
    bed_open(&b);
    LAUNCH(b.d, host_pointer_kernel, 1, 32, 0, b.host);
    faults(&b, "no memory of the device");
    bed_open(&b);
    LAUNCH(b.d, misaligned_kernel, 1, 32, 0, (uint4 *)b.y, (const char *)b.x);
    faults(&b, "no multiple of 16");
    bed_open(&b);
    LAUNCH(b.d, pass_on_kernel<true>, 1, N, N * 4 - 4, b.y, b.x);
    faults(&b, "the launch has 1020 bytes");
    bed_open(&b);
    LAUNCH(b.d, host_pointer_kernel, 1, 33, 0, b.y);
    faults(&b, "a launch of 33 threads");
}

static void copy_lands_when_waited_for(void **)
{
    struct bed b;
    bed_open(&b);
    LAUNCH(b.d, copy_kernel<true>, 1, N / 4, N * 4, b.y, b.x);
    take(&b);
    for (int i = 0; i < N; i++) assert_true(b.host[N + i] == b.host[i]);
    LAUNCH(b.d, copy_kernel<false>, 1, N / 4, N * 4, b.y, b.x);
    take(&b);
    for (int i = 0; i < N; i++) assert_true(isnan(b.host[N + i]));
    bed_close(&b);
}

static void sums_are_of_all(void **)
{
    struct bed b;
    bed_open(&b);
    LAUNCH(b.d, sums_kernel, 1, N, 128, b.y, b.x);
    take(&b);
    for (int w = 0; w < N / 32; w++) {
        float warp = 0, block = 0, top = b.host[w * 32];
        for (int i = 0; i < N; i++) {
            block += b.host[i];
            if (i / 32 == w) warp += b.host[i], top = fmaxf(top, b.host[i]);
        }
        for (int i = 0; i < 32; i++) assert_true(b.host[N + w * 32 + i] == (w == 1 ? warp : block + top));
    }
    bed_close(&b);
}

template <bool TURNED> static void mma_case()
{
    struct bed b;
    bed_open(&b);
    const int64_t n = 256;
    tensor a = dev_tensor(b.a, DT_BF16, 1, &n), m = dev_tensor(b.a, DT_BF16, 1, &n);
    float av[256], mv[256];
    for (int i = 0; i < 256; i++) av[i] = (float)(i * 7 % 23 - 11), mv[i] = (float)(i * 5 % 19 - 9);
    dev_upload(b.d, a, av, DT_F32);
    dev_upload(b.d, m, mv, DT_F32);
    LAUNCH(b.d, mma_kernel<TURNED>, 1, 32, 1024, b.y, (const bf16 *)a.data, (const bf16 *)m.data);
    memset(b.host, 0, sizeof b.host);
    const int64_t out = 128;
    dev_download(b.d, b.host, DT_F32, tensor_of(b.y, DT_F32, 1, &out));
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 8; c++) {
            float sum = 0;
            for (int k = 0; k < 16; k++) sum += av[r * 16 + k] * (TURNED ? mv[k * 8 + c] : mv[c * 16 + k]);
            assert_true(b.host[r * 8 + c] == sum);
        }
    bed_close(&b);
}

static void mma_multiplies(void **)
{
    mma_case<false>();
    mma_case<true>();
}

static void launches_and_bytes_are_counted(void **)
{
    struct bed b;
    struct err e = {};
    bed_open(&b);
    assert_int_equal(dev_sync(b.d, &e), 0); // what the bed has put there has landed
    sim_take_counts();
    LAUNCH(b.d, pass_on_kernel<true>, 1, N, N * 4, b.y, b.x);
    struct sim_counts c = sim_take_counts();
    assert_int_equal(c.launches, 1);
    assert_int_equal(c.loaded, N * 4);
    assert_int_equal(c.stored, N * 4);
    bed_close(&b);
}

static void arena_gives_memory_and_takes_it_back(void **)
{
    struct bed b;
    bed_open(&b);
    const int64_t n = N;
    int64_t mark = dev_arena_mark(b.a);
    tensor t = dev_tensor(b.a, DT_F32, 1, &n);
    dev_upload(b.d, t, b.host, DT_F32);
    dev_arena_reset(b.a, mark);
    LAUNCH(b.d, pass_on_kernel<true>, 1, N, N * 4, b.y, (const float *)t.data);
    faults(&b, "outside of any tensor");
    bed_open(&b);
    const int64_t much = 1 << 28;
    assert_null(dev_tensor(b.a, DT_F32, 1, &much).data);
    faults(&b, "arena bed: needs");
    sim_card_bytes(int64_t(256) << 20);
    bed_open(&b);
    struct dev_arena *big = dev_arena_new(b.d, "big", 0);
    const int64_t half = int64_t(100) << 20;
    dev_tensor(big, DT_U8, 1, &half);
    struct dev_arena *more = dev_arena_new(b.d, "more", 0);
    assert_null(dev_tensor(more, DT_U8, 1, &half).data);
    dev_arena_free(&more);
    dev_arena_free(&big);
    faults(&b, "arena more: the device has no memory left");
    sim_card_bytes(int64_t(16) << 30);
}

static void fault_sticks_and_stops_the_ops(void **)
{
    struct bed b;
    bed_open(&b);
    const int64_t n = N;
    tensor x = tensor_of(b.x, DT_F32, 1, &n);
    LAUNCH(b.d, host_pointer_kernel, 1, 32, 0, b.host);
    op_mul(b.d, x, x, x);
    dev_download(b.d, b.host + N, DT_F32, x); // nothing arrives, nothing crashes
    faults(&b, "host_pointer_kernel");
}

static void machine_without_card_is_told(void **)
{
    struct dev *d = NULL;
    struct err e = {};
    sim_clear();
    static const struct {
        int driver, cards;
        const char *says;
    } absent[] = {
        {0, 0, "this machine has no NVIDIA driver: --device cuda needs one; install it, or use --device cpu"},
        {12040, 1, "is for CUDA 12.4, and this build wants 13.0; install a newer driver, or use --device cpu"},
        {13000, 0, "has an NVIDIA driver and no card"},
    };
    for (auto &a : absent) {
        sim_driver(a.driver);
        sim_cards(a.cards, 80);
        assert_int_equal(dev_open(&d, "cuda", 0, &e), E_INPUT);
        if (!strstr(e.text, a.says)) fail_msg("%s", e.text);
    }
    sim_driver(13000);
    sim_cards(1, 70);
    assert_int_equal(dev_open(&d, "cuda", 0, &e), E_INPUT);
    assert_non_null(strstr(e.text, "sm_70"));
    assert_non_null(strstr(e.text, "sm_80"));
    sim_cards(2, 80);
    assert_int_equal(dev_open(&d, "cuda:2", 0, &e), E_INPUT);
    assert_non_null(strstr(e.text, "no card 2"));
    if (dev_open(&d, "cuda:1", 0, &e) < 0) fail_msg("%s", e.text);
    dev_close(&d);
    // The card of the launcher's local rank, chosen before anything else is started.
    sim_cards(4, 80);
    assert_int_equal(setenv("OMPI_COMM_WORLD_LOCAL_RANK", "6", 1), 0);
    dev_choose("cpu");
    assert_int_equal(sim_card_chosen(), 1);
    dev_choose("cuda");
    assert_int_equal(sim_card_chosen(), 2);
    dev_choose("cuda:3");
    assert_int_equal(sim_card_chosen(), 3);
    dev_choose("cuda:4"); // there is none, and dev_open says so
    assert_int_equal(sim_card_chosen(), 3);
    assert_int_equal(dev_open(&d, "cuda", 0, &e), 0);
    assert_int_equal(sim_card_chosen(), 2);
    dev_close(&d);
    assert_int_equal(unsetenv("OMPI_COMM_WORLD_LOCAL_RANK"), 0);
    sim_cards(1, 80);
}

// ---- ways to do an op

static decltype(ops::act) own_act;
static bool newer_was_tried;
static void act_wrong(struct dev *d, tensor y, tensor, enum act) { d->ops.fill(d, y, 0.25f); }
static void act_faulty(struct dev *d, tensor y, tensor, enum act)
{
    LAUNCH(d, leaves_early_kernel, 1, N, 0, (float *)y.data);
}
static void fill_wrong(struct ops *o) { o->act = act_wrong; }
static void fill_faulty(struct ops *o) { o->act = act_faulty; }
static void fill_own(struct ops *o) { o->act = own_act; }
static void fill_newer(struct ops *o)
{
    newer_was_tried = true;
    o->act = act_wrong;
}

// What settling says on stderr, into text.
static int settle_aloud(struct dev *d, const struct op_variant *list, int n, char *text, size_t size, struct err *e)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    int out = dup(2);
    fflush(stderr);
    assert_true(out >= 0 && dup2(fileno(f), 2) >= 0);
    int rc = variants_settle(d, 80, list, n, e);
    fflush(stderr);
    assert_true(dup2(out, 2) >= 0);
    close(out);
    rewind(f);
    text[fread(text, 1, size - 1, f)] = 0;
    fclose(f);
    return rc;
}

static void wrong_way_is_dropped_and_the_next_taken(void **)
{
    static const struct op_case cases[] = {{.op = "act", .s = {100}, .t = DT_F32, .act = ACT_SILU}};
    static const struct op_variant list[] = {
        {"act", "of a later card", 90, 0, fill_newer, cases, 1},
        {"act", "of an earlier card", 70, 75, fill_newer, cases, 1},
        {"act", "wrong", 80, 0, fill_wrong, cases, 1},
        {"act", "own", 80, 0, fill_own, cases, 1},
        {"act", "plainest", 80, 0, fill_wrong, cases, 1},
    };
    static const struct op_variant faulty[] = {{"act", "faulty", 80, 0, fill_faulty, cases, 1}};
    char text[2048];
    struct err e = {};
    struct bed b;
    bed_open(&b);
    own_act = b.d->ops.act;
    newer_was_tried = false;
    if (settle_aloud(b.d, list, 5, text, sizeof text, &e) < 0) fail_msg("%s", e.text);
    assert_true(b.d->ops.act == own_act);
    assert_false(newer_was_tried);
    assert_non_null(strstr(text, "op.dropped op=act variant=wrong"));
    assert_null(strstr(text, "variant=own"));
    assert_null(strstr(text, "variant=plainest"));
    assert_non_null(strstr(dev_name(b.d), " -act/wrong")); // a layout class of its own
    assert_int_equal(settle_aloud(b.d, list + 2, 1, text, sizeof text, &e), E_FATAL);
    assert_non_null(strstr(e.text, "no way of doing act is right"));
    assert_int_equal(settle_aloud(b.d, faulty, 1, text, sizeof text, &e), E_FATAL);
    assert_non_null(strstr(e.text, "the way 'faulty' of doing act"));
    assert_non_null(strstr(e.text, "wait for others"));
    bed_close(&b);
}

// Each op has its preferred way on a card that works, and the name says nothing of ways.
static void good_card_drops_nothing(void **)
{
    static const int archs[] = {80, 86, 89, 90, 100, 120};
    for (int arch : archs) {
        struct bed b;
        sim_cards(1, arch);
        bed_open(&b);
        assert_null(strchr(dev_name(b.d), '/'));
        bed_close(&b);
    }
    sim_cards(1, 80);
}

// A product of numbers that add up to the same in any order, or not, and what the device says it picked for it.
static void product_told(struct bed *b, int64_t rows, bool exact, char *told, size_t n)
{
    enum { WIDTH = 64 };
    int64_t mark = dev_arena_mark(b->a);
    const int64_t xs[] = {rows, WIDTH}, ws[] = {WIDTH, WIDTH};
    tensor x = dev_tensor(b->a, DT_F32, 2, xs), w = dev_tensor(b->a, DT_F32, 2, ws);
    tensor y = dev_tensor(b->a, DT_F32, 2, xs);
    float v[WIDTH * WIDTH];
    for (int i = 0; i < WIDTH * WIDTH; i++) v[i] = exact ? (float)(i * 7 % 5 - 2) : sinf((float)i) * 1e3f;
    dev_upload(b->d, x, v, DT_F32);
    dev_upload(b->d, w, v, DT_F32);
    op_linear(b->d, y, x, w, NO_TENSOR, ACT_NONE);
    struct err e = {};
    assert_int_equal(dev_sync(b->d, &e), 0);
    char *text = NULL, key[64];
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    dev_tell(b->d, to);
    fclose(to);
    snprintf(key, sizeof key, "product %d x %d x %d F32", (int)rows, (int)WIDTH, (int)WIDTH);
    char *line = strstr(text, key);
    assert_non_null(line);
    *strchr(line, '\n') = 0;
    snprintf(told, n, "%s", line);
    free(text);
    dev_arena_reset(b->a, mark);
}

static void fastest_candidate_is_picked_if_its_bytes_are_right(void **)
{
    struct bed b;
    char told[200];
    bed_open(&b);
    product_told(&b, 3, true, told, sizeof told);
    assert_non_null(strstr(told, "candidate 1 of 2, 1.0000 ms, the first 1.0000; 0 fail, 0 have other bytes"));
    sim_candidate(1, 0.5f, false);
    product_told(&b, 3, true, told, sizeof told); // chosen already
    assert_non_null(strstr(told, "candidate 1 of 2"));
    product_told(&b, 4, true, told, sizeof told);
    assert_non_null(strstr(told, "candidate 2 of 2, 0.5000 ms, the first 1.0000; 0 fail, 0 have other bytes"));
    product_told(&b, 5, false, told, sizeof told);
    assert_non_null(strstr(told, "candidate 1 of 2, 1.0000 ms, the first 1.0000; 0 fail, 1 have other bytes"));
    sim_candidate(0, 1, true);
    product_told(&b, 6, false, told, sizeof told);
    assert_non_null(strstr(told, "candidate 2 of 2, 0.5000 ms, the first 0.5000; 1 fail, 0 have other bytes"));
    sim_candidate(1, 1, true); // none: the kernel of our own does it
    product_told(&b, 7, true, told, sizeof told);
    assert_non_null(strstr(told, "none of 2 candidates works"));
    sim_candidate(0, 1, false);
    sim_candidate(1, 1, false);
    bed_close(&b);
}

// ---- records

// y = gelu((twice + 1) x w^T), by way of memory of the arena.
static void some_ops(struct bed *b, tensor y, tensor x, tensor w, float twice)
{
    int64_t mark = dev_arena_mark(b->a);
    tensor t = dev_tensor(b->a, DT_F32, x.n, x.shape);
    op_axpby(b->d, t, twice, x, 1, x);
    op_linear(b->d, y, t, w, NO_TENSOR, ACT_GELU_TANH);
    dev_arena_reset(b->a, mark);
}

enum { ROWS = 6, WIDTH = 32 };
struct record_bed {
    struct bed b;
    tensor x, w, y;
};

static void record_bed_open(struct record_bed *r)
{
    bed_open(&r->b);
    const int64_t xs[] = {ROWS, WIDTH}, ws[] = {WIDTH, WIDTH};
    float v[WIDTH * WIDTH];
    for (int i = 0; i < WIDTH * WIDTH; i++) v[i] = sinf((float)i);
    r->x = dev_tensor(r->b.a, DT_F32, 2, xs);
    r->w = dev_tensor(r->b.a, DT_F32, 2, ws);
    r->y = dev_tensor(r->b.a, DT_F32, 2, xs);
    dev_upload(r->b.d, r->w, v, DT_F32);
}

// x holds values of its own for each `turn`.
static void fill_x(struct record_bed *r, int turn)
{
    float v[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) v[i] = cosf((float)(i * (turn + 1)));
    dev_upload(r->b.d, r->x, v, DT_F32);
}

static void take_y(struct record_bed *r, float *y)
{
    struct err e = {};
    dev_download(r->b.d, y, DT_F32, r->y);
    if (dev_sync(r->b.d, &e) < 0) fail_msg("%s", e.text);
}

static void what_is_recorded_is_done_on_what_tensors_hold(void **)
{
    struct record_bed r;
    record_bed_open(&r);
    float plain[3][ROWS * WIDTH], again[ROWS * WIDTH];
    for (int i = 0; i < 3; i++) {
        fill_x(&r, i);
        some_ops(&r.b, r.y, r.x, r.w, 2);
        take_y(&r, plain[i]);
    }
    assert_true(dev_records(r.b.d));
    dev_record_begin(r.b.d);
    some_ops(&r.b, r.y, r.x, r.w, 2);
    struct dev_record *record = dev_record_end(r.b.d);
    assert_non_null(record);
    take_y(&r, again); // nothing was done meanwhile
    assert_memory_equal(again, plain[2], sizeof again);
    sim_take_counts();
    for (int i = 0; i < 3; i++) {
        fill_x(&r, i);
        assert_true(dev_repeat(r.b.d, record));
        take_y(&r, again);
        assert_memory_equal(again, plain[i], sizeof again);
    }
    assert_int_equal(sim_take_counts().graphs, 3);
    dev_record_free(&record);
    bed_close(&r.b);
}

// Why a forward may not be given a step's numbers by value.
static void a_number_given_by_value_stays_as_it_was(void **)
{
    struct record_bed r;
    record_bed_open(&r);
    float first[ROWS * WIDTH], second[ROWS * WIDTH], again[ROWS * WIDTH], number = 2;
    fill_x(&r, 0);
    some_ops(&r.b, r.y, r.x, r.w, 3);
    take_y(&r, second);
    some_ops(&r.b, r.y, r.x, r.w, number);
    take_y(&r, first);
    dev_record_begin(r.b.d);
    some_ops(&r.b, r.y, r.x, r.w, number);
    struct dev_record *record = dev_record_end(r.b.d);
    number = 3;
    assert_true(dev_repeat(r.b.d, record));
    take_y(&r, again);
    assert_memory_equal(again, first, sizeof again);
    assert_memory_not_equal(again, second, sizeof again);
    dev_record_free(&record);
    bed_close(&r.b);
}

enum trouble { CROSSES, NEW_SHAPE, SCRATCH_GROWS, ARENA_GROWS };
static void cause(struct record_bed *r, enum trouble t)
{
    float v[ROWS * WIDTH];
    const int64_t wide[] = {WIDTH, WIDTH}, more = int64_t(80) << 20;
    int64_t mark = dev_arena_mark(r->b.a);
    if (t == CROSSES) dev_download(r->b.d, v, DT_F32, r->y);
    if (t == NEW_SHAPE) op_linear(r->b.d, dev_tensor(r->b.a, DT_F32, 2, wide), r->w, r->w, NO_TENSOR, ACT_NONE);
    if (t == SCRATCH_GROWS) cuda_scratch_of(r->b.d, SCRATCH_SUM, 64 << 20);
    if (t == ARENA_GROWS) dev_tensor(r->b.a, DT_U8, 1, &more);
    dev_arena_reset(r->b.a, mark);
}

// What cannot be recorded leaves the device as it was; ops are launched one by one from then on.
static void what_cannot_be_recorded_is_done_plainly(void **)
{
    for (int t = CROSSES; t <= ARENA_GROWS; t++) {
        struct record_bed r;
        float plain[ROWS * WIDTH], again[ROWS * WIDTH];
        record_bed_open(&r);
        struct dev_arena *small = r.b.a;
        r.b.a = dev_arena_new(r.b.d, "roomy", 256 << 20);
        fill_x(&r, 0);
        some_ops(&r.b, r.y, r.x, r.w, 2);
        take_y(&r, plain);
        dev_record_begin(r.b.d);
        some_ops(&r.b, r.y, r.x, r.w, 2);
        cause(&r, (enum trouble)t);
        some_ops(&r.b, r.y, r.x, r.w, 2);
        assert_null(dev_record_end(r.b.d));
        assert_false(dev_records(r.b.d));
        some_ops(&r.b, r.y, r.x, r.w, 2);
        take_y(&r, again);
        assert_memory_equal(again, plain, sizeof again);
        dev_arena_free(&r.b.a);
        r.b.a = small;
        bed_close(&r.b);
    }
}

static void a_record_is_void_when_scratch_has_moved(void **)
{
    struct record_bed r;
    float y[ROWS * WIDTH];
    record_bed_open(&r);
    fill_x(&r, 0);
    some_ops(&r.b, r.y, r.x, r.w, 2);
    dev_record_begin(r.b.d);
    some_ops(&r.b, r.y, r.x, r.w, 2);
    struct dev_record *record = dev_record_end(r.b.d);
    assert_true(dev_repeat(r.b.d, record));
    cuda_scratch_of(r.b.d, SCRATCH_SUM, 64 << 20);
    assert_false(dev_repeat(r.b.d, record));
    take_y(&r, y);
    dev_record_free(&record);
    bed_close(&r.b);
}

// The stand-in's own care, beneath what the device asks of it.
static void a_capture_refuses_what_the_runtime_refuses(void **)
{
    struct bed b;
    bed_open(&b);
    cudaStream_t s = cuda_stream(b.d);
    cudaGraph_t g = NULL;
    void *p = NULL;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        cudaError_t code = i == 0   ? cudaMalloc(&p, 16)
                           : i == 1 ? cudaStreamSynchronize(s)
                                    : cudaMemcpyAsync(b.x, b.host, 16, cudaMemcpyHostToDevice, s);
        assert_int_equal(code, cudaErrorStreamCaptureUnsupported);
        assert_int_equal(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
        assert_null(g);
    }
    assert_string_equal(sim_capture_broken_by(), "cudaMemcpyAsync of pageable memory");
    assert_int_equal(cudaStreamEndCapture(s, &g), cudaErrorInvalidValue);
    cudaGetLastError();
    bed_close(&b);
}

static void library_checks_its_arguments(void **)
{
    cublasLtMatrixLayout_t l;
    cublasLtMatmulDesc_t p;
    uint64_t wrong = 1;
    assert_int_equal(cublasLtMatrixLayoutCreate(&l, CUDA_R_32F, 8, 4, 7), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtMatrixLayoutCreate(&l, CUDA_R_32F, 0, 4, 7), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtMatmulDescCreate(&p, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasLtMatmulDescSetAttribute(p, CUBLASLT_MATMUL_DESC_TRANSA, &wrong, sizeof wrong),
                     CUBLAS_STATUS_INVALID_VALUE);
    cublasLtMatmulDescDestroy(p);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_barrier_is_caught),
        cmocka_unit_test(barrier_is_enough),
        cmocka_unit_test(read_out_of_bounds_is_caught),
        cmocka_unit_test(unwritten_output_is_caught),
        cmocka_unit_test(other_faults_are_caught),
        cmocka_unit_test(copy_lands_when_waited_for),
        cmocka_unit_test(sums_are_of_all),
        cmocka_unit_test(mma_multiplies),
        cmocka_unit_test(launches_and_bytes_are_counted),
        cmocka_unit_test(arena_gives_memory_and_takes_it_back),
        cmocka_unit_test(fault_sticks_and_stops_the_ops),
        cmocka_unit_test(machine_without_card_is_told),
        cmocka_unit_test(wrong_way_is_dropped_and_the_next_taken),
        cmocka_unit_test(good_card_drops_nothing),
        cmocka_unit_test(fastest_candidate_is_picked_if_its_bytes_are_right),
        cmocka_unit_test(what_is_recorded_is_done_on_what_tensors_hold),
        cmocka_unit_test(a_number_given_by_value_stays_as_it_was),
        cmocka_unit_test(what_cannot_be_recorded_is_done_plainly),
        cmocka_unit_test(a_record_is_void_when_scratch_has_moved),
        cmocka_unit_test(a_capture_refuses_what_the_runtime_refuses),
        cmocka_unit_test(library_checks_its_arguments),
    };
    return cmocka_run_group_tests_name("gpusim", tests, NULL, NULL);
}
