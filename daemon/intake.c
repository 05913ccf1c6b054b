// A queue with one worker.
//
//   FRAMES, FRAMES, DONE, FRAMES, .. --> [ open, push | end, write, sync ] --> frames encoded, segments kept
//
// One item is in work at a time, on a thread of libuv's pool; when it is done the next one begins, unless a segment was
// just kept: then the rest waits until intake_kept has told of it, so that no work runs ahead of the store. What waits
// in memory is bounded by the worker's credit, which is given back for frames that were encoded.
//
// Trap: a group can be lost while an item is in work. The item keeps its piece until it ends; only then is the piece
// freed, and only then may another group's frames come.
#include "daemon/intake.h"

#include "daemon/seam.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct item {
    struct item *next;
    bool ends; // DONE; else frames
    int64_t segment;
    int n;
    uint8_t *yuv;
    struct msg_done done;
};

struct intake {
    struct intake_options o;
    // what is due
    bool expects, over; // over: the last one came whole
    struct plan_segment due;
    int64_t next; // absolute frame
    // what waits
    struct item *first, *last;
    // in work
    struct item *item;
    struct piece *piece; // of the segment whose frames are being encoded
    int rc;
    struct err error;
    bool dropped; // it is nobody's any more
    struct seam seam;
    double score;    // of the item that ends
    uint8_t *ending; // brightness of its last picture
    // what became of it
    uint32_t encoded;
    bool has_kept;
    struct msg_done kept;
    double kept_score;
    uint8_t *kept_ending;
    int failed; // code
};

void intake_path(char *path, size_t n, const char *folder, int64_t segment)
{
    snprintf(path, n, "%s/piece-%lld", folder, (long long)segment);
}

void intake_new(struct intake **out, const struct intake_options *o)
{
    struct intake *i = calloc(1, sizeof *i);
    BUG_IF(!i, "no memory for frames");
    i->o = *o;
    *out = i;
}

static void item_free(struct item *it)
{
    if (it) free(it->yuv);
    free(it);
}

static void queue_clear(struct intake *i)
{
    while (i->first) {
        struct item *it = i->first;
        i->first = it->next;
        item_free(it);
    }
    i->last = NULL;
}

bool intake_is_idle(const struct intake *i) { return !i->item && !i->first; }

void intake_free(struct intake **pi)
{
    struct intake *i = *pi;
    if (!i) return;
    BUG_IF(i->item, "frames are freed while they are encoded");
    queue_clear(i);
    piece_free(&i->piece);
    seam_free(&i->seam);
    free(i->ending);
    free(i->kept_ending);
    free(i);
    *pi = NULL;
}

void intake_drop(struct intake *i)
{
    queue_clear(i);
    i->expects = i->over = false;
    i->has_kept = false;
    i->failed = 0;
    i->encoded = 0;
    if (i->item)
        i->dropped = true;
    else {
        piece_free(&i->piece);
        seam_forget(&i->seam);
    }
}

static size_t pixels_of(const struct intake *i) { return (size_t)i->o.picture.w * (size_t)i->o.picture.h; }

void intake_expect(struct intake *i, const struct plan_segment *g, const uint8_t *before)
{
    BUG_IF(i->item, "a segment is due while another one is in work");
    intake_drop(i);
    if (before) seam_follow(&i->seam, before, pixels_of(i));
    i->expects = true;
    i->due = *g;
    i->next = g->start + g->keep_from;
}

// ---- work

static void ending_keep(struct intake *i)
{
    const uint8_t *seen = seam_last(&i->seam);
    free(i->ending);
    i->ending = seen ? malloc(pixels_of(i)) : NULL;
    BUG_IF(seen && !i->ending, "no memory for a picture");
    if (seen) memcpy(i->ending, seen, pixels_of(i));
}

static void work(void *ctx)
{
    struct intake *i = ctx;
    struct item *it = i->item;
    char path[4200];
    i->error = (struct err){0};
    size_t pixels = pixels_of(i);
    for (int k = 0; k < it->n; k++) seam_see(&i->seam, it->yuv + (size_t)k * pixels * 3 / 2, pixels);
    if (it->ends) {
        i->score = seam_end(&i->seam);
        ending_keep(i);
    }
    i->rc = i->piece ? 0 : piece_open(&i->piece, &i->o.picture, &i->error);
    if (i->rc >= 0 && !it->ends) i->rc = piece_push(i->piece, it->n, it->yuv, &i->error);
    if (i->rc < 0 || !it->ends) return;
    intake_path(path, sizeof path, i->o.folder, it->segment);
    i->rc = piece_end(i->piece, &i->error);
    if (i->rc >= 0) i->rc = piece_write(i->piece, path, &i->error);
    piece_free(&i->piece);
}

static void next_begin(struct intake *i);

static void work_done(void *ctx)
{
    struct intake *i = ctx;
    struct item *it = i->item;
    i->item = NULL;
    --*i->o.n_busy;
    if (i->dropped || i->rc < 0) piece_free(&i->piece);
    if (i->dropped) {
        seam_forget(&i->seam);
        i->dropped = false;
    } else if (i->rc < 0) {
        i->failed = i->rc;
        queue_clear(i);
    } else if (it->ends) {
        i->has_kept = true;
        i->kept = it->done;
        i->kept_score = i->score;
        free(i->kept_ending);
        i->kept_ending = i->ending;
        i->ending = NULL; // while this one is read, the next segment's may be written
    } else
        i->encoded += (uint32_t)it->n;
    item_free(it);
    next_begin(i);
}

static void next_begin(struct intake *i)
{
    if (i->item || !i->first || i->has_kept || i->failed) return;
    i->item = i->first;
    i->first = i->item->next;
    if (!i->first) i->last = NULL;
    ++*i->o.n_busy;
    loop_work(i->o.loop, work, work_done, i);
}

static struct item *item_add(struct intake *i)
{
    struct item *it = calloc(1, sizeof *it);
    BUG_IF(!it, "no memory for frames");
    it->segment = i->due.number;
    if (i->last)
        i->last->next = it;
    else
        i->first = it;
    i->last = it;
    return it;
}

// ---- in and out

// It was had before.
static bool is_past(const struct intake *i, int64_t segment)
{
    return i->over ? segment <= i->due.number : i->expects && segment < i->due.number;
}

int intake_frames(struct intake *i, const struct msg_frames *f, const uint8_t *yuv, size_t bytes, struct err *e)
{
    size_t frame = pixels_of(i) * 3 / 2;
    if (is_past(i, f->segment)) return 0;
    int64_t end = i->due.start + i->due.keep_to;
    if (!i->expects || f->segment != i->due.number || bytes != f->n * frame || f->first > i->next ||
        f->first + f->n > end)
        return err_set(e, E_LOST, "the worker sent frames %lld to %lld of segment %lld in %zu bytes, which do not fit",
                       (long long)f->first, (long long)f->first + f->n - 1, (long long)f->segment + 1, bytes);
    int64_t had = i->next - f->first, n = f->n - had;
    if (n <= 0) return 0;
    struct item *it = item_add(i);
    it->n = (int)n;
    it->yuv = malloc((size_t)n * frame);
    BUG_IF(!it->yuv, "no memory for %lld frames", (long long)n);
    memcpy(it->yuv, yuv + (size_t)had * frame, (size_t)n * frame);
    i->next += n;
    next_begin(i);
    return 1;
}

int intake_done(struct intake *i, const struct msg_done *d, const struct plan_segment *next, struct err *e)
{
    if (is_past(i, d->segment)) return 0;
    if (!i->expects || d->segment != i->due.number)
        return err_set(e, E_LOST, "the worker ended segment %lld where segment %lld was due", (long long)d->segment + 1,
                       (long long)i->due.number + 1);
    if (i->next != i->due.start + i->due.keep_to)
        return err_set(e, E_LOST, "the worker ended segment %lld after frame %lld of %lld", (long long)d->segment + 1,
                       (long long)i->next, (long long)(i->due.start + i->due.keep_to));
    struct item *it = item_add(i);
    it->ends = true;
    it->done = *d;
    i->expects = next != NULL;
    i->over = !next;
    if (next) {
        i->due = *next;
        i->next = next->start + next->keep_from;
    }
    next_begin(i);
    return 1;
}

bool intake_owes(const struct intake *i)
{
    bool owes = i->has_kept || (i->item && i->item->ends && !i->dropped);
    for (const struct item *it = i->first; it && !owes; it = it->next) owes = it->ends;
    return owes && !i->failed;
}

bool intake_has_news(const struct intake *i) { return i->encoded > 0 || i->has_kept || i->failed; }

int intake_kept(struct intake *i, struct msg_done *d, struct err *e)
{
    if (i->failed) return err_set(e, i->failed, "%s", i->error.text);
    if (!i->has_kept) return 0;
    *d = i->kept;
    i->has_kept = false;
    next_begin(i);
    return 1;
}

double intake_seam(const struct intake *i) { return i->kept_score; }

const uint8_t *intake_last(const struct intake *i, size_t *n)
{
    *n = pixels_of(i);
    return i->kept_ending;
}

uint32_t intake_encoded(struct intake *i)
{
    uint32_t n = i->encoded;
    i->encoded = 0;
    return n;
}
