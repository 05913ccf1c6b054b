// mesh and split: the choice of a layout, its refusals, its communicators; shares of rows, lines and frames.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm_thread.h"
#include "parallel/mesh.h"
#include "parallel/split.h"

#include <stdio.h>
#include <string.h>

static void layouts_are_chosen(void **state)
{
    (void)state;
    // ranks, branches -> guide, ring, heads, for a model of 40 heads
    static const int rows[][5] = {
        {1, 1, 1, 1, 1},  {2, 1, 1, 1, 2},  {3, 1, 1, 3, 1},  {6, 1, 1, 3, 2},  {8, 1, 1, 1, 8},  {12, 1, 1, 3, 4},
        {16, 1, 1, 2, 8}, {24, 1, 1, 3, 8}, {1, 3, 1, 1, 1},  {2, 3, 1, 1, 2},  {3, 3, 3, 1, 1},  {4, 3, 1, 1, 4},
        {6, 3, 3, 1, 2},  {8, 3, 1, 1, 8},  {12, 3, 3, 1, 4}, {16, 3, 1, 2, 8}, {24, 3, 3, 1, 8}, {2, 2, 2, 1, 1},
        {4, 2, 2, 1, 2},  {6, 2, 2, 3, 1},  {8, 2, 2, 1, 4},  {12, 2, 2, 3, 2}, {16, 2, 2, 1, 8}, {7, 3, 1, 7, 1},
    };
    struct err e = {0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct mesh_shape s = {0};
        struct mesh_for f = {.n_heads = 40, .n_branches = rows[i][1]};
        assert_int_equal(mesh_plan(&s, rows[i][0], (struct mesh_shape){0}, f, &e), 0);
        if (s.guide != rows[i][2] || s.ring != rows[i][3] || s.heads != rows[i][4])
            fail_msg("%d ranks, %d branches: guide %d x ring %d x heads %d", rows[i][0], rows[i][1], s.guide, s.ring,
                     s.heads);
    }
    struct mesh_shape s = {0};
    struct mesh_for f = {.n_heads = 40, .n_branches = 2};
    assert_int_equal(mesh_plan(&s, 8, (struct mesh_shape){.ring = 2}, f, &e), 0);
    assert_true(s.guide == 2 && s.ring == 2 && s.heads == 2);
    assert_int_equal(mesh_plan(&s, 8, (struct mesh_shape){.guide = 1, .heads = 2}, f, &e), 0);
    assert_true(s.guide == 1 && s.ring == 4 && s.heads == 2);
}

static void refusal(int n, struct mesh_shape wish, struct mesh_for f, const char *says)
{
    struct err e = {0};
    struct mesh_shape s = {0};
    assert_int_equal(mesh_plan(&s, n, wish, f, &e), E_INPUT);
    if (!strstr(e.text, says)) fail_msg("'%s' does not say '%s'", e.text, says);
}

static void layouts_are_refused(void **state)
{
    (void)state;
    struct mesh_for f = {.n_heads = 40, .n_branches = 3};
    refusal(3, (struct mesh_shape){.heads = 3}, f, "3 ranks cannot share the model's 40 attention heads evenly");
    refusal(3, (struct mesh_shape){.heads = 3}, f, "use 1, 2, 4, 5, 8, 10, 20 or 40");
    refusal(6, (struct mesh_shape){.guide = 2}, f, "2 ranks for 3 guidance branches; use 1");
    refusal(3, (struct mesh_shape){.guide = 1, .ring = 2, .heads = 2}, f,
            "needs 4 ranks, and there are 3; start as many");
    refusal(4, (struct mesh_shape){.guide = 1, .ring = 1, .heads = 2}, f, "uses 2 of 4 ranks; start 2");
    refusal(5, (struct mesh_shape){.ring = 2}, f, "needs a multiple of 2 ranks, and there are 5");
    refusal(3, (struct mesh_shape){.guide = 1, .ring = 1}, f, "3 ranks cannot share");
    refusal(8, (struct mesh_shape){.guide = 3, .ring = 1 << 28, .heads = 40}, f,
            "needs 32212254720 ranks, and there are 8");
    refusal(0, (struct mesh_shape){0}, f, "at least 1");
    refusal(4, (struct mesh_shape){.ring = -4}, f, "negative");
}

// Every rank tells the others of its axes who it is.
static int axes(struct comm *world, void *ctx, struct err *e)
{
    const struct mesh_shape *s = ctx;
    struct mesh m = {0};
    if (mesh_open(&m, world, *s, e) < 0) return e->code;
    int rank = comm_rank(world), seen[8];
    if (m.i_heads + s->heads * (m.i_ring + s->ring * m.i_guide) != rank) return err_set(e, E_FATAL, "order of axes");
    struct comm *axis[] = {m.heads, m.ring, m.guide, m.sequence};
    int step[] = {1, s->heads, s->heads * s->ring, 1},
        own[] = {m.i_heads, m.i_ring, m.i_guide, rank % (s->heads * s->ring)};
    int size[] = {s->heads, s->ring, s->guide, s->heads * s->ring};
    for (int k = 0; k < 4; k++) {
        if (comm_size(axis[k]) != size[k] || comm_rank(axis[k]) != own[k])
            return err_set(e, E_FATAL, "axis %d: rank %d of %d", k, comm_rank(axis[k]), comm_size(axis[k]));
        comm_all_gather(axis[k], seen, &rank, sizeof rank);
        for (int i = 0; i < size[k]; i++)
            if (seen[i] != rank + (i - own[k]) * step[k]) return err_set(e, E_FATAL, "axis %d has rank %d", k, seen[i]);
    }
    mesh_close(&m);
    return comm_check(world, e);
}

static void axes_are_opened(void **state)
{
    (void)state;
    struct mesh_shape shapes[] = {{1, 1, 1}, {3, 1, 1}, {1, 3, 1}, {1, 1, 4},
                                  {2, 2, 2}, {2, 3, 1}, {1, 2, 4}, {3, 1, 2}};
    struct err e = {0};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (comm_thread_run(shapes[i].guide * shapes[i].ring * shapes[i].heads, axes, &shapes[i], &e) < 0)
            fail_msg("%s", e.text);
    assert_int_equal(comm_thread_run(3, axes, &shapes[4], &e), E_INPUT);
}

static void shares_cover_all(void **state)
{
    (void)state;
    for (int64_t total = 1; total < 40; total++)
        for (int n = 1; n <= 9; n++) {
            int64_t rows = 0, lines = 0, longest = 0, shortest = total;
            for (int i = 0; i < n; i++) {
                struct split_rows r = split_rows(total, n, i);
                struct span s = split_even(total, n, i);
                assert_int_equal(r.own.from, i * r.each < total ? i * r.each : total);
                assert_true(r.each * n >= total && r.each * n - total < n && span_length(r.own) <= r.each);
                assert_int_equal(s.from, lines);
                rows += span_length(r.own);
                lines += span_length(s);
                if (span_length(s) > longest) longest = span_length(s);
                if (span_length(s) < shortest) shortest = span_length(s);
            }
            assert_true(rows == total && lines == total && longest - shortest <= 1);
        }
    assert_int_equal(split_rows(32928, 8, 7).each, 4116);
}

static void frames_under_rows(void **state)
{
    (void)state;
    for (int64_t frame = 1; frame < 9; frame++)
        for (int64_t from = 0; from < 30; from++)
            for (int64_t to = from; to < 40; to++) {
                struct split_group g[3];
                int n = split_groups(g, (struct span){from, to}, frame);
                int64_t at = from;
                assert_in_range(n, to > from, 3);
                for (int i = 0; i < n; i++) {
                    assert_int_equal(g[i].row, at - from);
                    assert_int_equal(g[i].frame, at / frame);
                    assert_true(g[i].n_frames == 1 || g[i].rows == frame);
                    assert_true(at % frame + g[i].rows <= frame);
                    at += g[i].rows * g[i].n_frames;
                }
                assert_int_equal(at, n ? to : from);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(layouts_are_chosen), cmocka_unit_test(layouts_are_refused),
                                       cmocka_unit_test(axes_are_opened), cmocka_unit_test(shares_cover_all),
                                       cmocka_unit_test(frames_under_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
