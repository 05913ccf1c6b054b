// One span of a job: how far it is, and what the group that has it needs: pictures, the last tails, a way for frames.
//
// Life: span_init; span_take when a group is to render it, span_leave when none does any more (what is committed
// stays); span_release.
#ifndef DAEMON_SPAN_H
#define DAEMON_SPAN_H

#include "daemon/intake.h"

struct span_tail {
    int64_t segment; // -1: none
    void *bytes;
    size_t n;
};

struct span {
    int number;
    int64_t first, end;       // its segments, [first, end)
    int64_t committed;        // the segments below this one are kept
    bool taken;               // a group has it
    struct span_tail tail[2]; // of segment k in tail[k % 2]: of the last one kept and of the one under way
    uint8_t *last;            // brightness of the last picture kept (intake_last), NULL: not known
    // while a group has it
    struct intake *intake;
    uint8_t *colour;        // what colours are matched to, [h, w, 3]
    uint8_t *picture;       // the reference picture of segment `picture_of`
    int64_t picture_of;     // -1: none
    int64_t picture_wanted; // likewise
    double units;           // of work done beyond what is committed, see job_beat
};

void span_init(struct span *s, int number, int64_t first, int64_t end);
void span_take(struct span *s, const struct intake_options *o);
// Work may still be under way for it: span_is_idle says when not.
void span_leave(struct span *s);
bool span_is_idle(const struct span *s);
bool span_is_done(const struct span *s);
// No group has it, and one could.
bool span_is_ready(const struct span *s);
void span_release(struct span *s);

// Keeps a copy of a segment's tail.
void span_tail_keep(struct span *s, int64_t segment, const void *bytes, size_t n);
// Keeps a copy of the last picture's brightness.
void span_last_keep(struct span *s, const uint8_t *luma, size_t n);
// The tail of `segment`, or NULL.
const struct span_tail *span_tail_of(const struct span *s, int64_t segment);

#endif
