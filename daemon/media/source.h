// Where the reference pictures of a job come from: a picture or a video of any frame rate, seen at 25 frames a second.
//
// Life: source_open (the file is looked at, bad ones are refused), source_measure for a video, source_picture any
// number of times, in any order, source_close. All decoding is in a media child (child.h), which is there while it is
// needed; what is held here is one picture. Calls may take as long as decoding takes; they may come from any one thread
// at a time that outlives the source.
#ifndef DAEMON_MEDIA_SOURCE_H
#define DAEMON_MEDIA_SOURCE_H

#include "proto/base/err.h"
#include "proto/spec.h"

#include <stdbool.h>
#include <stdint.h>

struct source;

struct source_options {
    const char *self; // this program, for the media child
    const char *path;
    enum spec_video_end end; // what is shown past a video's end
    bool cut;                // somebody looks after cuts: they are not told of
    bool published;          // pictures by number instead of time, EXIF, alpha and pixel shape ignored
};

struct source_info {
    int h, w; // upright, square pixels
    bool still;
    int64_t n_frames;    // of a video, at 25 a second, after source_measure
    char warnings[1024]; // sentences, one a line
};

int source_open(struct source **out, const struct source_options *o, struct source_info *info, struct err *e);
// Finds how long a video is, reading no further than `limit` frames (0: to the end). A picture lasts for ever: 0
// frames.
int source_measure(struct source *s, int64_t limit, struct source_info *info, struct err *e);
// The picture of frame `frame`, covered and cut to h x w: RGB [h, w, 3].
int source_picture(struct source *s, int64_t frame, int h, int w, uint8_t *rgb, struct err *e);
// Where the shots of a measured video begin but the first, in the first `n_frames` frames: *n frames, rising, malloc'd.
// A picture has none. All of the video is decoded.
int source_shots(struct source *s, int64_t n_frames, int64_t **frame, int *n, struct err *e);
// The picture that colours are matched to: that of `frame`, or, when it has none (a fade from black), the first within
// two seconds that has some. `info`'s warnings tell.
int source_colour_picture(struct source *s, int64_t frame, int h, int w, uint8_t *rgb, struct source_info *info,
                          struct err *e);
// What the last picture has shown of the video that the user should know, sentences, one a line, or NULL; each matter
// is told once.
const char *source_notice(struct source *s);
// Ends what runs beside this process for it, until the next question, which takes as long as opening did.
void source_rest(struct source *s);
void source_close(struct source *s);

// A mask: the brightness of the picture at `path`, stretched to h x w. The caller frees *plane.
int source_mask(uint8_t **plane, const char *self, const char *path, int h, int w, struct err *e);

#endif
