// The verb `voice` of the media child: decode.h's stream on a pipe.
//
//   decode_head, then pieces (int64_t n, n * channels floats), then n = 0 and decode_tail
#ifndef DAEMON_MEDIA_VOICE_CHILD_H
#define DAEMON_MEDIA_VOICE_CHILD_H

#include "daemon/media/decode.h"

// The child's side. argv: the file; the number of its sound track, 0 for the default one.
int voice_child(int argc, char **argv, int out, struct err *e);
// The parent's side: runs the child and passes on what it says.
int voice_child_run(const char *self, const char *path, int track, const struct decode_sink *sink,
                    struct decode_tail *tail, struct err *e);

#endif
