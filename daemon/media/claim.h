// What a picture's header claims that the decoders do not tell: sizes that they refuse to look at, and how light is
// coded. And what a file claims to be that the demuxer cannot read.
#ifndef DAEMON_MEDIA_CLAIM_H
#define DAEMON_MEDIA_CLAIM_H

#include <stdbool.h>

// Width and height from the header of a PNG or JPEG. False: it is neither, or its header does not say.
bool claim_size(int fd, long *w, long *h);

// The transfer characteristic (ITU-T H.273) that a PNG's chunk cICP names; 2, unspecified, where there is none.
int claim_transfer(int fd);

// It begins as MP4 and MOV do.
bool claim_mp4(int fd);

#endif
