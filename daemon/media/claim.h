// What a picture's header claims, for sizes that the decoders refuse to look at.
#ifndef DAEMON_MEDIA_CLAIM_H
#define DAEMON_MEDIA_CLAIM_H

#include <stdbool.h>

// Width and height from the header of a PNG or JPEG. False: it is neither, or its header does not say.
bool claim_size(int fd, long *w, long *h);

#endif
