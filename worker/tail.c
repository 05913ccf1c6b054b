// Tails as bytes.
//
// A tail travels to the coordinator, rests in its store and may reach another worker days later, so it says what it is
// and carries a checksum (FNV-1a, 64 bit, over the latents): damage is told in a sentence instead of being rendered.
// Numbers are copied as they lie; every machine this runs on is little endian (checked at compile time).
#include "worker/tail.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tails and weight files are little endian");

enum { TAIL_VERSION = 1, TAIL_AXES = 4 };

struct tail_head {
    char magic[4];
    uint32_t version;
    uint32_t shape[TAIL_AXES];
    uint64_t checksum;
};
_Static_assert(sizeof(struct tail_head) == 32, "no padding");

static const char tail_magic[4] = {'L', 'T', 'T', 'L'};

static uint64_t tail_checksum(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

size_t tail_size(tensor z) { return sizeof(struct tail_head) + (size_t)tensor_count(z) * sizeof(float); }

void tail_pack(struct dev *d, void *bytes, tensor z)
{
    BUG_IF(z.n != TAIL_AXES || z.dtype != DT_F32, "a tail of %d axes", z.n);
    struct tail_head head = {.version = TAIL_VERSION};
    memcpy(head.magic, tail_magic, sizeof head.magic);
    for (int i = 0; i < TAIL_AXES; i++) head.shape[i] = (uint32_t)z.shape[i];
    char *latents = (char *)bytes + sizeof head;
    dev_download(d, latents, DT_F32, z);
    head.checksum = tail_checksum(latents, tail_size(z) - sizeof head);
    memcpy(bytes, &head, sizeof head);
}

int tail_unpack(struct dev *d, tensor z, const void *bytes, size_t n, struct err *e)
{
    struct tail_head head;
    if (n < sizeof head) return err_set(e, E_INPUT, "the tail has %zu bytes, fewer than its head", n);
    memcpy(&head, bytes, sizeof head);
    if (memcmp(head.magic, tail_magic, sizeof head.magic) != 0)
        return err_set(e, E_INPUT, "the tail does not begin with LTTL: these bytes are something else");
    if (head.version != TAIL_VERSION)
        return err_set(e, E_INPUT, "the tail has version %u, this worker writes and reads %d; render the segment anew",
                       head.version, TAIL_VERSION);
    for (int i = 0; i < TAIL_AXES; i++)
        if (head.shape[i] != z.shape[i])
            return err_set(e, E_INPUT, "the tail has latents %ux%ux%ux%u, this job needs %lldx%lldx%lldx%lld",
                           head.shape[0], head.shape[1], head.shape[2], head.shape[3], (long long)z.shape[0],
                           (long long)z.shape[1], (long long)z.shape[2], (long long)z.shape[3]);
    if (n != tail_size(z)) return err_set(e, E_INPUT, "the tail has %zu bytes, expected %zu", n, tail_size(z));
    const char *latents = (const char *)bytes + sizeof head;
    if (tail_checksum(latents, n - sizeof head) != head.checksum)
        return err_set(e, E_INPUT, "the tail is damaged: its checksum does not fit; render the segment before anew");
    dev_upload(d, z, latents, DT_F32);
    return 0;
}
