// Pictures, plainly: bicubic resize, colour statistics and transfer in CIE Lab, and the way to 8-bit 4:2:0.
//
// Lab is formed in F64, so that a flat picture has a deviation of exactly zero.
#include "kernels/cpu/ref.h"

// ---- resize

static void cubic_weights(double t, double w[4])
{
    const double a = -0.75;
    double u[4] = {t + 1, t, 1 - t, 2 - t};
    for (int i = 0; i < 4; i++) {
        double x = u[i];
        w[i] = x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    }
}

// Source position of output i, its four taps clamped to the edge, and their weights. The scale is rounded to F32 and
// the position is not: so does the published framework, and on noise the difference shows.
static void cubic_taps(int64_t i, int64_t n_in, int64_t n_out, int64_t at[4], double w[4])
{
    double scale = (double)((float)n_in / (float)n_out), s = scale * ((double)i + 0.5) - 0.5, f = floor(s);
    cubic_weights(s - f, w);
    for (int k = 0; k < 4; k++) {
        int64_t p = (int64_t)f + k - 1;
        at[k] = p < 0 ? 0 : p >= n_in ? n_in - 1 : p;
    }
}

static void ref_resize_cubic(struct dev *d, tensor y, tensor x)
{
    int64_t h = y.shape[0], w = y.shape[1], c = y.shape[2], sw = x.shape[1];
    const float *src = x.data;
#pragma omp parallel for num_threads(dev_team(d, tensor_count(y) * 16))
    for (int64_t i = 0; i < h; i++) {
        int64_t rows[4], cols[4];
        double wr[4], wc[4];
        cubic_taps(i, x.shape[0], h, rows, wr);
        for (int64_t j = 0; j < w; j++) {
            cubic_taps(j, sw, w, cols, wc);
            for (int64_t k = 0; k < c; k++) {
                double v = 0;
                for (int a = 0; a < 4; a++)
                    for (int b = 0; b < 4; b++) v += wr[a] * wc[b] * (double)src[(rows[a] * sw + cols[b]) * c + k];
                ((float *)y.data)[(i * w + j) * c + k] = (float)v;
            }
        }
    }
}

// ---- colour

static const double white[3] = {0.95047, 1.0, 1.08883};

static double clamp01(double v) { return v < 0 ? 0 : v > 1 ? 1 : v; }
static double unit_of(float x) { return clamp01(((double)x + 1) / 2); }

static void rgb_to_lab(const double rgb[3], double lab[3])
{
    static const double m[3][3] = {
        {0.412453, 0.357580, 0.180423}, {0.212671, 0.715160, 0.072169}, {0.019334, 0.119193, 0.950227}};
    double lin[3], f[3];
    for (int i = 0; i < 3; i++) lin[i] = rgb[i] > 0.04045 ? pow((rgb[i] + 0.055) / 1.055, 2.4) : rgb[i] / 12.92;
    for (int i = 0; i < 3; i++) {
        double q = (m[i][0] * lin[0] + m[i][1] * lin[1] + m[i][2] * lin[2]) / white[i];
        f[i] = q > 0.008856 ? cbrt(q) : 7.787 * q + 16.0 / 116;
    }
    lab[0] = 116 * f[1] - 16;
    lab[1] = 500 * (f[0] - f[1]);
    lab[2] = 200 * (f[1] - f[2]);
}

static void lab_to_rgb(const double lab[3], double rgb[3])
{
    static const double m[3][3] = {{3.2404813432, -1.5371515163, -0.4985363262},
                                   {-0.9692549500, 1.8759900015, 0.0415559266},
                                   {0.0556466391, -0.2040413384, 1.0573110696}};
    double fy = (lab[0] + 16) / 116, f[3] = {lab[1] / 500 + fy, fy, fy - lab[2] / 200}, xyz[3];
    if (f[2] < 0) f[2] = 0;
    for (int i = 0; i < 3; i++)
        xyz[i] = (f[i] > 0.2068966 ? f[i] * f[i] * f[i] : (f[i] - 16.0 / 116) / 7.787) * white[i];
    for (int i = 0; i < 3; i++) {
        double v = m[i][0] * xyz[0] + m[i][1] * xyz[1] + m[i][2] * xyz[2];
        rgb[i] = clamp01(v > 0.0031308 ? 1.055 * pow(v, 1 / 2.4) - 0.055 : 12.92 * v);
    }
}

// Mean and population deviation of one frame, by Welford's running update so that a flat channel gives exactly 0.
static void frame_stats(const float *x, int64_t n, double *out)
{
    double mean[3] = {0}, sq[3] = {0};
    for (int64_t i = 0; i < n; i++) {
        double rgb[3] = {unit_of(x[3 * i]), unit_of(x[3 * i + 1]), unit_of(x[3 * i + 2])}, lab[3];
        rgb_to_lab(rgb, lab);
        for (int c = 0; c < 3; c++) {
            double up = lab[c] - mean[c];
            mean[c] += up / (double)(i + 1);
            sq[c] += up * (lab[c] - mean[c]);
        }
    }
    for (int c = 0; c < 3; c++) {
        out[2 * c] = mean[c];
        out[2 * c + 1] = sqrt(sq[c] / (double)n);
    }
}

static void ref_lab_stats(struct dev *d, tensor stats, tensor x)
{
    int64_t n = x.shape[1] * x.shape[2];
#pragma omp parallel for num_threads(dev_team(d, tensor_count(x) * 64))
    for (int64_t t = 0; t < x.shape[0]; t++)
        frame_stats((const float *)x.data + t * n * 3, n, (double *)stats.data + t * 6);
}

static void ref_lab_match(struct dev *d, tensor y, tensor x, tensor src, tensor ref, float strength)
{
    int64_t n = x.shape[1] * x.shape[2];
    const double *to = ref.data;
    if (strength == 0) { // only the clamp remains
        for (int64_t i = 0; i < x.shape[0] * n * 3; i++) {
            float v = ((const float *)x.data)[i];
            ((float *)y.data)[i] = v < -1 ? -1 : v > 1 ? 1 : v;
        }
        return;
    }
#pragma omp parallel for num_threads(dev_team(d, tensor_count(x) * 64))
    for (int64_t i = 0; i < x.shape[0] * n; i++) {
        const float *in = (const float *)x.data + i * 3;
        const double *from = (const double *)src.data + i / n * 6;
        double v[3] = {unit_of(in[0]), unit_of(in[1]), unit_of(in[2])}, lab[3], rgb[3];
        rgb_to_lab(v, lab);
        for (int c = 0; c < 3; c++) {
            double mean = from[2 * c], dev = from[2 * c + 1];
            lab[c] = dev == 0 ? to[2 * c] : (lab[c] - mean) * (to[2 * c + 1] / dev) + to[2 * c];
        }
        lab_to_rgb(lab, rgb);
        for (int c = 0; c < 3; c++)
            ((float *)y.data)[i * 3 + c] = (float)(2 * ((1 - (double)strength) * v[c] + (double)strength * rgb[c]) - 1);
    }
}

// ---- 4:2:0

static uint8_t byte_of(double v)
{
    double r = floor(v + 0.5);
    return (uint8_t)(r < 0 ? 0 : r > 255 ? 255 : r);
}

// BT.709: luma, then the two scaled differences, of RGB in 0..1.
static void rgb_to_yuv(const float *x, double yuv[3])
{
    double r = unit_of(x[0]), g = unit_of(x[1]), b = unit_of(x[2]), y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    yuv[0] = 16 + 219 * y;
    yuv[1] = 128 + 224 * (b - y) / 1.8556;
    yuv[2] = 128 + 224 * (r - y) / 1.5748;
}

static void ref_yuv420(struct dev *d, tensor out, tensor x)
{
    int64_t h = x.shape[1], w = x.shape[2];
#pragma omp parallel for collapse(2) num_threads(dev_team(d, tensor_count(x) * 4))
    for (int64_t t = 0; t < x.shape[0]; t++)
        for (int64_t i = 0; i < h; i += 2) {
            const float *in = (const float *)x.data + (t * h + i) * w * 3;
            uint8_t *luma = (uint8_t *)out.data + t * (h * w * 3 / 2) + i * w;
            uint8_t *cb = (uint8_t *)out.data + t * (h * w * 3 / 2) + h * w + i / 2 * (w / 2), *cr = cb + h * w / 4;
            for (int64_t j = 0; j < w; j += 2) {
                double u = 0, v = 0;
                for (int k = 0; k < 4; k++) {
                    double yuv[3];
                    rgb_to_yuv(in + (k / 2 * w + j + k % 2) * 3, yuv);
                    luma[k / 2 * w + j + k % 2] = byte_of(yuv[0]);
                    u += yuv[1];
                    v += yuv[2];
                }
                cb[j / 2] = byte_of(u / 4);
                cr[j / 2] = byte_of(v / 4);
            }
        }
}

void ref_pixels_slots(struct ops *o)
{
    o->resize_cubic = ref_resize_cubic;
    o->lab_stats = ref_lab_stats;
    o->lab_match = ref_lab_match;
    o->yuv420 = ref_yuv420;
}
