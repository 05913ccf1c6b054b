// Time in whole numbers: frames of a voice, segments of a job.
#include "proto/spec.h"

int64_t spec_frames(int64_t n_samples, int64_t rate)
{
    // round(25 n / rate) with halves up: floor((50 n + rate) / (2 rate)), without overflow for any file length
    __extension__ __int128 twice = (__int128)50 * n_samples + rate;
    int64_t n = (int64_t)(twice / (2 * (__int128)rate));
    return n > 1 ? n : 1;
}

int64_t spec_frames_published(int64_t n_samples)
{
    int64_t n = (int64_t)((double)n_samples / 16000 * 25);
    return n > 1 ? n : 1;
}

int64_t spec_segments(int64_t n_frames, int frame_num, int motion_frame, enum spec_mode mode)
{
    int64_t stride = frame_num - motion_frame, rest = n_frames - frame_num;
    if (mode == SPEC_CLIP || rest <= 0) return 1;
    return 1 + (rest + stride - 1) / stride;
}
