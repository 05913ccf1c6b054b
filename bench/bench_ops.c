// bench_ops [--table cpu[:set]] [--threads N] [--only TEXT] [--seconds S]: the ops at the shapes of the real model.
//
// Prints CSV: a comment line each for machine, versions and roofs, then a row per op: median time of its calls, what it
// did per second (operations for products, bytes read and written for the rest), the part of the measured roof, and for
// linear layers the ratio of oneDNN called alone to ours, the two called by turns. Shapes are those of a 480x832
// picture: a DiT block of 3,120 tokens (two latent frames; width 5,120, 40 heads, 13,824 inside), attention of longer
// clips, the VAE's convolutions at each of its resolutions (one new frame, where a slice has up to four).
#include "bench/peer_onednn.h"
#include "bench/roof.h"
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

enum { CALLS_MAX = 64, T_MAX = 8 };

// What a row runs. s: its sizes, in the order of the format beside the kind.
enum kind {
    K_LINEAR,    // rows, outputs, inputs
    K_ATTENTION, // batches, queries, heads, keys, width
    K_MAP,       // queries, heads, keys, width
    K_NORM,      // rows, width
    K_ADD_NORM,
    K_QK_ROPE, // rows, heads, width
    K_GATE_ADD,
    K_ACT,     // rows, width
    K_L2_SILU, // rows, width
    K_CONV,    // t, h, w, ci, co, kt, kh, kw, stride of h and w
    K_UPSAMPLE,
    K_COPY, // t, h, w, c: permuted to channels first
    K_LAB,  // t, h, w
    K_YUV,
};

struct row {
    const char *name;
    enum kind kind;
    enum dtype t;
    int64_t s[9];
    enum act act;
};

static const struct row rows[] = {
    {"gemm 2048", K_LINEAR, DT_BF16, {2048, 5120, 5120}},
    {"gemm 2048", K_LINEAR, DT_F32, {2048, 5120, 5120}},
    {"dit q/k/v/o", K_LINEAR, DT_BF16, {3120, 5120, 5120}},
    {"dit ffn in + gelu", K_LINEAR, DT_BF16, {3120, 13824, 5120}, ACT_GELU_TANH},
    {"dit ffn out", K_LINEAR, DT_BF16, {3120, 5120, 13824}},
    {"dit time", K_LINEAR, DT_BF16, {1, 30720, 5120}},
    {"t5 ffn", K_LINEAR, DT_BF16, {512, 10240, 4096}, ACT_GELU_TANH},
    {"attention 4096", K_ATTENTION, DT_BF16, {1, 4096, 4, 4096, 128}},
    {"attention 16384", K_ATTENTION, DT_BF16, {1, 16384, 2, 16384, 128}},
    {"attention 4096", K_ATTENTION, DT_F32, {1, 4096, 2, 4096, 128}},
    {"dit self attention", K_ATTENTION, DT_BF16, {1, 3120, 40, 3120, 128}},
    {"dit words", K_ATTENTION, DT_BF16, {1, 3120, 40, 512, 128}},
    {"dit picture", K_ATTENTION, DT_BF16, {1, 3120, 40, 257, 128}},
    {"dit voice", K_ATTENTION, DT_BF16, {2, 1560, 40, 32, 128}},
    {"dit speaker map", K_MAP, DT_BF16, {3120, 40, 1560, 128}},
    {"vae middle", K_ATTENTION, DT_F32, {1, 6240, 1, 6240, 384}},
    {"norm + modulate", K_NORM, DT_BF16, {3120, 5120}},
    {"gate + add + norm", K_ADD_NORM, DT_BF16, {3120, 5120}},
    {"q k norm + rope", K_QK_ROPE, DT_BF16, {3120, 40, 128}},
    {"gate + add", K_GATE_ADD, DT_BF16, {3120, 5120}},
    {"gelu", K_ACT, DT_BF16, {3120, 13824}, ACT_GELU_TANH},
    {"vae norm + silu", K_L2_SILU, DT_F32, {99840, 192}, ACT_SILU},
    {"vae conv 60x104", K_CONV, DT_F32, {3, 60, 104, 384, 384, 3, 3, 3, 1}},
    {"vae conv 120x208", K_CONV, DT_F32, {2, 120, 208, 384, 384, 3, 3, 3, 1}},
    {"vae conv 240x416", K_CONV, DT_F32, {1, 240, 416, 192, 192, 3, 3, 3, 1}},
    {"vae conv 480x832", K_CONV, DT_F32, {1, 480, 832, 96, 96, 3, 3, 3, 1}},
    {"vae conv out", K_CONV, DT_F32, {1, 480, 832, 96, 3, 3, 3, 3, 1}},
    {"vae conv 240x416", K_CONV, DT_BF16, {1, 240, 416, 192, 192, 3, 3, 3, 1}},
    {"vae conv down", K_CONV, DT_F32, {2, 480, 832, 96, 96, 1, 3, 3, 2}},
    {"vae conv time", K_CONV, DT_F32, {4, 120, 208, 192, 384, 3, 1, 1, 1}},
    {"vae upsample", K_UPSAMPLE, DT_F32, {4, 240, 416, 192}},
    {"copy channels first", K_COPY, DT_F32, {4, 240, 416, 16}},
    {"colour match", K_LAB, DT_F32, {4, 480, 832}},
    {"4:2:0", K_YUV, DT_F32, {4, 480, 832}},
};

struct job {
    const struct row *r;
    tensor t[T_MAX];
    struct conv conv;
    double ops, bytes; // of one call; the larger demand decides which roof counts
    struct peer *peer;
};

struct bench {
    struct dev *d;
    struct dev_arena *a;
    double seconds;
    const char *only;
    double roof[2], copy; // F32, BF16
    uint64_t seed;
};

static tensor random_tensor(struct bench *b, enum dtype t, int n, const int64_t *shape)
{
    tensor x = dev_tensor(b->a, t, n, shape);
    for (int64_t i = 0; i < tensor_count(x); i++) {
        b->seed = b->seed * 6364136223846793005u + 1442695040888963407u;
        float v = (float)(int32_t)(b->seed >> 32) * 0x1p-31f;
        if (t == DT_BF16)
            ((uint16_t *)x.data)[i] = f32_to_bf16(v);
        else if (t == DT_F32)
            ((float *)x.data)[i] = v;
        else if (t == DT_F64)
            ((double *)x.data)[i] = (double)v + 2;
    }
    return x;
}

static void prepare(struct bench *b, struct job *j)
{
    const struct row *r = j->r;
    const int64_t *s = r->s;
    enum dtype t = r->t;
    double rows_n = (double)s[0], width = (double)s[1], size = dtype_size(t);
    switch (r->kind) {
    case K_LINEAR:
        j->t[0] = random_tensor(b, t, SHAPE(s[0], s[1]));
        j->t[1] = random_tensor(b, t, SHAPE(s[0], s[2]));
        j->t[2] = op_pack(b->d, b->a, random_tensor(b, t, SHAPE(s[1], s[2])), PACK_LINEAR);
        j->t[3] = random_tensor(b, DT_F32, SHAPE(s[1]));
        j->ops = 2.0 * (double)s[0] * (double)s[1] * (double)s[2];
        j->bytes = size * (double)(s[0] * s[1] + s[0] * s[2] + s[1] * s[2]);
        j->peer = peer_open(s[0], s[1], s[2], t, r->act == ACT_GELU_TANH, j->t[1].data, j->t[0].data);
        break;
    case K_ATTENTION:
        j->t[0] = random_tensor(b, t, SHAPE(s[0], s[1], s[2], s[4]));
        j->t[1] = random_tensor(b, t, SHAPE(s[0], s[1], s[2], s[4]));
        j->t[2] = random_tensor(b, t, SHAPE(s[0], s[3], s[2], s[4]));
        j->t[3] = random_tensor(b, t, SHAPE(s[0], s[3], s[2], s[4]));
        j->ops = 4.0 * (double)(s[0] * s[1] * s[2] * s[3]) * (double)s[4];
        break;
    case K_MAP:
        j->t[0] = random_tensor(b, DT_F32, SHAPE(3, s[0]));
        j->t[1] = random_tensor(b, t, SHAPE(s[0], s[1], s[3]));
        j->t[2] = random_tensor(b, t, SHAPE(s[2], s[1], s[3]));
        j->t[3] = random_tensor(b, DT_F32, SHAPE(3, s[2]));
        j->ops = 2.0 * (double)(s[0] * s[1] * s[2]) * (double)(s[3] + 3);
        break;
    case K_NORM:
    case K_ADD_NORM:
    case K_GATE_ADD:
    case K_L2_SILU:
    case K_ACT:
        for (int i = 0; i < 3; i++) j->t[i] = random_tensor(b, t, SHAPE(s[0], s[1]));
        for (int i = 3; i < 6; i++) j->t[i] = random_tensor(b, DT_F32, SHAPE(s[1]));
        j->bytes = size * rows_n * width * (r->kind == K_ADD_NORM ? 4 : r->kind == K_GATE_ADD ? 3 : 2);
        break;
    case K_QK_ROPE:
        for (int i = 0; i < 2; i++) j->t[i] = random_tensor(b, t, SHAPE(s[0], s[1], s[2]));
        for (int i = 2; i < 4; i++) j->t[i] = random_tensor(b, DT_F32, SHAPE(s[1] * s[2]));
        j->t[4] = random_tensor(b, DT_F32, SHAPE(s[0], s[2] / 2, 2));
        j->bytes = 4 * size * rows_n * width * (double)s[2];
        break;
    case K_CONV: {
        int64_t ph = s[6] / 2, ho = s[8] == 1 ? s[1] : s[1] / 2, wo = s[8] == 1 ? s[2] : s[2] / 2;
        j->conv = (struct conv){.stride = {1, (int)s[8], (int)s[8]}};
        for (int i = 1; i < 3; i++) {
            j->conv.pad[i][0] = s[8] == 1 ? (int)ph : 0;
            j->conv.pad[i][1] = (int)ph;
        }
        j->t[0] = random_tensor(b, t, SHAPE(s[0], ho, wo, s[4]));
        j->t[1] = random_tensor(b, t, SHAPE(s[0] + s[5] - 1, s[1], s[2], s[3]));
        j->t[2] = op_pack(b->d, b->a, random_tensor(b, t, SHAPE(s[4], s[3], s[5], s[6], s[7])), PACK_CONV);
        j->t[3] = random_tensor(b, DT_F32, SHAPE(s[4]));
        j->ops = 2.0 * (double)tensor_count(j->t[0]) * (double)(s[3] * s[5] * s[6] * s[7]);
        j->bytes = (double)(tensor_bytes(j->t[0]) + tensor_bytes(j->t[1]));
        break;
    }
    case K_UPSAMPLE:
        j->t[1] = random_tensor(b, t, SHAPE(s[0], s[1], s[2], s[3]));
        j->t[0] = random_tensor(b, t, SHAPE(s[0], 2 * s[1], 2 * s[2], s[3]));
        j->bytes = 5 * (double)tensor_bytes(j->t[1]);
        break;
    case K_COPY:
        j->t[1] = random_tensor(b, t, SHAPE(s[0], s[1], s[2], s[3]));
        j->t[0] = tensor_permute(random_tensor(b, t, SHAPE(s[3], s[0], s[1], s[2])), (int[]){1, 2, 3, 0});
        j->bytes = 2 * (double)tensor_bytes(j->t[1]);
        break;
    case K_LAB:
    case K_YUV:
        j->t[1] = random_tensor(b, t, SHAPE(s[0], s[1], s[2], 3));
        j->t[0] = r->kind == K_LAB ? random_tensor(b, t, SHAPE(s[0], s[1], s[2], 3))
                                   : dev_tensor(b->a, DT_U8, SHAPE(s[0], s[1] * s[2] * 3 / 2));
        for (int i = 2; i < 4; i++) j->t[i] = random_tensor(b, DT_F64, SHAPE(i == 2 ? s[0] : 1, 3, 2));
        j->bytes = (double)(tensor_bytes(j->t[0]) + tensor_bytes(j->t[1]));
        break;
    }
}

static void run(struct dev *d, const struct job *j)
{
    const tensor *t = j->t;
    struct norm n = {.shift = t[3], .scale = t[4], .eps = 1e-6f};
    switch (j->r->kind) {
    case K_LINEAR:
        op_linear(d, t[0], t[1], t[2], t[3], j->r->act);
        break;
    case K_ATTENTION:
        op_attention(d, t[0], t[1], t[2], t[3], (struct attn){0});
        break;
    case K_MAP:
        op_attention_map(d, t[0], t[1], t[2], t[3], false);
        break;
    case K_NORM:
        op_norm(d, t[0], t[1], n);
        break;
    case K_ADD_NORM:
        op_add_norm(d, t[0], t[1], t[2], t[5], n);
        break;
    case K_QK_ROPE:
        op_qk_norm_rope(d, t[0], t[1], t[2], t[3], 1e-6f, t[4]);
        break;
    case K_GATE_ADD:
        op_gate_add(d, t[0], t[1], t[5]);
        break;
    case K_ACT:
        op_act(d, t[0], t[1], j->r->act);
        break;
    case K_L2_SILU:
        op_l2_norm(d, t[0], t[1], t[3], ACT_SILU);
        break;
    case K_CONV:
        op_conv(d, t[0], t[1], t[2], t[3], j->conv, ACT_NONE);
        break;
    case K_UPSAMPLE:
        op_upsample2(d, t[0], t[1]);
        break;
    case K_COPY:
        op_copy(d, t[0], t[1]);
        break;
    case K_LAB:
        op_lab_match(d, t[0], t[1], t[2], t[3], 1);
        break;
    case K_YUV:
        op_yuv420(d, t[0], t[1]);
        break;
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void measure(struct bench *b, const struct row *r)
{
    struct job j = {.r = r};
    double ours[CALLS_MAX], peers[CALLS_MAX], start;
    prepare(b, &j);
    run(b->d, &j);
    if (j.peer) peer_run(j.peer);
    start = roof_now();
    run(b->d, &j);
    int n = 0, least = roof_now() - start > 1 ? 2 : 3;
    for (start = roof_now(); n < CALLS_MAX && (n < least || roof_now() - start < b->seconds); n++) {
        double t = roof_now();
        run(b->d, &j);
        ours[n] = roof_now() - t;
        t = roof_now();
        if (j.peer) peer_run(j.peer);
        peers[n] = roof_now() - t;
    }
    double time = median(ours, n), roof = b->roof[r->t == DT_BF16];
    bool products = j.ops > 0 && (j.bytes == 0 || j.ops / roof > j.bytes / b->copy);
    double rate = (products ? j.ops : j.bytes) / time;
    printf("%s,%s,", r->name, dtype_table[r->t].name);
    for (int i = 0; i < 9 && r->s[i]; i++) printf(i ? "x%lld" : "%lld", (long long)r->s[i]);
    printf(",%d,%.3f,%.1f,%s,%.3f,", n, time * 1e3, rate * 1e-9, products ? "Gop/s" : "GB/s",
           rate / (products ? roof : b->copy));
    if (j.peer) printf("%.3f", median(peers, n) / time);
    printf("\n");
    fflush(stdout);
    peer_close(&j.peer);
    dev_arena_reset(b->a, 0);
}

static void print_machine(const struct bench *b, int n_threads)
{
    char model[128] = "?", line[256], version[64];
    struct utsname u;
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "model name : %127[^\n]", model) == 1) break;
    if (f) fclose(f);
    uname(&u);
    printf("# machine: %s, %s %s, %d threads\n", model, u.sysname, u.release, n_threads);
    printf("# versions: longtake %s, %s, gcc %s\n", LONGTAKE_VERSION, peer_version(version, sizeof version),
           __VERSION__);
    printf("# table: %s\n", dev_name(b->d));
    printf("# roofs: F32 %.1f Gop/s (%s), BF16 %.1f Gop/s (%s), copy %.1f GB/s\n", b->roof[0] * 1e-9,
           roof_instruction(DT_F32), b->roof[1] * 1e-9, roof_instruction(DT_BF16), b->copy * 1e-9);
    printf("op,dtype,shape,calls,median_ms,rate,unit,of_roof,onednn_alone_over_ours\n");
}

int main(int argc, char **argv)
{
    struct bench b = {.seconds = 2, .seed = 1};
    const char *table = "cpu";
    int n_threads = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--table") == 0)
            table = argv[i + 1];
        else if (strcmp(argv[i], "--threads") == 0)
            n_threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--only") == 0)
            b.only = argv[i + 1];
        else if (strcmp(argv[i], "--seconds") == 0)
            b.seconds = atof(argv[i + 1]);
        else
            argc = 0;
    }
    if (argc % 2 == 0) {
        fprintf(stderr, "usage: bench_ops [--table cpu[:set]] [--threads N] [--only TEXT] [--seconds S]\n");
        return 2;
    }
    struct err e = {0};
    if (dev_open(&b.d, table, n_threads, &e) < 0) {
        fprintf(stderr, "bench_ops: %s\n", e.text);
        return 1;
    }
    n_threads = dev_threads(b.d);
    b.a = dev_arena_new(b.d, "bench", 0);
    b.roof[0] = roof_products(DT_F32, n_threads);
    b.roof[1] = roof_products(DT_BF16, n_threads);
    b.copy = roof_copy(n_threads);
    print_machine(&b, n_threads);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!b.only || strstr(rows[i].name, b.only)) measure(&b, &rows[i]);
    int rc = dev_sync(b.d, &e);
    if (rc < 0) fprintf(stderr, "bench_ops: %s\n", e.text);
    dev_arena_free(&b.a);
    dev_close(&b.d);
    return rc < 0;
}
