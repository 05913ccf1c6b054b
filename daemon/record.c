// Times are those that workers tell with DONE: of a group, all ranks of which work at the same time. Device seconds are
// those times, once for each rank.
#include "daemon/record.h"

static json_t *seconds(int64_t ms) { return json_real((double)ms / 1000); }

int record_report(struct store *s, uint64_t id, double device_cost, json_t **out, struct err *e)
{
    struct store_job j;
    struct store_report r;
    int rc = store_get(s, id, &j, e);
    if (rc <= 0) return rc;
    json_t *o = json_pack("{sIsssIsIsIsI}", "id", (json_int_t)id, "status", j.state, "segments", (json_int_t)j.segments,
                          "segments_total", (json_int_t)j.n_segments, "frames", (json_int_t)j.film_frames,
                          "frames_total", (json_int_t)j.n_frames);
    double minutes = (double)j.film_frames / 25 / 60;
    if (j.layout) json_object_set_new(o, "layout", json_string(j.layout));
    json_object_set_new(o, "mixed_layouts", json_boolean(j.mixed));
    if (j.ended_s) json_object_set_new(o, "seconds_since_submit", json_integer(j.ended_s - j.created_s));
    rc = store_report(s, id, &r, e);
    if (rc < 0) {
        json_decref(o);
        return rc;
    }
    json_object_set_new(o, "stage_seconds",
                        json_pack("{sosososo}", "condition", seconds(r.condition_ms), "denoise", seconds(r.denoise_ms),
                                  "decode", seconds(r.decode_ms), "tail", seconds(r.tail_ms)));
    json_object_set_new(o, "device_seconds", seconds(r.device_ms));
    json_object_set_new(o, "device_seconds_per_output_minute",
                        minutes > 0 ? json_real((double)r.device_ms / 1000 / minutes) : json_null());
    if (device_cost > 0 && minutes > 0)
        json_object_set_new(o, "cost_per_output_minute",
                            json_real((double)r.device_ms / 3.6e6 / minutes * device_cost));
    json_object_set_new(o, "color_drift", json_pack("{sfsf}", "most", r.drift_most, "mean", r.drift_mean));
    json_t *seam = json_pack("{sI}", "borders", (json_int_t)r.n_seams);
    if (r.n_seams > 0) json_object_update_new(seam, json_pack("{sfsf}", "most", r.seam_most, "mean", r.seam_mean));
    json_object_set_new(o, "seam_score", seam);
    *out = o;
    return 1;
}

int record_events(struct store *s, uint64_t id, int64_t after, int most, json_t **out, struct err *e)
{
    struct store_job j;
    const char *text;
    int64_t at_s;
    int rc = store_get(s, id, &j, e);
    if (rc <= 0) return rc;
    *out = json_array();
    while (most-- > 0 && (rc = store_event_next(s, id, &after, &at_s, &text, e)) == 1)
        json_array_append_new(
            *out, json_pack("{sIsIss}", "number", (json_int_t)after, "at", (json_int_t)at_s, "text", text ? text : ""));
    if (rc < 0) json_decref(*out);
    return rc < 0 ? rc : 1;
}
