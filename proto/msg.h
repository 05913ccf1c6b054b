// A message between coordinator and worker as plain C, and its bytes. Protocol Buffers stay behind msg.c.
//
// Bulk bytes (pictures, voice, tails, frames) never go through the codec: they ride behind it as frames of their own,
// and a struct msg only points at them. Everything decoded is checked: lengths, ranges, the size of each bulk part.
#ifndef PROTO_MSG_H
#define PROTO_MSG_H

#include "proto/spec.h"

enum { MSG_PROTOCOL = 3, MSG_BULK_MAX = 3, MSG_BLOB_MAX = 1 << 20 };

enum msg_kind {
    MSG_NONE,
    MSG_HELLO,
    MSG_BEAT,
    MSG_BYE,
    MSG_OPEN,
    MSG_BLOB,
    MSG_RUN,
    MSG_CREDIT,
    MSG_CANCEL,
    MSG_CLOSE,
    MSG_TAIL,
    MSG_FRAMES,
    MSG_DONE,
    MSG_FAILED,
    MSG_NOTICE,
    MSG_SUBMIT,
    MSG_PUT,
    MSG_STATUS,
    MSG_LIST,
    MSG_WATCH,
    MSG_CONTROL,
    MSG_FETCH,
    MSG_ANSWER,
};

struct msg_bulk {
    const void *data;
    size_t n;
};

struct msg_hello {
    char version[32], device[96], layout[128], host[64];
    uint32_t ranks;
    uint64_t pid;
    char build[48];
    bool has_weights;
    uint8_t weights[32];        // their fingerprint
    uint8_t model[32], set[32]; // marks (proto/mark.h); zeros: not told
};
struct msg_beat {
    uint64_t progress;
    char stage[32];
    int64_t segment;
    uint32_t step, n_steps;
};
struct msg_open {
    struct spec_render spec;
    uint64_t n_samples[SPEC_SPEAKERS]; // of each speaker's own voice; silence follows the shorter one
    uint8_t voice_hash[32];
};
struct msg_blob {
    uint32_t speaker;
    uint64_t offset; // bytes
};
struct msg_run {
    int64_t segment, start, keep_from, keep_to;
    bool first, last; // of its span, of the job
    bool ends;        // its span: no tail is wanted
};
struct msg_frames {
    int64_t segment, first;
    uint32_t n;
};
struct msg_done {
    int64_t segment, condition_ms, denoise_ms, decode_ms, tail_ms;
    double drift;
};
struct msg_failed {
    int64_t segment;
    int code;
    char text[1024];
    bool setting; // what is wrong is how the group was started
};

struct msg_submit {
    char key[128];
    int priority; // 0..100
};
struct msg_put {
    uint8_t hash[32];
    uint64_t offset, total; // bytes
};
// What STATUS asks of a job.
enum msg_view { MSG_VIEW_JOB, MSG_VIEW_REPORT, MSG_VIEW_EVENTS };
struct msg_status {
    enum msg_view view;
    uint64_t after; // events with numbers above it
};
struct msg_answer {
    int code;
    char text[1024];
    uint64_t offset, total;
};

struct msg {
    enum msg_kind kind;
    uint64_t job;
    union {
        struct msg_hello hello;
        struct msg_beat beat;
        char bye[256];
        struct msg_open open;
        struct msg_blob blob;
        struct msg_run run;
        uint32_t credit; // frames
        int64_t tail_segment;
        struct msg_frames frames;
        struct msg_done done;
        struct msg_failed failed;
        char notice[1024];
        struct msg_submit submit;
        struct msg_put put;
        struct msg_status status;
        char control[16];
        uint64_t fetch_offset;
        uint64_t list_batch; // 0: all jobs
        struct msg_answer answer;
    };
    struct msg_bulk bulk[MSG_BULK_MAX];
    int n_bulk;
};

const char *msg_name(enum msg_kind k);

// The codec frame of `m` as a malloc'd buffer (caller frees). Bulk parts are the sender's to append.
void msg_encode(const struct msg *m, void **out, size_t *n);
// Fills `m` from a codec frame and its bulk parts (pointed at, not copied). E_INPUT says what is wrong with the
// message.
int msg_decode(struct msg *m, const void *bytes, size_t n, const struct msg_bulk *bulk, int n_bulk, struct err *e);

#endif
