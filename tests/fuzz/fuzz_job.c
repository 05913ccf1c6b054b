// Job files: JSON when the first byte is even, YAML when it is odd; then the keys of a job, its limits, and the plan of
// its cuts: whatever was accepted, the segments deliver every frame once. With its second bit set, the rest is what
// clients submit: keys of a job, or a batch of them.
#include "daemon/submit.h"
#include "proto/plan_segments.h"
#include "proto/yaml.h"
#include "tests/fuzz/fuzz.h"

enum { FRAMES = 3000, BATCHED = 2 };

static const struct model tiny = {
    .n_sizes = 1, .size = {{"t", 1, {{1.0, 64, 64}}, 7}}, .frame_num = 81, .motion_frame = 9, .steps = 2, .fps = 25};

static void plan(struct spec *s)
{
    int64_t n_voice[] = {FRAMES, FRAMES / 2}, next = 0;
    struct plan_segments p;
    plan_segments_init(&p, &s->r, s->max_frame_num, n_voice, s->n_speakers);
    p.cut = s->cut;
    if (s->n_cuts) p.n_cuts = plan_cuts_tidy(s->cut, s->n_cuts, p.n_frames);
    int64_t n = plan_segments_count(&p);
    for (int64_t k = 0; k < n; k++) {
        struct plan_segment g = plan_segments_at(&p, k);
        BUG_IF(g.start + g.keep_from != next && g.keep_from != g.keep_to,
               "segment %lld delivers from %lld, due is %lld", (long long)k, (long long)(g.start + g.keep_from),
               (long long)next);
        next += g.keep_to - g.keep_from;
    }
    BUG_IF(next != p.n_frames, "%lld of %lld frames", (long long)next, (long long)p.n_frames);
}

static int resolve(void *ctx, struct spec *s, json_t *tree, struct err *e)
{
    (void)ctx;
    spec_init(s);
    int rc = spec_read_tree(s, "job", tree, e);
    return rc < 0 ? rc : spec_resolve(s, &tiny, e);
}

static void job(json_t *tree)
{
    struct spec s;
    struct err e = {0};
    int rc = resolve(NULL, &s, tree, &e);
    if (rc < 0)
        fuzz_refused(rc, &e);
    else
        plan(&s);
    spec_free(&s);
}

// Without a key nothing is looked up, and without a turn nothing is looked at: this is the reading alone.
static void batch(const char *text, size_t n)
{
    struct submit *s = NULL;
    struct err e = {0};
    uint64_t id = 0;
    submit_new(&s, &(struct submit_options){.model = &tiny, .spec_of = resolve});
    int rc = submit_take(s, 1, "", 0, text, n, &id, &e);
    if (rc < 0) fuzz_refused(rc, &e);
    submit_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err e = {0};
    json_t *tree = NULL;
    if (n < 1) return 0;
    if (data[0] & BATCHED) {
        batch((const char *)data + 1, n - 1);
        return 0;
    }
    int rc = data[0] & 1 ? yaml_parse(&tree, "job.yaml", data + 1, n - 1, &e)
                         : json_parse(&tree, "job.json", data + 1, n - 1, &e);
    if (rc < 0)
        fuzz_refused(rc, &e);
    else
        job(tree);
    json_decref(tree);
    return 0;
}
