// What one layout costs.
//
// Compute is what a rank's rows take: products 2 rows (8 D^2 + 2 D F) a layer, attention 4 rows N D, the short keys of
// words, picture and voice, and some 23 passes over a rank's activations for all that only moves data. It shrinks with
// the ranks of a sequence and no other way; the guide axis gives each rank fewer branches instead.
//
// The wire, x being a rank's rows of one branch, a layer:
//   heads    4 x (U-1)/U          before and after attention, waited for
//   ring     2 x            each round's flight hides behind a round of attention, as far as it goes
//   weights  (S-1)/S of a block   hides behind the block before it, once for all branches of a rank
// What hides still passes through the device's memory and is paid for there, so that of two layouts that look equal the
// one that moves less wins. A wire without an engine of its own (host memory) hides nothing: the core that would
// compute copies.
//
// The trap: ranks of a group need not be neighbours. A group of c ranks, s apart, has as many peers on a rank's own
// node as fit there; the others are reached by the slower link, and the two work side by side.
#include "parallel/plan_cost.h"

#include "parallel/split.h"

enum {
    PASSES = 23,      // over the activations of a layer, fused as the ops are
    FFN_ROWS = 4096,  // that go through the feed-forward part at a time
    CLASSES = 3,      // of the speaker map
    SLICE_BYTES = 48, // of a pixel: three colours of the frames that are decoded in one go
    EDGE_TRADES = 66, // halos of a latent frame, decoded: 33 convolutions, on both sides
};

static double most(double a, double b) { return a > b ? a : b; }

static int64_t node_of(const struct plan_rates *r, int rank) { return r->node > 0 ? rank / r->node : 0; }

// Seconds in which each of `n` ranks, `stride` apart, sends `bytes` to every other.
static double all_to_all(const struct plan_rates *r, int n, int stride, double bytes)
{
    int near = 0, far = 0;
    for (int i = 1; i < n; i++) *(node_of(r, i * stride) == 0 ? &near : &far) += 1;
    double t = near ? near * bytes / r->near : 0;
    return far ? most(t, far * bytes / r->far) : t;
}

// What a transfer behind compute still costs it: the bytes pass through its memory, out and in.
static double passed(const struct plan_rates *r, double bytes) { return 2 * bytes / r->copy; }

// What one layout is made of, worked out once.
struct terms {
    const struct plan_model *m;
    const struct plan_job *j;
    const struct plan_rates *r;
    int guide, ring, heads, ranks; // ranks: of a sequence
    int mine, batch;               // branches of a rank; those that go together
    int64_t tokens, rows;
    double x; // bytes
};

static void compute(const struct terms *t, struct plan_row *y)
{
    const struct plan_model *m = t->m;
    double rows = (double)t->rows, d = (double)m->dim, layers = (double)m->layers, runs = layers * t->mine;
    double keys = (double)(t->tokens + m->words + m->picture + m->voice * t->j->speakers);
    if (t->j->speakers > 1) keys += (double)(t->j->gh * t->j->gw) / 2; // scores alone
    double moved = PASSES * t->x;
    if (t->ring > 1) moved += t->ring * 2 * rows * d * 4; // the sum under way, read and written a round
    y->linear = runs * 2 * rows * d * (8 * d + 2 * (double)m->ffn) / t->r->linear;
    y->attention = runs * 4 * rows * keys * d / t->r->attention;
    y->small = runs * moved / t->r->copy;
}

// What waits inside of a layer, and the velocities at the end.
static void wire(const struct terms *t, struct plan_row *y)
{
    const struct plan_rates *r = t->r;
    double layers = (double)t->m->layers, x = t->x, runs = layers * t->mine, calls = layers * t->mine / t->batch;
    y->exchange_bytes = (int64_t)(layers * 4 * x * (t->heads - 1) / t->heads);
    y->ring_bytes = (int64_t)(layers * 2 * x * (t->ring - 1));
    if (t->heads > 1) y->exchange = runs * all_to_all(r, t->heads, 1, 4 * x / t->heads) + calls * 2 * r->latency;
    if (t->ring > 1) {
        double link = node_of(r, (t->ring - 1) * t->heads) == 0 ? r->near : r->far;
        double flight = 2 * x / link,
               round = 4 * (double)t->rows * (double)t->tokens * (double)t->m->dim / t->ring / r->attention;
        double waits = r->hides ? most(0, flight - round) + passed(r, 2 * x) : flight;
        y->ring = (t->ring - 1) * (runs * waits + calls * r->latency);
    }
    double own = (double)t->rows * 4 * (double)t->m->out_dim * 4, whole = own * t->ranks;
    y->gather = t->mine * all_to_all(r, t->ranks, 1, own) + all_to_all(r, t->guide, t->ranks, t->mine * whole);
    if (t->j->speakers > 1 && t->heads > 1) // a sum over heads, in two exchanges
        y->gather += 2 * runs * all_to_all(r, t->heads, 1, CLASSES * (double)t->rows * 4) + 2 * calls * r->latency;
    if (t->ranks * t->guide > 1) y->gather += 3 * r->latency; // with the agreement of a step
}

// Blocks that are gathered while the one before is computed.
static void weights(const struct terms *t, struct plan_row *y)
{
    int s = y->sharers;
    if (s == 1) return;
    double layers = (double)t->m->layers, block = (double)t->m->step_bytes;
    double flight = all_to_all(t->r, s, 1, block / s) + t->r->latency;
    double busy = (y->linear + y->attention + y->small) / layers, sent = block * (s - 1) / s;
    y->weight_bytes = (int64_t)(layers * sent);
    y->weights = layers * (t->r->hides ? most(0, flight - busy) + passed(t->r, sent) : flight);
}

// Decoding a segment and encoding what it hands on, by bands of the longer side.
static void edges(const struct terms *t, struct plan_row *y)
{
    const struct plan_job *j = t->j;
    int n = t->guide * t->ranks;
    int64_t lines = 2 * (j->gh > j->gw ? j->gh : j->gw);
    double part = (double)span_length(split_even(lines, n, 0)) / (double)lines;
    double pixels = 256 * (double)(j->gh * j->gw);
    double ops = pixels * ((double)j->pictures * t->m->decode_ops + (double)j->motion * t->m->encode_ops);
    y->edges = part * ops / t->r->conv;
    if (n > 1) y->edges += EDGE_TRADES * (double)j->frames * t->r->latency;
    y->segment = j->steps * y->step + y->edges;
}

// What the fullest rank has of the encoders. The blocks that read words are spread like the others, over the first
// ranks, which the one that reads is among.
static int64_t encoders(const struct plan_model *m, int n, int sharers)
{
    static const int home[PLAN_ENCODERS] = {1, 2, 0}; // words, picture, voice
    int64_t fullest = 0;
    for (int rank = 0; rank < n && rank < PLAN_ENCODERS; rank++) {
        int64_t sum = 0;
        if (sharers > 1 && rank < sharers) sum += m->words_blocks / sharers + 2 * m->words_block;
        if (sharers > 1 && rank == home[0] % n) sum -= m->words_blocks;
        for (int i = 0; i < PLAN_ENCODERS; i++)
            if (home[i] % n == rank) sum += m->encoder_bytes[i];
        if (sum > fullest) fullest = sum;
    }
    return fullest;
}

// What a rank takes for decoding, for a pixel of the whole picture: the frames of a slice are whole on every rank, the
// rest is its band's, with lines of its neighbours. When the bands of a slice are gathered, most of what its layers
// made is still there. The two shares were measured by dry runs.
static double decode_space(const struct terms *t)
{
    const double edges = 0.37, kept = 0.908;
    const struct plan_job *j = t->j;
    int n = t->guide * t->ranks;
    if (t->m->decode_bytes == 0) return 0;
    int64_t lines = 2 * (j->gh > j->gw ? j->gh : j->gw), band = span_length(split_even(lines, n, 0));
    double part = (double)band / (double)lines, own = part * t->m->decode_bytes;
    if (n == 1) return SLICE_BYTES + own;
    own *= 1 + edges / (double)band;
    return SLICE_BYTES * (1 + part) + most(own, SLICE_BYTES + kept * own);
}

static void memory(const struct terms *t, struct plan_row *y)
{
    const struct plan_model *m = t->m;
    const struct plan_job *j = t->j;
    int n = t->guide * t->ranks, s = y->sharers;
    int64_t block = m->step_bytes + m->context_bytes;
    y->held = m->layers * block / s + (s > 1 ? 2 * block : 0) + m->rest_bytes + encoders(m, n, s);
    int64_t keys = j->texts * m->words + m->picture + j->frames * m->voice * (j->speakers + (j->silence ? 1 : 0));
    y->caches = 2 * m->layers * keys * m->dim * m->size;
    double rows = (double)(t->rows * t->batch), x = t->x * t->batch, d = (double)m->dim;
    double steps = 5 * x + (rows < FFN_ROWS ? rows : FFN_ROWS) * (double)m->ffn * m->size;
    steps += (double)t->rows * d / (double)m->heads * 4; // rotations
    if (t->heads > 1) steps += 7 * x;
    if (t->ring > 1) steps += 4 * x + rows * (d + 2 * (double)m->heads) * 4;
    double pixels = 256 * (double)(j->gh * j->gw), latents = (double)t->tokens * 4 * (double)m->out_dim * 4;
    steps += (j->branches + 3) * latents;
    double decode = pixels * (decode_space(t) + 12 * (double)j->motion); // and the frames that are handed on
    y->work = (int64_t)(most(steps, decode) + 1.5 * pixels * (double)j->pictures);
    y->memory = y->held + y->caches + y->work;
    y->fits = y->memory <= t->r->memory;
}

struct plan_row plan_predict(const struct plan_model *m, const struct plan_job *j, const struct plan_rates *r,
                             struct mesh_shape s, enum plan_shard shard)
{
    struct terms t = {.m = m, .j = j, .r = r, .guide = s.guide, .ring = s.ring, .heads = s.heads};
    t.ranks = s.ring * s.heads;
    t.mine = (j->branches + s.guide - 1) / s.guide;
    t.batch = shard == PLAN_WHOLE ? 1 : t.mine;
    t.tokens = j->frames * j->gh * j->gw;
    t.rows = split_rows(t.tokens, t.ranks, 0).each;
    t.x = (double)(t.rows * m->dim * m->size);
    struct plan_row y = {.shape = s, .shard = shard, .sharers = 1, .rows = t.rows};
    if (shard == PLAN_ALL || (shard == PLAN_NODE && (r->node == 0 || r->node > t.ranks)))
        y.sharers = t.ranks;
    else if (shard == PLAN_NODE)
        y.sharers = r->node;
    compute(&t, &y);
    wire(&t, &y);
    weights(&t, &y);
    y.step = y.linear + y.attention + y.small + y.exchange + y.ring + y.gather + y.weights;
    edges(&t, &y);
    memory(&t, &y);
    return y;
}
