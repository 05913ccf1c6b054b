// Stand-in for NCCL's header: the calls and words that comm_nccl.c uses, with the real library's values.
#ifndef GPUSIM_NCCL_H
#define GPUSIM_NCCL_H

#include <cuda_runtime.h>

#include <limits.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sim_nccl *ncclComm_t;
enum { NCCL_UNIQUE_ID_BYTES = 128 };
typedef struct {
    char internal[NCCL_UNIQUE_ID_BYTES];
} ncclUniqueId;
typedef enum {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7
} ncclResult_t;
typedef enum { ncclSum = 0, ncclProd = 1, ncclMax = 2, ncclMin = 3 } ncclRedOp_t;
typedef enum { ncclChar = 0, ncclInt = 2, ncclInt64 = 4, ncclFloat = 7, ncclDouble = 8 } ncclDataType_t;
typedef struct {
    size_t size;
    unsigned magic;
    int blocking;
} ncclConfig_t;
enum { NCCL_CONFIG_MAGIC = 0x6e63 };
#define NCCL_CONFIG_INITIALIZER                                                                                        \
    {                                                                                                                  \
        sizeof(ncclConfig_t), NCCL_CONFIG_MAGIC, INT_MIN                                                               \
    }

ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *c, int n, ncclUniqueId id, int rank, ncclConfig_t *config);
ncclResult_t ncclCommFinalize(ncclComm_t c);
ncclResult_t ncclCommDestroy(ncclComm_t c);
ncclResult_t ncclCommAbort(ncclComm_t c);
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *state);
const char *ncclGetErrorString(ncclResult_t code);
ncclResult_t ncclCommRegister(const ncclComm_t c, void *at, size_t bytes, void **handle);
ncclResult_t ncclCommDeregister(const ncclComm_t c, void *handle);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclSend(const void *at, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s);
ncclResult_t ncclRecv(void *at, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s);
ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t t, int root, ncclComm_t c,
                           cudaStream_t s);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t s);
ncclResult_t ncclAllGather(const void *from, void *to, size_t n, ncclDataType_t t, ncclComm_t c, cudaStream_t s);

#ifdef __cplusplus
}
#endif

#endif
