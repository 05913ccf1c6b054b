// Pictures: the same entry, but the colours' box (colr) is of the kind nclc, which has no byte for the range.
//
// Sound: MP4 puts the decoder's description (esds) right into the entry. QuickTime wants an entry of version 1 with it
// inside a box "wave", and the speakers' order (chan) beside it. Version 1 has 16 bits for the rate: above that,
// version 2, which has a double.
#include "daemon/media/mp4_entry.h"

#include "daemon/media/mp4_index.h"

#include <string.h>

enum { PICTURE_FIELDS = 86, SOUND_FIELDS = 36, AAC_FRAME = 1024 };

size_t mp4_entry_pictures(const struct mp4_track *t, uint8_t *to)
{
    struct mp4_bytes in = t->entry, colr = mp4_child(in, PICTURE_FIELDS - 8, "colr");
    memcpy(to, in.p, in.n);
    if (!colr.p) return in.n;
    if (colr.n != 19 || memcmp(colr.p + 8, "nclx", 4) != 0) return 0;
    uint8_t *at = to + (colr.p - in.p);
    mp4_set32(at, 18);
    at[11] = 'c';
    memmove(at + 18, at + 19, in.n - (size_t)(colr.p - in.p) - 19);
    mp4_set32(to, (uint32_t)in.n - 1);
    return in.n - 1;
}

// The descriptor of kind `tag` that begins at *at; *at moves to what it holds.
static bool descriptor_enter(struct mp4_bytes esds, size_t *at, uint8_t tag)
{
    if (*at >= esds.n || esds.p[*at] != tag) return false;
    do ++*at;
    while (*at < esds.n && esds.p[*at] & 0x80); // the length, seven bits a byte
    ++*at;
    return true;
}

// As AudioSpecificConfig has it, the configurations 1 to 7; 0: another, or none.
static int channels_of(struct mp4_bytes esds)
{
    size_t at = 12;
    if (!descriptor_enter(esds, &at, 3)) return 0;
    at += 3; // number, flags
    if (!descriptor_enter(esds, &at, 4)) return 0;
    at += 13; // codec, buffer, bit rates
    if (!descriptor_enter(esds, &at, 5) || at + 2 > esds.n) return 0;
    int rate = (esds.p[at] & 7) << 1 | esds.p[at + 1] >> 7, configuration = esds.p[at + 1] >> 3 & 15;
    if (rate == 15 || configuration > 7) return 0;
    return configuration == 7 ? 8 : configuration;
}

// Core Audio's numbers for the orders of the AAC standard, by number of channels.
static const uint32_t layout_tags[] = {0, 100, 101, 114, 116, 120, 124, 0, 127};

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    mp4_set32(p, v);
    return p + 4;
}

static uint8_t *put_type(uint8_t *p, const char *type)
{
    memcpy(p, type, 4);
    return p + 4;
}

static uint8_t *fields_narrow(uint8_t *p, uint32_t channels, uint32_t rate)
{
    p = put32(p, 1U << 16); // version 1
    p = put32(p, 0);
    p = put32(p, channels << 16 | 16);
    p = put32(p, 0xfffe0000); // compressed, packets of any size
    p = put32(p, rate << 16);
    p = put32(p, AAC_FRAME);
    p = put32(p, 0);
    p = put32(p, 0);
    return put32(p, 2);
}

static uint8_t *fields_wide(uint8_t *p, uint32_t channels, uint32_t rate)
{
    uint64_t bits;
    memcpy(&bits, &(double){rate}, sizeof bits);
    p = put32(p, 2U << 16); // version 2
    p = put32(p, 0);
    p = put32(p, 3U << 16 | 16);
    p = put32(p, 0xfffe0000);
    p = put32(p, 1U << 16);
    p = put32(p, 72); // bytes of the fields up to here and below
    mp4_set64(p, bits);
    p = put32(p + 8, channels);
    p = put32(p, 0x7f000000);
    p = put32(p, 0);
    p = put32(p, 0);
    p = put32(p, 0);
    return put32(p, AAC_FRAME);
}

size_t mp4_entry_sound(const struct mp4_track *t, uint8_t *to)
{
    struct mp4_bytes in = t->entry, esds = mp4_child(in, SOUND_FIELDS - 8, "esds");
    int n_channels = channels_of(esds);
    if (n_channels == 0) return 0;
    uint32_t channels = (uint32_t)n_channels, tag = layout_tags[n_channels] << 16 | channels;
    memcpy(to, in.p, 16); // size, type, which dref
    uint8_t *p = (t->timescale > UINT16_MAX ? fields_wide : fields_narrow)(to + 16, channels, t->timescale);
    p = put_type(put32(p, (uint32_t)esds.n + 40), "wave");
    p = put_type(put_type(put32(p, 12), "frma"), "mp4a");
    p = put32(put_type(put32(p, 12), "mp4a"), 0);
    memcpy(p, esds.p, esds.n);
    p = put32(put32(p + esds.n, 8), 0); // the end of wave
    p = put32(put32(put32(put32(put_type(put32(p, 24), "chan"), 0), tag), 0), 0);
    size_t n = (size_t)(p - to);
    mp4_set32(to, (uint32_t)n);
    return n;
}
