// Keys are written in hexadecimal digits, so that a shell, YAML and a text editor leave them whole (ZeroMQ's own
// spelling uses quotes, braces and number signs).
//
// A secret that others may read is refused instead of used: whoever has it is this machine.
#include "proto/chan_keys.h"

#include "proto/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

enum { FILE_MAX = 1 << 20, DIGITS = 2 * CHAN_KEY_BYTES, PATH_SIZE = 4200 };

static bool hex_read(uint8_t to[CHAN_KEY_BYTES], const char *text)
{
    if (strlen(text) != DIGITS || strspn(text, "0123456789abcdefABCDEF") != DIGITS) return false;
    for (int i = 0; i < CHAN_KEY_BYTES; i++) sscanf(text + 2 * i, "%2hhx", &to[i]);
    return true;
}

static void hex_write(char to[DIGITS + 1], const uint8_t from[CHAN_KEY_BYTES])
{
    for (int i = 0; i < CHAN_KEY_BYTES; i++) snprintf(to + 2 * i, 3, "%02x", from[i]);
}

static bool name_is_good(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n < CHAN_NAME_SIZE &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@") == n;
}

int chan_key_make(struct chan_key *k, const char *name, struct err *e)
{
    char open[41], secret[41];
    if (!name_is_good(name))
        return err_set(e, E_INPUT, "'%.80s' is no name for a key: at most %d letters, digits, dots and dashes", name,
                       CHAN_NAME_SIZE - 1);
    if (zmq_curve_keypair(open, secret) < 0)
        return err_set(e, E_FATAL, "this ZeroMQ makes no keys: %s; install one that was built with libsodium",
                       zmq_strerror(errno));
    snprintf(k->name, sizeof k->name, "%s", name);
    BUG_IF(!zmq_z85_decode(k->open, open) || !zmq_z85_decode(k->secret, secret), "ZeroMQ made a key that is none");
    return 0;
}

// ---- files

static int text_write(const char *path, int mode, const char *text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode), why = errno;
    if (fd < 0 && why == EEXIST) return err_set(e, E_INPUT, "%s is there already; choose another name", path);
    if (fd < 0) return err_set(e, E_INPUT, "cannot write %s: %s", path, strerror(why));
    size_t n = strlen(text);
    bool good = write(fd, text, n) == (ssize_t)n && fsync(fd) == 0;
    why = errno;
    close(fd);
    if (good) return 0;
    unlink(path);
    return err_set(e, E_FATAL, "cannot write %s: %s", path, strerror(why));
}

int chan_key_write(const struct chan_key *k, const char *path, struct err *e)
{
    char text[512], also[PATH_SIZE], open[DIGITS + 1], secret[DIGITS + 1];
    hex_write(open, k->open);
    hex_write(secret, k->secret);
    snprintf(text, sizeof text, "longtake-key %s\npublic %s\nsecret %s\n", k->name, open, secret);
    int rc = text_write(path, 0600, text, e);
    memset(secret, 0, sizeof secret);
    snprintf(also, sizeof also, "%s.pub", path);
    snprintf(text, sizeof text, "%s %s\n", k->name, open);
    if (rc < 0) return rc;
    rc = text_write(also, 0644, text, e);
    if (rc < 0) unlink(path);
    return rc;
}

int chan_key_read(struct chan_key *k, const char *path, struct err *e)
{
    char *text = NULL, open[DIGITS + 2], secret[DIGITS + 2], end;
    struct stat st;
    size_t n;
    int rc = file_text(&text, &n, path, FILE_MAX, e);
    if (rc < 0) return rc == E_INPUT ? file_way(path, e) : rc;
    if (stat(path, &st) < 0 || (st.st_mode & 077) != 0)
        rc = err_set(e, E_INPUT, "others may read the secret key %s (mode %03o); chmod 600 it", path,
                     (unsigned)st.st_mode & 0777u);
    else if (sscanf(text, "longtake-key %63s public %65s secret %65s %c", k->name, open, secret, &end) != 3 ||
             !hex_read(k->open, open) || !hex_read(k->secret, secret))
        rc = err_set(e, E_INPUT, "%s is no key file; longtake keygen -o FILE makes one", path);
    memset(text, 0, n);
    free(text);
    return rc;
}

// ---- those who may connect

static int line_read(struct chan_friend *f, const char *line, const char *path, int number, struct err *e)
{
    char name[CHAN_NAME_SIZE], key[DIGITS + 2], end;
    if (sscanf(line, "%63s %65s %c", name, key, &end) != 2 || !name_is_good(name) || !hex_read(f->open, key))
        return err_set(e, E_INPUT,
                       "%s, line %d is not a name and a public key of %d digits, as a .pub file of longtake "
                       "keygen has them",
                       path, number, DIGITS);
    snprintf(f->name, sizeof f->name, "%s", name);
    return 0;
}

int chan_friends_read(struct chan_friends *f, const char *path, struct err *e)
{
    char *text = NULL;
    size_t n;
    int rc = file_text(&text, &n, path, FILE_MAX, e), number = 0;
    *f = (struct chan_friends){0};
    char *rest = text;
    for (char *line; rc >= 0 && (line = strsep(&rest, "\n"));) {
        number++;
        if (line[strspn(line, " \t\r")] == 0 || strncmp(line, "# ", 2) == 0) continue;
        f->v = realloc(f->v, (size_t)(f->n + 1) * sizeof *f->v);
        BUG_IF(!f->v, "no memory for a key");
        rc = line_read(&f->v[f->n++], line, path, number, e);
    }
    free(text);
    if (rc >= 0) return 0;
    free(f->v);
    *f = (struct chan_friends){0};
    return rc == E_INPUT ? file_way(path, e) : rc;
}

int chan_friend_read(struct chan_friend *f, const char *path, struct err *e)
{
    struct chan_friends all;
    int rc = chan_friends_read(&all, path, e);
    if (rc >= 0 && all.n != 1)
        rc = err_set(e, E_INPUT, "%s has %d public keys, not one; give the .pub file of the other end", path, all.n);
    if (rc >= 0) *f = all.v[0];
    free(all.v);
    return rc;
}

const char *chan_friend_name(const struct chan_friends *f, const uint8_t open[CHAN_KEY_BYTES])
{
    for (int i = 0; i < f->n; i++)
        if (memcmp(f->v[i].open, open, CHAN_KEY_BYTES) == 0) return f->v[i].name;
    return NULL;
}
