// A model set: the weights that are loaded together (base, adapter, LoRAs merged, encoders) on one device.
//
// By the ranks of a mesh, each has a set of its own: the transformer and the VAE, whose work they share, and of the
// encoders those that live there: voice, words and picture on ranks of their own as far as there are ranks.
#ifndef WORKER_SET_H
#define WORKER_SET_H

#include "proto/model.h"
#include "worker/models/clip.h"
#include "worker/models/dit.h"
#include "worker/models/umt5.h"
#include "worker/models/unigram.h"
#include "worker/models/vae.h"
#include "worker/models/wav2vec2.h"

struct set_options {
    const char *model;                 // folder
    const char *dit, *adapter, *voice; // a part elsewhere than in the folder, or NULL
    int n_speakers;                    // chooses the adapter
    enum dtype dtype;                  // of the DiT and the text encoder; DT_NONE: F32
    const char *const *lora;
    const double *lora_scale;
    int n_lora;
    bool published;
    const struct mesh *mesh; // the ranks that render together, each with a set of its own; borrowed. NULL: alone
    struct comm *sharers;    // ranks of one sequence among which the blocks of the DiT, and of the text encoder where
                             // words are read, are spread; borrowed. NULL: every rank has all
    bool stream_weights;     // or they stay in the host's memory, fetched by the device a block ahead
    int here;                // ranks that share this machine's memory; 0: 1
    bool together;           // guidance branches as one batch (struct denoise)
};

struct set {
    struct dev *dev;
    const struct mesh *mesh;
    bool together;
    int here;
    int voice_rank, words_rank, picture_rank; // where the encoders live
    struct model model;
    struct dit *dit;
    struct vae *vae;
    struct clip *clip; // these four NULL on ranks where they do not live
    struct umt5 *umt5; // on ranks that lend it their shares too
    struct unigram *unigram;
    struct wav2vec2 *wav2vec2;
    struct comm *alone;       // a world of one, of streamed weights
    struct arena host;        // merged LoRA weights
    struct weights *files[4]; // maps that the models point into
};

// Where the parts lie: the folder's, or those that stand elsewhere. E_INPUT names what is missing.
int set_parts(struct model *m, const struct set_options *o, struct err *e);
const char *set_adapter(const struct model *m, const struct set_options *o); // for as many speakers

// About what of a rank's memory could be spread: the tensors of the transformer and the text encoder in the set's
// dtype.
int set_weigh(int64_t *bytes, const struct set_options *o, struct err *e);

// E_INPUT names the missing part or the misfitting tensor. The device must outlive the set. Owner: caller. Collective
// over a mesh: an error on one rank is an error on all.
int set_open(struct set **out, struct dev *d, const struct set_options *o, struct err *e);
void set_free(struct set **s);
// Of another rank than `rank`?
bool set_lives_elsewhere(const struct set *s, int rank);
// What the ranks agree on: the worst code of any of them. Alone it is `rc`.
int set_agree(const struct set *s, int rc, struct err *e);

#endif
