// The keys of a job: one table for flags, job files and --help, and what becomes of them.
//
// A field that nobody set holds a mark (0, NaN or NULL, by its kind) until spec_resolve puts the model's default there.
// The published program's flags stand in the same table, so that its command lines work after replacing the program's
// name; those that steer what this engine does by itself are accepted with a notice, those that ask for what it cannot
// do are refused.
#include "proto/spec.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define FIELD(name) offsetof(struct spec, name)

static const char *const audio_types[] = {"none", "para", "add", NULL};
static const char *const modes[] = {"streaming", "clip", NULL};
static const char *const parities[] = {"none", "published", NULL};
static const char *const tails[] = {"silence", "mirror", NULL};
static const char *const video_ends[] = {"hold", "loop", "pingpong", "stop", NULL};
static const char *const dtypes[] = {"f32", "bf16", NULL};
static const char *const presets[] = {"ultrafast", "superfast", "veryfast", "faster",   "fast",
                                      "medium",    "slow",      "slower",   "veryslow", NULL};

void spec_notice(struct spec *s, const char *from, const char *why)
{
    size_t n = strlen(s->notices);
    snprintf(s->notices + n, sizeof s->notices - n, "%s%s: %s", n ? "\n" : "", from, why);
}

// ---- keys that are more than a field

static int set_audio(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                     struct err *e)
{
    (void)from, (void)e;
    struct spec *s = base;
    bool second = strcmp(o->key, "audio2") == 0;
    s->audio[second] = strcmp(text, "None") == 0 ? NULL : arena_strdup(a, text);
    if (second)
        s->n_speakers = 2;
    else if (s->n_speakers == 0)
        s->n_speakers = 1;
    return 0;
}

static int parse_box(struct spec_region *r, const char *from, const char *text, bool rows_first, struct err *e)
{
    double v[4];
    const char *p = text;
    for (int i = 0; i < 4; i++) {
        char *end;
        v[i] = strtod(p, &end);
        if (end == p || !isfinite(v[i]) || (i < 3 ? *end != ',' && *end != ' ' : *end != 0))
            return err_set(e, E_INPUT, "%s: '%s' is not four numbers x0,y0,x1,y1", from, text);
        p = end + (i < 3);
    }
    *r = (struct spec_region){.has_box = true, .mask = r->mask};
    r->row0 = rows_first ? v[0] : v[1];
    r->col0 = rows_first ? v[1] : v[0];
    r->row1 = rows_first ? v[2] : v[3];
    r->col1 = rows_first ? v[3] : v[2];
    return 0;
}

static int set_box1(void *base, struct arena *a, const struct opt *o, const char *from, const char *text, struct err *e)
{
    (void)o, (void)a;
    return parse_box(&((struct spec *)base)->region[0], from, text, false, e);
}

static int set_box2(void *base, struct arena *a, const struct opt *o, const char *from, const char *text, struct err *e)
{
    (void)o, (void)a;
    return parse_box(&((struct spec *)base)->region[1], from, text, false, e);
}

static int set_lora(void *base, struct arena *a, const struct opt *o, const char *from, const char *text, struct err *e)
{
    (void)o;
    struct spec *s = base;
    if (s->n_lora == SPEC_LORAS) return err_set(e, E_INPUT, "%s: at most %d LoRA files", from, SPEC_LORAS);
    s->lora[s->n_lora++] = arena_strdup(a, text);
    return 0;
}

static int set_lora_scale(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                          struct err *e)
{
    (void)o, (void)a;
    struct spec *s = base;
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v)) return err_set(e, E_INPUT, "%s: '%s' is not a number", from, text);
    if (s->n_lora_scale == SPEC_LORAS) return err_set(e, E_INPUT, "%s: at most %d scales", from, SPEC_LORAS);
    s->lora_scale[s->n_lora_scale++] = v;
    return 0;
}

static int set_save_file(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                         struct err *e)
{
    (void)o, (void)from, (void)e;
    struct spec *s = base;
    size_t n = strlen(text);
    bool has = n > 4 && strcmp(text + n - 4, ".mp4") == 0;
    s->output = arena_printf(a, "%s%s", text, has ? "" : ".mp4");
    return 0;
}

static int set_noted(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                     struct err *e)
{
    (void)o, (void)a, (void)text, (void)e;
    spec_notice(base, from, "has no effect here; memory and working files are managed by the engine");
    return 0;
}

static int set_task(void *base, struct arena *a, const struct opt *o, const char *from, const char *text, struct err *e)
{
    (void)o, (void)base, (void)a;
    if (strcmp(text, "infinitetalk-14B") == 0) return 0;
    return err_set(e, E_INPUT, "%s: '%s' is not infinitetalk-14B, the one task there is", from, text);
}

static int set_audio_mode(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                          struct err *e)
{
    (void)o, (void)base, (void)a;
    if (strcmp(text, "localfile") == 0) return 0;
    return err_set(e, E_INPUT,
                   "%s: '%s' is not supported; record or synthesise the speech first and give it as --audio", from,
                   text);
}

// Splitting over processes: who starts them looks at it.
static int set_degree(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                      struct err *e)
{
    (void)a;
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < 1 || v > 4096)
        return err_set(e, E_INPUT, "%s: '%s' is not a number of processes, 1 to 4096", from, text);
    struct spec *s = base;
    *(strcmp(o->key, "ring-size") == 0 ? &s->ring : &s->ulysses) = (int)v;
    return 0;
}

static int one_cut(int64_t *frame, const char *from, const char *word, struct err *e)
{
    char *end;
    double v = strtod(word, &end), rate = 25;
    if (*end == ':') v = 60 * v + strtod(end + 1, &end);
    if (*end == ':') v = 60 * v + strtod(end + 1, &end);
    if (strcmp(end, "f") == 0) rate = 1;
    bool ended = *end == 0 || rate == 1;
    if (end == word || !ended || !isfinite(v) || v < 0 || v > 1e7)
        return err_set(e, E_INPUT, "%s: '%s' is no time; give seconds (12.5), minutes (1:12.5) or frames (310f)", from,
                       word);
    *frame = (int64_t)floor(v * rate + 0.5);
    return 0;
}

static int set_cuts(void *base, struct arena *a, const struct opt *o, const char *from, const char *text, struct err *e)
{
    (void)o;
    struct spec *s = base;
    s->cut_at_shots = strcmp(text, "auto") == 0;
    s->cut_from = arena_strdup(a, from);
    s->n_cuts = 0;
    if (s->cut_at_shots || strcmp(text, "none") == 0 || strcmp(text, "no") == 0) return 0;
    int n = 1;
    for (const char *c = text; *c; c++) n += *c == ',';
    if (n > SPEC_CUTS) return err_set(e, E_INPUT, "%s: %d cuts; at most %d are taken", from, n, SPEC_CUTS);
    s->cut = arena_array(a, (size_t)n, sizeof *s->cut);
    char *rest = arena_strdup(a, text), *word;
    while ((word = strsep(&rest, ","))) {
        int rc = one_cut(&s->cut[s->n_cuts], from, word, e);
        if (rc < 0) return rc;
        s->n_cuts++;
    }
    return 0;
}

static bool is_off(const char *text)
{
    return strcmp(text, "no") == 0 || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static int set_sharding(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                        struct err *e)
{
    (void)a, (void)e, (void)from;
    struct spec *s = base;
    *(strcmp(o->key, "dit-fsdp") == 0 ? &s->fsdp : &s->text_fsdp) = !is_off(text);
    return 0;
}

static int set_quant(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                     struct err *e)
{
    (void)a;
    bool kind = strcmp(o->key, "quant") == 0;
    if (kind && strcmp(text, "int8") != 0 && strcmp(text, "fp8") != 0)
        return err_set(e, E_INPUT, "%s: '%s' is neither int8 nor fp8", from, text);
    if (kind) spec_notice(base, from, "quantised weights are not read by this version; the full ones are used");
    return 0;
}

static int set_scenes(void *base, struct arena *a, const struct opt *o, const char *from, const char *text,
                      struct err *e)
{
    (void)o, (void)e;
    struct spec *s = base;
    s->cut_at_shots = !is_off(text);
    s->cut_from = arena_strdup(a, from);
    return 0;
}

// ---- the table

// clang-format off
static const struct opt rows[] = {
    {"image", OPT_TEXT, FIELD(image), 0, 0, NULL, NULL, "FILE", "portrait picture (PNG, JPEG, WebP, BMP)"},
    {"video", OPT_TEXT, FIELD(video), 0, 0, NULL, NULL, "FILE", "video to dub, instead of --image"},
    {"audio", OPT_CALL, 0, 0, 0, NULL, set_audio, "FILE", "the voice: any audio file, or a video's sound track"},
    {"audio2", OPT_CALL, 0, 0, 0, NULL, set_audio, "FILE", "voice of the second (right) speaker"},
    {"audio-type", OPT_NAME, FIELD(audio_type), 0, 0, audio_types, NULL, "para|add", "two voices together, or one after the other"},
    {"audio-track", OPT_INT, FIELD(audio_track), 1, 99, NULL, NULL, "N", "which sound track of a file that has several: 1 is the first (its default one)"},
    {"box1", OPT_CALL, 0, 0, 0, NULL, set_box1, "X0,Y0,X1,Y1", "where the first speaker is, in pixels of the picture"},
    {"box2", OPT_CALL, 0, 0, 0, NULL, set_box2, "X0,Y0,X1,Y1", "where the second speaker is"},
    {"mask1", OPT_TEXT, FIELD(region[0].mask), 0, 0, NULL, NULL, "FILE", "the first speaker's region as a picture, white inside"},
    {"mask2", OPT_TEXT, FIELD(region[1].mask), 0, 0, NULL, NULL, "FILE", "the second speaker's region"},
    {"face-scale", OPT_REAL, FIELD(face_scale), 0, 0.45, NULL, NULL, "X", "margin of the default left and right regions (0.05)"},
    {"prompt", OPT_TEXT, FIELD(prompt), 0, 0, NULL, NULL, "TEXT", "describes the scene and its mood, not the words spoken"},
    {"negative-prompt", OPT_TEXT, FIELD(negative), 0, 0, NULL, NULL, "TEXT", "what to keep away from (built in)"},
    {"output", OPT_TEXT, FIELD(output), 0, 0, NULL, NULL, "FILE", "the video to write, .mp4 or .mov; also -o (render: a name of its own)"},
    {"overwrite", OPT_FLAG, FIELD(overwrite), 0, 0, NULL, NULL, NULL, "replace the output if it exists"},
    {"model", OPT_TEXT, FIELD(model), 0, 0, NULL, NULL, "DIR", "model folder"},
    {"size", OPT_TEXT, FIELD(size), 0, 0, NULL, NULL, "NAME", "size class of the model, e.g. infinitetalk-480"},
    {"mode", OPT_NAME, FIELD(r.mode), 0, 0, modes, NULL, "streaming|clip", "as long as the voice, or one segment"},
    {"frame-num", OPT_INT, FIELD(r.frame_num), 5, 161, NULL, NULL, "N", "frames a segment, 4n+1"},
    {"motion-frame", OPT_INT, FIELD(r.motion_frame), 1, 157, NULL, NULL, "N", "frames carried into the next segment, 4k+1"},
    {"max-frame-num", OPT_LONG, FIELD(max_frame_num), 0, 1e9, NULL, NULL, "N", "cut the video at N frames (0: no limit)"},
    {"sample-steps", OPT_INT, FIELD(r.steps), 1, 1000, NULL, NULL, "N", "denoising steps; also --steps"},
    {"sample-shift", OPT_REAL, FIELD(r.shift), 1e-6, 1000, NULL, NULL, "X", "shift of the time schedule; also --shift"},
    {"sample-text-guide-scale", OPT_REAL, FIELD(r.text_scale), 0, 20, NULL, NULL, "X", "text guidance; 1 costs nothing"},
    {"sample-audio-guide-scale", OPT_REAL, FIELD(r.audio_scale), 0, 20, NULL, NULL, "X", "voice guidance; 1 costs nothing"},
    {"color-correction-strength", OPT_REAL, FIELD(r.color_strength), 0, 1, NULL, NULL, "X", "colour matching to the first picture"},
    {"seed", OPT_LONG, FIELD(r.seed), -1, 9.2233720368547e18, NULL, NULL, "N", "of the noise; -1: by chance (42)"},
    {"use-apg", OPT_FLAG, FIELD(r.apg), 0, 0, NULL, NULL, NULL, "adaptive projected guidance"},
    {"apg-momentum", OPT_REAL, FIELD(r.apg_momentum), -10, 10, NULL, NULL, "X", "its momentum (-0.75)"},
    {"apg-norm-threshold", OPT_REAL, FIELD(r.apg_norm_threshold), -1e9, 1e9, NULL, NULL, "X", "its norm limit (55; 0: none)"},
    {"use-teacache", OPT_FLAG, FIELD(r.teacache), 0, 0, NULL, NULL, NULL, "skip steps that change little"},
    {"teacache-thresh", OPT_REAL, FIELD(r.teacache_thresh), 0, 1e9, NULL, NULL, "X", "its threshold (0.2)"},
    {"audio-tail", OPT_NAME, FIELD(r.tail), 0, 0, tails, NULL, "silence|mirror", "what follows the voice in the last segment"},
    {"on-video-end", OPT_NAME, FIELD(video_end), 0, 0, video_ends, NULL, "hold|loop|pingpong|stop", "when the video is shorter than the voice"},
    {"cuts", OPT_CALL, 0, 0, 0, NULL, set_cuts, "auto|T,T...", "where the film begins afresh: at the video's shots, or at times in seconds (none)"},
    {"relax-layout", OPT_FLAG, FIELD(relax_layout), 0, 0, NULL, NULL, NULL, "go on with it on other processors than it was begun on"},
    {"lora-dir", OPT_CALL, 0, 0, 0, NULL, set_lora, "FILE...", "LoRA files to merge; also --lora"},
    {"lora-scale", OPT_CALL, 0, 0, 0, NULL, set_lora_scale, "X...", "one for all, or one each (1.0)"},
    {"crf", OPT_INT, FIELD(crf), 0, 51, NULL, NULL, "N", "H.264 quality, smaller is better, 0 loses nothing (18)"},
    {"preset", OPT_TEXT, FIELD(preset), 0, 0, NULL, NULL, "NAME", "H.264 effort, ultrafast to veryslow (medium)"},
    {"dtype", OPT_NAME, FIELD(dtype), 0, 0, dtypes, NULL, "f32|bf16", "arithmetic of the large networks (f32)"},
    {"threads", OPT_INT, FIELD(threads), 0, 4096, NULL, NULL, "N", "CPU threads (0: all this process may use)"},
    {"parity", OPT_NAME, FIELD(r.parity), 0, 0, parities, NULL, "published", "reproduce the published program, quirks included"},
    // the published program's names
    {"ckpt-dir", OPT_TEXT, FIELD(model), 0, 0, NULL, NULL, "DIR", "same as --model"},
    {"infinitetalk-dir", OPT_TEXT, FIELD(adapter), 0, 0, NULL, NULL, "FILE", "the audio weights, where not in the model folder"},
    {"wav2vec-dir", OPT_TEXT, FIELD(voice), 0, 0, NULL, NULL, "DIR", "the wav2vec2 folder, where not in the model folder"},
    {"dit-path", OPT_TEXT, FIELD(dit), 0, 0, NULL, NULL, "FILE", "one checkpoint instead of shards and audio weights"},
    {"save-file", OPT_CALL, 0, 0, 0, NULL, set_save_file, "STEM", "the output without .mp4"},
    {"base-seed", OPT_LONG, FIELD(r.seed), -1, 9.2233720368547e18, NULL, NULL, "N", "same as --seed"},
    {"steps", OPT_INT, FIELD(r.steps), 1, 1000, NULL, NULL, "N", NULL},
    {"shift", OPT_REAL, FIELD(r.shift), 1e-6, 1000, NULL, NULL, "X", NULL},
    {"text-scale", OPT_REAL, FIELD(r.text_scale), 0, 20, NULL, NULL, "X", NULL},
    {"audio-scale", OPT_REAL, FIELD(r.audio_scale), 0, 20, NULL, NULL, "X", NULL},
    {"lora", OPT_CALL, 0, 0, 0, NULL, set_lora, "FILE...", NULL},
    {"task", OPT_CALL, 0, 0, 0, NULL, set_task, "NAME", NULL},
    {"audio-mode", OPT_CALL, 0, 0, 0, NULL, set_audio_mode, "NAME", NULL},
    {"audio-save-dir", OPT_CALL, 0, 0, 0, NULL, set_noted, "DIR", NULL},
    {"offload-model", OPT_CALL, 0, 0, 0, NULL, set_noted, "BOOL", NULL},
    {"num-persistent-param-in-dit", OPT_CALL, 0, 0, 0, NULL, set_noted, "N", NULL},
    {"t5-cpu", OPT_CALL, 0, 0, 0, NULL, set_noted, NULL, NULL},
    {"ulysses-size", OPT_CALL, 0, 0, 0, NULL, set_degree, "N", NULL},
    {"ring-size", OPT_CALL, 0, 0, 0, NULL, set_degree, "N", NULL},
    {"t5-fsdp", OPT_CALL, 0, 0, 0, NULL, set_sharding, NULL, NULL},
    {"dit-fsdp", OPT_CALL, 0, 0, 0, NULL, set_sharding, NULL, NULL},
    {"quant", OPT_CALL, 0, 0, 0, NULL, set_quant, "NAME", NULL},
    {"quant-dir", OPT_CALL, 0, 0, 0, NULL, set_quant, "FILE", NULL},
    {"scene-seg", OPT_CALL, 0, 0, 0, NULL, set_scenes, NULL, NULL},
    {0},
};
// clang-format on

const struct opt *spec_table(void) { return rows; }

void spec_init(struct spec *s)
{
    memset(s, 0, sizeof *s);
    s->face_scale = NAN;
    s->crf = -1;
    s->r.shift = s->r.text_scale = s->r.audio_scale = s->r.color_strength = NAN;
    s->r.apg_momentum = s->r.apg_norm_threshold = s->r.teacache_thresh = NAN;
    s->r.seed = 42;
    s->r.tail = (enum spec_tail) - 1;
    s->max_frame_num = -1;
}

void spec_free(struct spec *s) { arena_free(&s->arena); }

int spec_set(struct spec *s, const char *what, const char *from, const char *key, const char *text, struct err *e)
{
    const struct opt *o = opt_find(rows, key);
    if (!o) return opt_unknown(rows, what, key, e);
    return opt_set(o, s, &s->arena, from, text, e);
}

// ---- defaults and checks

static int check_4n1(const char *key, int v, int least, int most, struct err *e)
{
    if (v % 4 == 1 && v >= least && v <= most) return 0;
    int below = v - ((v - 1) % 4 + 4) % 4, above = below + 4;
    if (below < least) below = least, above = least;
    if (above > most) above = most, below = below > most ? most : below;
    if (below == above) return err_set(e, E_INPUT, "%s: %d does not fit; the nearest value is %d", key, v, below);
    return err_set(e, E_INPUT, "%s: %d is not of the form 4n+1; the nearest values are %d and %d", key, v, below,
                   above);
}

static int check_file(const char *key, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        if (errno == ENOENT) return err_set(e, E_INPUT, "%s: there is no file %s; check the name", key, path);
        return err_set(e, E_INPUT, "%s: cannot read %s: %s; check the name", key, path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) return err_set(e, E_INPUT, "%s: %s is a folder; give a file", key, path);
    return 0;
}

static int check_inputs(const struct spec *s, struct err *e)
{
    if (!s->image && !s->video)
        return err_set(e, E_INPUT, "no picture; give --image FILE, or --video FILE to dub a video");
    if (s->image && s->video) return err_set(e, E_INPUT, "both --image and --video are given; leave one out");
    if (s->n_speakers == 0) return err_set(e, E_INPUT, "no voice; give --audio FILE");
    if (!s->audio[0] && !s->audio[1])
        return err_set(e, E_INPUT, "at least one speaker needs a voice; give --audio FILE");
    if (s->image && check_file("--image", s->image, e) < 0) return E_INPUT;
    if (s->video && check_file("--video", s->video, e) < 0) return E_INPUT;
    if (s->audio[0] && check_file("--audio", s->audio[0], e) < 0) return E_INPUT;
    if (s->audio[1] && check_file("--audio2", s->audio[1], e) < 0) return E_INPUT;
    for (int i = 0; i < s->n_lora; i++)
        if (check_file("--lora-dir", s->lora[i], e) < 0) return E_INPUT;
    for (int i = 0; i < SPEC_SPEAKERS; i++)
        if (s->region[i].mask && check_file(i ? "--mask2" : "--mask1", s->region[i].mask, e) < 0) return E_INPUT;
    return 0;
}

static int check_speakers(struct spec *s, struct err *e)
{
    bool silent = !s->audio[0] || !s->audio[1];
    if (s->n_speakers == 2 && s->audio_type == SPEC_AUDIO_NONE && silent) s->audio_type = SPEC_PARA;
    if (s->n_speakers == 2 && s->audio_type == SPEC_AUDIO_NONE)
        return err_set(e, E_INPUT, "two voices need --audio-type: para (both at once) or add (one after the other)");
    bool one = s->region[0].has_box || s->region[0].mask, two = s->region[1].has_box || s->region[1].mask;
    if (s->n_speakers == 2 && one != two)
        return err_set(e, E_INPUT, "a region is given for speaker %d only; give both, or none for left and right",
                       one ? 1 : 2);
    for (int i = 0; i < SPEC_SPEAKERS; i++)
        if (s->region[i].has_box && s->region[i].mask)
            return err_set(e, E_INPUT, "--box%d and --mask%d are both given; leave one out", i + 1, i + 1);
    if (s->n_speakers == 1 && (one || two)) spec_notice(s, "box or mask", "has no effect with one speaker");
    return 0;
}

// Another name or a link for an input is caught too: replacing it would cost the user the recording.
static int check_output_apart(const struct spec *s, const struct stat *output, struct err *e)
{
    const struct {
        const char *key, *path;
    } inputs[] = {{"--image", s->image},     {"--video", s->video},          {"--audio", s->audio[0]},
                  {"--audio2", s->audio[1]}, {"--mask1", s->region[0].mask}, {"--mask2", s->region[1].mask}};
    struct stat st;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (inputs[i].path && stat(inputs[i].path, &st) == 0 && st.st_dev == output->st_dev &&
            st.st_ino == output->st_ino)
            return err_set(e, E_INPUT, "-o %s is the file that %s reads; choose another name", s->output,
                           inputs[i].key);
    return 0;
}

static int check_output(const struct spec *s, struct err *e)
{
    if (!s->output) return err_set(e, E_INPUT, "no output; give -o FILE.mp4");
    const char *slash = strrchr(s->output, '/'), *name = slash ? slash + 1 : s->output, *dot = strrchr(name, '.');
    if (!dot || (strcmp(dot, ".mp4") != 0 && strcmp(dot, ".mov") != 0))
        return err_set(e, E_INPUT, "-o %s: the name must end in .mp4 or .mov", s->output);
    char folder[4096];
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - s->output) : 1, slash ? s->output : ".");
    if (slash == s->output) snprintf(folder, sizeof folder, "/");
    struct stat st;
    if (stat(folder, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, E_INPUT, "-o %s: there is no folder %s; make it first", s->output, folder);
    if (stat(s->output, &st) < 0) return 0;
    if (S_ISDIR(st.st_mode)) return err_set(e, E_INPUT, "-o %s is a folder; give a file name", s->output);
    return check_output_apart(s, &st, e);
}

static void take_default(double *field, double v)
{
    if (isnan(*field)) *field = v;
}

static void warn_guidance(struct spec *s, const char *key, double scale)
{
    char text[96];
    snprintf(text, sizeof text, "%s: %g", key, scale);
    if (scale > 10) spec_notice(s, text, "far above what models are made for; colours may burn out");
}

// The size asked for. The published program's command lines always name one of its two; a model that knows neither (a
// small one) renders its own instead of refusing them.
static int resolve_size(struct spec *s, const struct model *m, const struct bucket_table **t, struct err *e)
{
    static const char *const published[] = {"infinitetalk-480", "infinitetalk-720"};
    bool asked = false, known = false;
    for (size_t i = 0; i < 2; i++) {
        asked |= s->size && strcmp(s->size, published[i]) == 0;
        for (int k = 0; k < m->n_sizes; k++) known |= strcmp(m->size[k].name, published[i]) == 0;
    }
    const char *own = m->size[0].name;
    if (!asked || known) return model_size(m, s->size ? s->size : own, t, e);
    char why[128];
    snprintf(why, sizeof why, "this model does not have it and renders its own size %s", own);
    spec_notice(s, s->size, why);
    return model_size(m, own, t, e);
}

static int resolve_numbers(struct spec *s, const struct model *m, struct err *e)
{
    struct spec_render *r = &s->r;
    const struct bucket_table *t;
    if (resolve_size(s, m, &t, e) < 0) return E_INPUT;
    snprintf(r->size, sizeof r->size, "%s", t->name);
    memcpy(r->teacache_poly, t->teacache, sizeof r->teacache_poly);
    bool carried = !r->motion_frame; // as many as the model says
    if (!r->frame_num) r->frame_num = m->frame_num;
    if (!r->motion_frame) r->motion_frame = m->motion_frame;
    if (!r->steps) r->steps = m->steps;
    take_default(&r->shift, t->shift);
    take_default(&r->text_scale, m->text_scale);
    take_default(&r->audio_scale, m->audio_scale);
    take_default(&r->color_strength, m->color_strength);
    take_default(&r->apg_momentum, -0.75);
    take_default(&r->apg_norm_threshold, 55);
    take_default(&r->teacache_thresh, 0.2);
    take_default(&s->face_scale, 0.05);
    warn_guidance(s, "--sample-text-guide-scale", r->text_scale);
    warn_guidance(s, "--sample-audio-guide-scale", r->audio_scale);
    bool published = r->parity == SPEC_PARITY_PUBLISHED;
    if ((int)r->tail < 0) r->tail = published ? SPEC_TAIL_MIRROR : SPEC_TAIL_SILENCE;
    if (s->max_frame_num < 0) s->max_frame_num = published ? 1000 : 0;
    if (s->crf < 0) s->crf = 18;
    if (!s->preset) s->preset = "medium";
    if (check_4n1("--frame-num", r->frame_num, 5, 161, e) < 0) return E_INPUT;
    if (carried && r->frame_num <= r->motion_frame)
        return err_set(e, E_INPUT,
                       "--frame-num: %d leaves nothing new beside the %d frames that a segment carries over; give at "
                       "least %d, or also a smaller --motion-frame (at most %d)",
                       r->frame_num, r->motion_frame, r->motion_frame + 4, r->frame_num - 4);
    return check_4n1("--motion-frame", r->motion_frame, 1, r->frame_num - 4, e);
}

// The published program has weights of two kinds with the same tensors; only their names tell them apart.
static void warn_adapter(struct spec *s, const struct model *m)
{
    const char *adapter = s->adapter ? s->adapter : m->adapter2[0] ? m->adapter2 : m->adapter;
    if (s->n_speakers == 2 && !s->dit && strstr(adapter, "single"))
        spec_notice(s, adapter, "made for one speaker, both may move with either voice; fetch InfiniteTalk/multi");
}

// The published program renders shots as films of their own; what it makes of them is not reproduced.
static int check_cuts(const struct spec *s, struct err *e)
{
    if (s->r.parity != SPEC_PARITY_PUBLISHED || (!s->cut_at_shots && s->n_cuts == 0)) return 0;
    return err_set(e, E_INPUT,
                   "--cuts and --scene-seg are not reproduced as the published program has them; leave out "
                   "--parity published, or the cuts");
}

static int resolve_preset(const struct spec *s, struct err *e)
{
    for (const char *const *p = presets; *p; p++)
        if (strcmp(*p, s->preset) == 0) return 0;
    return err_set(e, E_INPUT,
                   "--preset: '%s' is not one of x264's: ultrafast, superfast, veryfast, faster, fast, medium, slow, "
                   "slower, veryslow",
                   s->preset);
}

static int resolve_lora(struct spec *s, struct err *e)
{
    if (s->n_lora_scale > 0 && s->n_lora == 0)
        return err_set(e, E_INPUT, "--lora-scale %g is given but no LoRA file; give --lora-dir FILE, or leave it out",
                       s->lora_scale[0]);
    if (s->n_lora_scale > 1 && s->n_lora_scale != s->n_lora)
        return err_set(e, E_INPUT, "%d LoRA files but %d scales; give one scale for all, or one each", s->n_lora,
                       s->n_lora_scale);
    double usual = s->r.parity == SPEC_PARITY_PUBLISHED ? 1.2 : 1.0;
    for (int i = s->n_lora_scale; i < s->n_lora; i++) s->lora_scale[i] = s->n_lora_scale ? s->lora_scale[0] : usual;
    return 0;
}

static int resolve_text(const char *key, char dst[SPEC_PROMPT_MAX], const char *src, struct err *e)
{
    if (!src) src = "";
    if (strlen(src) >= SPEC_PROMPT_MAX)
        return err_set(e, E_INPUT, "%s of %zu bytes is longer than %d", key, strlen(src), SPEC_PROMPT_MAX - 1);
    memcpy(dst, src, strlen(src) + 1);
    return 0;
}

static int resolve_seed(struct spec *s, struct err *e)
{
    if (s->r.seed >= 0) return 0;
    uint32_t v;
    if (getrandom(&v, sizeof v, 0) != sizeof v)
        return err_set(e, E_FATAL, "this machine gives no random seed; name one with --seed");
    s->r.seed = v % 100000000;
    return 0;
}

int spec_resolve(struct spec *s, const struct model *m, struct err *e)
{
    if (check_inputs(s, e) < 0 || check_speakers(s, e) < 0 || check_output(s, e) < 0) return E_INPUT;
    if (check_cuts(s, e) < 0) return E_INPUT;
    s->r.n_speakers = s->n_speakers;
    warn_adapter(s, m);
    if (resolve_numbers(s, m, e) < 0 || resolve_preset(s, e) < 0 || resolve_lora(s, e) < 0) return E_INPUT;
    if (resolve_text("--prompt", s->r.prompt, s->prompt, e) < 0) return E_INPUT;
    if (resolve_text("--negative-prompt", s->r.negative, s->negative, e) < 0) return E_INPUT;
    return resolve_seed(s, e);
}
