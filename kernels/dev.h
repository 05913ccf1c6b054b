// One device: where tensors live and which table of ops works on them.
//
// Life: dev_open, arenas, ops, dev_sync once per step, dev_close. Ops return nothing; a device fault sticks to the
// device and dev_sync reports it. Nothing allocates while a segment runs: a device arena reserves address space when it
// is made, and hands out tensors from it; dev_arena_mark/reset give the memory of a block or a segment back.
//
// Dry run: with dev_set_dry(d, true) every op checks its contract and computes nothing, and arenas still count, so the
// same code that renders a segment tells beforehand how much memory it takes (dev_arena_peak).
#ifndef KERNELS_DEV_H
#define KERNELS_DEV_H

#include "kernels/tensor.h"
#include "proto/base/err.h"

#include <stdio.h>

struct ops;
struct dev;
struct dev_arena;

// `table` names the ops: "ref" (plain loops), "cpu" (fast), "cuda" or "cuda:N" (card N; without a number, the card of
// the launcher's local rank), "check" (ref and cpu, compared; the first op that drifts is named by dev_sync);
// "cpu:avx2" or "check:plain" go no further than that instruction set. `n_threads` 0 means the cores this process may
// use (affinity and cgroup limit). The caller owns *out.
int dev_open(struct dev **out, const char *table, int n_threads, struct err *e);
// Before a launcher's library starts: makes the card that dev_open will open the process's own, so that nothing which
// looks for a card in between settles on another. Any other table, and a machine without cards: nothing.
void dev_choose(const char *table);
void dev_close(struct dev **d);
const char *dev_name(const struct dev *d); // "cpu avx512_bf16 x2", for logs and the layout class
int dev_threads(const struct dev *d);
// What the device has chosen by timing so far, a line each.
void dev_tell(const struct dev *d, FILE *to);
void dev_set_dry(struct dev *d, bool dry);
bool dev_is_dry(const struct dev *d);

// Waits for the device and returns its sticky fault, if any.
int dev_sync(struct dev *d, struct err *e);
// Records a fault (backends only). The first one stays.
void dev_fault(struct dev *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Reserves `capacity_bytes` of address space (0: as much as the machine's memory); pages are taken when first
// written.
struct dev_arena *dev_arena_new(struct dev *d, const char *name, int64_t capacity_bytes);
void dev_arena_free(struct dev_arena **a);
// Uninitialised memory, aligned to 64. Beyond the capacity it is a sticky fault "arena <name>: needs .. of .." and the
// tensor is backed by nothing but the shape (ops then do nothing until dev_sync reports it).
tensor dev_tensor(struct dev_arena *a, enum dtype t, int n, const int64_t *shape);
int64_t dev_arena_mark(const struct dev_arena *a);
void dev_arena_reset(struct dev_arena *a, int64_t mark);
int64_t dev_arena_peak(const struct dev_arena *a);
// Takes the memory behind the arena's first `bytes` now, so that no tensor waits for it later. Returns where it begins
// (NULL on a device that shares the host's memory, where pages come by themselves).
void *dev_arena_hold(struct dev_arena *a, int64_t bytes);
struct dev *dev_arena_dev(const struct dev_arena *a);
// Bytes of all tensors in the device's arenas.
int64_t dev_memory_held(const struct dev *d);
// Bytes that the device could still give: of the machine's memory, or of the cgroup's limit where that is less.
int64_t dev_memory_free(const struct dev *d);

// Whether ops work on the host's own memory; else what the host has must be put on the device first.
bool dev_shares_host(const struct dev *d);
// A tensor in the host's memory, of any strides, to a contiguous one on the device; casts as dev_upload.
void dev_put(struct dev *d, tensor dst, tensor host);
// Host bytes to a contiguous tensor and back; both cast between F32 and BF16/F16 when the dtypes differ. The host's
// memory is the caller's again when they return; a download waits for the ops before it.
void dev_upload(struct dev *d, tensor dst, const void *src, enum dtype src_dtype);
void dev_download(struct dev *d, void *dst, enum dtype dst_dtype, tensor src);

// Bytes that stay on the host and come to the device when they are needed, beside the ops. dev_pin gives host memory
// that the device reads by itself (NULL after a fault, or where memory is shared and nothing need come); dev_fetch
// starts a copy into dst once the ops before it are done, and ops after dev_fetched see it. `slot` names a fetch under
// way.
enum { FETCH_SLOTS = 4 };
void *dev_pin(struct dev *d, int64_t bytes);
void dev_unpin(struct dev *d, void **p);
void dev_fetch(struct dev *d, int slot, tensor dst, const void *pinned);
void dev_fetched(struct dev *d, int slot);
// Ops that are asked for again on the same tensors, as one launch: between dev_record_begin and dev_record_end they are
// noted and not done; dev_repeat does them all, on what the tensors hold by then. Addresses, sizes and numbers that ops
// were given by value are part of the record. Nothing in between may cross to or from the host, fetch, or meet a shape
// for the first time: then, and where the driver refuses, dev_record_end gives NULL with a line in the log, nothing was
// done, and dev_records is false from then on. dev_repeat is false, and nothing done, where memory of the device's own
// has moved since. Records are freed before their device is closed.
struct dev_record;
bool dev_records(const struct dev *d); // whether it has such a thing
void dev_set_records(struct dev *d, bool on);
void dev_record_begin(struct dev *d);
struct dev_record *dev_record_end(struct dev *d);
bool dev_repeat(struct dev *d, struct dev_record *r);
void dev_record_free(struct dev_record **r);
// Whether a record of this device was seen to give the bytes of its ops run plainly; who repeats one before that
// compares, and says so.
bool dev_records_trusted(const struct dev *d);
void dev_records_trust(struct dev *d);
// The cudaStream_t that ops are enqueued on, for transports that work beside them; NULL where there is none.
void *dev_stream(const struct dev *d);

#endif
