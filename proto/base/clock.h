// Monotonic time in milliseconds and microseconds; a test may set it.
#ifndef PROTO_BASE_CLOCK_H
#define PROTO_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_ms(void);
int64_t clock_us(void);

// From now on both calls answer from `us`; -1 returns to the real clock. Tests only.
void clock_set_us(int64_t us);

#endif
