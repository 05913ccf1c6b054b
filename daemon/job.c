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
    *j = (struct job){.id = id,
                      .spec = spec,
                      .model = model,
                      .picture_of = -1,
                      .picture_wanted = -1,
                      .stage_segment = -1,
                      .tail = {{.segment = -1}, {.segment = -1}},
                      .begun_ms = clock_ms()};
    snprintf(j->folder, sizeof j->folder, "%s", folder);
}

int job_load(struct job *j, struct store *s, struct err *e)
{
    struct store_job row;
    int rc = store_get(s, j->id, &row, e);
    BUG_IF(rc == 0, "job %llu is not in the store", (unsigned long long)j->id);
    if (rc < 0) return rc;
    j->committed = row.segments;
    j->frames = row.frames;
    j->bytes = row.media_bytes;
    j->n_frames = row.n_frames;
    j->n_segments = row.n_segments;
    for (int64_t k = 0; k < j->committed; k++) {
        struct store_segment g;
        rc = store_segment(s, j->id, k, &g, e);
        if (rc < 0) return rc;
        if (rc == 0)
            return err_set(e, E_FATAL, "the store is damaged: it lacks segment %lld of job %llu", (long long)k,
                           (unsigned long long)j->id);
        j->condition_ms += g.condition_ms;
        j->denoise_ms += g.denoise_ms;
        j->decode_ms += g.decode_ms;
        j->tail_ms += g.tail_ms;
        if (g.drift > j->drift) j->drift = g.drift;
        if (g.n_tail > 0) job_tail_keep(j, k, g.tail, g.n_tail);
    }
    return 0;
}

bool job_let_go(struct job *j)
{
    bool kept = j->reel && reel_abandon(j->reel);
    reel_close(&j->reel);
    free(j->picture);
    j->picture = NULL;
    j->picture_of = j->picture_wanted = -1;
    j->stage[0] = 0;
    j->stage_segment = -1;
    j->step = j->n_steps = 0;
    return kept;
}

void job_release(struct job *j)
{
    BUG_IF(j->busy, "job %llu is released while work goes on for it", (unsigned long long)j->id);
    for (int i = 0; i < 2; i++) free(j->tail[i].bytes);
    free(j->picture);
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

void job_tail_keep(struct job *j, int64_t segment, const void *bytes, size_t n)
{
    struct job_tail *t = &j->tail[segment % 2];
    free(t->bytes);
    *t = (struct job_tail){.segment = segment, .bytes = malloc(n), .n = n};
    BUG_IF(!t->bytes, "no memory for a tail of %zu bytes", n);
    memcpy(t->bytes, bytes, n);
}

const struct job_tail *job_tail_of(const struct job *j, int64_t segment)
{
    if (segment < 0) return NULL;
    const struct job_tail *t = &j->tail[segment % 2];
    return t->segment == segment ? t : NULL;
}

void job_beat(struct job *j, const char *stage, int64_t segment, uint32_t step, uint32_t n_steps)
{
    if (segment < -1 || (j->reel && segment >= reel_info(j->reel)->n_segments)) return;
    snprintf(j->stage, sizeof j->stage, "%s", stage);
    for (char *c = j->stage; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 127) *c = '-'; // it goes to terminals
    j->stage_segment = segment;
    j->step = step;
    j->n_steps = n_steps;
    if (!j->reel || segment < 0) return;
    double units = j->spec->r.steps + 1, done = 0;
    if (strcmp(stage, "denoise") == 0) done = step < units ? step : units - 1;
    if (strcmp(stage, "decode") == 0) done = units - 1 + (n_steps ? 0.9 * step / n_steps : 0);
    if (strcmp(stage, "done") == 0) done = units;
    int64_t n = reel_info(j->reel)->n_segments;
    double percent = 100 * ((double)segment * units + done) / ((double)n * units);
    // a segment's first steps may be told while frames of the one before are still on their way
    double most = 100 * (double)(j->committed + 1) / (double)n;
    if (percent > most) percent = most;
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
