// The built `longtake` against a worker without a model, when something dies: what is told, what is left, and how it
// goes on.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli.h"

static void a_worker_that_fails_is_told_and_its_film_kept(void **state)
{
    (void)state;
    static const struct {
        const char *trouble, *says;
        int status;
        int least, most; // frames that stay
    } cases[] = {
        {"die:3", "the worker was killed (signal 9)", 75, 41, 53},
        {"exit:2", "the worker ended (status 7); its last words: cannot go on: the roof is leaking", 75, 29, 41},
        {"silent:2", "the worker has been silent for", 75, 29, 41},
        {"stall:1", "the worker has not got on for", 75, 17, 29},
        {"garbage:1", "which do not fit", 75, 17, 29},
        {"short:1", "the worker ended segment 2 after frame 23 of 29", 75, 17, 17},
        {"fail:2", "segment refused: the words are too long", 1, 29, 41},
        {"die:0", "it was at: ", 75, 0, 17},
        {"mute", "the worker did not call within", 75, 0, 0},
        {"load", "the tensor blocks.0 is missing", 3, 0, 0},
        {"wrong:0", "cannot go on: the roof is leaking", 3, 0, 17},
        {"bye", "the weights are for another model", 75, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool stall = strncmp(cases[i].trouble, "stall", 5) == 0, dies = strncmp(cases[i].trouble, "die:3", 5) == 0,
             mute = strcmp(cases[i].trouble, "mute") == 0; // only who is to be given up is given up soon
        const struct ran *r =
            RUN_WITH(cases[i].trouble, GOOD, "-o", "@bad.mp4", "--json", "--hello-ms", mute ? "1000" : "60000",
                     "--stall-ms", stall ? "1000" : "60000", "--attempts", dies ? "2" : "1");
        if (r->status != cases[i].status || !strstr(r->err, cases[i].says))
            fail_msg("%s: status %d, %s", cases[i].trouble, r->status, r->err);
        assert_false(exists(in_folder("bad.mp4")));
        json_t *o = result(r);
        assert_string_equal(json_string_value(json_object_get(o, "status")), "failed");
        assert_non_null(
            strstr(json_string_value(json_object_get(json_object_get(o, "error"), "message")), cases[i].says));
        int64_t frames = 0;
        if (exists(in_folder("bad.mp4.longtake"))) {
            assert_string_equal(json_string_value(json_object_get(o, "partial")),
                                in_folder("bad.mp4.longtake/film.mp4"));
            frames = film_frames(in_folder("bad.mp4.longtake/film.mp4"));
            assert_int_equal(frames, number(o, "frames"));
        }
        if (frames < cases[i].least || frames > cases[i].most)
            fail_msg("%s: %lld frames stay", cases[i].trouble, (long long)frames);
        json_decref(o);
        char line[300];
        snprintf(line, sizeof line, "rm -rf %s", in_folder("bad.mp4.longtake"));
        assert_int_equal(system(line), 0);
    }
}

static void another_group_goes_on_and_the_bytes_are_the_same(void **state)
{
    (void)state;
    static const char *const troubles[] = {"die:0", "die:4", "die:14", "exit:7", "short:3", "garbage:2"};
    succeeded(RUN(GOOD, "-o", "@whole.mp4"));
    uint64_t want = file_sum(in_folder("whole.mp4"));
    for (size_t i = 0; i < sizeof troubles / sizeof *troubles; i++) {
        char trouble[400];
        snprintf(trouble, sizeof trouble, "%s,once:%s", troubles[i], in_folder("once"));
        unlink(in_folder("once"));
        const struct ran *r = RUN_WITH(trouble, GOOD, "-o", "@again.mp4", "--attempts", "2", "--overwrite");
        succeeded(r);
        assert_non_null(strstr(r->err, "group.lost"));
        assert_true(exists(in_folder("once")));
        if (file_sum(in_folder("again.mp4")) != want) fail_msg("%s: other bytes", troubles[i]);
    }
}

static void wait_for(const char *path)
{
    for (int i = 0; i < 5000 && !exists(path); i++) usleep(20000);
    if (!exists(path)) fail_msg("%s does not come", path);
}

static void wait_for_text(const char *path, const char *text)
{
    static char got[TEXT];
    for (int i = 0; i < 5000 && !strstr(file_text(path, got, sizeof got), text); i++) usleep(20000);
    if (!strstr(got, text)) fail_msg("%s never says %s", path, text);
}

// Until the film has so many pictures; it may only stop growing when it has them.
static void wait_for_film(const char *path, int64_t frames)
{
    int64_t n = 0;
    for (int i = 0; i < 1000 && n < frames; i++) {
        usleep(20000);
        if (exists(path)) n = film_frames(path);
    }
    if (n < frames) fail_msg("%s has %lld pictures", path, (long long)n);
}

static pid_t worker_pid(const char *log)
{
    char text[TEXT];
    const char *at = strstr(file_text(log, text, sizeof text), "pid ");
    assert_non_null(at);
    return (pid_t)atoi(at + 4);
}

static void gone(pid_t pid)
{
    for (int i = 0; i < 5000 && kill(pid, 0) == 0; i++) usleep(10000);
    assert_int_not_equal(kill(pid, 0), 0);
}

static void interrupts_end_cleanly_and_kills_leave_what_plays(void **state)
{
    (void)state;
    static const struct {
        int signum, status;
    } cases[] = {{SIGINT, 130}, {SIGTERM, 75}, {SIGKILL, -SIGKILL}};
    static const char *const seeds[] = {"1", "2", "3"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct ran r;
        char trouble[400];
        const char *log = in_folder("interrupt.log"), *partial = in_folder("stop.mp4.longtake/film.mp4");
        unlink(log);
        unlink(partial);                                                  // the last one's
        snprintf(trouble, sizeof trouble, "step:40,stall:6,log:%s", log); // it may not end before the signal comes
        pid_t pid = begin((const char *const[]){GOOD, "-o", "@stop.mp4", "--seed", seeds[i], "--overwrite", NULL},
                          trouble); // another seed: begun anew
        wait_for_film(partial, 29);
        kill(pid, cases[i].signum);
        finish(pid, &r);
        assert_int_equal(r.status, cases[i].status);
        gone(worker_pid(log));
        assert_false(exists(in_folder("stop.mp4")));
        assert_true(film_frames(partial) >= 29);
        if (cases[i].signum != SIGKILL) assert_non_null(strstr(r.err, partial));
    }
    // another command is refused, the same one goes on
    const struct ran *other = RUN(GOOD, "-o", "@stop.mp4", "--seed", "4");
    assert_int_equal(other->status, 2);
    assert_non_null(strstr(other->err, "its seed was another; give the same command to go on, or --overwrite"));
    const struct ran *same = RUN(GOOD, "-o", "@stop.mp4", "--seed", "3");
    succeeded(same);
    assert_non_null(strstr(same->err, "goes on after segment "));
    assert_int_equal(film_frames(in_folder("stop.mp4")), 178);
    assert_false(exists(in_folder("stop.mp4.longtake")));
}

// An interrupted render, interrupted again, is the one that nobody disturbed; what changed is named.
static void the_same_command_goes_on_to_the_same_bytes(void **state)
{
    (void)state;
    static const struct {
        int signum;
        const char *at, *trouble;           // when; a worker that stalls lets nobody come too late
    } cuts[] = {{SIGKILL, NULL, "step:40"}, // as soon as there is a store
                {SIGINT, "segment 1/15 done", "stall:1"},
                {SIGKILL, "segment 3/15 done", "stall:3"},
                {SIGTERM, "segment 9/15 done", "stall:9"},
                {SIGKILL, "segment 14/15 done", "stall:14"},
                {SIGKILL, "segment 15/15", "step:40"}};
    succeeded(RUN(GOOD, "-o", "@undisturbed.mp4", "--seed", "-1", "--json"));
    const struct ran *r = RUN(GOOD, "-o", "@undisturbed.mp4", "--overwrite", "--seed", "5");
    succeeded(r);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        static struct ran ended;
        pid_t pid = begin((const char *const[]){GOOD, "-o", "@disturbed.mp4", "--seed", "5", NULL}, cuts[i].trouble);
        if (cuts[i].at)
            wait_for_text(in_folder("stderr"), cuts[i].at);
        else
            wait_for(in_folder("disturbed.mp4.longtake/store.db"));
        kill(pid, cuts[i].signum);
        finish(pid, &ended);
    }
    const char *const changes[][2] = {{"--crf", "20"}, {"--prompt", "other"}, {"--audio", VOICE2}, {"--threads", "3"}};
    // the last kill may have come too late: after the film was delivered, or even while its folder was being removed
    bool stands = exists(in_folder("disturbed.mp4.longtake/store.db"));
    for (size_t i = 0; stands && i < sizeof changes / sizeof *changes; i++) {
        r = RUN(GOOD, "-o", "@disturbed.mp4", "--seed", "5", changes[i][0], changes[i][1]);
        assert_int_equal(r->status, 2);
        char want[64];
        snprintf(want, sizeof want, "its %s was another", changes[i][0] + 2);
        if (!strstr(r->err, want)) fail_msg("%s", r->err);
    }
    if (stands) succeeded(RUN(GOOD, "-o", "@disturbed.mp4", "--seed", "-1")); // chance is content with what it was
    assert_true(file_sum(in_folder("disturbed.mp4")) == file_sum(in_folder("undisturbed.mp4")));
    r = RUN(GOOD, "-o", "@disturbed.mp4", "--seed", "5"); // and now it is a film as any other
    assert_int_equal(r->status, 2);
    assert_false(exists(in_folder("disturbed.mp4.longtake")));
}

// Neither the person who stops it nor a sleeping machine makes a worker silent.
static void a_pause_of_the_coordinator_is_no_silence(void **state)
{
    (void)state;
    static struct ran r;
    char trouble[400];
    const char *gate = in_folder("gate");
    snprintf(trouble, sizeof trouble, "gate:%s", gate);
    file_write(gate, "");
    pid_t pid = begin((const char *const[]){GOOD, "-o", "@pause.mp4", NULL}, trouble);
    wait_for_text(in_folder("stderr"), "segment 2/15 done");
    kill(pid, SIGSTOP);
    unlink(gate);
    sleep(4);
    kill(pid, SIGCONT);
    finish(pid, &r);
    succeeded(&r);
    assert_int_equal(film_frames(in_folder("pause.mp4")), 178);
}

static void two_renders_of_one_name_are_one_too_many(void **state)
{
    (void)state;
    static struct ran first;
    char trouble[400];
    const char *gate = in_folder("gate");
    snprintf(trouble, sizeof trouble, "gate:%s", gate);
    file_write(gate, "");
    pid_t pid = begin((const char *const[]){GOOD, "-o", "@shared.mp4", NULL}, trouble);
    wait_for(in_folder("shared.mp4.longtake/worker.log"));
    const struct ran *r = RUN(GOOD, "-o", "@shared.mp4");
    assert_int_equal(r->status, 2);
    assert_non_null(strstr(r->err, "another render is writing it"));
    unlink(gate);
    finish(pid, &first);
    assert_int_equal(first.status, 0);
    assert_int_equal(film_frames(in_folder("shared.mp4")), 178);
}

static int set_up(void **state)
{
    (void)state;
    return cli_set_up("test_cli_trouble");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_fails_is_told_and_its_film_kept),
        cmocka_unit_test(another_group_goes_on_and_the_bytes_are_the_same),
        cmocka_unit_test(interrupts_end_cleanly_and_kills_leave_what_plays),
        cmocka_unit_test(the_same_command_goes_on_to_the_same_bytes),
        cmocka_unit_test(a_pause_of_the_coordinator_is_no_silence),
        cmocka_unit_test(two_renders_of_one_name_are_one_too_many),
        cmocka_unit_test(nothing_is_left_in_tmp),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
