// Where one shot of a video ends and the next begins: hard cuts, and fades through black.
//
// Life: shots_new, shots_see for every picture in order, shots_end. What is held is one small picture.
#ifndef DAEMON_MEDIA_SHOTS_H
#define DAEMON_MEDIA_SHOTS_H

#include <libavutil/frame.h>
#include <stdbool.h>
#include <stdint.h>

struct shots;

struct shots *shots_new(void);
// A picture that begins at `us`.
void shots_see(struct shots *s, const AVFrame *f, int64_t us);
// When each shot but the first begins, rising, at most `most` of them; malloc'd. Frees `s`.
int shots_end(struct shots *s, int64_t **us, int most);

#endif
