// What tells two workers apart that should be alike: the build of the program, and the weights.
#ifndef WORKER_FINGERPRINT_H
#define WORKER_FINGERPRINT_H

#include "proto/base/hash.h"
#include "worker/set.h"

enum { BUILD_TEXT = 41 };

// The linker's build id of this program, hexadecimal.
void fingerprint_build(char text[BUILD_TEXT]);
// Of all files of the set that `o` names: each tensor's name, dtype, shape and bytes, of these the first and last
// 64 KiB. Another download, another shard or a file cut short has another one; the values between are taken on trust.
int fingerprint_weights(uint8_t out[HASH_BYTES], const struct set_options *o, struct err *e);

#endif
