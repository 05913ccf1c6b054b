// Frames of one span on their way into pieces: encoded, written and synced beside the loop, one segment after the
// other.
//
// Life: intake_new, then intake_frames and intake_done in the order in which they come; intake_kept once per turn says
// what has become of them; intake_drop when the group has gone; intake_free when intake_is_idle.
// All calls are the loop's. What comes before the span's frames are due is refused, what comes again is ignored.
#ifndef DAEMON_INTAKE_H
#define DAEMON_INTAKE_H

#include "daemon/loop.h"
#include "daemon/media/piece.h"
#include "proto/msg.h"
#include "proto/plan_segments.h"

struct intake;

struct intake_options {
    struct loop *loop;
    struct piece_options picture; // the preset's text stays while the intake does
    const char *folder;           // for pieces; likewise
    int *n_busy;                  // grows while work is under way
};

// The file of a segment's pictures.
void intake_path(char *path, size_t n, const char *folder, int64_t segment);

void intake_new(struct intake **out, const struct intake_options *o);
// Nothing is under way and nothing waits.
bool intake_is_idle(const struct intake *i);
void intake_free(struct intake **i);
// From now on the frames of `g` are due, from its first one on; what waited is forgotten. `before`: intake_last of the
// segment before it, or NULL where there is none.
void intake_expect(struct intake *i, const struct plan_segment *g, const uint8_t *before);
// Whatever waits is forgotten; what is under way ends by itself.
void intake_drop(struct intake *i);

// A copy is taken. E_LOST: they do not fit what is due. 1: they wait; 0: they were had before.
int intake_frames(struct intake *i, const struct msg_frames *f, const uint8_t *yuv, size_t bytes, struct err *e);
// The segment under way is whole; `next` is due then (NULL: the span ends). E_LOST: it is not. 0: it was had before.
int intake_done(struct intake *i, const struct msg_done *d, const struct plan_segment *next, struct err *e);
// The next segment whose piece is on disk: 1, 0 when there is none, or what went wrong.
int intake_kept(struct intake *i, struct msg_done *d, struct err *e);
// How much the border before that segment shows (seam.h); -1: not known.
double intake_seam(const struct intake *i);
// The brightness of that segment's last picture, a byte a pixel; NULL: it had none.
const uint8_t *intake_last(const struct intake *i, size_t *n);
// A segment that came whole is not kept yet.
bool intake_owes(const struct intake *i);
// One of the two below has something to tell.
bool intake_has_news(const struct intake *i);
// Frames that have been encoded since the last call.
uint32_t intake_encoded(struct intake *i);

#endif
