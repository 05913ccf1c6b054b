// Audio projection.
//
//   windows [p, fa, 5, layers, channels]
//     frame 0                       -> first  [p, 1, 5 entries]  -- proj1    --+
//     frames 4j+1 .. 4j+4, 8 entries -> latter [p, t-1, 8 entries] -- proj1_vf -+-- relu, proj2, relu, proj3, norm
//   tokens [t, p, tokens, dim]
//
// Easy to get wrong: a later latent frame takes its first video frame's offsets 0..mid, the middle frames' offset mid
// only, and the last one's mid..end; speakers stand side by side inside a latent frame; zero windows do not give zero
// tokens. The first products sum tens of thousands of terms, so a backend must not keep one running F32 sum.
#include "worker/models/audio_proj.h"

#include "worker/models/load.h"

int audio_proj_load(struct audio_proj *m, struct dev *d, struct dev_arena *a, const struct weights *w, int window,
                    int vae_scale, enum dtype t, struct err *e)
{
    struct load l = {.w = w, .dev = d, .arena = a, .dtype = t, .e = e};
    int64_t n = load_axis(&l, "audio_proj.proj1.weight", 1);
    *m = (struct audio_proj){.window = window, .vae_scale = vae_scale, .dtype = t};
    m->inner = load_axis(&l, "audio_proj.proj1.weight", 0);
    m->dim = load_axis(&l, "audio_proj.norm.weight", 0);
    int64_t out = load_axis(&l, "audio_proj.proj3.weight", 0);
    if (l.rc < 0) return l.rc;
    m->width = n / window;
    m->tokens = m->dim > 0 ? out / m->dim : 0;
    if (m->width * window != n || m->tokens * m->dim != out || m->tokens == 0)
        return err_set(e, E_INPUT,
                       "%s: audio_proj.proj1 takes %lld values and proj3 gives %lld, which fit no window of %d frames",
                       weights_file(w, "audio_proj.proj1.weight"), (long long)n, (long long)out, window);
    load_linear(&l, &m->w1, &m->b1, m->inner, n, "audio_proj.proj1");
    load_linear(&l, &m->w1_vf, &m->b1_vf, m->inner, m->width * (window + vae_scale - 1), "audio_proj.proj1_vf");
    load_linear(&l, &m->w2, &m->b2, m->inner, m->inner, "audio_proj.proj2");
    load_linear(&l, &m->w3, &m->b3, out, m->inner, "audio_proj.proj3");
    m->gain = load_vector(&l, m->dim, "audio_proj.norm.weight");
    m->bias = load_vector(&l, m->dim, "audio_proj.norm.bias");
    return l.rc;
}

// The eight entries of every later latent frame: groups [p, t-1, scale, window, width] to latter [p, t-1, n, width].
static void gather_latter(const struct audio_proj *m, struct dev *d, tensor latter, tensor groups)
{
    int mid = m->window / 2, n = m->vae_scale, after = m->window - mid;
    tensor src = tensor_slice(tensor_slice(groups, 2, 0, 1), 3, 0, mid + 1);
    op_copy(d, tensor_split(tensor_slice(latter, 2, 0, mid + 1), 2, 1, mid + 1), src);
    if (n > 2) {
        src = tensor_slice(tensor_slice(groups, 2, 1, n - 1), 3, mid, mid + 1);
        op_copy(d, tensor_split(tensor_slice(latter, 2, mid + 1, mid + n - 1), 2, n - 2, 1), src);
    }
    src = tensor_slice(tensor_slice(groups, 2, n - 1, n), 3, mid, m->window);
    op_copy(d, tensor_split(tensor_slice(latter, 2, mid + n - 1, mid + n - 1 + after), 2, 1, after), src);
}

tensor audio_proj_run(const struct audio_proj *m, struct dev *d, struct dev_arena *a, tensor windows,
                      const struct tap *tap, const char *prefix)
{
    BUG_IF(windows.n != 5 || windows.shape[2] != m->window || windows.shape[3] * windows.shape[4] != m->width,
           "audio windows of %lld x %lld x %lld for a projection of %d x %lld", (long long)windows.shape[2],
           (long long)windows.shape[3], (long long)windows.shape[4], m->window, (long long)m->width);
    int64_t p = windows.shape[0], fa = windows.shape[1], t = 1 + (fa - 1) / m->vae_scale, layers = windows.shape[3];
    int entries = m->window + m->vae_scale - 1;
    BUG_IF(fa != 1 + m->vae_scale * (t - 1), "%lld video frames fit no latent frames", (long long)fa);
    tensor out = dev_tensor(a, m->dtype, SHAPE(t, p, m->tokens, m->dim));
    int64_t mark = dev_arena_mark(a);
    tensor w = tensor_reshape(windows, SHAPE(p, fa, m->window, m->width));
    tensor first = dev_tensor(a, m->dtype, SHAPE(p, 1, m->window, m->width));
    tensor z = dev_tensor(a, m->dtype, SHAPE(p, t, m->inner)), z2 = dev_tensor(a, m->dtype, SHAPE(p, t, m->inner));
    op_copy(d, first, tensor_slice(w, 1, 0, 1));
    tap_see(tap, tensor_reshape(first, SHAPE(p, 1, m->window, layers, -1)), "%sfirst", prefix);
    op_linear(d, tensor_slice(z, 1, 0, 1), tensor_reshape(first, SHAPE(p, 1, m->window * m->width)), m->w1, m->b1,
              ACT_RELU);
    if (t > 1) {
        tensor latter = dev_tensor(a, m->dtype, SHAPE(p, t - 1, entries, m->width));
        gather_latter(m, d, latter, tensor_split(tensor_slice(w, 1, 1, fa), 1, t - 1, m->vae_scale));
        tap_see(tap, tensor_reshape(latter, SHAPE(p, t - 1, entries, layers, -1)), "%slatter", prefix);
        op_linear(d, tensor_slice(z, 1, 1, t), tensor_reshape(latter, SHAPE(p, t - 1, entries * m->width)), m->w1_vf,
                  m->b1_vf, ACT_RELU);
    }
    op_linear(d, z2, z, m->w2, m->b2, ACT_RELU);
    tensor rows = tensor_reshape(out, SHAPE(t, p, m->tokens * m->dim)); // proj3 writes [p, t] rows of it
    op_linear(d, tensor_permute(rows, (int[]){1, 0, 2}), z2, m->w3, m->b3, ACT_NONE);
    op_norm(d, out, out, (struct norm){.gain = m->gain, .bias = m->bias, .eps = 1e-5f});
    dev_arena_reset(a, mark);
    return out;
}
