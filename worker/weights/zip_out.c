// A zip written from front to back.
//
// Nothing is known of a payload's checksum before it has passed, so local headers carry zeros and bit 3, and the truth
// follows in a descriptor and again in the directory at the end. A private extra field "FB" fills each local header up
// to a payload on a multiple of 64: a mapped checkpoint can then be used in place.
//
// The trap is ZIP64: each of size, packed size and offset moves to an extra field on its own, only when it does not fit
// 32 bits, and the descriptor of a member over 4 GiB has 8-byte sizes.
#include "worker/weights/zip_out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, FLAGS = 0x0808, NAME_MAX_BYTES = 512, NEEDS_64 = 45 };
#define MAX_32 0xffffffffll

struct member {
    char *name;
    int64_t at, size;
    uint32_t crc;
};

struct zip_out {
    struct outfile *file;
    struct member *member;
    int64_t n, capacity, left; // the open member is the last; left < 0: none is open
    uint32_t crc_table[8][256];
};

// ---- checksums: eight bytes a step

static void crc_prepare(struct zip_out *z)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        z->crc_table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++) {
            uint32_t c = z->crc_table[t - 1][i];
            z->crc_table[t][i] = z->crc_table[0][c & 255] ^ c >> 8;
        }
}

static uint32_t crc_update(const struct zip_out *z, uint32_t crc, const uint8_t *p, size_t n)
{
    const uint32_t(*t)[256] = z->crc_table;
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t a = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        crc = t[7][a & 255] ^ t[6][a >> 8 & 255] ^ t[5][a >> 16 & 255] ^ t[4][a >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^
              t[1][p[6]] ^ t[0][p[7]];
    }
    for (; n > 0; n--, p++) crc = t[0][(crc ^ *p) & 255] ^ crc >> 8;
    return ~crc;
}

// ---- records: little-endian fields collected, then put

struct bytes {
    uint8_t at[NAME_MAX_BYTES + 256];
    size_t n;
};

static void add(struct bytes *b, int64_t value, int size)
{
    BUG_IF(b->n + (size_t)size > sizeof b->at, "a zip record grows too long");
    for (int i = 0; i < size; i++) b->at[b->n++] = i < 8 ? (uint8_t)((uint64_t)value >> 8 * i) : 0;
}

static void add_text(struct bytes *b, const char *s, size_t n)
{
    BUG_IF(b->n + n > sizeof b->at, "a zip record grows too long");
    memcpy(b->at + b->n, s, n);
    b->n += n;
}

static int64_t low(int64_t v) { return v >= MAX_32 ? MAX_32 : v; }

static int put_local(struct zip_out *z, const struct member *m, struct err *e)
{
    struct bytes b = {.n = 0};
    bool big = m->size >= MAX_32;
    size_t name = strlen(m->name), fixed = 30 + name + (big ? 20 : 0) + 4;
    size_t pad = (ALIGN - (size_t)((m->at + (int64_t)fixed) % ALIGN)) % ALIGN;
    add(&b, 0x04034b50, 4);
    add(&b, big ? NEEDS_64 : 0, 2);
    add(&b, FLAGS, 2);
    add(&b, 0, 2 + 4 + 4); // stored; no date; the checksum follows the payload
    add(&b, big ? MAX_32 : 0, 4);
    add(&b, big ? MAX_32 : 0, 4);
    add(&b, (int64_t)name, 2);
    add(&b, (int64_t)(pad + 4 + (big ? 20 : 0)), 2);
    add_text(&b, m->name, name);
    if (big) {
        add(&b, 0x0001, 2);
        add(&b, 16, 2);
        add(&b, m->size, 8);
        add(&b, m->size, 8);
    }
    add_text(&b, "FB", 2);
    add(&b, (int64_t)pad, 2);
    for (; pad > 0; pad--) add(&b, 'Z', 1);
    return outfile_put(z->file, b.at, b.n, e);
}

static int put_descriptor(struct zip_out *z, const struct member *m, struct err *e)
{
    struct bytes b = {.n = 0};
    int width = m->size >= MAX_32 ? 8 : 4;
    add(&b, 0x08074b50, 4);
    add(&b, m->crc, 4);
    add(&b, m->size, width);
    add(&b, m->size, width);
    return outfile_put(z->file, b.at, b.n, e);
}

static int put_entry(struct zip_out *z, const struct member *m, struct err *e)
{
    struct bytes b = {.n = 0};
    bool big = m->size >= MAX_32, far = m->at >= MAX_32;
    int extra = (big ? 16 : 0) + (far ? 8 : 0);
    add(&b, 0x02014b50, 4);
    add(&b, 0, 2);
    add(&b, extra ? NEEDS_64 : 0, 2);
    add(&b, FLAGS, 2);
    add(&b, 0, 2 + 4);
    add(&b, m->crc, 4);
    add(&b, low(m->size), 4);
    add(&b, low(m->size), 4);
    add(&b, (int64_t)strlen(m->name), 2);
    add(&b, extra ? extra + 4 : 0, 2);
    add(&b, 0, 2 + 2 + 2 + 4); // no comment, first disk, no attributes
    add(&b, low(m->at), 4);
    add_text(&b, m->name, strlen(m->name));
    if (extra) add(&b, 0x0001, 2), add(&b, extra, 2);
    if (big) add(&b, m->size, 8), add(&b, m->size, 8);
    if (far) add(&b, m->at, 8);
    return outfile_put(z->file, b.at, b.n, e);
}

static int put_end(struct zip_out *z, int64_t at, int64_t size, struct err *e)
{
    struct bytes b = {.n = 0};
    bool big = at >= MAX_32 || size >= MAX_32 || z->n >= 0xffff;
    if (big) {
        add(&b, 0x06064b50, 4);
        add(&b, 44, 8);
        add(&b, NEEDS_64, 2);
        add(&b, NEEDS_64, 2);
        add(&b, 0, 8); // first disk, twice
        add(&b, z->n, 8);
        add(&b, z->n, 8);
        add(&b, size, 8);
        add(&b, at, 8);
        add(&b, 0x07064b50, 4); // locator
        add(&b, 0, 4);
        add(&b, at + size, 8);
        add(&b, 1, 4);
    }
    int64_t count = z->n >= 0xffff ? 0xffff : z->n;
    add(&b, 0x06054b50, 4);
    add(&b, 0, 4);
    add(&b, count, 2);
    add(&b, count, 2);
    add(&b, low(size), 4);
    add(&b, low(at), 4);
    add(&b, 0, 2);
    return outfile_put(z->file, b.at, b.n, e);
}

// ---- the stream

int zip_create(struct zip_out **out, const char *path, struct err *e)
{
    struct zip_out *z = calloc(1, sizeof *z);
    BUG_IF(!z, "no memory for a file handle");
    crc_prepare(z);
    z->left = -1;
    int rc = outfile_create(&z->file, path, e);
    if (rc < 0)
        zip_out_free(&z);
    else
        *out = z;
    return rc;
}

int zip_begin(struct zip_out *z, const char *name, int64_t size, struct err *e)
{
    BUG_IF(z->left >= 0, "%s: %s begins before the member before it ends", outfile_path(z->file), name);
    BUG_IF(strlen(name) > NAME_MAX_BYTES, "%s: the name of a member is too long", outfile_path(z->file));
    if (z->n == z->capacity) {
        z->capacity = z->capacity ? 2 * z->capacity : 64;
        z->member = realloc(z->member, (size_t)z->capacity * sizeof *z->member);
        BUG_IF(!z->member, "no memory for the directory of %s", outfile_path(z->file));
    }
    struct member *m = &z->member[z->n++];
    *m = (struct member){.name = strdup(name), .at = outfile_size(z->file), .size = size};
    BUG_IF(!m->name, "no memory for the directory of %s", outfile_path(z->file));
    z->left = size;
    return put_local(z, m, e);
}

int zip_put(struct zip_out *z, const void *bytes, size_t n, struct err *e)
{
    BUG_IF((int64_t)n > z->left, "%s: a member gets more bytes than it said", outfile_path(z->file));
    struct member *m = &z->member[z->n - 1];
    m->crc = crc_update(z, m->crc, bytes, n);
    z->left -= (int64_t)n;
    return outfile_put(z->file, bytes, n, e);
}

int64_t zip_left(const struct zip_out *z) { return z->left; }

int zip_end(struct zip_out *z, struct err *e)
{
    BUG_IF(z->left != 0, "%s: a member ends %lld bytes early", outfile_path(z->file), (long long)z->left);
    z->left = -1;
    return put_descriptor(z, &z->member[z->n - 1], e);
}

int zip_member_put(struct zip_out *z, const char *name, const void *bytes, size_t n, struct err *e)
{
    int rc = zip_begin(z, name, (int64_t)n, e);
    if (rc == 0) rc = zip_put(z, bytes, n, e);
    return rc < 0 ? rc : zip_end(z, e);
}

int zip_close(struct zip_out **pz, struct err *e)
{
    struct zip_out *z = *pz;
    int64_t at = outfile_size(z->file);
    int rc = 0;
    BUG_IF(z->left >= 0, "%s is closed inside a member", outfile_path(z->file));
    for (int64_t i = 0; i < z->n && rc == 0; i++) rc = put_entry(z, &z->member[i], e);
    if (rc == 0) rc = put_end(z, at, outfile_size(z->file) - at, e);
    if (rc == 0) rc = outfile_close(&z->file, e);
    zip_out_free(pz);
    return rc;
}

void zip_out_free(struct zip_out **pz)
{
    struct zip_out *z = *pz;
    if (!z) return;
    for (int64_t i = 0; i < z->n; i++) free(z->member[i].name);
    free(z->member);
    outfile_free(&z->file);
    free(z);
    *pz = NULL;
}
