// What a model folder declares: model.yaml where it differs from the published model, config.json, and where its parts
// lie. Absent, the published values hold. The daemon takes limits and defaults of every verb from here; the worker
// takes what tensor shapes cannot tell (head counts, VAE structure, wav2vec2 strides).
#ifndef PROTO_MODEL_H
#define PROTO_MODEL_H

#include "proto/base/err.h"

#include <stdbool.h>

enum { MODEL_BUCKETS_MAX = 64, MODEL_PATH_MAX = 1024, MODEL_CONVS_MAX = 16, MODEL_POLY = 5 };

struct bucket {
    double key; // height / width as printed in the table: this rounded key is compared, not the true ratio
    int h, w;   // pixels
};
struct bucket_table {
    char name[32]; // "infinitetalk-480", "infinitetalk-720", or the tiny model's own
    int n;
    struct bucket bucket[MODEL_BUCKETS_MAX];
    double shift;                // default schedule shift for this size
    double teacache[MODEL_POLY]; // how far a step of the time embedding moves the network; the highest power first
};

enum model_range { MODEL_PEOPLE, MODEL_DRAWN }; // photographs of people; drawn heads only

struct model {
    char dir[MODEL_PATH_MAX];
    char name[64];
    int range; // enum model_range: what pictures it has learnt
    // sizes and defaults of a job
    int n_sizes;
    struct bucket_table size[4]; // the first is the default
    int frame_num, motion_frame, steps, fps;
    double text_scale, audio_scale, color_strength;
    // parts: absolute paths, "" when the folder has none
    char dit[MODEL_PATH_MAX];       // folder of shards or file
    char adapter[MODEL_PATH_MAX];   // audio weights for one speaker
    char adapter2[MODEL_PATH_MAX];  // audio weights for two speakers; "" means `adapter` serves both
    char text[MODEL_PATH_MAX];      // umT5 .pth
    char tokenizer[MODEL_PATH_MAX]; // folder with tokenizer.json
    char clip[MODEL_PATH_MAX];
    char vae[MODEL_PATH_MAX];
    char voice[MODEL_PATH_MAX]; // wav2vec2 folder
    // what shapes cannot tell (published values by default)
    int dit_heads;  // 40
    double dit_eps; // 1e-6
    int text_heads; // 64
    int text_len;   // 512
    int clip_heads; // 16
    int clip_image; // 224
};

// Reads DIR/model.yaml and DIR/config.json and looks for the parts under their published names. E_INPUT names the file,
// the key and the nearest known key; a missing part is only reported by model_missing.
int model_open(struct model *m, const char *dir, struct err *e);
// 0, or E_INPUT naming every missing part of a full model.
int model_missing(const struct model *m, struct err *e);
// The published step cache's polynomials: that of the published size called `name`; for another size, of the one whose
// pictures are nearest in area.
const double *model_teacache(const char *name, double area);
// The table called `size`, or E_INPUT listing the names.
int model_size(const struct model *m, const char *size, const struct bucket_table **out, struct err *e);
// The bucket whose key is nearest to height/width; the first wins a tie (pipeline.md 3.2).
const struct bucket *model_bucket(const struct bucket_table *t, int src_h, int src_w);

#endif
