// States and what moves them. Rendering is counted in steps: a segment is its denoising steps and one more for its
// decoding, so that the number of forwards done is what the percent shows.
#include "daemon/job.h"

#include "proto/base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { NOTICES_MOST = 1 << 15 };

static const struct move {
    enum job_state from;
    enum job_event event;
    enum job_state to;
} moves[] = {
    {JOB_QUEUED, JOB_PREPARE, JOB_PREPARING},   {JOB_PREPARING, JOB_PREPARED, JOB_READY},
    {JOB_READY, JOB_START, JOB_RUNNING},        {JOB_RUNNING, JOB_LOSE_GROUP, JOB_READY},
    {JOB_RUNNING, JOB_RENDERED, JOB_FINISHING}, {JOB_FINISHING, JOB_FINISHED, JOB_COMPLETED},
    {JOB_PREPARING, JOB_FAIL, JOB_FAILED},      {JOB_READY, JOB_FAIL, JOB_FAILED},
    {JOB_RUNNING, JOB_FAIL, JOB_FAILED},        {JOB_FINISHING, JOB_FAIL, JOB_FAILED},
    {JOB_READY, JOB_RENDERED, JOB_FINISHING},   {JOB_QUEUED, JOB_PAUSE, JOB_PAUSED},
    {JOB_PREPARING, JOB_PAUSE, JOB_PAUSED},     {JOB_READY, JOB_PAUSE, JOB_PAUSED},
    {JOB_RUNNING, JOB_PAUSE, JOB_PAUSED},       {JOB_PAUSED, JOB_RESUME, JOB_QUEUED},
    {JOB_FAILED, JOB_RETRY, JOB_QUEUED},        {JOB_CANCELLED, JOB_RETRY, JOB_QUEUED},
    {JOB_PAUSED, JOB_CANCEL, JOB_CANCELLED},    {JOB_QUEUED, JOB_CANCEL, JOB_CANCELLED},
    {JOB_PREPARING, JOB_CANCEL, JOB_CANCELLED}, {JOB_READY, JOB_CANCEL, JOB_CANCELLED},
    {JOB_RUNNING, JOB_CANCEL, JOB_CANCELLED},
};

static const char *const names[JOB_STATES] = {"queued", "preparing", "ready",  "running",  "finishing",
                                              "paused", "completed", "failed", "cancelled"};

const char *job_state_name(enum job_state s) { return names[s]; }

bool job_is_over(const struct job *j)
{
    return j->state == JOB_COMPLETED || j->state == JOB_FAILED || j->state == JOB_CANCELLED;
}

bool job_move(struct job *j, enum job_event event)
{
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        if (moves[i].from != j->state || moves[i].event != event) continue;
        j->state = moves[i].to;
        if (job_is_over(j)) j->ended_ms = clock_ms();
        return true;
    }
    return false;
}

void job_init(struct job *j, uint64_t id, struct spec *spec, const struct model *model, const char *folder)
{
    *j = (struct job){.id = id, .spec = spec, .model = model, .stage_segment = -1, .begun_ms = clock_ms()};
    snprintf(j->folder, sizeof j->folder, "%s", folder);
}

int job_load(struct job *j, struct store *s, struct err *e)
{
    struct store_job row;
    int rc = store_get(s, j->id, &row, e);
    BUG_IF(rc == 0, "job %llu is not in the store", (unsigned long long)j->id);
    if (rc < 0) return rc;
    j->committed = row.segments;
    j->film_segments = row.film_segments;
    j->film_frames = row.film_frames;
    j->film_bytes = row.film_bytes;
    j->n_frames = row.n_frames;
    j->n_segments = row.n_segments;
    j->mixed = row.mixed;
    snprintf(j->layout, sizeof j->layout, "%s", row.layout ? row.layout : "");
    return 0;
}

// ---- spans

static void spans_free(struct job *j)
{
    for (int i = 0; i < j->n_spans; i++) span_release(&j->span[i]);
    free(j->span);
    j->span = NULL;
    j->n_spans = j->n_taken = 0;
}

static void spans_make(struct job *j)
{
    const struct reel_info *r = reel_info(j->reel);
    spans_free(j);
    j->span = calloc((size_t)r->n_spans, sizeof *j->span);
    BUG_IF(!j->span, "no memory for %d spans", r->n_spans);
    j->n_spans = r->n_spans;
    int64_t first = 0;
    for (int i = 0; i < r->n_spans; i++) {
        int64_t end = reel_span_end(j->reel, i);
        span_init(&j->span[i], i, first, end);
        first = end;
    }
}

struct span *job_span_of(const struct job *j, int64_t segment)
{
    int low = 0, high = j->n_spans - 1;
    while (low < high) {
        int mid = (low + high) / 2;
        if (segment < j->span[mid].end)
            high = mid;
        else
            low = mid + 1;
    }
    return &j->span[low];
}

static int damaged(const struct job *j, int64_t segment, struct err *e)
{
    return err_set(e, E_FATAL, "the store is damaged: job %llu has its segment %lld out of order",
                   (unsigned long long)j->id, (long long)segment);
}

static int segments_load(struct job *j, struct store *s, struct err *e)
{
    struct store_segment g;
    int rc;
    int64_t n = 0;
    size_t pixels = (size_t)j->spec->r.h * (size_t)j->spec->r.w;
    j->condition_ms = j->denoise_ms = j->decode_ms = j->tail_ms = 0;
    for (int64_t k = 0; (rc = store_segment(s, j->id, k, &g, e)) == 1; k = g.number + 1, n++) {
        if (g.number >= j->n_segments) return damaged(j, g.number, e);
        struct span *span = job_span_of(j, g.number);
        if (g.number != span->committed) return damaged(j, g.number, e);
        span->committed++;
        j->condition_ms += g.condition_ms;
        j->denoise_ms += g.denoise_ms;
        j->decode_ms += g.decode_ms;
        j->tail_ms += g.tail_ms;
        if (g.drift > j->drift) j->drift = g.drift;
        if (g.n_tail > 0) span_tail_keep(span, g.number, g.tail, g.n_tail);
        if (g.n_last == pixels) span_last_keep(span, g.last, g.n_last);
    }
    return rc < 0 ? rc : n == j->committed ? 0 : damaged(j, n, e);
}

int job_plan(struct job *j, struct store *s, struct err *e)
{
    const struct reel_info *i = reel_info(j->reel);
    int rc = 0;
    if (j->n_segments == 0) {
        struct store_plan p = {.n_frames = i->n_frames, .n_segments = i->n_segments, .n_cuts = i->n_spans - 1};
        p.cut = reel_cuts(j->reel);
        rc = store_plan(s, j->id, &p, e);
        j->n_frames = i->n_frames;
        j->n_segments = i->n_segments;
    } else if (j->n_frames != i->n_frames || j->n_segments != i->n_segments)
        rc =
            err_set(e, E_INPUT, "the inputs give %lld frames in %lld segments now, and gave %lld in %lld when it began",
                    (long long)i->n_frames, (long long)i->n_segments, (long long)j->n_frames, (long long)j->n_segments);
    if (rc < 0) return rc;
    spans_make(j);
    return segments_load(j, s, e);
}

struct span *job_span_next(const struct job *j)
{
    struct span *best = NULL;
    if (j->n_spans == 0) return NULL;
    if (j->film_segments < j->n_segments) {
        struct span *awaited = job_span_of(j, j->film_segments);
        if (span_is_ready(awaited)) return awaited;
    }
    for (int i = 0; i < j->n_spans; i++) {
        struct span *s = &j->span[i];
        if (span_is_ready(s) && (!best || s->end - s->committed > best->end - best->committed)) best = s;
    }
    return best;
}

bool job_feeds_film(const struct job *j)
{
    return j->n_spans > 0 && j->film_segments < j->n_segments &&
           job_span_of(j, j->film_segments)->committed > j->film_segments;
}

bool job_settles(const struct job *j)
{
    bool rests = job_is_over(j) || j->state == JOB_PAUSED;
    return j->n_busy > 0 || (rests && j->unsaved) || (rests && j->reel && !j->film_failed && job_feeds_film(j));
}

bool job_let_go(struct job *j)
{
    bool kept = j->reel && reel_abandon(j->reel);
    reel_close(&j->reel);
    spans_free(j);
    j->stage[0] = 0;
    j->stage_segment = -1;
    j->step = j->n_steps = 0;
    return kept;
}

void job_release(struct job *j)
{
    BUG_IF(j->n_busy > 0, "job %llu is released while work goes on for it", (unsigned long long)j->id);
    spans_free(j);
    free(j->notices);
    reel_close(&j->reel);
    memset(j, 0, sizeof *j);
}

static bool has_line(const char *lines, const char *line)
{
    size_t n = strlen(line);
    for (const char *at = lines; at && (at = strstr(at, line)); at++)
        if ((at == lines || at[-1] == '\n') && (at[n] == 0 || at[n] == '\n')) return true;
    return false;
}

static bool has_event(struct store *s, uint64_t job, const char *text, struct err *e)
{
    const char *was;
    int64_t number = 0, at_s;
    while (store_event_next(s, job, &number, &at_s, &was, e) == 1)
        if (strcmp(was, text) == 0) return true;
    return false;
}

int job_note(struct job *j, struct store *s, const char *text, struct err *e)
{
    char event[1100];
    snprintf(event, sizeof event, "note: %s", text);
    char *line = event + strlen("note: ");
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = ' '; // it goes to terminals
    if (!*line || has_line(j->notices, line)) return 0;
    size_t n = j->notices ? strlen(j->notices) : 0, room = n + strlen(line) + 2;
    if (room > NOTICES_MOST) return 0; // whoever says so much says nothing
    j->notices = realloc(j->notices, room);
    BUG_IF(!j->notices, "no memory for %zu bytes of notices", room);
    snprintf(j->notices + n, room - n, "%s%s", n ? "\n" : "", line);
    return has_event(s, j->id, event, e) ? 0 : store_event(s, j->id, event, e);
}

void job_beat(struct job *j, struct span *span, const char *stage, int64_t segment, uint32_t step, uint32_t n_steps)
{
    if (segment < -1 || (j->reel && segment >= j->n_segments)) return;
    snprintf(j->stage, sizeof j->stage, "%s", stage);
    for (char *c = j->stage; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 127) *c = '-'; // it goes to terminals
    j->stage_segment = segment;
    j->step = step;
    j->n_steps = n_steps;
    if (!j->reel || !span || segment < span->first) return;
    double units = j->spec->r.steps + 1, done = 0, sum = (double)j->committed * units;
    if (strcmp(stage, "denoise") == 0) done = step < units ? step : units - 1;
    if (strcmp(stage, "decode") == 0) done = units - 1 + (n_steps ? 0.9 * step / n_steps : 0);
    span->units = (double)(segment - span->committed) * units + done;
    if (span->units < 0) span->units = 0;
    if (span->units > units) span->units = units; // steps of the next one while frames of this one are on their way
    for (int i = 0; i < j->n_spans; i++) sum += j->span[i].units;
    double percent = 100 * sum / ((double)j->n_segments * units);
    if (percent > j->percent && percent <= 100) j->percent = percent;
    if (j->stepped_ms == 0 && strcmp(stage, "denoise") == 0) {
        j->stepped_ms = clock_ms();
        j->stepped_percent = j->percent;
    }
}

double job_seconds_left(const struct job *j)
{
    double done = j->percent - j->stepped_percent;
    if (j->stepped_ms == 0 || done <= 0) return -1;
    return (double)(clock_ms() - j->stepped_ms) / 1000 * (100 - j->percent) / done;
}
