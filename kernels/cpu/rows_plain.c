// The row loops for any CPU.
#define rows_name rows_plain
#include "kernels/cpu/rows_body.h"
