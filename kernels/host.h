// The machine under the tables that compute on the CPU: its cores and its memory.
#ifndef KERNELS_HOST_H
#define KERNELS_HOST_H

// Cores that this process may use: its affinity, less where a cgroup limits it.
int host_cpus(void);

#endif
