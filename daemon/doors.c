// A door over TCP has a key and a list of those who may come in, or it was said by name that it has none (plain-tcp). A
// socket file has neither: who may come in is who may open it.
#include "daemon/doors.h"

#include <stdlib.h>
#include <string.h>

static bool is_tcp(const char *endpoint) { return strncmp(endpoint, "tcp://", 6) == 0; }

static int endpoint_check(const char *what, const char *endpoint, struct err *e)
{
    if (!endpoint) return 0;
    const char *port = strrchr(endpoint, ':');
    bool tcp = is_tcp(endpoint) && port > endpoint + 6 && port[1] && strspn(port + 1, "0123456789") == strlen(port + 1);
    bool ipc = strncmp(endpoint, "ipc:///", 7) == 0;
    if (tcp || ipc) return 0;
    return err_set(e, E_INPUT, "%s: '%s' is no place to listen; write tcp://ADDRESS:PORT or ipc:///PATH", what,
                   endpoint);
}

static int list_read(struct chan_friends *f, const char *door, const char *endpoint, const char *key, const char *path,
                     const struct config *c, struct err *e)
{
    if (!endpoint || !is_tcp(endpoint) || c->plain_tcp) return 0;
    if (!c->key || !path)
        return err_set(
            e, E_INPUT,
            "%s: %s is open to the network and wants keys: --key-file FILE and --%s FILE (longtake keygen makes "
            "them), or --plain-tcp, which lets in whoever reaches the port",
            door, endpoint, key);
    int rc = chan_friends_read(f, path, e);
    return rc < 0 ? err_wrap(e, "%s", key) : rc;
}

int doors_read(struct doors *d, const struct config *c, struct err *e)
{
    d->listen = c->listen;
    d->join = c->join;
    int rc = endpoint_check("listen", c->listen, e);
    if (rc >= 0) rc = endpoint_check("join", c->join, e);
    if (rc >= 0) rc = list_read(&d->clients, "listen", c->listen, "client-keys", c->client_keys, c, e);
    if (rc >= 0) rc = list_read(&d->workers, "join", c->join, "worker-keys", c->worker_keys, c, e);
    if (rc >= 0 && c->key && !c->plain_tcp) {
        rc = chan_key_read(&d->key, c->key, e);
        d->keyed = rc >= 0;
    }
    if (rc >= 0 && c->plain_tcp && c->key)
        rc = err_set(e, E_INPUT, "key-file and plain-tcp exclude each other; leave one of them out");
    if (rc >= 0 && c->groups == 0 && !c->join)
        rc = err_set(e, E_INPUT, "groups: 0 and no join: nothing would ever render; give --join ENDPOINT");
    return rc;
}

void doors_free(struct doors *d)
{
    free(d->clients.v);
    free(d->workers.v);
    memset(d, 0, sizeof *d);
}

static struct chan_options options(const struct doors *d, const char *endpoint, const struct chan_friends *f)
{
    bool keyed = d->keyed && endpoint && is_tcp(endpoint);
    return (struct chan_options){.own = keyed ? &d->key : NULL, .allowed = keyed ? f : NULL};
}

struct chan_options doors_client_options(const struct doors *d)
{
    struct chan_options o = options(d, d->listen, &d->clients);
    o.message_max = MSG_BLOB_MAX + (1 << 16);
    return o;
}

struct chan_options doors_worker_options(const struct doors *d) { return options(d, d->join, &d->workers); }
