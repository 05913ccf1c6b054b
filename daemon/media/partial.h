// What there is of a JPEG that is cut short or damaged: a camera's card, a broken download.
#ifndef DAEMON_MEDIA_PARTIAL_H
#define DAEMON_MEDIA_PARTIAL_H

#include <libavcodec/avcodec.h>

// Decodes the JPEG behind `fd` as far as it goes into `out`; in place of the rows that are not there stands the last
// one that is. The share of rows that are missing, 0..1; 1: nothing can be used, and `out` is empty.
double partial_jpeg(AVFrame *out, int fd);

#endif
