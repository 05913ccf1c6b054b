// A picture or a video, read picture by picture: which one is shown at a time, forward and backward, in flat memory.
// Hostile bytes in; runs in a child process (child.h).
//
// Times are microseconds from the first picture. Damaged pictures are passed over, so the one before stands in; of a
// JPEG that is cut short, a tenth of the rows may be missing.
#ifndef DAEMON_MEDIA_FILM_H
#define DAEMON_MEDIA_FILM_H

#include "daemon/media/claim.h"
#include "proto/base/err.h"

#include <libavutil/frame.h>
#include <stdbool.h>
#include <stdint.h>

struct film;

struct film_length {
    int64_t n_us;               // to the end of the last picture; past the limit: at least that
    int64_t n_pictures;         // likewise
    int64_t rate_num, rate_den; // pictures a second, on average
    int64_t promised_us;        // 0, or what the header says of a file that was cut short
};

// Opens the file and decodes its first picture. E_INPUT with a sentence for whatever the file is instead.
int film_open(struct film **out, const char *path, struct err *e);
void film_close(struct film *f);
const char *film_kind(const struct film *f); // as libavformat calls it: "png_pipe"
bool film_still(const struct film *f);       // a picture file
bool film_canned(const struct film *f);      // more pictures in it than the one that is used: an animation
// Share of a picture's rows that were missing in the file, and repeat the last one that is there.
double film_missing(const struct film *f);
// When the picture that should be shown at `us` begins, if that one is damaged and film_at_us gave an earlier one; else
// -1.
int64_t film_damaged_us(const struct film *f, int64_t us);
// How long it is, from its packets; reading stops at `limit_us` (0: never).
int film_length(struct film *f, int64_t limit_us, struct film_length *n, struct err *e);
// The last picture that begins by `us` and a millisecond; before the first one: the first. Belongs to the film, valid
// until the next call.
int film_at_us(struct film *f, int64_t us, const AVFrame **out, struct err *e);
// Picture `i` in order of presentation; past the end: the last.
int film_at_index(struct film *f, int64_t i, const AVFrame **out, struct err *e);
// All pictures one after the other: the first one with `first`, then the next: 1, or 0 at the end. *us: when it begins.
int film_step(struct film *f, bool first, const AVFrame **out, int64_t *us, struct err *e);
// The display matrix (nine numbers) of the picture's frame or of its track, or NULL.
const int32_t *film_matrix(const struct film *f, const AVFrame *frame);
// What a PNG says of its colours in a chunk that its decoder does not know, and that outweighs whatever else it says;
// or NULL.
const struct claim_colour *film_colour(const struct film *f);
// Width to height of a stored pixel; 0:0 when nobody says.
AVRational film_shape(const struct film *f, const AVFrame *frame);

#endif
