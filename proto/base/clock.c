// Monotonic clock with a test override.
#include "proto/base/clock.h"

#include <time.h>

static int64_t clock_fixed_us = -1;

void clock_set_us(int64_t us) { clock_fixed_us = us; }

int64_t clock_us(void)
{
    if (clock_fixed_us >= 0) return clock_fixed_us;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_ms(void) { return clock_us() / 1000; }
