// Frames and voice in, a playing file out.
//
// Life: mux_open, then mux_piece for each segment in the film's order, mux_sync, at last mux_finish; or mux_abort at
// any moment. The growing file at `path` is a fragmented MP4: cut off anywhere, what is there plays, with its sound.
// The delivered file is an ordinary MP4 (or MOV) with its index in front; its name appears only when it is whole.
//
// H.264 high, yuv420p, BT.709 limited, frame i at i / fps; AAC, continuous over segments, sample 0 with frame 0.
// The bytes depend on the pieces and the voice alone, not on when a piece was made or added.
// Memory does not grow with length, neither here nor in mux_finish, which needs less than half a MiB for any film.
#ifndef DAEMON_MEDIA_MUX_H
#define DAEMON_MEDIA_MUX_H

#include "daemon/media/piece.h"
#include "proto/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct mux;

struct mux_options {
    const char *path; // the growing file
    struct piece_options picture;
    int64_t n_frames; // the whole film
    // The voice, interleaved, in order; n_audio 0: a silent film. `rate` is one that AAC has (mux_audio_rate).
    int (*read_audio)(void *audio, float *interleaved, int64_t from, int64_t n, struct err *e);
    void *audio;
    int rate, channels;
    int64_t n_audio; // samples a channel
    // Goes on with a film of which so much stands: what mux_frames and mux_bytes said after a mux_sync. All else
    // must be as it was, and so are then the bytes that follow. The voice is read from its beginning. 0: begins anew.
    int64_t resume_frames, resume_bytes;
};

// E_INPUT unless the name ends in .mp4 or .mov. To be asked before anything is rendered.
int mux_check_path(const char *final_path, struct err *e);
// The rate the muxer takes for sound at `rate`: the same if AAC has it, else 48000.
int mux_audio_rate(int rate);
// Channels the muxer takes for `channels`: the same if AAC has a layout for it, else 2.
int mux_audio_channels(int channels);

int mux_open(struct mux **out, const struct mux_options *o, struct err *e);
// The next segment's pictures, made with the same options.
int mux_piece(struct mux *m, const struct piece *p, struct err *e);
// Everything added so far is on disk after this.
int mux_sync(struct mux *m, struct err *e);
int64_t mux_frames(const struct mux *m); // added
int64_t mux_bytes(const struct mux *m);  // of the growing file, added so far
// Ends the file, writes the delivered one, syncs it and renames it to final_path (same filesystem as `path`); removes
// the growing file. Frees `m` when it succeeds; after a failure mux_abort is still due.
int mux_finish(struct mux *m, const char *final_path, struct err *e);
// Closes what is there. `keep`: the growing file stays, whole as far as it goes; otherwise it is removed.
void mux_abort(struct mux *m, bool keep);

#endif
