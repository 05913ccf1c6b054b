// Progress is shown at most five times a second, and at every change of state or segment.
#include "daemon/cli/report.h"

#include "daemon/cli/cli.h"
#include "proto/base/clock.h"
#include "proto/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SHOW_MS = 200 };

void report_init(struct report *r, bool json)
{
    *r = (struct report){.json = json, .terminal = !json && isatty(STDERR_FILENO), .state = JOB_QUEUED};
}

static void json_line(json_t *o, FILE *to)
{
    json_dumpf(o, to, JSON_COMPACT | JSON_REAL_PRECISION(6));
    fputc('\n', to);
    fflush(to);
    json_decref(o);
}

static void line_clear(struct report *r)
{
    if (r->line) fputs("\r\033[K", stderr);
    r->line = false;
}

// ---- notices

static void notices(struct report *r, const struct job *j)
{
    if (!j->notices || r->noted == strlen(j->notices)) return;
    char *text = strdup(j->notices + r->noted), *rest = text;
    BUG_IF(!text, "no memory for notices");
    r->noted = strlen(j->notices);
    line_clear(r);
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line && r->json)
            json_line(json_pack("{ssss}", "event", "notice", "text", line), stderr);
        else if (*line)
            fprintf(stderr, "note: %s\n", line);
    free(text);
}

// ---- progress

static void stage_text(const struct job *j, char *to, size_t n)
{
    if (j->state != JOB_RUNNING)
        snprintf(to, n, "%s",
                 j->state == JOB_PREPARING   ? "reading picture and voice"
                 : j->state == JOB_FINISHING ? "writing the file"
                                             : job_state_name(j->state));
    else if (j->stage_segment < 0 || !j->stage[0])
        snprintf(to, n, "%s", !j->stage[0] || strcmp(j->stage, "load") == 0 ? "loading the model" : "getting ready");
    else {
        int64_t n_segments = reel_info(j->reel)->n_segments, k = j->stage_segment + 1;
        int at =
            snprintf(to, n, "segment %lld/%lld", (long long)(k < n_segments ? k : n_segments), (long long)n_segments);
        if (j->n_steps && strcmp(j->stage, "denoise") == 0)
            snprintf(to + at, n - (size_t)at, "  step %u/%u", j->step, j->n_steps);
        else
            snprintf(to + at, n - (size_t)at, "  %s", j->stage);
    }
}

static void time_text(double seconds, char *to, size_t n)
{
    int64_t s = (int64_t)(seconds + 0.5);
    if (seconds < 0)
        snprintf(to, n, "?");
    else if (s < 3600)
        snprintf(to, n, "%lld:%02lld", (long long)(s / 60), (long long)(s % 60));
    else
        snprintf(to, n, "%lld:%02lld:%02lld", (long long)(s / 3600), (long long)(s / 60 % 60), (long long)(s % 60));
}

static void show_json(const struct job *j)
{
    json_t *o = json_pack("{sssssf}", "event", "progress", "state", job_state_name(j->state), "percent", j->percent);
    if (j->state == JOB_RUNNING) {
        json_object_set_new(o, "stage", json_string(j->stage));
        json_object_set_new(o, "segment", json_integer(j->stage_segment + 1));
        json_object_set_new(o, "segments", json_integer(reel_info(j->reel)->n_segments));
        json_object_set_new(o, "step", json_integer(j->step));
        json_object_set_new(o, "steps", json_integer(j->n_steps));
        double left = job_seconds_left(j);
        json_object_set_new(o, "seconds_left", left < 0 ? json_null() : json_real(left));
    }
    json_line(o, stderr);
}

static void show_terminal(struct report *r, const struct job *j)
{
    char stage[96], left[32];
    stage_text(j, stage, sizeof stage);
    time_text(job_seconds_left(j), left, sizeof left);
    fprintf(stderr, "\r\033[K%5.1f %%  %s", j->percent, stage);
    if (j->state == JOB_RUNNING && left[0] != '?') fprintf(stderr, "  %s left", left);
    fflush(stderr);
    r->line = true;
}

static void show_sparse(const struct job *j, bool state)
{
    char stage[96], left[32];
    stage_text(j, stage, sizeof stage);
    time_text(job_seconds_left(j), left, sizeof left);
    if (state && j->state != JOB_COMPLETED)
        fprintf(stderr, "%s\n", stage);
    else if (j->committed > 0 && !state)
        fprintf(stderr, "segment %lld/%lld done, %.1f %%, %s left\n", (long long)j->committed,
                (long long)reel_info(j->reel)->n_segments, j->percent, left);
}

void report_job(struct report *r, const struct job *j)
{
    bool state = r->state != j->state, segment = r->committed != j->committed;
    notices(r, j);
    if (state && j->state == JOB_READY && j->attempts == 0 && j->committed > 0 && !r->json)
        fprintf(stderr, "goes on after segment %lld/%lld\n", (long long)j->committed, (long long)j->n_segments);
    if (job_is_over(j) || (!state && !segment && clock_ms() - r->shown_ms < SHOW_MS)) return;
    if (r->json)
        show_json(j);
    else if (r->terminal)
        show_terminal(r, j);
    else if ((state || segment) && j->state != JOB_READY)
        show_sparse(j, state);
    r->state = j->state;
    r->committed = j->committed;
    r->shown_ms = clock_ms();
}

// ---- the end

static void refusal_json(const struct err *e, const char *status, json_t *o)
{
    json_object_set_new(o, "status", json_string(status));
    json_object_set_new(o, "error", json_pack("{ssss}", "code", err_name(e->code), "message", e->text));
}

void report_refused(struct report *r, const struct err *e)
{
    line_clear(r);
    cli_complain(e);
    if (!r->json) return;
    json_t *o = json_object();
    refusal_json(e, "refused", o);
    json_line(o, stdout);
}

void report_delivered(struct report *r, const char *output)
{
    if (r->json)
        json_line(json_pack("{ssss}", "status", "completed", "output", output), stdout);
    else
        fprintf(stderr, "%s: finished before\n", output);
}

static json_t *lines_array(const char *lines)
{
    json_t *a = json_array();
    for (const char *at = lines; *at;) {
        size_t n = strcspn(at, "\n");
        if (n) json_array_append_new(a, json_stringn(at, n));
        at += n + (at[n] != 0);
    }
    return a;
}

static json_t *end_object(const struct job *j, const char *kept)
{
    const struct spec_render *s = &j->spec->r;
    json_t *o = json_object();
    if (j->state == JOB_FAILED) {
        refusal_json(&j->why, "failed", o);
        json_t *e = json_object_get(o, "error");
        json_object_set_new(e, "stage", json_string(j->reel ? j->stage : "inputs"));
        if (j->stage_segment >= 0) json_object_set_new(e, "segment", json_integer(j->stage_segment + 1));
        json_object_set_new(o, "resumable", json_boolean(j->why.code == E_LOST));
    } else
        json_object_set_new(o, "status", json_string(job_is_over(j) ? job_state_name(j->state) : "interrupted"));
    if (!j->reel) return o;
    const struct reel_info *i = reel_info(j->reel);
    if (j->state == JOB_COMPLETED) json_object_set_new(o, "output", json_string(j->spec->output));
    if (kept) json_object_set_new(o, "partial", json_string(kept));
    bool whole = j->state == JOB_COMPLETED;
    int64_t frames = whole ? i->n_frames : reel_frames(j->reel);
    json_object_update_new(o, json_pack("{sIsIsfsIsIsisissss}", "frames", (json_int_t)frames, "frames_total",
                                        (json_int_t)i->n_frames, "seconds", (double)i->n_frames / 25, "segments",
                                        (json_int_t)j->committed, "segments_total", (json_int_t)i->n_segments, "width",
                                        s->w, "height", s->h, "size", s->size, "mode",
                                        s->mode == SPEC_CLIP ? "clip" : "streaming"));
    json_object_update_new(o, json_pack("{sIsisfsf}", "seed", (json_int_t)s->seed, "steps", s->steps, "elapsed_seconds",
                                        (double)(j->ended_ms - j->begun_ms) / 1000, "color_drift", j->drift));
    json_object_set_new(o, "stage_seconds",
                        json_pack("{sfsfsfsf}", "condition", (double)j->condition_ms / 1000, "denoise",
                                  (double)j->denoise_ms / 1000, "decode", (double)j->decode_ms / 1000, "tail",
                                  (double)j->tail_ms / 1000));
    json_object_set_new(o, "notices", lines_array(j->notices ? j->notices : ""));
    return o;
}

void report_end(struct report *r, const struct job *j, const char *kept)
{
    char took[32];
    line_clear(r);
    time_text((double)(j->ended_ms - j->begun_ms) / 1000, took, sizeof took);
    if (j->state == JOB_COMPLETED) {
        const struct reel_info *i = reel_info(j->reel);
        if (!r->json)
            fprintf(stderr, "%s: %lld frames, %.2f s, %dx%d, made in %s\n", j->spec->output, (long long)i->n_frames,
                    (double)i->n_frames / 25, j->spec->r.w, j->spec->r.h, took);
    } else if (j->state == JOB_FAILED)
        cli_complain(&j->why);
    else
        fprintf(stderr, "longtake: interrupted\n");
    if (kept) fprintf(stderr, "longtake: what was made so far plays: %s\n", kept);
    if (r->json) json_line(end_object(j, kept), stdout);
}
