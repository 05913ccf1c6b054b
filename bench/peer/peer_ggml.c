// peer_ggml THREADS SECONDS < rows: times ggml's CPU backend on the shapes of bench_ops.
//
// Reads rows "name,dtype,AxBxC[,way]" as bench_ops prints them and writes "name,dtype,shape,way,median_ms" for those
// that ggml has an op for: linear layers (weights in the row's dtype, activations F32 as ggml wants them), attention
// (F16 keys and values, its only fast path), convolutions (unfolded or direct, the fastest way counts and may be named
// the next time), layer norm with modulation, GELU. A way that wants more memory than is free is left out. Built by
// get_ggml.sh against the library in stable-diffusion.cpp's package; not part of the product.
#include <ggml-cpu.h>
#include <ggml.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS_MAX = 64, SIZES = 9, WAYS = 4 };
static const double LONG = 1; // seconds

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static struct ggml_tensor *filled(struct ggml_context *c, enum ggml_type t, int64_t a, int64_t b, int64_t d, int64_t e)
{
    struct ggml_tensor *x = ggml_new_tensor_4d(c, t, a, b, d, e);
    static uint64_t seed = 1;
    int64_t n = ggml_nelements(x);
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        float v = (float)(int32_t)(seed >> 32) * 0x1p-31f;
        if (t == GGML_TYPE_F32)
            ((float *)x->data)[i] = v;
        else if (t == GGML_TYPE_BF16)
            ((ggml_bf16_t *)x->data)[i] = ggml_fp32_to_bf16(v);
        else
            ((ggml_fp16_t *)x->data)[i] = ggml_fp32_to_fp16(v);
    }
    return x;
}

// A row's graph in ggml's several ways; NULL when it has no such op, or no way number `way`. A convolution has four:
// unfolded (im2col) or direct, with F16 or F32 kernels.
static struct ggml_tensor *graph_of(struct ggml_context *c, const char *name, enum ggml_type t, const int64_t *s,
                                    int way)
{
    if (strstr(name, "conv")) {
        int stride = (int)s[8], pad = s[8] == 1 ? (int)s[6] / 2 : 0, more = s[8] == 1 ? 0 : 1;
        if (way >= 4) return NULL;
        struct ggml_tensor *w = filled(c, way % 2 ? GGML_TYPE_F32 : GGML_TYPE_F16, s[7], s[6], s[5], s[3] * s[4]);
        struct ggml_tensor *x = filled(c, GGML_TYPE_F32, s[2] + more, s[1] + more, s[0] + s[5] - 1, s[3]);
        if (way < 2)
            return ggml_conv_3d_direct(c, w, x, stride, stride, 1, pad, pad, 0, 1, 1, 1, (int)s[3], 1, (int)s[4]);
        return ggml_conv_3d(c, w, x, s[3], stride, stride, 1, pad, pad, 0, 1, 1, 1);
    }
    if (way > 0) return NULL;
    if (strstr(name, "attention") || strcmp(name, "dit words") == 0 || strcmp(name, "dit picture") == 0 ||
        strcmp(name, "dit voice") == 0 || strcmp(name, "vae middle") == 0) {
        struct ggml_tensor *q = filled(c, GGML_TYPE_F32, s[4], s[1], s[2], s[0]);
        struct ggml_tensor *k = filled(c, GGML_TYPE_F16, s[4], s[3], s[2], s[0]);
        struct ggml_tensor *v = filled(c, GGML_TYPE_F16, s[4], s[3], s[2], s[0]);
        return ggml_flash_attn_ext(c, q, k, v, NULL, 0.0883883f, 0, 0);
    }
    if (strcmp(name, "norm + modulate") == 0) {
        struct ggml_tensor *x = filled(c, GGML_TYPE_F32, s[1], s[0], 1, 1);
        struct ggml_tensor *scale = filled(c, GGML_TYPE_F32, s[1], 1, 1, 1),
                           *shift = filled(c, GGML_TYPE_F32, s[1], 1, 1, 1);
        return ggml_add(c, ggml_mul(c, ggml_norm(c, x, 1e-6f), scale), shift);
    }
    if (strcmp(name, "gelu") == 0) return ggml_gelu(c, filled(c, GGML_TYPE_F32, s[1], s[0], 1, 1));
    if (s[2] && !s[3] && strstr(name, "rope") == NULL && strstr(name, "colour") == NULL &&
        strstr(name, "4:2:0") == NULL) {
        struct ggml_tensor *w = filled(c, t, s[2], s[1], 1, 1), *x = filled(c, GGML_TYPE_F32, s[2], s[0], 1, 1);
        struct ggml_tensor *b = filled(c, GGML_TYPE_F32, s[1], 1, 1, 1), *y = ggml_add(c, ggml_mul_mat(c, w, x), b);
        return strstr(name, "gelu") || strcmp(name, "t5 ffn") == 0 ? ggml_gelu(c, y) : y;
    }
    return NULL;
}

// Bytes of the largest tensors of a row: unfolded pictures are what may not fit.
static size_t room_of(const char *name, const int64_t *s, int way)
{
    size_t spare = (size_t)3 << 30;
    if (!strstr(name, "conv")) return spare;
    size_t points = (size_t)((s[0] + s[5]) * (s[1] + 2) * (s[2] + 2)), taps = (size_t)(s[3] * s[5] * s[6] * s[7]);
    return spare + points * (size_t)(s[3] + s[4]) * 8 + (way < 2 ? 0 : points * taps * (way % 2 ? 4 : 2));
}

// Median milliseconds of a graph's calls; a call that takes long is made once.
static double time_of(struct ggml_cgraph *g, int n_threads, double seconds)
{
    double times[CALLS_MAX], start = now();
    int n = 0;
    struct ggml_cplan plan = ggml_graph_plan(g, n_threads, NULL);
    plan.work_data = malloc(plan.work_size ? plan.work_size : 1);
    ggml_graph_compute(g, &plan);
    double first = now() - start;
    for (start = now(); first < LONG && n < CALLS_MAX && (n < 2 || now() - start < seconds); n++) {
        double t = now();
        ggml_graph_compute(g, &plan);
        times[n] = now() - t;
    }
    free(plan.work_data);
    qsort(times, (size_t)n, sizeof *times, by_size);
    return (n ? times[n / 2] : first) * 1e3;
}

static size_t room_free(void)
{
    char line[256];
    size_t kib = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %zu", &kib) == 1) break;
    if (f) fclose(f);
    return kib << 10;
}

// The fastest of ggml's ways, or the one named.
static void measure(const char *name, const char *dtype, const char *shape, int named, int n_threads, double seconds)
{
    int64_t s[SIZES] = {0};
    int n_sizes = 0, best_way = -1;
    double best = 0;
    for (const char *p = shape; *p && n_sizes < SIZES; p += strcspn(p, "x"), p += *p == 'x') s[n_sizes++] = atoll(p);
    enum ggml_type t = strcmp(dtype, "BF16") == 0 ? GGML_TYPE_BF16 : GGML_TYPE_F32;
    for (int way = 0; way < WAYS; way++) {
        struct ggml_init_params params = {.mem_size = room_of(name, s, way)};
        if ((named >= 0 && way != named) || params.mem_size > room_free()) continue;
        struct ggml_context *c = ggml_init(params);
        struct ggml_tensor *y = c ? graph_of(c, name, t, s, way) : NULL;
        if (y) {
            struct ggml_cgraph *g = ggml_new_graph(c);
            ggml_build_forward_expand(g, y);
            double ms = time_of(g, n_threads, seconds);
            if (best_way < 0 || ms < best) best = ms, best_way = way;
        }
        ggml_free(c);
    }
    if (best_way >= 0) printf("%s,%s,%s,%d,%.3f\n", name, dtype, shape, best_way, best);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[256], name[64], dtype[16], shape[128];
    if (argc != 3) {
        fprintf(stderr, "usage: peer_ggml THREADS SECONDS < rows\n");
        return 2;
    }
    int way;
    while (fgets(line, sizeof line, stdin)) {
        int n = sscanf(line, "%63[^,],%15[^,],%127[^,\n],%d", name, dtype, shape, &way);
        if (n >= 3) measure(name, dtype, shape, n == 4 ? way : -1, atoi(argv[1]), atof(argv[2]));
    }
    return 0;
}
