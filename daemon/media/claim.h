// What a picture's header claims that the decoders do not tell: sizes that they refuse to look at, and how light is
// coded. And what a file claims to be that the demuxer cannot read.
#ifndef DAEMON_MEDIA_CLAIM_H
#define DAEMON_MEDIA_CLAIM_H

#include "proto/base/err.h"

#include <stdbool.h>

// Width and height from the header of a PNG or JPEG. False: it is neither, or its header does not say.
bool claim_size(int fd, long *w, long *h);

// What a PNG's chunk cICP says, by the numbers of ITU-T H.273.
struct claim_colour {
    int primaries, transfer;
};

// 1: the PNG says so; 0: it does not, or is none. E_INPUT: so much stands before its pixels that nobody looks further.
int claim_colour(int fd, const char *path, struct claim_colour *c, struct err *e);

// It is a WebP that moves.
bool claim_animated_webp(int fd);

// It begins as MP4 and MOV do.
bool claim_mp4(int fd);

#endif
