// Convolutions by oneDNN, channels last; and the nearest upsampling as copies of rows.
//
// BF16 runs as BF16 where the CPU and the library can, else as F32 on widened copies, as in linear_fast.c.
//
// The trap: a part of a picture need not have the bits of the whole. With AVX-512 the library (2.6, "brgconv") adds up
// the taps of a convolution in one piece or in several, by what its estimate likes for the picture's size and the
// threads, and a sum in pieces rounds otherwise. Seen in 3x3x3 from 96 channels on, and in 1x3x3 of 384: 1 to 2e-6 of
// the largest value. In kernels of 2x2 it does so by whether it is told to pad, at any width. All else is bit-equal,
// products too. Its other convolution ("jit") has the same bits at any size and takes 1.5 to 2.5 times as long; taps
// called one by one would pass over the output too often.
#include "kernels/cpu/fast.h"
#include "kernels/cpu/ref.h"

#include <string.h>

static void *weight_scratch(void *f, size_t bytes) { return fast_scratch(f, SCRATCH_W, bytes); }

static const void *plain_weight(struct dev *d, enum dtype t, tensor w)
{
    w.data = (void *)fast_plain(d, w, PACK_CONV, SCRATCH_PLAIN);
    return fast_dense(d, w, t, SCRATCH_W2);
}

// The convolution in dtype t. As onednn_conv; a failure is the device's fault.
static int conv_in(struct dev *d, enum dtype t, tensor y, tensor x, tensor w, tensor b, struct conv c, enum act act)
{
    struct fast *f = fast_of(d);
    struct onednn_conv o = {
        .ci = x.shape[3], .co = y.shape[3], .groups = c.groups ? c.groups : 1, .dtype = t, .act = act};
    for (int i = 0; i < 3; i++) {
        o.in[i] = x.shape[i];
        o.out[i] = y.shape[i];
        o.kernel[i] = w.shape[2 + i];
        o.stride[i] = c.stride[i] ? c.stride[i] : 1;
        for (int k = 0; k < 2; k++) o.pad[i][k] = c.pad[i][k];
    }
    const char *why = NULL;
    o.x = fast_dense(d, x, t, SCRATCH_X);
    o.packed = w.dtype == t ? w.packed : NULL;
    if (w.data || !o.packed) o.w = plain_weight(d, t, w);
    o.bias = fast_vector(d, b, SCRATCH_BIAS);
    o.y = y.dtype == t ? y.data : fast_scratch(f, SCRATCH_Y, (size_t)(tensor_count(y) * dtype_size(t)));
    int rc = onednn_conv(f->onednn, &o, weight_scratch, f, &why);
    if (rc == -3) { // the packed layout does not fit, and there is no other
        o.w = plain_weight(d, t, w);
        rc = onednn_conv(f->onednn, &o, weight_scratch, f, &why);
    }
    if (rc == 0) fast_spread(d, y, t, o.y);
    if (why) {
        char xs[96], ws[96];
        dev_fault(d, "conv %s by %s: %s", tensor_text(x, xs, sizeof xs), tensor_text(w, ws, sizeof ws), why);
    }
    return rc;
}

static void fast_conv(struct dev *d, tensor y, tensor x, tensor w, tensor b, struct conv c, enum act act)
{
    struct fast *f = fast_of(d);
    if (tensor_count(y) == 0) return;
    int rc = -1;
    if (tensor_count(x) > 0 && tensor_count(w) > 0) {
        bool half = f->isa == ISA_AVX512_BF16 && x.dtype == DT_BF16 && w.dtype == DT_BF16;
        if (half) rc = conv_in(d, DT_BF16, y, x, w, b, c, act);
        if (rc == -1) rc = conv_in(d, DT_F32, y, x, w, b, c, act);
    }
    if (rc == -1) f->ref.conv(d, y, x, w, b, c, act);
}

static void fast_upsample2(struct dev *d, tensor y, tensor x)
{
    int64_t h = x.shape[1], w = x.shape[2], n = x.shape[3] * dtype_size(x.dtype);
#pragma omp parallel for num_threads(dev_team(d, tensor_count(y)))
    for (int64_t r = 0; r < x.shape[0] * h; r++) {
        const char *from = (const char *)x.data + r * w * n;
        char *to = (char *)y.data + r * 4 * w * n;
        for (int64_t i = 0; i < w; i++) {
            memcpy(to + 2 * i * n, from + i * n, (size_t)n);
            memcpy(to + (2 * i + 1) * n, from + i * n, (size_t)n);
        }
        memcpy(to + 2 * w * n, to, (size_t)(2 * w * n));
    }
}

void fast_conv_slots(struct ops *o)
{
    o->conv = fast_conv;
    o->upsample2 = fast_upsample2;
}
