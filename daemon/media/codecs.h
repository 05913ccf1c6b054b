// What FFmpeg's libraries on this machine can do of what we need.
#ifndef DAEMON_MEDIA_CODECS_H
#define DAEMON_MEDIA_CODECS_H

#include <stdbool.h>
#include <stddef.h>

// Their versions, and the encoders that films need ("libx264, aac"). False: one of them is missing; `text` names it.
bool codecs_check(char *text, size_t n);

#endif
