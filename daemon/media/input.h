// A file of the user's as a stream of bytes for libavformat: opened once, read by position, so that a demuxer can begin
// again, or a second one read beside it, after the fence is closed (child.h: child_seal).
#ifndef DAEMON_MEDIA_INPUT_H
#define DAEMON_MEDIA_INPUT_H

#include "proto/base/err.h"

#include <libavformat/avformat.h>
#include <stdbool.h>

// E_INPUT unless `path` is a file with something in it. `word` says what it was given as: "voice", "picture".
int input_check(const char *word, const char *path, struct err *e);
// A descriptor of it, checked. E_INPUT.
int input_fd(const char *word, const char *path, struct err *e);
// A demuxer over the descriptor, from its beginning; the content alone decides which of `formats` it is. 0 or
// libavformat's code.
int input_demux(AVFormatContext **out, int fd, const char *formats);
// Its bytes are under a key that nobody here has.
bool input_encrypted(const AVPacket *p);
void input_close(AVFormatContext **in); // the descriptor stays open

#endif
