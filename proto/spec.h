// A job as asked: what is parsed from flags, YAML or JSON, with every limit and default applied, and what of it the
// worker needs. Strings belong to the spec's arena; NULL means not given.
#ifndef PROTO_SPEC_H
#define PROTO_SPEC_H

#include "proto/base/arena.h"
#include "proto/json.h"
#include "proto/model.h"

#include <stdbool.h>
#include <stdint.h>

enum { SPEC_SPEAKERS = 2, SPEC_LORAS = 8 };
enum spec_mode { SPEC_STREAMING, SPEC_CLIP };
enum spec_audio_type { SPEC_AUDIO_NONE, SPEC_PARA, SPEC_ADD };
enum spec_parity { SPEC_PARITY_NONE, SPEC_PARITY_PUBLISHED };
enum spec_tail { SPEC_TAIL_SILENCE, SPEC_TAIL_MIRROR };
enum spec_video_end { SPEC_END_HOLD, SPEC_END_LOOP, SPEC_END_PINGPONG, SPEC_END_STOP };

// What decides the frames: travels to the worker in OPEN. All numbers are resolved (no "default" left).
struct spec_render {
    int h, w;                    // output picture, multiples of 16
    char size[32];               // size class, chooses TeaCache's polynomial
    int frame_num, motion_frame; // F = 4n+1, M = 4k+1
    int64_t n_frames;            // L, frames delivered at 25 fps
    int n_speakers;              // 1 or 2
    int steps;
    double shift, text_scale, audio_scale, color_strength;
    int64_t seed;
    bool apg;
    double apg_momentum, apg_norm_threshold;
    bool teacache;
    double teacache_thresh;
    enum spec_tail tail;
    enum spec_parity parity;
    enum spec_mode mode;
    char prompt[8192], negative[8192]; // UTF-8
};

// A speaker's region of the source picture: a box in source pixels, or a mask file.
struct spec_region {
    bool has_box;
    double row0, col0, row1, col1; // half-open after truncation
    const char *mask;
};

struct spec {
    struct arena arena;
    const char *image, *video;        // exactly one; from the published JSON's cond_video either
    const char *audio[SPEC_SPEAKERS]; // "None" of the published JSON is NULL with n_speakers 2
    int n_audio;
    enum spec_audio_type audio_type;
    struct spec_region region[SPEC_SPEAKERS];
    const char *model; // folder
    const char *output;
    bool overwrite;
    int64_t max_frame_num; // 0: no limit
    double face_scale;     // 0.05
    enum spec_video_end video_end;
    int crf;            // 18
    const char *preset; // x264 preset
    const char *lora[SPEC_LORAS];
    double lora_scale[SPEC_LORAS];
    int n_lora;
    struct spec_render r; // r.h, r.w, r.n_frames are filled once the media are known
};

// The voice's length in frames: max(1, floor((50 n + rate) / (2 rate))) for n samples at `rate`.
int64_t spec_frames(int64_t n_samples, int64_t rate);
// Segments of a job: 1 + ceil((L - F) / (F - M)), at least 1; clip mode: 1.
int64_t spec_segments(int64_t n_frames, int frame_num, int motion_frame, enum spec_mode mode);

#endif
