// What a span holds in memory it holds only while a group has it, but for the tail to go on from and the picture that
// the next one is compared with: a job of a thousand shots costs a thousand small structs.
#include "daemon/span.h"

#include <stdlib.h>
#include <string.h>

void span_init(struct span *s, int number, int64_t first, int64_t end)
{
    *s = (struct span){.number = number,
                       .first = first,
                       .end = end,
                       .committed = first,
                       .tail = {{.segment = -1}, {.segment = -1}},
                       .picture_of = -1,
                       .picture_wanted = -1};
}

static void pictures_free(struct span *s)
{
    free(s->colour);
    free(s->picture);
    s->colour = s->picture = NULL;
    s->picture_of = s->picture_wanted = -1;
}

static void ends_free(struct span *s)
{
    for (int i = 0; i < 2; i++) free(s->tail[i].bytes);
    s->tail[0] = s->tail[1] = (struct span_tail){.segment = -1};
    free(s->last);
    s->last = NULL;
}

void span_take(struct span *s, const struct intake_options *o)
{
    BUG_IF(s->taken || !span_is_idle(s), "span %d is taken twice", s->number);
    s->taken = true;
    s->picture_wanted = s->committed;
    if (!s->intake) intake_new(&s->intake, o);
}

void span_leave(struct span *s)
{
    s->taken = false;
    s->units = 0;
    pictures_free(s);
    if (s->intake) intake_drop(s->intake);
    if (s->intake && intake_is_idle(s->intake)) intake_free(&s->intake);
    if (span_is_done(s)) ends_free(s);
}

bool span_is_idle(const struct span *s) { return !s->intake || intake_is_idle(s->intake); }

bool span_is_done(const struct span *s) { return s->committed == s->end; }

bool span_is_ready(const struct span *s) { return !s->taken && !span_is_done(s) && span_is_idle(s); }

void span_release(struct span *s)
{
    pictures_free(s);
    intake_free(&s->intake);
    ends_free(s);
}

void span_tail_keep(struct span *s, int64_t segment, const void *bytes, size_t n)
{
    struct span_tail *t = &s->tail[segment % 2];
    free(t->bytes);
    *t = (struct span_tail){.segment = segment, .bytes = malloc(n), .n = n};
    BUG_IF(!t->bytes, "no memory for a tail of %zu bytes", n);
    memcpy(t->bytes, bytes, n);
}

void span_last_keep(struct span *s, const uint8_t *luma, size_t n)
{
    if (!s->last) s->last = malloc(n);
    BUG_IF(!s->last, "no memory for a picture");
    memcpy(s->last, luma, n);
}

const struct span_tail *span_tail_of(const struct span *s, int64_t segment)
{
    if (segment < 0) return NULL;
    const struct span_tail *t = &s->tail[segment % 2];
    return t->segment == segment ? t : NULL;
}
