// The restricted pickle machine.
//
// A stack machine over tagged values. The only things that can be called are those of the whitelist, and "calling" one
// builds a value here; a name off the list is refused when it is pushed. Values are shared by reference through the
// memo, so a container may come to hold itself: the result is walked before it is given out, and such a one refused.
#include "worker/weights/pickle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPS_MAX = 10000000, STACK_MAX = 1000000, MEMO_MAX = 1000000, DEPTH_MAX = 64 };
enum global { G_ORDERED_DICT, G_TENSOR, G_TENSOR_V2, G_TENSOR_V3, G_PARAMETER, G_SIZE, G_STORAGE, G_BYTES, G_DTYPE };

struct global_row {
    const char *module, *name;
    enum global what;
    enum dtype dtype;
};
static const struct global_row globals[] = {
    {"collections", "OrderedDict", G_ORDERED_DICT, DT_NONE},
    {"torch._utils", "_rebuild_tensor", G_TENSOR, DT_NONE},
    {"torch._utils", "_rebuild_tensor_v2", G_TENSOR_V2, DT_NONE},
    {"torch._utils", "_rebuild_tensor_v3", G_TENSOR_V3, DT_NONE},
    {"torch._utils", "_rebuild_parameter", G_PARAMETER, DT_NONE},
    {"torch", "Size", G_SIZE, DT_NONE},
    {"torch", "FloatStorage", G_STORAGE, DT_F32},
    {"torch", "HalfStorage", G_STORAGE, DT_F16},
    {"torch", "BFloat16Storage", G_STORAGE, DT_BF16},
    {"torch", "DoubleStorage", G_STORAGE, DT_F64},
    {"torch", "LongStorage", G_STORAGE, DT_I64},
    {"torch", "IntStorage", G_STORAGE, DT_I32},
    {"torch", "ShortStorage", G_STORAGE, DT_I16},
    {"torch", "CharStorage", G_STORAGE, DT_I8},
    {"torch", "ByteStorage", G_STORAGE, DT_U8},
    {"torch", "BoolStorage", G_STORAGE, DT_BOOL},
    {"torch", "UntypedStorage", G_BYTES, DT_U8},
    {"torch.storage", "UntypedStorage", G_BYTES, DT_U8},
    {"torch", "bfloat16", G_DTYPE, DT_BF16},
    {"torch", "float16", G_DTYPE, DT_F16},
    {"torch", "float32", G_DTYPE, DT_F32},
    {"torch", "float64", G_DTYPE, DT_F64},
    {"torch", "float8_e4m3fn", G_DTYPE, DT_F8_E4M3},
    {"torch", "float8_e5m2", G_DTYPE, DT_F8_E5M2},
    {"torch", "int8", G_DTYPE, DT_I8},
    {"torch", "uint8", G_DTYPE, DT_U8},
    {"torch", "int16", G_DTYPE, DT_I16},
    {"torch", "int32", G_DTYPE, DT_I32},
    {"torch", "int64", G_DTYPE, DT_I64},
    {"torch", "bool", G_DTYPE, DT_BOOL},
};

struct machine {
    struct arena *a;
    const char *what;
    const uint8_t *bytes;
    size_t n, at;
    struct pickle **stack, **memo;
    size_t n_stack, stack_capacity, n_memo, memo_capacity;
    struct err *e;
    int rc; // the first failure; then nothing more happens
};

__attribute__((format(printf, 2, 3))) static void refuse(struct machine *m, const char *fmt, ...)
{
    char why[160];
    if (m->rc < 0) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    m->rc = err_set(m->e, E_INPUT, "%s: the pickle is not a plain state dict: %s (byte %zu)", m->what, why, m->at);
}

// The operations that pickles do have and state dicts do not, by the names that Python gives them.
static void refuse_operation(struct machine *m, uint8_t code)
{
    static const struct {
        uint8_t code;
        const char *name;
    } known[] = {{0x46, "FLOAT"},          {0x49, "INT"},       {0x4c, "LONG"},       {0x50, "PERSID"},
                 {0x53, "STRING"},         {0x56, "UNICODE"},   {0x69, "INST"},       {0x6f, "OBJ"},
                 {0x81, "NEWOBJ"},         {0x82, "EXT1"},      {0x83, "EXT2"},       {0x84, "EXT4"},
                 {0x8b, "LONG4"},          {0x8e, "BINBYTES8"}, {0x8f, "EMPTY_SET"},  {0x90, "ADDITEMS"},
                 {0x91, "FROZENSET"},      {0x92, "NEWOBJ_EX"}, {0x96, "BYTEARRAY8"}, {0x97, "NEXT_BUFFER"},
                 {0x98, "READONLY_BUFFER"}};
    const char *name = "unknown";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == code) name = known[i].name;
    refuse(m, "it uses the operation %s (%02X), which no state dict needs", name, code);
}

// ---- values and stack

static struct pickle *value_new(struct machine *m, enum pickle_kind kind)
{
    struct pickle *v = arena_alloc(m->a, sizeof *v);
    v->kind = kind;
    return v;
}

static void push(struct machine *m, struct pickle *v)
{
    if (m->n_stack == STACK_MAX) {
        refuse(m, "its stack is too deep");
        return;
    }
    if (m->n_stack == m->stack_capacity) {
        m->stack_capacity = m->stack_capacity ? 2 * m->stack_capacity : 256;
        m->stack = realloc(m->stack, m->stack_capacity * sizeof *m->stack);
        BUG_IF(!m->stack, "no memory for a stack");
    }
    m->stack[m->n_stack++] = v;
}

// A mark is no value: what lies above it is all there is to take.
static struct pickle *top(struct machine *m)
{
    if (m->n_stack > 0 && m->stack[m->n_stack - 1]->kind != PK_MARK) return m->stack[m->n_stack - 1];
    refuse(m, "its stack is empty");
    return value_new(m, PK_NONE);
}

static struct pickle *pop(struct machine *m)
{
    struct pickle *v = top(m);
    if (m->rc == 0) m->n_stack--;
    return v;
}

static void append(struct machine *m, struct pickle *list, struct pickle *v)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 8;
        struct pickle **item = arena_array(m->a, capacity, sizeof *item);
        if (list->n) memcpy(item, list->item, list->n * sizeof *item);
        list->item = item;
        list->capacity = capacity;
    }
    list->item[list->n++] = v;
}

// The index of the value after the topmost mark; the mark is removed by the caller.
static size_t find_mark(struct machine *m)
{
    for (size_t i = m->n_stack; i > 0; i--)
        if (m->stack[i - 1]->kind == PK_MARK) return i;
    refuse(m, "a mark is missing");
    return m->n_stack;
}

static void collect(struct machine *m, enum pickle_kind kind, size_t from, size_t keep)
{
    struct pickle *v = value_new(m, kind);
    for (size_t i = from; i < m->n_stack; i++) append(m, v, m->stack[i]);
    m->n_stack = keep;
    push(m, v);
}

// The values above the mark go into the container below it.
static void extend(struct machine *m, enum pickle_kind kind)
{
    size_t from = find_mark(m);
    if (m->rc < 0) return;
    if (from < 2 || m->stack[from - 2]->kind != kind) {
        refuse(m, "a %s is missing below the mark", kind == PK_DICT ? "dict" : "list");
        return;
    }
    if (kind == PK_DICT && (m->n_stack - from) % 2) {
        refuse(m, "the last of %zu keys and values has no other half", m->n_stack - from);
        return;
    }
    for (size_t i = from; i < m->n_stack; i++) append(m, m->stack[from - 2], m->stack[i]);
    m->n_stack = from - 1;
}

// ---- arguments

static const uint8_t *take(struct machine *m, uint64_t n)
{
    if (n > m->n - m->at) {
        refuse(m, "it is cut (bytes wanted: %llu, left: %zu)", (unsigned long long)n, m->n - m->at);
        return NULL;
    }
    m->at += n;
    return m->bytes + m->at - n;
}

static uint64_t take_number(struct machine *m, int n)
{
    const uint8_t *p = take(m, (uint64_t)n);
    return p ? le_bytes(p, n) : 0;
}

static void push_text(struct machine *m, enum pickle_kind kind, uint64_t n)
{
    const uint8_t *p = take(m, n);
    if (!p) return;
    struct pickle *v = value_new(m, kind);
    char *text = arena_alloc(m->a, n + 1);
    memcpy(text, p, n);
    if (kind == PK_STR && memchr(p, 0, n)) refuse(m, "a string holds a NUL");
    v->text = text;
    push(m, v);
}

static void push_int(struct machine *m, enum pickle_kind kind, int64_t number)
{
    struct pickle *v = value_new(m, kind);
    v->number = number;
    push(m, v);
}

static const char *take_line(struct machine *m)
{
    const uint8_t *p = m->bytes + m->at, *end = memchr(p, '\n', m->n - m->at);
    if (!end || end - p > 255) {
        refuse(m, "a name has no end within 255 bytes");
        return "";
    }
    m->at += (size_t)(end - p) + 1;
    char *s = arena_alloc(m->a, (size_t)(end - p) + 1);
    memcpy(s, p, (size_t)(end - p));
    return s;
}

static void push_global(struct machine *m, const char *module, const char *name)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (strcmp(globals[i].module, module) == 0 && strcmp(globals[i].name, name) == 0) {
            struct pickle *v = value_new(m, PK_GLOBAL);
            v->number = globals[i].what;
            v->dtype = globals[i].dtype;
            push(m, v);
            return;
        }
    if (m->rc == 0)
        m->rc = err_set(m->e, E_INPUT,
                        "%s wants to run %.80s.%.80s, which is not weights; save a plain state dict with torch.save",
                        m->what, module, name);
}

// ---- calls

static bool is(const struct pickle *v, enum pickle_kind kind) { return v && v->kind == kind; }

static void push_storage(struct machine *m)
{
    struct pickle *t = pop(m);
    bool fits = is(t, PK_TUPLE) && t->n >= 5 && is(t->item[0], PK_STR) && strcmp(t->item[0]->text, "storage") == 0 &&
                is(t->item[1], PK_GLOBAL) && (t->item[1]->number == G_STORAGE || t->item[1]->number == G_BYTES) &&
                is(t->item[2], PK_STR) && is(t->item[4], PK_INT) && t->item[4]->number >= 0;
    if (!fits) {
        refuse(m, "a storage has an unknown form");
        return;
    }
    struct pickle *v = value_new(m, PK_STORAGE);
    v->text = t->item[2]->text;
    v->dtype = t->item[1]->dtype;
    v->count = t->item[4]->number;
    push(m, v);
}

static bool is_numbers(const struct pickle *v)
{
    if (!is(v, PK_TUPLE)) return false;
    for (size_t i = 0; i < v->n; i++)
        if (!is(v->item[i], PK_INT)) return false;
    return true;
}

static void check_counts(struct machine *m, const char *word, const struct pickle *v)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->item[i]->number < 0)
            refuse(m, "a tensor has the %s %lld on axis %zu", word, (long long)v->item[i]->number, i + 1);
}

static struct pickle *build_tensor(struct machine *m, enum global what, const struct pickle *args)
{
    size_t least = what == G_TENSOR ? 4 : what == G_TENSOR_V2 ? 6 : 7;
    bool fits = is(args, PK_TUPLE) && args->n >= least && is(args->item[0], PK_STORAGE) && is(args->item[1], PK_INT) &&
                is_numbers(args->item[2]) && is_numbers(args->item[3]);
    fits = fits && (what != G_TENSOR_V3 || (is(args->item[6], PK_GLOBAL) && args->item[6]->number == G_DTYPE));
    if (!fits) {
        refuse(m, "a tensor has an unknown form");
        return NULL;
    }
    const struct pickle *size = args->item[2], *stride = args->item[3];
    if (args->item[1]->number < 0) refuse(m, "a tensor has the offset %lld", (long long)args->item[1]->number);
    check_counts(m, "size", size);
    check_counts(m, "stride", stride);
    if (size->n > TENSOR_DIMS) refuse(m, "a tensor has %zu axes, more than %d", size->n, TENSOR_DIMS);
    if (size->n != stride->n) refuse(m, "a tensor has sizes on %zu axes and strides on %zu", size->n, stride->n);
    if (m->rc < 0) return NULL;
    struct pickle *v = value_new(m, PK_TENSOR);
    v->storage = args->item[0];
    v->offset = args->item[1]->number;
    v->size = args->item[2];
    v->stride = args->item[3];
    v->dtype = what == G_TENSOR_V3 ? args->item[6]->dtype : v->storage->dtype;
    return v;
}

static void call(struct machine *m)
{
    struct pickle *args = pop(m), *f = pop(m), *v = NULL;
    if (m->rc < 0) return;
    if (!is(f, PK_GLOBAL) || !is(args, PK_TUPLE))
        refuse(m, "it calls what is no function");
    else if (f->number == G_ORDERED_DICT && args->n == 0)
        v = value_new(m, PK_DICT);
    else if (f->number == G_SIZE && args->n == 1 && is(args->item[0], PK_TUPLE))
        v = args->item[0];
    else if (f->number == G_PARAMETER && args->n >= 1 && is(args->item[0], PK_TENSOR))
        v = args->item[0];
    else if (f->number == G_TENSOR || f->number == G_TENSOR_V2 || f->number == G_TENSOR_V3)
        v = build_tensor(m, (enum global)f->number, args);
    else
        refuse(m, "a call has arguments that it does not take");
    if (v) push(m, v);
}

// ---- memo

static void memo_put(struct machine *m, uint64_t i)
{
    if (i >= MEMO_MAX) {
        refuse(m, "its memo is too large");
        return;
    }
    if (i >= m->memo_capacity) {
        size_t capacity = 2 * i + 256;
        m->memo = realloc(m->memo, capacity * sizeof *m->memo);
        BUG_IF(!m->memo, "no memory for a memo");
        memset(m->memo + m->memo_capacity, 0, (capacity - m->memo_capacity) * sizeof *m->memo);
        m->memo_capacity = capacity;
    }
    m->memo[i] = top(m);
    if (i >= m->n_memo) m->n_memo = i + 1;
}

static void memo_get(struct machine *m, uint64_t i)
{
    if (i < m->memo_capacity && m->memo[i])
        push(m, m->memo[i]);
    else
        refuse(m, "its memo lacks the entry %llu", (unsigned long long)i);
}

static void build(struct machine *m)
{
    pop(m); // the state of a module's dict is of no use
    struct pickle *v = top(m);
    if (!is(v, PK_DICT) && !is(v, PK_TENSOR)) refuse(m, "it gives a state to what has none");
}

static void set_item(struct machine *m)
{
    struct pickle *value = pop(m), *key = pop(m), *dict = top(m);
    if (!is(dict, PK_DICT)) {
        refuse(m, "a dict is missing");
        return;
    }
    append(m, dict, key);
    append(m, dict, value);
}

static void tuple_of(struct machine *m, size_t n)
{
    size_t have = 0;
    while (have < n && have < m->n_stack && m->stack[m->n_stack - 1 - have]->kind != PK_MARK) have++;
    if (have < n)
        refuse(m, "its stack is empty");
    else
        collect(m, PK_TUPLE, m->n_stack - n, m->n_stack - n);
}

static void long1(struct machine *m)
{
    uint64_t n = take_number(m, 1);
    if (n > 8) {
        refuse(m, "a number has %llu bytes, more than 8", (unsigned long long)n);
        return;
    }
    uint64_t v = take_number(m, (int)n);
    if (n > 0 && n < 8 && v >> (8 * n - 1)) v |= ~0ull << (8 * n);
    push_int(m, PK_INT, (int64_t)v);
}

static void stack_global(struct machine *m)
{
    struct pickle *name = pop(m), *module = pop(m);
    if (is(name, PK_STR) && is(module, PK_STR))
        push_global(m, module->text, name->text);
    else
        refuse(m, "a global has no name");
}

static void to_mark(struct machine *m, enum pickle_kind kind)
{
    size_t from = find_mark(m);
    if (m->rc == 0) collect(m, kind, from, from - 1);
}

// One opcode but STOP.
static void step(struct machine *m, uint8_t op)
{
    const char *module;
    switch (op) {
    case 0x63:
        module = take_line(m);
        push_global(m, module, take_line(m));
        break; // GLOBAL
    case 0x93:
        stack_global(m);
        break; // STACK_GLOBAL
    case 0x28:
        push(m, value_new(m, PK_MARK));
        break; // MARK
    case 0x29:
        push(m, value_new(m, PK_TUPLE));
        break; // EMPTY_TUPLE
    case 0x74:
        to_mark(m, PK_TUPLE);
        break; // TUPLE
    case 0x85:
    case 0x86:
    case 0x87:
        tuple_of(m, op - 0x84u);
        break; // TUPLE1..3
    case 0x7d:
        push(m, value_new(m, PK_DICT));
        break; // EMPTY_DICT
    case 0x5d:
        push(m, value_new(m, PK_LIST));
        break; // EMPTY_LIST
    case 0x73:
        set_item(m);
        break; // SETITEM
    case 0x75:
        extend(m, PK_DICT);
        break; // SETITEMS
    case 0x61: {
        struct pickle *v = pop(m);
        if (is(top(m), PK_LIST))
            append(m, top(m), v);
        else
            refuse(m, "a list is missing");
        break;
    }
    case 0x65:
        extend(m, PK_LIST);
        break; // APPENDS
    case 0x6c:
        to_mark(m, PK_LIST);
        break; // LIST
    case 0x71:
        memo_put(m, take_number(m, 1));
        break; // BINPUT
    case 0x72:
        memo_put(m, take_number(m, 4));
        break; // LONG_BINPUT
    case 0x68:
        memo_get(m, take_number(m, 1));
        break; // BINGET
    case 0x6a:
        memo_get(m, take_number(m, 4));
        break; // LONG_BINGET
    case 0x94:
        memo_put(m, m->n_memo);
        break; // MEMOIZE
    case 0x95:
        if (take_number(m, 8) > m->n - m->at) refuse(m, "a frame is cut");
        break;
    case 0x58:
        push_text(m, PK_STR, take_number(m, 4));
        break; // BINUNICODE
    case 0x8c:
    case 0x55:
        push_text(m, PK_STR, take_number(m, 1));
        break; // SHORT_BINUNICODE, SHORT_BINSTRING
    case 0x8d:
        push_text(m, PK_STR, take_number(m, 8));
        break; // BINUNICODE8
    case 0x54:
        push_text(m, PK_STR, take_number(m, 4));
        break; // BINSTRING
    case 0x43:
        push_text(m, PK_BYTES, take_number(m, 1));
        break; // SHORT_BINBYTES
    case 0x42:
        push_text(m, PK_BYTES, take_number(m, 4));
        break; // BINBYTES
    case 0x4b:
        push_int(m, PK_INT, (int64_t)take_number(m, 1));
        break; // BININT1
    case 0x4d:
        push_int(m, PK_INT, (int64_t)take_number(m, 2));
        break; // BININT2
    case 0x4a:
        push_int(m, PK_INT, (int32_t)take_number(m, 4));
        break; // BININT
    case 0x8a:
        long1(m);
        break; // LONG1
    case 0x47:
        take(m, 8);
        push(m, value_new(m, PK_FLOAT));
        break; // BINFLOAT
    case 0x4e:
        push(m, value_new(m, PK_NONE));
        break; // NONE
    case 0x88:
    case 0x89:
        push_int(m, PK_BOOL, op == 0x88);
        break; // NEWTRUE, NEWFALSE
    case 0x30:
        if (m->n_stack > 0)
            m->n_stack--; // a mark too
        else
            refuse(m, "its stack is empty");
        break; // POP
    case 0x31: {
        size_t from = find_mark(m);
        if (m->rc == 0) m->n_stack = from - 1;
        break;
    } // POP_MARK
    case 0x32:
        push(m, top(m));
        break; // DUP
    case 0x51:
        push_storage(m);
        break; // BINPERSID
    case 0x52:
        call(m);
        break; // REDUCE
    case 0x62:
        build(m);
        break; // BUILD
    default:
        refuse_operation(m, op);
        break;
    }
}

// ---- the result

// Every container once: what it holds may stand elsewhere too, but not around it.
static void walk(struct machine *m, struct pickle *v, int depth)
{
    if ((v->kind != PK_TUPLE && v->kind != PK_LIST && v->kind != PK_DICT) || v->walked || m->rc < 0) return;
    if (v->entered)
        refuse(m, "a %s holds itself", v->kind == PK_DICT ? "dict" : "list");
    else if (depth > DEPTH_MAX)
        refuse(m, "it is nested more than %d deep", DEPTH_MAX);
    v->entered = true;
    for (size_t i = 0; i < v->n && m->rc == 0; i++) walk(m, v->item[i], depth + 1);
    v->walked = true;
}

int pickle_run(struct pickle **out, struct arena *a, const char *what, const uint8_t *bytes, size_t n, struct err *e)
{
    struct machine m = {.a = a, .what = what, .bytes = bytes, .n = n, .e = e};
    if (n < 3 || bytes[0] != 0x80 || bytes[1] < 2 || bytes[1] > 5) refuse(&m, "it has no header");
    m.at = 2;
    bool stopped = false;
    for (int64_t i = 0; m.rc == 0 && !stopped; i++) {
        const uint8_t *op = take(&m, 1);
        if (!op) break;
        if (i == OPS_MAX) refuse(&m, "it is too long");
        stopped = *op == 0x2e;
        if (!stopped) step(&m, *op);
    }
    if (m.rc == 0 && m.n_stack != 1) refuse(&m, "it ends with %zu results, not one", m.n_stack);
    if (m.rc == 0) walk(&m, m.stack[0], 0);
    if (m.rc == 0) *out = m.stack[0];
    free(m.stack);
    free(m.memo);
    return m.rc;
}
