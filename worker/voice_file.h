// A job's voices on the worker's disk: written as the pieces come, read wherever a window lies.
//
// The file has no name, so nothing is left behind whatever happens. F32, one run of samples per speaker.
#ifndef WORKER_VOICE_FILE_H
#define WORKER_VOICE_FILE_H

#include "proto/base/err.h"
#include "proto/base/hash.h"
#include "worker/models/wav2vec2.h"

struct voice_file;

// `dir` is a folder with room for all n_samples[n_speakers] x 4 bytes. Owner: caller.
int voice_file_open(struct voice_file **out, const char *dir, int n_speakers, const uint64_t *n_samples, struct err *e);
void voice_file_close(struct voice_file **v);
// The next piece of a speaker's voice. E_INPUT unless it begins where the one before ended and ends within the track.
int voice_file_put(struct voice_file *v, int speaker, int64_t offset_bytes, const void *bytes, size_t n, struct err *e);
bool voice_file_is_whole(const struct voice_file *v);
// E_INPUT unless the bytes are those that the coordinator hashed: counts, then each speaker's samples.
int voice_file_check(const struct voice_file *v, const uint8_t hash[HASH_BYTES], struct err *e);
// The speaker's track, readable until voice_file_close. A read that fails gives silence and is reported by
// voice_file_fault.
struct track voice_file_track(struct voice_file *v, int speaker);
int voice_file_fault(const struct voice_file *v, struct err *e);

#endif
