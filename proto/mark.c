// A hundred gigabytes of weights are not read to be compared: of each file count its name, its size and a piece of its
// beginning and its end (a safetensors file begins with the table of its tensors). That tells another model, another
// conversion and a download that was cut short; it is no proof against malice, which keys are for (chan.h).
//
// Where a folder lies does not count, nor do times: a copy on another machine has the same mark.
#include "proto/mark.h"

#include "proto/base/hash.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 16, DEPTH = 8, PATH_SIZE = 4200 };

static void text_add(struct hash *h, const char *text) { hash_update(h, text, strlen(text) + 1); }

static void file_add(struct hash *h, const char *path, const struct stat *st)
{
    char *piece = malloc(PIECE);
    BUG_IF(!piece, "no memory to read a file");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int64_t size = st->st_size, at[] = {0, size > PIECE ? size - PIECE : 0};
    hash_update(h, &size, sizeof size);
    for (int i = 0; i < 2 && fd >= 0; i++) {
        ssize_t n = pread(fd, piece, PIECE, (off_t)at[i]);
        if (n > 0) hash_update(h, piece, (size_t)n);
    }
    if (fd >= 0) close(fd);
    free(piece);
}

static void path_add(struct hash *h, const char *path, int depth)
{
    struct dirent **entry = NULL;
    struct stat st;
    if (!path[0] || stat(path, &st) < 0) {
        text_add(h, "none");
        return;
    }
    if (S_ISREG(st.st_mode)) file_add(h, path, &st);
    int n = S_ISDIR(st.st_mode) && depth < DEPTH ? scandir(path, &entry, NULL, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        char inside[PATH_SIZE];
        snprintf(inside, sizeof inside, "%s/%s", path, entry[i]->d_name);
        if (entry[i]->d_name[0] != '.') {
            text_add(h, entry[i]->d_name);
            path_add(h, inside, depth + 1);
        }
        free(entry[i]);
    }
    free(entry);
}

void mark_weights(uint8_t mark[MARK_BYTES], const struct model *m)
{
    struct hash h;
    const char *const part[] = {m->dit, m->adapter, m->adapter2, m->text, m->tokenizer, m->clip, m->vae, m->voice};
    hash_init(&h);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) path_add(&h, part[i], 0);
    hash_final(&h, mark);
}

void mark_set(uint8_t mark[MARK_BYTES], const struct model *m, const struct mark_set *s)
{
    struct hash h;
    const char *const elsewhere[] = {s->dit, s->adapter, s->voice};
    const int number[] = {s->n_speakers, s->bf16, s->published, s->n_lora};
    mark_weights(mark, m);
    hash_init(&h);
    hash_update(&h, mark, MARK_BYTES);
    hash_update(&h, number, sizeof number);
    for (int i = 0; i < 3; i++)
        if (elsewhere[i]) path_add(&h, elsewhere[i], 0);
    for (int i = 0; i < s->n_lora; i++) {
        path_add(&h, s->lora[i], 0);
        hash_update(&h, &s->lora_scale[i], sizeof s->lora_scale[i]);
    }
    hash_final(&h, mark);
}
