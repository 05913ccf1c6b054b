// For clang-tidy alone, which reads one source file at a time and so cannot know that err_set returns its code: without
// this it follows every error's path on as if nothing had happened.
#ifndef TESTS_TIDY_H
#define TESTS_TIDY_H

#include "proto/base/err.h"

#define err_set(e, code, ...) ((void)err_set(e, code, __VA_ARGS__), (code))

#endif
