// How QuickTime spells what MP4 says of a codec.
#ifndef DAEMON_MEDIA_MP4_ENTRY_H
#define DAEMON_MEDIA_MP4_ENTRY_H

#include "daemon/media/mp4_read.h"

enum { MP4_ENTRY_MORE = 256 }; // bytes that the spelling may be longer

// Writes the entry of `t` as .mov has it to `to`, which holds t->entry.n + MP4_ENTRY_MORE bytes. The size, 0: the entry
// has not the boxes it should.
size_t mp4_entry_pictures(const struct mp4_track *t, uint8_t *to);
size_t mp4_entry_sound(const struct mp4_track *t, uint8_t *to);

#endif
