// The wire codec: struct msg to Protocol Buffers and back.
//
// The generated types never leave this file. Decoding is where hostile bytes end: strings are cut to their fields only
// if they fit, numbers must lie in the range that the rest of the program relies on, and a bulk part must have the size
// that the numbers promise.
#include "proto/msg.h"

#include "proto/longtake.pb-c.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const msg_names[] = {"NONE",   "HELLO",  "BEAT", "BYE",    "OPEN",    "BLOB",   "RUN",    "CREDIT",
                                        "CANCEL", "CLOSE",  "TAIL", "FRAMES", "DONE",    "FAILED", "NOTICE", "SUBMIT",
                                        "PUT",    "STATUS", "LIST", "WATCH",  "CONTROL", "FETCH",  "ANSWER"};

const char *msg_name(enum msg_kind k) { return (size_t)k < sizeof msg_names / sizeof *msg_names ? msg_names[k] : "?"; }

// ---- encode

static void encode_open(const struct msg_open *m, Longtake__Open *o)
{
    const struct spec_render *s = &m->spec;
    o->h = (uint32_t)s->h;
    o->w = (uint32_t)s->w;
    o->size = (char *)s->size;
    o->frame_num = (uint32_t)s->frame_num;
    o->motion_frame = (uint32_t)s->motion_frame;
    o->n_frames = (uint64_t)s->n_frames;
    o->n_speakers = (uint32_t)s->n_speakers;
    o->steps = (uint32_t)s->steps;
    o->shift = s->shift;
    o->text_scale = s->text_scale;
    o->audio_scale = s->audio_scale;
    o->color_strength = s->color_strength;
    o->seed = s->seed;
    o->apg = s->apg;
    o->apg_momentum = s->apg_momentum;
    o->apg_norm_threshold = s->apg_norm_threshold;
    o->teacache = s->teacache;
    o->teacache_thresh = s->teacache_thresh;
    o->tail = (uint32_t)s->tail;
    o->parity = (uint32_t)s->parity;
    o->prompt = (char *)s->prompt;
    o->negative = (char *)s->negative;
    o->n_samples = (uint64_t *)m->n_samples;
    o->n_n_samples = (size_t)s->n_speakers;
    o->teacache_poly = (double *)s->teacache_poly;
    o->n_teacache_poly = MODEL_POLY;
    o->voice_hash = (ProtobufCBinaryData){.len = sizeof m->voice_hash, .data = (uint8_t *)m->voice_hash};
    o->mode = (uint32_t)s->mode;
    o->n_reach = (uint64_t)s->n_reach;
}

// Storage for whichever body a message has, so that one function can fill and pack.
struct bodies {
    Longtake__Hello hello;
    Longtake__Beat beat;
    Longtake__Bye bye;
    Longtake__Open open;
    Longtake__Blob blob;
    Longtake__Run run;
    Longtake__Credit credit;
    Longtake__Cancel cancel;
    Longtake__Close close;
    Longtake__Tail tail;
    Longtake__Frames frames;
    Longtake__Done done;
    Longtake__Failed failed;
    Longtake__Notice notice;
    Longtake__Submit submit;
    Longtake__Put put;
    Longtake__Status status;
    Longtake__List list;
    Longtake__Watch watch;
    Longtake__Control control;
    Longtake__Fetch fetch;
    Longtake__Answer answer;
};

static void encode_run(const struct msg_run *m, Longtake__Run *r)
{
    r->segment = (uint64_t)m->segment;
    r->start = (uint64_t)m->start;
    r->first = m->first;
    r->last = m->last;
    r->keep_from = (uint64_t)m->keep_from;
    r->keep_to = (uint64_t)m->keep_to;
    r->ends = m->ends;
}

static void encode_done(const struct msg_done *m, Longtake__Done *d)
{
    d->segment = (uint64_t)m->segment;
    d->condition_ms = (uint64_t)m->condition_ms;
    d->denoise_ms = (uint64_t)m->denoise_ms;
    d->decode_ms = (uint64_t)m->decode_ms;
    d->tail_ms = (uint64_t)m->tail_ms;
    d->drift = m->drift;
}

#define BODY(field, NAME, Type)                                                                                        \
    b->field = (Longtake__##Type)LONGTAKE__##NAME##__INIT;                                                             \
    w->field = &b->field;                                                                                              \
    w->body_case = LONGTAKE__MESSAGE__BODY_##NAME

static void encode_client(const struct msg *m, Longtake__Message *w, struct bodies *b)
{
    switch (m->kind) {
    case MSG_SUBMIT:
        BODY(submit, SUBMIT, Submit);
        b->submit.key = (char *)m->submit.key;
        b->submit.priority = m->submit.priority;
        break;
    case MSG_PUT:
        BODY(put, PUT, Put);
        b->put.hash = (ProtobufCBinaryData){.len = sizeof m->put.hash, .data = (uint8_t *)m->put.hash};
        b->put.offset = m->put.offset;
        b->put.total = m->put.total;
        break;
    case MSG_STATUS:
        BODY(status, STATUS, Status);
        b->status.view = (uint32_t)m->status.view;
        b->status.after = m->status.after;
        break;
    case MSG_LIST:
        BODY(list, LIST, List);
        b->list.batch = m->list_batch;
        break;
    case MSG_WATCH:
        BODY(watch, WATCH, Watch);
        break;
    case MSG_CONTROL:
        BODY(control, CONTROL, Control);
        b->control.verb = (char *)m->control;
        break;
    case MSG_FETCH:
        BODY(fetch, FETCH, Fetch);
        b->fetch.offset = m->fetch_offset;
        break;
    case MSG_ANSWER:
        BODY(answer, ANSWER, Answer);
        b->answer.code = m->answer.code;
        b->answer.text = (char *)m->answer.text;
        b->answer.offset = m->answer.offset;
        b->answer.total = m->answer.total;
        break;
    default:
        BUG("a message of kind %d", (int)m->kind);
    }
}

static void encode_body(const struct msg *m, Longtake__Message *w, struct bodies *b)
{
    switch (m->kind) {
    case MSG_HELLO:
        BODY(hello, HELLO, Hello);
        b->hello.version = (char *)m->hello.version;
        b->hello.device = (char *)m->hello.device;
        b->hello.layout = (char *)m->hello.layout;
        b->hello.ranks = m->hello.ranks;
        b->hello.pid = m->hello.pid;
        b->hello.host = (char *)m->hello.host;
        b->hello.model = (ProtobufCBinaryData){.len = sizeof m->hello.model, .data = (uint8_t *)m->hello.model};
        b->hello.set = (ProtobufCBinaryData){.len = sizeof m->hello.set, .data = (uint8_t *)m->hello.set};
        b->hello.build = (char *)m->hello.build;
        if (m->hello.has_weights)
            b->hello.weights = (ProtobufCBinaryData){sizeof m->hello.weights, (uint8_t *)m->hello.weights};
        break;
    case MSG_BEAT:
        BODY(beat, BEAT, Beat);
        b->beat.progress = m->beat.progress;
        b->beat.stage = (char *)m->beat.stage;
        b->beat.segment = m->beat.segment;
        b->beat.step = m->beat.step;
        b->beat.n_steps = m->beat.n_steps;
        break;
    case MSG_BYE:
        BODY(bye, BYE, Bye);
        b->bye.reason = (char *)m->bye;
        break;
    case MSG_OPEN:
        BODY(open, OPEN, Open);
        encode_open(&m->open, &b->open);
        break;
    case MSG_BLOB:
        BODY(blob, BLOB, Blob);
        b->blob.speaker = m->blob.speaker;
        b->blob.offset = m->blob.offset;
        break;
    case MSG_RUN:
        BODY(run, RUN, Run);
        encode_run(&m->run, &b->run);
        break;
    case MSG_CREDIT:
        BODY(credit, CREDIT, Credit);
        b->credit.frames = m->credit;
        break;
    case MSG_CANCEL:
        BODY(cancel, CANCEL, Cancel);
        break;
    case MSG_CLOSE:
        BODY(close, CLOSE, Close);
        break;
    case MSG_TAIL:
        BODY(tail, TAIL, Tail);
        b->tail.segment = (uint64_t)m->tail_segment;
        break;
    case MSG_FRAMES:
        BODY(frames, FRAMES, Frames);
        b->frames.segment = (uint64_t)m->frames.segment;
        b->frames.first = (uint64_t)m->frames.first;
        b->frames.n = m->frames.n;
        break;
    case MSG_DONE:
        BODY(done, DONE, Done);
        encode_done(&m->done, &b->done);
        break;
    case MSG_FAILED:
        BODY(failed, FAILED, Failed);
        b->failed.segment = m->failed.segment;
        b->failed.code = m->failed.code;
        b->failed.text = (char *)m->failed.text;
        b->failed.setting = m->failed.setting;
        break;
    case MSG_NOTICE:
        BODY(notice, NOTICE, Notice);
        b->notice.text = (char *)m->notice;
        break;
    case MSG_NONE:
        BUG("a message without a kind");
    default:
        encode_client(m, w, b);
    }
}

void msg_encode(const struct msg *m, void **out, size_t *n)
{
    Longtake__Message w = LONGTAKE__MESSAGE__INIT;
    struct bodies bodies;
    w.protocol = MSG_PROTOCOL;
    w.job = m->job;
    encode_body(m, &w, &bodies);
    *n = longtake__message__get_packed_size(&w);
    *out = malloc(*n ? *n : 1);
    BUG_IF(!*out, "no memory for a message of %zu bytes", *n);
    longtake__message__pack(&w, *out);
}

// ---- decode

static int take_text(char *dst, size_t size, const char *src, const char *field, struct err *e)
{
    size_t n = strlen(src);
    if (n >= size) return err_set(e, E_INPUT, "%s of %zu bytes is longer than %zu", field, n, size - 1);
    memcpy(dst, src, n + 1);
    return 0;
}

static int take_i64(int64_t *dst, uint64_t src, uint64_t max, const char *field, struct err *e)
{
    if (src > max)
        return err_set(e, E_INPUT, "%s is %llu, at most %llu", field, (unsigned long long)src, (unsigned long long)max);
    *dst = (int64_t)src;
    return 0;
}

static int take_int(int *dst, uint64_t src, uint64_t min, uint64_t max, const char *field, struct err *e)
{
    if (src < min || src > max)
        return err_set(e, E_INPUT, "%s is %llu, not in %llu..%llu", field, (unsigned long long)src,
                       (unsigned long long)min, (unsigned long long)max);
    *dst = (int)src;
    return 0;
}

static int take_real(double *dst, double src, const char *field, struct err *e)
{
    if (!isfinite(src) || fabs(src) > 1e9) return err_set(e, E_INPUT, "%s is not a usable number", field);
    *dst = src;
    return 0;
}

static int need_bulk(const struct msg *m, int i, uint64_t n, const char *what, struct err *e)
{
    if (m->n_bulk <= i || m->bulk[i].n != n)
        return err_set(e, E_INPUT, "%s has %zu bytes, not %llu", what, m->n_bulk > i ? m->bulk[i].n : 0,
                       (unsigned long long)n);
    return 0;
}

enum { FRAMES_MAX = 1 << 30, SEGMENTS_MAX = 1 << 30 }; // 497 days of video

static int decode_open_numbers(struct spec_render *s, const Longtake__Open *o, struct err *e)
{
    int tail = 0, parity = 0, mode = 0;
    if (take_int(&s->h, o->h, 8, 1 << 14, "h", e) < 0 || take_int(&s->w, o->w, 8, 1 << 14, "w", e) < 0 ||
        take_int(&s->frame_num, o->frame_num, 5, 1 << 12, "frame_num", e) < 0 ||
        take_int(&s->motion_frame, o->motion_frame, 1, 1 << 12, "motion_frame", e) < 0 ||
        take_i64(&s->n_frames, o->n_frames, FRAMES_MAX, "n_frames", e) < 0 ||
        take_i64(&s->n_reach, o->n_reach, FRAMES_MAX, "n_reach", e) < 0 ||
        take_int(&s->n_speakers, o->n_speakers, 1, SPEC_SPEAKERS, "n_speakers", e) < 0 ||
        take_int(&s->steps, o->steps, 1, 1000, "steps", e) < 0 || take_real(&s->shift, o->shift, "shift", e) < 0 ||
        take_real(&s->text_scale, o->text_scale, "text_scale", e) < 0 ||
        take_real(&s->audio_scale, o->audio_scale, "audio_scale", e) < 0 ||
        take_real(&s->color_strength, o->color_strength, "color_strength", e) < 0 ||
        take_real(&s->apg_momentum, o->apg_momentum, "apg_momentum", e) < 0 ||
        take_real(&s->apg_norm_threshold, o->apg_norm_threshold, "apg_norm_threshold", e) < 0 ||
        take_real(&s->teacache_thresh, o->teacache_thresh, "teacache_thresh", e) < 0 ||
        take_int(&tail, o->tail, 0, SPEC_TAIL_MIRROR, "tail", e) < 0 ||
        take_int(&mode, o->mode, 0, SPEC_CLIP, "mode", e) < 0 ||
        take_int(&parity, o->parity, 0, SPEC_PARITY_PUBLISHED, "parity", e) < 0)
        return E_INPUT;
    if (s->frame_num % 4 != 1 || s->motion_frame % 4 != 1 || s->motion_frame >= s->frame_num || s->n_frames < 1 ||
        s->h % 8 != 0 || s->w % 8 != 0)
        return err_set(e, E_INPUT, "%d frames, %d of motion, %lld in all, %dx%d pixels do not fit together",
                       s->frame_num, s->motion_frame, (long long)s->n_frames, s->w, s->h);
    s->seed = o->seed;
    s->apg = o->apg;
    s->teacache = o->teacache;
    s->tail = (enum spec_tail)tail;
    s->parity = (enum spec_parity)parity;
    s->mode = (enum spec_mode)mode;
    return 0;
}

static int decode_open_lists(struct msg *m, const Longtake__Open *o, struct err *e)
{
    struct spec_render *s = &m->open.spec;
    if (o->n_n_samples != (size_t)s->n_speakers)
        return err_set(e, E_INPUT, "%zu voices for %d speakers", o->n_n_samples, s->n_speakers);
    if (o->n_teacache_poly != MODEL_POLY)
        return err_set(e, E_INPUT, "a polynomial of %zu coefficients, not %d", o->n_teacache_poly, MODEL_POLY);
    for (int p = 0; p < s->n_speakers; p++) {
        if (o->n_samples[p] > (uint64_t)FRAMES_MAX * 640)
            return err_set(e, E_INPUT, "n_samples is %llu", (unsigned long long)o->n_samples[p]);
        m->open.n_samples[p] = o->n_samples[p];
    }
    for (int i = 0; i < MODEL_POLY; i++)
        if (take_real(&s->teacache_poly[i], o->teacache_poly[i], "teacache_poly", e) < 0) return E_INPUT;
    return 0;
}

static int decode_open(struct msg *m, const Longtake__Open *o, struct err *e)
{
    struct spec_render *s = &m->open.spec;
    if (decode_open_numbers(s, o, e) < 0 || take_text(s->size, sizeof s->size, o->size, "size", e) < 0 ||
        take_text(s->prompt, sizeof s->prompt, o->prompt, "prompt", e) < 0 ||
        take_text(s->negative, sizeof s->negative, o->negative, "negative", e) < 0 || decode_open_lists(m, o, e) < 0)
        return E_INPUT;
    if (o->voice_hash.len != sizeof m->open.voice_hash)
        return err_set(e, E_INPUT, "the voice hash has %zu bytes", o->voice_hash.len);
    memcpy(m->open.voice_hash, o->voice_hash.data, sizeof m->open.voice_hash);
    uint64_t pixels = (uint64_t)s->h * (uint64_t)s->w;
    if (need_bulk(m, 0, pixels * 3, "the colour picture", e) < 0) return E_INPUT;
    return need_bulk(m, 1, s->n_speakers > 1 ? pixels * (uint64_t)s->n_speakers : 0, "the masks", e);
}

static int decode_blob(struct msg *m, const Longtake__Blob *b, struct err *e)
{
    if (b->speaker >= SPEC_SPEAKERS) return err_set(e, E_INPUT, "speaker %u", b->speaker);
    if (m->n_bulk < 1 || m->bulk[0].n == 0 || m->bulk[0].n > MSG_BLOB_MAX)
        return err_set(e, E_INPUT, "a piece of voice of %zu bytes, not 1..%d", m->n_bulk ? m->bulk[0].n : 0,
                       MSG_BLOB_MAX);
    if (b->offset > (uint64_t)FRAMES_MAX * 640 * sizeof(float)) return err_set(e, E_INPUT, "voice offset out of range");
    m->blob = (struct msg_blob){.speaker = b->speaker, .offset = b->offset};
    return 0;
}

static int decode_run(struct msg *m, const Longtake__Run *r, struct err *e)
{
    struct msg_run *o = &m->run;
    if (take_i64(&o->segment, r->segment, SEGMENTS_MAX, "segment", e) < 0 ||
        take_i64(&o->start, r->start, FRAMES_MAX, "start", e) < 0 ||
        take_i64(&o->keep_from, r->keep_from, 1 << 12, "keep_from", e) < 0 ||
        take_i64(&o->keep_to, r->keep_to, 1 << 12, "keep_to", e) < 0)
        return E_INPUT;
    if (o->keep_from > o->keep_to) return err_set(e, E_INPUT, "keep range runs backwards");
    if (m->n_bulk < 2) return err_set(e, E_INPUT, "RUN with %d bulk parts, not 2 or 3", m->n_bulk);
    o->first = r->first;
    o->last = r->last;
    o->ends = r->ends;
    if (o->first != (m->bulk[1].n == 0)) return err_set(e, E_INPUT, "RUN with a tail of %zu bytes", m->bulk[1].n);
    if (m->bulk[2].n != 0 && m->bulk[2].n != m->bulk[0].n)
        return err_set(e, E_INPUT, "RUN with a colour reference of %zu bytes", m->bulk[2].n);
    if (!o->first && m->bulk[2].n != 0) return err_set(e, E_INPUT, "RUN with a colour reference amid a span");
    return 0;
}

static int decode_frames(struct msg *m, const Longtake__Frames *f, struct err *e)
{
    if (f->n < 1 || f->n > 1 << 12) return err_set(e, E_INPUT, "%u frames in one message", f->n);
    m->frames.n = f->n;
    if (take_i64(&m->frames.segment, f->segment, SEGMENTS_MAX, "segment", e) < 0 ||
        take_i64(&m->frames.first, f->first, FRAMES_MAX, "first", e) < 0)
        return E_INPUT;
    if (m->n_bulk != 1 || m->bulk[0].n == 0 || m->bulk[0].n % f->n != 0)
        return err_set(e, E_INPUT, "FRAMES of %zu bytes for %u frames", m->n_bulk ? m->bulk[0].n : 0, f->n);
    return 0;
}

static int decode_done(struct msg *m, const Longtake__Done *d, struct err *e)
{
    struct msg_done *o = &m->done;
    const uint64_t year_ms = 366ull * 86400 * 1000;
    o->drift = isfinite(d->drift) ? d->drift : 0;
    if (take_i64(&o->segment, d->segment, SEGMENTS_MAX, "segment", e) < 0 ||
        take_i64(&o->condition_ms, d->condition_ms, year_ms, "condition_ms", e) < 0 ||
        take_i64(&o->denoise_ms, d->denoise_ms, year_ms, "denoise_ms", e) < 0 ||
        take_i64(&o->decode_ms, d->decode_ms, year_ms, "decode_ms", e) < 0)
        return E_INPUT;
    return take_i64(&o->tail_ms, d->tail_ms, year_ms, "tail_ms", e);
}

static int decode_failed(struct msg *m, const Longtake__Failed *f, struct err *e)
{
    if (f->code > E_INPUT || f->code < E_FATAL) return err_set(e, E_INPUT, "failure code %d", f->code);
    m->failed.segment = f->segment;
    m->failed.code = f->code;
    m->failed.setting = f->setting;
    return take_text(m->failed.text, sizeof m->failed.text, f->text, "failure text", e);
}

static int take_mark(uint8_t dst[32], const ProtobufCBinaryData *src, const char *field, struct err *e)
{
    if (src->len != 0 && src->len != 32) return err_set(e, E_INPUT, "%s has %zu bytes, not 32", field, src->len);
    if (src->len) memcpy(dst, src->data, 32);
    return 0;
}

static int decode_hello(struct msg *m, const Longtake__Hello *h, struct err *e)
{
    m->hello.ranks = h->ranks;
    m->hello.pid = h->pid;
    if (take_text(m->hello.host, sizeof m->hello.host, h->host, "host", e) < 0 ||
        take_mark(m->hello.model, &h->model, "model", e) < 0 || take_mark(m->hello.set, &h->set, "set", e) < 0)
        return E_INPUT;
    if (h->weights.len != 0 && h->weights.len != sizeof m->hello.weights)
        return err_set(e, E_INPUT, "a fingerprint of %zu bytes", h->weights.len);
    m->hello.has_weights = h->weights.len != 0;
    if (m->hello.has_weights) memcpy(m->hello.weights, h->weights.data, sizeof m->hello.weights);
    if (take_text(m->hello.build, sizeof m->hello.build, h->build, "build", e) < 0) return E_INPUT;
    if (take_text(m->hello.version, sizeof m->hello.version, h->version, "version", e) < 0) return E_INPUT;
    if (take_text(m->hello.layout, sizeof m->hello.layout, h->layout, "layout", e) < 0) return E_INPUT;
    return take_text(m->hello.device, sizeof m->hello.device, h->device, "device", e);
}

static int decode_beat(struct msg *m, const Longtake__Beat *b, struct err *e)
{
    m->beat.progress = b->progress;
    m->beat.segment = b->segment;
    m->beat.step = b->step;
    m->beat.n_steps = b->n_steps;
    return take_text(m->beat.stage, sizeof m->beat.stage, b->stage, "stage", e);
}

static int decode_put(struct msg *m, const Longtake__Put *p, struct err *e)
{
    if (p->hash.len != sizeof m->put.hash) return err_set(e, E_INPUT, "a hash of %zu bytes", p->hash.len);
    memcpy(m->put.hash, p->hash.data, sizeof m->put.hash);
    size_t n = m->n_bulk ? m->bulk[0].n : 0;
    if (n > MSG_BLOB_MAX || p->total > INT64_MAX || p->offset > p->total || n > p->total - p->offset)
        return err_set(e, E_INPUT, "%zu bytes at %llu of a file of %llu", n, (unsigned long long)p->offset,
                       (unsigned long long)p->total);
    m->put.offset = p->offset;
    m->put.total = p->total;
    return 0;
}

static int decode_answer(struct msg *m, const Longtake__Answer *a, struct err *e)
{
    if (a->code > 0 || a->code < E_FATAL) return err_set(e, E_INPUT, "an answer of code %d", a->code);
    m->answer.code = a->code;
    m->answer.offset = a->offset;
    m->answer.total = a->total;
    return take_text(m->answer.text, sizeof m->answer.text, a->text, "text", e);
}

static int decode_submit(struct msg *m, const Longtake__Submit *s, struct err *e)
{
    if (m->n_bulk != 1 || m->bulk[0].n == 0 || m->bulk[0].n > MSG_BLOB_MAX)
        return err_set(e, E_INPUT, "a job without its keys");
    if (s->priority < 0 || s->priority > 100) return err_set(e, E_INPUT, "priority %d is not in 0..100", s->priority);
    m->submit.priority = s->priority;
    return take_text(m->submit.key, sizeof m->submit.key, s->key, "key", e);
}

static int decode_client(struct msg *m, const Longtake__Message *w, struct err *e)
{
    switch (w->body_case) {
    case LONGTAKE__MESSAGE__BODY_SUBMIT:
        m->kind = MSG_SUBMIT;
        return decode_submit(m, w->submit, e);
    case LONGTAKE__MESSAGE__BODY_PUT:
        m->kind = MSG_PUT;
        return decode_put(m, w->put, e);
    case LONGTAKE__MESSAGE__BODY_STATUS:
        m->kind = MSG_STATUS;
        m->status.view = (enum msg_view)w->status->view;
        m->status.after = w->status->after;
        return w->status->view > MSG_VIEW_EVENTS || w->status->after > INT64_MAX
                   ? err_set(e, E_INPUT, "a view out of range")
                   : 0;
    case LONGTAKE__MESSAGE__BODY_LIST:
        m->kind = MSG_LIST;
        m->list_batch = w->list->batch;
        return m->list_batch > INT64_MAX ? err_set(e, E_INPUT, "a batch out of range") : 0;
    case LONGTAKE__MESSAGE__BODY_WATCH:
        m->kind = MSG_WATCH;
        return 0;
    case LONGTAKE__MESSAGE__BODY_CONTROL:
        m->kind = MSG_CONTROL;
        return take_text(m->control, sizeof m->control, w->control->verb, "verb", e);
    case LONGTAKE__MESSAGE__BODY_FETCH:
        m->kind = MSG_FETCH;
        m->fetch_offset = w->fetch->offset;
        return m->fetch_offset > INT64_MAX ? err_set(e, E_INPUT, "an offset out of range") : 0;
    case LONGTAKE__MESSAGE__BODY_ANSWER:
        m->kind = MSG_ANSWER;
        return decode_answer(m, w->answer, e);
    default:
        return err_set(e, E_INPUT, "the message has no known body");
    }
}

static int decode_body(struct msg *m, const Longtake__Message *w, struct err *e)
{
    switch (w->body_case) {
    case LONGTAKE__MESSAGE__BODY_HELLO:
        m->kind = MSG_HELLO;
        return decode_hello(m, w->hello, e);
    case LONGTAKE__MESSAGE__BODY_BEAT:
        m->kind = MSG_BEAT;
        return decode_beat(m, w->beat, e);
    case LONGTAKE__MESSAGE__BODY_BYE:
        m->kind = MSG_BYE;
        return take_text(m->bye, sizeof m->bye, w->bye->reason, "reason", e);
    case LONGTAKE__MESSAGE__BODY_OPEN:
        m->kind = MSG_OPEN;
        return decode_open(m, w->open, e);
    case LONGTAKE__MESSAGE__BODY_BLOB:
        m->kind = MSG_BLOB;
        return decode_blob(m, w->blob, e);
    case LONGTAKE__MESSAGE__BODY_RUN:
        m->kind = MSG_RUN;
        return decode_run(m, w->run, e);
    case LONGTAKE__MESSAGE__BODY_CREDIT:
        m->kind = MSG_CREDIT;
        m->credit = w->credit->frames;
        return m->credit > 1 << 20 ? err_set(e, E_INPUT, "credit of %u frames", m->credit) : 0;
    case LONGTAKE__MESSAGE__BODY_CANCEL:
        m->kind = MSG_CANCEL;
        return 0;
    case LONGTAKE__MESSAGE__BODY_CLOSE:
        m->kind = MSG_CLOSE;
        return 0;
    case LONGTAKE__MESSAGE__BODY_TAIL:
        m->kind = MSG_TAIL;
        if (m->n_bulk != 1 || m->bulk[0].n == 0) return err_set(e, E_INPUT, "TAIL without bytes");
        return take_i64(&m->tail_segment, w->tail->segment, SEGMENTS_MAX, "segment", e);
    case LONGTAKE__MESSAGE__BODY_FRAMES:
        m->kind = MSG_FRAMES;
        return decode_frames(m, w->frames, e);
    case LONGTAKE__MESSAGE__BODY_DONE:
        m->kind = MSG_DONE;
        return decode_done(m, w->done, e);
    case LONGTAKE__MESSAGE__BODY_FAILED:
        m->kind = MSG_FAILED;
        return decode_failed(m, w->failed, e);
    case LONGTAKE__MESSAGE__BODY_NOTICE:
        m->kind = MSG_NOTICE;
        return take_text(m->notice, sizeof m->notice, w->notice->text, "text", e);
    default:
        return decode_client(m, w, e);
    }
}

int msg_decode(struct msg *m, const void *bytes, size_t n, const struct msg_bulk *bulk, int n_bulk, struct err *e)
{
    memset(m, 0, sizeof *m);
    if (n_bulk > MSG_BULK_MAX) return err_set(e, E_INPUT, "a message with %d bulk parts", n_bulk);
    for (int i = 0; i < n_bulk; i++) m->bulk[i] = bulk[i];
    m->n_bulk = n_bulk;
    Longtake__Message *w = longtake__message__unpack(NULL, n, bytes);
    if (!w) return err_set(e, E_INPUT, "a message of %zu bytes does not parse", n);
    int rc;
    if (w->protocol != MSG_PROTOCOL)
        rc = err_set(e, E_INPUT, "the other end speaks protocol %u, this one %d: install the same version on both",
                     w->protocol, MSG_PROTOCOL);
    else {
        m->job = w->job;
        rc = decode_body(m, w, e);
    }
    longtake__message__free_unpacked(w, NULL);
    if (rc < 0) err_wrap(e, "%s", msg_name(m->kind));
    return rc;
}
