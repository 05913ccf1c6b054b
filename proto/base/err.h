// Errors: a code for the program, a sentence for the person.
//
// A fallible function returns 0 or a negative E_ code, and takes a `struct err *` as its last parameter. On success the
// struct is not touched, so calls chain. On failure it holds one sentence that names the thing, the value and the way
// out. The code names the remedy, not the cause. Pass NULL when only the code matters.
//
// A sentence that is too long, mostly by the name of a file in it, gives up its middle: thing and way out stay.
#ifndef PROTO_BASE_ERR_H
#define PROTO_BASE_ERR_H

enum {
    E_OK = 0,
    E_INPUT = -1, // the job (or the call) is wrong: fail it, another try will not help
    E_BUSY = -2,  // try later
    E_LOST = -3,  // the other end is gone: run it on another group
    E_FATAL = -4, // this process is done
};

struct err {
    int code;        // 0 or E_*
    char text[1024]; // one sentence, no newline
};

// Writes the sentence (printf style) and returns `code`, so that `return err_set(e, E_INPUT, ...)` reads well.
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

// Puts "<prefix>: " before the sentence that `e` holds, keeps its code and returns it. For one wrap per layer.
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Puts "; <way>" behind the sentence of a wrong input that has no way out yet, and returns its code.
int err_way(struct err *e, const char *way);

// "input", "busy", "lost", "fatal", "ok".
const char *err_name(int code);

// A broken invariant: prints file, line and the sentence, then aborts. On in release builds too.
#define BUG(...) err_bug(__FILE__, __LINE__, __VA_ARGS__)
#define BUG_IF(cond, ...)                                                                                              \
    do {                                                                                                               \
        if (__builtin_expect(!!(cond), 0)) BUG(__VA_ARGS__);                                                           \
    } while (0)
void err_bug(const char *file, int line, const char *fmt, ...) __attribute__((noreturn, format(printf, 3, 4)));

#endif
