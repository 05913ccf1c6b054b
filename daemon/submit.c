// Messages wait in a queue; two of them are looked at at a time, because films that render need the same threads.
//
// What was looked at once and found good is not looked at again (the same voice for a hundred films, a key that is
// tried twice): the keys that speak of pictures and those that speak of voices, hashed, are kept in a small table.
// Media lie in the store by content, so the same words mean the same bytes.
#include "daemon/submit.h"

#include "daemon/job.h"
#include "proto/base/hash.h"
#include "proto/base/log.h"

#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 2, KNOWN = 1024, KEY_SIZE = 160 };
enum { PICTURE, VOICE, MEDIA };

struct item {
    json_t *tree;
    struct spec spec;
    struct err why;        // code 0: it is good
    uint64_t media[MEDIA]; // its keys that speak of them, as a hash
    bool known[MEDIA];
};

struct ask {
    struct ask *next;
    struct submit *s;
    uint64_t ticket;
    char key[128];
    int priority;
    bool batch, under_way, looked;
    struct item *item;
    int n, n_looked[MEDIA];
};

struct submit {
    struct submit_options o;
    struct ask *first;
    int n_under_way;
    uint64_t known[KNOWN];
    int n_known;
};

void submit_new(struct submit **out, const struct submit_options *o)
{
    struct submit *s = calloc(1, sizeof *s);
    BUG_IF(!s, "no memory for what is submitted");
    s->o = *o;
    *out = s;
}

static void ask_free(struct ask *a)
{
    for (int i = 0; i < a->n; i++) {
        json_decref(a->item[i].tree);
        spec_free(&a->item[i].spec);
    }
    free(a->item);
    free(a);
}

void submit_free(struct submit **ps)
{
    struct submit *s = *ps;
    if (!s) return;
    while (s->first) {
        struct ask *a = s->first;
        s->first = a->next;
        ask_free(a);
    }
    free(s);
    *ps = NULL;
}

// ---- keys that were used before

static bool by_chance(const json_t *tree)
{
    const json_t *seed = json_object_get(tree, "seed");
    return json_is_integer(seed) && json_integer_value(seed) < 0;
}

static void item_key(const struct ask *a, int i, char key[KEY_SIZE])
{
    if (a->batch)
        snprintf(key, KEY_SIZE, "%s/%d", a->key, i + 1);
    else
        snprintf(key, KEY_SIZE, "%s", a->key);
}

// 1: there is a job of this key, *id, and it is this very job. A seed by chance is the one that chance gave then.
static int known_job(struct submit *s, const char *key, const json_t *tree, uint64_t *id, struct err *e)
{
    struct store_job row;
    json_t *was = NULL, *now = json_copy((json_t *)tree);
    int rc = store_get_key(s->o.store, key, &row, e);
    if (rc == 1) rc = json_parse(&was, "the store", row.spec, strlen(row.spec), e) < 0 ? E_FATAL : 1;
    if (rc == 1) {
        *id = row.id;
        if (by_chance(now)) json_object_set(now, "seed", json_object_get(was, "seed"));
        json_object_del(now, "relax-layout"); // may have been asked for since
        json_object_del(was, "relax-layout");
        if (!json_equal(now, was))
            rc = err_set(e, E_INPUT, "the key '%s' was used for another job, %llu; take a new key", key,
                         (unsigned long long)row.id);
    }
    json_decref(was);
    json_decref(now);
    return rc;
}

static int known_ask(struct submit *s, const struct ask *a, uint64_t *id, struct err *e)
{
    char key[KEY_SIZE];
    uint64_t one = 0;
    int rc = 0;
    for (int i = 0; a->key[0] && i < a->n; i++) {
        item_key(a, i, key);
        rc = known_job(s, key, a->item[i].tree, &one, e);
        if (rc <= 0) return rc;
        if (i == 0) *id = one;
    }
    return rc;
}

// ---- taking

static int items_of(struct ask *a, json_t *tree, struct err *e)
{
    json_t *list = json_object_get(tree, "items");
    if (!json_is_object(tree)) return err_set(e, E_INPUT, "the job is no object of keys");
    a->batch = list != NULL;
    a->n = a->batch ? (int)json_array_size(list) : 1;
    if (a->batch && (!json_is_array(list) || a->n < 1 || a->n > SUBMIT_ITEMS_MAX))
        return err_set(e, E_INPUT, "items: a batch has 1 to %d of them, in a list", SUBMIT_ITEMS_MAX);
    a->item = calloc((size_t)a->n, sizeof *a->item);
    BUG_IF(!a->item, "no memory for %d items", a->n);
    for (int i = 0; i < a->n; i++) {
        json_t *own = a->batch ? json_array_get(list, (size_t)i) : NULL;
        if (a->batch && !json_is_object(own))
            return err_set(e, E_INPUT, "items: number %d is no object of keys", i + 1);
        a->item[i].tree = json_copy(tree);
        json_object_del(a->item[i].tree, "items");
        if (own) json_object_update(a->item[i].tree, own);
    }
    return 0;
}

// Two items that have the same here are refused, or not, for the same reason.
static uint64_t media_of(const struct item *it, int kind)
{
    static const char *const keys[MEDIA][11] = {
        [PICTURE] = {"image", "video", "mask1", "mask2", "box1", "box2", "size", "face-scale", "cond_video",
                     "cond_image"},
        [VOICE] = {"audio", "audio2", "audio-type", "audio-track", "max-frame-num", "cond_audio"}};
    static const char *const both[] = {"parity", "mode", "on-video-end", NULL};
    struct hash h;
    uint8_t bytes[HASH_BYTES];
    uint64_t v;
    hash_init(&h);
    hash_update(&h, &kind, sizeof kind);
    hash_update(&h, &it->spec.r.n_speakers, sizeof it->spec.r.n_speakers);
    for (int part = 0; part < 2; part++)
        for (const char *const *key = part ? both : keys[kind]; *key; key++) {
            char *text = json_dumps(json_object_get(it->tree, *key), JSON_ENCODE_ANY | JSON_SORT_KEYS);
            hash_update(&h, text ? text : "", text ? strlen(text) + 1 : 1);
            free(text);
        }
    hash_final(&h, bytes);
    memcpy(&v, bytes, sizeof v);
    return v;
}

static bool knows(const struct submit *s, uint64_t media)
{
    bool known = false;
    for (int i = 0; i < s->n_known && i < KNOWN; i++) known |= s->known[i] == media;
    return known;
}

static void item_resolve(struct submit *s, struct item *it)
{
    json_t *copy = json_deep_copy(it->tree);
    int rc = s->o.spec_of(s->o.ctx, &it->spec, copy, &it->why);
    json_decref(copy);
    it->why.code = rc < 0 ? rc : 0;
    if (rc < 0) return;
    if (by_chance(it->tree)) json_object_set_new(it->tree, "seed", json_integer(it->spec.r.seed));
    for (int kind = 0; kind < MEDIA; kind++) {
        it->media[kind] = media_of(it, kind);
        it->known[kind] = knows(s, it->media[kind]);
    }
}

int submit_take(struct submit *s, uint64_t ticket, const char *key, int priority, const char *text, size_t n,
                uint64_t *id, struct err *e)
{
    json_t *tree = NULL;
    struct ask *a = calloc(1, sizeof *a);
    BUG_IF(!a, "no memory for what is submitted");
    *a = (struct ask){.s = s, .ticket = ticket, .priority = priority};
    snprintf(a->key, sizeof a->key, "%s", key);
    int rc = json_parse(&tree, "the job", text, n, e);
    if (rc >= 0) rc = items_of(a, tree, e);
    json_decref(tree);
    if (rc >= 0) rc = known_ask(s, a, id, e);
    if (rc != 0) { // refused, or there already
        ask_free(a);
        return rc < 0 ? rc : 0;
    }
    for (int i = 0; i < a->n; i++) item_resolve(s, &a->item[i]);
    struct ask **end = &s->first;
    while (*end) end = &(*end)->next;
    *end = a;
    return 1;
}

// ---- looking

static void look(void *ctx)
{
    struct ask *a = ctx;
    struct reel_options o = {.self = a->s->o.self, .folder = a->s->o.folder};
    for (int i = 0; i < a->n; i++) {
        struct item *it = &a->item[i];
        bool seen[MEDIA]; // before, or of an item before it in the batch that is good
        for (int kind = 0; kind < MEDIA; kind++) {
            seen[kind] = it->known[kind];
            for (int k = 0; k < i; k++)
                seen[kind] |= a->item[k].media[kind] == it->media[kind] && a->item[k].why.code == 0;
        }
        if (it->why.code == 0)
            for (int kind = 0; kind < MEDIA; kind++) a->n_looked[kind] += !seen[kind];
        enum reel_probed what = (seen[PICTURE] ? 0 : REEL_PICTURE) | (seen[VOICE] ? 0 : REEL_VOICE);
        if (it->why.code == 0 && what)
            it->why.code = reel_probe(&it->spec, a->s->o.model, &o, what, &it->why) < 0 ? it->why.code : 0;
    }
}

static void looked(void *ctx)
{
    struct ask *a = ctx;
    struct submit *s = a->s;
    a->looked = true;
    s->n_under_way--;
    for (int i = 0; i < a->n; i++)
        for (int kind = 0; kind < MEDIA && a->item[i].why.code == 0; kind++)
            if (!knows(s, a->item[i].media[kind])) s->known[s->n_known++ % KNOWN] = a->item[i].media[kind];
    log_info("submit.looked", "items=%d pictures=%d voices=%d", a->n, a->n_looked[PICTURE], a->n_looked[VOICE]);
}

// ---- adding

static int add(struct submit *s, struct ask *a, uint64_t *id, struct err *e)
{
    struct store_job *row = calloc((size_t)a->n, sizeof *row);
    uint64_t *ids = calloc((size_t)a->n, sizeof *ids);
    char(*keys)[KEY_SIZE] = calloc((size_t)a->n, sizeof *keys);
    BUG_IF(!row || !ids || !keys, "no memory for %d jobs", a->n);
    for (int i = 0; i < a->n; i++) {
        item_key(a, i, keys[i]);
        row[i] = (struct store_job){.key = a->key[0] ? keys[i] : NULL,
                                    .spec = json_dumps(a->item[i].tree, JSON_COMPACT | JSON_SORT_KEYS),
                                    .state = job_state_name(JOB_QUEUED),
                                    .priority = a->priority};
    }
    int rc = a->batch ? store_add_batch(s->o.store, row, a->n, ids, e) : store_add(s->o.store, row, ids, e);
    for (int i = 0; i < a->n && rc >= 0; i++)
        if (a->item[i].why.code < 0)
            rc = store_move(s->o.store, ids[i], job_state_name(JOB_FAILED), &a->item[i].why, e);
        else
            s->o.added(s->o.ctx, ids[i], a->priority);
    *id = ids[0];
    for (int i = 0; i < a->n; i++) free((char *)row[i].spec);
    free(keys);
    free(ids);
    free(row);
    return rc;
}

static void conclude(struct submit *s, struct ask *a)
{
    struct err e = {0};
    uint64_t id = 0;
    int n_bad = 0, rc;
    for (int i = 0; i < a->n; i++) n_bad += a->item[i].why.code < 0;
    if (n_bad == a->n) { // nothing of it can be rendered
        s->o.done(s->o.ctx, a->ticket, 0, &a->item[0].why);
        return;
    }
    rc = known_ask(s, a, &id, &e); // the same key may have come twice meanwhile
    if (rc == 0) rc = add(s, a, &id, &e);
    s->o.done(s->o.ctx, a->ticket, id, rc < 0 ? &e : NULL);
}

static bool wants_look(const struct ask *a)
{
    bool wants = false;
    for (int i = 0; i < a->n; i++)
        wants |= a->item[i].why.code == 0 && !(a->item[i].known[PICTURE] && a->item[i].known[VOICE]);
    return wants;
}

void submit_turn(struct submit *s)
{
    for (struct ask **at = &s->first; *at;) {
        struct ask *a = *at;
        if (!a->under_way && !a->looked) {
            if (!wants_look(a))
                a->looked = true;
            else if (s->n_under_way < AT_ONCE) {
                a->under_way = true;
                s->n_under_way++;
                loop_work(s->o.loop, look, looked, a);
            }
        }
        if (!a->looked) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        conclude(s, a);
        ask_free(a);
    }
}
