// Sharded weights: what is taken equals what was read, bit for bit; a rank reads its own bytes once; the gathers move
// what the formula says; an error in one rank's reading is an error on all; a dry run tells the memory beforehand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parallel/comm_thread.h"
#include "parallel/mesh.h"
#include "parallel/shard.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond)) return err_set(e, E_FATAL, "%s:%d: not so: %s", __func__, __LINE__, #cond);                       \
    } while (0)

static const struct shard_tensor tensors[] = {
    {DT_BF16, 2, {37, 53}}, {DT_F32, 1, {5}}, {DT_BF16, 2, {64, 128}}, {DT_F16, 1, {1}}, {DT_F32, 2, {3, 100}},
};
enum { N_TENSORS = 5 };

struct scene {
    int n_blocks;
    int bad_block, bad_rank; // reading fails there; -1: nowhere
    struct mesh_shape shape; // gathered over heads, replicated over the rest
    atomic_llong read_bytes; // by all ranks
};

struct reader {
    struct scene *s;
    int rank;
    int64_t bytes;
};

static uint8_t byte_at(int block, int tensor_i, int64_t i)
{
    return (uint8_t)((unsigned)(block * 131 + tensor_i * 29 + i * 7) ^ (unsigned)(i >> 8));
}

static int read_bytes(void *ctx, int block, int i_tensor, int64_t from, int64_t to, void *dst, struct err *e)
{
    struct reader *r = ctx;
    if (block == r->s->bad_block && r->rank == r->s->bad_rank)
        return err_set(e, E_INPUT, "block %d is cut short", block);
    for (int64_t i = from; i < to; i++) ((uint8_t *)dst)[i - from] = byte_at(block, i_tensor, i);
    r->bytes += to - from;
    return 0;
}

static int64_t bytes_of(int i)
{
    int64_t n = dtype_size(tensors[i].dtype);
    for (int k = 0; k < tensors[i].n; k++) n *= tensors[i].shape[k];
    return n;
}

static int check_block(const tensor *t, int block, struct err *e)
{
    for (int i = 0; i < N_TENSORS; i++) {
        CHECK(t[i].dtype == tensors[i].dtype && t[i].n == tensors[i].n && tensor_bytes(t[i]) == bytes_of(i));
        CHECK((uintptr_t)t[i].data % 64 == 0);
        for (int64_t k = 0; k < bytes_of(i); k++) CHECK(((uint8_t *)t[i].data)[k] == byte_at(block, i, k));
    }
    return 0;
}

static int passes(struct shard *s, const struct scene *c, int n_ranks, struct err *e)
{
    int64_t run = shard_block_bytes(s);
    CHECK(run % (256 * n_ranks) == 0 && shard_own_bytes(s) == run / n_ranks * c->n_blocks);
    comm_count_reset(shard_comm(s));
    for (int pass = 0; pass < 3; pass++)
        for (int b = 0; b < c->n_blocks; b++) {
            int rc = check_block(shard_take(s, b), b, e);
            if (rc < 0) return rc;
            comm_poll(shard_comm(s));
            shard_give(s, b);
        }
    // Every block once a pass; the first of the next pass is on its way too. With two blocks or fewer all stay.
    int64_t gathers = c->n_blocks <= 2 ? c->n_blocks : 3 * c->n_blocks + 1;
    CHECK(comm_counted(shard_comm(s), COMM_ALL_GATHER).received_bytes ==
          (n_ranks > 1 ? gathers * (run / n_ranks * (n_ranks - 1)) : 0));
    // A pass cut short, then from the start; a block out of turn.
    const int jumps[] = {0, 1, 0, c->n_blocks - 1, 0};
    for (int i = 0; i < 5; i++) {
        int b = jumps[i] < c->n_blocks ? jumps[i] : 0, rc = check_block(shard_take(s, b), b, e);
        if (rc < 0) return rc;
        shard_give(s, b);
    }
    return 0;
}

// A dry run opens it too: what it takes of memory is told, nothing is read and nothing sent.
static int foretell(struct comm *world, struct comm *group, struct dev *d, const struct shard_for *f, int64_t *bytes,
                    struct err *e)
{
    struct dev_arena *a = dev_arena_new(d, "dry", 1 << 24);
    struct reader *r = f->ctx;
    struct shard *s = NULL;
    comm_follow(world, d);
    dev_set_dry(d, true);
    int rc = shard_open(&s, a, group, f, e);
    if (rc == 0) {
        CHECK(comm_size(shard_comm(s)) == comm_size(group) && comm_rank(shard_comm(s)) == comm_rank(group));
        for (int b = 0; b < f->n_blocks; b++) {
            shard_take(s, b);
            shard_give(s, b);
        }
        CHECK(r->bytes == 0);
    }
    *bytes = dev_arena_peak(a);
    shard_close(&s);
    dev_set_dry(d, false);
    comm_follow(world, NULL);
    dev_arena_free(&a);
    return rc;
}

static int rank_main(struct comm *world, void *ctx, struct err *e)
{
    struct scene *c = ctx;
    struct mesh m = {0};
    struct dev *d = NULL;
    if (mesh_open(&m, world, c->shape, e) < 0 || dev_open(&d, "ref", 1, e) < 0) return e->code;
    struct dev_arena *a = dev_arena_new(d, "weights", 1 << 24);
    struct reader r = {.s = c, .rank = comm_rank(world)};
    struct shard_for f = {
        .n_blocks = c->n_blocks, .n_tensors = N_TENSORS, .tensors = tensors, .read = read_bytes, .ctx = &r};
    struct shard *s = NULL;
    int64_t foretold = 0;
    int rc = foretell(world, m.heads, d, &f, &foretold, e);
    if (rc == 0) rc = shard_open(&s, a, m.heads, &f, e);
    atomic_fetch_add(&c->read_bytes, r.bytes);
    if (rc == 0) rc = passes(s, c, comm_size(m.heads), e);
    if (rc == 0) {
        int64_t slots = comm_size(m.heads) > 1 ? 2 * shard_block_bytes(s) : 0;
        CHECK(dev_arena_peak(a) == foretold);
        CHECK(dev_arena_peak(a) <= shard_own_bytes(s) + slots + 3 * 64);
    }
    shard_close(&s);
    dev_arena_free(&a);
    dev_close(&d);
    mesh_close(&m);
    return rc;
}

static void blocks_come_whole(void **state)
{
    (void)state;
    const struct mesh_shape shapes[] = {{1, 1, 1}, {1, 1, 2}, {1, 1, 3}, {1, 1, 4},
                                        {1, 1, 5}, {1, 1, 8}, {2, 1, 2}, {1, 2, 3}};
    const int blocks[] = {1, 2, 3, 6};
    int64_t block = 0;
    for (int i = 0; i < N_TENSORS; i++) block += bytes_of(i);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int k = 0; k < 4; k++) {
            struct err e = {0};
            struct scene c = {.n_blocks = blocks[k], .bad_block = -1, .shape = shapes[i]};
            int copies = c.shape.guide * c.shape.ring;
            if (comm_thread_run(copies * c.shape.heads, rank_main, &c, &e) < 0)
                fail_msg("heads %d, %d blocks: %s", c.shape.heads, blocks[k], e.text);
            assert_int_equal(c.read_bytes, copies * blocks[k] * block); // the file once per copy, in total
        }
}

static void an_error_reaches_all(void **state)
{
    (void)state;
    for (int rank = 0; rank < 3; rank++) {
        struct err e = {0};
        struct scene c = {.n_blocks = 4, .bad_block = 2, .bad_rank = rank, .shape = {1, 1, 3}};
        assert_int_equal(comm_thread_run(3, rank_main, &c, &e), E_INPUT);
        char want[64];
        snprintf(want, sizeof want, "rank %d: block 2 is cut short", rank);
        assert_string_equal(e.text, want);
    }
    struct err e = {0};
    struct scene c = {.n_blocks = 4, .bad_block = 2, .bad_rank = 3, .shape = {2, 1, 2}}; // of a part: by its own number
    assert_int_equal(comm_thread_run(4, rank_main, &c, &e), E_INPUT);
    assert_string_equal(e.text, "rank 3: block 2 is cut short");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(blocks_come_whole), cmocka_unit_test(an_error_reaches_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
