// The verb `picture` of the media child: a picture or a video, asked picture by picture.
//
//   picture_head, then for each picture_ask a picture_answer and its bytes
#ifndef DAEMON_MEDIA_PICTURE_H
#define DAEMON_MEDIA_PICTURE_H

#include "proto/base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { PICTURE_SIDE_MAX = 1 << 16, PICTURE_TEXT = 1024, PICTURE_SHOTS_MAX = 10000 };

struct picture_head {
    int32_t h, w; // upright
    int32_t still;
    char warnings[PICTURE_TEXT]; // sentences, one a line
};

enum picture_what {
    PICTURE_LENGTH,   // at: a limit in microseconds; answer n_us, n_pictures, rate
    PICTURE_AT_US,    // the picture shown then, covered and cut to h x w: RGB
    PICTURE_AT_INDEX, // the i-th
    PICTURE_SHOTS,    // at: a limit; answers of -1 pictures while it looks, then n_pictures, then so many i64: when
                      // shots begin but the first
    PICTURE_PLANE,    // the first, its brightness, stretched to h x w: one byte a pixel
};
struct picture_ask {
    int32_t what, h, w, pad;
    int64_t at;
};
struct picture_answer {
    int64_t n_us, n_pictures, rate_num, rate_den;
    int64_t promised_us; // 0, or more than n_us: the file is cut short
    int64_t damaged_us;  // when the picture asked for begins, if it is damaged and an earlier one stands in; else -1
    int32_t h, w;        // upright, of the picture itself; not the first one's: it was stretched to that
    int64_t n;           // bytes that follow
};

// The child's side. argv: the file; "picture" or "mask", the kind of checks; "published" or "".
int picture_child(int argc, char **argv, int out, struct err *e);

#endif
