// The kind of profile that cameras and displays have: a curve a channel and three primaries.
//
//   byte -> curve -> linear RGB of the profile -> [3x3] -> linear sRGB, cut to 0..1 -> sRGB's curve -> byte
//
// Both sides meet in XYZ under D50, which is where ICC keeps its primaries, so one matrix holds all: the inverse of
// sRGB's primaries times the profile's. A profile that comes within rounding of sRGB is taken for it, or every picture
// with one would be touched for nothing.
#include "daemon/media/profile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 128, TAGS_MAX = 200, LEVELS = 65536 };

#define GAMMA_MIN 0.1
#define GAMMA_MAX 2.0

// sRGB's primaries under D50, a column each, inverted.
static const double from_xyz[3][3] = {
    {3.1338561, -1.6168667, -0.4906146}, {-0.9787684, 1.9161415, 0.0334540}, {0.0719453, -0.2289914, 1.4052427}};

struct bytes {
    const uint8_t *p;
    size_t n;
};

static uint32_t be(const uint8_t *p, int bytes)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++) v = v << 8 | p[i];
    return v;
}

static double fixed(const uint8_t *p) { return (int32_t)be(p, 4) / 65536.0; }

// The tag's content, n = 0 when it is not there or not whole.
static struct bytes tag(struct bytes icc, const char *name)
{
    uint32_t n_tags = be(icc.p + HEADER, 4);
    for (uint32_t i = 0; i < n_tags && i < TAGS_MAX && HEADER + 4 + 12 * (i + 1) <= icc.n; i++) {
        const uint8_t *entry = icc.p + HEADER + 4 + 12 * i;
        uint32_t at = be(entry + 4, 4), n = be(entry + 8, 4);
        if (memcmp(entry, name, 4) != 0) continue;
        if (at > icc.n || n > icc.n - at) break;
        return (struct bytes){icc.p + at, n};
    }
    return (struct bytes){NULL, 0};
}

static double srgb_linear(double v) { return v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4); }

static double srgb_coded(double v) { return v <= 0.0031308 ? v * 12.92 : 1.055 * pow(v, 1 / 2.4) - 0.055; }

// ---- curves

static bool curve_table(struct bytes t, double to[256])
{
    if (t.n < 12) return false;
    uint32_t n = be(t.p + 8, 4);
    if (n > (t.n - 12) / 2) return false;
    double gamma = n == 1 ? be(t.p + 12, 2) / 256.0 : 1;
    for (int i = 0; i < 256; i++) {
        double v = i / 255.0;
        if (n < 2) {
            to[i] = pow(v, gamma);
            continue;
        }
        double at = v * (n - 1);
        uint32_t low = (uint32_t)at, high = low + 1 < n ? low + 1 : low;
        double a = be(t.p + 12 + 2 * low, 2) / 65535.0, b = be(t.p + 12 + 2 * high, 2) / 65535.0;
        to[i] = a + (b - a) * (at - low);
    }
    return true;
}

// Y = (a X + b)^g + e from d on, c X + f below; shorter forms leave the last ones out.
static bool curve_formula(struct bytes t, double to[256])
{
    static const int n_numbers[] = {1, 3, 4, 5, 7};
    if (t.n < 12) return false;
    uint32_t kind = be(t.p + 8, 2);
    if (kind > 4 || t.n < 12 + 4 * (size_t)n_numbers[kind]) return false;
    double v[7] = {1, 1, 0, 0, 0, 0, 0}; // g a b c d e f
    for (int i = 0; i < n_numbers[kind]; i++) v[i] = fixed(t.p + 12 + 4 * i);
    if (kind == 1 || kind == 2) {
        double offset = v[3];
        v[3] = 0;
        v[4] = v[1] != 0 ? -v[2] / v[1] : 0;
        v[5] = v[6] = kind == 2 ? offset : 0;
    }
    for (int i = 0; i < 256; i++) {
        double x = i / 255.0;
        to[i] = x >= v[4] ? pow(fmax(v[1] * x + v[2], 0), v[0]) + v[5] : v[3] * x + v[6];
        if (!isfinite(to[i])) return false;
    }
    return true;
}

static bool curve(struct bytes t, double to[256])
{
    if (t.n >= 4 && memcmp(t.p, "curv", 4) == 0) return curve_table(t, to);
    return t.n >= 4 && memcmp(t.p, "para", 4) == 0 && curve_formula(t, to);
}

// ---- the whole

struct conversion {
    double linear[3][256], matrix[3][3];
};

static bool conversion_read(struct conversion *c, struct bytes icc)
{
    static const char *const primaries[] = {"rXYZ", "gXYZ", "bXYZ"}, *const curves[] = {"rTRC", "gTRC", "bTRC"};
    if (icc.n < HEADER + 4 || memcmp(icc.p + 16, "RGB XYZ ", 8) != 0) return false;
    for (int k = 0; k < 3; k++) {
        struct bytes t = tag(icc, primaries[k]);
        if (t.n < 20 || !curve(tag(icc, curves[k]), c->linear[k])) return false;
        for (int i = 0; i < 3; i++) {
            c->matrix[i][k] = 0;
            for (int j = 0; j < 3; j++) c->matrix[i][k] += from_xyz[i][j] * fixed(t.p + 8 + 4 * j);
        }
    }
    return true;
}

static bool is_nothing(const struct conversion *c)
{
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            if (fabs(c->matrix[i][k] - (i == k)) > 0.003) return false;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 256; i++)
            if (fabs(c->linear[k][i] - srgb_linear(i / 255.0)) > 0.004) return false;
    return true;
}

static bool convert(const struct conversion *c, uint8_t *rgb, size_t n)
{
    if (is_nothing(c)) return true;
    uint8_t *coded = malloc(LEVELS);
    if (!coded) return false;
    for (int i = 0; i < LEVELS; i++) coded[i] = (uint8_t)lrint(255 * srgb_coded(i / (double)(LEVELS - 1)));
    for (size_t i = 0; i < n; i++, rgb += 3) {
        double r = c->linear[0][rgb[0]], g = c->linear[1][rgb[1]], b = c->linear[2][rgb[2]];
        for (int k = 0; k < 3; k++) {
            double v = c->matrix[k][0] * r + c->matrix[k][1] * g + c->matrix[k][2] * b;
            rgb[k] = coded[(int)((v < 0 ? 0 : v > 1 ? 1 : v) * (LEVELS - 1) + 0.5)];
        }
    }
    free(coded);
    return true;
}

bool profile_apply(const uint8_t *icc, size_t n_icc, uint8_t *rgb, size_t n)
{
    struct conversion c;
    return conversion_read(&c, (struct bytes){icc, n_icc}) && convert(&c, rgb, n);
}

// Light of other primaries under sRGB's own white, as light of sRGB's. What television has had before BT.2020 is within
// sight of it.
static const struct {
    int number;
    double matrix[3][3];
} primaries_named[] = {
    {1, {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
    {2, {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}}, // not said
    {5, {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
    {6, {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
    {7, {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
    {9, {{1.660491, -0.587641, -0.072850}, {-0.124550, 1.132900, -0.008349}, {-0.018151, -0.100579, 1.118730}}},
    {12, {{1.224940, -0.224940, 0}, {-0.042057, 1.042057, 0}, {-0.019638, -0.078636, 1.098274}}}, // Display P3
};

// The power of light that a value is; 0: sRGB's curve, from which television's differ near black only; -1: not
// followed.
static double power_named(int transfer)
{
    switch (transfer) {
    case 4:
        return 2.2;
    case 5:
        return 2.8;
    case 8:
        return 1;
    case 17:
        return 2.6;
    case 1:
    case 2: // not said
    case 6:
    case 7:
    case 11:
    case 12:
    case 13:
    case 14:
    case 15:
        return 0;
    default:
        return -1;
    }
}

bool profile_named(int primaries, int transfer, uint8_t *rgb, size_t n)
{
    struct conversion c;
    double power = power_named(transfer);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 256; i++) c.linear[k][i] = power > 0 ? pow(i / 255.0, power) : srgb_linear(i / 255.0);
    for (size_t i = 0; power >= 0 && i < sizeof primaries_named / sizeof *primaries_named; i++) {
        if (primaries_named[i].number != primaries) continue;
        memcpy(c.matrix, primaries_named[i].matrix, sizeof c.matrix);
        return convert(&c, rgb, n);
    }
    return false;
}

void profile_gamma(double gamma, uint8_t *rgb, size_t n)
{
    uint8_t to[256];
    if (!(gamma >= GAMMA_MIN && gamma <= GAMMA_MAX) || fabs(gamma - 1 / 2.2) < 0.02) return;
    for (int i = 0; i < 256; i++) to[i] = (uint8_t)lrint(255 * srgb_coded(pow(i / 255.0, 1 / gamma)));
    for (size_t i = 0; i < 3 * n; i++) rgb[i] = to[rgb[i]];
}
