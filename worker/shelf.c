// Features lie in files without names (features.h), 40 KB a frame with the published encoder: an hour of voice is 3.6
// GB. So few are kept.
#include "worker/shelf.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT = 2 };

struct shelf {
    struct shelf_key key[KEPT];
    struct features *features[KEPT]; // the newest first
};

void shelf_new(struct shelf **out)
{
    *out = calloc(1, sizeof **out);
    BUG_IF(!*out, "no memory for a shelf");
}

void shelf_free(struct shelf **s)
{
    if (!*s) return;
    for (int i = 0; i < KEPT; i++) features_close(&(*s)->features[i]);
    free(*s);
    *s = NULL;
}

void shelf_key_make(struct shelf_key *k, const struct spec_render *r, const uint8_t voice[HASH_BYTES])
{
    memset(k, 0, sizeof *k); // padding is compared too
    memcpy(k->voice, voice, sizeof k->voice);
    k->n_frames = r->n_frames;
    k->n_reach = r->n_reach;
    k->n_speakers = r->n_speakers;
    k->frame_num = r->frame_num;
    k->motion_frame = r->motion_frame;
    k->mode = r->mode;
    k->tail = r->tail;
    k->parity = r->parity;
}

struct features *shelf_take(struct shelf *s, const struct shelf_key *k)
{
    for (int i = 0; i < KEPT; i++) {
        struct features *f = s->features[i];
        if (!f || memcmp(&s->key[i], k, sizeof *k) != 0) continue;
        s->features[i] = NULL;
        return f;
    }
    return NULL;
}

void shelf_put(struct shelf *s, const struct shelf_key *k, struct features **f)
{
    int at = 0;
    while (at < KEPT - 1 && s->features[at]) at++;
    features_close(&s->features[at]);
    for (; at > 0; at--) {
        s->features[at] = s->features[at - 1];
        s->key[at] = s->key[at - 1];
    }
    s->features[0] = *f;
    s->key[0] = *k;
    *f = NULL;
}
