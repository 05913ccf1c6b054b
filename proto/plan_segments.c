// The timeline of a job.
//
// With S = F - M, segment k of a span that begins at frame a renders [a + kS, a + kS + F). Its first M frames repeat
// the last of the segment before and are dropped, so it keeps [M, F), the first one of a span [0, F), and the last one
// of a span only what the span still needs. Numbers run through all spans, because noise is counted by them.
//
// A film is looked at by time: frame i is t = i/25, and the picture is the last with j / rate <= t + 1/1000, that is
// j = floor((40 i + 1) rate / 1000). Past its end the film stays on its last picture, starts over (j mod n), or turns
// back (0 1 2 3 2 1 0 1 ..: the pictures at the turns are shown once).
//
// Easy to get wrong: the published program indexes pictures by frame number whatever their rate; it stops by the first
// voice and cuts by the last, and cuts by a voice only if one was too short for the last segment; a limit of up to F is
// clip mode.
#include "proto/plan_segments.h"

#include <stdlib.h>

enum { FPS = 25, SPAN_MIN = 13 };

static int64_t at_most(int64_t v, int64_t high) { return v < high ? v : high; }
static int64_t at_least(int64_t v, int64_t low) { return v > low ? v : low; }

// ---- segments

static void plan_published(struct plan_segments *p, const struct spec_render *r, int64_t limit, const int64_t *n_voice,
                           int n_voices)
{
    if (limit <= p->frame_num) {
        p->n_frames = p->n_reach = at_most(limit, p->frame_num);
        return;
    }
    p->n_reach = at_most(limit, n_voice[0]);
    int64_t n = spec_segments(p->n_reach, p->frame_num, p->motion_frame, r->mode);
    int64_t end = p->frame_num + (n - 1) * (p->frame_num - p->motion_frame);
    p->n_frames = at_most(limit, end);
    bool extended = false;
    for (int i = 0; i < n_voices; i++) extended |= end >= n_voice[i];
    if (extended) p->n_frames = at_most(p->n_frames, n_voice[n_voices - 1]);
}

void plan_segments_init(struct plan_segments *p, const struct spec_render *r, int64_t limit, const int64_t *n_voice,
                        int n_voices)
{
    BUG_IF(r->motion_frame < 1 || r->motion_frame >= r->frame_num, "segments of %d frames, %d of them repeated",
           r->frame_num, r->motion_frame);
    *p = (struct plan_segments){.frame_num = r->frame_num, .motion_frame = r->motion_frame};
    if (limit <= 0) limit = INT64_MAX;
    if (r->mode == SPEC_CLIP) limit = at_most(limit, r->frame_num);
    if (r->parity == SPEC_PARITY_PUBLISHED) {
        plan_published(p, r, limit, n_voice, n_voices);
        return;
    }
    int64_t longest = 1;
    for (int i = 0; i < n_voices; i++) longest = at_least(longest, n_voice[i]);
    p->n_frames = p->n_reach = at_most(longest, limit);
}

struct span {
    int64_t from, to; // frames; `to` as far as segments must reach
};

static struct span span_at(const struct plan_segments *p, int i)
{
    return (struct span){.from = i ? p->cut[i - 1] : 0, .to = i < p->n_cuts ? p->cut[i] : p->n_reach};
}

static int64_t span_segments(const struct plan_segments *p, struct span s)
{
    return spec_segments(s.to - s.from, p->frame_num, p->motion_frame, SPEC_STREAMING);
}

int64_t plan_segments_count(const struct plan_segments *p)
{
    int64_t n = 0;
    for (int i = 0; i <= p->n_cuts; i++) n += span_segments(p, span_at(p, i));
    return n;
}

struct plan_segment plan_segments_at(const struct plan_segments *p, int64_t number)
{
    int64_t k = number, n;
    for (int i = 0; i <= p->n_cuts; i++, k -= n) {
        struct span s = span_at(p, i);
        n = span_segments(p, s);
        if (k >= n) continue;
        BUG_IF(k < 0, "segment %lld", (long long)number);
        struct plan_segment g = {.number = number,
                                 .start = s.from + k * (p->frame_num - p->motion_frame),
                                 .first = k == 0,
                                 .last = k == n - 1 && i == p->n_cuts,
                                 .wants_tail = k < n - 1,
                                 .span = i,
                                 .span_start = s.from};
        int64_t deliver_to = i < p->n_cuts ? s.to : p->n_frames;
        g.keep_from = k ? p->motion_frame : 0;
        g.keep_to = at_least(at_most(p->frame_num, deliver_to - g.start), g.keep_from);
        return g;
    }
    BUG("segment %lld of %lld", (long long)number, (long long)plan_segments_count(p));
}

static int by_frame(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int plan_cuts_tidy(int64_t *cut, int n, int64_t n_frames)
{
    int kept = 0;
    qsort(cut, (size_t)n, sizeof *cut, by_frame);
    for (int i = 0; i < n; i++) {
        int64_t before = kept ? cut[kept - 1] : 0;
        if (cut[i] - before >= SPAN_MIN && cut[i] < n_frames) cut[kept++] = cut[i];
    }
    return kept;
}

// ---- films

__extension__ typedef __int128 wide; // frame numbers times rates

static int64_t divide_up(wide a, wide b) { return a <= 0 ? 0 : (int64_t)((a + b - 1) / b); }

// Where position v lands in [0, n) when the film of n is held, repeated or turned.
static int64_t fold(int64_t v, int64_t n, int64_t period_turned, enum spec_video_end end)
{
    if (v < n) return v;
    if (end == SPEC_END_LOOP) return v % n;
    if (end != SPEC_END_PINGPONG || period_turned <= 0) return n - 1;
    v %= period_turned;
    return v < n ? v : period_turned - v;
}

int64_t plan_film_picture(const struct plan_film *f, int64_t frame)
{
    BUG_IF(f->n_frames < 1 || frame < 0, "frame %lld of a film of %lld pictures", (long long)frame,
           (long long)f->n_frames);
    int64_t j = frame;
    if (!f->by_index) j = (int64_t)(((wide)frame * (1000 / FPS) + 1) * f->rate_num / ((wide)1000 * f->rate_den));
    return fold(j, f->n_frames, 2 * f->n_frames - 2, f->end);
}

int64_t plan_film_frame(const struct plan_film *f, int64_t picture)
{
    if (f->by_index) return picture;
    // the first i with (40 i + 1) rate >= 1000 j
    return divide_up((wide)1000 * f->rate_den * picture - f->rate_num, (wide)(1000 / FPS) * f->rate_num);
}

int64_t plan_film_length(const struct plan_film *f)
{
    if (f->by_index) return f->n_frames;
    return at_least(divide_up((wide)FPS * f->n_frames * f->rate_den, f->rate_num), 1);
}

int64_t plan_film_us(int64_t n_us, enum spec_video_end end, int64_t frame)
{
    return fold(frame * (1000000 / FPS), at_least(n_us, 1), 2 * n_us, end);
}
