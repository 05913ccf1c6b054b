// ZeroMQ sockets. A message is [peer] codec-frame bulk*; the bulk parts are received into zmq_msg_t that stay open
// until the next receive, so that nothing is copied on the way in.
//
// High-water marks are small: frames move under credit and pieces of voice one at a time, so a long queue could only
// hide a peer that no longer drinks. Linger is 0: what matters is on disk, never in a socket.
//
// Keys are CURVE's. Of a handshake that fails the connecting end learns from its socket's monitor; it would go on
// trying for ever, so chan_trouble says what is hopeless. Events that were not asked for wait in the monitor: one each
// growing pause of reconnecting, so they stay few.
#include "proto/chan.h"

#include "proto/chan_guard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { CHAN_PARTS = MSG_BULK_MAX + 2, CHAN_HWM = 64, CHAN_MESSAGE_MAX = 256 << 20 };
enum {
    RECONNECT_MS = 100,
    RECONNECT_MOST_MS = 32000,
    HANDSHAKE_MS = 5000,
    HEARTBEAT_MS = 1000,
    HEARTBEAT_DEAD_MS = 10000
};

struct chan {
    void *context, *socket, *monitor;
    struct guard *guard;
    bool router, keyed;
    char endpoint[256];
    zmq_msg_t part[CHAN_PARTS];
    int n_parts; // open ones
};

static void set_int(const struct chan *c, int option, int value)
{
    zmq_setsockopt(c->socket, option, &value, sizeof value);
}

static void settings(const struct chan *c, const struct chan_options *o)
{
    int64_t max = o->message_max ? o->message_max : CHAN_MESSAGE_MAX;
    set_int(c, ZMQ_LINGER, 0);
    set_int(c, ZMQ_SNDHWM, CHAN_HWM);
    set_int(c, ZMQ_RCVHWM, CHAN_HWM);
    zmq_setsockopt(c->socket, ZMQ_MAXMSGSIZE, &max, sizeof max);
    if (c->router) set_int(c, ZMQ_ROUTER_MANDATORY, 1);
    if (strncmp(c->endpoint, "tcp://", 6) != 0) return;
    set_int(c, ZMQ_IPV6, strchr(c->endpoint, '[') != NULL);
    set_int(c, ZMQ_RECONNECT_IVL, RECONNECT_MS);
    set_int(c, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MOST_MS);
    set_int(c, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    set_int(c, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS); // a line that was cut is no silence of the peer's
    set_int(c, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_DEAD_MS);
}

static int keys_set(struct chan *c, const struct chan_options *o, struct err *e)
{
    c->keyed = o->own != NULL;
    if (!o->own) return 0;
    if (c->router) {
        struct chan_friends nobody = {0};
        int rc = guard_open(&c->guard, c->context, e);
        if (rc < 0) return rc;
        guard_allow(c->guard, o->allowed ? o->allowed : &nobody);
        set_int(c, ZMQ_CURVE_SERVER, 1);
    } else
        zmq_setsockopt(c->socket, ZMQ_CURVE_SERVERKEY, o->server, CHAN_KEY_BYTES);
    int rc = zmq_setsockopt(c->socket, ZMQ_CURVE_PUBLICKEY, o->own->open, CHAN_KEY_BYTES);
    if (rc >= 0) rc = zmq_setsockopt(c->socket, ZMQ_CURVE_SECRETKEY, o->own->secret, CHAN_KEY_BYTES);
    return rc < 0 ? err_set(e, E_FATAL, "cannot use the key %s: %s; make another with longtake keygen", o->own->name,
                            zmq_strerror(errno))
                  : 0;
}

static void monitor_open(struct chan *c)
{
    const int events = ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED;
    if (zmq_socket_monitor(c->socket, "inproc://monitor", events) < 0) return;
    c->monitor = zmq_socket(c->context, ZMQ_PAIR);
    if (c->monitor) zmq_connect(c->monitor, "inproc://monitor");
}

static int chan_new(struct chan **out, int type, const char *endpoint, const struct chan_options *o, struct err *e)
{
    struct chan *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, E_FATAL, "no memory for a channel");
    c->router = type == ZMQ_ROUTER;
    snprintf(c->endpoint, sizeof c->endpoint, "%s", endpoint);
    c->context = zmq_ctx_new();
    c->socket = c->context ? zmq_socket(c->context, type) : NULL;
    int rc = c->socket ? 0
                       : err_set(e, E_FATAL, "cannot make a socket: %s; raise the limit of open files (ulimit -n)",
                                 zmq_strerror(errno));
    if (rc >= 0) settings(c, o);
    if (rc >= 0) rc = keys_set(c, o, e);
    if (rc >= 0 && !c->router) monitor_open(c);
    if (rc >= 0 && (c->router ? zmq_bind(c->socket, endpoint) : zmq_connect(c->socket, endpoint)) < 0)
        rc = errno == EADDRINUSE
                 ? err_set(e, E_FATAL, "another program listens on %s; end it or choose another port", endpoint)
                 : err_set(e, E_FATAL, "cannot %s %s: %s", c->router ? "bind" : "connect to", endpoint,
                           zmq_strerror(errno));
    if (rc < 0) {
        chan_close(&c);
        return rc;
    }
    *out = c;
    return 0;
}

int chan_bind_with(struct chan **out, const char *endpoint, const struct chan_options *o, struct err *e)
{
    return chan_new(out, ZMQ_ROUTER, endpoint, o, e);
}

int chan_connect_with(struct chan **out, const char *endpoint, const struct chan_options *o, struct err *e)
{
    return chan_new(out, ZMQ_DEALER, endpoint, o, e);
}

int chan_bind(struct chan **out, const char *endpoint, struct err *e)
{
    return chan_bind_with(out, endpoint, &(struct chan_options){0}, e);
}

int chan_connect(struct chan **out, const char *endpoint, struct err *e)
{
    return chan_connect_with(out, endpoint, &(struct chan_options){0}, e);
}

void chan_allow(struct chan *c, const struct chan_friends *allowed)
{
    if (c->guard) guard_allow(c->guard, allowed);
}

// ---- what went wrong with connecting

static int refusal(const struct chan *c, uint16_t event, struct err *e)
{
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        return err_set(e, E_INPUT, "%s does not know this key: its owner has to add the .pub line to its list",
                       c->endpoint);
    // Who closes first decides which of the other events is seen, so they say no more than that keys do not meet.
    if (c->keyed)
        return err_set(e, E_INPUT, "%s broke off: --server-key is not its public key, or it takes no keys",
                       c->endpoint);
    return err_set(e, E_INPUT,
                   "%s broke off: it wants a key (--key-file FILE, --server-key FILE.pub), or is another "
                   "program",
                   c->endpoint);
}

int chan_trouble(struct chan *c, struct err *e)
{
    int worst = 0;
    for (;;) {
        uint8_t what[6], where[256];
        if (!c->monitor || zmq_recv(c->monitor, what, sizeof what, ZMQ_DONTWAIT) < 0) return worst;
        zmq_recv(c->monitor, where, sizeof where, ZMQ_DONTWAIT);
        uint16_t event;
        memcpy(&event, what, sizeof event);
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            worst = 1;
        else if (event != ZMQ_EVENT_CONNECT_RETRIED)
            worst = refusal(c, event, e);
        else if (worst != E_INPUT)
            worst = err_set(e, E_LOST, "nobody answers at %s", c->endpoint);
    }
}

static void chan_drop(struct chan *c)
{
    while (c->n_parts > 0) zmq_msg_close(&c->part[--c->n_parts]);
}

void chan_close(struct chan **c)
{
    if (!*c) return;
    chan_drop(*c);
    if ((*c)->monitor) {
        zmq_socket_monitor((*c)->socket, NULL, 0);
        int zero = 0;
        zmq_setsockopt((*c)->monitor, ZMQ_LINGER, &zero, sizeof zero);
        zmq_close((*c)->monitor);
    }
    if ((*c)->socket) zmq_close((*c)->socket);
    if ((*c)->guard) zmq_ctx_shutdown((*c)->context); // ends its thread
    guard_close(&(*c)->guard);
    if ((*c)->context) zmq_ctx_term((*c)->context);
    free(*c);
    *c = NULL;
}

void chan_linger(struct chan *c, int ms) { zmq_setsockopt(c->socket, ZMQ_LINGER, &ms, sizeof ms); }

int chan_fd(const struct chan *c)
{
    int fd = -1;
    size_t n = sizeof fd;
    zmq_getsockopt(c->socket, ZMQ_FD, &fd, &n);
    return fd;
}

bool chan_ready(const struct chan *c)
{
    int events = 0;
    size_t n = sizeof events;
    zmq_getsockopt(c->socket, ZMQ_EVENTS, &events, &n);
    return events & ZMQ_POLLIN;
}

// Takes one whole multipart message into c->part. 1, 0 when there is none, E_INPUT when it has too many parts.
static int chan_take(struct chan *c, struct err *e)
{
    int more = 1, n_seen = 0;
    while (more) {
        zmq_msg_t *part = &c->part[c->n_parts];
        zmq_msg_init(part);
        if (zmq_msg_recv(part, c->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(part);
            if (errno == EAGAIN && n_seen == 0) return 0;
            return err_set(e, E_LOST, "the channel broke: %s", zmq_strerror(errno));
        }
        n_seen++;
        more = zmq_msg_more(part);
        if (c->n_parts == CHAN_PARTS - 1 && more)
            zmq_msg_close(part); // keep reading to the end, then refuse
        else
            c->n_parts++;
    }
    if (n_seen > c->n_parts) return err_set(e, E_INPUT, "a message of %d parts", n_seen);
    return 1;
}

int chan_recv(struct chan *c, struct msg *m, struct chan_peer *from, struct err *e)
{
    chan_drop(c);
    int rc = chan_take(c, e);
    if (rc <= 0) return rc;
    int at = 0;
    if (c->router) {
        size_t n = zmq_msg_size(&c->part[0]);
        if (n > CHAN_PEER_MAX || !from) return err_set(e, E_INPUT, "a peer name of %zu bytes", n);
        memcpy(from->id, zmq_msg_data(&c->part[0]), n);
        from->n = (int)n;
        at = 1;
    }
    if (c->n_parts <= at) return err_set(e, E_INPUT, "an empty message");
    struct msg_bulk bulk[MSG_BULK_MAX];
    int n_bulk = c->n_parts - at - 1;
    if (n_bulk > MSG_BULK_MAX) return err_set(e, E_INPUT, "a message with %d bulk parts", n_bulk);
    for (int i = 0; i < n_bulk; i++)
        bulk[i] = (struct msg_bulk){zmq_msg_data(&c->part[at + 1 + i]), zmq_msg_size(&c->part[at + 1 + i])};
    rc = msg_decode(m, zmq_msg_data(&c->part[at]), zmq_msg_size(&c->part[at]), bulk, n_bulk, e);
    return rc < 0 ? rc : 1;
}

static int chan_send_error(struct err *e)
{
    if (errno == EAGAIN) return err_set(e, E_BUSY, "the peer's queue is full");
    return err_set(e, E_LOST, "the peer is gone: %s", zmq_strerror(errno));
}

int chan_send(struct chan *c, const struct chan_peer *to, const struct msg *m, struct err *e)
{
    void *bytes;
    size_t n;
    // The first frame decides whether the whole message is taken: ZeroMQ sends all parts of a message or none.
    if (c->router && zmq_send(c->socket, to->id, (size_t)to->n, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return chan_send_error(e);
    msg_encode(m, &bytes, &n);
    int rc = zmq_send(c->socket, bytes, n, ZMQ_DONTWAIT | (m->n_bulk > 0 ? ZMQ_SNDMORE : 0));
    free(bytes);
    for (int i = 0; rc >= 0 && i < m->n_bulk; i++)
        rc = zmq_send(c->socket, m->bulk[i].data, m->bulk[i].n, ZMQ_DONTWAIT | (i + 1 < m->n_bulk ? ZMQ_SNDMORE : 0));
    return rc < 0 ? chan_send_error(e) : 0;
}
