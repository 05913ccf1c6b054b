// golden DIR [--table ref|cpu|both] [--only STEM]: every golden file of DIR against our code, on both tables.
//
// A file is run by the case whose prefix fits its name; weights_* files are what the cases load. A file that no case
// knows counts as failed, so that nothing is passed over in silence. Per key one line with the error and the bound; the
// last line is "N passed, N failed", and the exit status tells whether any failed.
#include "tests/goldenrun/golden.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma weak golden_dit_teacache
#pragma weak golden_dit
#pragma weak golden_audio_proj
#pragma weak golden_vae_encode
#pragma weak golden_vae_decode
#pragma weak golden_t5
#pragma weak golden_clip
#pragma weak golden_wav2vec2
#pragma weak golden_apg
#pragma weak golden_colors
#pragma weak golden_tables
#pragma weak golden_resize
#pragma weak golden_lora
#pragma weak golden_pipe

struct golden_kind {
    const char *prefix;
    golden_fn *run;
};

// The first prefix that fits wins: longer ones stand first.
static const struct golden_kind golden_kinds[] = {
    {"dit_teacache", golden_dit_teacache},
    {"dit_", golden_dit},
    {"audio_proj", golden_audio_proj},
    {"vae_encode", golden_vae_encode},
    {"vae_decode", golden_vae_decode},
    {"t5_encoder", golden_t5},
    {"clip_visual", golden_clip},
    {"wav2vec2", golden_wav2vec2},
    {"apg", golden_apg},
    {"match_and_blend_colors", golden_colors},
    {"tables", golden_tables},
    {"resize_and_centercrop", golden_resize},
    {"lora_merge", golden_lora},
    {"pipe_", golden_pipe},
};

static const char suffix[] = ".safetensors";

static int is_golden(const struct dirent *f)
{
    size_t n = strlen(f->d_name), m = sizeof suffix - 1;
    return n > m && strcmp(f->d_name + n - m, suffix) == 0 && strncmp(f->d_name, "weights_", 8) != 0;
}

static const struct golden_kind *kind_of(const char *stem)
{
    for (size_t i = 0; i < sizeof golden_kinds / sizeof *golden_kinds; i++)
        if (strncmp(stem, golden_kinds[i].prefix, strlen(golden_kinds[i].prefix)) == 0) return &golden_kinds[i];
    return NULL;
}

static int run_file(struct golden *g)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", g->dir, g->stem, suffix);
    struct err e = {0};
    const struct golden_kind *kind = kind_of(g->stem);
    if (!kind || !kind->run) {
        golden_expect(g, "kind", false, "no case knows this file");
        return 0;
    }
    if (weights_open(&g->file, path, &e) < 0) {
        golden_expect(g, "open", false, "%s", e.text);
        return 0;
    }
    g->used = calloc((size_t)weights_count(g->file) + 1, sizeof *g->used);
    BUG_IF(!g->used, "no memory");
    int before = g->n_passed + g->n_failed;
    kind->run(g);
    if (dev_sync(g->dev, &e) < 0) golden_expect(g, "device", false, "%s", e.text);
    if (g->n_passed + g->n_failed == before) golden_expect(g, "keys", false, "no key was compared");
    free(g->used);
    weights_free(&g->file);
    dev_arena_reset(g->arena, 0);
    return 0;
}

static int run_table(const char *dir, const char *table, const char *only, int *n_passed, int *n_failed)
{
    struct err e = {0};
    struct golden g = {.dir = dir, .table = table};
    if (dev_open(&g.dev, table, 0, &e) < 0) {
        fprintf(stderr, "golden: %s\n", e.text);
        return -1;
    }
    g.arena = dev_arena_new(g.dev, "golden", 0);
    struct dirent **files;
    int n = scandir(dir, &files, is_golden, alphasort);
    if (n < 0) fprintf(stderr, "golden: cannot read the folder %s\n", dir);
    for (int i = 0; i < n; i++) {
        char stem[256];
        snprintf(stem, sizeof stem, "%.*s", (int)(strlen(files[i]->d_name) - (sizeof suffix - 1)), files[i]->d_name);
        g.stem = stem;
        if (!only || strcmp(only, stem) == 0) run_file(&g);
        free(files[i]);
    }
    if (n >= 0) free(files);
    *n_passed += g.n_passed;
    *n_failed += g.n_failed;
    dev_arena_free(&g.arena);
    dev_close(&g.dev);
    return n > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    const char *dir = NULL, *table = "both", *only = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--table") == 0 && i + 1 < argc)
            table = argv[++i];
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            only = argv[++i];
        else if (argv[i][0] != '-' && !dir)
            dir = argv[i];
        else
            dir = NULL, i = argc;
    }
    if (!dir || (strcmp(table, "both") != 0 && strcmp(table, "ref") != 0 && strcmp(table, "cpu") != 0)) {
        fprintf(stderr, "usage: golden DIR [--table ref|cpu|both] [--only STEM]\n");
        return 2;
    }
    int n_passed = 0, n_failed = 0, rc = 0;
    if (strcmp(table, "cpu") != 0) rc |= run_table(dir, "ref", only, &n_passed, &n_failed);
    if (strcmp(table, "ref") != 0) rc |= run_table(dir, "cpu", only, &n_passed, &n_failed);
    printf("%d passed, %d failed\n", n_passed, n_failed);
    return rc < 0 || n_failed > 0 || n_passed == 0;
}
