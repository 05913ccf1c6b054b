// What a daemon has on record of a job: longtake report, longtake events.
#include "daemon/cli/cli.h"
#include "daemon/cli/client.h"

#include <stdio.h>
#include <time.h>

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void report_show(const json_t *o)
{
    const json_t *stage = json_object_get(o, "stage_seconds"), *drift = json_object_get(o, "color_drift"),
                 *seam = json_object_get(o, "seam_score"),
                 *rate = json_object_get(o, "device_seconds_per_output_minute"),
                 *cost = json_object_get(o, "cost_per_output_minute");
    const char *layout = json_string_value(json_object_get(o, "layout"));
    printf("job %lld: %s, segment %lld/%lld, %lld frames\n", (long long)client_number(o, "id"),
           json_string_value(json_object_get(o, "status")), (long long)client_number(o, "segments"),
           (long long)client_number(o, "segments_total"), (long long)client_number(o, "frames"));
    if (layout)
        printf("  made on         %s%s\n", layout,
               json_is_true(json_object_get(o, "mixed_layouts")) ? ", and others" : "");
    printf("  stages          condition %.1f s, denoise %.1f s, decode %.1f s, tail %.1f s\n",
           number(stage, "condition"), number(stage, "denoise"), number(stage, "decode"), number(stage, "tail"));
    printf("  device seconds  %.1f", number(o, "device_seconds"));
    if (json_is_number(rate)) printf(", %.1f for a minute of film", json_number_value(rate));
    if (cost) printf("\n  cost            %.4g for a minute of film", json_number_value(cost));
    printf("\n  colour drift    %.4f at most, %.4f on average\n", number(drift, "most"), number(drift, "mean"));
    if (client_number(seam, "borders") == 0)
        printf("  seams           none was measured\n");
    else
        printf("  seams           %.2f at most, %.2f on average over %lld borders (1: as smooth as inside)\n",
               number(seam, "most"), number(seam, "mean"), (long long)client_number(seam, "borders"));
}

static void event_show(const json_t *o)
{
    char at[32];
    struct tm t;
    time_t when = (time_t)client_number(o, "at");
    gmtime_r(&when, &t);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &t);
    printf("%s %s\n", at, json_string_value(json_object_get(o, "text")));
}

// The answer's JSON; the caller's to free.
static int asked(struct client *c, enum msg_view view, uint64_t after, json_t **o, struct err *e)
{
    struct msg *m = client_message(c, MSG_STATUS);
    m->status.view = view;
    m->status.after = after;
    int rc = client_ask(c, e);
    return rc < 0 ? rc : client_tree(c, o, e);
}

static void show(struct client *c, const json_t *o, void (*as_text)(const json_t *o))
{
    if (c->json) {
        json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        printf("\n");
    } else
        as_text(o);
}

int cli_report(int argc, char **argv)
{
    struct client *c = client_new();
    struct err e = {0};
    json_t *o = NULL;
    int rc = client_flags(c, true, &argc, argv, &e);
    if (rc >= 0) rc = client_connect(c, &e);
    if (rc >= 0) rc = asked(c, MSG_VIEW_REPORT, 0, &o, &e);
    if (rc >= 0) show(c, o, report_show);
    json_decref(o);
    rc = client_code(rc, &e);
    client_free(&c);
    return rc;
}

int cli_events(int argc, char **argv)
{
    struct client *c = client_new();
    struct err e = {0};
    int rc = client_flags(c, true, &argc, argv, &e);
    bool more = true;
    if (rc >= 0) rc = client_connect(c, &e);
    for (uint64_t after = 0; rc >= 0 && more;) {
        json_t *list = NULL, *o;
        size_t i;
        rc = asked(c, MSG_VIEW_EVENTS, after, &list, &e);
        more = json_array_size(list) > 0;
        json_array_foreach(list, i, o)
        {
            show(c, o, event_show);
            after = (uint64_t)client_number(o, "number");
        }
        json_decref(list);
    }
    rc = client_code(rc, &e);
    client_free(&c);
    return rc;
}
