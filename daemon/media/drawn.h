// Whether a picture is drawn rather than photographed.
#ifndef DAEMON_MEDIA_DRAWN_H
#define DAEMON_MEDIA_DRAWN_H

#include <stdbool.h>
#include <stdint.h>

// rgb [h, w, 3] at a model's own size. A guess good for a notice, never for a refusal.
bool drawn_looks(const uint8_t *rgb, int h, int w);

#endif
