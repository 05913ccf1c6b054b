// The library's own example of a product, no more: what our op is held against.
#include "bench/peer_onednn.h"

#include "proto/base/err.h"

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEED(call) BUG_IF((call) != dnnl_success, "oneDNN: " #call)

struct peer {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t arg[4];
    void *w;
    float *bias;
};

static void add_arg(struct peer *p, int i, int which, const dnnl_memory_desc_t *md, void *data)
{
    p->arg[i].arg = which;
    NEED(dnnl_memory_create(&p->arg[i].memory, md, p->engine, data));
}

struct peer *peer_open(int64_t m, int64_t n, int64_t k, enum dtype t, bool gelu, const void *x, void *y)
{
    struct peer *p = calloc(1, sizeof *p);
    BUG_IF(!p, "no memory for a peer");
    dnnl_data_type_t type = t == DT_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t xm, wm, bm, ym;
    dnnl_dims_t xd = {m, k}, wd = {k, n}, bd = {1, n}, yd = {m, n};
    NEED(dnnl_engine_create(&p->engine, dnnl_cpu, 0));
    NEED(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags));
    NEED(dnnl_memory_desc_init_by_tag(&xm, 2, xd, type, dnnl_ab));
    NEED(dnnl_memory_desc_init_by_tag(&wm, 2, wd, type, dnnl_format_tag_any));
    NEED(dnnl_memory_desc_init_by_tag(&bm, 2, bd, dnnl_f32, dnnl_ab));
    NEED(dnnl_memory_desc_init_by_tag(&ym, 2, yd, type, dnnl_ab));
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t post;
    dnnl_primitive_desc_t pd;
    NEED(dnnl_matmul_desc_init(&op, &xm, &wm, &bm, &ym));
    NEED(dnnl_primitive_attr_create(&attr));
    NEED(dnnl_post_ops_create(&post));
    if (gelu) NEED(dnnl_post_ops_append_eltwise(post, 1, dnnl_eltwise_gelu_tanh, 0, 0));
    NEED(dnnl_primitive_attr_set_post_ops(attr, post));
    NEED(dnnl_primitive_desc_create(&pd, &op, attr, p->engine, NULL));
    NEED(dnnl_primitive_create(&p->primitive, pd));
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(packed);
    p->w = aligned_alloc(64, (bytes + 63) / 64 * 64);
    p->bias = calloc((size_t)n, sizeof *p->bias);
    BUG_IF(!p->w || !p->bias, "no memory for a peer");
    for (size_t i = 0; i < bytes / (size_t)dtype_size(t); i++)
        if (t == DT_BF16)
            ((uint16_t *)p->w)[i] = f32_to_bf16((float)(i * 7919 % 1009) * 1e-3f - 0.5f);
        else
            ((float *)p->w)[i] = (float)(i * 7919 % 1009) * 1e-3f - 0.5f;
    add_arg(p, 0, DNNL_ARG_SRC, &xm, (void *)x);
    add_arg(p, 1, DNNL_ARG_WEIGHTS, packed, p->w);
    add_arg(p, 2, DNNL_ARG_BIAS, &bm, p->bias);
    add_arg(p, 3, DNNL_ARG_DST, &ym, y);
    dnnl_primitive_desc_destroy(pd);
    dnnl_post_ops_destroy(post);
    dnnl_primitive_attr_destroy(attr);
    return p;
}

void peer_run(struct peer *p)
{
    NEED(dnnl_primitive_execute(p->primitive, p->stream, 4, p->arg));
    NEED(dnnl_stream_wait(p->stream));
}

void peer_close(struct peer **pp)
{
    struct peer *p = *pp;
    if (!p) return;
    for (int i = 0; i < 4; i++) dnnl_memory_destroy(p->arg[i].memory);
    dnnl_primitive_destroy(p->primitive);
    dnnl_stream_destroy(p->stream);
    dnnl_engine_destroy(p->engine);
    free(p->w);
    free(p->bias);
    free(p);
    *pp = NULL;
}

const char *peer_version(char *text, size_t n)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, n, "onednn %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}
