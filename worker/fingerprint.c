// Fingerprints of program and weights.
//
// The build id stands in a note of the program that is running, which the linker made from its contents.
//
// Weights are looked at before they are loaded, through their maps: of a model of 50 GB some 200 MB are read. Each file
// is a set of names of its own here, whatever will lie over what.
#include "worker/fingerprint.h"

#include "worker/models/wav2vec2.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EDGE_BYTES = 64 << 10 };

// ---- the program

static int find_note(struct dl_phdr_info *info, size_t size, void *ctx)
{
    char *text = ctx;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_NOTE) continue;
        const char *at = (const char *)info->dlpi_addr + p->p_vaddr, *end = at + p->p_memsz;
        while (at + sizeof(ElfW(Nhdr)) <= end) {
            const ElfW(Nhdr) *n = (const void *)at;
            const uint8_t *id = (const uint8_t *)at + sizeof *n + (n->n_namesz + 3) / 4 * 4;
            if (n->n_type == NT_GNU_BUILD_ID) {
                for (size_t k = 0; k < n->n_descsz && k < (BUILD_TEXT - 1) / 2; k++)
                    sprintf(text + 2 * k, "%02x", id[k]);
                return 1;
            }
            at = (const char *)id + (n->n_descsz + 3) / 4 * 4;
        }
    }
    return 1; // the program is the first; what it has loaded is not asked
}

void fingerprint_build(char text[BUILD_TEXT])
{
    snprintf(text, BUILD_TEXT, "none");
    dl_iterate_phdr(find_note, text);
}

// ---- weights

static void hash_tensor(struct hash *h, const char *name, tensor t)
{
    int64_t last = 0, dtype = t.dtype, n = t.n;
    for (int i = 0; i < t.n; i++) last += (t.shape[i] - 1) * t.stride[i];
    int64_t bytes = tensor_count(t) ? (last + 1) * dtype_size(t.dtype) : 0;
    int64_t edge = bytes < EDGE_BYTES ? bytes : EDGE_BYTES;
    hash_update(h, name, strlen(name) + 1);
    hash_update(h, &dtype, sizeof dtype);
    hash_update(h, &n, sizeof n);
    hash_update(h, t.shape, (size_t)t.n * sizeof *t.shape);
    hash_update(h, &bytes, sizeof bytes);
    if (t.scale) hash_update(h, t.scale, (size_t)t.shape[0] * sizeof *t.scale);
    hash_update(h, t.data, (size_t)edge);
    hash_update(h, (const char *)t.data + bytes - edge, (size_t)edge);
}

static int hash_weights(struct hash *h, const struct weights *w, struct err *e)
{
    for (int64_t i = 0; i < weights_count(w); i++) {
        tensor t = NO_TENSOR;
        int rc = weights_get(w, weights_name(w, i), &t, e);
        if (rc < 0) return rc;
        hash_tensor(h, weights_name(w, i), t);
    }
    return 0;
}

static int hash_file(struct hash *h, const char *path, bool is_voice, struct err *e)
{
    struct weights *w = NULL;
    int rc = is_voice ? wav2vec2_weights(&w, path, e) : weights_open(&w, path, e);
    if (rc == 0) rc = hash_weights(h, w, e);
    weights_free(&w);
    return rc;
}

int fingerprint_weights(uint8_t out[HASH_BYTES], const struct set_options *o, struct err *e)
{
    struct model *m = calloc(1, sizeof *m); // large
    struct hash h;
    BUG_IF(!m, "no memory for a model's declaration");
    hash_init(&h);
    int rc = set_parts(m, o, e);
    const char *const files[] = {m->dit, set_adapter(m, o), m->text, m->clip, m->vae, m->voice};
    for (int i = 0; i < 6 && rc == 0; i++) rc = hash_file(&h, files[i], i == 5, e);
    for (int i = 0; i < o->n_lora && rc == 0; i++) {
        hash_update(&h, &o->lora_scale[i], sizeof o->lora_scale[i]);
        rc = hash_file(&h, o->lora[i], false, e);
    }
    hash_final(&h, out);
    free(m);
    return rc;
}
