// safetensors: the directory, its offsets, the tensors it promises.
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_weights(data, n);
    return 0;
}
