// What stands for NCCL in a build without it.
#include "parallel/comm_nccl.h"

int comm_nccl_open(struct comm **out, struct comm *host, void *stream, struct err *e)
{
    (void)out, (void)host, (void)stream;
    return err_set(e, E_INPUT,
                   "this build has no NCCL, so ranks with a card each cannot work together; configure with "
                   "-DLONGTAKE_CUDA=AUTO where nccl.h and its library are installed, or use --device cpu");
}
