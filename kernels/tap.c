// Taps: naming an intermediate value for whoever listens.
#include "kernels/tap.h"

#include <stdarg.h>
#include <stdio.h>

void tap_see(const struct tap *tap, tensor t, const char *fmt, ...)
{
    if (!tap || !tap->see) return;
    char name[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    tap->see(tap->ctx, name, t);
}
