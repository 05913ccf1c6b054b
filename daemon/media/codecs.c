// The encoders are those that film.c asks for; the libraries are Debian's, and a build without x264 has no H.264.
#include "daemon/media/codecs.h"

#include <libavcodec/avcodec.h>
#include <libavfilter/avfilter.h>
#include <libavformat/avformat.h>
#include <stdio.h>

bool codecs_check(char *text, size_t n)
{
    static const char *const encoders[] = {"libx264", "aac"};
    unsigned v = avcodec_version(), f = avformat_version();
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        if (avcodec_find_encoder_by_name(encoders[i])) continue;
        snprintf(text, n, "FFmpeg's libavcodec %u.%u has no encoder %s", v >> 16, v >> 8 & 255, encoders[i]);
        return false;
    }
    snprintf(text, n, "libavcodec %u.%u, libavformat %u.%u, encoders libx264 and aac", v >> 16, v >> 8 & 255, f >> 16,
             f >> 8 & 255);
    return true;
}
