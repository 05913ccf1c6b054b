// What stands for the CUDA table in a build without it. Where the toolkit is used, kernels/cuda/cuda.cu takes its
// place.
#include "kernels/table.h"

void cuda_choose(int which) { (void)which; }

int cuda_open(struct dev *d, int which, struct err *e)
{
    (void)d, (void)which;
    return err_set(e, E_INPUT,
                   "this build has no CUDA table; configure with -DLONGTAKE_CUDA=AUTO where nvcc is installed, "
                   "or use --device cpu");
}
