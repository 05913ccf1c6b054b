// The fast table: overlays the reference, op by op, where it pays.
//
// What it adds: matrix products and convolutions through oneDNN, attention over tiles, and loops that the compiler can
// turn into vector code. Rounding in BF16 stays where the contract puts it, save for the inner R that ops.h lets go.
#include "kernels/cpu/fast.h"

#include "kernels/cpu/ref.h"

#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

static enum fast_isa isa_found(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512) return __builtin_cpu_supports("avx512bf16") ? ISA_AVX512_BF16 : ISA_AVX512;
    if (avx2) return ISA_AVX2;
#endif
    return ISA_PLAIN;
}

void *fast_scratch(struct fast *f, enum fast_slot slot, size_t bytes)
{
    if (f->scratch[slot].size >= bytes && f->scratch[slot].data) return f->scratch[slot].data;
    bytes = (bytes + 4095) / 4096 * 4096;
    if (bytes == 0) bytes = 4096;
    free(f->scratch[slot].data);
    f->scratch[slot].data = aligned_alloc(4096, bytes);
    f->scratch[slot].size = bytes;
    BUG_IF(!f->scratch[slot].data, "no memory for %zu bytes of scratch", bytes);
    return f->scratch[slot].data;
}

void fast_cast(const struct row_fns *f, enum dtype to, void *dst, enum dtype from, const void *src, int64_t n)
{
    if (to == from)
        memcpy(dst, src, (size_t)(n * dtype_size(to)));
    else if (from == DT_F32)
        f->store(to, dst, src, n);
    else if (to == DT_F32)
        f->load(dst, from, src, n);
    else
        for (int64_t i = 0; i < n; i++) ref_put(to, dst, i, ref_get(from, src, i));
}

void *fast_dense(struct dev *d, tensor x, enum dtype t, enum fast_slot slot)
{
    if (x.dtype == t && tensor_is_contiguous(x)) return x.data;
    int64_t rows = ref_rows(x, 1), w = x.shape[x.n - 1];
    char *dense = fast_scratch(fast_of(d), slot, (size_t)(rows * w * dtype_size(t)));
#pragma omp parallel for num_threads(dev_team(d, rows * w))
    for (int64_t i = 0; i < rows; i++)
        fast_cast(fast_of(d)->rows, t, dense + i * w * dtype_size(t), x.dtype, ref_row(x, i, 1), w);
    return dense;
}

void fast_spread(struct dev *d, tensor y, enum dtype t, const void *src)
{
    if (src == y.data) return;
    int64_t rows = ref_rows(y, 1), w = y.shape[y.n - 1];
#pragma omp parallel for num_threads(dev_team(d, rows * w))
    for (int64_t i = 0; i < rows; i++)
        fast_cast(fast_of(d)->rows, y.dtype, ref_row(y, i, 1), t, (const char *)src + i * w * dtype_size(t), w);
}

const void *fast_plain(struct dev *d, tensor w, enum pack_use use, enum fast_slot slot)
{
    if (w.data) return w.data;
    void *plain = fast_scratch(fast_of(d), slot, (size_t)tensor_bytes(w));
    BUG_IF(!onednn_unpack(fast_of(d)->onednn, plain, w, use), "a weight that is neither plain nor packed");
    return plain;
}

const float *fast_vector(struct dev *d, tensor v, enum fast_slot slot)
{
    if (tensor_is_none(v)) return NULL;
    int64_t n = tensor_count(v);
    if (v.dtype == DT_F32 && tensor_is_contiguous(v)) return v.data;
    float *dense = fast_scratch(fast_of(d), slot, (size_t)n * sizeof *dense);
    fast_cast(fast_of(d)->rows, DT_F32, dense, v.dtype, v.data, n);
    return dense;
}

// A device that has all of the process's CPUs ties each helping thread to its own, so that none waits behind another
// while its partners idle at the end of a loop. The calling thread stays free: threads that it starts later would
// inherit what it is tied to.
static void pin_threads(int n_threads)
{
    cpu_set_t all;
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) != n_threads) return;
#pragma omp parallel num_threads(n_threads)
    {
        int want = omp_get_thread_num();
        for (int cpu = 0, k = 0; want > 0 && cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &all) || k++ != want) continue;
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one); // refused: the system places it, as before
            break;
        }
    }
}

static void fast_close(struct dev *d)
{
    struct fast *f = fast_of(d);
    onednn_close(&f->onednn);
    for (int i = 0; i < SCRATCH_COUNT; i++) free(f->scratch[i].data);
    free(f);
    d->backend = NULL;
}

static const char *const isa_names[] = {"plain", "avx2", "avx512", "avx512_bf16"};

static int isa_choose(enum fast_isa *isa, const char *most, struct err *e)
{
    enum fast_isa found = isa_found();
    *isa = found;
    if (!most) return 0;
    for (int i = ISA_PLAIN; i <= ISA_AVX512_BF16; i++)
        if (strcmp(most, isa_names[i]) == 0) {
            if (i > (int)found)
                return err_set(e, E_INPUT, "this CPU does not have %s; its best is %s", most, isa_names[found]);
            *isa = (enum fast_isa)i;
            return 0;
        }
    return err_set(e, E_INPUT, "there is no instruction set called '%s'; there are plain, avx2, avx512, avx512_bf16",
                   most);
}

int fast_open(struct dev *d, const char *most, struct err *e)
{
    enum fast_isa isa;
    int rc = isa_choose(&isa, most, e);
    if (rc < 0) return rc;
    struct fast *f = calloc(1, sizeof *f);
    BUG_IF(!f, "no memory for the fast table");
    f->isa = isa;
    f->ref = d->ops;
    f->rows = &rows_plain;
#if defined(__x86_64__)
    if (isa >= ISA_AVX2) f->rows = isa >= ISA_AVX512 ? &rows_avx512 : &rows_avx2;
#endif
    f->onednn = onednn_open(d->n_threads, isa == ISA_AVX512_BF16);
    pin_threads(d->n_threads);
    d->backend = f;
    d->close = fast_close;
    d->packed_alone = true;
    snprintf(d->name, sizeof d->name, "cpu %s x%d", isa_names[isa], d->n_threads);
    fast_linear_slots(&d->ops);
    fast_conv_slots(&d->ops);
    fast_attention_slots(&d->ops);
    fast_norm_slots(&d->ops);
    fast_rope_slots(&d->ops);
    fast_pointwise_slots(&d->ops);
    fast_layout_slots(&d->ops);
    return 0;
}
