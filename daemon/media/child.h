// Work on hostile bytes in a process of its own: `self __media VERB ARG...`, a hidden verb of the same program. It may
// read files and write to its pipe; it has no network, starts no program, writes no file, holds 4 GiB at most, and dies
// with the thread that started it. If it crashes, or says nothing for five minutes, the job gets a sentence and the
// service lives on.
//
// Life: child_start, child_read until all is there, child_end (or child_kill). A child that serves requests gets them
// by child_ask and ends when it is killed.
#ifndef DAEMON_MEDIA_CHILD_H
#define DAEMON_MEDIA_CHILD_H

#include "proto/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct child;

// `args` ends with NULL; its first is named in messages (the file).
int child_start(struct child **out, const char *self, const char *verb, const char *const *args, struct err *e);
// Exactly n bytes; when the child has ended before, its error: its own sentence, or that it crashed.
int child_read(struct child *c, void *data, size_t n, struct err *e);
// A request of n bytes; when the child has ended, its error.
int child_ask(struct child *c, const void *data, size_t n, struct err *e);
// Takes the end of a child that has said all. Frees `c`.
int child_end(struct child *c, struct err *e);
void child_kill(struct child *c);

// The child's side. argv: self, "__media", verb, args. Ends the process.
int media_child_main(int argc, char **argv);
// For verbs: all n bytes to the parent.
int child_write(int out, const void *data, size_t n, struct err *e);
// For verbs that serve: a request of n bytes; false when the parent wants no more.
bool child_asked(void *data, size_t n);
// Gives up all that no decoder needs; media_child_main has done it when a verb runs.
void child_fence(void);
// For verbs, once the file is open: from here no file can be opened and no thread or process made.
void child_seal(void);

#endif
