// The file that a film grows in: bytes are appended, what is on disk is known, and a film that was cut off goes on at a
// place that was synced.
//
// Life: growing_open, growing_io to a muxer, growing_sync at places worth going on from, growing_close.
#ifndef DAEMON_MEDIA_GROWING_H
#define DAEMON_MEDIA_GROWING_H

#include "proto/base/err.h"

#include <libavformat/avformat.h>
#include <stdint.h>

struct growing;

// `keep` bytes of the file stay, the rest is cut off; 0: the file is made anew. With `keep`, the header that the muxer
// writes first (all up to the end of its moov) is not written again. E_INPUT: the file is shorter, or the place is no
// end of a fragment.
int growing_open(struct growing **out, const char *path, int64_t keep, struct err *e);
AVIOContext *growing_io(struct growing *g);     // belongs to g
int growing_fragments(const struct growing *g); // in the part that was kept
int64_t growing_bytes(const struct growing *g); // written, once the AVIOContext is flushed
// All written bytes are on disk after this, and so is the file's name. 0 or libavformat's code.
int growing_sync(struct growing *g);
// The names in the folder of `path` are on disk after this. 0 or libavformat's code.
int growing_sync_folder(const char *path);
// 0 or libavformat's code of a write that failed.
int growing_close(struct growing **g);

#endif
