// The predictions against numbers worked out by hand for the published model on stated devices: work, bytes, seconds,
// what hides and what does not, memory; and the choice among layouts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/plan.h"

#include <math.h>
#include <string.h>

enum { ROOM = 128 };

// Within `part` of what was worked out.
static void near_to(double got, double want, double part)
{
    if (!(fabs(got - want) <= part * fabs(want))) fail_msg("%g is not within %g %% of %g", got, 100 * part, want);
}

static struct plan_model published(void)
{
    int64_t d = 5120, f = 13824;
    return (struct plan_model){.dim = d,
                               .ffn = f,
                               .heads = 40,
                               .layers = 40,
                               .out_dim = 16,
                               .words = 512,
                               .picture = 257,
                               .voice = 32,
                               .step_bytes = 2 * (8 * d * d + 2 * d * f),
                               .context_bytes = 2 * (4 * d * d + 2 * d * 768),
                               .rest_bytes = 880000000,
                               .encoder_bytes = {11400000000, 1300000000, 400000000},
                               .words_blocks = 24 * 386000000L,
                               .words_block = 386000000,
                               .size = 2,
                               .decode_ops = 8.5e6,
                               .encode_ops = 5.3e6,
                               .decode_bytes = 4000};
}

// 480x832, 81 frames.
static struct plan_job job_480(int branches)
{
    return (struct plan_job){.frames = 21,
                             .gh = 30,
                             .gw = 52,
                             .pictures = 81,
                             .motion = 9,
                             .branches = branches,
                             .texts = branches > 2 ? 2 : 1,
                             .speakers = 1,
                             .steps = 40,
                             .silence = branches > 1};
}

static struct plan_rates h100(double attention)
{
    return (struct plan_rates){.linear = 700e12,
                               .attention = attention,
                               .conv = 200e12,
                               .copy = 3e12,
                               .near = 300e9,
                               .far = 45e9,
                               .memory = 80000000000};
}

static struct mesh_shape shape(int guide, int ring, int heads) { return (struct mesh_shape){guide, ring, heads}; }

static void work_of_a_forward(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_job j = job_480(1);
    struct plan_rates r = {.linear = 1, .attention = 1, .conv = 1, .copy = 1, .near = 1, .far = 1};
    struct plan_row y = plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE);
    near_to(y.linear, 921e12, 0.005);
    near_to(y.attention, 901e12, 0.005);
    near_to(y.edges, 275e12 + 19e12, 0.02);
    assert_int_equal(y.rows, 32760);
    assert_true(y.exchange == 0 && y.ring == 0 && y.weights == 0 && y.gather == 0);
    j.gh = 44, j.gw = 80; // 704x1280
    y = plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE);
    near_to(y.linear, 2077e12, 0.005);
    near_to(y.attention, 4525e12, 0.005);
    m.dim = 640, m.ffn = 1728, m.heads = 5; // an eighth of the width: an eighth of attention, a 64th of products
    near_to(plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE).linear, 2077e12 / 64, 0.005);
    near_to(plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE).attention, 4525e12 / 8, 0.005);
}

static void seconds_on_one_and_eight(void **state)
{
    (void)state;
    static const struct {
        double attention, one, eight;
    } rows[] = {{350e12, 3.99, 0.52}, {480e12, 3.30, 0.43}, {600e12, 2.92, 0.38}};
    struct plan_model m = published();
    struct plan_job j = job_480(1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct plan_rates r = h100(rows[i].attention);
        near_to(plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE).step, rows[i].one, 0.01);
        near_to(plan_predict(&m, &j, &r, shape(1, 1, 8), PLAN_WHOLE).step, rows[i].eight, 0.02);
    }
}

static void bytes_of_heads_and_ring(void **state)
{
    (void)state;
    static const struct {
        int ring, heads;
        double exchange, travel; // MB a layer
    } rows[] = {{1, 2, 336, 0}, {1, 4, 252, 0},  {1, 8, 147, 0},  {2, 1, 0, 336}, {4, 1, 0, 503},
                {8, 1, 0, 587}, {2, 4, 126, 84}, {4, 2, 84, 252}, {2, 8, 74, 42}, {4, 4, 63, 126}};
    struct plan_model m = published();
    struct plan_job j = job_480(1);
    struct plan_rates r = h100(600e12);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct plan_row y = plan_predict(&m, &j, &r, shape(1, rows[i].ring, rows[i].heads), PLAN_WHOLE);
        near_to((double)y.exchange_bytes / 40e6, rows[i].exchange, 0.01);
        near_to((double)y.ring_bytes / 40e6, rows[i].travel, 0.01);
    }
    r.near = 370e9; // 16 ms of a forward's 0.38 s
    near_to(plan_predict(&m, &j, &r, shape(1, 1, 8), PLAN_WHOLE).exchange, 0.016, 0.01);
    j.gw = 53; // 33,390 tokens: 8 ranks hold 4,174, two of them nothing but padding's
    assert_int_equal(plan_predict(&m, &j, &r, shape(1, 1, 8), PLAN_WHOLE).rows, 4174);
}

// What hides is paid for where it passes through memory.
static double passed(int64_t bytes, const struct plan_rates *r) { return 2 * (double)bytes / r->copy; }

// A ring hides when a block has more tokens than operations of attention per byte of the link.
static void ring_hides(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_job j = job_480(1);
    struct plan_rates r = h100(550e12);
    r.near = 370e9; // 1,490 tokens: up to 21 ranks
    r.hides = true;
    struct plan_row y = plan_predict(&m, &j, &r, shape(1, 21, 1), PLAN_WHOLE);
    near_to(y.ring, passed(y.ring_bytes, &r), 1e-6);
    y = plan_predict(&m, &j, &r, shape(1, 23, 1), PLAN_WHOLE);
    assert_true(y.ring > 1.01 * passed(y.ring_bytes, &r));
    r.near = 45e9; // 12,200: 2 ranks
    y = plan_predict(&m, &j, &r, shape(1, 2, 1), PLAN_WHOLE);
    near_to(y.ring, passed(y.ring_bytes, &r), 1e-6);
    y = plan_predict(&m, &j, &r, shape(1, 3, 1), PLAN_WHOLE);
    double some = y.ring - passed(y.ring_bytes, &r);
    r.hides = false;
    assert_true(some > 0 && plan_predict(&m, &j, &r, shape(1, 3, 1), PLAN_WHOLE).ring > 2 * some);
}

// Two nodes of eight: heads inside, the ring across.
static void slow_links(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_job j = job_480(1);
    struct plan_rates r = h100(600e12);
    r.node = 8;
    r.hides = true;
    struct plan_row best[ROOM];
    assert_true(plan_list(best, ROOM, 16, &m, &j, &r) > 5);
    assert_int_equal(best->shape.heads, 8);
    assert_int_equal(best->shape.ring, 2);
    near_to(best->ring, passed(best->ring_bytes, &r), 1e-6);
    // heads across nodes: of 15 peers 8 are far, each with a sixteenth
    double x = 32760.0 / 16 * 5120 * 2, wait = 40 * 4 * x * 8 / 16 / 45e9;
    m.heads = 48;
    near_to(plan_predict(&m, &j, &r, shape(1, 1, 16), PLAN_WHOLE).exchange, wait, 0.01);
}

// In units of one forward, where nothing is lost on the wire.
static void branches(void **state)
{
    (void)state;
    static const struct {
        int n, branches;
        double steps;
    } rows[] = {{1, 3, 3},     {2, 3, 1.5},    {2, 2, 1},       {3, 3, 1},      {3, 2, 0.667},  {4, 3, 0.75},
                {4, 2, 0.5},   {6, 3, 0.5},    {6, 2, 0.333},   {8, 3, 0.375},  {8, 2, 0.25},   {8, 1, 0.125},
                {12, 3, 0.25}, {12, 2, 0.167}, {16, 3, 0.1875}, {16, 2, 0.125}, {24, 3, 0.125}, {24, 1, 0.042}};
    struct plan_model m = published();
    struct plan_rates r = h100(600e12);
    r.near = 1e18;
    r.memory = INT64_MAX;
    struct plan_job one = job_480(1);
    double unit = plan_predict(&m, &one, &r, shape(1, 1, 1), PLAN_WHOLE).step;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct plan_job j = job_480(rows[i].branches);
        struct plan_row best[ROOM];
        assert_true(plan_list(best, ROOM, rows[i].n, &m, &j, &r) > 0);
        near_to(best->step / unit, rows[i].steps, 0.025); // a ring moves its sums
    }
}

static void spread_weights(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_job j = job_480(3);
    struct plan_rates r = h100(600e12);
    r.near = 370e9;
    r.hides = true;
    struct plan_row y = plan_predict(&m, &j, &r, shape(1, 1, 8), PLAN_ALL);
    near_to((double)y.weight_bytes / 40e6, 615, 0.005);   // a layer
    near_to((double)y.weight_bytes / 1e9, 24.6, 0.005);   // a forward
    near_to(y.weights, passed(y.weight_bytes, &r), 1e-6); // 1.7 ms behind 27
    assert_int_equal(y.sharers, 8);
    r.hides = false;
    near_to(plan_predict(&m, &j, &r, shape(1, 1, 8), PLAN_ALL).weights, 0.067, 0.01);
    // the fullest rank reads words: their embedding, and of their blocks a share and two
    double blocks = 40 * 928e6 / 8 + 2 * 928e6 + 0.88e9, embedding = 11.4e9 - 24 * 386e6;
    near_to((double)y.held, blocks + embedding + 24 * 386e6 / 8 + 2 * 386e6, 0.002);
    r.hides = true;
    r.near = 20e9; // a card behind PCIe: 31 ms a block, behind 9 it does not hide; branches together hide it nearly
    struct plan_job single = job_480(1);
    double through = passed(y.weight_bytes, &r);
    double alone = plan_predict(&m, &single, &r, shape(1, 1, 8), PLAN_ALL).weights - through;
    double batched = plan_predict(&m, &j, &r, shape(1, 1, 8), PLAN_ALL).weights - through;
    near_to(alone, 40 * (0.0308 - 0.0092), 0.03);
    assert_true(batched < 0.3 * alone);
    r.node = 4; // spread on each node, or over both
    assert_int_equal(plan_predict(&m, &j, &r, shape(1, 2, 4), PLAN_NODE).sharers, 4);
    assert_int_equal(plan_predict(&m, &j, &r, shape(1, 2, 4), PLAN_ALL).sharers, 8);
    y = plan_predict(&m, &j, &r, shape(3, 1, 2), PLAN_NODE);
    assert_int_equal(y.sharers, 2);
    near_to((double)y.held, 40 * 928e6 / 2 + 2 * 928e6 + 0.88e9 + embedding + 12 * 386e6 + 2 * 386e6, 0.002);
    m.encoder_bytes[1] = 20000000000; // now the fullest reads pictures, and lends to no words
    y = plan_predict(&m, &j, &r, shape(3, 1, 2), PLAN_NODE);
    near_to((double)y.held, 40 * 928e6 / 2 + 2 * 928e6 + 0.88e9 + 20e9, 0.002);
    y = plan_predict(&m, &j, &r, shape(1, 2, 4), PLAN_NODE); // or does
    near_to((double)y.held, 40 * 928e6 / 4 + 2 * 928e6 + 0.88e9 + 20e9 + 6 * 386e6 + 2 * 386e6, 0.002);
}

static void memory_of_a_rank(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_rates r = h100(600e12);
    struct plan_job j = job_480(1);
    struct plan_row y = plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE);
    near_to((double)y.caches, 630e6 + 550e6, 0.01); // words and picture; a speaker
    j = job_480(3);
    near_to((double)plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE).caches, 1049e6 + 2 * 550e6, 0.01);
    near_to((double)y.held, 37.1e9 + 0.88e9 + 13.1e9, 0.01);
    assert_true(y.fits);
    r.memory = 48000000000;
    assert_false(plan_predict(&m, &j, &r, shape(1, 1, 1), PLAN_WHOLE).fits);
    struct plan_row rows[ROOM];
    int n = plan_list(rows, ROOM, 1, &m, &j, &r);
    struct err e = {0};
    assert_int_equal(n, 1);
    assert_int_equal(plan_check(rows, n, &r, &e), E_INPUT);
    assert_non_null(strstr(e.text, "48.0 GB are there"));
    assert_non_null(strstr(e.text, "1x1x1, needs"));
    n = plan_list(rows, ROOM, 4, &m, &j, &r); // spread over four it does
    assert_int_equal(plan_check(rows, n, &r, &e), 0);
    assert_true(rows->fits && rows->sharers == 4);
    for (int i = 1; i < n; i++) assert_true(rows[i - 1].fits >= rows[i].fits);
}

// On one node of fast links: heads, and weights whole while they fit.
static void the_right_answer_for_a_node(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_rates r = h100(350e12);
    r.hides = true;
    r.node = 8;
    struct plan_job j = job_480(3);
    struct plan_row rows[ROOM];
    plan_list(rows, ROOM, 8, &m, &j, &r);
    assert_int_equal(rows->shape.heads, 8);
    assert_int_equal(rows->sharers, 1);
    r.memory = 40000000000; // they do not
    plan_list(rows, ROOM, 8, &m, &j, &r);
    assert_true(rows->fits && rows->shape.heads == 8 && rows->sharers == 8);
}

static void only_legal_ones(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_rates r = h100(600e12);
    r.memory = INT64_MAX;
    for (int branch = 1; branch <= 3; branch++)
        for (int n = 1; n <= 64; n++) {
            struct plan_job j = job_480(branch);
            struct plan_row rows[ROOM];
            int count = plan_list(rows, ROOM, n, &m, &j, &r);
            assert_true(count > 0);
            for (int i = 0; i < count; i++) {
                struct mesh_shape s;
                struct err e = {0};
                if (mesh_plan(&s, n, rows[i].shape, (struct mesh_for){40, branch}, &e) < 0) fail_msg("%s", e.text);
                assert_memory_equal(&s, &rows[i].shape, sizeof s);
                assert_true(i == 0 || rows[i - 1].segment <= rows[i].segment);
            }
        }
    struct plan_job j = job_480(1);
    struct plan_row few[2];
    assert_int_equal(plan_list(few, 2, 64, &m, &j, &r), 2); // no more than there is room
}

static void fewer_are_faster(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_job j = job_480(1);
    struct plan_rates r = h100(600e12);
    struct plan_row best[ROOM], fewer;
    plan_list(best, ROOM, 8, &m, &j, &r);
    assert_true(plan_fewer(&fewer, 8, &m, &j, &r));
    assert_true(fewer.step > best->step && fewer.shape.heads * fewer.shape.ring < 8);
    r.near = 0.1e9; // four times slower than one, as users have met
    plan_list(best, ROOM, 2, &m, &j, &r);
    assert_true(plan_fewer(&fewer, 2, &m, &j, &r) && fewer.step < best->step);
    assert_int_equal(fewer.shape.heads * fewer.shape.ring * fewer.shape.guide, 1);
    assert_false(plan_fewer(&fewer, 1, &m, &j, &r));
    // Ranks that divide the cores of one machine: one has all of them, and all of the memory.
    r = h100(600e12);
    r.shared = true;
    r.memory = 30000000000;
    plan_list(best, ROOM, 2, &m, &j, &r);
    assert_true(plan_fewer(&fewer, 2, &m, &j, &r) && fewer.fits && fewer.step < best->step);
    near_to(fewer.linear, best->linear, 0.001);
}

static void two_speakers(void **state)
{
    (void)state;
    struct plan_model m = published();
    struct plan_job one = job_480(1), two = job_480(1);
    struct plan_rates r = h100(600e12);
    two.speakers = 2;
    struct plan_row a = plan_predict(&m, &one, &r, shape(1, 1, 8), PLAN_WHOLE);
    struct plan_row b = plan_predict(&m, &two, &r, shape(1, 1, 8), PLAN_WHOLE);
    near_to(b.attention / a.attention, 1.024, 0.003);
    assert_true(b.gather > a.gather && b.gather - a.gather < 0.002);
    near_to((double)(b.caches - a.caches), 550e6, 0.01);
}

static void names(void **state)
{
    (void)state;
    struct plan_row y = {.shape = {2, 1, 4}, .sharers = 1};
    char text[32];
    assert_string_equal(plan_text(&y, text, sizeof text), "2x1x4");
    y.sharers = 4;
    y.shard = PLAN_ALL;
    assert_string_equal(plan_text(&y, text, sizeof text), "2x1x4 all");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_of_a_forward),
        cmocka_unit_test(seconds_on_one_and_eight),
        cmocka_unit_test(bytes_of_heads_and_ring),
        cmocka_unit_test(ring_hides),
        cmocka_unit_test(slow_links),
        cmocka_unit_test(branches),
        cmocka_unit_test(spread_weights),
        cmocka_unit_test(memory_of_a_rank),
        cmocka_unit_test(the_right_answer_for_a_node),
        cmocka_unit_test(only_legal_ones),
        cmocka_unit_test(fewer_are_faster),
        cmocka_unit_test(two_speakers),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
