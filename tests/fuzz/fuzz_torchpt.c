// PyTorch checkpoints: the zip's directory, the pickle machine, views of storages.
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_weights(data, n);
    return 0;
}
