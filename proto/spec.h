// A job as asked: what flags, YAML and JSON say, with every limit and default applied, and the part that the worker
// needs.
//
// Life: spec_init, then spec_read_file and spec_set in rising order of precedence (file, environment, flags), then
// spec_resolve with the model's declaration; spec_fit when the media are known. Strings belong to the spec's arena;
// NULL means not given. Every refusal is one sentence that names the field, the value and the way out.
#ifndef PROTO_SPEC_H
#define PROTO_SPEC_H

#include "proto/base/arena.h"
#include "proto/base/opt.h"
#include "proto/json.h"
#include "proto/model.h"

#include <stdbool.h>
#include <stdint.h>

enum { SPEC_SPEAKERS = 2, SPEC_LORAS = 8, SPEC_PROMPT_MAX = 8192, SPEC_CUTS = 10000 };
enum spec_mode { SPEC_STREAMING, SPEC_CLIP };
enum spec_audio_type { SPEC_AUDIO_NONE, SPEC_PARA, SPEC_ADD };
enum spec_parity { SPEC_PARITY_NONE, SPEC_PARITY_PUBLISHED };
enum spec_tail { SPEC_TAIL_SILENCE, SPEC_TAIL_MIRROR };
enum spec_video_end { SPEC_END_HOLD, SPEC_END_LOOP, SPEC_END_PINGPONG, SPEC_END_STOP };

// What decides the frames: travels to the worker in OPEN. All numbers are resolved (no "default" left).
struct spec_render {
    int h, w;                    // output picture, multiples of 16
    char size[32];               // size class, for people
    int frame_num, motion_frame; // F = 4n+1, M = 4k+1
    int64_t n_frames;            // L, frames delivered at 25 fps
    int64_t n_reach;             // frames that the segments look at, where there are several spans; 0: one span
    int n_speakers;              // 1 or 2
    int steps;
    double shift, text_scale, audio_scale, color_strength;
    int64_t seed;
    bool apg;
    double apg_momentum, apg_norm_threshold;
    bool teacache;
    double teacache_thresh, teacache_poly[MODEL_POLY]; // the highest power first
    enum spec_tail tail;
    enum spec_parity parity;
    enum spec_mode mode;
    char prompt[SPEC_PROMPT_MAX], negative[SPEC_PROMPT_MAX]; // UTF-8; negative "" is the built-in one
};

// A speaker's region of the source picture: a box in source pixels, or a mask file.
struct spec_region {
    bool has_box;
    double row0, col0, row1, col1; // half-open after truncation
    const char *mask;
};

struct spec {
    struct arena arena;
    const char *image, *video;        // exactly one; the published JSON's cond_video stands in `image`: content decides
    const char *audio[SPEC_SPEAKERS]; // NULL: a silent speaker (the published JSON's "None")
    int n_speakers;
    int audio_type;  // enum spec_audio_type
    int audio_track; // of files with several: 1 is the first; 0: the default one
    struct spec_region region[SPEC_SPEAKERS];
    const char *model;                 // folder
    const char *dit, *adapter, *voice; // a part elsewhere than in the folder
    const char *output;
    bool overwrite;
    int64_t max_frame_num; // 0: no limit
    double face_scale;     // 0.05
    int video_end;         // enum spec_video_end
    bool cut_at_shots;     // spans begin where the video's shots do
    const char *cut_from;  // the flag or key that asked for it; the arena's
    int64_t *cut;          // or at these frames; the arena's
    int n_cuts;
    bool relax_layout;  // a group of any layout class may go on with it
    int crf;            // 18
    const char *preset; // x264 preset
    const char *lora[SPEC_LORAS];
    double lora_scale[SPEC_LORAS];
    int n_lora, n_lora_scale;
    int dtype;   // 0 f32, 1 bf16
    int threads; // 0: all the process may use
    const char *prompt, *negative, *size;
    int ulysses, ring;    // the published program's two ways to split, as given; 0: not
    bool fsdp, text_fsdp; // likewise: weights spread over the ranks, of the transformer and of the text encoder
    char notices[2048];   // sentences, one a line: what was accepted but has no meaning here
    struct spec_render r; // r.h, r.w, r.n_frames are filled once the media are known
};

// Adds to the notices: "from: why".
void spec_notice(struct spec *s, const char *from, const char *why);
void spec_init(struct spec *s);
void spec_free(struct spec *s);
// The rows of every key of a job (flags of `render`, keys of a job file), ending with a NULL key.
const struct opt *spec_table(void);
// Sets one key from text. `what` is "flag" or "key", `from` names the source in messages.
int spec_set(struct spec *s, const char *what, const char *from, const char *key, const char *text, struct err *e);
// A job file: the published program's JSON, or the same keys and any flag's name in YAML or JSON.
int spec_read_file(struct spec *s, const char *path, struct err *e);
int spec_read_tree(struct spec *s, const char *what, const json_t *tree, struct err *e);
// The tree that spec_read_tree makes this spec of. The caller owns it (json_decref).
json_t *spec_write(const struct spec *s);
// Applies the model's defaults and checks everything that needs no media.
int spec_resolve(struct spec *s, const struct model *m, struct err *e);

// The voice's length in frames: max(1, floor((50 n + rate) / (2 rate))) for n samples at `rate`.
int64_t spec_frames(int64_t n_samples, int64_t rate);
// The same as the published program counts, of n samples at 16 kHz: rounded down, in doubles (28 for 18560 samples).
int64_t spec_frames_published(int64_t n_samples);
// Segments of a job: 1 + ceil((L - F) / (F - M)), at least 1; clip mode: 1.
int64_t spec_segments(int64_t n_frames, int frame_num, int motion_frame, enum spec_mode mode);

#endif
