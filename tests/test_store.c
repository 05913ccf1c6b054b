// daemon/store: what was said is there after any end, in order, once; damaged and foreign files are sentences.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/store.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/store-test-XXXXXX", place[64];

static struct store *opened(void)
{
    struct err e = {0};
    struct store *s = NULL;
    if (store_open(&s, place, &e) < 0) fail_msg("%s", e.text);
    return s;
}

static uint64_t added(struct store *s, const char *key)
{
    struct err e = {0};
    uint64_t id = 0;
    struct store_job j = {.key = key, .spec = "{\"seed\":1}", .state = "queued", .priority = 7};
    if (store_add(s, &j, &id, &e) < 0) fail_msg("%s", e.text);
    return id;
}

static void committed(struct store *s, uint64_t job, int64_t k)
{
    struct err e = {0};
    char tail[40];
    memset(tail, (int)k, sizeof tail);
    struct store_segment g = {.job = job,
                              .number = k,
                              .first = k == 0,
                              .layout = "one",
                              .tail = tail,
                              .n_tail = sizeof tail,
                              .denoise_ms = k,
                              .drift = 0.5};
    if (store_commit(s, &g, &e) < 0) fail_msg("%s", e.text);
    if (store_film(s, job, k + 1, (k + 1) * 10, (k + 1) * 1000, &e) < 0) fail_msg("%s", e.text);
}

static struct store_job got(struct store *s, uint64_t id)
{
    struct err e = {0};
    struct store_job j;
    int rc = store_get(s, id, &j, &e);
    if (rc != 1) fail_msg("job %llu: %d %s", (unsigned long long)id, rc, e.text);
    return j;
}

static void what_a_killed_process_has_said_is_there(void **state)
{
    (void)state;
    int pipe_of[2];
    assert_int_equal(pipe(pipe_of), 0);
    pid_t pid = fork();
    if (pid == 0) { // says what is done, then goes on until it is killed
        struct store *s = opened();
        struct err e = {0};
        uint64_t id = added(s, "mine");
        store_plan(s, id, &(struct store_plan){.n_frames = 100000, .n_segments = 10000}, &e);
        for (int64_t k = 0; k < 10000; k++) {
            committed(s, id, k);
            if (write(pipe_of[1], &k, sizeof k) != sizeof k) _exit(1);
        }
        _exit(0);
    }
    int64_t last = -1, k;
    while (last < 20 && read(pipe_of[0], &k, sizeof k) == sizeof k) last = k;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(pipe_of[1]);
    while (read(pipe_of[0], &k, sizeof k) == sizeof k) last = k;
    close(pipe_of[0]);
    struct store *s = opened();
    struct err e = {0};
    struct store_job j;
    assert_int_equal(store_get_key(s, "mine", &j, &e), 1);
    assert_true(j.segments == last + 1 || j.segments == last + 2); // one more may have been on its way
    assert_true(j.film_segments == j.segments || j.film_segments == j.segments - 1);
    assert_int_equal(j.film_frames, j.film_segments * 10);
    assert_int_equal(j.film_bytes, j.film_segments * 1000);
    int64_t n = j.segments;
    struct store_segment g;
    assert_int_equal(store_segment(s, j.id, n - 1, &g, &e), 1);
    assert_int_equal(g.n_tail, 40);
    assert_int_equal(((const char *)g.tail)[39], (char)(n - 1));
    assert_int_equal(store_segment(s, j.id, n - 2, &g, &e), 1); // only the newest tail is kept
    assert_null(g.tail);
    assert_int_equal(store_segment(s, j.id, n, &g, &e), 0);
    store_remove(&s);
    assert_int_not_equal(access(place, F_OK), 0);
}

static void segments_come_in_order_and_once(void **state)
{
    (void)state;
    struct store *s = opened();
    struct err e = {0};
    uint64_t id = added(s, NULL), other = added(s, NULL);
    const struct store_plan plan = {.n_frames = 30, .n_segments = 3};
    assert_int_equal(store_plan(s, id, &plan, &e), 0);
    assert_int_equal(store_plan(s, other, &plan, &e), 0);
    committed(s, id, 0);
    committed(s, other, 0);
    committed(s, id, 1);
    struct store_segment g = {.job = id, .number = 4};
    assert_int_equal(store_commit(s, &g, &e), E_FATAL); // 3 is due
    assert_non_null(strstr(e.text, "3 is due"));
    g.number = 1;
    assert_int_equal(store_commit(s, &g, &e), E_FATAL); // twice
    g = (struct store_segment){.job = 99, .first = true};
    assert_int_equal(store_commit(s, &g, &e), E_FATAL); // of no job
    assert_int_equal(got(s, id).segments, 2);
    assert_int_equal(got(s, other).segments, 1);
    assert_int_equal(store_delete(s, id, &e), 0);
    assert_int_equal(store_segment(s, id, 0, &g, &e), 0);
    assert_int_equal(got(s, other).segments, 1);
    assert_true(added(s, NULL) > other); // a number is never given twice
    store_remove(&s);
}

// Three spans, the last one first: cuts, counts and each span's tail are there after the store was closed.
static void spans_are_committed_in_any_order(void **state)
{
    (void)state;
    struct store *s = opened();
    struct err e = {0};
    uint64_t id = added(s, NULL);
    const int64_t cuts[] = {40, 90};
    assert_int_equal(store_plan(s, id, &(struct store_plan){120, 6, cuts, 2}, &e), 0);
    static const int order[] = {4, 2, 3, 0, 5}; // spans are 0 1, 2 3, 4 5
    for (int i = 0; i < 5; i++) {
        struct store_segment g = {.job = id,
                                  .number = order[i],
                                  .first = order[i] % 2 == 0,
                                  .tail = order[i] % 2 == 0 ? "tail" : NULL,
                                  .n_tail = order[i] % 2 == 0 ? 4 : 0,
                                  .layout = i < 3 ? "one" : "two"};
        if (store_commit(s, &g, &e) < 0) fail_msg("%s", e.text);
        assert_int_equal(got(s, id).mixed, i >= 3);
    }
    store_close(&s);
    s = opened();
    struct store_job j = got(s, id);
    assert_int_equal(j.segments, 5);
    assert_int_equal(j.n_cuts, 2);
    assert_string_equal(j.layout, "one");
    int64_t *cut = NULL;
    assert_int_equal(store_cuts(s, &j, &cut, &e), 0);
    assert_memory_equal(cut, cuts, sizeof cuts);
    free(cut);
    struct store_segment g;
    int64_t seen = 0;
    for (int64_t k = 0; store_segment(s, id, k, &g, &e) == 1; k = g.number + 1) {
        seen = seen * 10 + g.number;
        assert_int_equal(g.n_tail, g.number == 0 ? 4 : 0); // of the others the span goes no further, or went on
    }
    assert_int_equal(seen, 2345);
    store_remove(&s);
}

static void a_batch_is_added_whole_or_not_at_all(void **state)
{
    (void)state;
    struct store *s = opened();
    struct err e = {0};
    uint64_t id[3], before = added(s, "b/2");
    struct store_job j[3], row;
    static const char *const keys[] = {"b/1", "b/2", "b/3"};
    for (int i = 0; i < 3; i++) j[i] = (struct store_job){.key = keys[i], .spec = "{}", .state = "queued"};
    assert_int_equal(store_add_batch(s, j, 3, id, &e), E_FATAL); // the second one's key is taken
    assert_int_equal(store_get_key(s, "b/1", &row, &e), 0);
    j[1].key = "b/two";
    assert_int_equal(store_add_batch(s, j, 3, id, &e), 0);
    uint64_t at = 0;
    int n = 0;
    for (; store_next_of_batch(s, id[0], at, &row, &e) == 1; at = row.id, n++) assert_int_equal(row.batch, id[0]);
    assert_int_equal(n, 3);
    assert_int_equal(got(s, before).batch, 0);
    assert_int_equal(store_next_of_batch(s, 0, 0, &row, &e), 0);
    store_remove(&s);
}

static void jobs_move_and_their_events_stay_bounded(void **state)
{
    (void)state;
    struct store *s = opened();
    struct err e = {0}, why = {0};
    uint64_t id = added(s, "k");
    struct store_job twice = {.key = "k", .spec = "{}", .state = "queued"}, j;
    assert_int_equal(store_add(s, &twice, &id, &e), E_FATAL); // one job a key
    err_set(&why, E_INPUT, "the picture is a poem");
    assert_int_equal(store_move(s, id, "running", NULL, &e), 0);
    assert_int_equal(got(s, id).ended_s, 0);
    assert_int_equal(store_move(s, id, "failed", &why, &e), 0);
    j = got(s, id);
    assert_string_equal(j.state, "failed");
    assert_string_equal(j.error, "the picture is a poem");
    assert_int_equal(j.code, E_INPUT);
    assert_int_equal(j.priority, 7);
    assert_true(j.created_s > 1000000000 && j.ended_s >= j.created_s);
    for (int i = 0; i < STORE_EVENTS_MAX + 5; i++) assert_int_equal(store_event(s, id, "x", &e), 0);
    int64_t number = 0, at_s, n = 0;
    const char *text;
    while (store_event_next(s, id, &number, &at_s, &text, &e) == 1) n++;
    assert_int_equal(n, STORE_EVENTS_MAX);
    assert_int_equal(number, STORE_EVENTS_MAX + 7);
    added(s, NULL);
    uint64_t at = 0;
    for (n = 0; store_next(s, at, &j, &e) == 1; at = j.id) n++;
    assert_int_equal(n, 2);
    store_close(&s);
    s = opened();
    assert_false(store_is_new(s));
    assert_string_equal(got(s, id).error, "the picture is a poem");
    store_remove(&s);
}

static void a_second_process_is_refused(void **state)
{
    (void)state;
    struct store *s = opened(), *second = NULL;
    struct err e = {0};
    assert_true(store_is_new(s));
    assert_int_equal(store_open(&second, place, &e), E_BUSY);
    assert_non_null(strstr(e.text, "another process"));
    added(s, NULL); // and the first does not mind
    store_remove(&s);
}

static void shell(const char *format, const char *path)
{
    char line[512];
    snprintf(line, sizeof line, format, path);
    assert_int_equal(system(line), 0);
}

static void other_files_are_sentences(void **state)
{
    (void)state;
    struct store *s = opened();
    struct err e = {0};
    added(s, NULL);
    store_close(&s);
    char path[128];
    snprintf(path, sizeof path, "%s/store.db", place);
    shell("sqlite3 %s 'PRAGMA user_version = 9'", path);
    assert_int_equal(store_open(&s, place, &e), E_INPUT);
    assert_non_null(strstr(e.text, "format 9"));
    shell("sqlite3 %s \"PRAGMA user_version = 1\"", path);
    assert_int_equal(store_open(&s, place, &e), E_INPUT);
    assert_non_null(strstr(e.text, "use the earlier one"));
    shell("sqlite3 %s \"PRAGMA user_version = 4; UPDATE jobs SET segments = 5\"", path);
    s = opened();
    struct store_job j;
    assert_int_equal(store_get(s, 1, &j, &e), E_FATAL);
    assert_non_null(strstr(e.text, "job 1 has 5 of 0 segments"));
    store_close(&s);
    shell("rm -f %s-wal", path);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 9000; i++) fputc(i * 37 + 11, f);
    fclose(f);
    assert_int_equal(store_open(&s, place, &e), E_FATAL);
    assert_non_null(strstr(e.text, "is damaged"));
    shell("rm -r %s", place);
    assert_int_equal(store_open(&s, "/proc/nowhere", &e), E_INPUT);
    assert_non_null(strstr(e.text, "/proc/nowhere"));
}

// What segments took is summed up, a second rank counts twice; a store of the format before is taken over as it is.
static void a_report_is_kept_and_older_stores_are_taken(void **state)
{
    (void)state;
    struct store *s = opened();
    struct err e = {0};
    struct store_report r;
    uint64_t id = added(s, NULL), older = added(s, NULL);
    const double seams[] = {-1, 1.5, 3.5};
    for (int k = 0; k < 3; k++) {
        struct store_segment g = {.job = id,
                                  .number = k,
                                  .first = k == 0,
                                  .layout = "one",
                                  .tail = "tail",
                                  .n_tail = 4,
                                  .last = "last",
                                  .n_last = 4,
                                  .condition_ms = 1,
                                  .denoise_ms = 10,
                                  .decode_ms = 100,
                                  .tail_ms = 1000,
                                  .drift = k,
                                  .ranks = k == 2 ? 2 : 1,
                                  .seam = seams[k]};
        if (store_commit(s, &g, &e) < 0) fail_msg("%s", e.text);
    }
    committed(s, older, 0);
    assert_int_equal(store_report(s, id, &r, &e), 1);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.condition_ms + r.denoise_ms + r.decode_ms + r.tail_ms, 3 * 1111);
    assert_int_equal(r.device_ms, 4 * 1111);
    assert_true(r.drift_most == 2 && r.drift_mean == 1);
    assert_true(r.n_seams == 2 && r.seam_most == 3.5 && r.seam_mean == 2.5);
    struct store_segment g;
    assert_int_equal(store_segment(s, id, 1, &g, &e), 1); // only the newest picture is kept
    assert_null(g.last);
    assert_int_equal(store_segment(s, id, 2, &g, &e), 1);
    assert_int_equal(g.n_last, 4);
    assert_memory_equal(g.last, "last", 4);
    store_close(&s);
    char path[128];
    snprintf(path, sizeof path, "%s/store.db", place);
    shell("sqlite3 %s 'ALTER TABLE segments DROP COLUMN ranks; ALTER TABLE segments DROP COLUMN seam; "
          "ALTER TABLE segments DROP COLUMN last; PRAGMA user_version = 2'",
          path);
    s = opened();
    assert_int_equal(store_report(s, older, &r, &e), 1);
    assert_true(r.n == 1 && r.device_ms == 0 && r.drift_most == 0.5 && r.n_seams == 0);
    assert_int_equal(store_report(s, id, &r, &e), 1);
    assert_int_equal(r.device_ms, 3 * 1111);
    committed(s, older, 1); // and goes on
    store_close(&s);
    shell("sqlite3 %s 'ALTER TABLE segments DROP COLUMN last; PRAGMA user_version = 3'", path);
    s = opened();
    assert_int_equal(store_report(s, older, &r, &e), 1);
    assert_int_equal(r.n, 2);
    committed(s, older, 2);
    store_remove(&s);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(place, sizeof place, "%s/store", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder); // nothing is left
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_killed_process_has_said_is_there),
        cmocka_unit_test(segments_come_in_order_and_once),
        cmocka_unit_test(spans_are_committed_in_any_order),
        cmocka_unit_test(a_batch_is_added_whole_or_not_at_all),
        cmocka_unit_test(jobs_move_and_their_events_stay_bounded),
        cmocka_unit_test(a_second_process_is_refused),
        cmocka_unit_test(a_report_is_kept_and_older_stores_are_taken),
        cmocka_unit_test(other_files_are_sentences),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
