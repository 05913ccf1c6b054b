// How much the border between two segments shows: the step from the last picture of the one to the first of the next,
// in brightness, over the usual step from picture to picture behind it. 1: as everywhere; a jump is several times that.
//
// Life: zeroed; seam_see each picture of a span in order, seam_end behind each segment; seam_forget where what follows
// does not follow what was seen; seam_free. seam_last is kept by whoever wants to go on elsewhere, by seam_follow.
#ifndef DAEMON_SEAM_H
#define DAEMON_SEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct seam {
    uint8_t *last; // brightness of the last picture seen
    bool has_last, has_border, begun;
    double border, inner; // the step at the border; the sum of those behind it
    int64_t n_inner;
};

void seam_see(struct seam *s, const uint8_t *luma, size_t n);
// -1: there is no border, or no picture behind it to compare with.
double seam_end(struct seam *s);
void seam_forget(struct seam *s);
// The brightness of the last picture seen, n bytes as they came; NULL: none was.
const uint8_t *seam_last(const struct seam *s);
// What comes next follows this picture. `n` is that of all pictures.
void seam_follow(struct seam *s, const uint8_t *luma, size_t n);
void seam_free(struct seam *s);

#endif
